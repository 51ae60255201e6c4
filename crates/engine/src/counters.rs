//! What the device's time went into, and what it brought: plain sums since the start.

/// Sums since the engine started. Seconds of a step are divided among its kinds by tokens.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
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
    /// Seconds computing prompts.
    pub prefill_seconds: f64,
    /// Seconds computing answers, right guesses included.
    pub decode_seconds: f64,
    /// Seconds computing wrong guesses.
    pub rejected_seconds: f64,
    /// Seconds computing again what a pre-emption had thrown away.
    pub recompute_seconds: f64,
    /// Seconds the loading thread worked, beside the others.
    pub loading_seconds: f64,
    /// Seconds between steps: choosing, drawing up, waiting for adapters.
    pub other_seconds: f64,
    /// Seconds without anything to do.
    pub idle_seconds: f64,
}

/// Tokens of one step by kind.
#[derive(Clone, Copy, Default)]
pub(crate) struct StepTokens {
    pub(crate) prefill: u64,
    pub(crate) decode: u64,
    pub(crate) rejected: u64,
    pub(crate) recomputed: u64,
}

impl Counters {
    /// Divides the seconds of a step among its kinds.
    pub(crate) fn add_step(&mut self, tokens: StepTokens, seconds: f64) {
        self.steps += 1;
        let all = tokens.prefill + tokens.decode + tokens.rejected + tokens.recomputed;
        let each = seconds / (all.max(1)) as f64;
        self.prefill_seconds += each * tokens.prefill as f64;
        self.decode_seconds += each * tokens.decode as f64;
        self.rejected_seconds += each * tokens.rejected as f64;
        self.recompute_seconds += each * tokens.recomputed as f64;
        self.prefill_tokens += tokens.prefill;
        self.recomputed_tokens += tokens.recomputed;
        self.drafts_rejected += tokens.rejected;
    }
}
