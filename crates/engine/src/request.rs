//! What is asked of the engine, and what comes back.

use crate::adapters::AdapterHandle;
use crate::shaping::Shaping;
use cpu::Hash;
use exact::logprob::Logprobs;
use exact::sample::Sampling;
use std::sync::Arc;
use std::time::Instant;

/// One completion to generate.
#[derive(Clone)]
pub struct Request {
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// Added to the base; none is the base alone.
    pub adapter: Option<Arc<AdapterHandle>>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// The most tokens to generate, at least one.
    pub tokens_max: usize,
    /// Drawing one of these ends the answer.
    pub stop_tokens: Vec<u32>,
    /// The answer ends before the first of these in its text.
    pub stop_strings: Vec<String>,
    /// Penalties, biases, form and what is told about tokens.
    pub shaping: Shaping,
    /// What the answer will probably be: it comes in fewer steps as far as that is right. Changes no bit of it.
    pub prediction: Vec<u32>,
    /// Whose request it is. Tenants share the device alike, and no pages.
    pub tenant: Hash,
    /// Who goes first when not all can.
    pub priority: Priority,
    /// When nobody wants the answer any more.
    pub deadline: Option<Instant>,
    /// What its time is charged as.
    pub purpose: Purpose,
}

impl Request {
    /// The base's likeliest answer of at most `tokens_max` tokens.
    pub fn new(prompt: Vec<u32>, tokens_max: usize) -> Request {
        Request {
            prompt,
            adapter: None,
            sampling: Sampling::GREEDY,
            tokens_max,
            stop_tokens: vec![],
            stop_strings: vec![],
            shaping: Shaping::default(),
            prediction: vec![],
            tenant: [0; 32],
            priority: Priority::Normal,
            deadline: None,
            purpose: Purpose::Serve,
        }
    }
}

/// What an answer is computed for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Purpose {
    /// Somebody wants it.
    #[default]
    Serve,
    /// To see whether it is what was answered before.
    Audit,
}

/// Classes of requests. A class goes before the next, but none waits for ever: see [`crate`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum Priority {
    /// Somebody waits for it.
    High,
    /// The rest.
    #[default]
    Normal,
    /// Whenever there is nothing else to do.
    Low,
}

/// Why an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Finish {
    /// A stop token was drawn or a stop string appeared.
    Stop,
    /// `tokens_max` was reached.
    Length,
}

/// What the receiver of a request sees, in order: tokens and texts, then one `Done` or `Failed`.
#[derive(Clone, Debug)]
pub enum Event {
    /// How likely a token was, if asked for; before the text that it adds.
    Token(u32, Logprobs),
    /// More of the answer's text, never empty; and how many tokens had been drawn by then.
    Text(String, usize),
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
    /// Digest of the adapter it was computed with.
    pub adapter: Option<Hash>,
    /// What it took.
    pub effort: Effort,
    /// When its parts came about.
    pub times: Times,
}

/// When the parts of an answer came about, in this order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Times {
    /// It was queued.
    pub queued: Instant,
    /// It left the queue for the first time.
    pub admitted: Instant,
    /// Its first token was drawn.
    pub first: Instant,
    /// Its last token was drawn.
    pub last: Instant,
}

impl Times {
    /// Of a request that is queued now.
    pub fn now() -> Times {
        let queued = Instant::now();
        Times { queued, admitted: queued, first: queued, last: queued }
    }
}

/// What an answer took beside its tokens.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Tokens of the prompt that were found computed.
    pub cached_tokens: usize,
    /// Tokens guessed ahead that were right.
    pub drafts_accepted: usize,
    /// Tokens guessed ahead that were wrong.
    pub drafts_rejected: usize,
    /// Times it gave way to others and was computed again.
    pub preemptions: usize,
}

/// Why an admitted request ended without an answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// See [`exact::NotFinite`].
    #[error(
        "a value became infinite or not a number while computing this answer; the model or adapter is damaged, or was \
         made for higher precision"
    )]
    NotFinite,
    /// Its adapter cannot be loaded.
    #[error("{0}")]
    Adapter(Arc<str>),
    /// The answer could not be held to its form.
    #[error("{0}")]
    Form(grammar::GrammarError),
    /// It was not complete in time.
    #[error("the answer was not complete when its time was over: ask for fewer tokens or try again later")]
    Deadline,
    /// What was computed twice was not the same: this cannot be, whatever the request.
    #[error("this machine computed two different results for the same tokens: its memory or processor is faulty")]
    Diverged,
    /// There is no room for it even alone. Admission makes sure of the opposite.
    #[error("there is no memory for this answer: ask for fewer tokens")]
    NoRoom,
    /// The device could not compute it: the message says why.
    #[error("{0}")]
    Device(Arc<str>),
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
    /// What is asked for beside the sampler's settings cannot be.
    #[error("{0}")]
    Shaping(&'static str),
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
