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
    /// What a device with memory of its own has set aside; none on the processor, where pages and adapters share.
    pub apart: Option<Apart>,
}

/// Memory that a device divided when it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Apart {
    /// Bytes of one page there.
    pub page_bytes: u64,
    /// Bytes for adapters, beside the pages.
    pub adapter_bytes: u64,
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
            quick_step: Duration::from_micros(1500),
            queue_max: 1024,
            context: shape.context.min(promised * PAGE),
            prefix_cache: true,
            draft_tokens: 64,
            loads_ahead: 8,
            apart: None,
        }
    }

    /// What an executor is asked for that an engine is to drive: see [`Config::for_device`].
    pub fn executor() -> cuda::Config {
        cuda::Config { trace: true, rows: 2048, logit_rows: 352, ..cuda::Config::default() }
    }

    /// Sensible numbers for a device with memory of its own, divided as `there` says: as many sequences as it keeps logits
    /// for, up to 256, and as many tokens a step as one pass takes. `host_memory` is for adapters that are not on it.
    pub fn for_device(shape: &Shape, there: &cuda::MemoryPlan, host_memory: u64, threads: usize, isa: Isa) -> Config {
        let apart = Apart { page_bytes: there.page_bytes as u64, adapter_bytes: there.adapters as u64 };
        let memory = there.pages as u64 * apart.page_bytes + apart.adapter_bytes;
        // A quarter of the rows of logits is for guesses.
        let sequences_max = (there.limits.logit_rows / 4 * 3).clamp(1, 256);
        Config {
            pages: there.pages,
            memory,
            host_memory,
            sequences_max,
            step_tokens: there.limits.rows,
            context: shape.context.min(there.limits.positions).min(there.pages * PAGE),
            draft_tokens: (there.limits.logit_rows - sequences_max).min(64),
            apart: Some(apart),
            ..Config::for_memory(shape, memory, threads, isa)
        }
    }

    /// What the memory is for.
    pub fn plan(&self, shape: &Shape) -> MemoryPlan {
        let page_bytes = self.apart.map_or(Pages::page_bytes(shape) as u64, |apart| apart.page_bytes);
        let promised = self.context.div_ceil(PAGE) as u64 * page_bytes;
        let adapters = self.memory.saturating_sub(promised);
        MemoryPlan {
            shared_bytes: self.memory,
            page_bytes,
            pages_max: self.pages.min((self.memory / page_bytes) as usize),
            adapters_bytes_max: self.apart.map_or(adapters, |apart| apart.adapter_bytes),
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
