//! Linear maps: exact sums of a segment of one output, then the output (specification, sections 2, 3 and 10).

use crate::trace::SEGMENT;
use crate::trace::compute::Inputs;
use crate::trace::program::Map;
use crate::trace::source::{Missing, Table};
use exact::Activations;
use exact::steps::{digits, joined};

/// The tensor of a map. An expert's is named by what its mixture chose, the last source.
fn table(inputs: &Inputs<'_>, map: Map) -> Result<Table, Missing> {
    Ok(match map {
        Map::Site(site) => Table::Linear(site),
        Map::AdapterA(site) => Table::AdapterA(site),
        Map::AdapterB(site) => Table::AdapterB(site),
        Map::Router(mixture) => Table::Router(mixture),
        Map::Expert { mixture, slot, part } => {
            let choice = inputs.elements(inputs.sources.len() - 1, 0..1)?;
            let id = choice.as_chunks::<4>().0.get(2 * slot).ok_or(Missing("a choice"))?;
            Table::Expert(mixture, u32::from_le_bytes(*id) as usize, part)
        }
    })
}

/// Row `row` is segment `row % segments` of output `row / segments`: two sums of 32 bits, of high and low digits, or of the
/// levels and 0; of a router one of 64 bits.
pub(crate) fn sums(inputs: &Inputs<'_>, map: Map, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let levels = inputs.step(0)?;
    let layout = inputs.program.steps[levels].layout;
    let width = layout.elements;
    let segments = width.div_ceil(SEGMENT);
    let (output, segment) = (row / segments, row % segments);
    let range = segment * SEGMENT..((segment + 1) * SEGMENT).min(width);
    let rows = layout.rows_of(&range);
    let x = inputs.source.rows(levels, rows)?;
    let weights = inputs.source.weights(table(inputs, map)?, output)?;
    let (bytes, router) = if matches!(map, Map::Router(_)) { (2, true) } else { (1, false) };
    let w = weights.get(4 + bytes * range.start..4 + bytes * range.end).ok_or(Missing("a row of another width"))?;
    if weights.len() != 4 + bytes * width || x.len() != range.len() * layout.element_bytes {
        return Err(Missing("a row of another width"));
    }
    if router {
        let pairs = x.as_chunks::<2>().0.iter().zip(w.as_chunks::<2>().0);
        let sum: i64 = pairs.map(|(x, w)| i64::from(i16::from_le_bytes(*x)) * i64::from(i16::from_le_bytes(*w))).sum();
        out.extend(sum.to_le_bytes());
        return Ok(());
    }
    let (mut high, mut low) = (0i32, 0i32);
    if layout.element_bytes == 1 {
        high = x.iter().zip(w).map(|(x, w)| i32::from(*x as i8) * i32::from(*w as i8)).sum();
    } else {
        for (x, w) in x.as_chunks::<2>().0.iter().zip(w) {
            let (h, l) = digits(i32::from(i16::from_le_bytes(*x)));
            high += h * i32::from(*w as i8);
            low += l * i32::from(*w as i8);
        }
    }
    out.extend(high.to_le_bytes());
    out.extend(low.to_le_bytes());
    Ok(())
}

/// c · (s_x · s_w) from the segments' sums, source `sums`, and the input's scale, source `scale`.
fn product(
    inputs: &Inputs<'_>,
    source: (usize, usize),
    mode: Activations,
    map: Map,
    output: usize,
) -> Result<f32, Missing> {
    let segments = segments(inputs, source.0)?;
    let sums = inputs.elements(source.0, output * segments..(output + 1) * segments)?;
    let words = sums.as_chunks::<8>().0;
    let c = if matches!(map, Map::Router(_)) {
        joined(words.iter().map(|word| i64::from_le_bytes(*word)).sum(), None)
    } else {
        let half = |at: usize| -> i64 {
            let word = |word: &[u8; 8]| [word[at], word[at + 1], word[at + 2], word[at + 3]];
            words.iter().map(|bytes| i64::from(i32::from_le_bytes(word(bytes)))).sum()
        };
        joined(half(0), (mode == Activations::A16).then(|| half(4)))
    };
    let s_x = inputs.elements(source.1, 0..1)?;
    let s_x = f32::from_le_bytes(*s_x.first_chunk().ok_or(Missing("a scale"))?);
    Ok(c * (s_x * inputs.source.weight_scale(table(inputs, map)?, output)?))
}

/// Output `row` of a linear map, bias included.
pub(crate) fn outputs(inputs: &Inputs<'_>, map: Map, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let outline = &inputs.program.outline;
    let mut y = product(inputs, (0, 1), outline.activations, map, row)?;
    if let Map::Site(site) = map
        && outline.biased[site]
    {
        let bias = inputs.source.weights(Table::Bias(site), 0)?;
        let b = bias.as_chunks::<4>().0.get(row).ok_or(Missing("a bias"))?;
        y += f32::from_le_bytes(*b);
    }
    out.extend(y.to_le_bytes());
    Ok(())
}

/// Segments of an output whose sums are source number `number`.
fn segments(inputs: &Inputs<'_>, number: usize) -> Result<usize, Missing> {
    let sums = &inputs.program.steps[inputs.step(number)?];
    let levels = *sums.sources.first().ok_or(Missing("a source"))?;
    Ok(inputs.program.steps[levels].layout.elements.div_ceil(SEGMENT))
}

/// Output `row` with the adapter's share. Sources: output without it, sums of B, scale of B's input.
pub(crate) fn adapted(inputs: &Inputs<'_>, site: usize, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let outline = &inputs.program.outline;
    let Some((_, gain)) = outline.adapter[site] else { return Err(Missing("an adapter")) };
    let y = inputs.float(0, row)?;
    let d = product(inputs, (1, 2), Activations::A16, Map::AdapterB(site), row)?;
    out.extend(d.mul_add(gain, y).to_le_bytes());
    Ok(())
}
