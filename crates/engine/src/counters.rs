//! What the engine did: plain sums since it started.

use crate::time::Time;

/// Sums since the engine started.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Counters {
    /// Steps computed.
    pub steps: u64,
    /// Tokens of prompts computed for the first time.
    pub prefill_tokens: u64,
    /// Tokens of prompts that were found computed.
    pub cached_tokens: u64,
    /// Tokens computed again after a pre-emption.
    pub recomputed_tokens: u64,
    /// Tokens drawn.
    pub answer_tokens: u64,
    /// Guesses that were right.
    pub drafts_accepted: u64,
    /// Guesses that were wrong.
    pub drafts_rejected: u64,
    /// Sequences that gave way to others.
    pub preemptions: u64,
    /// Adapters loaded.
    pub adapters_loaded: u64,
    /// Nanoseconds the loading thread worked, beside the device.
    pub loader_nanoseconds: u64,
    /// Where the device's time went.
    pub time: Time,
}

/// Tokens of one sequence in one step, by what they were computed for.
#[derive(Clone, Copy, Default)]
pub(crate) struct StepTokens {
    pub(crate) prefill: u64,
    pub(crate) decode: u64,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    pub(crate) recomputed: u64,
}

impl Counters {
    pub(crate) fn add_tokens(&mut self, tokens: &StepTokens) {
        self.prefill_tokens += tokens.prefill;
        self.recomputed_tokens += tokens.recomputed;
        self.drafts_accepted += tokens.accepted;
        self.drafts_rejected += tokens.rejected;
    }
}
