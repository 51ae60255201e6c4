//! Who lied, decided without the model (docs/disputes.md).
//!
//! A *prover* stands by a receipt, a *challenger* says that one position of it is not what the model computes. Message by
//! message they walk down from the receipt's trace root to a position, to a step of it, to one row of that step: the first
//! on which they differ. All inputs of that row are then undisputed, so whoever recomputes the one row ([`Game`], the
//! referee) sees which of them is right. Messages are signed and chained: a [`Transcript`] convinces a third party alone.

mod case;
mod challenger;
mod evidence;
mod game;
mod message;
mod prover;
mod referee;
mod transcript;

pub use case::{Case, CaseError};
pub use challenger::Challenger;
pub use evidence::{Evidence, PastOpening, RowsOpening, WeightOpening};
pub use game::{Game, Node, Party, Ruling, Stage, Why};
pub use message::{MESSAGE_BYTES_MAX, Message};
pub use prover::Prover;
pub use referee::{play, target};
pub use transcript::{Entry, Transcript, TranscriptError};

use crate::trace::{Borders, Missing, Position};

/// Regenerates a position, with somebody else's borders where given.
pub type Regenerate<'a> = Box<dyn FnMut(usize, Option<Borders>) -> Result<Position, Missing> + 'a>;
