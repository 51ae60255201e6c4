//! Sampling: sample.cu.

use super::{Dice, Scratch, Tally};
use crate::arguments::{Header, Sample};
use crate::kernel;
use crate::launcher::{DeviceError, Launcher};
use crate::outcome::draw_row;
use exact::Isa;
use exact::sample::{Sampling, sample};

fn settings(dice: &mut Dice, vocabulary: usize) -> Sampling {
    Sampling {
        temperature: [0.0, 0.001, 0.3, 0.7, 1.0, 1.7, 100.0][dice.below(7)],
        top_k: [0, 0, 1, 2, 40, vocabulary as u32, u32::MAX][dice.below(7)],
        top_p: [1.0, 1.0, 0.0, 1e-9, 0.3, 0.9, 0.999, 0.999_999_99][dice.below(8)],
        min_p: [0.0, 0.0, 0.05, 0.5, 1.0, 1e-9][dice.below(6)],
        seed: u64::from(dice.word()) << 32 | u64::from(dice.word()),
    }
}

/// Logits: bell-shaped, with ties, or flat; now and then not finite.
fn logits(dice: &mut Dice, vocabulary: usize) -> Vec<f32> {
    let kind = dice.below(12);
    let mut row: Vec<f32> = (0..vocabulary)
        .map(|_| match kind {
            0 => [0.0, -0.0][dice.below(2)],
            1 => dice.below(5) as f32 - 2.0,
            2 => dice.float() * 1e36,
            _ => {
                (dice.word() as i32 >> 8) as f32 / (1 << 20) as f32
                    + (dice.word() as i32 >> 8) as f32 / (1 << 20) as f32
            }
        })
        .collect();
    if dice.below(16) == 0 {
        let at = dice.below(vocabulary);
        row[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][dice.below(3)];
    }
    row
}

/// Checks about `vectors` draws from vocabularies of up to `vocabulary` tokens.
pub fn draws<L: Launcher>(
    launcher: &mut L,
    dice: &mut Dice,
    vectors: u64,
    vocabulary: usize,
) -> Result<Tally, DeviceError> {
    let mut tally = Tally::default();
    while tally.vectors < vectors {
        let (vocabulary, count, rows) = (dice.length(vocabulary), 1 + dice.below(64), 4);
        let table: Vec<f32> = (0..rows).flat_map(|_| logits(dice, vocabulary)).collect();
        let draws: Vec<(usize, Sampling, u64)> = (0..count)
            .map(|_| (dice.below(rows), settings(dice, vocabulary), u64::from(dice.word()) << dice.below(33)))
            .collect();
        let draw_rows: Vec<_> =
            draws.iter().map(|(row, sampling, position)| draw_row(*row, sampling, *position)).collect();
        let mut scratch = Scratch::new(launcher);
        let arguments = Sample {
            header: scratch.put(&[Header { draws: count as u32, ..Header::default() }])?,
            draws: scratch.put(&draw_rows)?,
            logits: scratch.put(&table)?,
            tokens: scratch.room(count * 4)?,
            vocabulary: vocabulary as u32,
            unused: 0,
        };
        scratch.launch(kernel::SAMPLE, [count, 1, 1], 0, &arguments)?;
        let got: Vec<u32> = scratch.get(arguments.tokens, count)?;
        for ((row, sampling, position), got) in draws.iter().zip(got) {
            let row = &table[row * vocabulary..][..vocabulary];
            let want = sample(Isa::best(), row, sampling, *position).unwrap_or(u32::MAX);
            tally.count(want == got);
        }
    }
    Ok(tally)
}
