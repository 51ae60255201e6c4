//! One position of a span on its way through the plan, and the operations that need no other position.

use crate::light::frame::Frame;
use crate::light::input::Input;
use crate::light::sections::Sections;
use crate::light::verdict::LightFault;
use crate::trace::tree::Hash;
use exact::linear::{Epilogue, RowsMut, Workspace, linear, row_linear};
use exact::quantise::{Quantised, quantise_i8};
use exact::{Activations, Isa, norm, rotary, spread};
use model::{Adapter, LowRank, Mlp, Op, Register, Shape};

const REGISTERS: usize = 11;
/// Registers whose values outlast attention, where a position waits for the others.
const KEPT: [Register; 3] = [Register::Residual, Register::Query, Register::Mixed];

/// A position, and what is kept of it while others are at work.
pub(crate) struct Row {
    pub(crate) position: usize,
    pub(crate) token: u32,
    kept: [Vec<f32>; KEPT.len()],
    /// Cosines and sines of the position, once they were needed.
    angles: (Vec<f32>, Vec<f32>),
    /// Keys and values of the layers so far, as layer digests are of them.
    left: Vec<u8>,
    /// The first thing that is wrong.
    pub(crate) fault: Option<LightFault>,
}

impl Row {
    pub(crate) fn new(position: usize, token: u32, embedding: Vec<f32>) -> Row {
        let kept = [embedding, vec![], vec![]];
        Row { position, token, kept, angles: Default::default(), left: vec![], fault: None }
    }

    /// Its queries, rotated and spread.
    pub(crate) fn query(&self) -> &[f32] {
        &self.kept[1]
    }

    /// Where attention's output goes.
    pub(crate) fn mixed(&mut self) -> &mut Vec<f32> {
        &mut self.kept[2]
    }

    /// Notes what is wrong, unless something was before.
    pub(crate) fn fail(&mut self, fault: LightFault) {
        self.fault.get_or_insert(fault);
    }
}

/// What every position is computed with.
#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) isa: Isa,
    pub(crate) frame: &'a Frame,
    pub(crate) adapter: Option<&'a Adapter>,
    pub(crate) sections: &'a Sections,
    /// First position of the span.
    pub(crate) start: usize,
}

/// Where the outputs of one linear map go, and what its sums are scaled with.
pub(crate) struct Output<'a> {
    pub(crate) scales: &'a [f32],
    pub(crate) y: &'a mut [f32],
}

/// Gives the outputs of linear maps, without bias and adapter.
pub(crate) trait Products: Sync {
    /// Those of a section's maps, for the position with this number in the span; `x` is what `input` was quantised from.
    /// If it fails, the outputs mean nothing. `thread` is the number of the thread that asks.
    fn outputs(
        &self,
        thread: usize,
        section: usize,
        index: usize,
        input: &Input,
        x: &[f32],
        outputs: &mut [Output<'_>],
    ) -> Result<(), LightFault>;
}

/// Registers of one thread, which takes up one position after another.
#[derive(Default)]
pub(crate) struct Desk {
    thread: usize,
    position: usize,
    pub(crate) token: u32,
    registers: [Vec<f32>; REGISTERS],
    angles: (Vec<f32>, Vec<f32>),
    input: Input,
    /// What the input was quantised from.
    quantised: usize,
    inner: Input,
    left: Vec<u8>,
    bytes: Vec<u8>,
    fault: Option<LightFault>,
}

impl Desk {
    /// Takes a position up, works on it, and lays it down.
    pub(crate) fn with(&mut self, thread: usize, row: &mut Row, work: impl FnOnce(&mut Desk)) {
        (self.thread, self.position, self.token) = (thread, row.position, row.token);
        self.exchange(row);
        work(self);
        self.exchange(row);
    }

    fn exchange(&mut self, row: &mut Row) {
        for (register, kept) in KEPT.into_iter().zip(&mut row.kept) {
            std::mem::swap(&mut self.registers[register.index()], kept);
        }
        std::mem::swap(&mut self.angles, &mut row.angles);
        std::mem::swap(&mut self.left, &mut row.left);
        std::mem::swap(&mut self.fault, &mut row.fault);
    }

    pub(crate) fn get(&self, register: Register) -> &[f32] {
        &self.registers[register.index()]
    }

    fn take(&mut self, register: Register) -> Vec<f32> {
        std::mem::take(&mut self.registers[register.index()])
    }

    fn put(&mut self, register: Register, values: Vec<f32>) {
        self.registers[register.index()] = values;
    }

    /// Notes what is wrong, unless something was before.
    pub(crate) fn fail(&mut self, fault: LightFault) {
        self.fault.get_or_insert(fault);
    }

    /// Operations up to attention, or to the end.
    pub(crate) fn run(&mut self, with: Setting<'_>, products: &dyn Products, mut ops: &[Op]) {
        let Setting { isa, frame, .. } = with;
        let (shape, norms) = (frame.shape(), &frame.parts.norms);
        while let Some((op, rest)) = ops.split_first() {
            ops = rest;
            match *op {
                Op::Norm { norm, from, to } => self.norm(isa, &norms[norm], shape.norm_eps, from, to),
                Op::HeadNorm { norm, register } => self.head_norm(isa, &norms[norm], shape.norm_eps, register),
                Op::Spread { register } => spread::spread(isa, &mut self.registers[register.index()]),
                Op::Quantise { from } => {
                    self.quantised = from.index();
                    if !self.input.quantise(isa, &self.registers[self.quantised], frame.activations()) {
                        self.fail(LightFault::NotFinite);
                    }
                }
                Op::Rotate { register } => self.rotate(with, register),
                Op::Gate => {
                    let mut inner = self.take(Register::Inner);
                    inner.resize(self.get(Register::Gate).len(), 0.0);
                    norm::gated(isa, self.get(Register::Gate), self.get(Register::Up), &mut inner);
                    self.put(Register::Inner, inner);
                }
                Op::Add => {
                    let mut residual = self.take(Register::Residual);
                    norm::add(isa, &mut residual, self.get(Register::Update));
                    self.put(Register::Residual, residual);
                }
                Op::Linear { site, to } => {
                    let mut targets = vec![(site, to)];
                    while let Some((Op::Linear { site, to }, rest)) = ops.split_first() {
                        targets.push((*site, *to));
                        ops = rest;
                    }
                    self.linears(with, products, &targets);
                }
                Op::Experts { mixture } => self.experts(with, products, mixture),
                Op::Embed | Op::Attend { .. } => {}
            }
        }
    }

    fn norm(&mut self, isa: Isa, weight: &[f32], eps: f32, from: Register, to: Register) {
        let mut y = self.take(to);
        y.resize(weight.len(), 0.0);
        norm::rms_norm(isa, self.get(from), weight, eps, &mut y);
        self.put(to, y);
    }

    fn head_norm(&mut self, isa: Isa, weight: &[f32], eps: f32, register: Register) {
        let mut normed = vec![0.0f32; weight.len()];
        for head in self.registers[register.index()].chunks_exact_mut(weight.len()) {
            norm::rms_norm(isa, head, weight, eps, &mut normed);
            head.copy_from_slice(&normed);
        }
    }

    fn rotate(&mut self, with: Setting<'_>, register: Register) {
        let (shape, (cos, sin)) = (with.frame.shape(), &mut self.angles);
        let pairs = shape.rotary.inverse_frequencies.len();
        if cos.len() != pairs {
            (*cos, *sin) = (vec![0.0; pairs], vec![0.0; pairs]);
            shape.rotary.at(self.position, cos, sin);
        }
        for head in self.registers[register.index()].chunks_exact_mut(shape.head_dim) {
            rotary::rotate(with.isa, head, cos, sin);
        }
    }

    /// Linear maps that read the quantised input, with bias and adapter (specification, sections 2 and 3).
    fn linears(&mut self, with: Setting<'_>, products: &dyn Products, targets: &[(usize, Register)]) {
        let Setting { isa, frame, .. } = with;
        let section = targets.first().and_then(|(site, _)| with.sections.of_site(*site));
        let Some(section) = section else { return };
        let mut all: Vec<Vec<f32>> = targets.iter().map(|(_, to)| self.take(*to)).collect();
        let each = all.iter_mut().zip(targets).map(|(y, (site, _))| {
            let scales = &frame.parts.scales[*site][..];
            y.resize(scales.len(), 0.0);
            Output { scales, y }
        });
        let (mut outputs, index) = (each.collect::<Vec<_>>(), self.position - with.start);
        let x = &self.registers[self.quantised];
        if let Err(fault) = products.outputs(self.thread, section, index, &self.input, x, &mut outputs) {
            all.iter_mut().for_each(|y| y.fill(0.0));
            self.fail(fault);
        }
        for ((site, to), mut y) in targets.iter().zip(all) {
            if let Some(bias) = &frame.parts.biases[*site] {
                y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
            if let Some(low_rank) = with.adapter.and_then(|adapter| adapter.sites[*site].as_ref())
                && !share(isa, &self.registers[self.quantised], frame.activations(), low_rank, &mut y)
            {
                self.fail(LightFault::NotFinite);
            }
            self.put(*to, y);
        }
    }

    /// A mixture's share (specification, section 10), expert by expert in the order of their ids.
    fn experts(&mut self, with: Setting<'_>, products: &dyn Products, mixture: usize) {
        let Setting { isa, frame, .. } = with;
        let shape = frame.shape();
        let mixtures = shape.mlps.iter().filter_map(|mlp| match *mlp {
            Mlp::Experts { chosen, renormalise, .. } => Some((chosen, renormalise)),
            Mlp::Gated { .. } => None,
        });
        let Some((chosen, renormalise)) = mixtures.clone().nth(mixture) else { return };
        let mut update = self.take(Register::Update);
        update.clear();
        update.resize(shape.hidden, 0.0);
        let route = frame.parts.routers[mixture].route(isa, self.get(Register::Normed), chosen, renormalise);
        let choices = route.unwrap_or_else(|_| {
            self.fail(LightFault::NotFinite);
            vec![]
        });
        let index = self.position - with.start;
        for (number, choice) in choices.iter().enumerate() {
            let scales = &frame.parts.experts[mixture][choice.expert as usize];
            let section = with.sections.of_expert(mixture, choice.expert as usize, false);
            let [mut gate, mut up, down] = scales.each_ref().map(|scales| vec![0.0f32; scales.len()]);
            let mut both = [Output { scales: &scales[0], y: &mut gate }, Output { scales: &scales[1], y: &mut up }];
            let x = &self.registers[self.quantised];
            let mut found = products.outputs(self.thread, section, index, &self.input, x, &mut both);
            let mut middle = vec![0.0f32; gate.len()];
            norm::gated(isa, &gate, &up, &mut middle);
            if shape.spread {
                spread::spread(isa, &mut middle);
            }
            let mut inner = std::mem::take(&mut self.inner);
            if !inner.quantise(isa, &middle, frame.activations()) {
                self.fail(LightFault::NotFinite);
            }
            let mut down = down;
            let mut last = [Output { scales: &scales[2], y: &mut down }];
            found = found.and(products.outputs(self.thread, section + 1, index, &inner, &middle, &mut last));
            self.inner = inner;
            match found {
                Ok(()) => norm::add_weighted(isa, &mut update, &down, choice.weight, number == 0),
                Err(fault) => self.fail(fault),
            }
        }
        self.put(Register::Update, update);
    }

    /// Keys and values of a layer (specification, section 7), as its digest hashes them; queries stay to be quantised.
    pub(crate) fn store(&mut self, isa: Isa, shape: &Shape) -> &[u8] {
        let head_dim = shape.head_dim;
        if self.left.is_empty() {
            self.left.reserve_exact(shape.layers * (1 + 2 * shape.key_heads * (head_dim + 4)));
        }
        self.left.push(cpu::LAYER);
        let start = self.left.len();
        for (register, is_key) in [(Register::Key, true), (Register::Value, false)] {
            let mut heads = self.take(register);
            for x in heads.chunks_exact_mut(head_dim) {
                if is_key {
                    spread::spread_head(isa, x);
                }
                let at = self.left.len();
                self.left.resize(at + head_dim, 0);
                let levels: &mut [i8] = bytemuck::cast_slice_mut(&mut self.left[at..]);
                let scale = quantise_i8(isa, x, levels).unwrap_or_else(|_| {
                    levels.fill(0);
                    self.fault.get_or_insert(LightFault::NotFinite);
                    0.0
                });
                self.left.extend(scale.to_le_bytes());
            }
            self.put(register, heads);
        }
        for query in self.registers[Register::Query.index()].chunks_exact_mut(head_dim) {
            spread::spread_head(isa, query);
        }
        &self.left[start..]
    }

    /// The receipt's leaf (docs/receipts.md, section 3), once the plan's body is done.
    pub(crate) fn leaf(&mut self, isa: Isa, layers: usize) -> Hash {
        let mut digests = vec![[0; 32]; layers];
        model::merkle::hash_each(isa, &self.left, &mut digests);
        self.bytes.clear();
        self.input.write(&mut self.bytes);
        cpu::leaf(self.token, &digests, &self.bytes, self.input.scale)
    }

    /// Logits, once the plan's body is done.
    pub(crate) fn head(&mut self, with: Setting<'_>, products: &dyn Products) -> &[f32] {
        self.linears(with, products, &[(with.frame.plan.head, Register::Logits)]);
        self.get(Register::Logits)
    }
}

/// Adds an adapter's share; false if a value was not finite.
fn share(isa: Isa, x: &[f32], mode: Activations, low_rank: &LowRank, y: &mut [f32]) -> bool {
    let mut input = Quantised::new(mode);
    input.reshape(1, x.len(), mode);
    let mut t = vec![0.0f32; low_rank.a.outputs()];
    let mut narrow = Quantised::new(Activations::A16);
    narrow.reshape(1, t.len(), Activations::A16);
    if input.write_row(isa, 0, x).is_err() {
        return false;
    }
    row_linear(isa, &input, 0, &low_rank.a, &mut t);
    if narrow.write_row(isa, 0, &t).is_err() {
        return false;
    }
    let (outputs, blocks) = (y.len(), 0..low_rank.b.blocks());
    let epilogue = Epilogue::AddScaled(low_rank.gain);
    let out = RowsMut::new(y, outputs);
    linear(isa, &narrow, 0..1, &low_rank.b, blocks, epilogue, out, 0, &mut Workspace::default());
    true
}
