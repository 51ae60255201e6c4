//! Leaves of the trace: one hash per position, of what the position left behind (docs/receipts.md).
//!
//! `layer digest = H(0x10 ‖ keys ‖ values)`, each head's levels followed by its scale, and
//! `leaf = H(0x11 ‖ token ‖ layer digests ‖ levels and scale of the quantised final hidden row)`.

use exact::quantise::Quantised;
use exact::shared::Shared;

/// A 32-byte BLAKE3 hash.
pub type Hash = [u8; 32];

/// The layer digests of a step, row by row.
#[derive(Clone, Copy)]
pub(crate) struct Trace<'a> {
    layers: usize,
    digests: Shared<'a, Hash>,
}

impl<'a> Trace<'a> {
    pub(crate) fn new(digests: &'a mut [Hash], layers: usize) -> Self {
        Trace { layers, digests: Shared::new(digests) }
    }

    /// Sets the digest of one row's keys and values in one layer.
    pub(crate) fn set_layer(&self, row: usize, layer: usize, digest: Hash) {
        self.digests.set(row * self.layers + layer, digest);
    }

    /// The leaf of one row.
    pub(crate) fn leaf(&self, row: usize, token: u32, hidden: &Quantised) -> Hash {
        let mut levels = Vec::with_capacity(2 * hidden.inputs());
        hidden.append_levels(row, &mut levels);
        leaf(token, self.digests.part(row * self.layers, self.layers), &levels, hidden.scales()[row])
    }
}

// Both hash one piece of memory at once: a hasher that is fed piece by piece takes twice as long for so few bytes.

/// The digest of a position's keys and values in a layer: of each head the levels, then the scale.
pub fn layer_digest(keys_and_values: &[u8]) -> Hash {
    *blake3::hash(&[&[0x10], keys_and_values].concat()).as_bytes()
}

/// The leaf of a position: its token, its layer digests, and levels (16 bits each, little end first) and scale of the
/// quantised final hidden row.
pub fn leaf(token: u32, layers: &[Hash], levels: &[u8], scale: f32) -> Hash {
    let parts: [&[u8]; 5] = [&[0x11], &token.to_le_bytes(), layers.as_flattened(), levels, &scale.to_le_bytes()];
    *blake3::hash(&parts.concat()).as_bytes()
}
