//! Why a receipt, or what opens it, is refused.

/// Why bytes are not a receipt or a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// The bytes end inside an item.
    #[error("it ends too early")]
    Truncated,
    /// More bytes follow.
    #[error("{0} bytes follow its end")]
    Trailing(usize),
    /// An item of another kind was expected.
    #[error("an item is not of the expected kind")]
    Kind,
    /// An item of the right kind has a value or length it cannot have.
    #[error("a value is out of range")]
    Range,
    /// An item is not in the one form that is allowed.
    #[error("it is not encoded deterministically")]
    NotDeterministic,
    /// A field that is unknown, repeated or out of order.
    #[error("field {0} is unknown, repeated or out of order")]
    Field(u64),
    /// A field that must be there.
    #[error("field {0} is missing")]
    Missing(u64),
}

/// How the content of a bundle differs from what its receipt binds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Mismatch {
    /// Hash of the prompt.
    #[error("the prompt is not the one the receipt binds")]
    Prompt,
    /// Hash of the settings.
    #[error("the settings are not the ones the receipt binds")]
    Settings,
    /// Hash of the output.
    #[error("the answer is not the one the receipt binds")]
    Output,
    /// Number of tokens of the prompt.
    #[error("the receipt counts {claimed} prompt tokens, the prompt has {opened}")]
    PromptTokens {
        /// By the receipt.
        claimed: u64,
        /// In the opening.
        opened: u64,
    },
    /// Number of tokens of the output.
    #[error("the receipt counts {claimed} answer tokens, the answer has {opened}")]
    OutputTokens {
        /// By the receipt.
        claimed: u64,
        /// In the opening.
        opened: u64,
    },
    /// How the seed came about: a numbered seed without its secret, or a client's seed with one.
    #[error("the receipt and what opens it disagree on who chose the seed")]
    SeedOrigin,
    /// The seed does not come from the nonce, the secret and the request.
    #[error("the seed is not the one that nonce, secret and request give")]
    SeedDerivation,
    /// The seed.
    #[error("the receipt names seed {claimed}, the settings have {opened}")]
    Seed {
        /// By the receipt.
        claimed: u64,
        /// In the opening.
        opened: u64,
    },
    /// Number of leaves: one per token but the last.
    #[error("{needed} positions were computed, the trace has {opened} leaves")]
    Leaves {
        /// Tokens but the last.
        needed: u64,
        /// In the opening.
        opened: u64,
    },
    /// Root of the trace.
    #[error("the trace's leaves are not the ones the receipt binds")]
    Trace,
}

/// Why a receipt or a bundle is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReceiptError {
    /// More bytes than a receipt can have.
    #[error("a receipt has at most {max} bytes, this has {0}", max = crate::RECEIPT_BYTES_MAX)]
    TooLarge(usize),
    /// More bytes than an entry of a log can have.
    #[error("an entry has at most {max} bytes, this has {0}", max = crate::ENTRY_BYTES_MAX)]
    EntryTooLarge(usize),
    /// Not the bytes of a receipt or a bundle.
    #[error("this is not well formed: {0}")]
    Malformed(#[from] Malformed),
    /// A format this program does not know.
    #[error("format version {0} is unknown: this program reads version {known}, a newer one may read it", known = crate::VERSION)]
    Version(u64),
    /// The signature is not the node's over this content.
    #[error("the signature is not valid: the receipt was altered, or was not made by the node it names")]
    Signature,
    /// Two fields of a statement contradict each other.
    #[error("it contradicts itself: {0}")]
    Contradiction(&'static str),
    /// The opening is not what the receipt binds.
    #[error("the bundle does not open its receipt: {0}")]
    Opening(#[from] Mismatch),
}
