//! One position of a span on its way through the plan, and the operations that need no other position.

use crate::light::frame::Frame;
use crate::light::verdict::LightFault;
use crate::trace::tree::Hash;
use exact::linear::{Epilogue, RowsMut, Workspace, linear, row_linear};
use exact::quantise::{Quantised, quantise_i8, quantise_i16};
use exact::{Activations, Isa, norm, rotary, spread, steps};
use model::{LowRank, Register, Rotary};

const REGISTERS: usize = 11;

fn index(register: Register) -> usize {
    match register {
        Register::Residual => 0,
        Register::Normed => 1,
        Register::Query => 2,
        Register::Key => 3,
        Register::Value => 4,
        Register::Mixed => 5,
        Register::Gate => 6,
        Register::Up => 7,
        Register::Inner => 8,
        Register::Update => 9,
        Register::Logits => 10,
    }
}

/// A quantised row: its levels or digits, plane by plane, as 32-bit numbers for checks, and where it came from.
#[derive(Clone, Default)]
pub(crate) struct Input {
    pub(crate) planes: Vec<Vec<i32>>,
    pub(crate) levels: Vec<i16>,
    pub(crate) scale: f32,
    pub(crate) x: Vec<f32>,
}

impl Input {
    /// Quantises `x`; none if it is not finite.
    pub(crate) fn quantise(isa: Isa, x: &[f32], mode: Activations) -> Option<Input> {
        let mut levels = vec![0i16; x.len()];
        let (scale, planes) = match mode {
            Activations::A8 => {
                let mut narrow = vec![0i8; x.len()];
                let scale = quantise_i8(isa, x, &mut narrow).ok()?;
                levels.iter_mut().zip(&narrow).for_each(|(wide, narrow)| *wide = i16::from(*narrow));
                (scale, vec![levels.iter().map(|level| i32::from(*level)).collect()])
            }
            Activations::A16 => {
                let scale = quantise_i16(isa, x, &mut levels).ok()?;
                let digits = |level: &i16| steps::digits(i32::from(*level));
                let high = levels.iter().map(|level| digits(level).0).collect();
                (scale, vec![high, levels.iter().map(|level| digits(level).1).collect()])
            }
        };
        Some(Input { planes, levels, scale, x: x.to_vec() })
    }
}

/// A position.
pub(crate) struct Row {
    pub(crate) position: usize,
    pub(crate) token: u32,
    /// Cosines and sines of the position, once they were needed.
    angles: (Vec<f32>, Vec<f32>),
    registers: [Vec<f32>; REGISTERS],
    pub(crate) input: Input,
    /// By layer.
    pub(crate) layers: Vec<Hash>,
    /// Keys and values of the layer that is at work.
    pub(crate) keys_and_values: Vec<u8>,
    /// Chosen experts of the mixture that is at work, and the inner rows of each.
    pub(crate) choices: Vec<exact::mixture::Choice>,
    /// The first thing that is wrong.
    pub(crate) fault: Option<LightFault>,
}

impl Row {
    pub(crate) fn new(position: usize, token: u32, embedding: Vec<f32>) -> Row {
        let mut registers: [Vec<f32>; REGISTERS] = Default::default();
        registers[index(Register::Residual)] = embedding;
        Row {
            position,
            token,
            angles: Default::default(),
            registers,
            input: Input::default(),
            layers: vec![],
            keys_and_values: vec![],
            choices: vec![],
            fault: None,
        }
    }

    pub(crate) fn get(&self, register: Register) -> &[f32] {
        &self.registers[index(register)]
    }

    pub(crate) fn get_mut(&mut self, register: Register) -> &mut Vec<f32> {
        &mut self.registers[index(register)]
    }

    /// Notes what is wrong, unless something was before.
    pub(crate) fn fail(&mut self, fault: LightFault) {
        self.fault.get_or_insert(fault);
    }

    pub(crate) fn norm(&mut self, isa: Isa, weight: &[f32], eps: f32, from: Register, to: Register) {
        let x = std::mem::take(&mut self.registers[index(from)]);
        let y = &mut self.registers[index(to)];
        y.resize(x.len(), 0.0);
        norm::rms_norm(isa, &x, weight, eps, y);
        self.registers[index(from)] = x;
    }

    pub(crate) fn head_norm(&mut self, isa: Isa, weight: &[f32], eps: f32, register: Register) {
        let mut normed = vec![0.0f32; weight.len()];
        for head in self.get_mut(register).chunks_exact_mut(weight.len()) {
            norm::rms_norm(isa, head, weight, eps, &mut normed);
            head.copy_from_slice(&normed);
        }
    }

    pub(crate) fn quantise(&mut self, isa: Isa, from: Register, mode: Activations) {
        let x = &self.registers[index(from)];
        match Input::quantise(isa, x, mode) {
            Some(input) => self.input = input,
            None => {
                // What follows of this position means nothing; it goes on as zeros.
                let zeros = vec![0.0; x.len()];
                self.input = Input::quantise(isa, &zeros, mode).unwrap_or_default();
                self.fail(LightFault::NotFinite);
            }
        }
    }

    pub(crate) fn rotate(&mut self, isa: Isa, head_dim: usize, table: &Rotary, register: Register) {
        let pairs = table.inverse_frequencies.len();
        if self.angles.0.len() != pairs {
            self.angles = (vec![0.0; pairs], vec![0.0; pairs]);
            table.at(self.position, &mut self.angles.0, &mut self.angles.1);
        }
        for head in self.registers[index(register)].chunks_exact_mut(head_dim) {
            rotary::rotate(isa, head, &self.angles.0, &self.angles.1);
        }
    }

    pub(crate) fn spread(&mut self, isa: Isa, register: Register) {
        spread::spread(isa, self.get_mut(register));
    }

    pub(crate) fn gate(&mut self, isa: Isa) {
        let mut inner = std::mem::take(&mut self.registers[index(Register::Inner)]);
        inner.resize(self.get(Register::Gate).len(), 0.0);
        norm::gated(isa, self.get(Register::Gate), self.get(Register::Up), &mut inner);
        self.registers[index(Register::Inner)] = inner;
    }

    pub(crate) fn add(&mut self, isa: Isa) {
        let update = std::mem::take(&mut self.registers[index(Register::Update)]);
        norm::add(isa, self.get_mut(Register::Residual), &update);
        self.registers[index(Register::Update)] = update;
    }

    /// Outputs of a linear map from its sums, with bias and adapter (specification, sections 2 and 3).
    pub(crate) fn linear(
        &mut self,
        isa: Isa,
        frame: &Frame,
        site: usize,
        to: Register,
        sums: &[i32],
        adapter: Option<&LowRank>,
    ) {
        let scales = &frame.parts.scales[site];
        let mut y = std::mem::take(self.get_mut(to));
        scaled(&self.input, scales, sums, &mut y);
        if let Some(bias) = &frame.parts.biases[site] {
            y.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
        if let Some(low_rank) = adapter
            && !share(isa, &self.input.x, frame.activations(), low_rank, &mut y)
        {
            self.fail(LightFault::NotFinite);
        }
        *self.get_mut(to) = y;
    }

    /// Keys and values of a layer (specification, section 7), kept as its digest hashes them; queries stay to be quantised.
    pub(crate) fn store(&mut self, isa: Isa, head_dim: usize) {
        let mut bytes = std::mem::take(&mut self.keys_and_values);
        bytes.clear();
        let mut levels = vec![0i8; head_dim];
        for (register, is_key) in [(Register::Key, true), (Register::Value, false)] {
            let mut heads = std::mem::take(self.get_mut(register));
            for x in heads.chunks_exact_mut(head_dim) {
                if is_key {
                    spread::spread_head(isa, x);
                }
                let scale = quantise_i8(isa, x, &mut levels).unwrap_or_else(|_| {
                    levels.fill(0);
                    self.fail(LightFault::NotFinite);
                    0.0
                });
                bytes.extend(levels.iter().map(|level| *level as u8));
                bytes.extend(scale.to_le_bytes());
            }
            *self.get_mut(register) = heads;
        }
        for query in self.get_mut(Register::Query).chunks_exact_mut(head_dim) {
            spread::spread_head(isa, query);
        }
        self.layers.push(*blake3::Hasher::new().update(&[0x10]).update(&bytes).finalize().as_bytes());
        self.keys_and_values = bytes;
    }

    /// The receipt's leaf (docs/receipts.md, section 3).
    pub(crate) fn leaf(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[0x11]).update(&self.token.to_le_bytes()).update(self.layers.as_flattened());
        let levels: Vec<u8> = self.input.levels.iter().flat_map(|level| level.to_le_bytes()).collect();
        *hasher.update(&levels).update(&self.input.scale.to_le_bytes()).finalize().as_bytes()
    }
}

/// y = c · (s_x · s_w) of every output; `sums` are plane by plane.
pub(crate) fn scaled(input: &Input, scales: &[f32], sums: &[i32], y: &mut Vec<f32>) {
    let s_x = input.scale;
    y.clear();
    if input.planes.len() == 1 {
        y.extend(sums.iter().zip(scales).map(|(sum, s_w)| *sum as f32 * (s_x * s_w)));
    } else {
        let (high, low) = sums.split_at(scales.len());
        let c = high.iter().zip(low).map(|(high, low)| *high as f32 * 256.0 + *low as f32);
        y.extend(c.zip(scales).map(|(c, s_w)| c * (s_x * s_w)));
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
