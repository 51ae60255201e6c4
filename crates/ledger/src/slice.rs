//! The part of the books that a group of operations touches, in memory, and what they changed.

use crate::account::AccountId;
use crate::error::Refusal;
use crate::money::Micros;
use crate::operation::{Kind, Operation, Outcome, Settlement, Time, What};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Microseconds in an hour, the grain of maturing and reports.
pub(crate) const HOUR: Time = 3_600_000_000;

/// One account.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Account {
    pub(crate) balance: Micros,
    /// Of the balance, what holds keep.
    pub(crate) held: Micros,
    /// The least balance it may have.
    pub(crate) floor: Micros,
    /// How far rules that may have let it go below its floor.
    pub(crate) owed: Micros,
    pub(crate) opened_at: Time,
}

impl Account {
    /// What it may still spend; negative if it owes.
    pub(crate) fn available(&self) -> Micros {
        // All three are within the bound of balances, whose sum 64 bits hold.
        Micros(self.balance.0 - self.held.0 - self.floor.0)
    }
}

/// A hold that has not ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct OpenHold {
    pub(crate) customer: AccountId,
    pub(crate) amount: Micros,
    pub(crate) opened_at: Time,
    pub(crate) expires_at: Time,
    pub(crate) digest: i64,
    /// Its money is free again, but it may still be settled.
    pub(crate) expired: bool,
}

/// A transaction, as far as later ones need it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Known {
    pub(crate) number: i64,
    pub(crate) kind: Kind,
    pub(crate) digest: i64,
    pub(crate) hold_digest: Option<i64>,
    pub(crate) time: Time,
    pub(crate) account: Option<AccountId>,
    pub(crate) amount: Micros,
    /// Of the amount, what refunds or an appeal undid.
    pub(crate) undone: Micros,
    pub(crate) outcome: Option<Outcome>,
}

/// A transaction to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Transaction {
    pub(crate) id: String,
    pub(crate) known: Known,
    pub(crate) reference: Option<String>,
    pub(crate) note: String,
    /// What was held, of a settlement.
    pub(crate) held: Micros,
    pub(crate) settlement: Option<Settlement>,
}

/// What an account earned by settlements in one hour.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Flow {
    pub(crate) earned: i64,
    /// Earnings of that hour that were refunded later.
    pub(crate) refunded: i64,
    pub(crate) requests: i64,
}

/// Sums over the settlements of an hour.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Traffic {
    pub(crate) requests: i64,
    pub(crate) prompt: i64,
    pub(crate) cached: i64,
    pub(crate) output: i64,
    pub(crate) accepted: i64,
    pub(crate) amount: i64,
}

/// Hour, model, code of the outcome, whether late.
pub(crate) type TrafficKey = (Time, String, i64, bool);

/// What operations need to be read before the rules can be applied.
#[derive(Default, Debug)]
pub(crate) struct Needs {
    /// Ids of operations, and of transactions that are to be undone.
    pub(crate) ids: BTreeSet<String>,
    /// Transactions whose postings are needed.
    pub(crate) undone: BTreeSet<String>,
    pub(crate) accounts: BTreeSet<AccountId>,
    /// Accounts whose earnings within the audit window are needed.
    pub(crate) earners: BTreeSet<AccountId>,
}

impl Needs {
    /// Adds what one operation needs. Accounts of holds and of postings come when these are read.
    pub(crate) fn add(&mut self, operation: &Operation) {
        self.ids.insert(operation.id().to_owned());
        match operation {
            Operation::Hold(hold) => {
                self.accounts.insert(hold.customer.clone());
            }
            Operation::Settle(settlement) => {
                let parts = settlement.split.apportion(Micros::ZERO, &settlement.operator);
                self.accounts.extend(parts.into_iter().map(|(account, _)| account));
            }
            Operation::Release { .. } | Operation::Expire { .. } => {}
            Operation::Order(order) => self.add_order(&order.what),
        }
    }

    fn add_order(&mut self, what: &What) {
        let node = |node: &str| AccountId::operator(node).into_iter().chain(AccountId::stake(node));
        match what {
            What::Open { account, .. } => {
                self.accounts.insert(account.clone());
            }
            What::Deposit { account, .. } => self.accounts.extend([account.clone(), AccountId::outside()]),
            What::Payout { account, .. } => {
                self.accounts.extend([account.clone(), AccountId::outside()]);
                self.earners.insert(account.clone());
            }
            What::Stake { node: name, .. } | What::Unstake { node: name, .. } => self.accounts.extend(node(name)),
            What::Slash { node: name, .. } => self.accounts.extend(node(name).chain([AccountId::insurance()])),
            What::Appeal { slash: id } | What::Refund { settlement: id, .. } => {
                self.ids.insert(id.clone());
                self.undone.insert(id.clone());
            }
        }
    }
}

/// The part of the books that was read, as it is after the operations applied so far.
#[derive(Default, Debug)]
pub(crate) struct Slice {
    /// None: read, and not there.
    pub(crate) accounts: BTreeMap<AccountId, Option<Account>>,
    pub(crate) holds: HashMap<String, OpenHold>,
    pub(crate) known: HashMap<String, Known>,
    /// By number of the transaction.
    pub(crate) postings: HashMap<i64, Vec<(AccountId, Micros)>>,
    /// Earned within the audit window and not refunded.
    pub(crate) immature: HashMap<AccountId, Micros>,
    /// Number of the next transaction.
    pub(crate) next: i64,
    /// Why the books are not sound.
    pub(crate) violation: Option<String>,
    pub(crate) changes: Changes,
}

/// What is to be written.
#[derive(Default, Debug)]
pub(crate) struct Changes {
    pub(crate) accounts: BTreeSet<AccountId>,
    pub(crate) new_holds: BTreeSet<String>,
    pub(crate) expired_holds: BTreeSet<String>,
    pub(crate) ended_holds: BTreeSet<String>,
    pub(crate) transactions: Vec<Transaction>,
    /// Number of the transaction, line in it, account, amount.
    pub(crate) postings: Vec<(i64, i64, AccountId, Micros)>,
    pub(crate) flows: BTreeMap<(AccountId, Time), Flow>,
    pub(crate) traffic: BTreeMap<TrafficKey, Traffic>,
    /// What is undone now of earlier transactions, by number.
    pub(crate) undone: BTreeMap<i64, Micros>,
}

impl Slice {
    /// An account as it is; none if there is none.
    pub(crate) fn account(&self, id: &AccountId) -> Result<Option<Account>, Refusal> {
        self.accounts.get(id).copied().ok_or_else(|| Refusal::Unread(id.to_string()))
    }

    /// An account as it is, or a new one.
    pub(crate) fn account_or_new(&self, id: &AccountId, now: Time) -> Result<Account, Refusal> {
        Ok(self.account(id)?.unwrap_or(Account { opened_at: now, ..Account::default() }))
    }

    pub(crate) fn put(&mut self, id: &AccountId, account: Account) {
        self.accounts.insert(id.clone(), Some(account));
        self.changes.accounts.insert(id.clone());
    }

    /// Takes the hold out of the books.
    pub(crate) fn end_hold(&mut self, id: &str) {
        self.holds.remove(id);
        if !self.changes.new_holds.remove(id) {
            self.changes.ended_holds.insert(id.to_owned());
        }
        self.changes.expired_holds.remove(id);
    }
}

/// The beginning of the hour of a time.
pub(crate) fn hour_of(time: Time) -> Time {
    time - time.rem_euclid(HOUR)
}
