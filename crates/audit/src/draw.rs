//! Draws the token after each of many positions.

use crate::form::Form;
use cpu::Pool;
use exact::adjust::{Adjust, Choice, sample_under};
use exact::sample::Sampling;
use exact::{Isa, NotFinite};
use receipt::{Opening, Settings};
use std::sync::OnceLock;

/// The part of settings that changes logits.
pub(crate) fn adjust(settings: &Settings) -> Adjust {
    let shaping = &settings.shaping;
    Adjust {
        repetition: shaping.repetition,
        frequency: shaping.frequency,
        presence: shaping.presence,
        bias: shaping.bias.clone(),
    }
}

/// How the tokens of an answer are drawn.
pub(crate) struct Drawing<'a> {
    isa: Isa,
    opening: &'a Opening,
    sampling: Sampling,
    adjust: Adjust,
    form: Form,
}

impl<'a> Drawing<'a> {
    pub(crate) fn new(isa: Isa, opening: &'a Opening, form: Form) -> Drawing<'a> {
        let settings = &opening.settings;
        Drawing { isa, opening, sampling: crate::check::sampling(settings), adjust: adjust(settings), form }
    }

    /// Draws one token from each row of logits, the answer's tokens from number `first` on, each after the answer that
    /// is claimed up to it.
    pub(crate) fn draw(&self, pool: &mut Pool, logits: &[&[f32]], first: usize) -> Vec<Result<u32, NotFinite>> {
        let drawn: Vec<OnceLock<Result<u32, NotFinite>>> = logits.iter().map(|_| OnceLock::new()).collect();
        pool.each(logits.len(), |_, row| {
            drawn[row].get_or_init(|| self.one(logits[row], first + row));
        });
        drawn.into_iter().map(|token| token.into_inner().unwrap_or(Err(NotFinite))).collect()
    }

    /// Draws the answer's token of this number.
    pub(crate) fn one(&self, logits: &[f32], number: usize) -> Result<u32, NotFinite> {
        let Opening { prompt, output, settings, .. } = self.opening;
        let early = (number as u64) < settings.shaping.tokens_min;
        let choice = Choice {
            adjust: Some(&self.adjust),
            prompt,
            answer: &output[..number],
            allowed: self.form.allowed(number),
            banned: if early { &settings.stop_tokens } else { &[] },
        };
        sample_under(self.isa, logits, &self.sampling, &choice, (prompt.len() + number) as u64)
    }
}
