//! Why an operation was not done.

use crate::account::{AccountError, AccountId};
use crate::money::Micros;
use crate::price::PriceError;
use crate::split::SplitError;
use crate::statement::StatementError;
use std::sync::Arc;

/// Why the ledger could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The rules say no; asking again gives the same answer until something changes.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The database does not answer. Nothing was done, or nobody knows: ask again with the same id.
    #[error("the ledger's database is away ({0}); try again with the same id")]
    Away(Arc<str>),
    /// Too much to do, or the database is slow. Nobody knows whether it was done: ask again with the same id.
    #[error("the ledger did not answer within {0} ms; try again with the same id")]
    Slow(u64),
    /// Neither database nor the file that stands in for it can take it.
    #[error("the database is away, and {0}")]
    Spool(Arc<str>),
    /// The database holds what it must not.
    #[error("the ledger's database is not as it should be: {0}")]
    Damaged(Arc<str>),
    /// What the ledger was opened with cannot be used.
    #[error("{0}")]
    Config(Arc<str>),
    /// The ledger was closed.
    #[error("the ledger is closed")]
    Closed,
}

/// Why the rules refuse an operation.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Not enough money.
    #[error("{account} has {available} available, {wanted} are needed")]
    Funds {
        /// Whose.
        account: AccountId,
        /// What it could spend.
        available: Micros,
        /// What it would take.
        wanted: Micros,
    },
    /// Earned, but not yet payable.
    #[error(
        "{account} can be paid {payable} now; the rest of what was asked, {wanted}, waits for the audit window to pass"
    )]
    Immature {
        /// Whose.
        account: AccountId,
        /// What can be paid now.
        payable: Micros,
        /// What was asked.
        wanted: Micros,
    },
    /// The books are not sound.
    #[error("payouts have stopped, because the books are not sound: {0}; run `lockstep ledger check`")]
    Unsound(String),
    /// The id belongs to something else.
    #[error("{0} is the id of another operation: choose a new one")]
    OtherContent(String),
    /// The hold has ended.
    #[error("the hold {id} was {how}")]
    Ended {
        /// The hold.
        id: String,
        /// How: `settled`, `released`, `expired`.
        how: &'static str,
    },
    /// There is no such hold.
    #[error("there is no hold {0}")]
    NoHold(String),
    /// There is no such account.
    #[error("there is no account {0}: open it or deposit into it first")]
    NoAccount(AccountId),
    /// There is no such transaction.
    #[error("there is no {kind} with the id {id}")]
    NoTransaction {
        /// What it would have been.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// It costs more than was held.
    #[error("{amount} is more than the {held} that {id} holds")]
    AboveHold {
        /// The hold.
        id: String,
        /// What was held.
        held: Micros,
        /// What it should cost.
        amount: Micros,
    },
    /// More was to be undone than is left.
    #[error("of {id} {left} can still be undone, not {wanted}")]
    AboveRest {
        /// The transaction.
        id: String,
        /// What is left of it.
        left: Micros,
        /// What was asked.
        wanted: Micros,
    },
    /// An amount that is negative or beyond all sense.
    #[error("an amount is from 0 to {max}, not {0}", max = Micros::MAX)]
    Amount(Micros),
    /// A balance would leave the numbers that are counted with.
    #[error("the balance of {0} would be beyond {max}", max = Micros::BALANCE_MAX)]
    Balance(AccountId),
    /// An account of the wrong kind.
    #[error("{account} cannot do this: it takes {wanted}")]
    Kind {
        /// Which.
        account: AccountId,
        /// What it should be.
        wanted: &'static str,
    },
    /// An id or text that cannot be.
    #[error("{what} has 1 to {max} bytes and no spaces or control characters, not {text:?}")]
    Text {
        /// Which.
        what: &'static str,
        /// The most bytes.
        max: usize,
        /// What it is.
        text: String,
    },
    /// A hold that is over before it begins.
    #[error("the hold {0} would have expired already: check the clock")]
    Expired(String),
    /// An account's floor that it would be below.
    #[error("{account} has {balance}, of which {held} are held: its floor cannot be {floor}")]
    Floor {
        /// Whose.
        account: AccountId,
        /// Its balance.
        balance: Micros,
        /// What of it is held.
        held: Micros,
        /// The floor that was asked for.
        floor: Micros,
    },
    /// Counts that cannot be.
    #[error("{0} tokens are more than can be counted")]
    Tokens(u64),
    /// The list of this version has other prices.
    #[error("the prices of version {0} are published and other than these: give the new list a new version")]
    OtherPrices(u32),
    /// The ledger asked its database for too little. A defect.
    #[error("the ledger did not read {0}; please report this")]
    Unread(String),
}

impl LedgerError {
    /// Whether the rules said no, so that trying again is of no use by itself.
    pub fn is_refused(&self) -> bool {
        matches!(self, LedgerError::Refused(_))
    }
}

macro_rules! config {
    ($($error:ty),*) => {
        $(impl From<$error> for LedgerError {
            fn from(error: $error) -> Self {
                LedgerError::Config(error.to_string().into())
            }
        })*
    };
}
config!(AccountError, SplitError, PriceError, StatementError, std::io::Error);
