//! A checkpoint on disk becomes weights and a [`Plan`].

mod plan;
mod random;
mod shape;
mod weights;

pub use plan::{Op, Plan, Register, Site};
pub use shape::{Mlp, Rotary, Shape};
pub use weights::{Adapter, Embedding, Expert, Half, Linear, LowRank, Mixture, Weights, widen_half};

/// A base model ready to run.
pub struct Model {
    /// Its dimensions.
    pub shape: Shape,
    /// Its forward pass.
    pub plan: Plan,
    /// Its weights.
    pub weights: Weights,
    /// How the inputs of its linear maps are quantised.
    pub activations: exact::Activations,
    /// The exact digest: identity of everything that decides its outputs.
    pub digest: [u8; 32],
}
