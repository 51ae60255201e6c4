//! What else than the model's logits decides a token (specification, section 12): penalties, biases, and tokens that
//! may not be drawn.

use crate::sample::{Sampling, draw};
use crate::{Isa, NotFinite};

/// Changes to logits. The default changes nothing.
#[derive(Clone, PartialEq, Debug)]
pub struct Adjust {
    /// Logits of tokens in prompt or answer are divided by this if positive, multiplied otherwise; 1 changes nothing.
    pub repetition: f64,
    /// Subtracted from a token's logit for each time it occurs in the answer.
    pub frequency: f64,
    /// Subtracted from the logit of every token in the answer.
    pub presence: f64,
    /// Added to the logits of tokens, each named once, by ascending id.
    pub bias: Vec<(u32, f64)>,
}

impl Default for Adjust {
    fn default() -> Adjust {
        Adjust { repetition: 1.0, frequency: 0.0, presence: 0.0, bias: vec![] }
    }
}

impl Adjust {
    /// Whether logits stay as they are.
    pub fn is_nothing(&self) -> bool {
        self.repetition == 1.0 && self.frequency == 0.0 && self.presence == 0.0 && self.bias.is_empty()
    }

    /// Changes a row of logits that follows `prompt` and `answer`. Every id must have a logit; others are passed over.
    pub fn apply(&self, logits: &mut [f32], prompt: &[u32], answer: &[u32]) {
        if self.repetition != 1.0 {
            let factor = self.repetition as f32;
            let mut seen = Mask::none(logits.len());
            for id in prompt.iter().chain(answer) {
                if let (Some(logit), false) = (logits.get_mut(*id as usize), seen.holds(*id)) {
                    *logit = if *logit > 0.0 { *logit / factor } else { *logit * factor };
                    seen.add(*id);
                }
            }
        }
        if self.frequency != 0.0 || self.presence != 0.0 {
            let mut answer = answer.to_vec();
            answer.sort_unstable();
            for same in answer.chunk_by(|a, b| a == b) {
                if let Some(logit) = logits.get_mut(same[0] as usize) {
                    *logit -= same.len() as f32 * self.frequency as f32;
                    *logit -= self.presence as f32;
                }
            }
        }
        for (id, bias) in &self.bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += *bias as f32;
            }
        }
    }
}

/// A set of token ids, one bit each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mask(Vec<u32>);

impl Mask {
    /// The empty set, with room for ids below `vocabulary`.
    pub fn none(vocabulary: usize) -> Mask {
        Mask(vec![0; vocabulary.div_ceil(32)])
    }

    /// From words of 32 ids each, the lowest bit first.
    pub fn from_words(words: Vec<u32>) -> Mask {
        Mask(words)
    }

    /// Adds an id. One that there is no room for is passed over.
    pub fn add(&mut self, id: u32) {
        if let Some(word) = self.0.get_mut(id as usize / 32) {
            *word |= 1 << (id % 32);
        }
    }

    /// Whether an id is in the set.
    pub fn holds(&self, id: u32) -> bool {
        self.0.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }
}

/// What a draw is made under, beside the sampler's settings. The default is nothing.
#[derive(Clone, Copy, Default, Debug)]
pub struct Choice<'a> {
    /// Changes to logits.
    pub adjust: Option<&'a Adjust>,
    /// Tokens before the answer.
    pub prompt: &'a [u32],
    /// Tokens of the answer so far.
    pub answer: &'a [u32],
    /// Only these may be drawn; none is all.
    pub allowed: Option<&'a Mask>,
    /// These may not.
    pub banned: &'a [u32],
}

impl Choice<'_> {
    /// Whether the draw is the sampler's alone.
    pub fn is_nothing(&self) -> bool {
        self.adjust.is_none_or(Adjust::is_nothing) && self.allowed.is_none() && self.banned.is_empty()
    }

    fn mask(&self, vocabulary: usize) -> Option<Mask> {
        if self.banned.is_empty() {
            return self.allowed.cloned();
        }
        let mut mask = self.allowed.cloned().unwrap_or_else(|| Mask(vec![u32::MAX; vocabulary.div_ceil(32)]));
        for id in self.banned {
            if let Some(word) = mask.0.get_mut(*id as usize / 32) {
                *word &= !(1 << (id % 32));
            }
        }
        Some(mask)
    }
}

/// As [`crate::sample::sample`], under `choice`. Also fails if no token may be drawn.
pub fn sample_under(
    isa: Isa,
    logits: &[f32],
    sampling: &Sampling,
    choice: &Choice<'_>,
    position: u64,
) -> Result<u32, NotFinite> {
    let mask = choice.mask(logits.len());
    match choice.adjust.filter(|adjust| !adjust.is_nothing()) {
        None => draw(isa, logits, mask.as_ref(), sampling, position),
        Some(adjust) => {
            let mut logits = logits.to_vec();
            adjust.apply(&mut logits, choice.prompt, choice.answer);
            draw(isa, &logits, mask.as_ref(), sampling, position)
        }
    }
}
