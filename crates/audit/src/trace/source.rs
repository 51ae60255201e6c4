//! Where the inputs of a row come from: values in memory while a trace is regenerated, openings for a referee.

use crate::trace::outline::Outline;
use crate::trace::program::{Expert, StepId};
use std::borrow::Cow;
use std::ops::Range;

/// An input that is not there, or not as it should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an input is missing: {0}")]
pub struct Missing(pub &'static str);

/// A tensor of the base or of the adapter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Table {
    /// Token embeddings.
    Embedding,
    /// Weights of a norm, one row.
    Norm(usize),
    /// A linear map of the base.
    Linear(usize),
    /// Its bias, one row.
    Bias(usize),
    /// First half of an adapter's share in a linear map.
    AdapterA(usize),
    /// Second half.
    AdapterB(usize),
    /// A router.
    Router(usize),
    /// A linear map of an expert: mixture, expert, which.
    Expert(usize, usize, Expert),
}

impl Table {
    /// Its name in the manifest (docs/digests.md).
    pub fn name(self, outline: &Outline) -> Option<String> {
        let plan = &outline.plan;
        let site = |number: usize| plan.sites.get(number).map(|site| &site.name);
        Some(match self {
            Table::Embedding => "model.embed_tokens.weight".to_owned(),
            Table::Norm(norm) => format!("{}.weight", plan.norms.get(norm)?),
            Table::Linear(number) => format!("{}.weight", site(number)?),
            Table::Bias(number) => format!("{}.bias", site(number)?),
            Table::AdapterA(number) => format!("{}.lora_A.weight", site(number)?),
            Table::AdapterB(number) => format!("{}.lora_B.weight", site(number)?),
            Table::Router(mixture) => format!("{}.gate.weight", plan.mixtures.get(mixture)?),
            Table::Expert(mixture, expert, part) => {
                format!("{}.experts.{expert}.{}.weight", plan.mixtures.get(mixture)?, part.name())
            }
        })
    }

    /// Whether it is the adapter's.
    pub fn is_adapters(self) -> bool {
        matches!(self, Table::AdapterA(_) | Table::AdapterB(_))
    }
}

/// Gives inputs.
pub trait Source {
    /// Bytes of consecutive rows of an earlier step.
    fn rows(&self, step: StepId, rows: Range<usize>) -> Result<Cow<'_, [u8]>, Missing>;

    /// A row of a tensor: its leaf's data (docs/digests.md).
    fn weights(&self, table: Table, row: usize) -> Result<Cow<'_, [u8]>, Missing>;

    /// The scale of a row of integers.
    fn weight_scale(&self, table: Table, row: usize) -> Result<f32, Missing> {
        let bytes = self.weights(table, row)?;
        bytes.first_chunk().map(|scale| f32::from_le_bytes(*scale)).ok_or(Missing("a row of weights is too short"))
    }

    /// Keys and values of an earlier position in one layer, as its layer digest hashes them.
    fn past(&self, position: usize, layer: usize) -> Result<Cow<'_, [u8]>, Missing>;
}
