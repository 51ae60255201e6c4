//! Checks answers: replays them and compares.
//!
//! Because a run is exact, an audit has no threshold. [`replay`] feeds the tokens of a [`receipt::Bundle`] through the
//! weights it names, in a few large chunks instead of token by token, and compares what every position leaves behind
//! and every token drawn. Either all of it is equal, whatever the machine, or the first position that differs is named.
//!
//! A replay proves what ran: base, adapter, precision, prompt, settings, seed and answer. With the tokenizer it also
//! proves that an answer ended where its first stop string did, and that it kept to its form; without, stop strings are
//! believed and answers with a form cannot be replayed.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # fn audit(bytes: &[u8], base: Arc<model::Model>) -> Result<(), audit::AuditError> {
//! use audit::{ReplayConfig, replay};
//!
//! let bundle = receipt::Bundle::from_bytes(bytes)?;
//! let verdict = replay(&bundle, base, None, ReplayConfig::new(exact::Isa::best(), 2))?;
//! println!("{verdict}"); // "equal: all 120 positions, replayed in 2.0 s"
//! # Ok(())
//! # }
//! ```

mod check;
mod draw;
mod error;
mod form;
mod replay;
mod verdict;
mod wire;
mod words;

pub mod dispute;
pub mod light;
pub mod policy;
pub mod range;
pub mod trace;

pub use error::AuditError;
pub use replay::{Progress, ReplayConfig, replay};
pub use verdict::{Difference, Digest, FinishFault, Verdict};
pub use wire::Malformed;
