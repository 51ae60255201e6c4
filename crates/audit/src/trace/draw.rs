//! Drawing the next token, chunk by chunk of the vocabulary (specification, section 12). Where settings cut the rank, the
//! last tokens that stay (`Borders`) are given by whoever sorted; counting shows whether they are right.

use crate::trace::CHUNK;
use crate::trace::compute::{Inputs, floats, write};
use crate::trace::drawing::Draw;
use crate::trace::program::Borders;
use crate::trace::source::Missing;
use exact::sample::{Sampling, count_of, noise_of};
use std::ops::Range;

/// Drawn where no token can be.
const NONE: u32 = u32::MAX;
/// 2²⁴, the unit of probabilities.
const UNIT: f64 = 16_777_216.0;

fn chunk(inputs: &Inputs<'_>, row: usize) -> Result<Range<usize>, Missing> {
    Ok(row * CHUNK..((row + 1) * CHUNK).min(inputs.count(0)?))
}

fn draw_of<'a>(inputs: &Inputs<'a>) -> Result<&'a Draw, Missing> {
    inputs.program.draw.as_ref().ok_or(Missing("settings"))
}

fn sampling(inputs: &Inputs<'_>) -> Result<Sampling, Missing> {
    Ok(draw_of(inputs)?.sampling)
}

pub(crate) fn tau(sampling: &Sampling) -> f32 {
    (std::f64::consts::LOG2_E / sampling.temperature) as f32
}

fn word(bytes: &[u8], at: usize) -> Result<u32, Missing> {
    bytes.as_chunks::<4>().0.get(at).map(|word| u32::from_le_bytes(*word)).ok_or(Missing("a record is too short"))
}

/// A chunk of logits with penalties and biases: each is changed by itself, as the tokens before say.
pub(crate) fn shaped(inputs: &Inputs<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let shaping = draw_of(inputs)?.adjusting().ok_or(Missing("penalties"))?;
    let (all, chunk) = (inputs.count(0)?, chunk(inputs, row)?);
    let mut logits = vec![0.0; all];
    logits[chunk.clone()].copy_from_slice(&inputs.floats(0, chunk.clone())?);
    shaping.adjust.apply(&mut logits, &shaping.prompt, &shaping.answer);
    write(&logits[chunk], out);
    Ok(())
}

/// Largest logit that may be drawn, and bits of the largest magnitude, of a chunk.
pub(crate) fn tops(inputs: &Inputs<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let (draw, chunk) = (draw_of(inputs)?, chunk(inputs, row)?);
    let logits = inputs.floats(0, chunk.clone())?;
    let may = chunk.zip(&logits).filter(|(id, _)| draw.allows(*id)).map(|(_, x)| *x);
    write(&[may.fold(f32::NEG_INFINITY, |max, x| if x > max { x } else { max })], out);
    out.extend(exact::steps::peak(&logits).to_le_bytes());
    Ok(())
}

/// Largest logit of all, bits of the largest magnitude, and 1 if a token can be drawn.
pub(crate) fn top(inputs: &Inputs<'_>, out: &mut Vec<u8>) -> Result<(), Missing> {
    let (mut max, mut peak) = (f32::NEG_INFINITY, 0);
    for record in inputs.elements(0, 0..inputs.count(0)?)?.chunks_exact(8) {
        let x = f32::from_bits(word(record, 0)?);
        max = if x > max { x } else { max };
        peak = peak.max(word(record, 1)?);
    }
    let sampling = sampling(inputs)?;
    let hot = sampling.temperature == 0.0 || (f32::from_bits(peak) * tau(&sampling)).is_finite();
    write(&[max], out);
    out.extend(peak.to_le_bytes());
    let some = max > f32::NEG_INFINITY;
    out.extend(u32::from(peak < 0x7f80_0000 && hot && some).to_le_bytes());
    Ok(())
}

/// The first token of a chunk whose logit is the largest of all.
pub(crate) fn firsts(inputs: &Inputs<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let chunk = chunk(inputs, row)?;
    let max = f32::from_bits(word(&inputs.elements(1, 0..1)?, 0)?);
    let (draw, logits) = (draw_of(inputs)?, inputs.floats(0, chunk.clone())?);
    let found = chunk.zip(logits).find(|(id, x)| *x == max && draw.allows(*id));
    out.extend(found.map_or(NONE, |(id, _)| id as u32).to_le_bytes());
    Ok(())
}

/// What of the rank stays, and how tokens count.
struct Rank {
    tau: f32,
    z_max: f32,
    /// z and id of the last that top_k leaves, and of the last that top_p leaves.
    borders: [Option<(f32, usize)>; 2],
    /// Counts below this do not stay.
    least: u64,
}

impl Rank {
    fn read(inputs: &Inputs<'_>, logits: usize, z_max: f32) -> Result<Rank, Missing> {
        let (draw, Borders { top_k, top_p }) = (draw_of(inputs)?, inputs.program.borders);
        let sampling = draw.sampling;
        let (by_count, by_share) = draw.cuts(inputs.count(logits)?);
        let tau = tau(&sampling);
        let border = |cut: bool, id: Option<u32>| -> Result<Option<(f32, usize)>, Missing> {
            if !cut {
                return Ok(None);
            }
            let id = id.ok_or(Missing("a border"))? as usize;
            Ok(Some((inputs.float(logits, id)? * tau, id)))
        };
        let borders = [border(by_count, top_k)?, border(by_share, top_p)?];
        let least = (sampling.min_p * UNIT).round_ties_even() as u64;
        Ok(Rank { tau, z_max: z_max * tau, borders, least })
    }

    /// Whether a token stands at the border or before it.
    fn within(border: Option<(f32, usize)>, z: f32, id: usize) -> bool {
        border.is_none_or(|(z_b, id_b)| z > z_b || (z == z_b && id <= id_b))
    }
}

/// Of a chunk: tokens up to the border of top_k, their counts, counts up to the border of top_p, counts before it.
pub(crate) fn tallies(inputs: &Inputs<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let rank = Rank::read(inputs, 0, f32::from_bits(word(&inputs.elements(1, 0..1)?, 0)?))?;
    let (draw, chunk) = (draw_of(inputs)?, chunk(inputs, row)?);
    let mut tally = [0u64; 4];
    for (id, x) in chunk.clone().zip(inputs.floats(0, chunk)?) {
        let z = x * rank.tau;
        if !draw.allows(id) || !Rank::within(rank.borders[0], z, id) {
            continue;
        }
        let n = count_of(z, rank.z_max);
        tally[0] += 1;
        tally[1] = tally[1].wrapping_add(n);
        if Rank::within(rank.borders[1], z, id) {
            tally[2] = tally[2].wrapping_add(n);
            if rank.borders[1].is_some_and(|(_, border)| border != id) {
                tally[3] = tally[3].wrapping_add(n);
            }
        }
    }
    tally.iter().for_each(|number| out.extend(number.to_le_bytes()));
    Ok(())
}

/// 1 if the borders are where the settings put them. Sources: tallies, logits.
pub(crate) fn border(inputs: &Inputs<'_>, out: &mut Vec<u8>) -> Result<(), Missing> {
    let sampling = sampling(inputs)?;
    let rank = Rank::read(inputs, 1, 0.0)?;
    let mut tally = [0u128; 4];
    for record in inputs.elements(0, 0..inputs.count(0)?)?.chunks_exact(32) {
        for (sum, number) in tally.iter_mut().zip(record.as_chunks::<8>().0) {
            *sum += u128::from(u64::from_le_bytes(*number));
        }
    }
    // Tokens that may not be drawn are not in the rank, so no border stands at one.
    let draw = draw_of(inputs)?;
    let mut right = rank.borders.iter().flatten().all(|(_, id)| draw.allows(*id));
    if rank.borders[0].is_some() {
        right &= tally[0] == u128::from(sampling.top_k);
    }
    if let Some((z, id)) = rank.borders[1] {
        let share = (sampling.top_p * UNIT).round_ties_even() as u128;
        let need = share * tally[1];
        // Stays within top_k, reaches the share, and nothing shorter does: but for the first of the rank, whose count is the largest there
        // is, so that only then nothing counts before it.
        right &= Rank::within(rank.borders[0], z, id);
        right &= tally[2] << 24 >= need;
        right &= tally[3] == 0 || tally[3] << 24 < need;
    }
    out.extend(u32::from(right).to_le_bytes());
    Ok(())
}

/// Score and id of the best token of a chunk among those that stay.
pub(crate) fn bests(inputs: &Inputs<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let (draw, chunk) = (draw_of(inputs)?, chunk(inputs, row)?);
    let rank = Rank::read(inputs, 0, f32::from_bits(word(&inputs.elements(1, 0..1)?, 0)?))?;
    let next = inputs.program.position as u64 + 1;
    let mut best = (f32::NEG_INFINITY, NONE);
    for (id, x) in chunk.clone().zip(inputs.floats(0, chunk)?) {
        let z = x * rank.tau;
        let stays = draw.allows(id)
            && rank.borders.iter().all(|border| Rank::within(*border, z, id))
            && (rank.least == 0 || count_of(z, rank.z_max) >= rank.least);
        if stays {
            let score = z + noise_of(draw.sampling.seed, next, id);
            if best.1 == NONE || score > best.0 {
                best = (score, id as u32);
            }
        }
    }
    write(&[best.0], out);
    out.extend(best.1.to_le_bytes());
    Ok(())
}

/// The token, or none if no token can be drawn. Sources: firsts or bests, top.
pub(crate) fn drawn(inputs: &Inputs<'_>, out: &mut Vec<u8>) -> Result<(), Missing> {
    let records = inputs.elements(0, 0..inputs.count(0)?)?;
    let token = if word(&inputs.elements(1, 0..1)?, 2)? == 0 {
        NONE
    } else if sampling(inputs)?.temperature == 0.0 {
        records.as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id)).min().unwrap_or(NONE)
    } else {
        let mut best = (f32::NEG_INFINITY, NONE);
        for record in records.chunks_exact(8) {
            let (score, id) = (f32::from_bits(word(record, 0)?), word(record, 1)?);
            if id != NONE && (best.1 == NONE || score > best.0) {
                best = (score, id);
            }
        }
        best.1
    };
    out.extend(token.to_le_bytes());
    Ok(())
}

/// The borders that settings put into these logits.
pub(crate) fn borders(logits: &[f32], draw: &Draw) -> Borders {
    let (sampling, (by_count, by_share)) = (&draw.sampling, draw.cuts(logits.len()));
    if !(by_count || by_share) {
        return Borders::default();
    }
    let tau = tau(sampling);
    let allowed = logits.iter().enumerate().filter(|(id, _)| draw.allows(*id));
    let mut rank: Vec<(f32, u32)> = allowed.map(|(id, x)| (x * tau, id as u32)).collect();
    rank.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap_or(std::cmp::Ordering::Equal).then(a.1.cmp(&b.1)));
    if by_count {
        rank.truncate(sampling.top_k as usize);
    }
    let id_at = |at: usize| rank.get(at).map(|token| token.1);
    let top_k = if by_count { id_at(rank.len() - 1) } else { None };
    let top_p = by_share.then(|| {
        let z_max = rank.first().map_or(0.0, |token| token.0);
        let total: u128 = rank.iter().map(|token| u128::from(count_of(token.0, z_max))).sum();
        let need = (sampling.top_p * UNIT).round_ties_even() as u128 * total;
        let (mut at, mut sum) = (0, 0u128);
        while at < rank.len() && (at == 0 || sum << 24 < need) {
            sum += u128::from(count_of(rank[at].0, z_max));
            at += 1;
        }
        id_at(at.max(1) - 1)
    });
    Borders { top_k, top_p: top_p.flatten() }
}

/// The logits, from the bytes of their step.
pub(crate) fn logits(bytes: &[u8]) -> Vec<f32> {
    floats(bytes)
}
