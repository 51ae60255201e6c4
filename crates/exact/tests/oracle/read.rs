//! Reading the vectors, and comparing with them.

use crate::reference::difference::difference;
use exact::quantise::Quantised;
use exact::{Activations, Isa, NotFinite};
use serde_json::Value;

pub(crate) fn vectors(part: &str) -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/oracle/vectors.json");
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(all["version"], exact::VERSION);
    let part = all[part].as_array().unwrap();
    assert!(!part.is_empty());
    part.clone()
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

pub(crate) fn words(value: &Value) -> Vec<u32> {
    text(value).split(' ').map(|word| u32::from_str_radix(word, 16).unwrap()).collect()
}

pub(crate) fn floats(value: &Value) -> Vec<f32> {
    words(value).into_iter().map(f32::from_bits).collect()
}

pub(crate) fn float(value: &Value) -> f32 {
    floats(value)[0]
}

pub(crate) fn matrix(value: &Value) -> Vec<Vec<f32>> {
    value.as_array().unwrap().iter().map(floats).collect()
}

pub(crate) fn integers(value: &Value) -> Vec<i32> {
    text(value).split(' ').map(|word| word.parse().unwrap()).collect()
}

pub(crate) fn long(value: &Value) -> u64 {
    u64::from_str_radix(text(value), 16).unwrap()
}

pub(crate) fn small(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

/// Checks every vector of a part on every instruction set.
pub(crate) fn each(part: &str, check: impl Fn(Isa, &Value)) {
    for vector in vectors(part) {
        Isa::available().into_iter().for_each(|isa| check(isa, &vector));
    }
}

pub(crate) fn assert_same(got: &[f32], want: &Value, isa: Isa) {
    assert_eq!(difference(got, &floats(want)), None, "{isa}");
}

/// Rows quantised in a mode.
pub(crate) fn quantised(isa: Isa, rows: &[Vec<f32>], mode: Activations) -> Result<Quantised, NotFinite> {
    let mut x = Quantised::new(mode);
    x.reshape(rows.len(), rows[0].len(), mode);
    rows.iter().enumerate().try_for_each(|(i, row)| x.write_row(isa, i, row))?;
    Ok(x)
}
