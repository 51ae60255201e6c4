//! Attention, cut into steps that each need one block of positions at most (specification, sections 7 and 8).

use crate::trace::compute::{Inputs, floats, largest, write};
use crate::trace::source::Missing;
use exact::attention::{POSITIONS, SPAN_BLOCKS, score_constant};
use exact::{Activations, Isa, exp2, spread, steps};
use std::ops::Range;

/// A query head, spread and quantised to 16 bits: levels, scale.
pub(crate) fn queries(inputs: &Inputs<'_>, head: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let d = inputs.program.outline.shape.head_dim;
    let mut x = inputs.floats(0, head * d..(head + 1) * d)?;
    spread::spread_head(Isa::SCALAR, &mut x);
    quantise(&x, Activations::A16, out);
    Ok(())
}

/// A key head, spread and quantised to 8 bits, or a value head, which is not spread: levels, scale.
pub(crate) fn keys(inputs: &Inputs<'_>, head: usize, are_keys: bool, out: &mut Vec<u8>) -> Result<(), Missing> {
    let d = inputs.program.outline.shape.head_dim;
    let mut x = inputs.floats(0, head * d..(head + 1) * d)?;
    if are_keys {
        spread::spread_head(Isa::SCALAR, &mut x);
    }
    quantise(&x, Activations::A8, out);
    Ok(())
}

fn quantise(x: &[f32], mode: Activations, out: &mut Vec<u8>) {
    let (multiplier, scale) = steps::multiplier_and_scale(steps::peak(x), largest(mode)).unwrap_or((0.0, f32::NAN));
    for x in x {
        let level = if scale.is_nan() { 0 } else { steps::level(*x, multiplier, largest(mode)) };
        match mode {
            Activations::A8 => out.push(level as u8),
            Activations::A16 => out.extend((level as i16).to_le_bytes()),
        }
    }
    out.extend(scale.to_le_bytes());
}

pub(crate) fn layer_digest(inputs: &Inputs<'_>, out: &mut Vec<u8>) -> Result<(), Missing> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[0x10]);
    for number in [0, 1] {
        hasher.update(&inputs.elements(number, 0..inputs.count(number)?)?);
    }
    out.extend(hasher.finalize().as_bytes());
    Ok(())
}

/// Row: key head by key head, position by position, the key's levels and scale, then the value's. Earlier positions are
/// those that the receipt's leaves bind.
pub(crate) fn context(inputs: &Inputs<'_>, layer: usize, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let program = inputs.program;
    let shape = &program.outline.shape;
    let (earliest, size) = (program.earliest(), shape.head_dim + 4);
    let positions = program.position + 1 - earliest;
    let (head, position) = (row / positions, earliest + row % positions);
    if position == program.position {
        out.extend(inputs.elements(0, head..head + 1)?);
        out.extend(inputs.elements(1, head..head + 1)?);
        return Ok(());
    }
    let past = inputs.source.past(position, layer)?;
    for at in [head, shape.key_heads + head] {
        out.extend_from_slice(past.get(at * size..(at + 1) * size).ok_or(Missing("keys and values"))?);
    }
    Ok(())
}

/// What a row of one head and one block is about.
struct Place {
    head: usize,
    block: usize,
    /// Its visible positions, as elements of the context.
    context: Range<usize>,
    /// The same, as slots of the block.
    slots: Range<usize>,
}

fn place(inputs: &Inputs<'_>, row: usize) -> Place {
    let program = inputs.program;
    let shape = &program.outline.shape;
    let blocks = program.blocks();
    let (head, block) = (row / blocks.len(), blocks.start + row % blocks.len());
    let earliest = program.earliest();
    let positions = program.position + 1 - earliest;
    let first = earliest.max(block * POSITIONS);
    let end = (program.position + 1).min((block + 1) * POSITIONS);
    let start = head / (shape.heads / shape.key_heads) * positions;
    Place {
        head,
        block,
        context: start + first - earliest..start + end - earliest,
        slots: first - block * POSITIONS..end - block * POSITIONS,
    }
}

/// Keys, or values, of a block's visible positions: levels and scale of each.
fn heads(inputs: &Inputs<'_>, context: Range<usize>, values: bool) -> Result<Vec<(Vec<i8>, f32)>, Missing> {
    let d = inputs.program.outline.shape.head_dim;
    let bytes = inputs.elements(1, context)?;
    let half = if values { d + 4..2 * d + 8 } else { 0..d + 4 };
    let read = |row: &[u8]| {
        let (levels, scale) = row[half.clone()].split_at(d);
        let scale = scale.first_chunk().map_or(f32::NAN, |scale| f32::from_le_bytes(*scale));
        (levels.iter().map(|level| *level as i8).collect(), scale)
    };
    Ok(bytes.chunks_exact(2 * (d + 4)).map(read).collect())
}

/// 64 scores, zero where nothing is visible.
pub(crate) fn scores(inputs: &Inputs<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let (place, d) = (place(inputs, row), inputs.program.outline.shape.head_dim);
    let query = inputs.elements(0, place.head..place.head + 1)?;
    let (levels, scale) = query.split_at(2 * d);
    let s_q = floats(scale).first().copied().unwrap_or(f32::NAN) * score_constant(d);
    let mut t = [0.0f32; POSITIONS];
    for (t, (key, s_k)) in t[place.slots].iter_mut().zip(heads(inputs, place.context, false)?) {
        let pairs = levels.as_chunks::<2>().0.iter().zip(&key);
        let sum: i64 = pairs.map(|(q, k)| i64::from(i16::from_le_bytes(*q)) * i64::from(*k)).sum();
        *t = sum as f32 * (s_q * s_k);
    }
    write(&t, out);
    Ok(())
}

/// Maximum, sum of weights, scale of the 16-bit weights, and those, zero where nothing is visible.
pub(crate) fn weigh(inputs: &Inputs<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let place = place(inputs, row);
    let t = floats(&inputs.elements(0, row..row + 1)?);
    let t = t.get(place.slots.clone()).ok_or(Missing("scores"))?;
    let m = t.iter().fold(f32::NEG_INFINITY, |m, t| if *t > m { *t } else { m });
    let (mut u, mut l) = (vec![], 0i32);
    for (t, (_, s_v)) in t.iter().zip(heads(inputs, place.context, true)?) {
        let p = exp2(*t - m);
        l = l.wrapping_add((p * 65_536.0).round_ties_even() as i32);
        u.push(p * s_v);
    }
    let largest = largest(Activations::A16);
    let (multiplier, scale) = steps::multiplier_and_scale(steps::peak(&u), largest).unwrap_or((0.0, f32::NAN));
    write(&[m, l as f32, scale], out);
    let mut levels = [0i16; POSITIONS];
    for (level, u) in levels[place.slots].iter_mut().zip(&u) {
        *level = if scale.is_nan() { 0 } else { steps::level(*u, multiplier, largest) as i16 };
    }
    levels.iter().for_each(|level| out.extend(level.to_le_bytes()));
    Ok(())
}

/// The weighted sum of a block's values.
pub(crate) fn blocks(inputs: &Inputs<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let place = place(inputs, row);
    let weigh = inputs.elements(0, row..row + 1)?;
    let (head, levels) = weigh.split_at(12);
    let s_w = floats(head).get(2).copied().unwrap_or(f32::NAN);
    let levels = levels.as_chunks::<2>().0.get(place.slots).ok_or(Missing("weights"))?;
    let mut sums = vec![0i64; inputs.program.outline.shape.head_dim];
    for (w, (value, _)) in levels.iter().zip(heads(inputs, place.context, true)?) {
        let w = i64::from(i16::from_le_bytes(*w));
        sums.iter_mut().zip(&value).for_each(|(sum, v)| *sum += w * i64::from(*v));
    }
    sums.iter().for_each(|sum| out.extend((*sum as f32 * s_w).to_le_bytes()));
    Ok(())
}

/// m, l and o of section 8, as a record of floats.
fn join(state: &mut [f32], other: &[f32]) {
    let m = if other[0] > state[0] { other[0] } else { state[0] };
    let (alpha, beta) = (exp2(state[0] - m), exp2(other[0] - m));
    state[0] = m;
    state[1..].iter_mut().zip(&other[1..]).for_each(|(x, y)| *x = x.mul_add(alpha, y * beta));
}

/// What the span has come to after this block: the record before it in the same span, joined with the block.
pub(crate) fn spans(inputs: &Inputs<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let place = place(inputs, row);
    let mut block = floats(&inputs.elements(0, row..row + 1)?);
    block.truncate(2);
    block.extend(inputs.floats(1, row..row + 1)?);
    let starts = place.block.is_multiple_of(SPAN_BLOCKS) || place.block == inputs.program.blocks().start;
    let mut state = if starts { block.clone() } else { floats(&inputs.own(row - 1)?) };
    if state.len() != block.len() {
        return Err(Missing("a span of another width"));
    }
    if !starts {
        join(&mut state, &block);
    }
    write(&state, out);
    Ok(())
}

/// What the head has come to after this span.
pub(crate) fn totals(inputs: &Inputs<'_>, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let blocks = inputs.program.blocks();
    let (first, last) = (blocks.start / SPAN_BLOCKS, (blocks.end - 1) / SPAN_BLOCKS);
    let spans = last + 1 - first;
    let (head, span) = (row / spans, first + row % spans);
    let last_block = ((span + 1) * SPAN_BLOCKS).min(blocks.end) - 1;
    let at = head * blocks.len() + last_block - blocks.start;
    let mut state = floats(&inputs.elements(0, at..at + 1)?);
    if span > first {
        let other = std::mem::replace(&mut state, floats(&inputs.own(row - 1)?));
        if state.len() != other.len() {
            return Err(Missing("a span of another width"));
        }
        join(&mut state, &other);
    }
    write(&state, out);
    Ok(())
}

/// A head's output.
pub(crate) fn mixed(inputs: &Inputs<'_>, head: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let blocks = inputs.program.blocks();
    let spans = (blocks.end - 1) / SPAN_BLOCKS + 1 - blocks.start / SPAN_BLOCKS;
    let last = (head + 1) * spans - 1;
    let state = floats(&inputs.elements(0, last..last + 1)?);
    let r = 65_536.0 / state[1];
    state[2..].iter().for_each(|o| out.extend((o * r).to_le_bytes()));
    Ok(())
}
