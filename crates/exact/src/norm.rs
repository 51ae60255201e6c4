//! RMSNorm with its one short float reduction in a written order (specification, section 4), and the element-wise
//! steps around it.

use crate::elementary::silu;
use crate::kernels::versions;

const LANES: usize = 128;

/// The sum of squares of `n` values, in the written order: 128 lanes, then halves folded onto halves.
#[inline(always)]
pub(crate) fn squares(n: usize, value: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for part in 0..n / LANES {
        for (l, lane) in lanes.iter_mut().enumerate() {
            let x = value(part * LANES + l);
            *lane = x.mul_add(x, *lane);
        }
    }
    for (l, lane) in lanes.iter_mut().enumerate().take(n % LANES) {
        let x = value(n / LANES * LANES + l);
        *lane = x.mul_add(x, *lane);
    }
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            lanes[l] += lanes[l + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn rms_norm_body(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) {
    let sum = squares(x.len(), |i| x[i]);
    let r = 1.0 / (sum / x.len() as f32 + eps).sqrt();
    for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
        *y = (x * r) * w;
    }
}

versions! {
    /// `y = rmsnorm(x) · weight`. All three have the same length.
    pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, y: &mut [f32]) = rms_norm_body;
}

#[inline(always)]
fn add_body(x: &mut [f32], y: &[f32]) {
    for (x, y) in x.iter_mut().zip(y) {
        *x += y;
    }
}

versions! {
    /// `x = x + y`: the residual.
    pub fn add(x: &mut [f32], y: &[f32]) = add_body;
}

#[inline(always)]
fn gated_body(gate: &[f32], up: &[f32], y: &mut [f32]) {
    for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
        *y = silu(*g) * u;
    }
}

versions! {
    /// `y = silu(gate) · up`: the middle of a gated MLP.
    pub fn gated(gate: &[f32], up: &[f32], y: &mut [f32]) = gated_body;
}

#[inline(always)]
fn add_weighted_body(y: &mut [f32], d: &[f32], weight: f32, first: bool) {
    if first {
        for (y, d) in y.iter_mut().zip(d) {
            *y = d * weight;
        }
    } else {
        for (y, d) in y.iter_mut().zip(d) {
            *y = d.mul_add(weight, *y);
        }
    }
}

versions! {
    /// An expert's output added with its weight; the `first` starts the sum (specification, section 10).
    pub fn add_weighted(y: &mut [f32], d: &[f32], weight: f32, first: bool) = add_weighted_body;
}
