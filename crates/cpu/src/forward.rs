//! One sequence of known tokens through a model, whatever computes it: what replaying and scoring need of a device.

use crate::batch::{Segment, Wanted};
use crate::executor::{Config, Executor};
use crate::pages::{PAGE, Pages};
use crate::trace::Hash;
use model::{Adapter, Model};
use std::sync::Arc;

/// What some tokens of a sequence gave.
pub struct Computed<'a> {
    /// Whether a value was not finite. The rest means nothing then.
    pub failed: bool,
    /// The trace's leaf of each token.
    pub leaves: &'a [Hash],
    /// The logits that were wanted, a row a token.
    pub logits: &'a [&'a [f32]],
}

/// Runs one sequence at a time. Every implementation gives the same bits.
pub trait Forward: Send {
    /// Begins a sequence of at most so many positions; what was there of another is gone.
    ///
    /// # Errors
    /// There is no memory for as many.
    fn begin(&mut self, positions: usize) -> Result<(), String>;

    /// Computes `tokens`, the first at position `start`, and hands over what they gave. All positions before must have been
    /// computed; those from `start` on may be computed again. Tokens are below the vocabulary.
    ///
    /// # Errors
    /// The device failed, or the adapter is beyond what it takes: the message says which.
    fn run(
        &mut self,
        tokens: &[u32],
        start: usize,
        adapter: Option<&Adapter>,
        wanted: Wanted,
        take: &mut dyn FnMut(Computed<'_>),
    ) -> Result<(), String>;
}

/// On the processor.
pub struct Single {
    executor: Executor,
    pages: Pages,
    ids: Vec<u32>,
}

impl Single {
    /// For sequences of `model`.
    pub fn new(model: Arc<Model>, config: Config) -> std::io::Result<Single> {
        Ok(Single { pages: Pages::new(&model.shape, 0), executor: Executor::new(model, config)?, ids: Vec::new() })
    }
}

impl Forward for Single {
    fn begin(&mut self, positions: usize) -> Result<(), String> {
        let count = positions.div_ceil(PAGE);
        self.pages = Pages::new(&self.executor.model().shape, count);
        self.ids = (0..count as u32).collect();
        Ok(())
    }

    fn run(
        &mut self,
        tokens: &[u32],
        start: usize,
        adapter: Option<&Adapter>,
        wanted: Wanted,
        take: &mut dyn FnMut(Computed<'_>),
    ) -> Result<(), String> {
        let segment = Segment { tokens, start, pages: &self.ids, adapter, wanted };
        let outcome = self.executor.step(&mut self.pages, &[segment]);
        let logits: Vec<&[f32]> = outcome.logits(0).collect();
        take(Computed { failed: outcome.failed[0], leaves: &outcome.leaves[0], logits: &logits });
        Ok(())
    }
}
