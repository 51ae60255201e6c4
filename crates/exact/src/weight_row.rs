//! Rows of weights become 8-bit levels with the best of sixteen scales (specification, section 1).

use crate::elementary::round_small;
use crate::kernels::versions;
use crate::norm::squares;
use crate::quantise::{NotFinite, TINY, level, magnitude_bits, scale_of};

/// Scales tried for a weight row.
const CANDIDATES: usize = 16;

#[inline(always)]
fn weight_row_body(x: &[f32], q: &mut [i8]) -> Result<f32, NotFinite> {
    let bits = magnitude_bits(x);
    scale_of(bits, 127.0)?;
    let a = f32::from_bits(bits);
    if a < TINY {
        q.fill(0);
        return Ok(0.0);
    }
    let errors = match x.len() {
        ..=16 => errors_of_short::<16>(x, a),
        17..=32 => errors_of_short::<32>(x, a),
        33..=64 => errors_of_short::<64>(x, a),
        _ => errors_of_long(x, a),
    };
    let mut best = 0;
    for i in 1..CANDIDATES {
        if errors[i] < errors[best] {
            best = i;
        }
    }
    let (multiplier, scale) = candidate(best, a);
    for (q, x) in q.iter_mut().zip(x) {
        *q = level(*x, multiplier, 127.0) as i8;
    }
    Ok(scale)
}

/// Multiplier and scale of a candidate for a row whose largest magnitude is `a`.
#[inline(always)]
fn candidate(i: usize, a: f32) -> (f32, f32) {
    let d = 127.4375 - 0.5 * i as f32;
    (d / a, a / d)
}

/// What a weight loses.
#[inline(always)]
fn residue(x: f32, multiplier: f32, scale: f32) -> f32 {
    let q = round_small((x * multiplier).max(-127.0).min(127.0)) as f32;
    (-scale).mul_add(q, x)
}

#[inline(always)]
fn errors_of_long(x: &[f32], a: f32) -> [f32; CANDIDATES] {
    let mut errors = [0.0; CANDIDATES];
    for i in 0..CANDIDATES {
        let (multiplier, scale) = candidate(i, a);
        errors[i] = squares(x.len(), |k| residue(x[k], multiplier, scale));
    }
    errors
}

/// The same for rows of at most N values, as an adapter's B has many of: zeros beyond the row lose nothing, so a fixed
/// number of lanes gives the same sums. Plain loops, because whatever is not inlined knows no vectors.
#[inline(always)]
fn errors_of_short<const N: usize>(x: &[f32], a: f32) -> [f32; CANDIDATES] {
    let mut padded = [0.0f32; N];
    padded[..x.len()].copy_from_slice(x);
    let mut errors = [0.0; CANDIDATES];
    for i in 0..CANDIDATES {
        let (multiplier, scale) = candidate(i, a);
        let mut lanes = [0.0f32; N];
        for l in 0..N {
            let residue = residue(padded[l], multiplier, scale);
            lanes[l] = residue * residue;
        }
        let mut half = N / 2;
        while half > 0 {
            for l in 0..half {
                lanes[l] += lanes[l + half];
            }
            half /= 2;
        }
        errors[i] = lanes[0];
    }
    errors
}

versions! {
    /// Quantises a weight row to 8 bits with the best of sixteen scales: levels into `q`, the scale returned.
    pub fn quantise_weights(x: &[f32], q: &mut [i8]) -> Result<f32, NotFinite> = weight_row_body;
}
