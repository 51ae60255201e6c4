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
    pub(crate) fn set_layer(&self, row: usize, layer: usize, keys_and_values: &[u8]) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[0x10]).update(keys_and_values);
        self.digests.set(row * self.layers + layer, *hasher.finalize().as_bytes());
    }

    /// The leaf of one row.
    pub(crate) fn leaf(&self, row: usize, token: u32, hidden: &Quantised) -> Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[0x11]).update(&token.to_le_bytes());
        hasher.update(self.digests.part(row * self.layers, self.layers).as_flattened());
        let levels: Vec<i16> = (0..hidden.inputs()).map(|i| hidden.level(row, i) as i16).collect();
        for level in levels {
            hasher.update(&level.to_le_bytes());
        }
        hasher.update(&hidden.scales()[row].to_le_bytes());
        *hasher.finalize().as_bytes()
    }
}
