//! Writes a plan out as the steps of one position.

use crate::trace::drawing::Draw;
use crate::trace::layout::Layout;
use crate::trace::outline::Outline;
use crate::trace::program::{Borders, Expert, Map, Operation, Program, Step, StepId};
use crate::trace::{CHUNK, SEGMENT};
use exact::Activations;
use exact::attention::SPAN_BLOCKS;
use exact::steps::LANES;
use model::{Mlp, Op, Register};
use std::collections::HashMap;
use std::sync::Arc;

/// A value and its width.
#[derive(Clone, Copy)]
struct Row {
    step: StepId,
    width: usize,
}

/// A quantised row.
#[derive(Clone, Copy)]
struct Input {
    levels: StepId,
    scale: StepId,
    width: usize,
}

struct Builder<'a> {
    outline: &'a Outline,
    position: usize,
    steps: Vec<Step>,
    op: usize,
    registers: HashMap<Register, Row>,
    input: Input,
    layers: Vec<StepId>,
}

impl Program {
    /// The steps of `token` at `position`; `draw` if the next token is drawn from it.
    pub fn new(outline: &Arc<Outline>, position: usize, token: u32, draw: Option<Draw>, borders: Borders) -> Program {
        let mut builder = Builder {
            outline,
            position,
            steps: vec![],
            op: 0,
            registers: HashMap::new(),
            input: Input { levels: 0, scale: 0, width: 0 },
            layers: vec![],
        };
        let token_step = builder.push(Operation::Token, vec![], Layout::record(4));
        for (number, op) in outline.plan.body.iter().enumerate() {
            builder.op = number;
            builder.expand(*op, token_step);
        }
        builder.op = outline.plan.body.len();
        let (levels, scale) = (builder.input.levels, builder.input.scale);
        let digests = builder.layers.clone();
        let layers = Layout::records(digests.len(), 32);
        let layers = builder.push(Operation::Layers, digests, layers);
        let leaf = builder.push(Operation::Leaf, vec![token_step, levels, scale, layers], Layout::record(32));
        let (border, drawn) = match &draw {
            Some(draw) => builder.draw(draw),
            None => (None, None),
        };
        Program {
            outline: outline.clone(),
            position,
            token,
            draw,
            borders,
            leaf,
            layers: builder.layers,
            hidden: (levels, scale),
            border,
            drawn,
            steps: builder.steps,
        }
    }
}

impl Builder<'_> {
    fn push(&mut self, operation: Operation, sources: Vec<StepId>, layout: Layout) -> StepId {
        self.steps.push(Step { operation, sources, layout, op: self.op });
        self.steps.len() - 1
    }

    fn row(&mut self, operation: Operation, sources: Vec<StepId>, width: usize) -> Row {
        Row { step: self.push(operation, sources, Layout::floats(width, CHUNK)), width }
    }

    fn get(&self, register: Register) -> Row {
        // The plan writes every register before it reads it.
        self.registers.get(&register).copied().unwrap_or(Row { step: 0, width: 0 })
    }

    fn set(&mut self, register: Register, row: Row) {
        self.registers.insert(register, row);
    }

    fn expand(&mut self, op: Op, token: StepId) {
        let head_dim = self.outline.shape.head_dim;
        match op {
            Op::Embed => {
                let row = self.row(Operation::Embed, vec![token], self.outline.shape.hidden);
                self.set(Register::Residual, row);
            }
            Op::Norm { norm, from, to } => {
                let x = self.get(from);
                let chunks = x.width.div_ceil(CHUNK);
                let squares = self.push(Operation::Squares, vec![x.step], Layout::floats(chunks * LANES, LANES));
                let inverse = self.push(Operation::Inverse { width: x.width }, vec![squares], Layout::record(4));
                let row = self.row(Operation::Norm(norm), vec![x.step, inverse], x.width);
                self.set(to, row);
            }
            Op::HeadNorm { norm, register } => self.per_head(Operation::HeadNorm(norm), register, head_dim),
            Op::Rotate { register } => self.per_head(Operation::Rotate, register, head_dim),
            Op::Spread { register } => {
                let x = self.get(register);
                let row = self.row(Operation::Spread, vec![x.step], x.width);
                self.set(register, row);
            }
            Op::Quantise { from } => self.input = self.quantise(self.get(from), self.outline.activations),
            Op::Linear { site, to } => {
                let row = self.site(site, self.input);
                self.set(to, row);
            }
            Op::Attend { layer } => self.attend(layer),
            Op::Gate => {
                let (gate, up) = (self.get(Register::Gate), self.get(Register::Up));
                let row = self.row(Operation::Gate, vec![gate.step, up.step], gate.width);
                self.set(Register::Inner, row);
            }
            Op::Experts { mixture } => self.experts(mixture),
            Op::Add => {
                let (x, y) = (self.get(Register::Residual), self.get(Register::Update));
                let row = self.row(Operation::Add, vec![x.step, y.step], x.width);
                self.set(Register::Residual, row);
            }
        }
    }

    fn per_head(&mut self, operation: Operation, register: Register, head_dim: usize) {
        let x = self.get(register);
        let step = self.push(operation, vec![x.step], Layout::floats(x.width, head_dim));
        self.set(register, Row { step, width: x.width });
    }

    fn quantise(&mut self, x: Row, mode: Activations) -> Input {
        let peaks = self.push(Operation::Peaks, vec![x.step], Layout::records(x.width.div_ceil(CHUNK), 4));
        let scale = self.push(Operation::Scale(mode), vec![peaks], Layout::record(8));
        let layout = Layout { elements: x.width, per_row: CHUNK, element_bytes: mode.planes() };
        let levels = self.push(Operation::Levels(mode), vec![x.step, scale], layout);
        Input { levels, scale, width: x.width }
    }

    /// Sums and outputs of a linear map; `choice` names the expert, if it is one's.
    fn linear(&mut self, map: Map, input: Input, outputs: usize, choice: Option<StepId>) -> Row {
        let segments = input.width.div_ceil(SEGMENT);
        let sums = [&[input.levels][..], choice.as_slice()].concat();
        let sums = self.push(Operation::Sums(map), sums, Layout::records(outputs * segments, 8));
        let sources = [&[sums, input.scale][..], choice.as_slice()].concat();
        let step = self.push(Operation::Linear(map), sources, Layout::records(outputs, 4));
        Row { step, width: outputs }
    }

    fn site(&mut self, site: usize, input: Input) -> Row {
        let outputs = self.outline.plan.sites[site].outputs;
        let y = self.linear(Map::Site(site), input, outputs, None);
        let Some((rank, _)) = self.outline.adapter[site] else { return y };
        let t = self.linear(Map::AdapterA(site), input, rank, None);
        let t = self.quantise(t, Activations::A16);
        let segments = rank.div_ceil(SEGMENT);
        let layout = Layout::records(outputs * segments, 8);
        let sums = self.push(Operation::Sums(Map::AdapterB(site)), vec![t.levels], layout);
        let sources = vec![y.step, sums, t.scale];
        let step = self.push(Operation::Adapted(site), sources, Layout::records(outputs, 4));
        Row { step, width: outputs }
    }

    fn attend(&mut self, layer: usize) {
        let shape = &self.outline.shape;
        let (heads, key_heads, d) = (shape.heads, shape.key_heads, shape.head_dim);
        let size = exact::attention::POSITIONS;
        let earliest = shape.window.map_or(0, |window| (self.position + 1).saturating_sub(window));
        let (first, last) = (earliest / size, self.position / size);
        let blocks = last + 1 - first;
        let spans = last / SPAN_BLOCKS + 1 - first / SPAN_BLOCKS;
        let state = 8 + 4 * d;
        let [query, key, value] = [Register::Query, Register::Key, Register::Value].map(|r| self.get(r).step);
        let queries = self.push(Operation::Queries, vec![query], Layout::records(heads, 2 * d + 4));
        let keys = self.push(Operation::Keys, vec![key], Layout::records(key_heads, d + 4));
        let values = self.push(Operation::Values, vec![value], Layout::records(key_heads, d + 4));
        let digest = self.push(Operation::LayerDigest, vec![keys, values], Layout::record(32));
        self.layers.push(digest);
        let positions = self.position + 1 - earliest;
        let layout = Layout::records(key_heads * positions, 2 * (d + 4));
        let context = self.push(Operation::Context(layer), vec![keys, values], layout);
        let scores = self.push(Operation::Scores, vec![queries, context], Layout::records(heads * blocks, 4 * size));
        let weigh = Layout::records(heads * blocks, 12 + 2 * size);
        let weigh = self.push(Operation::Weigh, vec![scores, context], weigh);
        let sums = self.push(Operation::Blocks, vec![weigh, context], Layout::records(heads * blocks, 4 * d));
        let joined = self.push(Operation::Spans, vec![weigh, sums], Layout::records(heads * blocks, state));
        let totals = self.push(Operation::Totals, vec![joined], Layout::records(heads * spans, state));
        let step = self.push(Operation::Mixed, vec![totals], Layout::floats(heads * d, d));
        self.set(Register::Mixed, Row { step, width: heads * d });
    }

    fn experts(&mut self, mixture: usize) {
        let shape = &self.outline.shape;
        let all = shape.mlps.iter().filter_map(|mlp| match *mlp {
            Mlp::Gated { .. } => None,
            Mlp::Experts { experts, chosen, width, .. } => Some((experts, chosen, width)),
        });
        let Some((experts, chosen, width)) = all.clone().nth(mixture) else { return };
        let (x, input, hidden, spread) = (self.get(Register::Normed), self.input, shape.hidden, shape.spread);
        let routed = self.quantise(x, Activations::A16);
        let z = self.linear(Map::Router(mixture), routed, experts, None);
        let choice = self.push(Operation::Choice(mixture), vec![z.step], Layout::record(8 * chosen));
        let mut sum: Option<StepId> = None;
        for slot in 0..chosen {
            let map = |part| Map::Expert { mixture, slot, part };
            let gate = self.linear(map(Expert::Gate), input, width, Some(choice));
            let up = self.linear(map(Expert::Up), input, width, Some(choice));
            let mut inner = self.row(Operation::Gate, vec![gate.step, up.step], width);
            if spread {
                inner = self.row(Operation::Spread, vec![inner.step], width);
            }
            let inner = self.quantise(inner, self.outline.activations);
            let down = self.linear(map(Expert::Down), inner, hidden, Some(choice));
            let sources = [&[choice, down.step][..], sum.as_slice()].concat();
            sum = Some(self.row(Operation::Weighted { slot }, sources, hidden).step);
        }
        if let Some(step) = sum {
            self.set(Register::Update, Row { step, width: hidden });
        }
    }

    /// The output head and the draw: (the step that checks borders, the drawn token).
    fn draw(&mut self, draw: &Draw) -> (Option<StepId>, Option<StepId>) {
        let mut logits = self.site(self.outline.plan.head, self.input);
        if draw.adjusting().is_some() {
            logits = self.row(Operation::Shaped, vec![logits.step], logits.width);
        }
        let chunks = logits.width.div_ceil(CHUNK);
        let tops = self.push(Operation::Tops, vec![logits.step], Layout::records(chunks, 8));
        let top = self.push(Operation::Top, vec![tops], Layout::record(12));
        if draw.sampling.temperature == 0.0 {
            let firsts = self.push(Operation::Firsts, vec![logits.step, top], Layout::records(chunks, 4));
            return (None, Some(self.push(Operation::Drawn, vec![firsts, top], Layout::record(4))));
        }
        let (by_count, by_share) = draw.cuts(logits.width);
        let border = (by_count || by_share).then(|| {
            let tallies = self.push(Operation::Tallies, vec![logits.step, top], Layout::records(chunks, 32));
            self.push(Operation::Border, vec![tallies, logits.step], Layout::record(4))
        });
        let bests = self.push(Operation::Bests, vec![logits.step, top], Layout::records(chunks, 8));
        (border, Some(self.push(Operation::Drawn, vec![bests, top], Layout::record(4))))
    }
}
