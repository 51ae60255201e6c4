//! Which ledger, and who is charged for what.

use crate::failure::{Failure, io};
use clap::{Args, ValueEnum};
use gateway::{Billing, Target};
use ledger::{Database, Durability, Ledger, PriceList, Split};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes a file of splits may have.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Which ledger.
#[derive(Args, Clone, Debug)]
pub(crate) struct BooksArgs {
    /// The ledger's database: sqlite:PATH or postgres://USER@HOST/NAME. Default: ledger.sqlite in the data folder.
    #[arg(long, value_name = "URL", env = "LOCKSTEP_DATABASE", hide_env_values = true, global = true)]
    pub(crate) database: Option<Database>,
}

impl BooksArgs {
    /// The database, beside what else a node keeps.
    pub(crate) fn database(&self, node: &Path) -> Database {
        self.database.clone().unwrap_or_else(|| Database::Sqlite(node.join("ledger.sqlite")))
    }
}

/// What an acknowledged settlement survives.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Survives {
    /// A loss of power.
    Power,
    /// The end of the process at any moment; a loss of power may take the last moments.
    Process,
}

/// Who is charged for what.
#[derive(Args, Clone, Debug)]
pub(crate) struct BillingArgs {
    #[command(flatten)]
    pub(crate) books: BooksArgs,
    /// Charge requests with a key by this list (JSON: {"version": 1, "default": {"prompt": 100000, "output": 400000},
    /// "models": {"NAME": {…}}}, in micro-dollars per million tokens). Without it everything is free.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Who earns what of a request (JSON: {"NAME": "operator=700000,author:ADA=300000"}, in parts per million). Default:
    /// operator=800000,network=150000,insurance=50000.
    #[arg(long, value_name = "FILE")]
    splits: Option<PathBuf>,
    /// What a settled request survives.
    #[arg(long, value_enum, default_value = "power")]
    survives: Survives,
    /// Milliseconds to a first token, and from token to token: slower answers are late, and no goodput.
    #[arg(long, value_name = "FIRST,EACH", default_value = "5000,250", value_parser = target)]
    target: Target,
    /// The same for one model. May be given many times.
    #[arg(long, value_name = "NAME=FIRST,EACH", value_parser = target_of)]
    target_of: Vec<(String, Target)>,
}

pub(crate) fn target(text: &str) -> Result<Target, String> {
    let wrong = || format!("{text:?} is not two numbers of milliseconds, such as 2000,100");
    let (first, each) = text.split_once(',').ok_or_else(wrong)?;
    let milliseconds = |text: &str| text.trim().parse().map(Duration::from_millis).map_err(|_| wrong());
    Ok(Target { first: milliseconds(first)?, each: milliseconds(each)? })
}

fn target_of(text: &str) -> Result<(String, Target), String> {
    let (name, rest) = text.rsplit_once('=').ok_or_else(|| format!("{text:?} is not NAME=FIRST,EACH"))?;
    Ok((name.to_owned(), target(rest)?))
}

impl BillingArgs {
    /// Opens the ledger of a node, for its server.
    pub(crate) async fn open(&self, node: &Path, audit_window: Duration) -> Result<Billing, Failure> {
        let database = self.books.database(node);
        let mut config = ledger::Config::new(database, node.join("ledger.spool"));
        config.audit_window = audit_window;
        config.durability = match self.survives {
            Survives::Power => Durability::Power,
            Survives::Process => Durability::Process,
        };
        let billing = Billing::new(Ledger::open(config).await?);
        let billing = match &self.prices {
            Some(path) => billing.with_prices(PriceList::read(path).map_err(|error| Failure(error.to_string()))?),
            None => billing,
        };
        let splits = self.splits.as_deref().map(splits).transpose()?.unwrap_or_default();
        let targets = self.target_of.iter().cloned().collect();
        Ok(billing.with_splits(splits).with_targets(self.target, targets))
    }
}

fn splits(path: &Path) -> Result<BTreeMap<String, Split>, Failure> {
    if std::fs::metadata(path).map_err(io(path))?.len() > FILE_BYTES_MAX {
        return Err(Failure(format!("{}: the file is too large to be a list of splits", path.display())));
    }
    let text = std::fs::read_to_string(path).map_err(io(path))?;
    serde_json::from_str(&text).map_err(|error| Failure(format!("{}: {error}", path.display())))
}
