//! The steps of one position.

use crate::trace::drawing::Draw;
use crate::trace::layout::Layout;
use crate::trace::outline::Outline;
use exact::Activations;
use std::sync::Arc;

/// Number of a step in its program.
pub type StepId = usize;

/// Which linear map of an expert.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Expert {
    /// hidden → width
    Gate,
    /// hidden → width
    Up,
    /// width → hidden
    Down,
}

impl Expert {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Expert::Gate => "gate_proj",
            Expert::Up => "up_proj",
            Expert::Down => "down_proj",
        }
    }
}

/// A linear map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Map {
    /// Of the base, by site.
    Site(usize),
    /// First half of the adapter's share in a site.
    AdapterA(usize),
    /// Second half.
    AdapterB(usize),
    /// A router.
    Router(usize),
    /// Of the expert that a mixture chose as its `slot`th.
    Expert {
        /// Mixture.
        mixture: usize,
        /// Place among the chosen.
        slot: usize,
        /// Which map.
        part: Expert,
    },
}

/// What a step computes. In brackets, its sources; docs/disputes.md has each row's bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Operation {
    /// The token. \[]
    Token,
    /// Its embedding. \[token]
    Embed,
    /// The lanes of a norm after each chunk. \[x]
    Squares,
    /// What a norm multiplies with. \[squares]
    Inverse {
        /// Values in the row.
        width: usize,
    },
    /// A norm. \[x, inverse]
    Norm(usize),
    /// A norm of each head. \[x]
    HeadNorm(usize),
    /// Spreading. \[x]
    Spread,
    /// The largest magnitude of each chunk. \[x]
    Peaks,
    /// Scale and multiplier of a row. \[peaks]
    Scale(Activations),
    /// Levels of a row. \[x, scale]
    Levels(Activations),
    /// Exact integer sums of a linear map, segment by segment. \[levels] or, of an expert, \[levels, choice]
    Sums(Map),
    /// Outputs of a linear map. \[sums, scale] or \[sums, scale, choice]
    Linear(Map),
    /// Outputs with an adapter's share. \[linear, sums of B, scale of B's input]
    Adapted(usize),
    /// Rotary positions. \[x]
    Rotate,
    /// Spread and quantised query heads. \[x]
    Queries,
    /// Spread and quantised key heads. \[x]
    Keys,
    /// Quantised value heads. \[x]
    Values,
    /// Hash of keys and values. \[keys, values]
    LayerDigest,
    /// Keys and values of the visible positions. \[keys, values]
    Context(usize),
    /// Scores of each head and block. \[queries, context]
    Scores,
    /// Weights of each head and block. \[scores, context]
    Weigh,
    /// Weighted sums of each head and block. \[weigh, context]
    Blocks,
    /// What a span has come to after each block. \[weigh, blocks]
    Spans,
    /// What a head has come to after each span. \[spans]
    Totals,
    /// Attention's output. \[totals]
    Mixed,
    /// silu(gate) · up. \[gate, up]
    Gate,
    /// x + y. \[x, y]
    Add,
    /// Chosen experts and their weights. \[router's outputs]
    Choice(usize),
    /// The mixture's sum after an expert. \[choice, expert's output, sum before]
    Weighted {
        /// Place among the chosen.
        slot: usize,
    },
    /// All layer digests. \[layer digests…]
    Layers,
    /// The leaf of the receipt's trace. \[token, levels, scale, layers]
    Leaf,
    /// Logits with penalties and biases. \[logits]
    Shaped,
    /// Largest logit that may be drawn, and magnitude, of each chunk. \[logits]
    Tops,
    /// The same of all. \[tops]
    Top,
    /// Greedy: the first token of each chunk that is largest. \[logits, top]
    Firsts,
    /// Counts of each chunk up to the borders of top_k and top_p. \[logits, top]
    Tallies,
    /// Whether the borders are where the settings put them. \[tallies, logits]
    Border,
    /// The best of each chunk, noise included, among those that stay. \[logits, top]
    Bests,
    /// The drawn token. \[firsts or bests, top]
    Drawn,
}

/// One step.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// What it computes.
    pub operation: Operation,
    /// From which earlier steps.
    pub sources: Vec<StepId>,
    /// Shape of its value.
    pub layout: Layout,
    /// Number of the plan's operation it belongs to; those after the body belong to the head.
    pub op: usize,
}

/// Last tokens of the rank that top_k and top_p leave: found by whoever sorted, checked by counting.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Borders {
    /// Of top_k; none if it is off.
    pub top_k: Option<u32>,
    /// Of top_p; none if it is off.
    pub top_p: Option<u32>,
}

/// All steps of one position of one sequence.
#[derive(Clone, PartialEq, Debug)]
pub struct Program {
    /// Model and adapter.
    pub outline: Arc<Outline>,
    /// Absolute position.
    pub position: usize,
    /// Token at this position.
    pub token: u32,
    /// How the next token is drawn, if one is.
    pub draw: Option<Draw>,
    /// Where the rank ends, if settings cut it.
    pub borders: Borders,
    /// In order: every source comes before.
    pub steps: Vec<Step>,
    /// The step of the receipt's leaf.
    pub leaf: StepId,
    /// The layer digests, by layer.
    pub layers: Vec<StepId>,
    /// The step of the final quantised row: levels, scale.
    pub hidden: (StepId, StepId),
    /// The step that checks the borders.
    pub border: Option<StepId>,
    /// The step of the drawn token.
    pub drawn: Option<StepId>,
}

impl Program {
    /// First visible position.
    pub fn earliest(&self) -> usize {
        self.outline.shape.window.map_or(0, |window| (self.position + 1).saturating_sub(window))
    }

    /// Blocks of 64 positions that hold a visible one.
    pub fn blocks(&self) -> std::ops::Range<usize> {
        let size = exact::attention::POSITIONS;
        self.earliest() / size..self.position / size + 1
    }

    /// What a step is, in words.
    pub fn describe(&self, step: StepId) -> String {
        let plan = &self.outline.plan;
        let Some(Step { operation, op, .. }) = self.steps.get(step) else { return format!("step {step}") };
        let site = |number: usize| plan.sites.get(number).map_or("", |site| site.name.as_str());
        let what = match operation {
            Operation::Sums(map) | Operation::Linear(map) => {
                let kind = if matches!(operation, Operation::Sums(_)) { "dot product" } else { "output" };
                let map = match map {
                    Map::Site(number) => site(*number).to_owned(),
                    Map::AdapterA(number) => format!("{}.lora_A", site(*number)),
                    Map::AdapterB(number) => format!("{}.lora_B", site(*number)),
                    Map::Router(mixture) => format!("router of mixture {mixture}"),
                    Map::Expert { mixture, slot, part } => format!("mixture {mixture}, choice {slot}, {}", part.name()),
                };
                format!("{kind} of {map}")
            }
            other => format!("{other:?}"),
        };
        match plan.body.get(*op) {
            Some(of) => format!("step {step} ({what}; operation {op} of the plan, {of:?})"),
            None => format!("step {step} ({what}; after the plan's body)"),
        }
    }
}
