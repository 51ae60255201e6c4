//! The engine's loop, one step at a time, without threads: what is tested is what runs.

use crate::Config;
use crate::pool::FreePages;
use crate::request::Failure;
use crate::schedule::schedule;
use crate::sequence::Sequence;
use cpu::{Executor, Hash, Pages};
use exact::NotFinite;
use std::collections::VecDeque;

/// Sequences, pages and the executor that advances them.
pub(crate) struct Core {
    executor: Executor,
    pages: Pages,
    free: FreePages,
    waiting: VecDeque<Sequence>,
    running: Vec<Sequence>,
    config: Config,
}

/// What a step did to one sequence.
struct Advance {
    sequence: usize,
    tokens: usize,
    leaves: Vec<Hash>,
    drawn: Result<Option<u32>, NotFinite>,
}

/// How full the engine is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Load {
    /// Requests that wait for pages.
    pub waiting: usize,
    /// Requests being computed.
    pub running: usize,
    /// Pages in use.
    pub pages_used: usize,
    /// Pages there are.
    pub pages_total: usize,
}

impl Core {
    pub(crate) fn new(executor: Executor, config: Config) -> Self {
        let pages = Pages::new(&executor.model().shape, config.pages);
        Core {
            executor,
            pages,
            free: FreePages::new(config.pages),
            waiting: VecDeque::new(),
            running: Vec::new(),
            config,
        }
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            waiting: self.waiting.len(),
            running: self.running.len(),
            pages_used: self.free.total() - self.free.available(),
            pages_total: self.free.total(),
        }
    }

    pub(crate) fn add(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Continuous batching: sequences come and go between any two steps.
    pub(crate) fn step(&mut self) {
        self.drop_abandoned();
        self.admit();
        for advance in self.compute() {
            self.apply(advance);
        }
        self.retire();
    }

    /// Ends everything unfinished.
    pub(crate) fn fail_all(&mut self, failure: Failure) {
        for sequence in self.waiting.drain(..).chain(self.running.drain(..)) {
            sequence.fail(failure);
        }
    }

    fn drop_abandoned(&mut self) {
        self.waiting.retain(|sequence| !sequence.is_abandoned());
        for sequence in self.running.extract_if(.., |sequence| sequence.is_abandoned()) {
            self.free.give_back(sequence.pages);
        }
    }

    /// First come, first served: nobody overtakes a large request that waits for pages.
    fn admit(&mut self) {
        while self.running.len() < self.config.sequences_max {
            let Some(first) = self.waiting.front() else { return };
            let Some(pages) = self.free.take(first.pages_needed()) else { return };
            if let Some(mut sequence) = self.waiting.pop_front() {
                sequence.pages = pages;
                self.running.push(sequence);
            }
        }
    }

    fn compute(&mut self) -> Vec<Advance> {
        let shares = schedule(self.running.iter().map(Sequence::pending), self.config.step_tokens);
        if shares.is_empty() {
            return Vec::new();
        }
        let segments: Vec<_> = shares.iter().map(|share| self.running[share.sequence].segment(share.tokens)).collect();
        let mut outcome = self.executor.step(&mut self.pages, &segments);
        let draws: Vec<_> = shares
            .iter()
            .zip(&segments)
            .enumerate()
            .filter(|(_, (_, segment))| segment.wanted == cpu::Wanted::Last)
            .map(|(number, (share, segment))| cpu::Draw {
                segment: number,
                sampling: *self.running[share.sequence].sampling(),
                position: (segment.start + segment.tokens.len()) as u64,
            })
            .collect();
        let drawn = outcome.draw(&draws);
        let mut advances: Vec<Advance> = shares
            .iter()
            .zip(outcome.leaves.drain(..))
            .zip(&outcome.failed)
            .map(|((share, leaves), failed)| Advance {
                sequence: share.sequence,
                tokens: share.tokens,
                leaves,
                drawn: if *failed { Err(NotFinite) } else { Ok(None) },
            })
            .collect();
        for (draw, token) in draws.iter().zip(drawn) {
            let advance = &mut advances[draw.segment];
            if advance.drawn.is_ok() {
                advance.drawn = token.map(Some);
            }
        }
        advances
    }

    fn apply(&mut self, advance: Advance) {
        let sequence = &mut self.running[advance.sequence];
        let ended = match advance.drawn {
            Ok(drawn) => sequence.advance(advance.tokens, advance.leaves, drawn),
            Err(NotFinite) => {
                sequence.fail(Failure::NotFinite);
                true
            }
        };
        if ended {
            sequence.end();
        }
    }

    fn retire(&mut self) {
        for sequence in self.running.extract_if(.., |sequence| sequence.has_ended()) {
            self.free.give_back(sequence.pages);
        }
    }
}
