//! Drawing the next token (specification, section 12).

use crate::adjust::Mask;
use crate::elementary::{exp2, log2};
use crate::generator::{LANES, philox, philox_lanes};
use crate::kernels::versions;
use crate::quantise::NotFinite;
use std::cmp::Ordering;

/// How a token is drawn.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f64,
    /// Keep this many of the likeliest; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest until their probabilities reach this; 1 keeps all.
    pub top_p: f64,
    /// Keep those at least this likely relative to the likeliest; 0 keeps all.
    pub min_p: f64,
    /// Key of the generator.
    pub seed: u64,
}

impl Sampling {
    /// Always the likeliest token.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0 };
}

/// 2²⁴, the unit of probabilities and of top_p and min_p.
const UNIT: f64 = 16_777_216.0;

/// The count of a token (specification, section 12): its share of the likeliest's, in units of 2⁻²⁴.
#[inline(always)]
pub fn count_of(z: f32, z_max: f32) -> u64 {
    count_body(z, z_max)
}

/// What is added to a token's `z` before the largest is drawn (specification, section 12).
#[inline(always)]
pub fn noise_of(seed: u64, position: u64, id: usize) -> f32 {
    noise(seed, position, id)
}

#[inline(always)]
fn count_body(z: f32, z_max: f32) -> u64 {
    (exp2(z - z_max) * UNIT as f32).round_ties_even() as u64
}

#[inline(always)]
fn noise(seed: u64, position: u64, id: usize) -> f32 {
    let key = [seed as u32, (seed >> 32) as u32];
    noise_from(philox(key, [(id / 4) as u32, position as u32, (position >> 32) as u32, 0])[id % 4])
}

#[inline(always)]
fn noise_from(word: u32) -> f32 {
    let u = ((word >> 9) * 2 + 1) as f32 * f32::from_bits((127 - 24) << 23);
    -log2(-log2(u))
}

/// The largest of some numbers; of zeros, some zero.
#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    let of = |a: f32, x: f32| if x > a { x } else { a };
    let (parts, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for part in parts {
        for lane in 0..LANES {
            lanes[lane] = of(lanes[lane], part[lane]);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |a, x| of(a, *x))
}

#[inline(always)]
fn finite_max_body(logits: &[f32]) -> Result<(f32, f32), NotFinite> {
    let worst = logits.iter().fold(0u32, |worst, x| worst.max(x.to_bits() & 0x7fff_ffff));
    let max = largest(logits);
    if worst >= 0x7f80_0000 { Err(NotFinite) } else { Ok((max, f32::from_bits(worst))) }
}

versions! {
    /// The largest logit and the largest magnitude, if all are finite.
    fn finite_max(logits: &[f32]) -> Result<(f32, f32), NotFinite> = finite_max_body;
}

/// Ids whose noise comes from one set of lanes: four words a counter.
const TOGETHER: usize = 4 * LANES;

/// No noise is larger: its largest is that of the largest word, 23.5.
const NOISE_MAX: f32 = 24.0;

/// The noise of this word and of every smaller one is no larger: −log2(−log2 u) < −log2(1 − u) − 0.5.
#[inline(always)]
fn noise_bound(word: u32) -> f32 {
    // 1 − u in units of 2⁻²⁴.
    let rest = (1u32 << 24) - ((word >> 9) * 2 + 1);
    (24 - rest.ilog2()) as f32
}

/// Whether any of some numbers is such, without leaving early, so that they are looked at side by side.
#[inline(always)]
fn any(values: &[f32], such: impl Fn(f32) -> bool) -> bool {
    values.iter().fold(0u32, |found, x| found | u32::from(such(*x))) != 0
}

/// The largest score and its first token. `likeliest` has the largest logit.
#[inline(always)]
fn gumbel_body(logits: &[f32], likeliest: usize, tau: f32, seed: u64, position: u64) -> (f32, usize) {
    let key = [seed as u32, (seed >> 32) as u32];
    let mut best = (logits[likeliest] * tau + noise(seed, position, likeliest), likeliest);
    for (number, logits) in logits.chunks(TOGETHER).enumerate() {
        // Rounding keeps order: none reaches the best that would not with the largest noise.
        if !any(logits, |logit| logit * tau + NOISE_MAX >= best.0) {
            continue;
        }
        let words = philox_lanes(key, (number * LANES) as u32, position as u32, (position >> 32) as u32);
        let mut most = [0u32; LANES];
        for words in &words {
            for lane in 0..LANES {
                most[lane] = most[lane].max(words[lane]);
            }
        }
        let bound = noise_bound(most.into_iter().fold(0, u32::max));
        if !any(logits, |logit| logit * tau + bound >= best.0) {
            continue;
        }
        let mut scores = [f32::NEG_INFINITY; TOGETHER];
        for lane in 0..LANES {
            for (word, words) in words.iter().enumerate() {
                scores[4 * lane + word] = f32::from_bits(words[lane]);
            }
        }
        for score in &mut scores {
            *score = noise_from(score.to_bits());
        }
        for (score, logit) in scores.iter_mut().zip(logits) {
            *score += logit * tau;
        }
        let scores = &scores[..logits.len()];
        if any(scores, |score| score >= best.0) {
            let max = largest(scores);
            let id = number * TOGETHER + scores.iter().position(|score| *score == max).unwrap_or(0);
            if max > best.0 || id < best.1 {
                best = (max, id);
            }
        }
    }
    best
}

versions! {
    /// The largest of all tokens' scores and its first token.
    fn gumbel(logits: &[f32], likeliest: usize, tau: f32, seed: u64, position: u64) -> (f32, usize) = gumbel_body;
}

/// The rank: z descending, then id ascending.
fn by_rank(a: &(f32, usize), b: &(f32, usize)) -> Ordering {
    b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then(a.1.cmp(&b.1))
}

/// Draws the token that stands at `position`, the number of tokens before it. All logits must be finite, and
/// still be so once divided by the temperature.
pub fn sample(isa: crate::Isa, logits: &[f32], sampling: &Sampling, position: u64) -> Result<u32, NotFinite> {
    draw(isa, logits, None, sampling, position)
}

/// As [`sample`], among the tokens of `allowed`; none is all.
pub(crate) fn draw(
    isa: crate::Isa,
    logits: &[f32],
    allowed: Option<&Mask>,
    sampling: &Sampling,
    position: u64,
) -> Result<u32, NotFinite> {
    if logits.is_empty() {
        return Err(NotFinite);
    }
    let (max, magnitude) = finite_max(isa, logits)?;
    let first_of = |values: &[f32], max: f32| values.iter().position(|x| *x == max).unwrap_or(0) as u32;
    let among = |id: usize| allowed.is_none_or(|allowed| allowed.holds(id as u32));
    if sampling.temperature == 0.0 {
        if allowed.is_none() {
            return Ok(first_of(logits, max));
        }
        let candidates = logits.iter().enumerate().filter(|(id, _)| among(*id)).map(|(id, x)| (*x, id));
        return candidates.min_by(by_rank).map(|x| x.1 as u32).ok_or(NotFinite);
    }
    let tau = (std::f64::consts::LOG2_E / sampling.temperature) as f32;
    // Products of smaller magnitudes are no larger: all are finite if this one is.
    if !(magnitude * tau).is_finite() {
        return Err(NotFinite);
    }
    let (top_k, all) = (sampling.top_k as usize, logits.len());
    let narrowed = (top_k > 0 && top_k < all) || sampling.top_p < 1.0 || sampling.min_p > 0.0;
    if !narrowed && allowed.is_none() {
        let likeliest = first_of(logits, max) as usize;
        return Ok(gumbel(isa, logits, likeliest, tau, sampling.seed, position).1 as u32);
    }
    let mut kept: Vec<(f32, usize)> =
        logits.iter().enumerate().filter(|(id, _)| among(*id)).map(|(id, x)| (x * tau, id)).collect();
    let z_max = kept.iter().fold(f32::NEG_INFINITY, |a, x| if x.0 > a { x.0 } else { a });
    if top_k > 0 && top_k < kept.len() {
        kept.select_nth_unstable_by(top_k - 1, by_rank);
        kept.truncate(top_k);
    }
    if sampling.top_p < 1.0 {
        shortest_prefix(&mut kept, z_max, (sampling.top_p * UNIT).round_ties_even() as u64);
    }
    if sampling.min_p > 0.0 {
        let least = (sampling.min_p * UNIT).round_ties_even() as u64;
        let first = kept.iter().min_by(|a, b| by_rank(a, b)).copied();
        kept.retain(|x| count_body(x.0, z_max) >= least);
        if let (true, Some(first)) = (kept.is_empty(), first) {
            kept.push(first);
        }
    }
    let score = |x: &(f32, usize)| x.0 + noise(sampling.seed, position, x.1);
    let best = kept.iter().map(|x| (score(x), x.1)).min_by(by_rank);
    best.map(|x| x.1 as u32).ok_or(NotFinite)
}

/// Keeps the shortest prefix of the rank whose share of all counts reaches `share` / 2²⁴. Instead of sorting
/// everything, whole groups of equal rounded magnitude are taken until one straddles the border; only that one is sorted.
fn shortest_prefix(kept: &mut Vec<(f32, usize)>, z_max: f32, share: u64) {
    let total: u64 = kept.iter().map(|x| count_body(x.0, z_max)).sum();
    let need = u128::from(share) * u128::from(total);
    // Partition around ever smaller thresholds of z: 2⁻¹ of the likeliest, 2⁻², …
    let mut done = 0;
    let mut sum = 0u128;
    for step in 1..=26 {
        let bound = z_max - step as f32;
        let mut end = done;
        let mut group = 0u128;
        for i in done..kept.len() {
            if kept[i].0 >= bound || step == 26 {
                group += u128::from(count_body(kept[i].0, z_max));
                kept.swap(i, end);
                end += 1;
            }
        }
        if (sum + group) << 24 >= need {
            kept[done..end].sort_unstable_by(by_rank);
            let mut at = done;
            while at < end && (at == 0 || sum << 24 < need) {
                sum += u128::from(count_body(kept[at].0, z_max));
                at += 1;
            }
            kept.truncate(at.max(1));
            return;
        }
        sum += group;
        done = end;
    }
}

#[cfg(test)]
mod tests {
    use super::{NOISE_MAX, noise_bound, noise_from};

    #[test]
    fn no_noise_is_larger_than_its_bound() {
        let (mut largest, mut bound) = (f32::NEG_INFINITY, 0.0);
        for word in (0..1u32 << 23).map(|v| v << 9 | v & 0x1ff) {
            // Larger words have no smaller bounds, so that the largest word's is that of all.
            assert!(noise_bound(word) >= bound);
            bound = noise_bound(word);
            largest = noise_from(word).max(largest);
            assert!(largest < bound);
        }
        assert!(bound == NOISE_MAX && largest > NOISE_MAX - 1.0, "{largest}");
    }
}
