//! Replays an answer: teacher-forced, a few large chunks in place of one step per token.

use crate::check;
use crate::draw::Drawing;
use crate::error::AuditError;
use crate::form::Form;
use crate::verdict::{Difference, Verdict};
use cpu::{Forward, Pool, Single, Wanted};
use exact::Isa;
use model::{Adapter, Model, Text};
use receipt::{Bundle, Opening, ReceiptError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// How a replay runs. Nothing here changes its verdict, but that without `text` stop strings are believed.
pub struct ReplayConfig<'a> {
    /// Instruction set.
    pub isa: Isa,
    /// Threads that compute.
    pub threads: usize,
    /// Tokens computed at once. Memory for logits grows with it.
    pub chunk_tokens: usize,
    /// Computes in place of the processor: made for the same model, with traces. Held while one answer is replayed.
    pub device: Option<&'a Mutex<dyn Forward>>,
    /// The model's tokenizer: with it stop strings are checked, and answers held to a form can be.
    pub text: Option<&'a Text>,
    /// Told after every chunk.
    pub progress: Option<&'a mut dyn FnMut(Progress)>,
}

impl ReplayConfig<'_> {
    /// Chunks of 256 tokens, no tokenizer, nobody told.
    pub fn new(isa: Isa, threads: usize) -> Self {
        ReplayConfig { isa, threads, chunk_tokens: 256, device: None, text: None, progress: None }
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
    let mut held = config.device.map(|device| device.lock().unwrap_or_else(PoisonError::into_inner));
    let mut own;
    let forward: &mut dyn Forward = match &mut held {
        Some(device) => &mut **device,
        None => {
            own = Single::new(base, cpu::Config { threads: config.threads, isa: config.isa, trace: true })?;
            &mut own
        }
    };
    let mut run = Run::new(opening, forward, adapter, form, &config)?;
    while !run.is_complete() {
        if let Some((position, what)) = run.advance().map_err(AuditError::Device)? {
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
    forward: &'a mut dyn Forward,
    pool: Pool,
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
        forward: &'a mut dyn Forward,
        adapter: Option<&'a Adapter>,
        form: Form,
        config: &ReplayConfig<'_>,
    ) -> Result<Run<'a>, AuditError> {
        let mut tokens = [&opening.prompt[..], &opening.output[..]].concat();
        tokens.pop();
        forward.begin(tokens.len()).map_err(AuditError::Device)?;
        Ok(Run {
            forward,
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

    /// Computes and compares the next chunk. Gives the first position that differs; an error if nothing could be computed.
    fn advance(&mut self) -> Result<Option<(usize, Difference)>, String> {
        let (start, drawing_from) = (self.done, self.opening.prompt.len() - 1);
        let (end, wanted) =
            if start < drawing_from { (drawing_from, Wanted::None) } else { (self.tokens.len(), Wanted::All) };
        let count = self.chunk.min(end - start);
        let (opening, drawing, pool) = (self.opening, &self.drawing, &mut self.pool);
        let (mut failed, mut found) = (false, None);
        self.forward.run(&self.tokens[start..start + count], start, self.adapter, wanted, &mut |computed| {
            failed = computed.failed;
            if failed {
                return;
            }
            let equal = computed.leaves.iter().zip(&opening.leaves[start..]).take_while(|(a, b)| a == b).count();
            if wanted == Wanted::All {
                // The answer's token at position p + 1 is drawn from the logits of position p.
                let drawn = drawing.draw(pool, &computed.logits[..equal], start - drawing_from);
                let claimed = &opening.output[start - drawing_from..];
                found = (start + 1..).zip(drawn).zip(claimed).find_map(|((position, drawn), claimed)| match drawn {
                    Ok(drawn) if drawn == *claimed => None,
                    Ok(drawn) => Some((position, Difference::Token { claimed: *claimed, drawn })),
                    Err(_) => Some((position, Difference::NotFinite)),
                });
            }
            if found.is_none() && equal < count {
                found = Some((start + equal, Difference::Trace));
            }
        })?;
        if failed {
            if count == 1 {
                return Ok(Some((start, Difference::NotFinite)));
            }
            // Position by position from here, to name the one.
            self.chunk = 1;
        } else if found.is_none() {
            self.done += count;
        }
        Ok(found)
    }
}
