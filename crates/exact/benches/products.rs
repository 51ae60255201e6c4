//! Speed of the integer products alone, as a share of what this machine can multiply:
//! `cargo bench -p lockstep-exact --bench products`.
//!
//! Virtual machines lose most of their speed for seconds at a time, so all shapes are measured in turn, many rounds, and
//! the fastest run of each counts.

use exact::limits;
use exact::linear::{Epilogue, RowsMut, Workspace, linear};
use exact::matrix::{BLOCK, Matrix};
use exact::quantise::Quantised;
use exact::{Activations, Isa};
use std::time::Instant;

/// Shapes of a model of 1.24 billion parameters: (inputs, outputs).
const SHAPES: [(usize, usize); 4] = [(2048, 2048), (2048, 512), (2048, 8192), (8192, 2048)];
const ROWS: [usize; 4] = [16, 64, 256, 512];
/// Bytes of weights in one unit of work, as the executor takes them.
const UNIT_BYTES: usize = 512 << 10;
const ROUNDS: usize = 20;

fn main() {
    for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::SCALAR) {
        let limit = limits::measure(isa, 1).int8_ops;
        println!("{isa}: one thread multiplies {:.0} GOP/s at most", limit / 1e9);
        for activations in [Activations::A8, Activations::A16] {
            let mut problems: Vec<Vec<Problem>> = ROWS
                .iter()
                .map(|rows| SHAPES.iter().map(|shape| Problem::new(activations, *rows, *shape)).collect())
                .collect();
            for _ in 0..ROUNDS {
                problems.iter_mut().flatten().for_each(|problem| problem.run(isa));
            }
            for (rows, problems) in ROWS.iter().zip(&problems) {
                let share = |p: &Problem| {
                    let share = 100.0 * p.ops() / p.seconds / limit;
                    format!("{:5} x {:4} {share:3.0} %", p.weights.inputs(), p.weights.outputs())
                };
                let shares: Vec<String> = problems.iter().map(share).collect();
                println!("  {} {rows:4} rows: {}", activations.name(), shares.join("   "));
            }
        }
    }
}

/// One product and its fastest run so far.
struct Problem {
    x: Quantised,
    weights: Matrix,
    y: Vec<f32>,
    workspace: Workspace,
    seconds: f64,
}

impl Problem {
    fn new(activations: Activations, rows: usize, (inputs, outputs): (usize, usize)) -> Self {
        let mut weights = Matrix::zeroed(outputs, inputs);
        let levels: Vec<i8> = (0..inputs).map(|i| (i * 37 % 251) as i8).collect();
        (0..outputs).for_each(|output| weights.set_row(output, &levels, 1.0));
        let mut x = Quantised::new(activations);
        x.reshape(rows, inputs, activations);
        let values: Vec<f32> = (0..inputs).map(|i| (i * 29 % 255) as f32 - 127.0).collect();
        (0..rows).for_each(|row| x.rows_mut().write(Isa::SCALAR, row, &values).unwrap_or_default());
        let y = vec![0.0f32; rows * outputs];
        Problem { x, weights, y, workspace: Workspace::default(), seconds: f64::INFINITY }
    }

    fn ops(&self) -> f64 {
        (2 * self.x.rows() * self.weights.inputs() * self.weights.outputs() * self.x.activations().planes()) as f64
    }

    fn run(&mut self, isa: Isa) {
        let step = (UNIT_BYTES / self.weights.inputs() / BLOCK).max(4);
        let out = RowsMut::new(&mut self.y, self.weights.outputs());
        let start = Instant::now();
        for first in (0..self.weights.blocks()).step_by(step) {
            let blocks = first..(first + step).min(self.weights.blocks());
            let rows = 0..self.x.rows();
            linear(isa, &self.x, rows, &self.weights, blocks, Epilogue::Store, out, 0, &mut self.workspace);
        }
        self.seconds = self.seconds.min(start.elapsed().as_secs_f64());
    }
}
