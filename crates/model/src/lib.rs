//! A checkpoint on disk becomes weights and a [`Plan`].
//!
//! - [`Model::load`] reads a folder in the Hugging Face layout: [`Config`], [`Tensors`], quantised weights, digests,
//!   and a cache of the quantised form for the next start.
//! - [`Adapter::load`] reads a LoRA adapter in PEFT's layout for such a model, [`AdapterCache::load`] the same from its
//!   quantised form if that was kept.
//! - [`Text`] turns text and conversations into tokens and back.
//! - `hub` fetches a checkpoint by name (feature `hub`, on by default).
//! - [`digest`], [`files`](file_digest) and [`merkle`] name what decides outputs, and open it row by row.

mod adapter_cache;
mod adapter_form;
mod bytes;
mod cache;
mod chat;
mod clock;
mod config;
mod copied;
mod error;
mod files;
mod fold;
mod guard;
mod header;
mod index;
mod keys;
mod load;
mod manifest;
mod parallel;
mod parts;
mod peft;
mod peft_config;
mod plan;
mod quantise;
mod quantization;
mod random;
mod replace;
mod rope;
mod section;
mod shape;
mod stream;
mod tensors;
mod text;
mod weights;

pub mod digest;
#[cfg(feature = "hub")]
pub mod hub;
pub mod merkle;
pub mod pieces;

pub use adapter_cache::{AdapterCache, Kept};
pub use bytes::TokenBytes;
pub use chat::Message;
pub use config::{Architecture, Biases, Config};
pub use error::ModelError;
pub use files::file_digest;
pub use header::Dtype;
pub use load::{LoadOptions, Progress, Stage};
pub use manifest::{AdapterManifest, Manifest, ManifestError, TensorEntry};
pub use plan::{Op, Plan, Register, Site};
pub use quantization::Quantization;
pub use shape::{Mlp, Rotary, Shape};
pub use stream::Decoder;
pub use tensors::{Tensor, Tensors, shard_paths};
pub use text::Text;
pub use weights::{Adapter, Embedding, Expert, Half, Linear, LowRank, Mixture, Weights, widen_half};

/// Where a model came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Random weights.
    Random,
    /// Quantised from a checkpoint's files.
    Checkpoint {
        /// Digest of the files.
        file_digest: [u8; 32],
        /// Why the cache could not be used or written, in words for the user.
        cache_complaint: Option<String>,
    },
    /// Read from the cache, where it was kept for these files.
    Cache {
        /// Digest of the checkpoint's files.
        file_digest: [u8; 32],
    },
}

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
    /// Where it came from.
    pub origin: Origin,
}
