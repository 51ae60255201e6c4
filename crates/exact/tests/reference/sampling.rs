//! Section 12 of the specification, transcribed with a full sort.

use super::exp2::exp2;
use super::log2::log2;
use exact::sample::Sampling;

pub(crate) fn uniform(i: u64, position: u64, seed: u64) -> f32 {
    let words = |x: u64| (x & 0xffff_ffff, x >> 32);
    let ((mut k0, mut k1), (low, high)) = (words(seed), words(position));
    let mut c = [i / 4, low, high, 0];
    for _ in 0..10 {
        let ((l0, h0), (l1, h1)) = (words(c[0] * 0xD251_1F53), words(c[2] * 0xCD9E_8D57));
        c = [h1 ^ c[1] ^ k0, l1, h0 ^ c[3] ^ k1, l0];
        k0 = (k0 + 0x9E37_79B9) & 0xffff_ffff;
        k1 = (k1 + 0xBB67_AE85) & 0xffff_ffff;
    }
    let v = c[(i % 4) as usize];
    ((v >> 9) * 2 + 1) as f32 * 2f32.powi(-24)
}

/// The token, or nothing where a score is not finite.
pub(crate) fn naive(logits: &[f32], sampling: &Sampling, position: u64) -> Option<u32> {
    let ids = || 0..logits.len();
    // The largest of some tokens, the lower id among equals.
    let largest = |of: &[(usize, f32)]| {
        of.iter().fold(None, |best: Option<(usize, f32)>, x| match best {
            Some(b) if b.1 > x.1 || (b.1 == x.1 && b.0 < x.0) => best,
            _ => Some(*x),
        })
    };
    if sampling.temperature == 0.0 {
        let all: Vec<_> = ids().map(|i| (i, logits[i])).collect();
        return Some(largest(&all)?.0 as u32);
    }
    let tau = (std::f64::consts::LOG2_E / sampling.temperature) as f32;
    let z: Vec<f32> = logits.iter().map(|x| x * tau).collect();
    if z.iter().any(|z| !z.is_finite()) {
        return None;
    }
    let mut stay: Vec<usize> = ids().collect();
    // A stable sort keeps ascending ids among equals, −0 and +0 among them.
    stay.sort_by(|a, b| z[*b].partial_cmp(&z[*a]).unwrap());
    let z_max = z[stay[0]];
    if sampling.top_k > 0 {
        stay.truncate(sampling.top_k as usize);
    }
    let n = |i: usize| (exp2(z[i] - z_max) * 16_777_216.0).round_ties_even() as u128;
    if sampling.top_p < 1.0 {
        let share = (sampling.top_p * 16_777_216.0).round_ties_even() as u128;
        let need = share * stay.iter().map(|i| n(*i)).sum::<u128>();
        let (mut sum, mut length) = (0, 0);
        while length < 1 || sum << 24 < need {
            sum += n(stay[length]);
            length += 1;
        }
        stay.truncate(length);
    }
    if sampling.min_p > 0.0 {
        let least = (sampling.min_p * 16_777_216.0).round_ties_even() as u128;
        let first = stay[0];
        stay.retain(|i| *i == first || n(*i) >= least);
    }
    let score = |i: usize| z[i] - log2(-log2(uniform(i as u64, position, sampling.seed)));
    let scores: Vec<_> = stay.iter().map(|i| (*i, score(*i))).collect();
    Some(largest(&scores)?.0 as u32)
}
