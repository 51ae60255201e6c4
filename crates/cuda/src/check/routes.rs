//! Routing to experts: mixture.cu.

use super::{Dice, Scratch, Tally};
use crate::arguments::{Header, Route, Row};
use crate::kernel;
use crate::launcher::{DeviceError, Launcher};
use exact::Isa;
use exact::mixture::Router;

/// Checks about `vectors` rows of up to `inputs` values.
pub fn routes<L: Launcher>(
    launcher: &mut L,
    dice: &mut Dice,
    vectors: u64,
    inputs: usize,
) -> Result<Tally, DeviceError> {
    let (isa, mut tally) = (Isa::best(), Tally::default());
    while tally.vectors < vectors {
        let (rows, inputs, experts) = (dice.length(64), dice.length(inputs), 1 + dice.below(160));
        let (chosen, renormalise) = (1 + dice.below(experts.min(8)), dice.below(2) == 0);
        let mut router = Router::zeroed(experts, inputs);
        // Some experts are copies of others: equal scores.
        let copies = dice.below(3) == 0;
        for expert in 0..experts {
            let levels: Vec<i16> = match expert {
                1.. if copies && expert % 2 == 1 => router.row(expert - 1).0.to_vec(),
                _ => (0..inputs).map(|_| (dice.word() as i16).clamp(-32_639, 32_639)).collect(),
            };
            let scale = if copies { 1e-6 } else { dice.float().abs() * 1e-5 };
            router.set_row(expert, &levels, scale);
        }
        let x: Vec<Vec<f32>> = (0..rows).map(|_| dice.row(inputs)).collect();
        let levels: Vec<i16> = (0..experts).flat_map(|e| router.row(e).0.to_vec()).collect();
        let scales: Vec<f32> = (0..experts).map(|e| router.row(e).1).collect();
        let table: Vec<Row> = (0..rows as u32).map(|segment| Row { segment, ..Row::default() }).collect();
        let mut scratch = Scratch::new(launcher);
        let arguments = Route {
            header: scratch.put(&[Header { rows: rows as u32, ..Header::default() }])?,
            rows: scratch.put(&table)?,
            x: scratch.put(&x.concat())?,
            weights: scratch.put(&levels)?,
            scales: scratch.put(&scales)?,
            chosen: scratch.room(rows * chosen * 4)?,
            weight: scratch.room(rows * chosen * 4)?,
            levels: scratch.room(rows * inputs * 2)?,
            failed: scratch.put(&vec![0u32; rows])?,
            inputs: inputs as u32,
            experts: experts as u32,
            count: chosen as u32,
            renormalise: u32::from(renormalise),
        };
        scratch.launch(kernel::ROUTE, [rows, 1, 1], 0, &arguments)?;
        let ids: Vec<u32> = scratch.get(arguments.chosen, rows * chosen)?;
        let weights: Vec<f32> = scratch.get(arguments.weight, rows * chosen)?;
        let failed: Vec<u32> = scratch.get(arguments.failed, rows)?;
        for (row, x) in x.iter().enumerate() {
            let part = row * chosen..(row + 1) * chosen;
            tally.count(match router.route(isa, x, chosen, renormalise) {
                Err(_) => failed[row] != 0 && ids[part].iter().all(|id| *id == u32::MAX),
                Ok(want) => {
                    let got = ids[part.clone()].iter().zip(&weights[part]);
                    let equal = |(choice, (id, weight)): (&exact::mixture::Choice, (&u32, &f32))| {
                        choice.expert == *id && choice.weight.to_bits() == weight.to_bits()
                    };
                    failed[row] == 0 && want.iter().zip(got).all(equal)
                }
            });
        }
    }
    Ok(tally)
}
