//! Logarithms of probabilities (specification, section 13).

use crate::elementary::{LOG2_E, exp2, log2};
use crate::kernels::versions;
use crate::{Isa, NotFinite};
use std::cmp::Ordering;

/// 2⁴⁰, the unit of the counts.
const UNIT: f32 = 1_099_511_627_776.0;
/// ln(2), rounded to binary32.
const LN_2: f32 = f32::from_bits(0x3f31_7218);

/// How likely a drawn token was, and which were likelier.
#[derive(Clone, PartialEq, Debug)]
pub struct Logprobs {
    /// Of the token asked about.
    pub of_token: f32,
    /// Tokens with the largest logits, the largest first, equals by ascending id.
    pub top: Vec<(u32, f32)>,
}

#[inline(always)]
fn total_body(logits: &[f32], max: f32) -> u64 {
    logits.iter().map(|x| (exp2((x - max) * LOG2_E) * UNIT).round_ties_even() as u64).sum()
}

versions! {
    /// The sum of all counts.
    fn total(logits: &[f32], max: f32) -> u64 = total_body;
}

/// Natural logarithms of the probabilities that the model gives: of `token`, and of the `top` likeliest. Logits are
/// those of the model, before penalties, biases, temperature and masks. There are at most 2²³ of them, all finite.
pub fn logprobs(isa: Isa, logits: &[f32], token: u32, top: usize) -> Result<Logprobs, NotFinite> {
    if !logits.iter().all(|x| x.is_finite()) {
        return Err(NotFinite);
    }
    let max = logits.iter().fold(f32::NEG_INFINITY, |a, x| if *x > a { *x } else { a });
    let offset = log2(total(isa, logits, max) as f32 / UNIT) * LN_2;
    let of = |x: f32| (x - max) - offset;
    let drawn = logits.get(token as usize).ok_or(NotFinite)?;
    let mut ranked: Vec<(f32, u32)> = logits.iter().zip(0..).map(|(x, id)| (*x, id)).collect();
    let by_rank = |a: &(f32, u32), b: &(f32, u32)| b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1));
    if top > 0 && top < ranked.len() {
        ranked.select_nth_unstable_by(top - 1, by_rank);
    }
    ranked.truncate(top);
    ranked.sort_unstable_by(by_rank);
    Ok(Logprobs { of_token: of(*drawn), top: ranked.into_iter().map(|(x, id)| (id, of(x))).collect() })
}
