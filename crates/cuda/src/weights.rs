//! A model's weights on the device.

use crate::launcher::{Buffer, DeviceError, Launcher};
use crate::packing::{chunks, matrix_bytes, pack};
use exact::matrix::Matrix;
use model::{Half, Mlp, Model, Plan, Shape};

/// A linear map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceLinear {
    pub(crate) weights: u64,
    pub(crate) scales: u64,
    /// 0: none.
    pub(crate) bias: u64,
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
}

/// The experts of one mixture, one after another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeviceMixture {
    pub(crate) router: u64,
    pub(crate) router_scales: u64,
    pub(crate) experts: usize,
    pub(crate) chosen: usize,
    pub(crate) width: usize,
    pub(crate) renormalise: bool,
    /// Of the first expert.
    pub(crate) gate: DeviceLinear,
    pub(crate) up: DeviceLinear,
    pub(crate) down: DeviceLinear,
}

/// All weights, as the plan numbers them.
pub(crate) struct DeviceWeights {
    pub(crate) embedding: u64,
    pub(crate) brain: bool,
    pub(crate) norms: Vec<u64>,
    pub(crate) linears: Vec<DeviceLinear>,
    pub(crate) mixtures: Vec<DeviceMixture>,
    buffers: Vec<Buffer>,
}

/// What a device's weights are made of.
pub(crate) enum Contents<'a> {
    /// A loaded model's.
    Model(&'a Model),
    /// Bytes without meaning, for measurements of models too large to be worth making.
    Noise(Vec<i8>),
}

/// Places pieces in buffers.
struct Placing<'a, L: Launcher> {
    launcher: &'a mut L,
    buffers: Vec<Buffer>,
    bytes: usize,
}

impl<L: Launcher> Placing<'_, L> {
    fn room(&mut self, bytes: usize) -> Result<u64, DeviceError> {
        let buffer = self.launcher.alloc(bytes.max(16))?;
        self.bytes += buffer.bytes;
        self.buffers.push(buffer);
        Ok(buffer.address)
    }

    fn place(&mut self, bytes: &[u8]) -> Result<u64, DeviceError> {
        let address = self.room(bytes.len())?;
        self.launcher.write(address, bytes)?;
        Ok(address)
    }

    /// `bytes` bytes taken from `noise`, again and again from a place that differs from map to map.
    fn noise(&mut self, noise: &[i8], bytes: usize) -> Result<u64, DeviceError> {
        let address = self.room(bytes)?;
        let mut done = 0;
        while done < bytes {
            let from = (self.bytes * 7919 + done) % (noise.len() / 2) / 64 * 64;
            let some = (bytes - done).min(noise.len() - from);
            self.launcher.write(address + done as u64, bytemuck::cast_slice(&noise[from..from + some]))?;
            done += some;
        }
        Ok(address)
    }

    /// One matrix, or several of one size after one another.
    fn matrices(
        &mut self,
        contents: &Contents<'_>,
        outputs: usize,
        inputs: usize,
        found: &[&Matrix],
        count: usize,
    ) -> Result<DeviceLinear, DeviceError> {
        let one = matrix_bytes(outputs, inputs);
        let (weights, scales) = match contents {
            Contents::Model(_) => {
                let weights = self.room(one * count)?;
                for (i, matrix) in found.iter().enumerate() {
                    self.launcher.write(weights + (i * one) as u64, bytemuck::cast_slice(&pack(matrix)))?;
                }
                let scales: Vec<f32> = found.iter().flat_map(|matrix| matrix.scales()).copied().collect();
                (weights, self.place(bytemuck::cast_slice(&scales))?)
            }
            Contents::Noise(noise) => {
                let scale = 1.0 / (52.0 * inputs as f32);
                (self.noise(noise, one * count)?, self.place(bytemuck::cast_slice(&vec![scale; outputs * count]))?)
            }
        };
        Ok(DeviceLinear { weights, scales, bias: 0, outputs, inputs })
    }
}

impl DeviceWeights {
    pub(crate) fn new<L: Launcher>(
        launcher: &mut L,
        shape: &Shape,
        plan: &Plan,
        contents: &Contents<'_>,
    ) -> Result<Self, DeviceError> {
        let mut placing = Placing { launcher, buffers: Vec::new(), bytes: 0 };
        match place_all(&mut placing, shape, plan, contents) {
            Ok(weights) => Ok(DeviceWeights { buffers: placing.buffers, ..weights }),
            Err(error) => {
                let Placing { launcher, buffers, .. } = placing;
                buffers.into_iter().for_each(|buffer| launcher.free(buffer));
                Err(error)
            }
        }
    }

    pub(crate) fn free<L: Launcher>(&mut self, launcher: &mut L) {
        self.buffers.drain(..).for_each(|buffer| launcher.free(buffer));
    }

    /// Bytes the weights of a model of this shape take on a device.
    pub(crate) fn bytes_of(shape: &Shape, plan: &Plan) -> usize {
        let map = |outputs: usize, inputs: usize| matrix_bytes(outputs, inputs) + outputs * 4;
        let linears: usize = plan.sites.iter().map(|site| map(site.outputs, site.inputs) + site.outputs * 4).sum();
        let mixture = |mlp: &Mlp| match *mlp {
            Mlp::Gated { .. } => 0,
            Mlp::Experts { experts, width, .. } => {
                experts * (2 * map(width, shape.hidden) + map(shape.hidden, width) + shape.hidden * 2 + 4)
            }
        };
        let mixtures: usize = shape.mlps.iter().map(mixture).sum();
        linears + mixtures + shape.vocabulary * shape.hidden * 2 + plan.norms.len() * shape.hidden * 4
    }
}

fn place_all<L: Launcher>(
    placing: &mut Placing<'_, L>,
    shape: &Shape,
    plan: &Plan,
    contents: &Contents<'_>,
) -> Result<DeviceWeights, DeviceError> {
    let embedding_bytes = shape.vocabulary * shape.hidden * 2;
    let (embedding, brain) = match contents {
        Contents::Model(model) => {
            let table = &model.weights.embedding;
            (placing.place(bytemuck::cast_slice(&table.bits))?, table.half == Half::Brain)
        }
        Contents::Noise(_) => {
            // Values near one: 0x3f00 to 0x3fff.
            let bits: Vec<u16> =
                (0..embedding_bytes / 2).map(|i| 0x3f00 | ((i.wrapping_mul(40_503) >> 4) as u16 & 0x80ff)).collect();
            (placing.place(bytemuck::cast_slice(&bits))?, true)
        }
    };
    let mut norms = Vec::new();
    for (i, name) in plan.norms.iter().enumerate() {
        let width = if name.contains(".self_attn.") { shape.head_dim } else { shape.hidden };
        norms.push(match contents {
            Contents::Model(model) => placing.place(bytemuck::cast_slice(&model.weights.norms[i]))?,
            Contents::Noise(_) => placing.place(bytemuck::cast_slice(&vec![1.0f32; width]))?,
        });
    }
    let mut linears = Vec::new();
    for (i, site) in plan.sites.iter().enumerate() {
        let found: Vec<&Matrix> = match contents {
            Contents::Model(model) => vec![&model.weights.linears[i].matrix],
            Contents::Noise(_) => vec![],
        };
        let mut linear = placing.matrices(contents, site.outputs, site.inputs, &found, 1)?;
        if let Contents::Model(model) = contents
            && let Some(bias) = &model.weights.linears[i].bias
        {
            linear.bias = placing.place(bytemuck::cast_slice(bias))?;
        }
        linears.push(linear);
    }
    let mut mixtures = Vec::new();
    for mlp in &shape.mlps {
        if let Mlp::Experts { experts, chosen, width, renormalise } = *mlp {
            let number = mixtures.len();
            mixtures.push(mixture(placing, shape, contents, number, [experts, chosen, width], renormalise)?);
        }
    }
    Ok(DeviceWeights { embedding, brain, norms, linears, mixtures, buffers: Vec::new() })
}

fn mixture<L: Launcher>(
    placing: &mut Placing<'_, L>,
    shape: &Shape,
    contents: &Contents<'_>,
    number: usize,
    [experts, chosen, width]: [usize; 3],
    renormalise: bool,
) -> Result<DeviceMixture, DeviceError> {
    let (mut levels, mut scales): (Vec<i16>, Vec<f32>) = (Vec::new(), Vec::new());
    let (mut gates, mut ups, mut downs) = (Vec::new(), Vec::new(), Vec::new());
    match contents {
        Contents::Model(model) => {
            let mixture = &model.weights.mixtures[number];
            for e in 0..experts {
                let (row, scale) = mixture.router.row(e);
                levels.extend_from_slice(row);
                scales.push(scale);
            }
            for expert in &mixture.experts {
                gates.push(&expert.gate);
                ups.push(&expert.up);
                downs.push(&expert.down);
            }
        }
        Contents::Noise(noise) => {
            levels.extend((0..experts * shape.hidden).map(|i| i16::from(noise[i * 31 % noise.len()]) * 256));
            scales.resize(experts, 1e-6);
        }
    }
    Ok(DeviceMixture {
        router: placing.place(bytemuck::cast_slice(&levels))?,
        router_scales: placing.place(bytemuck::cast_slice(&scales))?,
        experts,
        chosen,
        width,
        renormalise,
        gate: placing.matrices(contents, width, shape.hidden, &gates, experts)?,
        up: placing.matrices(contents, width, shape.hidden, &ups, experts)?,
        down: placing.matrices(contents, shape.hidden, width, &downs, experts)?,
    })
}

/// The most inputs of any linear map of a plan, in chunks.
pub(crate) fn chunks_max(shape: &Shape, plan: &Plan) -> usize {
    plan.sites.iter().map(|site| chunks(site.inputs)).max().unwrap_or(0).max(chunks(shape.hidden))
}
