//! Replays an answer: teacher-forced, a few large chunks in place of one step per token.

use crate::check;
use crate::draw::Drawing;
use crate::error::AuditError;
use crate::form::Form;
use crate::verdict::{Difference, Verdict};
use cpu::{Executor, PAGE, Pages, Pool, Segment, Wanted};
use exact::Isa;
use model::{Adapter, Model, Text};
use receipt::{Bundle, Opening, ReceiptError};
use std::sync::Arc;
use std::time::Instant;

/// How a replay runs. Nothing here changes its verdict, but that without `text` stop strings are believed.
pub struct ReplayConfig<'a> {
    /// Instruction set.
    pub isa: Isa,
    /// Threads that compute.
    pub threads: usize,
    /// Tokens computed at once. Memory for logits grows with it.
    pub chunk_tokens: usize,
    /// The model's tokenizer: with it stop strings are checked, and answers held to a form can be.
    pub text: Option<&'a Text>,
    /// Told after every chunk.
    pub progress: Option<&'a mut dyn FnMut(Progress)>,
}

impl ReplayConfig<'_> {
    /// Chunks of 256 tokens, no tokenizer, nobody told.
    pub fn new(isa: Isa, threads: usize) -> Self {
        ReplayConfig { isa, threads, chunk_tokens: 256, text: None, progress: None }
    }
}

/// How far a replay is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Positions found equal so far.
    pub positions: usize,
    /// Positions there are.
    pub positions_total: usize,
}

/// Replays a bundle on `base` and `adapter` and compares: first what can be compared without computing, then position
/// by position. A malformed receipt, and content that no model could be run on, are errors; everything that is well
/// formed but not true is a verdict.
pub fn replay(
    bundle: &Bundle,
    base: Arc<Model>,
    adapter: Option<&Adapter>,
    mut config: ReplayConfig<'_>,
) -> Result<Verdict, AuditError> {
    let started = Instant::now();
    let claims = match bundle.check() {
        Ok(receipt) => receipt.claims,
        Err(ReceiptError::Opening(what)) => return Ok(Verdict::of(Difference::Opening { what })),
        Err(error) => return Err(error.into()),
    };
    if let Err(what) = check::identity(&claims, &base, adapter, config.text) {
        return Ok(Verdict::of(what));
    }
    let opening = &bundle.opening;
    check::input(opening, &base, adapter)?;
    let form = match Form::follow(&opening.settings, &opening.output, config.text)? {
        Ok(form) => form,
        Err((number, what)) => return Ok(Verdict::at(opening.prompt.len() + number, opening.prompt.len(), what)),
    };
    if let Err(verdict) = check::finish(&claims, opening, config.text, &form) {
        return Ok(verdict);
    }
    let mut run = Run::new(opening, base, adapter, form, &config)?;
    while !run.is_complete() {
        if let Err((position, what)) = run.advance() {
            return Ok(Verdict::at(position, opening.prompt.len(), what));
        }
        if let Some(progress) = &mut config.progress {
            progress(Progress { positions: run.done, positions_total: run.tokens.len() });
        }
    }
    Ok(Verdict::Equal { positions: run.done, seconds: started.elapsed().as_secs_f64() })
}

/// A replay under way.
struct Run<'a> {
    executor: Executor,
    pool: Pool,
    pages: Pages,
    page_ids: Vec<u32>,
    adapter: Option<&'a Adapter>,
    opening: &'a Opening,
    drawing: Drawing<'a>,
    /// Prompt and answer but for its last token: every position that was computed.
    tokens: Vec<u32>,
    /// Positions found equal.
    done: usize,
    chunk: usize,
}

impl<'a> Run<'a> {
    fn new(
        opening: &'a Opening,
        base: Arc<Model>,
        adapter: Option<&'a Adapter>,
        form: Form,
        config: &ReplayConfig<'_>,
    ) -> Result<Run<'a>, AuditError> {
        let mut tokens = [&opening.prompt[..], &opening.output[..]].concat();
        tokens.pop();
        let page_count = tokens.len().div_ceil(PAGE);
        Ok(Run {
            pages: Pages::new(&base.shape, page_count),
            page_ids: (0..page_count as u32).collect(),
            executor: Executor::new(base, cpu::Config { threads: config.threads, isa: config.isa, trace: true })?,
            pool: Pool::new(config.threads)?,
            adapter,
            opening,
            drawing: Drawing::new(config.isa, opening, form),
            tokens,
            done: 0,
            chunk: config.chunk_tokens.max(1),
        })
    }

    fn is_complete(&self) -> bool {
        self.done == self.tokens.len()
    }

    /// Computes and compares the next chunk. Gives the first position that differs.
    fn advance(&mut self) -> Result<(), (usize, Difference)> {
        let (start, drawing_from) = (self.done, self.opening.prompt.len() - 1);
        let (end, wanted) =
            if start < drawing_from { (drawing_from, Wanted::None) } else { (self.tokens.len(), Wanted::All) };
        let count = self.chunk.min(end - start);
        let segment = Segment {
            tokens: &self.tokens[start..start + count],
            start,
            pages: &self.page_ids,
            adapter: self.adapter,
            wanted,
        };
        let outcome = self.executor.step(&mut self.pages, &[segment]);
        if outcome.failed[0] {
            if count == 1 {
                return Err((start, Difference::NotFinite));
            }
            // Position by position from here, to name the one.
            self.chunk = 1;
            return Ok(());
        }
        let equal = outcome.leaves[0].iter().zip(&self.opening.leaves[start..]).take_while(|(a, b)| a == b).count();
        if wanted == Wanted::All {
            // The answer's token at position p + 1 is drawn from the logits of position p.
            let logits: Vec<&[f32]> = outcome.logits(0).take(equal).collect();
            let drawn = self.drawing.draw(&mut self.pool, &logits, start - drawing_from);
            let claimed = &self.opening.output[start - drawing_from..];
            for ((position, drawn), claimed) in (start + 1..).zip(drawn).zip(claimed) {
                match drawn {
                    Ok(drawn) if drawn == *claimed => {}
                    Ok(drawn) => return Err((position, Difference::Token { claimed: *claimed, drawn })),
                    Err(_) => return Err((position, Difference::NotFinite)),
                }
            }
        }
        if equal < count {
            return Err((start + equal, Difference::Trace));
        }
        self.done += count;
        Ok(())
    }
}
