//! How the ledger is.

use std::sync::{Arc, Mutex, PoisonError};

/// How the ledger is, as of now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Health {
    /// Why the database is away; none if it is there.
    pub away: Option<Arc<str>>,
    /// Settlements and releases that wait in a file for the database.
    pub waiting: usize,
    /// Such that the rules refused in the end: they are in the file beside, for people to look at.
    pub set_aside: usize,
    /// Why the books are not sound; none if they are. Payouts have stopped, serving goes on.
    pub violation: Option<String>,
    /// Number of the transaction up to which the books were checked last.
    pub checked: i64,
    /// When that was, in microseconds since 1970; 0 is never.
    pub checked_at: i64,
}

/// What this process knows by itself.
#[derive(Default)]
pub(crate) struct Status(Mutex<Local>);

#[derive(Clone, Default)]
pub(crate) struct Local {
    pub(crate) away: Option<Arc<str>>,
    pub(crate) waiting: usize,
    pub(crate) set_aside: usize,
}

impl Status {
    pub(crate) fn get(&self) -> Local {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Local)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
