//! Leaves of the trace: one hash per position, of what the position left behind (docs/receipts.md).
//!
//! `layer digest = H(0x10 ‖ keys ‖ values)`, each head's levels followed by its scale, and
//! `leaf = H(0x11 ‖ token ‖ layer digests ‖ levels and scale of the quantised final hidden row)`.
//!
//! These are many messages of some hundred bytes, so they are hashed side by side: what the layers leave behind waits until it is
//! enough, or all, and is hashed by whoever has nothing to do beside attention.

use crate::batch::Layout;
use crate::pool::Pool;
use exact::Isa;
use exact::hash::LANES;
use exact::quantise::Quantised;
use exact::shared::Shared;
use model::Shape;
use model::merkle::hash_each;

/// A 32-byte BLAKE3 hash.
pub type Hash = [u8; 32];

/// First byte of what a layer digest is of.
pub const LAYER: u8 = 0x10;
/// First byte of what a leaf is of.
const LEAF: u8 = 0x11;
/// Where a leaf's layer digests begin: behind its first byte and the token.
const DIGESTS: usize = 5;
/// So many bytes do not wait: they are still in the cache.
const ENOUGH_BYTES: usize = 256 << 10;

/// What a step's rows leave behind on its way to their leaves. Its memory is used again.
#[derive(Default)]
pub(crate) struct Trace {
    rows: usize,
    layers: usize,
    /// Bytes of what a layer digest and a leaf are of.
    layer_bytes: usize,
    leaf_bytes: usize,
    /// The first layer that waits.
    first: usize,
    /// By layer from there, and row.
    waiting: Vec<u8>,
    /// By row.
    leaves: Vec<u8>,
}

impl Trace {
    /// Begins a step.
    pub(crate) fn begin(&mut self, shape: &Shape, layout: &Layout<'_>) {
        (self.rows, self.layers, self.first) = (layout.rows(), shape.layers, 0);
        self.layer_bytes = 1 + 2 * shape.key_heads * (shape.head_dim + 4);
        self.leaf_bytes = DIGESTS + 32 * shape.layers + 2 * shape.hidden + 4;
        grow(&mut self.leaves, self.rows * self.leaf_bytes);
        for (row, leaf) in self.leaves.chunks_exact_mut(self.leaf_bytes).take(self.rows).enumerate() {
            leaf[0] = LEAF;
            leaf[1..DIGESTS].copy_from_slice(&layout.token(row).to_le_bytes());
        }
    }

    /// Where a layer leaves keys and values: what its digests are of, by row.
    pub(crate) fn layer(&mut self, layer: usize) -> Shared<'_, u8> {
        let bytes = self.rows * self.layer_bytes;
        let at = (layer - self.first) * bytes;
        grow(&mut self.waiting, at + bytes);
        Shared::new(&mut self.waiting[at..at + bytes])
    }

    /// What is to be hashed now, once a layer has left keys and values.
    pub(crate) fn due(&mut self, layer: usize) -> Due<'_> {
        let (first, count) = (self.first, (layer + 1 - self.first) * self.rows);
        let due = count * self.layer_bytes >= ENOUGH_BYTES || layer + 1 == self.layers;
        if due {
            self.first = layer + 1;
        }
        Due {
            first,
            count: if due { count } else { 0 },
            rows: self.rows,
            layer_bytes: self.layer_bytes,
            leaf_bytes: self.leaf_bytes,
            waiting: &self.waiting,
            leaves: Shared::new(&mut self.leaves),
        }
    }

    /// The leaf of each row, once all layers are done.
    pub(crate) fn finish(&mut self, isa: Isa, pool: &mut Pool, hidden: &Quantised) -> Vec<Hash> {
        let mut hashes = vec![[0; 32]; self.rows];
        let (shared, leaves) = (Shared::new(&mut hashes), Shared::new(&mut self.leaves));
        let (rows, bytes) = (self.rows, self.leaf_bytes);
        pool.each(rows.div_ceil(LANES), |_, unit| {
            let rows = unit * LANES..rows.min((unit + 1) * LANES);
            for row in rows.clone() {
                let end = leaves.part_mut((row + 1) * bytes - 2 * hidden.inputs() - 4, 2 * hidden.inputs() + 4);
                let (levels, scale) = end.split_at_mut(2 * hidden.inputs());
                hidden.write_levels(row, levels);
                scale.copy_from_slice(&hidden.scales()[row].to_le_bytes());
            }
            let mut found = [[0; 32]; LANES];
            let found = &mut found[..rows.len()];
            hash_each(isa, leaves.part(rows.start * bytes, rows.len() * bytes), found);
            shared.copy_in(rows.start, found);
        });
        hashes
    }
}

fn grow(bytes: &mut Vec<u8>, to: usize) {
    if bytes.len() < to {
        bytes.resize(to, 0);
    }
}

/// Keys and values whose digests are due.
pub(crate) struct Due<'a> {
    first: usize,
    /// Digests in all.
    count: usize,
    rows: usize,
    layer_bytes: usize,
    leaf_bytes: usize,
    waiting: &'a [u8],
    leaves: Shared<'a, u8>,
}

impl Due<'_> {
    /// Units of work.
    pub(crate) fn units(&self) -> usize {
        self.count.div_ceil(LANES)
    }

    /// One unit of work: digests go where the leaf has them.
    pub(crate) fn run(&self, isa: Isa, unit: usize) {
        let numbers = unit * LANES..self.count.min((unit + 1) * LANES);
        let mut digests = [[0; 32]; LANES];
        let digests = &mut digests[..numbers.len()];
        let bytes = numbers.start * self.layer_bytes..numbers.end * self.layer_bytes;
        hash_each(isa, &self.waiting[bytes], digests);
        for (number, digest) in numbers.zip(digests) {
            let (layer, row) = (self.first + number / self.rows, number % self.rows);
            self.leaves.copy_in(row * self.leaf_bytes + DIGESTS + 32 * layer, digest);
        }
    }
}

/// The leaf of a position: its token, its layer digests, and levels (16 bits each, little end first) and scale of the
/// quantised final hidden row.
pub fn leaf(token: u32, layers: &[Hash], levels: &[u8], scale: f32) -> Hash {
    let parts: [&[u8]; 5] = [&[LEAF], &token.to_le_bytes(), layers.as_flattened(), levels, &scale.to_le_bytes()];
    // At once: a hasher that is fed piece by piece takes twice as long for so few bytes.
    *blake3::hash(&parts.concat()).as_bytes()
}
