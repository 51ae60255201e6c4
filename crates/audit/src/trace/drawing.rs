//! How the token after a position is drawn.

use crate::form::Form;
use exact::adjust::{Adjust, Mask};
use exact::sample::Sampling;
use receipt::Opening;
use std::sync::Arc;

/// Settings of the sampler, and what else decides the token.
#[derive(Clone, PartialEq, Debug)]
pub struct Draw {
    /// Settings of the sampler.
    pub sampling: Sampling,
    /// Penalties, biases and what may be drawn; none if nothing but the sampler decides.
    pub shaping: Option<Arc<Shaping>>,
}

/// Changes to logits, as a function of the tokens before, and the tokens that may be drawn.
#[derive(Clone, PartialEq, Debug)]
pub struct Shaping {
    /// Penalties and biases.
    pub adjust: Adjust,
    /// Tokens before the answer.
    pub prompt: Vec<u32>,
    /// Tokens of the answer so far.
    pub answer: Vec<u32>,
    /// Only these may be drawn; none is all.
    pub allowed: Option<Mask>,
}

impl From<Sampling> for Draw {
    fn from(sampling: Sampling) -> Draw {
        Draw { sampling, shaping: None }
    }
}

impl Draw {
    /// How the token after a position of an answer without form was drawn; none within the prompt.
    pub fn after(opening: &Opening, position: usize, vocabulary: usize) -> Option<Draw> {
        let number = (position + 1).checked_sub(opening.prompt.len())?;
        Some(Draw::of(opening, number, &Form::default(), vocabulary))
    }

    /// Of the answer's token of this number, its form followed up to there.
    pub(crate) fn of(opening: &Opening, number: usize, form: &Form, vocabulary: usize) -> Draw {
        let settings = &opening.settings;
        let sampling = crate::check::sampling(settings);
        let adjust = crate::draw::adjust(settings);
        let early = (number as u64) < settings.shaping.tokens_min;
        let mut allowed = form.allowed(number).cloned();
        if early && !settings.stop_tokens.is_empty() {
            let mut mask = Mask::none(vocabulary);
            let may =
                |id: &u32| !settings.stop_tokens.contains(id) && form.allowed(number).is_none_or(|m| m.holds(*id));
            (0..vocabulary as u32).filter(may).for_each(|id| mask.add(id));
            allowed = Some(mask);
        }
        if adjust.is_nothing() && allowed.is_none() {
            return sampling.into();
        }
        let (prompt, answer) = (opening.prompt.clone(), opening.output[..number].to_vec());
        Draw { sampling, shaping: Some(Arc::new(Shaping { adjust, prompt, answer, allowed })) }
    }

    /// Whether a token may be drawn.
    pub(crate) fn allows(&self, id: usize) -> bool {
        let mask = self.shaping.as_ref().and_then(|shaping| shaping.allowed.as_ref());
        mask.is_none_or(|mask| mask.holds(id as u32))
    }

    /// Changes to logits, if there are any.
    pub(crate) fn adjusting(&self) -> Option<&Shaping> {
        self.shaping.as_deref().filter(|shaping| !shaping.adjust.is_nothing())
    }

    /// Whether settings cut the rank of so many tokens, so that borders are needed: by top_k, by top_p.
    pub(crate) fn cuts(&self, vocabulary: usize) -> (bool, bool) {
        let Sampling { temperature, top_k, top_p, .. } = self.sampling;
        if temperature == 0.0 {
            return (false, false);
        }
        let masked = self.shaping.as_ref().is_some_and(|shaping| shaping.allowed.is_some());
        let all = if masked { (0..vocabulary).filter(|id| self.allows(*id)).count() } else { vocabulary };
        (top_k > 0 && (top_k as usize) < all, top_p < 1.0)
    }
}
