//! One row of one step from its inputs: the function that regenerates a trace and that a referee runs.
//!
//! A value that is not finite where the arithmetic needs a finite one gives a scale that is NaN, which every later value
//! of the position inherits, up to a leaf of zeros: there is no answer to claim.

use crate::trace::program::{Operation, Program, StepId};
use crate::trace::source::{Missing, Source, Table};
use crate::trace::{CHUNK, attention, draw, linear, mixture};
use exact::steps::{self, LANES};
use exact::{Activations, Isa, spread};
use model::widen_half;
use std::ops::Range;

/// What a row is computed from.
pub(crate) struct Inputs<'a> {
    pub(crate) this: StepId,
    pub(crate) program: &'a Program,
    pub(crate) sources: &'a [StepId],
    pub(crate) source: &'a dyn Source,
}

/// Appends the bytes of row `row` of step `step` to `out`.
pub fn compute(
    program: &Program,
    step: StepId,
    row: usize,
    source: &dyn Source,
    out: &mut Vec<u8>,
) -> Result<(), Missing> {
    let Some(this) = program.steps.get(step) else { return Err(Missing("a step that does not exist")) };
    if row >= this.layout.rows() {
        return Err(Missing("a row that does not exist"));
    }
    let inputs = Inputs { this: step, program, sources: &this.sources, source };
    let elements = this.layout.elements_of(row);
    match this.operation {
        Operation::Token => out.extend(program.token.to_le_bytes()),
        Operation::Embed => inputs.embed(elements, out)?,
        Operation::Squares => inputs.squares(row, out)?,
        Operation::Inverse { width } => inputs.inverse(width, out)?,
        Operation::Norm(norm) => inputs.norm(norm, elements, out)?,
        Operation::HeadNorm(norm) => inputs.head_norm(norm, elements, out)?,
        Operation::Spread => inputs.spread(this.layout.elements, elements, out)?,
        Operation::Peaks => inputs.peaks(row, out)?,
        Operation::Scale(mode) => inputs.scale(mode, out)?,
        Operation::Levels(mode) => inputs.levels(mode, elements, out)?,
        Operation::Sums(map) => linear::sums(&inputs, map, row, out)?,
        Operation::Linear(map) => linear::outputs(&inputs, map, row, out)?,
        Operation::Adapted(site) => linear::adapted(&inputs, site, row, out)?,
        Operation::Rotate => inputs.rotate(elements, out)?,
        Operation::Queries => attention::queries(&inputs, row, out)?,
        Operation::Keys => attention::keys(&inputs, row, true, out)?,
        Operation::Values => attention::keys(&inputs, row, false, out)?,
        Operation::LayerDigest => attention::layer_digest(&inputs, out)?,
        Operation::Context(layer) => attention::context(&inputs, layer, row, out)?,
        Operation::Scores => attention::scores(&inputs, row, out)?,
        Operation::Weigh => attention::weigh(&inputs, row, out)?,
        Operation::Blocks => attention::blocks(&inputs, row, out)?,
        Operation::Spans => attention::spans(&inputs, row, out)?,
        Operation::Totals => attention::totals(&inputs, row, out)?,
        Operation::Mixed => attention::mixed(&inputs, row, out)?,
        Operation::Gate => inputs.pairwise(elements, out, |gate, up| exact::silu(gate) * up)?,
        Operation::Add => inputs.pairwise(elements, out, |x, y| x + y)?,
        Operation::Choice(number) => mixture::choice(&inputs, number, out)?,
        Operation::Weighted { slot } => mixture::weighted(&inputs, slot, elements, out)?,
        Operation::Layers => out.extend(inputs.elements(row, 0..1)?),
        Operation::Leaf => inputs.leaf(out)?,
        Operation::Shaped => draw::shaped(&inputs, row, out)?,
        Operation::Tops => draw::tops(&inputs, row, out)?,
        Operation::Top => draw::top(&inputs, out)?,
        Operation::Firsts => draw::firsts(&inputs, row, out)?,
        Operation::Tallies => draw::tallies(&inputs, row, out)?,
        Operation::Border => draw::border(&inputs, out)?,
        Operation::Bests => draw::bests(&inputs, row, out)?,
        Operation::Drawn => draw::drawn(&inputs, out)?,
    }
    Ok(())
}

impl Inputs<'_> {
    /// The step that is source number `number`.
    pub(crate) fn step(&self, number: usize) -> Result<StepId, Missing> {
        self.sources.get(number).copied().ok_or(Missing("a source"))
    }

    /// An earlier row of the step itself.
    pub(crate) fn own(&self, row: usize) -> Result<Vec<u8>, Missing> {
        Ok(self.source.rows(self.this, row..row + 1)?.into_owned())
    }

    /// Elements a source has.
    pub(crate) fn count(&self, number: usize) -> Result<usize, Missing> {
        Ok(self.program.steps[self.step(number)?].layout.elements)
    }

    /// The bytes of some elements of a source, as chunks of one element each.
    pub(crate) fn elements(&self, number: usize, range: Range<usize>) -> Result<Vec<u8>, Missing> {
        let step = self.step(number)?;
        let layout = self.program.steps[step].layout;
        if range.start >= range.end || range.end > layout.elements {
            return Err(Missing("elements that do not exist"));
        }
        let rows = layout.rows_of(&range);
        let start = (range.start - rows.start * layout.per_row) * layout.element_bytes;
        let bytes = self.source.rows(step, rows)?;
        let wanted = start..start + range.len() * layout.element_bytes;
        bytes.get(wanted).map(<[u8]>::to_vec).ok_or(Missing("a row is too short"))
    }

    pub(crate) fn floats(&self, number: usize, range: Range<usize>) -> Result<Vec<f32>, Missing> {
        Ok(floats(&self.elements(number, range)?))
    }

    pub(crate) fn float(&self, number: usize, at: usize) -> Result<f32, Missing> {
        self.floats(number, at..at + 1)?.first().copied().ok_or(Missing("a value"))
    }

    /// A tensor's only row, as floats.
    fn float_row(&self, table: Table, width: usize) -> Result<Vec<f32>, Missing> {
        let values = floats(&self.source.weights(table, 0)?);
        if values.len() == width { Ok(values) } else { Err(Missing("a row of another width")) }
    }

    fn embed(&self, elements: Range<usize>, out: &mut Vec<u8>) -> Result<(), Missing> {
        let outline = &self.program.outline;
        let token = self.elements(0, 0..1)?;
        let token = u32::from_le_bytes(*token.first_chunk().ok_or(Missing("the token"))?);
        let row = self.source.weights(Table::Embedding, token as usize)?;
        let bytes = row.get(2 * elements.start..2 * elements.end).ok_or(Missing("a row of another width"))?;
        for pair in bytes.as_chunks::<2>().0 {
            let bits = u16::from_le_bytes(*pair);
            let value = match outline.half {
                model::Half::Brain => f32::from_bits(u32::from(bits) << 16),
                model::Half::Ieee => widen_half(bits),
            };
            out.extend(value.to_le_bytes());
        }
        Ok(())
    }

    /// The lanes after chunk `row`: those after the chunk before, and the chunk's values.
    fn squares(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
        let mut lanes = [0.0f32; LANES];
        if row > 0 {
            let before = floats(&self.own(row - 1)?);
            lanes = before.try_into().map_err(|_| Missing("the lanes of a norm"))?;
        }
        let chunk = row * CHUNK..((row + 1) * CHUNK).min(self.count(0)?);
        steps::take_squares(&mut lanes, &self.floats(0, chunk)?);
        write(&lanes, out);
        Ok(())
    }

    fn inverse(&self, width: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
        let all = self.count(0)?;
        let lanes: [f32; LANES] =
            self.floats(0, all - LANES..all)?.try_into().map_err(|_| Missing("the lanes of a norm"))?;
        out.extend(steps::norm_multiplier(&lanes, width, self.program.outline.shape.norm_eps).to_le_bytes());
        Ok(())
    }

    fn norm(&self, norm: usize, elements: Range<usize>, out: &mut Vec<u8>) -> Result<(), Missing> {
        let weights = self.float_row(Table::Norm(norm), self.count(0)?)?;
        let r = self.float(1, 0)?;
        for (x, w) in self.floats(0, elements.clone())?.iter().zip(&weights[elements]) {
            out.extend(((x * r) * w).to_le_bytes());
        }
        Ok(())
    }

    fn head_norm(&self, norm: usize, elements: Range<usize>, out: &mut Vec<u8>) -> Result<(), Missing> {
        let weights = self.float_row(Table::Norm(norm), elements.len())?;
        let x = self.floats(0, elements)?;
        let mut y = vec![0.0f32; x.len()];
        exact::norm::rms_norm(Isa::SCALAR, &x, &weights, self.program.outline.shape.norm_eps, &mut y);
        write(&y, out);
        Ok(())
    }

    fn spread(&self, width: usize, elements: Range<usize>, out: &mut Vec<u8>) -> Result<(), Missing> {
        let mut x = self.floats(0, elements)?;
        spread::transform(Isa::SCALAR, &mut x, spread::spread_block(width));
        write(&x, out);
        Ok(())
    }

    fn peaks(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Missing> {
        let chunk = row * CHUNK..((row + 1) * CHUNK).min(self.count(0)?);
        out.extend(steps::peak(&self.floats(0, chunk)?).to_le_bytes());
        Ok(())
    }

    fn scale(&self, mode: Activations, out: &mut Vec<u8>) -> Result<(), Missing> {
        let peaks = self.elements(0, 0..self.count(0)?)?;
        let peak = peaks.as_chunks::<4>().0.iter().map(|bits| u32::from_le_bytes(*bits)).max().unwrap_or(0);
        let (multiplier, scale) = steps::multiplier_and_scale(peak, largest(mode)).unwrap_or((0.0, f32::NAN));
        write(&[scale, multiplier], out);
        Ok(())
    }

    fn levels(&self, mode: Activations, elements: Range<usize>, out: &mut Vec<u8>) -> Result<(), Missing> {
        let scale = floats(&self.elements(1, 0..1)?);
        let [scale, multiplier] = scale[..] else { return Err(Missing("a scale")) };
        for x in self.floats(0, elements)? {
            let level = if scale.is_nan() { 0 } else { steps::level(x, multiplier, largest(mode)) };
            match mode {
                Activations::A8 => out.push(level as u8),
                Activations::A16 => out.extend((level as i16).to_le_bytes()),
            }
        }
        Ok(())
    }

    fn rotate(&self, elements: Range<usize>, out: &mut Vec<u8>) -> Result<(), Missing> {
        let rotary = &self.program.outline.shape.rotary;
        let pairs = rotary.inverse_frequencies.len();
        let (mut cos, mut sin) = (vec![0.0; pairs], vec![0.0; pairs]);
        rotary.at(self.program.position, &mut cos, &mut sin);
        let mut x = self.floats(0, elements)?;
        exact::rotary::rotate(Isa::SCALAR, &mut x, &cos, &sin);
        write(&x, out);
        Ok(())
    }

    fn pairwise(&self, elements: Range<usize>, out: &mut Vec<u8>, of: impl Fn(f32, f32) -> f32) -> Result<(), Missing> {
        let (x, y) = (self.floats(0, elements.clone())?, self.floats(1, elements)?);
        x.iter().zip(&y).for_each(|(x, y)| out.extend(of(*x, *y).to_le_bytes()));
        Ok(())
    }

    /// Sources: token, levels, scale, layers.
    fn leaf(&self, out: &mut Vec<u8>) -> Result<(), Missing> {
        let scale = floats(&self.elements(2, 0..1)?).first().copied().ok_or(Missing("a scale"))?;
        if scale.is_nan() {
            out.extend([0; 32]);
            return Ok(());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[0x11]).update(&self.elements(0, 0..1)?);
        hasher.update(&self.elements(3, 0..self.count(3)?)?);
        let levels = self.elements(1, 0..self.count(1)?)?;
        hasher.update(&wide_levels(&levels, self.program.outline.activations));
        out.extend(hasher.update(&scale.to_le_bytes()).finalize().as_bytes());
        Ok(())
    }
}

/// Levels as a leaf holds them: 16 bits each.
pub(crate) fn wide_levels(levels: &[u8], mode: Activations) -> Vec<u8> {
    match mode {
        Activations::A8 => levels.iter().flat_map(|level| i16::from(*level as i8).to_le_bytes()).collect(),
        Activations::A16 => levels.to_vec(),
    }
}

pub(crate) fn largest(mode: Activations) -> f32 {
    match mode {
        Activations::A8 => 127.0,
        Activations::A16 => 32_639.0,
    }
}

pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

pub(crate) fn write(values: &[f32], out: &mut Vec<u8>) {
    values.iter().for_each(|value| out.extend(value.to_le_bytes()));
}
