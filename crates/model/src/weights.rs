//! Weights in the form the executors use.

use exact::matrix::{Matrix, RowMatrix};
use exact::mixture::Router;

/// The 16-bit float an embedding table is kept in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Half {
    /// bfloat16: the upper half of a binary32.
    Brain,
    /// IEEE binary16.
    Ieee,
}

/// Token embeddings at 16 bits, row by row.
#[derive(Clone)]
pub struct Embedding {
    /// Bit patterns, `vocabulary × hidden`.
    pub bits: Vec<u16>,
    /// What they mean.
    pub half: Half,
    /// Values per row.
    pub hidden: usize,
}

impl Embedding {
    /// The row of a token, widened.
    pub fn row(&self, token: usize, out: &mut [f32]) {
        let bits = &self.bits[token * self.hidden..][..self.hidden];
        match self.half {
            Half::Brain => {
                for (out, bits) in out.iter_mut().zip(bits) {
                    *out = f32::from_bits(u32::from(*bits) << 16);
                }
            }
            Half::Ieee => {
                for (out, bits) in out.iter_mut().zip(bits) {
                    *out = widen_half(*bits);
                }
            }
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.bits.len() * 2
    }
}

/// A binary16 bit pattern as a binary32, exactly.
pub fn widen_half(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let exponent = u32::from(bits >> 10 & 0x1f);
    let fraction = u32::from(bits & 0x3ff);
    let magnitude = match exponent {
        0 => fraction as f32 * f32::from_bits((127 - 24) << 23),
        31 => f32::from_bits(0x7f80_0000 | fraction << 13),
        _ => f32::from_bits((exponent + 112) << 23 | fraction << 13),
    };
    f32::from_bits(sign | magnitude.to_bits())
}

/// A linear map of the base.
#[derive(Clone, Default)]
pub struct Linear {
    /// Integers and scales.
    pub matrix: Matrix,
    /// Added to every output row.
    pub bias: Option<Vec<f32>>,
}

/// One expert of a mixture.
#[derive(Clone, Default)]
pub struct Expert {
    /// hidden → width
    pub gate: Matrix,
    /// hidden → width
    pub up: Matrix,
    /// width → hidden
    pub down: Matrix,
}

/// A mixture of experts.
#[derive(Clone, Default)]
pub struct Mixture {
    /// Chooses.
    pub router: Router,
    /// How many each token uses.
    pub chosen: usize,
    /// Whether the weights of the chosen are made to add up to one.
    pub renormalise: bool,
    /// By id.
    pub experts: Vec<Expert>,
}

/// Everything a [`crate::Plan`] refers to by number.
#[derive(Clone)]
pub struct Weights {
    /// Token embeddings.
    pub embedding: Embedding,
    /// Norm weights, as [`crate::Plan::norms`] numbers them.
    pub norms: Vec<Vec<f32>>,
    /// Linear maps, as [`crate::Plan::sites`] numbers them.
    pub linears: Vec<Linear>,
    /// Mixtures, as [`crate::Plan::mixtures`] numbers them.
    pub mixtures: Vec<Mixture>,
    /// Norm weights that were folded into the linear maps that read them, as [`crate::Plan::norms`] numbers them; empty
    /// where none was. An adapter's A is prepared with them.
    pub folded: Vec<Vec<f32>>,
}

impl Weights {
    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        let experts = |m: &Mixture| -> usize {
            m.experts.iter().map(|e| e.gate.bytes() + e.up.bytes() + e.down.bytes()).sum::<usize>() + m.router.bytes()
        };
        self.embedding.bytes()
            + self.norms.iter().chain(&self.folded).map(|n| n.len() * 4).sum::<usize>()
            + self.linears.iter().map(|l| l.matrix.bytes() + l.bias.as_ref().map_or(0, |b| b.len() * 4)).sum::<usize>()
            + self.mixtures.iter().map(experts).sum::<usize>()
    }
}

/// What an adapter adds to one linear map.
#[derive(Clone, Default)]
pub struct LowRank {
    /// rank × inputs
    pub a: RowMatrix,
    /// outputs × rank
    pub b: Matrix,
    /// alpha / rank, or alpha / √rank (rsLoRA).
    pub gain: f32,
}

/// A LoRA adapter for one base.
#[derive(Clone)]
pub struct Adapter {
    /// As [`crate::Plan::sites`] numbers the maps; none where it adds nothing.
    pub sites: Vec<Option<LowRank>>,
    /// Identity: of every integer, scale and gain.
    pub digest: [u8; 32],
}

impl Adapter {
    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.sites.iter().flatten().map(|site| site.a.bytes() + site.b.bytes()).sum()
    }

    /// The largest rank of its sites.
    pub fn rank(&self) -> usize {
        self.sites.iter().flatten().map(|site| site.a.outputs()).max().unwrap_or(0)
    }
}
