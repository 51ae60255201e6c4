//! The parts weights consist of, in one order: embedding, norms, linear maps, each mixture's router and experts, then
//! the norm weights that were folded into linear maps. Loading, digests and the cache walk this list.

use crate::fold::Readers;
use crate::{Embedding, Expert, Linear, Mixture, Mlp, Plan, Shape, Weights};
use exact::matrix::Matrix;
use exact::mixture::Router;

/// What kind of part it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Embedding,
    Norm,
    Linear,
    Router,
    Expert,
    /// A norm's weight as the checkpoint has it, where it is folded into the maps that read it.
    Folded,
}

/// A part the model needs: its module path in the checkpoint and its size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Slot {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// The norm whose output it reads, if its weight is folded in.
    pub(crate) reads: Option<usize>,
}

/// What fills a slot.
pub(crate) enum Part {
    Embedding(Embedding),
    Norm(Vec<f32>),
    Linear(Linear),
    Router(Router),
    Expert(Matrix),
}

/// A part of existing weights.
#[derive(Clone, Copy)]
pub(crate) enum PartRef<'a> {
    Embedding(&'a Embedding),
    Norm(&'a [f32]),
    Linear(&'a Linear),
    Router(&'a Router),
    Expert(&'a Matrix),
}

/// Every part of a model.
pub(crate) fn slots(shape: &Shape, plan: &Plan) -> Vec<Slot> {
    let slot = |kind, name: String, rows, columns| Slot { kind, name, rows, columns, reads: None };
    let mut slots = vec![slot(Kind::Embedding, "model.embed_tokens".to_owned(), shape.vocabulary, shape.hidden)];
    for name in &plan.norms {
        let width = if is_head_norm(name) { shape.head_dim } else { shape.hidden };
        slots.push(slot(Kind::Norm, name.clone(), 1, width));
    }
    let readers = Readers::of(plan);
    for (site, norm) in plan.sites.iter().zip(&readers.sites) {
        let reads = norm.filter(|_| shape.spread);
        slots.push(Slot { reads, ..slot(Kind::Linear, site.name.clone(), site.outputs, site.inputs) });
    }
    for ((path, norm), (experts, _, width, _)) in plan.mixtures.iter().zip(&readers.mixtures).zip(mixtures(shape)) {
        let reads = norm.filter(|_| shape.spread);
        slots.push(Slot { reads, ..slot(Kind::Router, format!("{path}.gate"), experts, shape.hidden) });
        for expert in 0..experts {
            let named = |name| format!("{path}.experts.{expert}.{name}");
            for name in ["gate_proj", "up_proj"] {
                slots.push(Slot { reads, ..slot(Kind::Expert, named(name), width, shape.hidden) });
            }
            slots.push(slot(Kind::Expert, named("down_proj"), shape.hidden, width));
        }
    }
    if shape.spread {
        let folded = plan.norms.iter().filter(|name| !is_head_norm(name));
        slots.extend(folded.map(|name| slot(Kind::Folded, name.clone(), 1, shape.hidden)));
    }
    slots
}

/// Whether a norm is of each head by itself; such a norm is not folded.
pub(crate) fn is_head_norm(name: &str) -> bool {
    name.contains(".self_attn.")
}

/// Experts, chosen, width and renormalise of each mixture.
fn mixtures(shape: &Shape) -> impl Iterator<Item = (usize, usize, usize, bool)> {
    shape.mlps.iter().filter_map(|mlp| match *mlp {
        Mlp::Gated { .. } => None,
        Mlp::Experts { experts, chosen, width, renormalise } => Some((experts, chosen, width, renormalise)),
    })
}

/// Weights from parts in the order of [`slots`]; none if they are not such parts.
pub(crate) fn assemble(shape: &Shape, plan: &Plan, parts: Vec<Part>) -> Option<Weights> {
    let mut parts = parts.into_iter();
    let Some(Part::Embedding(embedding)) = parts.next() else { return None };
    let norm = |part| match part {
        Part::Norm(norm) => Some(norm),
        _ => None,
    };
    let linear = |part| match part {
        Part::Linear(linear) => Some(linear),
        _ => None,
    };
    let norms = parts.by_ref().take(plan.norms.len()).map(norm).collect::<Option<Vec<_>>>()?;
    let linears = parts.by_ref().take(plan.sites.len()).map(linear).collect::<Option<Vec<_>>>()?;
    let mixtures = mixtures(shape)
        .map(|(count, chosen, _, renormalise)| {
            let Some(Part::Router(router)) = parts.next() else { return None };
            let experts = (0..count).map(|_| expert(&mut parts)).collect::<Option<Vec<_>>>()?;
            Some(Mixture { router, chosen, renormalise, experts })
        })
        .collect::<Option<Vec<_>>>()?;
    let folded = plan
        .norms
        .iter()
        .map(|name| if shape.spread && !is_head_norm(name) { parts.next().and_then(norm) } else { Some(vec![]) })
        .collect::<Option<Vec<_>>>()?;
    Some(Weights { embedding, norms, linears, mixtures, folded })
}

fn expert(parts: &mut impl Iterator<Item = Part>) -> Option<Expert> {
    let mut matrix = || match parts.next() {
        Some(Part::Expert(matrix)) => Some(matrix),
        _ => None,
    };
    Some(Expert { gate: matrix()?, up: matrix()?, down: matrix()? })
}

/// The parts of weights, in the order of [`slots`].
pub(crate) fn of(weights: &Weights) -> Vec<PartRef<'_>> {
    let mut parts = vec![PartRef::Embedding(&weights.embedding)];
    parts.extend(weights.norms.iter().map(|norm| PartRef::Norm(norm)));
    parts.extend(weights.linears.iter().map(PartRef::Linear));
    for mixture in &weights.mixtures {
        parts.push(PartRef::Router(&mixture.router));
        for expert in &mixture.experts {
            parts.extend([&expert.gate, &expert.up, &expert.down].map(PartRef::Expert));
        }
    }
    parts.extend(weights.folded.iter().filter(|norm| !norm.is_empty()).map(|norm| PartRef::Norm(norm)));
    parts
}
