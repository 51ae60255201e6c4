//! Checks an answer without the levels of its weights (docs/light-check.md).
//!
//! A prover hands out the exact integer sums of every linear map of a span of positions. The verifier recomputes everything
//! else itself, bit for bit (attention, norms, rotary positions, adapters, sampling) and checks the sums with one random
//! combination of each map's rows that it kept: `r · (W x) = (r · W) · x` in a field of 2⁶¹ − 1 elements. A false sum
//! passes with probability 2⁻⁶⁰ as long as nobody else knows r: it stays a secret ([`Key::secret`]), or it is drawn only
//! when the sums are fixed ([`Key::from_coin`]).

mod attend;
mod check;
mod frame;
mod input;
mod key;
mod opening;
mod opening_file;
mod prove;
mod row;
mod sections;
mod sums;
mod verdict;
mod walk;

pub use check::{LightConfig, check};
pub use frame::{Frame, FrameMaker};
pub use key::{Key, KeyMaker, coin, coin_of};
pub use opening::{EmbeddingOpening, LightOpening, Opened, PastOpening};
pub use opening_file::OpeningFile;
pub use prove::prove;
pub use sections::Sections;
pub use verdict::{LightError, LightFault, LightVerdict};
