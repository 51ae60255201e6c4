//! A CUDA device: pages and adapters lie in its memory, and it draws what nothing bends.

use super::{Device, Drawn, RowDraw, Stepped};
use crate::request::Failure;
use cpu::{Draw, Pool, Segment};
use cuda::{DeviceError, Executor, Launcher};
use exact::adjust::sample_under;
use exact::logprob::logprobs;
use exact::{Isa, NotFinite};
use grammar::Guide;
use model::Adapter;
use std::sync::{Arc, Mutex, PoisonError};

/// An executor, and threads for what the host draws.
pub(crate) struct CudaDevice<L: Launcher> {
    executor: Executor<L>,
    pool: Pool,
    isa: Isa,
}

/// What is drawn here, from copied logits: the draw, its row, how many of the likeliest are told, and what came of it.
struct Bent<'a> {
    draw: Draw<'a>,
    logits: Vec<f32>,
    top: Option<usize>,
    drawn: Mutex<Result<Drawn, NotFinite>>,
}

impl<L: Launcher + Send> CudaDevice<L> {
    pub(crate) fn new(executor: Executor<L>, threads: usize, isa: Isa) -> std::io::Result<Self> {
        Ok(CudaDevice { executor, pool: Pool::new(threads)?, isa })
    }

    fn compute(&mut self, segments: &[Segment<'_>], draws: &[RowDraw<'_>]) -> Result<Stepped, DeviceError> {
        let isa = self.isa;
        let mut outcome = self.executor.step(segments)?;
        let masks: Vec<_> = draws.iter().map(|row| row.guide.map(Guide::mask).transpose()).collect();
        let (mut plain, mut bent) = (Vec::new(), Vec::new());
        let mut place = Vec::with_capacity(draws.len());
        for (row, mask) in draws.iter().zip(&masks) {
            let mut draw = row.draw;
            draw.choice.allowed = mask.as_ref().ok().and_then(Option::as_deref);
            if draw.choice.is_nothing() && row.top_logprobs.is_none() {
                place.push(Ok(plain.len()));
                plain.push((draw, row.row));
            } else {
                place.push(Err(bent.len()));
                let logits = outcome.row(draw.segment, row.row)?.unwrap_or_default();
                bent.push(Bent { draw, logits, top: row.top_logprobs, drawn: Mutex::new(Err(NotFinite)) });
            }
        }
        let plain = outcome.draw_at(&plain)?;
        self.pool.each(bent.len(), |_, i| {
            let drawn = bent[i].draw(isa);
            *bent[i].drawn.lock().unwrap_or_else(PoisonError::into_inner) = drawn;
        });
        let mut bent: Vec<Option<Result<Drawn, NotFinite>>> = bent
            .into_iter()
            .map(|bent| Some(bent.drawn.into_inner().unwrap_or_else(PoisonError::into_inner)))
            .collect();
        let drawn = place.into_iter().zip(masks).map(|(place, mask)| {
            mask.map_err(Failure::Form)?;
            let drawn = match place {
                Ok(i) => plain[i].map(|token| Drawn { token, logprobs: None }),
                Err(i) => bent[i].take().unwrap_or(Err(NotFinite)),
            };
            drawn.map_err(|_| Failure::NotFinite)
        });
        let drawn = drawn.collect();
        let failed = outcome.failed.iter().map(|failed| failed.then_some(Failure::NotFinite)).collect();
        Ok(Stepped { drawn, failed, leaves: std::mem::take(&mut outcome.leaves) })
    }

    /// Each segment by itself: what one of them asks that the device cannot do is not the others' fault.
    fn each_alone(&mut self, segments: &[Segment<'_>], draws: &[RowDraw<'_>]) -> Stepped {
        let mut all = Stepped { leaves: Vec::new(), failed: Vec::new(), drawn: Vec::new() };
        for (number, segment) in segments.iter().enumerate() {
            let own: Vec<RowDraw<'_>> = draws
                .iter()
                .filter(|row| row.draw.segment == number)
                .map(|row| RowDraw { draw: Draw { segment: 0, ..row.draw }, ..*row })
                .collect();
            let Stepped { leaves, failed, drawn } = self.step(&[*segment], &own);
            all.leaves.extend(leaves);
            all.failed.extend(failed);
            all.drawn.extend(drawn);
        }
        all
    }
}

impl Bent<'_> {
    fn draw(&self, isa: Isa) -> Result<Drawn, NotFinite> {
        if self.logits.is_empty() {
            return Err(NotFinite);
        }
        let token = sample_under(isa, &self.logits, &self.draw.sampling, &self.draw.choice, self.draw.position)?;
        let logprobs = self.top.and_then(|top| logprobs(isa, &self.logits, token, top).ok());
        Ok(Drawn { token, logprobs })
    }
}

impl<L: Launcher + Send> Device for CudaDevice<L> {
    fn step(&mut self, segments: &[Segment<'_>], draws: &[RowDraw<'_>]) -> Stepped {
        match self.compute(segments, draws) {
            Ok(stepped) => stepped,
            Err(DeviceError::Unsupported(_) | DeviceError::Memory(_)) if segments.len() > 1 => {
                self.each_alone(segments, draws)
            }
            Err(error) => {
                tracing::error!("a step ended: {error}");
                let failure = Failure::Device(error.to_string().into());
                Stepped {
                    leaves: vec![Vec::new(); segments.len()],
                    failed: vec![Some(failure.clone()); segments.len()],
                    drawn: draws.iter().map(|_| Err(failure.clone())).collect(),
                }
            }
        }
    }

    // The executor's pages are all there from the start.
    fn release_page(&mut self, _: u32) {}

    fn keep_adapter(&mut self, adapter: &Arc<Adapter>) {
        // A step that names it tries again, and says why it cannot be.
        if let Err(error) = self.executor.prefetch(adapter) {
            tracing::debug!("an adapter is not copied ahead: {error}");
        }
    }

    fn drop_adapter(&mut self, adapter: &Arc<Adapter>) {
        self.executor.evict(&adapter.digest);
    }
}
