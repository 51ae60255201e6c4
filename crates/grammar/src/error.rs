//! Why there is no mask.

/// Why there is no mask.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GrammarError {
    /// The tokenizer's tokens are not pieces of the text's bytes.
    #[error("this model's tokenizer does not say which bytes its tokens stand for: answers cannot be held to a form")]
    Tokenizer,
    /// The source cannot be compiled, or not within the limits.
    #[error("{0}")]
    Source(String),
    /// What followed was too much for the limits.
    #[error("the form asked for is too complex to be followed here: {0}; ask for a simpler one")]
    Limits(String),
    /// A token came that may not come.
    #[error("the token does not fit the form asked for: {0}")]
    Token(String),
    /// A mask was not there in time.
    #[error("the form asked for took too long: ask for a simpler one")]
    Late,
}
