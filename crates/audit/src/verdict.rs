//! What a replay found.

use receipt::{Hash, Mismatch};
use serde::{Serialize, Serializer};
use std::fmt;

/// Outcome of a replay.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// Every position and every token is as claimed.
    Equal {
        /// Positions replayed.
        positions: usize,
        /// Time it took.
        seconds: f64,
    },
    /// Something is not as claimed.
    Differs {
        /// The first position that differs, counted from 0 over prompt and answer; none if it is not about one.
        position: Option<usize>,
        /// The same, counted from 0 over the answer, if it is there.
        answer_token: Option<usize>,
        /// What differs.
        what: Difference,
    },
}

/// What is not as a receipt claims.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Difference {
    /// The content of the bundle is not what its receipt binds.
    Opening {
        /// Which part.
        #[serde(serialize_with = "as_text")]
        what: Mismatch,
    },
    /// Version of the arithmetic.
    Arithmetic {
        /// By the receipt.
        claimed: u32,
        /// This program's.
        loaded: u32,
    },
    /// Base model.
    Base {
        /// By the receipt.
        claimed: Digest,
        /// Of the model that is loaded.
        loaded: Digest,
    },
    /// Activation mode.
    Activations {
        /// By the receipt.
        claimed: &'static str,
        /// Of the model that is loaded.
        loaded: &'static str,
    },
    /// Adapter; none is the base alone.
    Adapter {
        /// By the receipt.
        claimed: Option<Digest>,
        /// The one that is loaded.
        loaded: Option<Digest>,
    },
    /// Tokenizer.
    Tokenizer {
        /// By the receipt.
        claimed: Digest,
        /// The one that is loaded.
        loaded: Digest,
    },
    /// Chat template.
    Template {
        /// By the receipt.
        claimed: Digest,
        /// The one that is loaded, if there is one.
        loaded: Option<Digest>,
    },
    /// A token that the form of the answer does not allow where it stands.
    Form {
        /// By the receipt.
        claimed: u32,
    },
    /// How the answer ended.
    Finish {
        /// What is wrong with it.
        #[serde(flatten)]
        fault: FinishFault,
    },
    /// Keys, values or the final hidden state of a position.
    Trace,
    /// A token of the answer.
    Token {
        /// By the receipt.
        claimed: u32,
        /// By replay.
        drawn: u32,
    },
    /// A value became infinite or not a number: there is no answer to claim.
    NotFinite,
}

/// Why an answer cannot have ended as its receipt says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, thiserror::Error)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum FinishFault {
    /// More tokens than asked for.
    #[error("the answer has {tokens} tokens, but at most {tokens_max} were asked for")]
    Long {
        /// Of the answer.
        tokens: u64,
        /// Asked for.
        tokens_max: u64,
    },
    /// Said to have reached its length.
    #[error("the receipt says the answer reached its length of {tokens_max} tokens, but it has {tokens}")]
    Short {
        /// Of the answer.
        tokens: u64,
        /// Asked for.
        tokens_max: u64,
    },
    /// Said to have stopped.
    #[error("the receipt says the answer stopped, but it ends with no stop token, stop string or complete form")]
    NoStop,
    /// A stop string that did not end the answer, or did and is not said to have.
    #[error("a stop string is complete here: the answer must end and say that it stopped")]
    StringIgnored,
    /// A form that nothing can follow.
    #[error("the answer's form is complete here: the answer must end and say that it stopped")]
    FormIgnored,
    /// A stop token that did not end the answer, or did and is not said to have.
    #[error("token {token} is a stop token: the answer must end with it and say that it stopped")]
    StopIgnored {
        /// Its id.
        token: u32,
    },
}

/// A digest, shown as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest(pub Hash);

impl Verdict {
    /// Whether all is as claimed.
    pub fn is_equal(&self) -> bool {
        matches!(self, Verdict::Equal { .. })
    }

    /// A difference that is not about one position.
    pub(crate) fn of(what: Difference) -> Verdict {
        Verdict::Differs { position: None, answer_token: None, what }
    }

    /// A difference at a position, after a prompt of so many tokens.
    pub(crate) fn at(position: usize, prompt: usize, what: Difference) -> Verdict {
        Verdict::Differs { position: Some(position), answer_token: position.checked_sub(prompt), what }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Equal { positions, seconds } => {
                write!(f, "equal: all {positions} positions, replayed in {seconds:.1} s")
            }
            Verdict::Differs { position: Some(position), answer_token: Some(token), what } => {
                write!(f, "differs at position {position} (answer token {token}, both counted from 0): {what}")
            }
            Verdict::Differs { position: Some(position), what, .. } => {
                write!(f, "differs at position {position} (in the prompt, counted from 0): {what}")
            }
            Verdict::Differs { what, .. } => write!(f, "differs: {what}"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::Opening { what } => write!(f, "{what}"),
            Difference::Arithmetic { claimed, loaded } => {
                write!(f, "the receipt claims arithmetic version {claimed}, this program computes version {loaded}")
            }
            Difference::Base { claimed, loaded } => write!(f, "the receipt claims base {claimed}, this is {loaded}"),
            Difference::Activations { claimed, loaded } => {
                write!(f, "the receipt claims activations {claimed}, this model is loaded with {loaded}")
            }
            Difference::Adapter { claimed: Some(claimed), loaded: Some(loaded) } => {
                write!(f, "the receipt claims adapter {claimed}, this is {loaded}")
            }
            Difference::Adapter { claimed: Some(claimed), .. } => {
                write!(f, "the receipt claims adapter {claimed}, none is loaded")
            }
            Difference::Adapter { loaded: Some(loaded), .. } => {
                write!(f, "the receipt claims the base without an adapter, adapter {loaded} is loaded")
            }
            Difference::Adapter { .. } => write!(f, "the receipt claims no adapter, none is loaded"),
            Difference::Tokenizer { claimed, loaded } => {
                write!(f, "the receipt claims tokenizer {claimed}, this is {loaded}")
            }
            Difference::Template { claimed, loaded: Some(loaded) } => {
                write!(f, "the receipt claims chat template {claimed}, this is {loaded}")
            }
            Difference::Template { claimed, loaded: None } => {
                write!(f, "the receipt claims chat template {claimed}, none is loaded")
            }
            Difference::Form { claimed } => {
                write!(f, "the receipt claims token {claimed}, which the form asked for does not allow here")
            }
            Difference::Finish { fault } => write!(f, "{fault}"),
            Difference::Trace => write!(f, "keys, values or hidden state are not the ones the receipt binds"),
            Difference::Token { claimed, drawn } => {
                write!(f, "the receipt claims token {claimed}, replay draws token {drawn}")
            }
            Difference::NotFinite => {
                write!(f, "a value becomes infinite or not a number here, so that there is no answer to claim")
            }
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn as_text<S: Serializer>(mismatch: &Mismatch, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(mismatch)
}
