//! Who checks what, how often, and what keeps everybody honest. One rule a file, in words on top.

mod ballot;
mod deterrence;
mod floor;
mod planted;
mod selection;

pub use ballot::{Ballot, Commitment, Opinion, Outcome, Reveal};
pub use deterrence::Deterrence;
pub use floor::Floor;
pub use planted::{Planted, Score};
pub use selection::{Rate, selected};
