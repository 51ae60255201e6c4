//! The smallest steps of the arithmetic, one value or one short row at a time, in plain code: what a referee computes
//! by itself when two parties differ, and what a trace is regenerated from. `docs/arithmetic.md` names each.

use crate::quantise::{NotFinite, magnitude_bits, scale_of};

/// Lanes of the one short float reduction (specification, section 4).
pub const LANES: usize = 128;

/// Takes the values that follow `lanes`' last ones into the lanes; a multiple of [`LANES`] values came before.
pub fn take_squares(lanes: &mut [f32; LANES], values: &[f32]) {
    for part in values.chunks(LANES) {
        for (lane, x) in lanes.iter_mut().zip(part) {
            *lane = x.mul_add(*x, *lane);
        }
    }
}

/// Folds the lanes and gives what each of `count` values is multiplied with: 1 / √(Σ / count + eps).
pub fn norm_multiplier(lanes: &[f32; LANES], count: usize, eps: f32) -> f32 {
    let mut lanes = *lanes;
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
        half /= 2;
    }
    1.0 / (lanes[0] / count as f32 + eps).sqrt()
}

/// The largest magnitude of some values, as the bits of a binary32 (specification, section 1).
pub fn peak(values: &[f32]) -> u32 {
    magnitude_bits(values)
}

/// Multiplier and scale of a row whose largest magnitude has these bits; `largest` is 127 or 32,639.
pub fn multiplier_and_scale(peak: u32, largest: f32) -> Result<(f32, f32), NotFinite> {
    scale_of(peak, largest)
}

/// The level of one value.
pub fn level(x: f32, multiplier: f32, largest: f32) -> i32 {
    crate::quantise::level(x, multiplier, largest)
}

/// High and low digit of a 16-bit level.
pub fn digits(level: i32) -> (i32, i32) {
    crate::quantise::digits(level)
}

/// A sum that may be kept in 16-bit digits' two sums becomes a float: `high` alone, or `high * 256 + low`.
pub fn joined(high: i64, low: Option<i64>) -> f32 {
    match low {
        None => high as f32,
        Some(low) => high as f32 * 256.0 + low as f32,
    }
}
