//! Linear maps against sums written out (specification, sections 1 to 3).
#![expect(clippy::unwrap_used, reason = "what a test builds must succeed")]

mod reference {
    pub(crate) mod difference;
    pub(crate) mod quantise;
    pub(crate) mod random;
}

use exact::linear::{self, Epilogue, RowsMut, Workspace, row_linear};
use exact::matrix::{BLOCK, Matrix, RowMatrix};
use exact::quantise::Quantised;
use exact::{Activations, Isa};
use proptest::prelude::*;
use reference::difference::difference;
use reference::quantise::quantise;
use reference::random::Random;

#[derive(Clone, Copy, Debug)]
enum Values {
    Ordinary,
    Extreme,
    Tiny,
    Zero,
    Huge,
    AnyBits,
}

fn values(kind: Values, n: usize, random: &mut Random) -> Vec<f32> {
    let spread = (random.below(40) as f32 - 20.0).exp2();
    let mut value = || match kind {
        Values::Ordinary => random.float() * spread,
        Values::Extreme => [spread, -spread][random.below(2)],
        Values::Tiny => random.float() * 2f32.powi(-100 - random.below(20) as i32),
        Values::Zero => [0.0, -0.0][random.below(2)],
        Values::Huge => random.float().clamp(-3.0, 3.0) * 1e38,
        Values::AnyBits => f32::from_bits(random.word() as u32 & 0xbfff_ffff),
    };
    (0..n).map(|_| value()).collect()
}

#[derive(Clone, Copy, Debug)]
enum Levels {
    Any,
    Lowest,
    Highest,
    Ends,
}

fn levels(kind: Levels, n: usize, random: &mut Random) -> Vec<i8> {
    let mut level = || match kind {
        Levels::Any => random.word() as i8,
        Levels::Lowest => -128,
        Levels::Highest => 127,
        Levels::Ends => [127, -127, -128][random.below(3)],
    };
    (0..n).map(|_| level()).collect()
}

/// Inputs, weights and the product of both by the text.
struct Problem {
    mode: Activations,
    x: Vec<Vec<f32>>,
    q: Vec<(Vec<i32>, f32)>,
    w: Vec<Vec<i8>>,
    s_w: Vec<f32>,
    product: Vec<Vec<f32>>,
}

impl Problem {
    fn new(mode: Activations, x: Vec<Vec<f32>>, w: Vec<Vec<i8>>, s_w: Vec<f32>) -> Self {
        let largest = if mode == Activations::A8 { 127.0 } else { 32_639.0 };
        let q: Vec<_> = x.iter().map(|x| quantise(x, largest).unwrap()).collect();
        let dot = |q: &[i32], w: &[i8]| {
            let sum: i64 = q.iter().zip(w).map(|(q, w)| i64::from(*q) * i64::from(*w)).sum();
            assert!(sum.abs() < 1 << 31, "the bound of section 2");
            sum as f32
        };
        let row = |(q, s_x): &(Vec<i32>, f32)| {
            let low: Vec<i32> = q.iter().map(|q| ((q + 128) & 255) - 128).collect();
            let high: Vec<i32> = q.iter().zip(&low).map(|(q, low)| (q - low) / 256).collect();
            let sums = |w: &Vec<i8>| match mode {
                Activations::A8 => dot(q, w),
                Activations::A16 => dot(&high, w) * 256.0 + dot(&low, w),
            };
            w.iter().zip(&s_w).map(|(w, s_w)| sums(w) * (s_x * s_w)).collect()
        };
        let product = q.iter().map(row).collect();
        Problem { mode, x, q, w, s_w, product }
    }

    fn random(mode: Activations, [rows, inputs, outputs]: [usize; 3], x: Values, w: Levels, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let rows = (0..rows).map(|_| values(x, inputs, &mut random)).collect();
        let weights = (0..outputs).map(|_| levels(w, inputs, &mut random)).collect();
        let scales = (0..outputs).map(|_| random.float().abs() * 10f32.powi(random.below(60) as i32 - 40)).collect();
        Problem::new(mode, rows, weights, scales)
    }

    fn inputs(&self) -> usize {
        self.x[0].len()
    }

    fn quantised(&self, isa: Isa) -> Quantised {
        let mut x = Quantised::new(self.mode);
        // A larger shape first, so that stale rows lie around.
        x.reshape(self.x.len() + 16, self.inputs() + 64, Activations::A16);
        for row in 0..x.rows() {
            x.write_row(isa, row, &vec![1.0; self.inputs() + 64]).unwrap();
        }
        x.reshape(self.x.len(), self.inputs(), self.mode);
        for (row, values) in self.x.iter().enumerate() {
            x.write_row(isa, row, values).unwrap();
            let (q, scale) = &self.q[row];
            assert!((0..self.inputs()).all(|i| x.level(row, i) == q[i]), "levels of row {row} on {isa}");
            assert_eq!(x.scales()[row].to_bits(), scale.to_bits());
        }
        x
    }

    fn matrix(&self) -> Matrix {
        let mut matrix = Matrix::zeroed(self.w.len(), self.inputs());
        for (output, levels) in self.w.iter().enumerate() {
            matrix.set_row(output, levels, self.s_w[output]);
            let mut back = vec![0; levels.len()];
            matrix.row(output, &mut back);
            assert_eq!(&back, levels);
        }
        matrix
    }

    /// Random ranges of rows and blocks with every epilogue, into the middle of a larger output that must not change.
    fn check(&self, isa: Isa, ws: &mut Workspace, random: &mut Random) {
        let (x, matrix) = (self.quantised(isa), self.matrix());
        let fill = |bytes: &mut [u8]| {
            bytes.copy_from_slice(matrix.packed());
            Ok::<(), ()>(())
        };
        let copy = Matrix::from_packed(self.w.len(), self.inputs(), matrix.scales(), fill).unwrap();
        let bias: Vec<f32> = (0..self.w.len()).map(|_| random.float()).collect();
        let gain = random.float();
        for trial in 0..6 {
            let (mut rows, mut blocks) = (0..x.rows(), 0..matrix.blocks());
            if trial >= 3 {
                rows.start = random.below(rows.end);
                rows.end = rows.start + 1 + random.below(rows.end - rows.start);
                blocks.start = random.below(blocks.end);
                blocks.end = blocks.start + 1 + random.below(blocks.end - blocks.start);
            }
            let (above, stride) = (random.below(3), self.w.len() + random.below(3));
            let mut out: Vec<f32> = (0..(above + rows.len() + 1) * stride).map(|_| random.float()).collect();
            let mut want = out.clone();
            for (i, row) in rows.clone().enumerate() {
                for n in blocks.start * BLOCK..self.w.len().min(blocks.end * BLOCK) {
                    let (y, d) = (&mut want[(above + i) * stride + n], self.product[row][n]);
                    *y = [d, d + bias[n], d.mul_add(gain, *y)][trial % 3];
                }
            }
            let epilogue = [Epilogue::Store, Epilogue::Bias(&bias), Epilogue::AddScaled(gain)][trial % 3];
            let weights = if random.below(2) == 0 { &matrix } else { &copy };
            let to = RowsMut::new(&mut out, stride);
            linear::linear(isa, &x, rows.clone(), weights, blocks.clone(), epilogue, to, above, ws);
            assert_eq!(difference(&out, &want), None, "{isa}: rows {rows:?}, blocks {blocks:?}, trial {trial}");
        }
        self.check_row_linear(isa, &x);
    }

    fn check_row_linear(&self, isa: Isa, x: &Quantised) {
        let mut matrix = RowMatrix::zeroed(self.w.len(), self.inputs());
        for (output, levels) in self.w.iter().enumerate() {
            matrix.set_row(output, levels, self.s_w[output]);
            assert_eq!(matrix.row(output), levels);
        }
        for row in 0..x.rows() {
            let mut out = vec![f32::NAN; self.w.len()];
            row_linear(isa, x, row, &matrix, &mut out);
            assert_eq!(difference(&out, &self.product[row]), None, "row_linear on {isa}, row {row}");
        }
    }
}

fn mode() -> impl Strategy<Value = Activations> {
    prop_oneof![Just(Activations::A8), Just(Activations::A16)]
}

fn shape() -> impl Strategy<Value = [usize; 3]> {
    let inputs = prop_oneof![1usize..600, (1usize..10).prop_map(|n| 64 * n), (1usize..150).prop_map(|n| 4 * n)];
    (1usize..70, inputs, prop_oneof![1usize..200, 1usize..20])
        .prop_map(|(rows, inputs, outputs)| [rows, inputs, outputs])
}

fn value_kind() -> impl Strategy<Value = Values> {
    prop_oneof![
        3 => Just(Values::Ordinary),
        2 => Just(Values::Extreme),
        1 => Just(Values::Tiny),
        1 => Just(Values::Zero),
        1 => Just(Values::Huge),
        2 => Just(Values::AnyBits)
    ]
}

fn level_kind() -> impl Strategy<Value = Levels> {
    prop_oneof![4 => Just(Levels::Any), 1 => Just(Levels::Lowest), 1 => Just(Levels::Highest), 2 => Just(Levels::Ends)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_linear_map_is_the_exact_sum_for_any_shape_range_epilogue_and_instruction_set(
        mode in mode(), shape in shape(), x in value_kind(), w in level_kind(), seed: u64,
    ) {
        let problem = Problem::random(mode, shape, x, w, seed);
        let mut ws = Workspace::default();
        for isa in Isa::available() {
            problem.check(isa, &mut ws, &mut Random::new(seed));
        }
    }
}

#[test]
fn every_small_number_of_rows_and_blocks_gives_the_exact_sum() {
    let mut ws = Workspace::default();
    for rows in 1..=34 {
        for outputs in [16, 31, 48, 64, 80] {
            for mode in [Activations::A8, Activations::A16] {
                let seed = (rows * 1000 + outputs) as u64;
                let shape = [rows, [64, 128, 100][rows % 3], outputs];
                let problem = Problem::random(mode, shape, Values::Ordinary, Levels::Any, seed);
                for isa in Isa::available() {
                    problem.check(isa, &mut ws, &mut Random::new(seed));
                }
            }
        }
    }
}

/// An adapter's second half, whose few rows of few inputs have a way of their own.
#[test]
fn every_rank_of_an_adapter_with_few_rows_gives_the_exact_sum() {
    let mut ws = Workspace::default();
    for rank in 1..=66 {
        for rows in [1, 2 + rank % 5, 7] {
            let seed = (rank * 10 + rows) as u64;
            let shape = [rows, rank, [16, 33, 70][rank % 3]];
            let problem = Problem::random(Activations::A16, shape, Values::Ordinary, Levels::Ends, seed);
            for isa in Isa::available() {
                problem.check(isa, &mut ws, &mut Random::new(seed));
            }
        }
    }
}

/// The most inputs there may be, and the most that fill whole tiles.
#[test]
fn sums_at_the_very_edge_of_32_bits_are_exact() {
    for inputs in [exact::INPUTS_MAX, exact::INPUTS_MAX / 64 * 64] {
        let full = |value: f32| vec![value; inputs];
        let signs: Vec<f32> = (0..inputs).map(|i| if i % 3 == 0 { -1.0 } else { 1.0 }).collect();
        // Levels ±128 have the low digit −128: times −128, the largest low sum there is.
        let (mut edge, mut other_edge) = (full(128.0), full(-128.0));
        (edge[0], other_edge[inputs - 1]) = (-32_639.0, -32_639.0);
        let x = vec![full(1.0), full(-1.0), signs, edge, other_edge, full(0.0), full(3.0e38)];
        let ends = (0..inputs).map(|i| if i % 3 == 0 { -128 } else { 127 }).collect();
        let w = vec![vec![-128; inputs], vec![127; inputs], ends];
        for mode in [Activations::A8, Activations::A16] {
            let problem = Problem::new(mode, x.clone(), w.clone(), vec![1.0, 0.37, 1e-3]);
            if mode == Activations::A16 {
                let low: i64 = problem.q[3].0.iter().map(|q| -128 * i64::from(((q + 128) & 255) - 128)).sum();
                assert_eq!(low, (inputs as i64 - 1) * 128 * 128 + 127 * 128);
            }
            for isa in Isa::available() {
                problem.check(isa, &mut Workspace::default(), &mut Random::new(7));
            }
        }
    }
}

#[test]
fn threads_that_multiply_at_the_same_time_do_not_disturb_each_other() {
    std::thread::scope(|scope| {
        for thread in 0..6 {
            scope.spawn(move || {
                let isa = Isa::available()[(thread + 3) % Isa::available().len()];
                let mode = [Activations::A8, Activations::A16][thread % 2];
                let problem = Problem::random(mode, [33, 512, 70], Values::Ordinary, Levels::Any, thread as u64);
                let (mut ws, mut random) = (Workspace::default(), Random::new(1));
                (0..20).for_each(|_| problem.check(isa, &mut ws, &mut random));
            });
        }
    });
}

#[test]
#[should_panic(expected = "a product of no inputs")]
fn a_product_of_no_inputs_is_refused_before_any_kernel_runs() {
    let mut x = Quantised::new(Activations::A8);
    x.reshape(16, 0, Activations::A8);
    let mut y = [0.0; 256];
    let to = RowsMut::new(&mut y, 16);
    let (weights, mut ws) = (Matrix::zeroed(16, 0), Workspace::default());
    linear::linear(Isa::best(), &x, 0..16, &weights, 0..1, Epilogue::Store, to, 0, &mut ws);
}
