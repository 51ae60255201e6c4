//! Why an answer could not be replayed at all.

use receipt::ReceiptError;

/// Why there is no verdict. All but [`AuditError::Adapter`], [`AuditError::Withheld`], [`AuditError::Device`] and
/// [`AuditError::Threads`] are faults of the bundle.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The receipt is malformed or its signature is not valid.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The prompt has no tokens.
    #[error("the prompt is empty: an answer needs at least one token before it")]
    EmptyPrompt,
    /// The answer has no tokens.
    #[error("the answer is empty: there is nothing to replay")]
    EmptyAnswer,
    /// A token id is not in the vocabulary.
    #[error("position {position} holds token {token}, but the vocabulary has {vocabulary} tokens")]
    UnknownToken {
        /// Counted from 0 over prompt and answer.
        position: usize,
        /// The id.
        token: u32,
        /// Ids are below this.
        vocabulary: usize,
    },
    /// Prompt and answer are longer than the model's context.
    #[error("prompt and answer have {tokens} tokens, but the model's context holds {context}")]
    TooLong {
        /// Of prompt and answer.
        tokens: usize,
        /// The most there may be.
        context: usize,
    },
    /// The sampler is not defined for such settings.
    #[error("the settings are not valid: {0}")]
    Settings(&'static str),
    /// The answer was held to a form, which only the tokenizer tells.
    #[error("the answer was held to a form: load the tokenizer to replay it")]
    NoTokenizer,
    /// The answer was held to a form by another engine.
    #[error(
        "the answer was held to its form by {claimed:?}, this program has {:?}: use the version with that one",
        grammar::ENGINE
    )]
    Engine {
        /// By the receipt.
        claimed: String,
    },
    /// The form cannot be followed.
    #[error("the form of the answer cannot be followed: {0}")]
    Form(String),
    /// The adapter has the digest that was claimed but is not for this base.
    #[error("the adapter does not fit this base: load the one made for it")]
    Adapter,
    /// The node owes the opening and did not give it.
    #[error("the node did not produce what opens the receipt: {0}")]
    Withheld(String),
    /// The device that was to compute could not: nothing is said about the answer.
    #[error("{0}")]
    Device(String),
    /// Threads could not be started.
    #[error("cannot start threads: {0}; try fewer")]
    Threads(#[from] std::io::Error),
}
