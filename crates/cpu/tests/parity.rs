//! How far rounding to 8 bits takes us from float32: logits of checkpoints as they come from transformers and peft,
//! compared with what those compute. The relative L2 distance of each sequence's logits is the measure.

#![expect(clippy::unwrap_used, reason = "what a test builds must succeed")]

use cpu::{Config, Executor, Pages, Segment, Wanted};
use exact::{Activations, Isa};
use model::{Adapter, Dtype, LoadOptions, Model};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest distance allowed for dense models.
fn bound(activations: Activations) -> f64 {
    match activations {
        Activations::A8 => 0.045,
        Activations::A16 => 0.030,
    }
}

/// Largest distance over the tokens of a mixture that take the same experts as float32 in every layer (`routes.json`).
const EQUAL_ROUTES_BOUND: f64 = 0.05;
/// Least share of tokens that must.
const EQUAL_ROUTES_MIN: f64 = 0.95;
/// Largest distance of a mixture whose routes in float32 are not known: tokens can take other experts.
const MIXTURE_BOUND: f64 = 0.25;

fn folder() -> PathBuf {
    std::env::var_os("LOCKSTEP_GOLDENS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens"), PathBuf::from)
}

/// All tensors of a small safetensors file.
fn tensors(path: &Path) -> BTreeMap<String, (Dtype, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let data = &bytes[8 + length..];
    let mut tensors = BTreeMap::new();
    for (name, entry) in header.as_object().unwrap() {
        if name == "__metadata__" {
            continue;
        }
        let at = |i: usize| entry["data_offsets"][i].as_u64().unwrap() as usize;
        let dtype = if entry["dtype"] == "F32" { Dtype::F32 } else { Dtype::I8 };
        tensors.insert(name.clone(), (dtype, data[at(0)..at(1)].to_vec()));
    }
    tensors
}

fn words<T>(bytes: &[u8], from: impl Fn([u8; 4]) -> T) -> Vec<T> {
    bytes.chunks_exact(4).map(|word| from(word.try_into().unwrap())).collect()
}

/// The logits of all tokens, and by mixture and token the experts chosen.
fn logits(model: &Arc<Model>, adapter: Option<&Adapter>, ids: &[u32]) -> (Vec<f32>, Vec<Vec<Vec<u32>>>) {
    let mut executor = Executor::new(model.clone(), Config { threads: 2, isa: Isa::best(), trace: false }).unwrap();
    let mut pages = Pages::new(&model.shape, ids.len().div_ceil(64));
    let table: Vec<u32> = (0..pages.count() as u32).collect();
    let segment = Segment { tokens: ids, start: 0, pages: &table, adapter, wanted: Wanted::All };
    let outcome = executor.step(&mut pages, &[segment]);
    assert!(!outcome.failed[0]);
    (outcome.logits(0).flatten().copied().collect(), outcome.routes)
}

/// By name and number of a sequence, the experts float32 takes: by mixture and token, ascending.
type Routes = BTreeMap<String, Vec<Vec<Vec<u32>>>>;

fn routes(folder: &Path) -> Option<Routes> {
    let text = std::fs::read_to_string(folder.join("routes.json")).ok()?;
    Some(serde_json::from_str(&text).unwrap())
}

/// What is compared of one checkpoint with one adapter.
#[derive(Default)]
struct Compared {
    worst: f64,
    tokens: usize,
    equal: usize,
}

impl Compared {
    /// Compares a sequence: whole, or where routes are known over the tokens whose routes are equal.
    fn add(&mut self, got: &[f32], want: &[f32], ours: &[Vec<Vec<u32>>], theirs: Option<&Vec<Vec<Vec<u32>>>>) {
        let tokens = theirs.map_or(1, |mixtures| mixtures[0].len());
        let equal = |token: &usize| {
            theirs.is_none_or(|theirs| ours.iter().zip(theirs).all(|(a, b)| same(&a[*token], &b[*token])))
        };
        let equal: Vec<usize> = (0..tokens).filter(equal).collect();
        let width = got.len() / tokens;
        let of = |values: &[f32]| -> Vec<f32> {
            equal.iter().flat_map(|token| values[token * width..(token + 1) * width].to_vec()).collect()
        };
        self.tokens += tokens;
        self.equal += equal.len();
        if !equal.is_empty() {
            self.worst = self.worst.max(distance(&of(got), &of(want)));
        }
    }
}

fn same(a: &[u32], b: &[u32]) -> bool {
    let sorted = |ids: &[u32]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    sorted(a) == sorted(b)
}

fn distance(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let difference: f64 = got.iter().zip(want).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let size: f64 = want.iter().map(|b| f64::from(*b).powi(2)).sum();
    (difference / size).sqrt()
}

#[test]
fn logits_of_every_golden_are_close_to_float32() {
    let mut compared = 0;
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        let (expected, routes) = (tensors(&folder.join("expected.safetensors")), routes(folder));
        for activations in [Activations::A8, Activations::A16] {
            let model = Arc::new(Model::load(folder, &LoadOptions::new(activations)).unwrap());
            let mixture = !model.weights.mixtures.is_empty();
            let mut names = vec!["base".to_owned()];
            if let Ok(adapters) = std::fs::read_dir(folder.join("adapters")) {
                names.extend(adapters.map(|entry| entry.unwrap().file_name().into_string().unwrap()));
            }
            for name in names {
                let adapter = (name != "base")
                    .then(|| Adapter::load(&folder.join("adapters").join(&name), &model, Isa::best()).unwrap());
                let mut found = Compared::default();
                for i in 0..5 {
                    let key = format!("{name}.{i}");
                    let (Some(ids), Some(want)) = (expected.get(&format!("ids.{i}")), expected.get(&key)) else {
                        continue;
                    };
                    let ids = words(&ids.1, u32::from_le_bytes);
                    let (got, ours) = logits(&model, adapter.as_ref(), &ids);
                    let want = words(&want.1, f32::from_le_bytes);
                    assert_eq!(got.len(), want.len());
                    found.add(&got, &want, &ours, routes.as_ref().map(|routes| &routes[&key]));
                    compared += 1;
                }
                let bound = match (&routes, mixture) {
                    (Some(_), _) => EQUAL_ROUTES_BOUND,
                    (None, true) => MIXTURE_BOUND,
                    (None, false) => bound(activations),
                };
                let equal = found.equal as f64 / found.tokens as f64;
                let label = folder.file_name().unwrap().to_string_lossy();
                let (mode, worst) = (activations.name(), 100.0 * found.worst);
                println!("{label:18} {name:12} {mode:4} {worst:.2} %, equal routes {:.1} %", 100.0 * equal);
                assert!(found.worst <= bound, "{label} {name} {mode}: {worst:.2} %");
                assert!(equal >= EQUAL_ROUTES_MIN, "{label} {name} {mode}: {equal}");
            }
        }
    }
    assert!(compared > 0, "there are no goldens in {}", folder().display());
}
