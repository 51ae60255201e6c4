//! What is asked of the engine, and what comes back.

use cpu::Hash;
use exact::sample::Sampling;
use model::Adapter;
use std::sync::Arc;

/// One completion to generate.
#[derive(Clone)]
pub struct Request {
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// Added to the base; none is the base alone.
    pub adapter: Option<Arc<Adapter>>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The most tokens to generate, at least one.
    pub tokens_max: usize,
    /// Drawing one of these ends the answer.
    pub stop_tokens: Vec<u32>,
    /// The answer ends before the first of these in its text.
    pub stop_strings: Vec<String>,
}

/// Why an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// A stop token was drawn or a stop string appeared.
    Stop,
    /// `tokens_max` was reached.
    Length,
}

/// What the receiver of a request sees, in order: texts, then one `Done` or `Failed`.
#[derive(Clone, Debug)]
pub enum Event {
    /// More of the answer's text; never empty.
    Text(String),
    /// The answer is complete.
    Done(Completion),
    /// The answer cannot be completed.
    Failed(Failure),
}

/// Everything about a complete answer.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Token ids drawn, the stop token included.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// The trace's leaf of every position that was computed: all of the prompt, and the answer but for its last token.
    pub leaves: Vec<Hash>,
}

/// Why an admitted request ended without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// See [`exact::NotFinite`].
    #[error(
        "a value became infinite or not a number while computing this answer; the model or adapter is damaged, or was \
         made for higher precision"
    )]
    NotFinite,
    /// The engine is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// Why a request was not admitted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// The prompt has no tokens.
    #[error("the prompt is empty: send at least one token")]
    EmptyPrompt,
    /// A token id is not in the vocabulary.
    #[error("token id {0} is not in the vocabulary of {1} tokens")]
    UnknownToken(u32, usize),
    /// Prompt and answer are longer than the context.
    #[error(
        "the prompt has {prompt} tokens and the answer may have {answer}, but the context holds {context}: shorten the \
         prompt or ask for fewer tokens"
    )]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for.
        answer: usize,
        /// Positions there are.
        context: usize,
    },
    /// No tokens are asked for.
    #[error("at least one token must be asked for")]
    NoTokens,
    /// The queue is full.
    #[error("the queue is full: try again in a moment")]
    Busy,
    /// The engine has stopped.
    #[error("the server is shutting down")]
    ShuttingDown,
}
