//! Draws the token after each of many positions.

use cpu::Pool;
use exact::sample::{Sampling, sample};
use exact::{Isa, NotFinite};
use std::sync::OnceLock;

/// Draws one token from each row of logits. The first stands at `position`, the number of tokens before it.
pub(crate) fn draw(
    isa: Isa,
    pool: &mut Pool,
    logits: &[&[f32]],
    sampling: &Sampling,
    position: usize,
) -> Vec<Result<u32, NotFinite>> {
    let drawn: Vec<OnceLock<Result<u32, NotFinite>>> = logits.iter().map(|_| OnceLock::new()).collect();
    pool.each(logits.len(), |_, row| {
        drawn[row].get_or_init(|| sample(isa, logits[row], sampling, (position + row) as u64));
    });
    drawn.into_iter().map(|token| token.into_inner().unwrap_or(Err(NotFinite))).collect()
}
