//! Section 8 of the specification, transcribed on plain arrays.

use super::exp2::exp2;
use super::quantise::quantise;

/// Levels and scale of one key or value.
type Head = (Vec<i8>, f32);
type State = (f32, f32, Vec<f32>);

fn join(joined: &mut Option<State>, (m_b, l_b, o_b): State) {
    let Some((m, l, o)) = joined else {
        *joined = Some((m_b, l_b, o_b));
        return;
    };
    let larger = if m_b > *m { m_b } else { *m };
    let (alpha, beta) = (exp2(*m - larger), exp2(m_b - larger));
    *l = l.mul_add(alpha, l_b * beta);
    for (o, o_b) in o.iter_mut().zip(o_b) {
        *o = o.mul_add(alpha, o_b * beta);
    }
    *m = larger;
}

/// One query head over the keys and values by position; nothing if it fails.
pub(crate) fn attention(q: &[f32], k: &[Head], v: &[Head], p: usize, window: Option<usize>) -> Option<Vec<f32>> {
    let (d, (q, s_q)) = (q.len(), quantise(q, 32_639.0)?);
    let largest_power = (0..).map(|b| 1usize << b).take_while(|b| d.is_multiple_of(*b)).last().unwrap();
    let c = (std::f64::consts::LOG2_E / ((d as f64).sqrt() * largest_power as f64)) as f32;
    let visible = |j: &usize| *j <= p && window.is_none_or(|w| p < j + w);
    let mut total = None;
    for span in 0..=p / 1024 {
        let mut joined = None;
        for b in 16 * span..16 * span + 16 {
            let seen: Vec<usize> = (64 * b..64 * b + 64).filter(visible).collect();
            if seen.is_empty() {
                continue;
            }
            let score = |j: &usize| {
                let (k, s_k) = &k[*j];
                let sum: i64 = q.iter().zip(k).map(|(q, k)| i64::from(*q) * i64::from(*k)).sum();
                assert!(sum.abs() < 1 << 31, "the bound of section 8");
                sum as f32 * ((s_q * c) * s_k)
            };
            let t: Vec<f32> = seen.iter().map(score).collect();
            let m_b = t.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f32> = t.iter().map(|t| exp2(t - m_b)).collect();
            let l_b = weights.iter().map(|p| (p * 65_536.0).round_ties_even() as i64).sum::<i64>() as f32;
            let u: Vec<f32> = seen.iter().zip(&weights).map(|(j, p)| p * v[*j].1).collect();
            let (w, s_w) = quantise(&u, 32_639.0)?;
            let value = |i: usize| seen.iter().zip(&w).map(|(j, w)| i64::from(*w) * i64::from(v[*j].0[i])).sum::<i64>();
            join(&mut joined, (m_b, l_b, (0..d).map(|i| value(i) as f32 * s_w).collect()));
        }
        joined.into_iter().for_each(|joined| join(&mut total, joined));
    }
    let (_, l, o) = total?;
    let r = 65_536.0 / l;
    Some(o.iter().map(|o| o * r).collect())
}
