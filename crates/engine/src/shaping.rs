//! What an answer's tokens are drawn under, beside the sampler's settings.

use crate::request::Refusal;
use exact::adjust::{Adjust, Choice};
use grammar::Grammar;
use std::sync::Arc;

/// Penalties, biases, form, and what is told about tokens. The default is nothing of it.
#[derive(Clone, Default)]
pub struct Shaping {
    /// Changes to logits.
    pub adjust: Adjust,
    /// No stop token is drawn before the answer has this many tokens.
    pub tokens_min: usize,
    /// What the answer is held to. Not together with `tokens_min`.
    pub form: Option<Arc<Grammar>>,
    /// Whether tokens are told with their likelihood, and how many of the likeliest with them.
    pub top_logprobs: Option<usize>,
}

impl Shaping {
    /// Whether it can be, for a vocabulary of so many tokens.
    pub(crate) fn check(&self, vocabulary: usize, stop_tokens: &[u32]) -> Result<(), Refusal> {
        let adjust = &self.adjust;
        if !(adjust.repetition.is_finite() && adjust.repetition > 0.0) {
            return Err(Refusal::Shaping("the repetition penalty must be a number above 0"));
        }
        if !adjust.frequency.is_finite() || !adjust.presence.is_finite() {
            return Err(Refusal::Shaping("penalties must be numbers"));
        }
        if !adjust.bias.is_sorted_by(|a, b| a.0 < b.0) || !adjust.bias.iter().all(|(_, bias)| bias.is_finite()) {
            return Err(Refusal::Shaping("biases must be numbers, by ascending token"));
        }
        if let Some((id, _)) = adjust.bias.iter().find(|(id, _)| *id as usize >= vocabulary) {
            return Err(Refusal::UnknownToken(*id, vocabulary));
        }
        if self.form.is_some() && self.tokens_min > 0 {
            return Err(Refusal::Shaping(
                "an answer that is held to a form ends where the form does: ask for no least length",
            ));
        }
        if self.tokens_min > 0 && stop_tokens.len() >= vocabulary {
            return Err(Refusal::Shaping("every token is a stop token"));
        }
        Ok(())
    }

    /// What the token after `prompt` and `answer` is drawn under, but for the mask of its form.
    pub(crate) fn choice<'a>(&'a self, prompt: &'a [u32], answer: &'a [u32], stop_tokens: &'a [u32]) -> Choice<'a> {
        let banned = if answer.len() < self.tokens_min { stop_tokens } else { &[] };
        let adjust = (!self.adjust.is_nothing()).then_some(&self.adjust);
        Choice { adjust, prompt, answer, allowed: None, banned }
    }
}
