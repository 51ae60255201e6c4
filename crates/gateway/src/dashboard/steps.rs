//! Steps of a position in words, and their rows as numbers.

use super::dispute::Dot;
use crate::hex;
use audit::dispute::Evidence;
use audit::trace::{Map, Operation, Program, SEGMENT, StepId};
use exact::Activations;
use model::{Op, Plan};

/// Numbers of a row that are shown.
const SHOWN: usize = 4;

/// Which part of the model a step belongs to.
pub(crate) fn part(program: &Program, step: StepId) -> String {
    let plan = &program.outline.plan;
    let Some(op) = program.steps.get(step).map(|step| step.op) else { return "the end".to_owned() };
    match plan.body.get(op) {
        None => "head and draw".to_owned(),
        Some(Op::Embed) => "embedding".to_owned(),
        Some(_) => layer(plan, op).map_or_else(|| "after the last layer".to_owned(), |layer| format!("layer {layer}")),
    }
}

/// The layer of an operation: that of its linear map, or of the one it belongs to, before or behind it.
fn layer(plan: &Plan, op: usize) -> Option<usize> {
    let site = |op: &Op| match op {
        Op::Linear { site, .. } => plan.sites.get(*site),
        _ => None,
    };
    let comes = matches!(plan.body.get(op), Some(Op::Norm { .. } | Op::Spread { .. } | Op::Quantise { .. }));
    let found = if comes {
        plan.body.get(op..)?.iter().find_map(site)
    } else {
        plan.body.get(..=op)?.iter().rev().find_map(site)
    };
    found?.name.strip_prefix("model.layers.")?.split('.').next()?.parse().ok()
}

fn map(plan: &Plan, map: Map) -> String {
    let site = |number: usize| plan.sites.get(number).map_or("", |site| site.name.as_str());
    match map {
        Map::Site(number) => site(number).to_owned(),
        Map::AdapterA(number) => format!("the adapter's first half in {}", site(number)),
        Map::AdapterB(number) => format!("the adapter's second half in {}", site(number)),
        Map::Router(mixture) => format!("the router of mixture {mixture}"),
        Map::Expert { mixture, slot, part } => format!("{part:?} of expert {slot} of mixture {mixture}"),
    }
}

/// What a step computes.
pub(crate) fn what(program: &Program, step: StepId) -> String {
    let plan = &program.outline.plan;
    let Some(operation) = program.steps.get(step).map(|step| step.operation) else { return format!("step {step}") };
    match operation {
        Operation::Sums(of) => format!("dot products of {}", map(plan, of)),
        Operation::Linear(of) => format!("outputs of {}", map(plan, of)),
        Operation::Adapted(site) => format!("outputs with the adapter's share of {}", map(plan, Map::Site(site))),
        Operation::Leaf => "what the receipt binds of this position".to_owned(),
        Operation::Drawn => "the drawn token".to_owned(),
        Operation::Firsts | Operation::Bests => "the best token of a chunk of the vocabulary".to_owned(),
        Operation::LayerDigest => "hash of keys and values".to_owned(),
        Operation::Embed => "the token's embedding".to_owned(),
        Operation::Levels(_) => "levels of the quantised row".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// The numbers of a dot product: one segment of levels, and of one row of weights.
pub(crate) fn dot(program: &Program, (step, row): (StepId, usize), evidence: &Evidence) -> Option<Dot> {
    let this = program.steps.get(step)?;
    let Operation::Sums(map) = this.operation else { return None };
    if matches!(map, Map::Router(_)) {
        return None;
    }
    let source = *this.sources.first()?;
    let layout = program.steps.get(source)?.layout;
    let segment = row % layout.elements.div_ceil(SEGMENT);
    let range = segment * SEGMENT..((segment + 1) * SEGMENT).min(layout.elements);
    let rows = layout.rows_of(&range);
    let opened = evidence.rows.iter().find(|opened| opened.step == source && opened.first <= rows.start)?;
    let skip = layout.bytes_of(opened.first..rows.start).len();
    let bytes = opened.bytes.get(skip..skip + range.len() * layout.element_bytes)?;
    let levels = match layout.element_bytes {
        1 => bytes.iter().map(|level| i32::from(*level as i8)).collect(),
        _ => bytes.as_chunks::<2>().0.iter().map(|level| i32::from(i16::from_le_bytes(*level))).collect(),
    };
    let weights = evidence.weights.first()?.data.get(4 + range.start..4 + range.end)?;
    Some(Dot { levels, weights: weights.iter().map(|weight| i32::from(*weight as i8)).collect() })
}

/// Whether a dot product's levels have 16 bits.
pub(crate) fn is_wide(program: &Program, step: StepId) -> bool {
    let operation = program.steps.get(step).map(|step| step.operation);
    matches!(operation, Some(Operation::Sums(Map::AdapterB(_)))) || program.outline.activations == Activations::A16
}

/// A row as people read it; `wide` says of a dot product that its levels have 16 bits, `token` puts a token into words.
pub(crate) fn numbers(operation: Operation, row: &[u8], wide: bool, token: impl Fn(u32) -> String) -> String {
    let word = |at: usize| row.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
    match operation {
        Operation::Sums(Map::Router(_)) => {
            row.first_chunk().map_or(String::new(), |sum| i64::from_le_bytes(*sum).to_string())
        }
        Operation::Sums(_) => {
            let (high, low) = (i64::from(i32::from_le_bytes(word(0))), i64::from(i32::from_le_bytes(word(4))));
            // Levels of 16 bits are summed up by their two digits.
            if wide { (high * 256 + low).to_string() } else { high.to_string() }
        }
        Operation::Token | Operation::Drawn => match u32::from_le_bytes(word(0)) {
            u32::MAX => "no token".to_owned(),
            id => token(id),
        },
        Operation::LayerDigest | Operation::Leaf | Operation::Layers | Operation::Levels(_) | Operation::Context(_) => {
            format!("{}…", &hex::encode(&row[..row.len().min(12)]))
        }
        _ if row.len().is_multiple_of(4) => {
            let all = row.as_chunks::<4>().0;
            let shown: Vec<String> =
                all.iter().take(SHOWN).map(|word| format!("{:?}", f32::from_le_bytes(*word))).collect();
            let more = if all.len() > SHOWN { format!(", … ({} in all)", all.len()) } else { String::new() };
            shown.join(", ") + &more
        }
        _ => format!("{}…", &hex::encode(&row[..row.len().min(12)])),
    }
}
