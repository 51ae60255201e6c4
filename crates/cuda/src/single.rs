//! One sequence of known tokens on a device: for replays and scores.

use crate::executor::Executor;
use crate::launcher::{DeviceError, Launcher};
use cpu::{Computed, Forward, PAGE, Segment, Wanted};
use model::Adapter;

/// An executor that computes one sequence at a time, in its first pages.
pub struct Single<L: Launcher> {
    executor: Executor<L>,
    pages: Vec<u32>,
}

impl<L: Launcher> Single<L> {
    /// On this executor; it should trace if leaves are asked for.
    pub fn new(executor: Executor<L>) -> Single<L> {
        Single { executor, pages: Vec::new() }
    }

    fn compute(&mut self, segment: Segment<'_>, take: &mut dyn FnMut(Computed<'_>)) -> Result<(), DeviceError> {
        let mut outcome = self.executor.step(&[segment])?;
        let logits = if outcome.failed[0] { Vec::new() } else { outcome.logits(0)? };
        let logits: Vec<&[f32]> = logits.iter().map(Vec::as_slice).collect();
        take(Computed { failed: outcome.failed[0], leaves: &outcome.leaves[0], logits: &logits });
        Ok(())
    }
}

impl<L: Launcher + Send> Forward for Single<L> {
    fn begin(&mut self, positions: usize) -> Result<(), String> {
        let (needed, there) = (positions.div_ceil(PAGE), self.executor.memory().pages);
        if needed > there {
            return Err(format!(
                "{positions} positions take {needed} pages and the device has memory for {there}: --device cpu does without"
            ));
        }
        self.pages = (0..needed as u32).collect();
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
        let pages = std::mem::take(&mut self.pages);
        let done = self.compute(Segment { tokens, start, pages: &pages, adapter, wanted }, take);
        self.pages = pages;
        done.map_err(|error| format!("{error}; --device cpu does without"))
    }
}
