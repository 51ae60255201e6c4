//! What the engine asks of a device, in as few calls as there can be.
//!
//! A device owns the memory of its pages and knows nothing of requests. Every implementation gives the same bits: the
//! engine may stop, resume, batch and cut as it likes, and need not know which device it drives.

use crate::request::Failure;
use cpu::{Draw, Executor, Hash, Pages, Segment};
use exact::logprob::Logprobs;
use grammar::{GrammarError, Guide};
use model::{Adapter, Model};
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
    /// By segment, whether a value was not finite.
    pub(crate) failed: Vec<bool>,
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
    fn step(&mut self, segments: &[Segment<'_>], draws: &[RowDraw<'_>]) -> Stepped {
        let mut outcome = self.executor.step(&mut self.pages, segments);
        let masks: Vec<_> = draws.iter().map(|draw| draw.guide.map(Guide::mask).transpose()).collect();
        let masked: Vec<(Draw<'_>, usize)> = draws
            .iter()
            .zip(&masks)
            .map(|(row, mask)| {
                let mut draw = row.draw;
                draw.choice.allowed = mask.as_ref().ok().and_then(Option::as_deref);
                (draw, row.row)
            })
            .collect();
        let tokens = outcome.draw_at(&masked);
        let asked = draws
            .iter()
            .zip(&tokens)
            .filter_map(|(row, token)| Some((row.draw.segment, row.row, *token.as_ref().ok()?, row.top_logprobs?)));
        let mut told = outcome.logprobs(&asked.collect::<Vec<_>>()).into_iter();
        let drawn = draws.iter().zip(tokens).zip(masks).map(|((row, token), mask)| {
            let token = token.map_err(|_| Failure::NotFinite);
            let logprobs = row.top_logprobs.filter(|_| token.is_ok()).and_then(|_| told.next()?.ok());
            mask.map_err(|error: GrammarError| Failure::Form(error))?;
            Ok(Drawn { token: token?, logprobs })
        });
        let drawn = drawn.collect();
        Stepped { drawn, leaves: outcome.leaves, failed: outcome.failed }
    }

    fn release_page(&mut self, page: u32) {
        self.pages.release(page);
    }

    fn keep_adapter(&mut self, _: &Arc<Adapter>) {}

    fn drop_adapter(&mut self, _: &Arc<Adapter>) {}
}
