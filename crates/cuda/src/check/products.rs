//! Linear maps: product.cu and gemm.cu, every kernel of them.

use super::{Dice, Scratch, Tally, same};
use crate::arguments::{Product, Rows8, Target};
use crate::launcher::{DeviceError, Launcher};
use crate::linears::{KERNELS, Shape};
use crate::packing::{chunks, pack};
use exact::linear::{Epilogue, RowsMut, linear};
use exact::matrix::Matrix;
use exact::quantise::Quantised;
use exact::{Activations, Isa};

/// Checks about `vectors` dot products of up to `inputs` values, of up to `rows` rows with up to `outputs` outputs.
pub fn products<L: Launcher>(
    launcher: &mut L,
    dice: &mut Dice,
    vectors: u64,
    [rows, outputs, inputs]: [usize; 3],
) -> Result<Tally, DeviceError> {
    let mut tally = Tally::default();
    let mut number = 0;
    while tally.vectors < vectors || number < KERNELS.len() {
        let (activations, shape) = KERNELS[number % KERNELS.len()];
        number += 1;
        let (rows, inputs) = (dice.length(rows), dice.length(inputs));
        let outputs: Vec<usize> = (0..=dice.below(3)).map(|_| dice.length(outputs)).collect();
        trial(launcher, dice, &mut tally, activations, shape, rows, inputs, &outputs)?;
    }
    Ok(tally)
}

fn random_matrix(dice: &mut Dice, outputs: usize, inputs: usize) -> Matrix {
    let mut matrix = Matrix::zeroed(outputs, inputs);
    for output in 0..outputs {
        // Now and then the extreme sums.
        let fixed = [None, Some(-128i8), Some(127)][dice.below(20).saturating_sub(17)];
        let levels: Vec<i8> = (0..inputs).map(|_| fixed.unwrap_or(dice.word() as i8)).collect();
        let scale = dice.float().abs();
        matrix.set_row(output, &levels, scale);
    }
    matrix
}

#[expect(clippy::too_many_arguments, reason = "one trial has this many sides")]
fn trial<L: Launcher>(
    launcher: &mut L,
    dice: &mut Dice,
    tally: &mut Tally,
    activations: Activations,
    shape: Shape,
    rows: usize,
    inputs: usize,
    outputs: &[usize],
) -> Result<(), DeviceError> {
    let (isa, planes, chunks) = (Isa::best(), activations.planes(), chunks(inputs));
    let mut x = Quantised::new(activations);
    x.reshape(rows, inputs, activations);
    for row in 0..rows {
        let values = dice.row(inputs);
        if x.write_row(isa, row, &values).is_err() {
            let zeros = vec![0.0; inputs];
            x.write_row(isa, row, &zeros).map_err(|_| DeviceError::Unsupported("zeros are finite".to_owned()))?;
        }
    }
    let plane = rows.next_multiple_of(256) * chunks * 64;
    let mut digits = vec![0i8; planes * plane];
    for row in 0..rows {
        for i in 0..inputs {
            let (at, q) = (((row / 8 * chunks + i / 64) * 8 + row % 8) * 64 + i % 64, x.level(row, i));
            let low = ((q + 128) & 255) - 128;
            if planes == 1 {
                digits[at] = q as i8;
            } else {
                (digits[at], digits[plane + at]) = (((q - low) >> 8) as i8, low as i8);
            }
        }
    }
    // Products of few rows may take any rows, in any order.
    let listed = !shape.many() && dice.below(2) == 0;
    let list: Vec<u32> = (0..rows).map(|row| if listed { dice.below(rows) as u32 } else { row as u32 }).collect();
    let mut scratch = Scratch::new(launcher);
    let mut arguments = Product {
        count: scratch.put(&[rows as u32])?,
        list: if listed { scratch.put(&list)? } else { 0 },
        x: Rows8 {
            digits: scratch.put(&digits)?,
            scales: scratch.put(x.scales())?,
            plane_stride: plane as u64,
            chunks: chunks as u32,
            planes: planes as u32,
        },
        targets_used: outputs.len() as u32,
        divide: 1,
        planes: planes as u32,
        ..Product::default()
    };
    let (mut maps, mut block) = (Vec::new(), 0);
    for (i, outputs) in outputs.iter().enumerate() {
        let matrix = random_matrix(dice, *outputs, inputs);
        let bias: Option<Vec<f32>> = (dice.below(2) == 0).then(|| (0..*outputs).map(|_| dice.float()).collect());
        arguments.targets[i] = Target {
            weights: scratch.put(&pack(&matrix))?,
            scales: scratch.put(matrix.scales())?,
            bias: match &bias {
                Some(bias) => scratch.put(bias)?,
                None => 0,
            },
            out: scratch.room(rows * outputs * 4)?,
            outputs: *outputs as u32,
            first_block: block as u32,
            ..Target::default()
        };
        block += outputs.div_ceil(shape.outputs);
        maps.push((matrix, bias));
    }
    scratch.launch(shape.kernel, [block, rows.div_ceil(shape.rows), 1], shape.shared, &arguments)?;
    for (target, (matrix, bias)) in arguments.targets.iter().zip(&maps) {
        let got: Vec<f32> = scratch.get(target.out, rows * matrix.outputs())?;
        let mut want = vec![0.0f32; rows * matrix.outputs()];
        let epilogue = bias.as_deref().map_or(Epilogue::Store, Epilogue::Bias);
        let out = RowsMut::new(&mut want, matrix.outputs());
        linear(isa, &x, 0..rows, matrix, 0..matrix.blocks(), epilogue, out, 0, &mut Default::default());
        for (row, got) in got.chunks_exact(matrix.outputs()).enumerate() {
            let want = &want[list[row] as usize * matrix.outputs()..][..matrix.outputs()];
            got.iter().zip(want).for_each(|(a, b)| tally.count(same(*a, *b)));
        }
    }
    Ok(())
}
