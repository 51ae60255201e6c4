//! What a position computed, operation by operation: regenerated from the tokens whenever somebody doubts it.
//!
//! A [`Program`] is [`model::Plan`] written out for one position: each operation of the plan becomes a few steps, small
//! enough that one *row* of one step can be recomputed from a few kilobytes ([`compute`]). Every row is bytes; the rows of
//! a step are the leaves of a tree, the steps' roots those of another (docs/disputes.md). Nobody stores any of it: a
//! [`Position`] regenerates it from weights, and a referee recomputes one row from openings, by the very same function.

mod attention;
mod builder;
mod compute;
mod draw;
mod drawing;
mod history;
mod layout;
mod linear;
mod mixture;
mod outline;
mod position;
mod program;
mod source;
pub mod tree;
mod walk;

pub use compute::compute;
pub(crate) use compute::floats;
pub use drawing::{Draw, Shaping};
pub use history::{History, Run};
pub use layout::Layout;
pub use outline::Outline;
pub use position::Position;
pub use program::{Borders, Expert, Map, Operation, Program, Step, StepId};
pub use source::{Missing, Source, Table};
pub use walk::regenerate;
pub(crate) use walk::weight_row;

/// Values in a row of an element-wise step; every block that is spread lies within one.
pub const CHUNK: usize = 1024;

/// Inputs in one partial sum of a dot product.
pub const SEGMENT: usize = 8192;
