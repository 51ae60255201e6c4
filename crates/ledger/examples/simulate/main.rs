//! Many requests by several gateways at once on one database, killed at random if wanted; then the books are counted.
//!
//! `cargo run --release -p lockstep-ledger --example simulate -- --database sqlite --postings 1000000 --gateways 4 --kill`
//!
//! What every request costs follows from the seed alone, so that afterwards every balance is known: a settlement that was
//! lost, or happened twice, shows. `--database postgres` starts a PostgreSQL for the run; `sqlite` uses a file for the run;
//! an address uses that database, which must be empty.

#![expect(clippy::unwrap_used, reason = "a test, if a long one")]

mod gateway;
#[path = "../../tests/support/postgres.rs"]
#[expect(dead_code, reason = "tests use more of it")]
mod postgres;
mod requests;

use clap::Parser;
use ledger::{AccountId, Config, Database, Durability, Extent, Ledger, Micros};
use requests::{CUSTOMERS, Random, Request, deposit_of};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Counts the books after many requests.
#[derive(Parser, Clone)]
pub(crate) struct Args {
    /// sqlite, postgres, or an address of an empty database.
    #[arg(long, default_value = "sqlite")]
    database: String,
    /// At least so many postings.
    #[arg(long, default_value_t = 100_000)]
    postings: u64,
    /// Processes that work on one database.
    #[arg(long, default_value_t = 4)]
    gateways: u64,
    /// Requests in flight in each of them.
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Decides customers, costs, outcomes and kills.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Kill a gateway every now and then, and start it again.
    #[arg(long)]
    kill: bool,
    /// Survive a loss of power, not only the end of the process.
    #[arg(long)]
    power: bool,
    /// Be this gateway, from this request on.
    #[arg(long, hide = true, num_args = 2)]
    gateway: Option<Vec<u64>>,
    /// Where files are.
    #[arg(long, hide = true)]
    folder: Option<std::path::PathBuf>,
}

impl Args {
    fn config(&self, database: Database, folder: &Path, name: &str) -> Config {
        let durability = if self.power { Durability::Power } else { Durability::Process };
        Config {
            durability,
            check_every: None,
            wait: Duration::from_secs(60),
            ..Config::new(database, folder.join(format!("spool-{name}")))
        }
    }

    /// Requests of one gateway: of ten some nine are paid, in five postings each.
    fn requests(&self) -> u64 {
        self.postings * 10 / 44 / self.gateways + 1
    }
}

fn main() {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if let (Some(gateway), Some(folder)) = (&args.gateway, &args.folder) {
        let config = args.config(args.database.parse().unwrap(), folder, &format!("g{}", gateway[0]));
        return runtime.block_on(gateway::work(&args, config, gateway[0], gateway[1]));
    }
    let folder = tempfile::tempdir().unwrap();
    let cluster = (args.database == "postgres")
        .then(|| postgres::Cluster::start_with("-c shared_buffers=256MB -c max_wal_size=4GB").unwrap());
    let address = match (args.database.as_str(), &cluster) {
        (_, Some(cluster)) => cluster.database_and_url().1,
        ("sqlite", _) => format!("sqlite:{}", folder.path().join("books").display()),
        (address, _) => address.to_owned(),
    };
    let args = Args { database: address, ..args };
    let config = args.config(args.database.parse().unwrap(), folder.path(), "check");
    let ledger = runtime.block_on(begin(config));
    let before = cluster.as_ref().map_or(0, postgres::Cluster::ticks);
    let begun = Instant::now();
    let ran = run_gateways(&args, folder.path());
    let seconds = begun.elapsed().as_secs_f64();
    let server = cluster.as_ref().map_or(0, postgres::Cluster::ticks) - before;
    let requests = args.requests() * args.gateways;
    println!(
        "{requests} requests by {} gateways in {seconds:.1} s, {:.0} a second; {} kills",
        args.gateways,
        requests as f64 / seconds,
        ran.kills
    );
    if !args.kill {
        let micros = |ticks: u64| ticks as f64 * 10_000.0 / requests as f64;
        println!(
            "processor time a request: {:.0} µs in gateways, {:.0} µs in the database's server",
            micros(ran.ticks),
            micros(server)
        );
    }
    runtime.block_on(count(&args, &ledger));
}

async fn begin(config: Config) -> Ledger {
    let ledger = Ledger::open(config).await.unwrap();
    for customer in 0..CUSTOMERS {
        let account = requests::customer(customer);
        ledger.deposit(&format!("deposit-{customer}"), &account, deposit_of()).await.unwrap();
    }
    ledger
}

struct Ran {
    kills: u64,
    /// Of processor time of all gateways that came to their end.
    ticks: u64,
}

/// What a gateway tells.
enum Told {
    Done(usize, u64),
    Ticks(u64),
    Ended(usize),
}

/// Runs all gateways to the end of their requests, however often they are killed.
fn run_gateways(args: &Args, folder: &Path) -> Ran {
    let (tell, told) = mpsc::channel();
    let mut children: Vec<Child> = (0..args.gateways).map(|one| spawn(args, folder, one, 0, &tell)).collect();
    let mut random = Random(args.seed);
    // The first request of each that was not acknowledged, and those behind it that were.
    let mut next = vec![(0u64, std::collections::BTreeSet::new()); children.len()];
    let (mut ran, mut running) = (Ran { kills: 0, ticks: 0 }, children.len());
    let mut kill_at = Instant::now() + Duration::from_millis(300);
    while running > 0 {
        match told.recv_timeout(Duration::from_millis(20)) {
            Ok(Told::Done(gateway, request)) => {
                let (first, behind) = &mut next[gateway];
                behind.insert(request);
                while behind.remove(first) {
                    *first += 1;
                }
            }
            Ok(Told::Ticks(ticks)) => ran.ticks += ticks,
            Ok(Told::Ended(gateway)) if next[gateway].0 >= args.requests() => running -= 1,
            Ok(Told::Ended(gateway)) => {
                let status = children[gateway].wait().unwrap();
                assert!(status.code().is_none(), "a gateway ended with {status}");
                // Some that were acknowledged are sent again.
                let from = next[gateway].0.saturating_sub(random.below(50));
                children[gateway] = spawn(args, folder, gateway as u64, from, &tell);
            }
            Err(_) => {}
        }
        if args.kill && Instant::now() > kill_at {
            let victim = random.below(children.len() as u64) as usize;
            if next[victim].0 < args.requests() {
                // SIGKILL.
                children[victim].kill().unwrap();
                ran.kills += 1;
            }
            kill_at = Instant::now() + Duration::from_millis(200 + random.below(800));
        }
    }
    children.iter_mut().for_each(|child| drop(child.wait()));
    ran
}

fn spawn(args: &Args, folder: &Path, gateway: u64, from: u64, tell: &mpsc::Sender<Told>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--database", &args.database, "--folder"]).arg(folder);
    for (flag, value) in [
        ("--postings", args.postings),
        ("--gateways", args.gateways),
        ("--concurrency", args.concurrency as u64),
        ("--seed", args.seed),
    ] {
        command.args([flag, &value.to_string()]);
    }
    command.args(args.power.then_some("--power"));
    command.args(["--gateway", &gateway.to_string(), &from.to_string()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let output = child.stdout.take().unwrap();
    let (tell, index) = (tell.clone(), gateway as usize);
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let said = match line.split_once(' ') {
                Some(("done", number)) => number.parse().map(|number| Told::Done(index, number)).ok(),
                Some(("ticks", ticks)) => ticks.parse().map(Told::Ticks).ok(),
                _ => {
                    println!("  gateway {index}: {line}");
                    None
                }
            };
            said.into_iter().for_each(|said| drop(tell.send(said)));
        }
        let _ = tell.send(Told::Ended(index));
    });
    child
}

/// Compares every balance with what the requests must have made of it.
async fn count(args: &Args, ledger: &Ledger) {
    let mut expected: BTreeMap<AccountId, i64> = BTreeMap::new();
    let mut paid = 0;
    for customer in 0..CUSTOMERS {
        *expected.entry(requests::customer(customer)).or_default() += deposit_of().0;
        *expected.entry(AccountId::outside()).or_default() -= deposit_of().0;
    }
    for gateway in 0..args.gateways {
        for number in 0..args.requests() {
            let request = Request::of(args.seed, gateway, number);
            let Some(settlement) = request.settlement().filter(|one| one.outcome == ledger::Outcome::Paid) else {
                continue;
            };
            paid += 1;
            *expected.entry(request.hold().customer).or_default() -= settlement.amount.0;
            for (account, part) in settlement.split.apportion(settlement.amount, &settlement.operator) {
                *expected.entry(account).or_default() += part.0;
            }
        }
    }
    let (mut found, mut after): (BTreeMap<AccountId, i64>, Option<AccountId>) = (BTreeMap::new(), None);
    loop {
        let page = ledger.accounts(None, after.as_ref(), 1000).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.account.clone());
        for row in page {
            assert_eq!(row.held, Micros::ZERO, "{} still holds something", row.account);
            found.insert(row.account, row.balance.0);
        }
    }
    expected.retain(|account, balance| found.contains_key(account) || *balance != 0);
    assert_eq!(found, expected, "a settlement was lost, or happened twice");
    let begun = Instant::now();
    let checked = ledger.check(Extent::Everything).await.unwrap();
    assert!(checked.is_sound(), "{:?}", checked.faults);
    let everything = begun.elapsed();
    let begun = Instant::now();
    ledger.check(Extent::New).await.unwrap();
    println!(
        "{} transactions, {} postings: sum zero, nothing twice, nothing lost; checked in {:.2} s, again in {:.3} s",
        checked.transactions,
        paid * 5 + 2 * CUSTOMERS,
        everything.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    ask(ledger).await;
}

/// How long the questions of a dashboard take.
async fn ask(ledger: &Ledger) {
    let now = ledger.now();
    let day = 24 * 3_600_000_000;
    let customer = requests::customer(0);
    let mut times = vec![];
    macro_rules! time {
        ($name:literal, $question:expr) => {
            let begun = Instant::now();
            $question.await.unwrap();
            times.push(format!("{} {:.1}", $name, begun.elapsed().as_secs_f64() * 1e3));
        };
    }
    time!("accounts", ledger.accounts(Some("customer:"), None, 100));
    time!("postings", ledger.postings(&AccountId::network(), None, 100));
    time!("postings of one", ledger.postings(&customer, None, 100));
    time!("transaction", ledger.transaction("g0-77"));
    time!("settlements", ledger.settlements(now - day, now + day, None, 100));
    time!("traffic", ledger.traffic(now - day, now + day));
    time!("earnings", ledger.earnings(now - day, now + day, None));
    time!("holds", ledger.holds(None, 100));
    time!("payable", ledger.payable(&AccountId::network()));
    println!("milliseconds: {}", times.join(", "));
}
