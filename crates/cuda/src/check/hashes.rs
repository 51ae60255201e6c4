//! BLAKE3: hash.cu.

use super::{Dice, Scratch, Tally};
use crate::arguments::{Hash, Header};
use crate::kernel;
use crate::launcher::{DeviceError, Launcher};

/// Checks about `vectors` messages of up to `bytes` bytes (at most 288 KiB).
pub fn hashes<L: Launcher>(
    launcher: &mut L,
    dice: &mut Dice,
    vectors: u64,
    bytes: usize,
) -> Result<Tally, DeviceError> {
    let mut tally = Tally::default();
    while tally.vectors < vectors {
        let (rows, per_row) = (1 + dice.below(64), 1 + dice.below(3));
        let length = match dice.below(3) {
            0 => (dice.length(64) * 64 + dice.below(3)).saturating_sub(1).clamp(1, bytes),
            _ => dice.length(bytes),
        };
        let stride = length.next_multiple_of(16);
        let messages: Vec<u8> = (0..rows * per_row * stride / 4 + 1).flat_map(|_| dice.word().to_le_bytes()).collect();
        let mut scratch = Scratch::new(launcher);
        let arguments = Hash {
            header: scratch.put(&[Header { rows: rows as u32, ..Header::default() }])?,
            messages: scratch.put(&messages[..rows * per_row * stride])?,
            digests: scratch.room(rows * per_row * 32)?,
            message_stride: stride as u64,
            row_stride: (per_row * stride) as u64,
            digest_stride: 32,
            digest_row_stride: (per_row * 32) as u64,
            bytes: length as u32,
            per_row: per_row as u32,
        };
        scratch.launch(kernel::HASH_MESSAGES, [rows, per_row, 1], 0, &arguments)?;
        let got: Vec<u8> = scratch.get(arguments.digests, rows * per_row * 32)?;
        for (message, got) in messages.chunks_exact(stride).zip(got.chunks_exact(32)) {
            tally.count(blake3::hash(&message[..length]).as_bytes() == got);
        }
    }
    Ok(tally)
}
