//! What the engine asks of a device, in as few calls as there can be.
//!
//! A device owns the memory of its pages and knows nothing of requests. Every implementation gives the same bits: the
//! engine may stop, resume, batch and cut as it likes, and need not know which device it drives.

use cpu::{Draw, Executor, Hash, Pages, Segment};
use exact::NotFinite;
use model::{Adapter, Model};
use std::sync::Arc;

/// A token to draw after a step: how, and from which of its segment's wanted logits.
pub(crate) type RowDraw = (Draw, usize);

/// What a step produced.
pub(crate) struct Stepped {
    /// By segment, the trace's leaf of each token.
    pub(crate) leaves: Vec<Vec<Hash>>,
    /// By segment, whether a value was not finite.
    pub(crate) failed: Vec<bool>,
    /// By draw.
    pub(crate) drawn: Vec<Result<u32, NotFinite>>,
}

/// One machine's executor and pages.
pub(crate) trait Device: Send {
    /// Runs the segments' tokens, writing keys and values to their pages, and draws. No two segments write one page.
    fn step(&mut self, segments: &[Segment<'_>], draws: &[RowDraw]) -> Stepped;

    /// Gives a page's memory back; it may be written again.
    fn release_page(&mut self, page: u32);

    /// An adapter becomes resident: segments may name it from now on.
    fn keep_adapter(&mut self, adapter: &Arc<Adapter>);

    /// An adapter is resident no more. No segment names it until it is kept again.
    fn drop_adapter(&mut self, adapter: &Arc<Adapter>);
}

/// Processors, whose memory is the host's: an adapter that is loaded is in place.
pub(crate) struct CpuDevice {
    executor: Executor,
    pages: Pages,
}

impl CpuDevice {
    pub(crate) fn new(model: Arc<Model>, config: cpu::Config, pages: usize) -> std::io::Result<CpuDevice> {
        Ok(CpuDevice { pages: Pages::new(&model.shape, pages), executor: Executor::new(model, config)? })
    }
}

impl Device for CpuDevice {
    fn step(&mut self, segments: &[Segment<'_>], draws: &[RowDraw]) -> Stepped {
        let mut outcome = self.executor.step(&mut self.pages, segments);
        let drawn = outcome.draw_at(draws);
        Stepped { drawn, leaves: outcome.leaves, failed: outcome.failed }
    }

    fn release_page(&mut self, page: u32) {
        self.pages.release(page);
    }

    fn keep_adapter(&mut self, _: &Arc<Adapter>) {}

    fn drop_adapter(&mut self, _: &Arc<Adapter>) {}
}
