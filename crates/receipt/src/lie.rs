//! What a cheating node would do to an answer before it signs it: for whoever shows that it is caught.

use crate::bundle::Bundle;
use crate::claims::Claims;
use crate::opening::Opening;
use crate::signed::sign;
use ed25519_dalek::SigningKey;

/// A lie about an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// Another token in the middle of the answer. The trace has to be computed anew behind it, or it tells at once.
    Answer,
    /// Another token in the prompt than the one that was asked, the trace as it was.
    Prompt,
    /// A bit of one position's trace.
    Trace,
    /// The answer ends early.
    Short,
}

impl Lie {
    /// Changes what a receipt of this opening would bind. Token ids stay below `vocabulary`.
    pub fn tell(self, opening: &mut Opening, vocabulary: u32) {
        let middle = opening.output.len() / 2;
        let other = |token: &mut u32| *token = (*token + 1) % vocabulary;
        match self {
            Lie::Answer => opening.output.get_mut(middle).into_iter().for_each(other),
            Lie::Prompt => opening.prompt.first_mut().into_iter().for_each(other),
            Lie::Trace => opening.leaves.get_mut(middle).into_iter().for_each(|leaf| leaf[0] ^= 1),
            Lie::Short => {
                let keep = middle.max(1);
                opening.leaves.truncate((opening.prompt.len() + keep).saturating_sub(1));
                opening.output.truncate(keep);
            }
        }
    }
}

/// Signs an opening as if it were what `claims` are about: hashes, counts and seed are the opening's, everything else they say
/// stays.
pub fn sign_as_if_true(claims: &Claims, opening: Opening, key: &SigningKey) -> Bundle {
    let claims = Claims {
        prompt: opening.prompt_hash(),
        settings: opening.settings_hash(),
        output: opening.output_hash(),
        prompt_tokens: opening.prompt.len() as u64,
        output_tokens: opening.output.len() as u64,
        seed: opening.settings.seed,
        trace: opening.trace_root(),
        ..claims.clone()
    };
    Bundle { receipt: sign(key, &claims), opening }
}
