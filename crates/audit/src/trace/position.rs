//! The values of one position's steps, and the trees over them.

use crate::trace::program::{Program, StepId};
use crate::trace::source::Missing;
use crate::trace::tree::{Hash, STEPS, row_hash};
use std::ops::Range;

/// Every value of a position.
#[derive(Clone, Debug)]
pub struct Position {
    /// Its steps.
    pub program: Program,
    values: Vec<Vec<u8>>,
    /// Root of each step's rows.
    roots: Vec<Hash>,
}

impl Position {
    pub(crate) fn new(program: Program, values: Vec<Vec<u8>>) -> Position {
        let mut position = Position { program, values, roots: vec![] };
        position.roots = (0..position.values.len()).map(|step| STEPS.root(&position.row_hashes(step))).collect();
        position
    }

    /// Bytes of consecutive rows.
    pub fn rows(&self, step: StepId, rows: Range<usize>) -> Result<&[u8], Missing> {
        let value = self.values.get(step).ok_or(Missing("a step"))?;
        value.get(self.program.steps[step].layout.bytes_of(rows)).ok_or(Missing("rows"))
    }

    /// All bytes of a step.
    pub fn value(&self, step: StepId) -> &[u8] {
        &self.values[step]
    }

    /// The position with one step's bytes replaced, as whoever forges a trace would.
    pub fn forged(mut self, step: StepId, change: impl FnOnce(&mut [u8])) -> Position {
        change(&mut self.values[step]);
        self.roots[step] = STEPS.root(&self.row_hashes(step));
        self
    }

    /// The leaf of the receipt's trace.
    pub fn leaf(&self) -> Hash {
        self.values[self.program.leaf].first_chunk().copied().unwrap_or_default()
    }

    /// The drawn token, if one was to be drawn and could be.
    pub fn drawn(&self) -> Option<u32> {
        let bytes = self.values[self.program.drawn?].first_chunk()?;
        Some(u32::from_le_bytes(*bytes)).filter(|token| *token != u32::MAX)
    }

    /// Root over all steps.
    pub fn root(&self) -> Hash {
        STEPS.root(&self.roots)
    }

    /// Root of each step's rows.
    pub fn roots(&self) -> &[Hash] {
        &self.roots
    }

    /// Hash of each row of a step.
    pub fn row_hashes(&self, step: StepId) -> Vec<Hash> {
        let layout = self.program.steps[step].layout;
        let size = layout.per_row * layout.element_bytes;
        self.values[step].chunks(size).map(row_hash).collect()
    }

    /// What the receipt's leaf is the hash of: token, layer digests, final hidden levels and scale (docs/receipts.md).
    pub fn leaf_data(&self) -> Vec<u8> {
        let program = &self.program;
        let mut data = program.token.to_le_bytes().to_vec();
        program.layers.iter().for_each(|layer| data.extend_from_slice(&self.values[*layer]));
        let (levels, scale) = program.hidden;
        data.extend(crate::trace::compute::wide_levels(&self.values[levels], program.outline.activations));
        data.extend_from_slice(&self.values[scale][..4]);
        data
    }

    /// Keys and values of the position in one layer, as its layer digest hashes them.
    pub fn layer_row(&self, layer: usize) -> Result<Vec<u8>, Missing> {
        let digest = *self.program.layers.get(layer).ok_or(Missing("a layer"))?;
        let sources = &self.program.steps[digest].sources;
        Ok(sources.iter().flat_map(|step| self.values[*step].iter().copied()).collect())
    }
}
