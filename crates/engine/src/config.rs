//! How an engine runs, and what it does with its memory.

use cpu::{PAGE, Pages};
use exact::Isa;
use model::Shape;
use std::fmt;
use std::time::Duration;

/// How an engine runs. Nothing here changes a bit of any answer.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Threads that compute.
    pub threads: usize,
    /// Instruction set.
    pub isa: Isa,
    /// The most pages of keys and values.
    pub pages: usize,
    /// Bytes that pages and resident adapters share.
    pub memory: u64,
    /// Bytes for adapters that are loaded but not resident, so that they need not be read again.
    pub host_memory: u64,
    /// Sequences computed at once.
    pub sequences_max: usize,
    /// Tokens of one step, prompts' chunks included.
    pub step_tokens: usize,
    /// How many times as long a step may take for the sake of requests that have just come as it would for the answers
    /// that are well under way. Infinity is no limit.
    pub slowdown_max: f64,
    /// Steps that take no longer than this are quick enough for anybody.
    pub quick_step: Duration,
    /// Requests that may wait.
    pub queue_max: usize,
    /// Positions of one sequence.
    pub context: usize,
    /// Whether pages are kept for prompts that begin the same.
    pub prefix_cache: bool,
    /// Tokens of one step that may be guessed ahead; 0 is no speculation.
    pub draft_tokens: usize,
    /// Adapters that may be loaded ahead of the requests that wait for them.
    pub loads_ahead: usize,
}

impl Config {
    /// Sensible numbers for a model with `memory` bytes for pages and adapters: up to 64 sequences and 256 tokens a
    /// step. A quarter of the memory is never promised to one sequence's pages, so that adapters always find room.
    pub fn for_memory(shape: &Shape, memory: u64, threads: usize, isa: Isa) -> Config {
        let sequences_max = 64;
        let page = Pages::page_bytes(shape) as u64;
        let useful = (2 * sequences_max * shape.context.div_ceil(PAGE)) as u64;
        let pages = (memory / page).clamp(1, useful) as usize;
        let promised = (memory / 4 * 3 / page).clamp(1, useful) as usize;
        Config {
            threads,
            isa,
            pages,
            memory: memory.max(page),
            host_memory: memory / 4,
            sequences_max,
            step_tokens: 256,
            slowdown_max: 1.4,
            quick_step: Duration::from_millis(2),
            queue_max: 1024,
            context: shape.context.min(promised * PAGE),
            prefix_cache: true,
            draft_tokens: 64,
            loads_ahead: 8,
        }
    }

    /// What the memory is for.
    pub fn plan(&self, shape: &Shape) -> MemoryPlan {
        let page_bytes = Pages::page_bytes(shape) as u64;
        let promised = self.context.div_ceil(PAGE) as u64 * page_bytes;
        MemoryPlan {
            shared_bytes: self.memory,
            page_bytes,
            pages_max: self.pages.min((self.memory / page_bytes) as usize),
            adapters_bytes_max: self.memory.saturating_sub(promised),
            host_bytes: self.host_memory,
            context: self.context,
        }
    }
}

/// What an engine's memory is for: pages and resident adapters take from one budget as they are needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryPlan {
    /// Bytes that pages and resident adapters share.
    pub shared_bytes: u64,
    /// Bytes of one page of 64 positions.
    pub page_bytes: u64,
    /// The most pages there can be, with no adapter resident.
    pub pages_max: usize,
    /// The most bytes adapters may take: the rest is kept for the pages of one sequence of the longest kind.
    pub adapters_bytes_max: u64,
    /// Bytes for adapters that are loaded but not resident.
    pub host_bytes: u64,
    /// Positions of one sequence.
    pub context: usize,
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        write!(
            f,
            "{:.1} MB shared by up to {} pages of 64 positions ({:.3} MB each) and up to {:.1} MB of resident adapters; \
             {:.1} MB more for adapters in waiting; {} positions a sequence",
            megabytes(self.shared_bytes),
            self.pages_max,
            megabytes(self.page_bytes),
            megabytes(self.adapters_bytes_max),
            megabytes(self.host_bytes),
            self.context
        )
    }
}
