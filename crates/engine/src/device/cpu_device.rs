//! Processors as a device.

use super::{Device, Drawn, RowDraw, Stepped};
use crate::request::Failure;
use cpu::{Draw, Executor, Pages, Segment};
use grammar::{GrammarError, Guide};
use model::{Adapter, Model};
use std::sync::Arc;

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
        let failed = outcome.failed.iter().map(|failed| failed.then_some(Failure::NotFinite)).collect();
        Stepped { drawn, leaves: outcome.leaves, failed }
    }

    fn release_page(&mut self, page: u32) {
        self.pages.release(page);
    }

    fn keep_adapter(&mut self, _: &Arc<Adapter>) {}

    fn drop_adapter(&mut self, _: &Arc<Adapter>) {}
}
