//! What a step produced, and drawing tokens from it.

use crate::areas::Area;
use crate::arguments::{DrawRow, Header, Sample};
use crate::executor::Executor;
use crate::kernel;
use crate::launcher::{DeviceError, Launch, Launcher};
use cpu::{Draw, Hash};
use exact::adjust::sample_under;
use exact::sample::Sampling;
use exact::{Isa, NotFinite};
use std::mem::offset_of;
use std::ops::Range;

/// Where a step's logits are, by segment.
pub(crate) enum Logits {
    /// On the device: rows of it.
    Device(Vec<Range<usize>>),
    /// The step took several passes: here.
    Host(Vec<Vec<Vec<f32>>>),
}

/// What a step produced.
pub struct Outcome<'a, L: Launcher> {
    pub(crate) executor: &'a mut Executor<L>,
    pub(crate) logits: Logits,
    /// By segment: whether a value was not finite. Its logits mean nothing then.
    pub failed: Vec<bool>,
    /// By segment, the trace's leaf of each token; empty without tracing.
    pub leaves: Vec<Vec<Hash>>,
}

/// 2²⁴, the unit of top_p and min_p.
const UNIT: f64 = 16_777_216.0;

/// A draw as the kernel reads it.
pub(crate) fn draw_row(row: usize, sampling: &Sampling, position: u64) -> DrawRow {
    let tau = if sampling.temperature == 0.0 { 0.0 } else { (std::f64::consts::LOG2_E / sampling.temperature) as f32 };
    let parts = |value: f64| (value * UNIT).round_ties_even() as u64;
    DrawRow {
        seed: sampling.seed,
        position,
        share: if sampling.top_p < 1.0 { parts(sampling.top_p) } else { u64::MAX },
        least: if sampling.min_p > 0.0 { parts(sampling.min_p) } else { 0 },
        row: row as u32,
        top_k: sampling.top_k,
        tau,
        unused: 0,
    }
}

impl<L: Launcher> Outcome<'_, L> {
    /// The logits a segment asked for, one row per token, copied from the device.
    pub fn logits(&mut self, segment: usize) -> Result<Vec<Vec<f32>>, DeviceError> {
        match &self.logits {
            Logits::Device(rows) => rows[segment].clone().map(|row| self.executor.logits(row)).collect(),
            Logits::Host(rows) => Ok(rows[segment].clone()),
        }
    }

    /// One row of the logits a segment asked for, counted from its first; none if there are not as many.
    pub fn row(&mut self, segment: usize, number: usize) -> Result<Option<Vec<f32>>, DeviceError> {
        match &self.logits {
            Logits::Device(rows) => rows[segment].clone().nth(number).map(|row| self.executor.logits(row)).transpose(),
            Logits::Host(rows) => Ok(rows[segment].get(number).cloned()),
        }
    }

    /// Draws tokens, each from the last logits of its segment; a segment without logits, or whose logits are not finite,
    /// gives none.
    pub fn draw(&mut self, draws: &[Draw<'_>]) -> Result<Vec<Result<u32, NotFinite>>, DeviceError> {
        let count = |segment: usize| match &self.logits {
            Logits::Device(rows) => rows[segment].len(),
            Logits::Host(rows) => rows[segment].len(),
        };
        let draws: Vec<_> = draws.iter().map(|draw| (*draw, count(draw.segment).saturating_sub(1))).collect();
        self.draw_at(&draws)
    }

    /// The same from the logits numbered beside each draw, counted from its segment's first. Under penalties and masks the
    /// host draws, from logits that are copied.
    pub fn draw_at(&mut self, draws: &[(Draw<'_>, usize)]) -> Result<Vec<Result<u32, NotFinite>>, DeviceError> {
        let there: Vec<Option<usize>> = draws
            .iter()
            .map(|(draw, number)| match &self.logits {
                Logits::Device(rows) if draw.choice.is_nothing() => rows[draw.segment].clone().nth(*number),
                _ => None,
            })
            .collect();
        let mut drawn = self.draw_there(draws, &there)?;
        for (((draw, number), there), drawn) in draws.iter().zip(there).zip(&mut drawn) {
            if there.is_none()
                && let Some(logits) = self.row(draw.segment, *number)?
            {
                *drawn = sample_under(Isa::best(), &logits, &draw.sampling, &draw.choice, draw.position);
            }
        }
        Ok(drawn)
    }

    fn draw_there(
        &mut self,
        draws: &[(Draw<'_>, usize)],
        rows: &[Option<usize>],
    ) -> Result<Vec<Result<u32, NotFinite>>, DeviceError> {
        let executor = &mut *self.executor;
        let most = executor.areas.limits.logit_rows;
        let mut drawn = vec![Err(NotFinite); draws.len()];
        let wanted: Vec<(usize, DrawRow)> = draws
            .iter()
            .zip(rows)
            .enumerate()
            .filter_map(|(i, ((draw, _), row))| Some((i, draw_row((*row)?, &draw.sampling, draw.position))))
            .collect();
        for part in wanted.chunks(most) {
            let table: Vec<DrawRow> = part.iter().map(|(_, row)| *row).collect();
            let header = executor.areas.at(Area::Header);
            let count = header + offset_of!(Header, draws) as u64;
            executor.launcher.write(count, &(part.len() as u32).to_le_bytes())?;
            executor.launcher.write(executor.areas.at(Area::Draws), bytemuck::cast_slice(&table))?;
            let arguments = Sample {
                header,
                draws: executor.areas.at(Area::Draws),
                logits: executor.areas.at(Area::Logits),
                tokens: executor.areas.at(Area::Tokens),
                vocabulary: executor.shape.vocabulary as u32,
                unused: 0,
            };
            let arguments = bytemuck::bytes_of(&arguments).to_vec();
            executor.launcher.launch(Launch {
                kernel: kernel::SAMPLE,
                grid: [part.len() as u32, 1, 1],
                shared: 0,
                arguments,
            })?;
            let mut tokens = vec![0u32; part.len()];
            executor.launcher.read(executor.areas.at(Area::Tokens), bytemuck::cast_slice_mut(&mut tokens))?;
            for ((i, _), token) in part.iter().zip(tokens) {
                drawn[*i] = if token == u32::MAX { Err(NotFinite) } else { Ok(token) };
            }
        }
        Ok(drawn)
    }
}
