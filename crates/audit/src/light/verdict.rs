//! What a light check found.

use crate::wire::Malformed;
use receipt::ReceiptError;
use serde::Serialize;
use std::fmt;

/// Outcome of a light check.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum LightVerdict {
    /// Every position of the span is what the weights give, given the positions before it.
    Holds {
        /// First position of the span.
        from: usize,
        /// The one after its last.
        to: usize,
        /// Positions of the answer.
        positions_total: usize,
        /// Time it took.
        seconds: f64,
    },
    /// A position is not.
    Fails {
        /// The first; none if it is not about one.
        position: Option<usize>,
        /// What is wrong.
        what: LightFault,
    },
}

/// What is wrong with an opened span.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LightFault {
    /// Sums of a linear map that are not those of the weights.
    Sums {
        /// Number of the section of maps.
        section: usize,
    },
    /// The leaf of the receipt.
    Trace,
    /// A token of the answer.
    Token {
        /// By the receipt.
        claimed: u32,
        /// By the sampler.
        drawn: u32,
    },
    /// A value is not finite.
    NotFinite,
    /// Keys and values before the span are not those the receipt binds.
    Past,
    /// An embedding does not open the exact digest.
    Embedding,
    /// Too few or too many sums, embeddings or positions.
    Incomplete,
    /// The opening's file could not be read any more.
    Unread,
    /// A token that the answer's form does not allow.
    Form {
        /// In words.
        what: String,
    },
    /// How the answer ended.
    Finish {
        /// In words.
        what: String,
    },
    /// The receipt does not say what the bundle opens, or names another model or adapter.
    Receipt {
        /// In words.
        what: String,
    },
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum LightError {
    /// The receipt or the bundle.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The opening.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The checkpoint a key was to be made from.
    #[error(transparent)]
    Model(#[from] model::ModelError),
    /// Key and frame are not of the model the receipt names.
    #[error("{0}")]
    Key(&'static str),
    /// Content no model runs on.
    #[error("this answer cannot be checked: {0}")]
    Content(String),
    /// Threads could not be started.
    #[error("cannot start threads: {0}; try fewer")]
    Threads(#[from] std::io::Error),
    /// The opening's file.
    #[error("cannot read the opening: {0}")]
    File(std::io::Error),
}

impl LightVerdict {
    /// Whether the span is as claimed.
    pub fn holds(&self) -> bool {
        matches!(self, LightVerdict::Holds { .. })
    }
}

impl fmt::Display for LightVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LightVerdict::Holds { from, to, positions_total, seconds } => {
                write!(f, "holds: positions {from} to {} of {positions_total}, checked in {seconds:.2} s", to - 1)
            }
            LightVerdict::Fails { position: Some(position), what } => write!(f, "fails at position {position}: {what}"),
            LightVerdict::Fails { what, .. } => write!(f, "fails: {what}"),
        }
    }
}

impl fmt::Display for LightFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LightFault::Sums { section } => {
                write!(f, "the sums of linear maps in section {section} are not those of the weights")
            }
            LightFault::Trace => write!(f, "keys, values or hidden state are not the ones the receipt binds"),
            LightFault::Token { claimed, drawn } => {
                write!(f, "the receipt claims token {claimed} next, the sampler draws {drawn}")
            }
            LightFault::NotFinite => write!(f, "a value becomes infinite or not a number here"),
            LightFault::Past => write!(f, "keys and values before the span are not the ones the receipt binds"),
            LightFault::Embedding => write!(f, "an embedding does not open the model's digest"),
            LightFault::Incomplete => write!(f, "the opening holds too little or too much for this span"),
            LightFault::Unread => write!(f, "the file of the opening cannot be read to its end"),
            LightFault::Form { what } | LightFault::Finish { what } | LightFault::Receipt { what } => {
                write!(f, "{what}")
            }
        }
    }
}
