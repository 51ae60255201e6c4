//! Keys and values of all positions so far, and attention over them (specification, section 8).

use crate::light::row::Row;
use crate::light::verdict::LightFault;
use cpu::Pool;
use exact::attention::{BlockLayout, POSITIONS, ROWS, Workspace, attend};
use exact::memory::AlignedBytes;
use exact::quantise::Quantised;
use exact::shared::Shared;
use exact::{Activations, Isa};
use model::{Register, Shape};
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

    fn offset(&self, block: usize, head: usize) -> usize {
        (block * self.key_heads + head) * self.layout.bytes()
    }

    /// Writes the keys and values of a position in a layer, as its layer digest hashes them. False if they are too short.
    pub(crate) fn write(&mut self, layer: usize, position: usize, row: &[u8]) -> bool {
        let d = self.layout.head_dim();
        if row.len() != 2 * self.key_heads * (d + 4) {
            return false;
        }
        for (number, head) in row.chunks_exact(d + 4).enumerate() {
            let (levels, scale) = head.split_at(d);
            let levels: Vec<i8> = levels.iter().map(|level| *level as i8).collect();
            let scale = scale.first_chunk().map_or(0.0, |scale| f32::from_le_bytes(*scale));
            let at = self.offset(position / POSITIONS, number % self.key_heads);
            let bytes = Shared::new(self.layers[layer].as_bytes_mut());
            if number < self.key_heads {
                self.layout.write_key(bytes, at, position % POSITIONS, &levels, scale);
            } else {
                self.layout.write_value(bytes, at, position % POSITIONS, &levels, scale);
            }
        }
        true
    }

    fn block(&self, layer: usize, block: usize, head: usize) -> &[u8] {
        let at = self.offset(block, head);
        &self.layers[layer].as_bytes()[at..at + self.layout.bytes()]
    }
}

/// Memory one thread reuses.
pub(crate) struct Scratch {
    workspace: Workspace,
    queries: Quantised,
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch { workspace: Workspace::default(), queries: Quantised::new(Activations::A16) }
    }
}

/// Some query heads of some consecutive positions that share a key head.
struct Unit {
    tokens: std::ops::Range<usize>,
    key_head: usize,
    heads: std::ops::Range<usize>,
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
    let group = shape.heads / shape.key_heads;
    let per_unit = group.min(ROWS);
    let tokens = ROWS / per_unit;
    let mut units = vec![];
    for first in (0..rows.len()).step_by(tokens) {
        for key_head in 0..shape.key_heads {
            for start in (0..group).step_by(per_unit) {
                let heads = key_head * group + start..key_head * group + (start + per_unit).min(group);
                units.push(Unit { tokens: first..(first + tokens).min(rows.len()), key_head, heads });
            }
        }
    }
    let outputs: Vec<Mutex<Vec<Option<Vec<f32>>>>> = units.iter().map(|_| Mutex::default()).collect();
    let shown = &*rows;
    pool.each(units.len(), |thread, number| {
        let unit = &units[number];
        let mut scratch = lock(&scratch[thread]);
        let all = together(isa, shape, store, layer, &shown[unit.tokens.clone()], unit, &mut scratch);
        // If one position is not finite, each by itself, so that the others are not taken along.
        let alone = |scratch: &mut Scratch| {
            let each = unit
                .tokens
                .clone()
                .map(|token| together(isa, shape, store, layer, &shown[token..token + 1], unit, scratch)?.pop());
            each.collect()
        };
        *lock(&outputs[number]) = all.map_or_else(|| alone(&mut scratch), |all| all.into_iter().map(Some).collect());
    });
    let d = shape.head_dim;
    for (unit, outputs) in units.iter().zip(outputs) {
        let outputs = outputs.into_inner().unwrap_or_default();
        for (row, output) in rows[unit.tokens.clone()].iter_mut().zip(outputs) {
            row.get_mut(Register::Mixed).resize(shape.heads * d, 0.0);
            let to = unit.heads.start * d..unit.heads.end * d;
            match output {
                Some(output) => row.get_mut(Register::Mixed)[to].copy_from_slice(&output),
                None => {
                    row.get_mut(Register::Mixed)[to].fill(0.0);
                    row.fail(LightFault::NotFinite);
                }
            }
        }
    }
}

/// Outputs of each position, if all are finite.
fn together(
    isa: Isa,
    shape: &Shape,
    store: &Store,
    layer: usize,
    rows: &[Row],
    unit: &Unit,
    scratch: &mut Scratch,
) -> Option<Vec<Vec<f32>>> {
    let (d, heads) = (shape.head_dim, unit.heads.len());
    let Scratch { workspace, queries } = scratch;
    queries.reshape(ROWS, d, Activations::A16);
    for (t, row) in rows.iter().enumerate() {
        for (h, head) in unit.heads.clone().enumerate() {
            let query = &row.get(Register::Query)[head * d..(head + 1) * d];
            queries.write_row(isa, t * heads + h, query).ok()?;
        }
    }
    let mut out = vec![0.0f32; rows.len() * heads * d];
    let first = rows.first()?.position;
    attend(
        isa,
        store.layout,
        queries,
        0..rows.len() * heads,
        |i| first + i / heads,
        shape.window,
        |block| store.block(layer, block, unit.key_head),
        &mut out,
        workspace,
    )
    .ok()?;
    Some(out.chunks_exact(heads * d).map(<[f32]>::to_vec).collect())
}

/// A lock that is whole even after another's panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
