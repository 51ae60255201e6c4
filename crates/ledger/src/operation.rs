//! What can be asked of the ledger. Each operation has an id that its sender chooses, and happens once.

use crate::account::AccountId;
use crate::money::Micros;
use crate::price::Usage;
use crate::split::Split;
use serde::{Deserialize, Serialize};

/// Microseconds since 1970.
pub type Time = i64;

/// Keeps the most that a request can cost away from other uses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hold {
    /// Of the request; its settlement or release names it.
    pub id: String,
    /// Who pays: a `customer:` account.
    pub customer: AccountId,
    /// The worst case.
    pub amount: Micros,
    /// When the money is free again if nobody settles.
    pub expires_at: Time,
}

/// What came of a request. Only paid ones move money.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Answered and charged.
    Paid,
    /// Answered without a charge.
    Free,
    /// Not answered, or not wholly, by the server's fault.
    Failed,
    /// Answered too late to be charged.
    Late,
}

impl Outcome {
    /// All, in the order of their codes.
    pub const ALL: [Outcome; 4] = [Outcome::Paid, Outcome::Free, Outcome::Failed, Outcome::Late];

    /// Its number in the database.
    pub(crate) fn code(self) -> i64 {
        match self {
            Outcome::Paid => 1,
            Outcome::Free => 2,
            Outcome::Failed => 3,
            Outcome::Late => 4,
        }
    }

    /// The outcome with this number.
    pub(crate) fn of(code: i64) -> Option<Outcome> {
        Outcome::ALL.into_iter().find(|outcome| outcome.code() == code)
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Paid => "paid",
            Outcome::Free => "free",
            Outcome::Failed => "failed",
            Outcome::Late => "late",
        }
    }
}

/// Ends a hold with what the request cost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Settlement {
    /// The hold's id.
    pub hold: String,
    /// What the request costs by the price list, at most what was held. Moved only if `outcome` is paid.
    pub amount: Micros,
    /// The node that computed the answer: an `operator:` account.
    pub operator: AccountId,
    /// Who earns what.
    pub split: Split,
    /// Tokens, as the gateway counted them.
    pub usage: Usage,
    /// The name that was asked for.
    pub model: String,
    /// Version of the price list; 0 is none.
    pub price: u32,
    /// Id of the receipt, if there is one.
    pub receipt: Option<String>,
    /// What came of it.
    pub outcome: Outcome,
    /// Milliseconds to the first token.
    pub first_token_ms: Option<u32>,
    /// Milliseconds to the end.
    pub total_ms: u32,
    /// Whether it took longer than the model's target.
    pub late: bool,
}

/// An operation. Everything but a hold and its end is a [`Order`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// See [`Hold`].
    Hold(Hold),
    /// See [`Settlement`].
    Settle(Settlement),
    /// Ends a hold at no cost.
    Release {
        /// The hold's id.
        hold: String,
    },
    /// Frees the money of a hold whose time is over; it may still be settled.
    Expire {
        /// The hold's id.
        hold: String,
    },
    /// Everything else.
    Order(Order),
}

/// An operation on accounts, not on requests.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Chosen by whoever orders it.
    pub id: String,
    /// What is to be done.
    pub what: What,
    /// For people; may be empty.
    pub note: String,
}

/// What an [`Order`] is to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Opens an account, or gives it another floor: the least balance it may have. Negative is credit.
    Open {
        /// The account.
        account: AccountId,
        /// Its floor.
        floor: Micros,
    },
    /// Money comes from outside.
    Deposit {
        /// Who has it now; opened if need be.
        account: AccountId,
        /// How much.
        amount: Micros,
    },
    /// Money goes outside: of earnings only what is older than the audit window, and nothing while the books are not sound.
    Payout {
        /// Whose it was.
        account: AccountId,
        /// How much.
        amount: Micros,
    },
    /// An operator puts money at risk.
    Stake {
        /// The node.
        node: String,
        /// How much.
        amount: Micros,
    },
    /// An operator takes money out of its stake; like an earning it can be paid out after the audit window.
    Unstake {
        /// The node.
        node: String,
        /// How much.
        amount: Micros,
    },
    /// A node that cheated pays to the insurance: from its stake, and what that lacks from its operator's account.
    Slash {
        /// The node.
        node: String,
        /// How much.
        amount: Micros,
    },
    /// Undoes a slash, once.
    Appeal {
        /// The slash's id.
        slash: String,
    },
    /// Gives a settled request's money back, from those who earned it; they may owe then.
    Refund {
        /// The settlement's id, which is its hold's.
        settlement: String,
        /// How much; with earlier refunds not more than was settled.
        amount: Micros,
    },
}

/// What a transaction was.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(missing_docs, reason = "the operations of the same names")]
pub enum Kind {
    Open,
    Deposit,
    Settle,
    Release,
    Payout,
    Stake,
    Unstake,
    Slash,
    Appeal,
    Refund,
}

impl Kind {
    const ALL: [Kind; 10] = [
        Kind::Open,
        Kind::Deposit,
        Kind::Settle,
        Kind::Release,
        Kind::Payout,
        Kind::Stake,
        Kind::Unstake,
        Kind::Slash,
        Kind::Appeal,
        Kind::Refund,
    ];

    /// Its number in the database.
    pub(crate) fn code(self) -> i64 {
        1 + Kind::ALL.iter().position(|kind| *kind == self).unwrap_or_default() as i64
    }

    /// The kind with this number.
    pub(crate) fn of(code: i64) -> Option<Kind> {
        Kind::ALL.get(usize::try_from(code.checked_sub(1)?).ok()?).copied()
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Open => "open",
            Kind::Deposit => "deposit",
            Kind::Settle => "settle",
            Kind::Release => "release",
            Kind::Payout => "payout",
            Kind::Stake => "stake",
            Kind::Unstake => "unstake",
            Kind::Slash => "slash",
            Kind::Appeal => "appeal",
            Kind::Refund => "refund",
        }
    }
}

impl Operation {
    /// The id that makes it happen once.
    pub fn id(&self) -> &str {
        match self {
            Operation::Hold(hold) => &hold.id,
            Operation::Settle(settlement) => &settlement.hold,
            Operation::Release { hold } | Operation::Expire { hold } => hold,
            Operation::Order(order) => &order.id,
        }
    }

    /// The first 8 bytes of the BLAKE3 of its content: tells a repetition from another operation with the same id.
    pub(crate) fn digest(&self) -> i64 {
        // Strings, integers and maps with text keys: this cannot fail.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        let hash = blake3::hash(&bytes);
        hash.as_bytes().first_chunk().map_or(0, |first| i64::from_le_bytes(*first))
    }

    /// Whether it must not be lost once it was accepted, because the work is done: it is kept in a file while the database is
    /// away.
    pub(crate) fn is_owed(&self) -> bool {
        matches!(self, Operation::Settle(_) | Operation::Release { .. })
    }
}

/// What came of an operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// The operation's id.
    pub id: String,
    /// The transaction's number; holds have none, nor has what is queued.
    pub number: Option<i64>,
    /// The money that was held or moved.
    pub amount: Micros,
    /// Whether this had been done before, and nothing was done now.
    pub repeated: bool,
    /// Whether the database is away and this is kept in a file until it is back.
    pub queued: bool,
}
