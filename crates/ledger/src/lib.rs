//! Who owes whom: double entry in whole micro-dollars, on one SQLite file or on PostgreSQL.
//!
//! A request's way through the books: a *hold* keeps the most it can cost, a *settlement* moves what it did cost from the
//! customer to those who earned it by the adapter's published *split*, and the rest of the hold is free again. Every
//! operation has an id and happens once, however often it is sent; every transaction adds up to zero.
//!
//! ```
//! use ledger::{AccountId, Config, Database, Hold, Ledger, Micros, Outcome, Settlement, Split, Usage};
//!
//! # let folder = tempfile::tempdir()?;
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! let database = Database::Sqlite(folder.path().join("ledger.sqlite"));
//! let ledger = Ledger::open(Config::new(database, folder.path().join("spool"))).await?;
//! let ada = AccountId::customer("ada")?;
//! ledger.deposit("deposit-1", &ada, "25".parse()?).await?;
//! let (id, amount) = ("request-1".to_owned(), "0.01".parse()?);
//! ledger.hold(Hold { id, customer: ada.clone(), amount, expires_at: ledger.now() + 60_000_000 }).await?;
//! ledger
//!     .settle(Settlement {
//!         hold: "request-1".to_owned(),
//!         amount: "0.004".parse()?,
//!         operator: AccountId::operator("node-a")?,
//!         split: Split::standard(),
//!         usage: Usage { prompt: 900, cached: 0, output: 120, accepted: 0 },
//!         model: "sql".to_owned(),
//!         price: 1,
//!         receipt: None,
//!         outcome: Outcome::Paid,
//!         first_token_ms: Some(40),
//!         total_ms: 900,
//!         late: false,
//!     })
//!     .await?;
//! let left = ledger.balance(&ada).await?.unwrap();
//! assert_eq!(left.available(), Micros(24_996_000));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The rules are pure functions over the few rows that operations touch; the database keeps rows. All that
//! waits when the last group was made durable is the next group: one transaction of the database serves hundreds of
//! requests. `docs/ledger.md` defines accounts, operations and invariants.

mod account;
mod balances;
mod check;
mod clock;
mod database;
mod error;
mod ledger;
mod money;
mod operation;
mod orders;
mod posting;
mod price;
mod publish;
mod query;
mod reader;
mod routine;
mod rows;
mod rules;
mod schema;
mod slice;
mod split;
mod spool;
mod sql;
mod statement;
mod status;
mod store;
mod writer;

pub use account::{AccountError, AccountId, NAME_BYTES_MAX};
pub use check::{Checked, Extent};
pub use clock::Clock;
pub use database::{Database, Durability};
pub use error::{LedgerError, Refusal};
pub use ledger::{Config, Ledger};
pub use money::{AmountError, MICROS_PER_DOLLAR, Micros};
pub use operation::{Done, Hold, Kind, Operation, Order, Outcome, Settlement, Time, What};
pub use price::{Price, PriceError, PriceList, Usage};
pub use query::PAGE_MAX;
pub use rows::{Balance, Earnings, Entry, HoldRow, Posting, Settled, TrafficRow};
pub use split::{SHARES_MAX, Split, SplitError, WHOLE_PPM};
pub use statement::{BalanceProof, Leaf, Leaves, Statement, StatementError};
pub use status::Health;
pub use tlog::{Note, SigningKey};
