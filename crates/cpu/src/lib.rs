//! Executes a [`model::Plan`] on a ragged batch of sequences: prompts and single tokens, of different adapters and
//! ranks, together.
//!
//! A step is a series of *sections*, each divided into units that the threads take as they become free: rows for
//! element-wise operations, columns for linear maps, (sequence, key head, query rows) for attention. Units are never
//! sequences, so one long prompt or one short answer keeps every thread busy alike. Because the arithmetic is exact, no
//! division of the work changes a bit.

mod attention;
mod batch;
mod executor;
mod experts;
mod failures;
mod forward;
mod linears;
mod pages;
mod pool;
mod registers;
mod rows;
mod trace;

pub use batch::{Segment, Wanted};
pub use executor::{Config, Draw, Executor, Outcome};
pub use forward::{Computed, Forward, Single};
pub use pages::{PAGE, Pages};
pub use pool::Pool;
pub use trace::{Hash, LAYER, leaf};
