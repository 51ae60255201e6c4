//! The vectors that the oracle, a second implementation of the specification, wrote down.
#![expect(clippy::unwrap_used, reason = "what a test builds must succeed")]

mod reference {
    pub(crate) mod difference;
}

use exact::attention::{BlockLayout, POSITIONS, Workspace, attend};
use exact::linear::{self, Epilogue, RowsMut, row_linear};
use exact::matrix::{Matrix, RowMatrix};
use exact::memory::AlignedBytes;
use exact::mixture::Router;
use exact::quantise::{Quantised, quantise_i8, quantise_i16};
use exact::sample::{Sampling, sample};
use exact::shared::Shared;
use exact::{Activations, Isa, NotFinite, generator, norm, rotary};
use reference::difference::difference;
use serde_json::Value;

fn vectors(part: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/oracle/vectors.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(all["version"], exact::VERSION);
    let part = all[part].as_array().unwrap();
    assert!(!part.is_empty());
    part.clone()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn words(value: &Value) -> Vec<u32> {
    text(value).split(' ').map(|word| u32::from_str_radix(word, 16).unwrap()).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    words(value).into_iter().map(f32::from_bits).collect()
}

fn float(value: &Value) -> f32 {
    floats(value)[0]
}

fn matrix(value: &Value) -> Vec<Vec<f32>> {
    value.as_array().unwrap().iter().map(floats).collect()
}

fn integers(value: &Value) -> Vec<i32> {
    text(value).split(' ').map(|word| word.parse().unwrap()).collect()
}

fn long(value: &Value) -> u64 {
    u64::from_str_radix(text(value), 16).unwrap()
}

fn small(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

/// Checks every vector of a part on every instruction set.
fn each(part: &str, check: impl Fn(Isa, &Value)) {
    for vector in vectors(part) {
        Isa::available().into_iter().for_each(|isa| check(isa, &vector));
    }
}

fn assert_same(got: &[f32], want: &Value, isa: Isa) {
    assert_eq!(difference(got, &floats(want)), None, "{isa}");
}

#[test]
fn elementary_functions_have_the_oracles_bits() {
    each("exp2", |isa, v| assert_same(&[exact::exp2(float(&v["x"]))], &v["y"], isa));
    each("log2", |isa, v| assert_same(&[exact::log2(float(&v["x"]))], &v["y"], isa));
    each("silu", |isa, v| {
        assert_same(&[exact::silu(float(&v["x"]))], &v["y"], isa);
        let mut y = [0.0];
        norm::gated(isa, &floats(&v["x"]), &[1.0], &mut y);
        assert_same(&y, &v["y"], isa);
    });
}

fn quantised(isa: Isa, rows: &[Vec<f32>], mode: Activations) -> Result<Quantised, NotFinite> {
    let mut x = Quantised::new(mode);
    x.reshape(rows.len(), rows[0].len(), mode);
    rows.iter().enumerate().try_for_each(|(i, row)| x.write_row(isa, i, row))?;
    Ok(x)
}

#[test]
fn rows_quantise_to_the_oracles_levels() {
    each("quantise", |isa, v| {
        let x = floats(&v["x"]);
        let (mut q8, mut q16) = (vec![0; x.len()], vec![0; x.len()]);
        let (s8, s16) = (quantise_i8(isa, &x, &mut q8), quantise_i16(isa, &x, &mut q16));
        let rows = [x.clone()];
        if v["fails"] == true {
            assert!(s8.is_err() && s16.is_err() && quantised(isa, &rows, Activations::A16).is_err(), "{isa}");
            return;
        }
        assert_same(&[s8.unwrap()], &v["a8"]["s"], isa);
        assert_same(&[s16.unwrap()], &v["a16"]["s"], isa);
        assert_eq!(q8.into_iter().map(i32::from).collect::<Vec<_>>(), integers(&v["a8"]["q"]), "{isa}");
        assert_eq!(q16.into_iter().map(i32::from).collect::<Vec<_>>(), integers(&v["a16"]["q"]), "{isa}");
        for (mode, part) in [(Activations::A8, &v["a8"]), (Activations::A16, &v["a16"])] {
            let row = quantised(isa, &rows, mode).unwrap();
            assert_eq!((0..x.len()).map(|i| row.level(0, i)).collect::<Vec<_>>(), integers(&part["q"]), "{isa}");
            assert_same(row.scales(), &part["s"], isa);
        }
        let digits = integers(&v["a16"]["hi"]).into_iter().zip(integers(&v["a16"]["lo"]));
        assert_eq!(digits.map(|(hi, lo)| 256 * hi + lo).collect::<Vec<_>>(), integers(&v["a16"]["q"]));
    });
}

fn weights(isa: Isa, rows: &[Vec<f32>]) -> Matrix {
    let mut matrix = Matrix::zeroed(rows.len(), rows[0].len());
    rows.iter().enumerate().for_each(|(i, row)| matrix.quantise_row(isa, i, row).unwrap());
    matrix
}

fn apply(isa: Isa, x: &Quantised, weights: &Matrix, epilogue: Epilogue<'_>, y: &mut [f32]) {
    let to = RowsMut::new(y, weights.outputs());
    linear::linear(isa, x, 0..x.rows(), weights, 0..weights.blocks(), epilogue, to, 0, &mut Default::default());
}

#[test]
fn linear_maps_with_bias_and_adapter_have_the_oracles_bits() {
    each("linear", |isa, v| {
        let mode = text(&v["mode"]).parse().unwrap();
        let x = quantised(isa, &matrix(&v["x"]), mode).unwrap();
        let w = weights(isa, &matrix(&v["w"]));
        let mut y = vec![0.0; x.rows() * w.outputs()];
        apply(isa, &x, &w, Epilogue::Store, &mut y);
        assert_eq!(difference(&y, &matrix(&v["y"]).concat()), None, "{isa}");
        apply(isa, &x, &w, Epilogue::Bias(&floats(&v["b"])), &mut y);
        assert_eq!(difference(&y, &matrix(&v["y_bias"]).concat()), None, "{isa}");

        let down = matrix(&v["A"]);
        let mut a = RowMatrix::zeroed(down.len(), x.inputs());
        down.iter().enumerate().for_each(|(i, row)| a.quantise_row(isa, i, row).unwrap());
        let mut t = vec![vec![0.0; down.len()]; x.rows()];
        t.iter_mut().enumerate().for_each(|(i, t)| row_linear(isa, &x, i, &a, t));
        let t = quantised(isa, &t, Activations::A16).unwrap();
        apply(isa, &t, &weights(isa, &matrix(&v["B"])), Epilogue::AddScaled(float(&v["g"])), &mut y);
        assert_eq!(difference(&y, &matrix(&v["y_adapter"]).concat()), None, "{isa}");
    });
}

#[test]
fn norms_transforms_and_rotations_have_the_oracles_bits() {
    each("rmsnorm", |isa, v| {
        let x = floats(&v["x"]);
        let mut y = vec![0.0; x.len()];
        norm::rms_norm(isa, &x, &floats(&v["w"]), float(&v["eps"]), &mut y);
        assert_same(&y, &v["y"], isa);
    });
    each("hadamard", |isa, v| {
        let mut head = floats(&v["v"]);
        rotary::hadamard(isa, &mut head);
        assert_same(&head, &v["y"], isa);
    });
    each("rotate", |isa, v| {
        let mut head = floats(&v["v"]);
        rotary::rotate(isa, &mut head, &floats(&v["c"]), &floats(&v["s"]));
        assert_same(&head, &v["y"], isa);
    });
}

/// The generator the vectors' head describes.
struct Draws(u32);

impl Draws {
    fn draw(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8
    }

    fn head(&mut self, d: usize) -> (Vec<i8>, f32) {
        let levels = (0..d).map(|_| (self.draw() as i32 % 255 - 127) as i8).collect();
        (levels, (self.draw() + (1 << 24)) as f32 * 2f32.powi(-28))
    }
}

/// A row that quantises to `levels` and `scale`, followed by one value of level 127 and zeros, `width` values in all.
fn query(levels: &[i8], scale: f32, width: usize) -> Vec<f32> {
    let near = (scale * 127.0).to_bits();
    let largest = (near - 2..=near + 2).map(f32::from_bits).find(|a| a / 127.0 == scale).unwrap();
    let value = |q: &i8| if q.unsigned_abs() == 127 { largest * f32::from(q.signum()) } else { f32::from(*q) * scale };
    let mut row: Vec<f32> = levels.iter().map(value).chain([largest]).collect();
    row.resize(width, 0.0);
    row
}

/// The vectors' queries need not hold the level 127, quantised rows must. So heads of d dimensions are put into heads of
/// 4·d: the query has 127 in a dimension where all keys have 0, and the eightfold scale, which √(4d) and a block of 4d
/// take out exactly.
#[test]
fn attention_has_the_oracles_bits() {
    let vectors = vectors("attention");
    let (keys, d) = (small(&vectors[0]["keys"]), small(&vectors[0]["d"]));
    assert!(d.is_power_of_two());
    let mut draws = Draws(small(&vectors[0]["seed"]) as u32);
    let layout = BlockLayout::new(4 * d);
    let mut blocks = vec![AlignedBytes::zeroed(layout.bytes()); keys.div_ceil(POSITIONS)];
    for p in 0..keys {
        let bytes = Shared::new(blocks[p / POSITIONS].as_bytes_mut());
        let [k, v] = [draws.head(d), draws.head(d)].map(|(mut levels, scale)| {
            levels.resize(4 * d, 0);
            (levels, scale)
        });
        layout.write_key(bytes, 0, p % POSITIONS, &k.0, k.1);
        layout.write_value(bytes, 0, p % POSITIONS, &v.0, v.1);
    }
    for v in vectors {
        let (levels, scale) = draws.head(d);
        let rows = [query(&levels, 8.0 * scale, 4 * d)];
        let (p, window) = (small(&v["position"]), v["window"].as_u64().map(|w| w as usize));
        for isa in Isa::available() {
            let q = quantised(isa, &rows, Activations::A8).unwrap();
            assert!((0..d).all(|i| q.level(0, i) == i32::from(levels[i])) && q.scales() == [8.0 * scale]);
            let (mut out, mut ws) = (vec![0.0; 4 * d], Workspace::default());
            let block = |b: usize| blocks[b].as_bytes();
            attend(isa, layout, &q, 0..1, |_| p, window, block, &mut out, &mut ws).unwrap();
            assert_same(&out[..d], &v["out"], isa);
        }
    }
}

#[test]
fn routes_have_the_oracles_experts_and_weights() {
    each("route", |isa, v| {
        let (x, rows) = (floats(&v["x"]), matrix(&v["w"]));
        let mut router = Router::zeroed(rows.len(), x.len());
        rows.iter().enumerate().for_each(|(e, row)| router.quantise_row(isa, e, row).unwrap());
        let choices = router.route(isa, &x, small(&v["chosen"]), v["renormalise"] == true).unwrap();
        let ids: Vec<i32> = choices.iter().map(|choice| choice.expert as i32).collect();
        assert_eq!(ids, integers(&v["ids"]), "{isa}");
        assert_same(&choices.iter().map(|choice| choice.weight).collect::<Vec<_>>(), &v["g"], isa);
    });
}

#[test]
fn the_generator_has_the_oracles_words() {
    for v in vectors("philox") {
        let (key, counter) = (words(&v["key"]), words(&v["counter"]));
        let output = generator::philox(key.try_into().unwrap(), counter.try_into().unwrap());
        assert_eq!(output[..], words(&v["output"]));
    }
    for v in vectors("uniform") {
        let (seed, position) = (long(&v["seed"]), long(&v["position"]));
        for (i, u) in (small(&v["first"]) as u32..).zip(floats(&v["u"])) {
            let counter = [i / 4, position as u32, (position >> 32) as u32, 0];
            let word = generator::philox([seed as u32, (seed >> 32) as u32], counter)[i as usize % 4];
            assert_eq!(((word >> 9) * 2 + 1) as f32 * 2f32.powi(-24), u);
        }
    }
}

#[test]
fn tokens_drawn_are_the_oracles() {
    let rows: Vec<Vec<f32>> = vectors("sampling_rows").iter().map(floats).collect();
    each("sampling", |isa, v| {
        let sampling = Sampling {
            temperature: v["T"].as_f64().unwrap(),
            top_k: small(&v["top_k"]) as u32,
            top_p: v["top_p"].as_f64().unwrap(),
            min_p: v["min_p"].as_f64().unwrap(),
            seed: long(&v["seed"]),
        };
        let token = sample(isa, &rows[small(&v["row"])], &sampling, long(&v["position"]));
        assert_eq!(token.map(|token| token as usize), Ok(small(&v["token"])), "{isa}, {sampling:?}");
    });
}
