//! Mixtures of experts (specification, section 10).

use crate::trace::compute::{Inputs, floats, write};
use crate::trace::source::Missing;
use exact::{LOG2_E, exp2};
use model::Mlp;
use std::cmp::Ordering;
use std::ops::Range;

/// The chosen experts in ascending id, each id and weight.
pub(crate) fn choice(inputs: &Inputs<'_>, mixture: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
    let mlps = inputs.program.outline.shape.mlps.iter();
    let mut mixtures = mlps.filter_map(|mlp| match *mlp {
        Mlp::Experts { chosen, renormalise, .. } => Some((chosen, renormalise)),
        Mlp::Gated { .. } => None,
    });
    let (chosen, renormalise) = mixtures.nth(mixture).ok_or(Missing("a mixture"))?;
    let z = inputs.floats(0, 0..inputs.count(0)?)?;
    if z.iter().any(|z| !z.is_finite()) {
        for id in 0..chosen as u32 {
            out.extend(id.to_le_bytes());
            out.extend(f32::NAN.to_le_bytes());
        }
        return Ok(());
    }
    let mut rank: Vec<usize> = (0..z.len()).collect();
    rank.sort_by(|a, b| z[*b].partial_cmp(&z[*a]).unwrap_or(Ordering::Equal).then(a.cmp(b)));
    let count = |e: usize| (exp2((z[e] - z[rank[0]]) * LOG2_E) * 16_777_216.0).round_ties_even() as u64;
    let over = if renormalise { &rank[..chosen] } else { &rank[..] };
    let sum: u64 = over.iter().map(|e| count(*e)).sum();
    let mut choices = rank[..chosen].to_vec();
    choices.sort_unstable();
    for e in choices {
        out.extend((e as u32).to_le_bytes());
        out.extend((count(e) as f32 / sum as f32).to_le_bytes());
    }
    Ok(())
}

/// The sum after the expert in `slot`. Sources: choice, its output, the sum before.
pub(crate) fn weighted(
    inputs: &Inputs<'_>,
    slot: usize,
    elements: Range<usize>,
    out: &mut Vec<u8>,
) -> Result<(), Missing> {
    let choice = floats(&inputs.elements(0, 0..1)?);
    let g = *choice.get(2 * slot + 1).ok_or(Missing("a choice"))?;
    let d = inputs.floats(1, elements.clone())?;
    let y: Vec<f32> = match slot {
        0 => d.iter().map(|d| d * g).collect(),
        _ => inputs.floats(2, elements)?.iter().zip(&d).map(|(y, d)| d.mul_add(g, *y)).collect(),
    };
    write(&y, out);
    Ok(())
}
