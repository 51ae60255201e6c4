//! Linear maps and routes of the oracle, plain and prepared (specification, sections 2, 3 and 10).

use super::read::{assert_same, each, float, floats, integers, matrix, quantised, small, text};
use crate::reference::difference::difference;
use exact::linear::{self, Epilogue, RowsMut, row_linear};
use exact::matrix::{Matrix, RowMatrix};
use exact::mixture::Router;
use exact::quantise::{Quantised, quantise_weights};
use exact::spread::{spread, spread_block};
use exact::{Activations, Isa};
use serde_json::Value;

/// How a vector's weights and inputs are prepared: not at all, or multiplied by a norm, if there is one, and spread.
enum Preparation {
    Plain,
    Spread(Option<Vec<f32>>),
}

impl Preparation {
    fn of(v: &Value) -> Self {
        match v.get("norm") {
            None => Preparation::Plain,
            Some(norm) => Preparation::Spread((!norm.is_null()).then(|| floats(norm))),
        }
    }

    fn input(&self, isa: Isa, x: &[f32]) -> Vec<f32> {
        let mut x = x.to_vec();
        if let Preparation::Spread(_) = self {
            spread(isa, &mut x);
        }
        x
    }

    /// The row to quantise and what its scale is divided by.
    fn weights(&self, isa: Isa, row: &[f32]) -> (Vec<f32>, f32) {
        let Preparation::Spread(norm) = self else { return (row.to_vec(), 1.0) };
        let mut row = row.to_vec();
        norm.iter().for_each(|norm| row.iter_mut().zip(norm).for_each(|(w, g)| *w *= g));
        spread(isa, &mut row);
        let block = spread_block(row.len()) as f32;
        (row, block)
    }

    /// Levels and scale of a weight row.
    fn quantised(&self, isa: Isa, row: &[f32]) -> (Vec<i8>, f32) {
        let (row, block) = self.weights(isa, row);
        let mut levels = vec![0; row.len()];
        let scale = quantise_weights(isa, &row, &mut levels).unwrap();
        (levels, scale / block)
    }

    fn matrix(&self, isa: Isa, rows: &[Vec<f32>]) -> Matrix {
        let mut matrix = Matrix::zeroed(rows.len(), rows[0].len());
        for (i, row) in rows.iter().enumerate() {
            let (levels, scale) = self.quantised(isa, row);
            matrix.set_row(i, &levels, scale);
        }
        matrix
    }
}

fn apply(isa: Isa, x: &Quantised, weights: &Matrix, epilogue: Epilogue<'_>, y: &mut [f32]) {
    let to = RowsMut::new(y, weights.outputs());
    linear::linear(isa, x, 0..x.rows(), weights, 0..weights.blocks(), epilogue, to, 0, &mut Default::default());
}

fn linear_vector(isa: Isa, v: &Value) {
    let (mode, prepared) = (text(&v["mode"]).parse().unwrap(), Preparation::of(v));
    let x: Vec<_> = matrix(&v["x"]).iter().map(|x| prepared.input(isa, x)).collect();
    let (x, w) = (quantised(isa, &x, mode).unwrap(), prepared.matrix(isa, &matrix(&v["w"])));
    let mut y = vec![0.0; x.rows() * w.outputs()];
    apply(isa, &x, &w, Epilogue::Store, &mut y);
    assert_eq!(difference(&y, &matrix(&v["y"]).concat()), None, "{isa}");
    apply(isa, &x, &w, Epilogue::Bias(&floats(&v["b"])), &mut y);
    assert_eq!(difference(&y, &matrix(&v["y_bias"]).concat()), None, "{isa}");

    let down = matrix(&v["A"]);
    let mut a = RowMatrix::zeroed(down.len(), x.inputs());
    for (i, row) in down.iter().enumerate() {
        let (levels, scale) = prepared.quantised(isa, row);
        a.set_row(i, &levels, scale);
    }
    let mut t = vec![vec![0.0; down.len()]; x.rows()];
    t.iter_mut().enumerate().for_each(|(i, t)| row_linear(isa, &x, i, &a, t));
    let (t, b) = (quantised(isa, &t, Activations::A16).unwrap(), matrix(&v["B"]));
    let b = Preparation::Plain.matrix(isa, &b);
    apply(isa, &t, &b, Epilogue::AddScaled(float(&v["g"])), &mut y);
    assert_eq!(difference(&y, &matrix(&v["y_adapter"]).concat()), None, "{isa}");
}

#[test]
fn linear_maps_with_bias_and_adapter_have_the_oracles_bits() {
    each("linear", linear_vector);
    each("linear_prepared", linear_vector);
}

fn route_vector(isa: Isa, v: &Value) {
    let (prepared, rows) = (Preparation::of(v), matrix(&v["w"]));
    let x = prepared.input(isa, &floats(&v["x"]));
    let mut router = Router::zeroed(rows.len(), x.len());
    for (e, row) in rows.iter().enumerate() {
        let (row, block) = prepared.weights(isa, row);
        router.quantise_row(isa, e, &row).unwrap();
        let (levels, scale) = (router.row(e).0.to_vec(), router.row(e).1);
        router.set_row(e, &levels, scale / block);
    }
    let choices = router.route(isa, &x, small(&v["chosen"]), v["renormalise"] == true).unwrap();
    let ids: Vec<i32> = choices.iter().map(|choice| choice.expert as i32).collect();
    assert_eq!(ids, integers(&v["ids"]), "{isa}");
    assert_same(&choices.iter().map(|choice| choice.weight).collect::<Vec<_>>(), &v["g"], isa);
}

#[test]
fn routes_have_the_oracles_experts_and_weights() {
    each("route", route_vector);
    each("route_prepared", route_vector);
}
