//! `lockstep ledger`: looks at the books, and gives the orders that people give.

use crate::books::BooksArgs;
use crate::failure::{Failure, io};
use crate::score::hex;
use crate::source::data_folder;
use clap::{Args, Subcommand};
use ledger::{AccountId, Balance, Config, Entry, Extent, Ledger, Micros, What};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Options of `lockstep ledger`.
#[derive(Args, Debug)]
pub(crate) struct LedgerArgs {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(subcommand)]
    command: LedgerCommand,
}

/// Whose books.
#[derive(Args, Debug)]
pub(crate) struct PlaceArgs {
    #[command(flatten)]
    books: BooksArgs,
    /// Folder for everything kept between runs, as of `lockstep up`.
    #[arg(long, value_name = "DIR", env = "LOCKSTEP_DATA", global = true)]
    data: Option<PathBuf>,
    /// Days that earnings wait before they can be paid out; as of `lockstep up`.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=10_000), global = true)]
    audit_days: u16,
}

impl PlaceArgs {
    /// The node's folder.
    pub(crate) fn node(&self) -> Result<PathBuf, Failure> {
        Ok(data_folder(self.data.as_deref())?.join("node"))
    }

    /// The books, for questions and orders. A running server goes on.
    pub(crate) async fn open(&self) -> Result<Ledger, Failure> {
        let database = self.books.database(&self.node()?);
        if let ledger::Database::Sqlite(path) = &database
            && !path.exists()
        {
            let what =
                format!("there is no ledger {}: `lockstep up` makes one, or name one with --database", path.display());
            return Err(Failure(what));
        }
        let audit_window = Duration::from_secs(u64::from(self.audit_days) * 24 * 3600);
        Ok(Ledger::open(Config { audit_window, ..Config::for_orders(database) }).await?)
    }
}

/// What an order says beside what it is about.
#[derive(Args, Debug)]
struct OrderArgs {
    /// The order's id: sent again with the same id, it is not carried out twice. Default: a random one, which is shown.
    #[arg(long)]
    id: Option<String>,
    /// Why, for whoever reads the books.
    #[arg(long, default_value = "")]
    note: String,
}

#[derive(Subcommand, Debug)]
enum LedgerCommand {
    /// List accounts: balance, what of it is held, what may be spent.
    Accounts {
        /// Only those whose names contain this.
        search: Option<String>,
    },
    /// Show an account and its newest postings, or the transaction or request with an id.
    Show {
        /// An account, such as customer:ada, or an id.
        #[arg(value_name = "ACCOUNT|ID")]
        what: String,
        /// Postings to show.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Open an account, or give it another floor: the least balance it may have. A negative one is credit.
    Open {
        /// The account.
        account: AccountId,
        /// Dollars.
        #[arg(long, default_value = "0", allow_negative_numbers = true)]
        floor: Micros,
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Book money that came from outside.
    Deposit {
        /// Whose it is now.
        account: AccountId,
        /// Dollars.
        amount: Micros,
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Book money that goes outside: of earnings what is older than the audit window, and only while the books are sound.
    Payout {
        /// Whose it was.
        account: AccountId,
        /// Dollars. Default: all that can be paid now.
        amount: Option<Micros>,
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Put an operator's money at risk.
    Stake {
        /// The node.
        node: String,
        /// Dollars.
        amount: Micros,
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Take money out of an operator's stake.
    Unstake {
        /// The node.
        node: String,
        /// Dollars.
        amount: Micros,
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Take a node's stake for the insurance, because it cheated.
    Slash {
        /// The node.
        node: String,
        /// Dollars.
        amount: Micros,
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Undo a slash.
    Appeal {
        /// The slash's id.
        slash: String,
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Give a request's money back, from those who earned it.
    Refund {
        /// The request's id.
        request: String,
        /// Dollars. Default: all that was not refunded yet.
        amount: Option<Micros>,
        #[command(flatten)]
        order: OrderArgs,
    },
    /// Check the books. Exit code 1: they are not sound, and payouts stop.
    Check {
        /// Everything, not only what came since the last check.
        #[arg(long)]
        all: bool,
        /// Check everything, and if it is sound let payouts go on after a fault.
        #[arg(long)]
        clear: bool,
    },
}

/// Does what was asked; gives whether all is as it should be.
pub(crate) fn run(args: &LedgerArgs) -> Result<bool, Failure> {
    runtime()?.block_on(async {
        let ledger = args.place.open().await?;
        match &args.command {
            LedgerCommand::Accounts { search } => accounts(&ledger, search.as_deref()).await,
            LedgerCommand::Show { what, limit } => show(&ledger, what, *limit).await,
            LedgerCommand::Check { all, clear } => check(&ledger, *all, *clear).await,
            command => give(&ledger, command).await,
        }
    })
}

/// A runtime for one command.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io(Path::new("threads")))
}

async fn accounts(ledger: &Ledger, search: Option<&str>) -> Result<bool, Failure> {
    println!("{:40} {:>20} {:>18} {:>20}", "account", "balance", "held", "available");
    let mut after: Option<AccountId> = None;
    loop {
        let page = ledger.accounts(search, after.as_ref(), ledger::PAGE_MAX).await?;
        page.iter().for_each(print_balance);
        match page.last() {
            Some(last) => after = Some(last.account.clone()),
            None => return Ok(true),
        }
    }
}

fn print_balance(row: &Balance) {
    let available = if row.account.is_outside() { String::new() } else { row.available().to_string() };
    println!("{:40} {:>20} {:>18} {available:>20}", row.account, row.balance, row.held);
}

async fn show(ledger: &Ledger, what: &str, limit: u32) -> Result<bool, Failure> {
    let account = what.parse::<AccountId>().ok();
    if let Some(account) = &account
        && let Some(balance) = ledger.balance(account).await?
    {
        let payable = ledger.payable(account).await?;
        let Balance { balance, held, floor, owed, .. } = balance;
        println!("{account}\n  balance {balance}, of it held {held}\n  floor   {floor}");
        if owed > Micros::ZERO {
            println!("  owes    {owed}");
        }
        println!("  payable {payable}\n");
        for row in ledger.postings(account, None, limit).await? {
            println!("  {:>20}  {:8} {}", row.amount, row.kind.name(), row.id);
        }
        return Ok(true);
    }
    let Some((entry, lines)) = ledger.transaction(what).await? else {
        return Err(Failure(format!("the ledger has no account and no transaction {what}")));
    };
    print_entry(&entry);
    for (account, amount) in lines {
        println!("  {amount:>20}  {account}");
    }
    Ok(true)
}

fn print_entry(entry: &Entry) {
    println!("{} {}, transaction {}, {} µs since 1970", entry.kind.name(), entry.id, entry.number, entry.time);
    if let Some(settled) = &entry.settled {
        let usage = &settled.usage;
        println!(
            "  {}, {} of {} held, prices {}: {} tokens of prompt ({} cached), {} of answer ({} foretold){}",
            settled.outcome.name(),
            entry.amount,
            settled.held,
            settled.price,
            usage.prompt,
            usage.cached,
            usage.output,
            usage.accepted,
            if settled.late { ", late" } else { "" }
        );
        println!("  model {}, split {}", settled.model, settled.split);
    }
    if let Some(reference) = &entry.reference {
        println!("  of {reference}");
    }
    if entry.undone > Micros::ZERO {
        println!("  of it undone {}", entry.undone);
    }
    if !entry.note.is_empty() {
        println!("  {}", entry.note);
    }
}

async fn check(ledger: &Ledger, all: bool, clear: bool) -> Result<bool, Failure> {
    let extent = if all { Extent::Everything } else { Extent::New };
    let checked = if clear { ledger.clear_violation().await? } else { ledger.check(extent).await? };
    for fault in &checked.faults {
        println!("fault: {fault}");
    }
    let health = ledger.health().await;
    if let Some(violation) = health.violation {
        println!("payouts have stopped: {violation}");
        if checked.is_sound() {
            println!(
                "what was read now is sound: `lockstep ledger check --clear` checks everything and lets payouts go on"
            );
        }
        return Ok(false);
    }
    println!(
        "sound: {} accounts add up to zero; {} transactions read, up to number {}",
        checked.accounts, checked.transactions, checked.up_to
    );
    Ok(checked.is_sound())
}

/// Gives an order.
async fn give(ledger: &Ledger, command: &LedgerCommand) -> Result<bool, Failure> {
    let (what, order) = match command {
        LedgerCommand::Open { account, floor, order } => {
            (What::Open { account: account.clone(), floor: *floor }, order)
        }
        LedgerCommand::Deposit { account, amount, order } => {
            (What::Deposit { account: account.clone(), amount: *amount }, order)
        }
        LedgerCommand::Payout { account, amount, order } => {
            let amount = match amount {
                Some(amount) => *amount,
                None => ledger.payable(account).await?,
            };
            (What::Payout { account: account.clone(), amount }, order)
        }
        LedgerCommand::Stake { node, amount, order } => (What::Stake { node: node.clone(), amount: *amount }, order),
        LedgerCommand::Unstake { node, amount, order } => {
            (What::Unstake { node: node.clone(), amount: *amount }, order)
        }
        LedgerCommand::Slash { node, amount, order } => (What::Slash { node: node.clone(), amount: *amount }, order),
        LedgerCommand::Appeal { slash, order } => (What::Appeal { slash: slash.clone() }, order),
        LedgerCommand::Refund { request, amount, order } => {
            let amount = match amount {
                Some(amount) => *amount,
                None => rest(ledger, request).await?,
            };
            (What::Refund { settlement: request.clone(), amount }, order)
        }
        LedgerCommand::Accounts { .. } | LedgerCommand::Show { .. } | LedgerCommand::Check { .. } => return Ok(true),
    };
    let id = match &order.id {
        Some(id) => id.clone(),
        None => random_id()?,
    };
    let done = ledger.order(&id, what, &order.note).await.map_err(|error| {
        let again = if error.is_refused() { String::new() } else { format!(" (--id {id})") };
        Failure(format!("{error}{again}"))
    })?;
    let before = if done.repeated { " had been carried out before" } else { "" };
    println!("{id}{before}: {}, transaction {}", done.amount, done.number.unwrap_or_default());
    Ok(true)
}

/// What of a request was not refunded yet.
async fn rest(ledger: &Ledger, request: &str) -> Result<Micros, Failure> {
    let found = ledger.transaction(request).await?;
    let (entry, _) = found.ok_or_else(|| Failure(format!("the ledger has no request {request}")))?;
    Ok(entry.amount.minus(entry.undone).unwrap_or_default())
}

fn random_id() -> Result<String, Failure> {
    let mut bytes = [0; 12];
    getrandom::fill(&mut bytes).map_err(|error| Failure(format!("there are no random numbers: {error}")))?;
    Ok(format!("order-{}", hex(&bytes)))
}
