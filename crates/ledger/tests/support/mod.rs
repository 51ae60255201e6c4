//! A place for books of a test: a folder, and where it is wanted a PostgreSQL of its own.

#![allow(dead_code, clippy::allow_attributes, reason = "each test uses a part of it")]
#![expect(clippy::unwrap_used, reason = "tests")]

pub(crate) mod postgres;

use ledger::{AccountId, Clock, Config, Database, Hold, Ledger, Micros, Outcome, Settlement, Split, Time, Usage};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// An hour, in microseconds.
pub(crate) const HOUR: Time = 3_600_000_000;
/// When the clocks of tests begin.
pub(crate) const BEGIN: Time = 1_790_000_000_000_000;

/// A database and a folder beside it.
pub(crate) struct Place {
    pub(crate) database: Database,
    pub(crate) folder: PathBuf,
    /// What the tests' clock shows.
    pub(crate) time: Arc<AtomicI64>,
}

impl Place {
    pub(crate) fn new(database: Database, folder: &Path) -> Place {
        Place { database, folder: folder.to_owned(), time: Arc::new(AtomicI64::new(BEGIN)) }
    }

    pub(crate) fn config(&self) -> Config {
        let time = self.time.clone();
        Config {
            clock: Clock::new(move || time.load(Ordering::SeqCst)),
            check_every: None,
            durability: ledger::Durability::Process,
            audit_window: Duration::from_secs(48 * 3600),
            wait: Duration::from_secs(120),
            ..Config::new(self.database.clone(), self.folder.join("spool"))
        }
    }

    pub(crate) async fn open(&self) -> Ledger {
        open(self.config()).await
    }

    pub(crate) fn pass(&self, time: Time) {
        self.time.fetch_add(time, Ordering::SeqCst);
    }
}

/// Opens a ledger once nobody has its spool: a process that another test is starting may have a copy of the lock for a
/// moment.
pub(crate) async fn open(config: Config) -> Ledger {
    let begun = Instant::now();
    loop {
        match Ledger::open(config.clone()).await {
            Err(error)
                if begun.elapsed() < Duration::from_secs(60)
                    && error.to_string().contains("is used by another process") => {}
            opened => return opened.unwrap(),
        }
    }
}

pub(crate) fn ada() -> AccountId {
    AccountId::customer("ada").unwrap()
}

pub(crate) fn account(name: &str) -> AccountId {
    name.parse().unwrap()
}

pub(crate) fn hold(id: &str, amount: i64) -> Hold {
    Hold { id: id.to_owned(), customer: ada(), amount: Micros(amount), expires_at: BEGIN + HOUR }
}

pub(crate) fn settlement(id: &str, amount: i64) -> Settlement {
    Settlement {
        hold: id.to_owned(),
        amount: Micros(amount),
        operator: AccountId::operator("n1").unwrap(),
        split: "operator=700000,author:bo=200000,network=60000,insurance=40000".parse::<Split>().unwrap(),
        usage: Usage { prompt: 100, cached: 40, output: 20, accepted: 5 },
        model: "sql".to_owned(),
        price: 1,
        receipt: Some("rcpt-00".to_owned()),
        outcome: Outcome::Paid,
        first_token_ms: Some(12),
        total_ms: 90,
        late: false,
    }
}

/// Balance, held and available of an account; all zero if there is none.
pub(crate) async fn state(ledger: &Ledger, account: &AccountId) -> (i64, i64, i64) {
    let balance = ledger.balance(account).await.unwrap();
    balance.map_or((0, 0, 0), |balance| (balance.balance.0, balance.held.0, balance.available().0))
}

/// The sum of all balances, and of all that is held.
pub(crate) async fn sums(ledger: &Ledger) -> (i64, i64) {
    let accounts = ledger.accounts(None, None, 1000).await.unwrap();
    assert!(accounts.len() < 1000);
    accounts.iter().fold((0, 0), |(sum, held), account| (sum + account.balance.0, held + account.held.0))
}
