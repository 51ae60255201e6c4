//! Norm, SiLU, spreading and quantising: prepare.cu.

use super::{Dice, Scratch, Tally, same};
use crate::arguments::{Header, Prepare, Row, Rows8};
use crate::launcher::{DeviceError, Launcher};
use crate::packing::chunks;
use crate::pass::{preparing, row_bytes};
use exact::quantise::Quantised;
use exact::{Activations, Isa, norm, spread};

/// One trial's inputs.
struct Case {
    rows: usize,
    width: usize,
    activations: Activations,
    spread: bool,
    /// 0: norm, 1: norm of residual + update, 2: SiLU, 3: as it is.
    kind: usize,
    first: Vec<f32>,
    second: Vec<f32>,
    weight: Vec<f32>,
}

/// Checks about `vectors` rows of up to `width` values.
pub fn rows<L: Launcher>(launcher: &mut L, dice: &mut Dice, vectors: u64, width: usize) -> Result<Tally, DeviceError> {
    let mut tally = Tally::default();
    while tally.vectors < vectors {
        let (rows, width) = (dice.length((vectors as usize).min(4096)), dice.length(width));
        let rows = rows.min((1 << 22) / width);
        let case = Case {
            rows,
            width,
            activations: [Activations::A8, Activations::A16][dice.below(2)],
            spread: dice.below(4) > 0,
            kind: dice.below(4),
            first: (0..rows).flat_map(|_| dice.row(width)).collect(),
            second: (0..rows).flat_map(|_| dice.row(width)).collect(),
            weight: dice.row(width),
        };
        trial(launcher, &case, &mut tally)?;
    }
    Ok(tally)
}

fn trial<L: Launcher>(launcher: &mut L, case: &Case, tally: &mut Tally) -> Result<(), DeviceError> {
    let (rows, width, planes) = (case.rows, case.width, case.activations.planes());
    let (chunks, fits) = (chunks(width), row_bytes(width) <= launcher.shared_max() as usize);
    let plane = rows.next_multiple_of(8) * chunks * 64;
    let mut scratch = Scratch::new(launcher);
    let table: Vec<Row> = (0..rows as u32).map(|segment| Row { segment, ..Row::default() }).collect();
    let first = scratch.put(&case.first)?;
    let second = scratch.put(&case.second)?;
    let out = Rows8 {
        digits: scratch.room(planes * plane)?,
        scales: scratch.room(rows * 4)?,
        plane_stride: plane as u64,
        chunks: chunks as u32,
        planes: planes as u32,
    };
    let arguments = Prepare {
        header: scratch.put(&[Header { rows: rows as u32, ..Header::default() }])?,
        rows: scratch.put(&table)?,
        residual: if case.kind < 2 { first } else { 0 },
        update: if case.kind == 1 { second } else { 0 },
        weight: if case.kind < 2 { scratch.put(&case.weight)? } else { 0 },
        source: first,
        up: if case.kind == 2 { second } else { 0 },
        spread_out: scratch.room(rows * width * 4)?,
        scratch: if fits { 0 } else { scratch.room(rows * width * 4)? },
        out,
        failed: scratch.put(&vec![0u32; rows])?,
        width: width as u32,
        block: if case.spread { spread::spread_block(width) as u32 } else { 1 },
        slots: 1,
        eps: 1e-5,
    };
    scratch.launch(preparing(rows, width), [rows, 1, 1], if fits { row_bytes(width) } else { 0 }, &arguments)?;
    let digits: Vec<i8> = scratch.get(out.digits, planes * plane)?;
    let scales: Vec<f32> = scratch.get(out.scales, rows)?;
    let floats: Vec<f32> = scratch.get(arguments.spread_out, rows * width)?;
    let residual: Vec<f32> = scratch.get(first, rows * width)?;
    let failed: Vec<u32> = scratch.get(arguments.failed, rows)?;
    let isa = Isa::best();
    let mut quantised = Quantised::new(case.activations);
    quantised.reshape(1, width, case.activations);
    for row in 0..rows {
        let part = row * width..(row + 1) * width;
        let (mut x, second) = (case.first[part.clone()].to_vec(), &case.second[part.clone()]);
        if case.kind == 1 {
            norm::add(isa, &mut x, second);
        }
        let mut right = case.kind > 1 || x.iter().zip(&residual[part.clone()]).all(|(a, b)| same(*a, *b));
        let mut y = vec![0.0; width];
        match case.kind {
            0 | 1 => norm::rms_norm(isa, &x, &case.weight, 1e-5, &mut y),
            2 => norm::gated(isa, &x, second, &mut y),
            _ => y = x,
        }
        if case.spread {
            spread::spread(isa, &mut y);
        }
        right &= y.iter().zip(&floats[part]).all(|(a, b)| same(*a, *b));
        let finite = quantised.write_row(isa, 0, &y).is_ok();
        right &= finite == (failed[row] == 0);
        let digit = |plane_number: usize, i: usize| {
            let at = plane_number * plane + ((row / 8 * chunks + i / 64) * 8 + row % 8) * 64 + i % 64;
            i32::from(digits[at])
        };
        let level = |i: usize| if planes == 1 { digit(0, i) } else { 256 * digit(0, i) + digit(1, i) };
        if finite {
            right &= scales[row].to_bits() == quantised.scales()[0].to_bits();
            right &= (0..width).all(|i| level(i) == quantised.level(0, i));
        } else {
            right &= scales[row] == 0.0 && (0..width).all(|i| level(i) == 0);
        }
        right &= (width..chunks * 64).all(|i| level(i) == 0);
        tally.count(right);
    }
    Ok(())
}
