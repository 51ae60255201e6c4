//! Keys and values of all positions so far, and attention over them (specification, section 8).

use crate::light::row::Row;
use crate::light::verdict::LightFault;
use cpu::Pool;
use exact::attention::{BlockLayout, POSITIONS, ROWS, Workspace, attend};
use exact::memory::AlignedBytes;
use exact::quantise::Quantised;
use exact::shared::Shared;
use exact::{Activations, Isa};
use model::Shape;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Blocks of keys and values, by layer.
pub(crate) struct Store {
    layout: BlockLayout,
    key_heads: usize,
    layers: Vec<AlignedBytes>,
}

impl Store {
    /// Room for `positions` positions.
    pub(crate) fn new(shape: &Shape, positions: usize) -> Store {
        let layout = BlockLayout::new(shape.head_dim);
        let bytes = positions.div_ceil(POSITIONS) * shape.key_heads * layout.bytes();
        let layers = (0..shape.layers).map(|_| AlignedBytes::zeroed(bytes)).collect();
        Store { layout, key_heads: shape.key_heads, layers }
    }

    /// A layer's part, for several threads to write.
    pub(crate) fn writer(&mut self, layer: usize) -> Writer<'_> {
        let Store { layout, key_heads, layers } = self;
        Writer { layout: *layout, key_heads: *key_heads, bytes: Shared::new(layers[layer].as_bytes_mut()) }
    }

    fn block(&self, layer: usize, block: usize, head: usize) -> &[u8] {
        let at = (block * self.key_heads + head) * self.layout.bytes();
        &self.layers[layer].as_bytes()[at..at + self.layout.bytes()]
    }
}

/// Writes positions of one layer. Threads write different positions.
#[derive(Clone, Copy)]
pub(crate) struct Writer<'a> {
    layout: BlockLayout,
    key_heads: usize,
    bytes: Shared<'a, u8>,
}

impl Writer<'_> {
    /// Writes a position's keys and values, as its layer digest hashes them. False if they are too short.
    pub(crate) fn write(&self, position: usize, row: &[u8]) -> bool {
        let d = self.layout.head_dim();
        if row.len() != 2 * self.key_heads * (d + 4) {
            return false;
        }
        for (number, head) in row.chunks_exact(d + 4).enumerate() {
            let (levels, scale) = head.split_at(d);
            let levels = bytemuck::cast_slice(levels);
            let scale = scale.first_chunk().map_or(0.0, |scale| f32::from_le_bytes(*scale));
            let block = position / POSITIONS * self.key_heads + number % self.key_heads;
            let at = block * self.layout.bytes();
            if number < self.key_heads {
                self.layout.write_key(self.bytes, at, position % POSITIONS, levels, scale);
            } else {
                self.layout.write_value(self.bytes, at, position % POSITIONS, levels, scale);
            }
        }
        true
    }
}

/// Memory one thread reuses.
pub(crate) struct Scratch {
    workspace: Workspace,
    queries: Quantised,
    out: Vec<f32>,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch { workspace: Workspace::default(), queries: Quantised::new(Activations::A16), out: vec![] }
    }
}

/// Some query heads of some consecutive positions that share a key head.
struct Unit {
    tokens: Range<usize>,
    key_head: usize,
    heads: Range<usize>,
}

fn units(shape: &Shape, rows: usize) -> Vec<Unit> {
    let group = shape.heads / shape.key_heads;
    let per_unit = group.min(ROWS);
    let tokens = ROWS / per_unit;
    let mut units = vec![];
    for first in (0..rows).step_by(tokens) {
        for key_head in 0..shape.key_heads {
            for start in (0..group).step_by(per_unit) {
                let heads = key_head * group + start..key_head * group + (start + per_unit).min(group);
                units.push(Unit { tokens: first..(first + tokens).min(rows), key_head, heads });
            }
        }
    }
    units
}

/// Attention of all rows, whose queries are rotated and spread and whose keys and values are stored. Mixed = the outputs.
pub(crate) fn run(
    isa: Isa,
    pool: &mut Pool,
    shape: &Shape,
    store: &Store,
    layer: usize,
    rows: &mut [Row],
    scratch: &[Mutex<Scratch>],
) {
    let (units, d) = (units(shape, rows.len()), shape.head_dim);
    let mut mixed: Vec<Vec<f32>> = rows.iter_mut().map(|row| std::mem::take(row.mixed())).collect();
    mixed.iter_mut().for_each(|mixed| mixed.resize(shape.heads * d, 0.0));
    let failed: Vec<AtomicBool> = rows.iter().map(|_| AtomicBool::new(false)).collect();
    let (to, shown): (Vec<Shared<'_, f32>>, &[Row]) = (mixed.iter_mut().map(|row| Shared::new(row)).collect(), rows);
    pool.each(units.len(), |thread, number| {
        let unit = &units[number];
        let scratch = &mut *lock(&scratch[thread]);
        let width = unit.heads.len() * d;
        let mut some = |tokens: Range<usize>| {
            let finite = together(isa, shape, store, layer, &shown[tokens.clone()], unit, scratch);
            if !finite {
                scratch.out.fill(0.0);
            }
            for (token, out) in tokens.zip(scratch.out.chunks_exact(width)) {
                to[token].copy_in(unit.heads.start * d, out);
            }
            finite
        };
        if !some(unit.tokens.clone()) {
            // If one position is not finite, each by itself, so that the others are not taken along.
            for token in unit.tokens.clone() {
                if !some(token..token + 1) {
                    failed[token].store(true, Ordering::Relaxed);
                }
            }
        }
    });
    for ((row, mixed), failed) in rows.iter_mut().zip(mixed).zip(failed) {
        *row.mixed() = mixed;
        if failed.into_inner() {
            row.fail(LightFault::NotFinite);
        }
    }
}

/// Outputs of each position to the scratch; false if one is not finite.
fn together(
    isa: Isa,
    shape: &Shape,
    store: &Store,
    layer: usize,
    rows: &[Row],
    unit: &Unit,
    scratch: &mut Scratch,
) -> bool {
    let (d, heads) = (shape.head_dim, unit.heads.len());
    let Scratch { workspace, queries, out } = scratch;
    out.clear();
    out.resize(rows.len() * heads * d, 0.0);
    queries.reshape(ROWS, d, Activations::A16);
    for (t, row) in rows.iter().enumerate() {
        for (h, head) in unit.heads.clone().enumerate() {
            let query = &row.query()[head * d..(head + 1) * d];
            if queries.write_row(isa, t * heads + h, query).is_err() {
                return false;
            }
        }
    }
    let Some(first) = rows.first().map(|row| row.position) else { return true };
    let block = |block| store.block(layer, block, unit.key_head);
    let position = |i| first + i / heads;
    let rows = 0..rows.len() * heads;
    attend(isa, store.layout, queries, rows, position, shape.window, block, out, workspace).is_ok()
}

/// A lock that is whole even after another's panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
