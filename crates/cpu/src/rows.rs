//! Operations that treat each row by itself. A run of them is one section of work: a row passes through all of them
//! while it is in the cache.

use crate::attention::Tiles;
use crate::batch::Layout;
use crate::failures::Failures;
use crate::pages::{PAGE, PagesView};
use crate::registers::Views;
use crate::trace::LAYER;
use exact::quantise::{QuantisedRows, quantise_i8};
use exact::shared::Shared;
use exact::{Isa, norm, rotary, spread};
use model::{Model, Op, Register, Rotary};

/// Cosines and sines by position, extended as longer sequences come.
#[derive(Default)]
pub(crate) struct RotaryTable {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl RotaryTable {
    /// Makes sure that positions below `positions` are there.
    pub(crate) fn extend(&mut self, rotary: &Rotary, positions: usize) {
        let pairs = rotary.inverse_frequencies.len();
        let known = self.cos.len().checked_div(pairs).unwrap_or(positions);
        if known >= positions {
            return;
        }
        self.cos.resize(positions * pairs, 0.0);
        self.sin.resize(positions * pairs, 0.0);
        for position in known..positions {
            let at = position * pairs..(position + 1) * pairs;
            rotary.at(position, &mut self.cos[at.clone()], &mut self.sin[at]);
        }
    }

    fn at(&self, position: usize, pairs: usize) -> (&[f32], &[f32]) {
        let at = position * pairs..(position + 1) * pairs;
        (&self.cos[at.clone()], &self.sin[at])
    }
}

/// Memory one thread reuses for its rows.
#[derive(Default)]
pub(crate) struct RowScratch {
    /// Keys and values where no trace wants them.
    bytes: Vec<u8>,
}

/// Everything a run of row operations reads and writes.
pub(crate) struct RowSection<'a> {
    pub(crate) isa: Isa,
    pub(crate) model: &'a Model,
    pub(crate) layout: &'a Layout<'a>,
    pub(crate) views: Views<'a>,
    pub(crate) input: QuantisedRows<'a>,
    pub(crate) queries: QuantisedRows<'a>,
    pub(crate) tiles: &'a Tiles,
    pub(crate) pages: &'a PagesView<'a>,
    pub(crate) table: &'a RotaryTable,
    pub(crate) failures: &'a Failures,
    /// Where keys and values go as the trace hashes them, by row.
    pub(crate) trace: Option<Shared<'a, u8>>,
}

impl RowSection<'_> {
    /// Takes one row through `ops`.
    pub(crate) fn run(&self, ops: &[Op], row: usize, scratch: &mut RowScratch) {
        for op in ops {
            match *op {
                Op::Embed => {
                    let out = self.views.row_mut(Register::Residual, row);
                    self.model.weights.embedding.row(self.layout.token(row) as usize, out);
                }
                Op::Norm { norm, from, to } => {
                    let (x, y) = (self.views.row(from, row), self.views.row_mut(to, row));
                    norm::rms_norm(self.isa, x, &self.model.weights.norms[norm], self.model.shape.norm_eps, y);
                }
                Op::HeadNorm { norm, register } => self.head_norm(norm, register, row),
                Op::Spread { register } => spread::spread(self.isa, self.views.row_mut(register, row)),
                Op::Quantise { from } => self.quantise(from, row),
                Op::Rotate { register } => self.rotate(register, row),
                Op::Attend { layer } => self.store(layer, row, scratch),
                Op::Add => {
                    let update = self.views.row(Register::Update, row);
                    norm::add(self.isa, self.views.row_mut(Register::Residual, row), update);
                }
                Op::Linear { .. } | Op::Gate | Op::Experts { .. } => {}
            }
        }
    }

    fn head_norm(&self, norm: usize, register: Register, row: usize) {
        let (weight, eps) = (&self.model.weights.norms[norm], self.model.shape.norm_eps);
        let mut normed = [0.0f32; 512];
        for head in self.views.row_mut(register, row).chunks_exact_mut(self.model.shape.head_dim) {
            let normed = &mut normed[..head.len()];
            norm::rms_norm(self.isa, head, weight, eps, normed);
            head.copy_from_slice(normed);
        }
    }

    fn quantise(&self, from: Register, row: usize) {
        let x = self.views.row(from, row);
        if self.input.write(self.isa, row, x).is_err() {
            self.input.clear(row);
            self.failures.set(self.layout.segment_of[row]);
        }
    }

    fn rotate(&self, register: Register, row: usize) {
        let pairs = self.model.shape.rotary.inverse_frequencies.len();
        let (cos, sin) = self.table.at(self.layout.position(row), pairs);
        for head in self.views.row_mut(register, row).chunks_exact_mut(self.model.shape.head_dim) {
            rotary::rotate(self.isa, head, cos, sin);
        }
    }

    /// Specification, section 7: queries to their tiles, keys and values to their pages.
    fn store(&self, layer: usize, row: usize, scratch: &mut RowScratch) {
        let head_dim = self.model.shape.head_dim;
        let fail = || self.failures.set(self.layout.segment_of[row]);
        for (head, query) in self.views.row_mut(Register::Query, row).chunks_exact_mut(head_dim).enumerate() {
            spread::spread_head(self.isa, query);
            let to = self.tiles.row_of(self.layout, row, head);
            if self.queries.write(self.isa, to, query).is_err() {
                self.queries.clear(to);
                fail();
            }
        }
        let position = self.layout.position(row);
        let (page, slot) = (self.layout.segment(row).pages[position / PAGE], position % PAGE);
        let length = 1 + 2 * self.model.shape.key_heads * (head_dim + 4);
        let bytes = match self.trace {
            Some(trace) => trace.part_mut(row * length, length),
            None => {
                scratch.bytes.resize(length, 0);
                &mut scratch.bytes[..]
            }
        };
        bytes[0] = LAYER;
        let mut heads = bytes[1..].chunks_exact_mut(head_dim + 4);
        for (register, is_key) in [(Register::Key, true), (Register::Value, false)] {
            let all = self.views.row_mut(register, row).chunks_exact_mut(head_dim);
            for ((head, x), bytes) in all.enumerate().zip(&mut heads) {
                if is_key {
                    spread::spread_head(self.isa, x);
                }
                let (levels, scale_bytes) = bytes.split_at_mut(head_dim);
                let levels: &mut [i8] = bytemuck::cast_slice_mut(levels);
                let scale = quantise_i8(self.isa, x, levels).unwrap_or_else(|_| {
                    levels.fill(0);
                    fail();
                    0.0
                });
                scale_bytes.copy_from_slice(&scale.to_le_bytes());
                if is_key {
                    self.pages.write_key(page, layer, head, slot, levels, scale);
                } else {
                    self.pages.write_value(page, layer, head, slot, levels, scale);
                }
            }
        }
    }
}
