//! What the next token may be.
//!
//! A [`Source`] (a JSON schema, a regular expression or a grammar) is compiled over a [`Vocabulary`] into a
//! [`Grammar`]. A [`Matcher`] follows one answer through it: before each token it gives the mask of tokens that may
//! come next. Masks are a pure function of source, tokenizer, tokens and [`ENGINE`], which is why a receipt names
//! the engine: an auditor recomputes them.
//!
//! Both compiling and masks have limits, counted in steps and not in time, so that they fall at the same place on
//! every machine. [`Guides`] computes masks on threads of its own, while the model computes.

mod error;
mod guide;
mod matcher;
mod source;
mod vocabulary;

pub use error::GrammarError;
pub use guide::{Guide, Guides};
pub use matcher::{Grammar, Matcher};
pub use source::{Kind, Source, compact};
pub use vocabulary::Vocabulary;

/// What computes masks, and the version of the limits and options it is used with. Another name may give other masks.
pub const ENGINE: &str = "llguidance 1.9.1, rules 1";
