//! What the engine asks of a device, in as few calls as there can be.
//!
//! A device owns the memory of its pages and knows nothing of requests. Every implementation gives the same bits: the
//! engine may stop, resume, batch and cut as it likes, and need not know which device it drives.

mod cpu_device;
mod cuda_device;

pub(crate) use cpu_device::CpuDevice;
pub(crate) use cuda_device::CudaDevice;

use crate::request::Failure;
use cpu::{Draw, Hash, Segment};
use exact::logprob::Logprobs;
use grammar::Guide;
use model::Adapter;
use std::sync::Arc;

/// A token to draw after a step.
#[derive(Clone, Copy)]
pub(crate) struct RowDraw<'a> {
    /// How, but for the mask.
    pub(crate) draw: Draw<'a>,
    /// From which of its segment's wanted logits.
    pub(crate) row: usize,
    /// Gives the mask, which is computed while the device is: it is asked for after the step.
    pub(crate) guide: Option<&'a Guide>,
    /// Whether the token is told with its likelihood, and how many of the likeliest.
    pub(crate) top_logprobs: Option<usize>,
}

/// A token that was drawn.
pub(crate) struct Drawn {
    pub(crate) token: u32,
    pub(crate) logprobs: Option<Logprobs>,
}

/// What a step produced.
pub(crate) struct Stepped {
    /// By segment, the trace's leaf of each token.
    pub(crate) leaves: Vec<Vec<Hash>>,
    /// By segment, why it gave nothing: a value was not finite, or the device could not compute it.
    pub(crate) failed: Vec<Option<Failure>>,
    /// By draw.
    pub(crate) drawn: Vec<Result<Drawn, Failure>>,
}

/// One machine's executor and pages.
pub(crate) trait Device: Send {
    /// Runs the segments' tokens, writing keys and values to their pages, and draws. No two segments write one page.
    fn step(&mut self, segments: &[Segment<'_>], draws: &[RowDraw<'_>]) -> Stepped;

    /// Gives a page's memory back; it may be written again.
    fn release_page(&mut self, page: u32);

    /// An adapter becomes resident: segments may name it from now on.
    fn keep_adapter(&mut self, adapter: &Arc<Adapter>);

    /// An adapter is resident no more. No segment names it until it is kept again.
    fn drop_adapter(&mut self, adapter: &Arc<Adapter>);
}
