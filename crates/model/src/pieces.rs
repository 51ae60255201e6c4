//! The pieces a model consists of, one after the other: for whoever needs each once and not all at once.

use crate::parts::{self, Kind, Part, PartRef};
use crate::quantise::Source;
use crate::tensors::Tensors;
use crate::{Config, Embedding, Linear, LoadOptions, Model, ModelError, Plan, Shape, digest};
use exact::Activations;
use exact::matrix::Matrix;
use exact::mixture::Router;
use std::path::Path;

/// A piece and its place.
#[derive(Clone, Copy)]
pub enum Piece<'a> {
    /// Token embeddings.
    Embedding(&'a Embedding),
    /// A norm's weight, by number.
    Norm(usize, &'a [f32]),
    /// A linear map of the base, by site.
    Linear(usize, &'a Linear),
    /// A mixture's router.
    Router(usize, &'a Router),
    /// A linear map of an expert: mixture, expert, and 0 gate, 1 up, 2 down.
    Expert(usize, usize, usize, &'a Matrix),
}

/// Tells pieces apart by the order of slots.
#[derive(Default)]
struct Counter {
    norms: usize,
    linears: usize,
    mixtures: usize,
    experts: usize,
}

impl Counter {
    fn next<'a>(&mut self, kind: Kind, part: PartRef<'a>) -> Option<Piece<'a>> {
        let count = |number: &mut usize| {
            *number += 1;
            *number - 1
        };
        Some(match part {
            PartRef::Embedding(embedding) => Piece::Embedding(embedding),
            PartRef::Norm(_) if kind == Kind::Folded => return None,
            PartRef::Norm(norm) => Piece::Norm(count(&mut self.norms), norm),
            PartRef::Linear(linear) => Piece::Linear(count(&mut self.linears), linear),
            PartRef::Router(router) => {
                self.experts = 0;
                Piece::Router(count(&mut self.mixtures), router)
            }
            PartRef::Expert(matrix) => {
                let number = count(&mut self.experts);
                Piece::Expert(self.mixtures.saturating_sub(1), number / 3, number % 3, matrix)
            }
        })
    }
}

/// The pieces of a model in memory.
pub fn of_model(model: &Model, mut visit: impl FnMut(Piece<'_>)) {
    let mut counter = Counter::default();
    for (slot, part) in parts::slots(&model.shape, &model.plan).iter().zip(parts::of(&model.weights)) {
        if let Some(piece) = counter.next(slot.kind, part) {
            visit(piece);
        }
    }
}

/// What is known of a checkpoint whose pieces were streamed.
pub struct Streamed {
    /// Dimensions.
    pub shape: Shape,
    /// Forward pass.
    pub plan: Plan,
    /// How inputs are quantised.
    pub activations: Activations,
    /// The bytes whose hash is the exact digest.
    pub manifest: Vec<u8>,
}

/// Reads a checkpoint piece by piece, quantises each, shows it and lets it go: the memory this takes is that of the largest piece.
/// `start` is called once, before the first piece.
pub fn stream(
    folder: &Path,
    options: &LoadOptions<'_>,
    start: impl FnOnce(&Shape, &Plan),
    mut visit: impl FnMut(Piece<'_>),
) -> Result<Streamed, ModelError> {
    if !exact::float_environment_is_standard() {
        return Err(ModelError::FloatEnvironment);
    }
    let config = Config::read(folder)?;
    let plan = Plan::new(&config.shape);
    let tensors = Tensors::open(folder)?;
    let slots = parts::slots(&config.shape, &plan);
    let source = Source::new(&config, &plan, &tensors, options.isa)?;
    let bytes = slots.iter().map(|slot| source.check(slot)).collect::<Result<Vec<_>, _>>()?;
    let meter = options.meter(crate::Stage::Quantise, bytes.iter().sum());
    start(&config.shape, &plan);
    let (mut counter, mut entries) = (Counter::default(), vec![]);
    for (slot, bytes) in slots.iter().zip(bytes) {
        let part = source.read(slot)?;
        let part = reference(&part);
        entries.extend(digest::entries(slot, part, options.threads));
        if let Some(piece) = counter.next(slot.kind, part) {
            visit(piece);
        }
        meter.add(bytes);
    }
    let manifest = digest::manifest_of(&config.shape, options.activations, &entries);
    Ok(Streamed { shape: config.shape, plan, activations: options.activations, manifest })
}

fn reference(part: &Part) -> PartRef<'_> {
    match part {
        Part::Embedding(embedding) => PartRef::Embedding(embedding),
        Part::Norm(norm) => PartRef::Norm(norm),
        Part::Linear(linear) => PartRef::Linear(linear),
        Part::Router(router) => PartRef::Router(router),
        Part::Expert(matrix) => PartRef::Expert(matrix),
    }
}
