//! How long every page takes with a million receipts, as many settlements and a month of records. A long measurement, run
//! by name:
//!
//! ```sh
//! cargo test --release -p lockstep-gateway --lib pages_of_a_million -- --ignored --nocapture
//! ```
//!
//! `LOCKSTEP_LEDGER=postgres` keeps the books in a PostgreSQL of its own, `LOCKSTEP_FOLDER=DIR` keeps what was made for the
//! next time, `LOCKSTEP_RECEIPTS=N` makes fewer. Everything is made as a server makes it: receipts by the recorder, with what
//! opens them; holds and settlements by the ledger, its clock set back by a month.

#[path = "../../../ledger/tests/support/postgres.rs"]
#[allow(unfulfilled_lint_expectations, dead_code, clippy::allow_attributes, reason = "made for tests outside")]
mod postgres;
#[path = "../../tests/support/mod.rs"]
#[allow(unfulfilled_lint_expectations, reason = "made for tests outside")]
mod support;

use crate::draft::Draft;
use crate::folder::Folder;
use crate::hex;
use crate::recorder::Recorder;
use crate::{Billing, Config, Keys, Limits, Server};
use ledger::{AccountId, Clock, Database, Durability, Hold, Ledger, Micros, Outcome, PriceList, Settlement, Usage};
use returns::{Bytes, Device, Journal, Record, Time, Use};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use support::Served;
use tlog::{Name, TILE_WIDTH, Tile, name_of, split_entries};

const CUSTOMERS: u64 = 1000;
const MODELS: u64 = 50;
const DAY: u64 = 86_400_000_000;
const MONTH: u64 = 30 * DAY;
/// Requests under way at once while the books are made.
const AT_ONCE: u64 = 256;
/// How often each page is asked for.
const TIMES: usize = 9;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap())
}

fn customer(number: u64) -> AccountId {
    AccountId::customer(&format!("c{number}")).unwrap()
}

/// One asks for a quarter of everything.
fn who(number: u64) -> u64 {
    if number.is_multiple_of(4) { 0 } else { number % CUSTOMERS }
}

fn model(number: u64) -> String {
    let known = ["sql", "triage", "spanish", "extract", "reply"];
    known
        .get((number % MODELS) as usize)
        .map_or_else(|| format!("model-{}", number % MODELS), |name| (*name).to_owned())
}

/// A log of so many receipts, and what opens them; gives its operator and the names of its entries.
async fn make_receipts(folder: &Path, count: u64) -> (AccountId, Vec<Name>) {
    let recorder = Arc::new(Recorder::start(Folder::open(folder).unwrap(), 30 * 86_400).unwrap());
    let next = Arc::new(AtomicU64::new(recorder.count()));
    let worker = || {
        let (recorder, next) = (recorder.clone(), next.clone());
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, SeqCst);
                if number >= count {
                    return;
                }
                recorder.record(Draft::example(number)).await.unwrap();
            }
        })
    };
    for worker in (0..2 * AT_ONCE).map(|_| worker()).collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    let log = recorder.log();
    let mut names = vec![];
    for tile in 0..log.size() / TILE_WIDTH {
        let bytes = log.tile(&Tile::entries(tile, TILE_WIDTH as u16)).unwrap().unwrap();
        names.extend(split_entries(&bytes).unwrap().into_iter().map(name_of));
    }
    (crate::report::operator(&recorder.node()).unwrap(), names)
}

/// Books in which every receipt was paid for within the last month.
async fn make_books(folder: &Path, database: Database, operator: &AccountId, names: &[Name]) {
    let now = i64::try_from(crate::device_time::now_microseconds()).unwrap();
    let time = Arc::new(AtomicI64::new(now - MONTH as i64));
    let shown = time.clone();
    let config = ledger::Config {
        clock: Clock::new(move || shown.load(SeqCst)),
        durability: Durability::Process,
        check_every: None,
        wait: Duration::from_secs(60),
        ..ledger::Config::new(database, folder.join("making"))
    };
    let ledger = Ledger::open(config).await.unwrap();
    let newest = ledger.transactions(None, 1).await.unwrap();
    if newest.first().is_some_and(|newest| newest.number >= names.len() as i64) {
        return;
    }
    let pay = |number| {
        let ledger = ledger.clone();
        let deposit =
            async move { ledger.deposit(&format!("deposit-{number}"), &customer(number), Micros(1 << 40)).await };
        tokio::spawn(deposit)
    };
    for paid in (0..CUSTOMERS).map(pay).collect::<Vec<_>>() {
        paid.await.unwrap().unwrap();
    }
    let each = MONTH as i64 / names.len() as i64;
    let (next, names) = (Arc::new(AtomicU64::new(0)), Arc::new(names.to_vec()));
    let worker = || {
        let (ledger, next, names, time) = (ledger.clone(), next.clone(), names.clone(), time.clone());
        let operator = operator.clone();
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, SeqCst);
                let Some(name) = names.get(number as usize) else { return };
                let (hold, settlement) = request(number, name, &operator);
                ledger.hold(hold).await.unwrap();
                ledger.settle(settlement).await.unwrap();
                time.fetch_add(each, SeqCst);
            }
        })
    };
    for worker in (0..AT_ONCE).map(|_| worker()).collect::<Vec<_>>() {
        worker.await.unwrap();
    }
}

fn request(number: u64, name: &Name, operator: &AccountId) -> (Hold, Settlement) {
    let (id, cost) = (format!("chatcmpl-{number:032x}"), 100 + (number * 7919 % 900) as i64);
    let hold = Hold { id: id.clone(), customer: customer(who(number)), amount: Micros(2000), expires_at: i64::MAX / 2 };
    let outcome = match number % 100 {
        0 => Outcome::Failed,
        1..4 => Outcome::Late,
        _ => Outcome::Paid,
    };
    let author = number % MODELS;
    let settlement = Settlement {
        hold: id,
        amount: Micros(cost),
        operator: operator.clone(),
        split: format!("operator=700000,author:a{author}=200000,network=60000,insurance=40000").parse().unwrap(),
        usage: Usage { prompt: 300, cached: 100, output: 60, accepted: 3 },
        model: model(number),
        price: 1,
        receipt: Some(hex::encode(name)),
        outcome,
        first_token_ms: Some((number % 4000) as u32),
        total_ms: 5000,
        late: false,
    };
    (hold, settlement)
}

/// A record for every ten seconds of a month.
fn make_records(folder: &Path) {
    if folder.join("made").exists() {
        return;
    }
    let mut journal = Journal::open(folder).unwrap();
    let end = crate::device_time::now_microseconds();
    let time = Time { prefill: 2_000_000_000, decode: 5_000_000_000, idle: 3_000_000_000, ..Time::default() };
    let used = Use { time: Time { decode: 1_700_000_000, ..Time::default() }, answers: 3, ..Use::default() };
    for (number, from) in (0..).zip((end - MONTH..end).step_by(10_000_000)) {
        let adapters = (0..3).map(|adapter| (model(number + adapter), used)).collect();
        let bytes = Bytes { base: 1 << 30, adapters: 1 << 27, pages: 1 << 29, separate: 51 << 30, models: 51 };
        let to = from + 10_000_000;
        let record =
            Record { run: 1, from, to, time, bytes, model: support::BASE.into(), adapters, ..Record::default() };
        journal.append(&record).unwrap();
    }
    std::fs::write(folder.join("made"), "").unwrap();
}

/// What is asked, and how long it took.
#[derive(Default)]
struct Timed {
    /// The slowest of all medians, and of all single looks.
    median: Duration,
    single: Duration,
}

impl Timed {
    /// Asks for a page some times.
    fn page(&mut self, served: &Served, what: &str, key: &str, path: &str) {
        let bearer = format!("Bearer {key}");
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut line = format!("| {what} |");
        for format in ["", "format=json", "format=csv"] {
            let path = format!("{path}{separator}{format}");
            let mut took: Vec<Duration> = (0..TIMES)
                .map(|_| {
                    let begun = Instant::now();
                    let page = served.send("GET", &path, &[("authorization", &bearer)], b"");
                    // A page without tables has no file of them.
                    assert!(
                        page.status == 200 || (page.status == 404 && format == "format=csv"),
                        "{path}: {}",
                        page.text()
                    );
                    begun.elapsed()
                })
                .collect();
            took.sort_unstable();
            self.median = self.median.max(took[TIMES / 2]);
            self.single = self.single.max(took[TIMES - 1]);
            line += &format!(" {:.1}, {:.1} |", milliseconds(took[TIMES / 2]), milliseconds(took[TIMES - 1]));
        }
        println!("{line}");
    }
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e3
}

fn said<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    println!("{what}: {:.2} s", begun.elapsed().as_secs_f64());
    done
}

#[test]
#[ignore = "makes a million receipts: minutes"]
fn pages_of_a_million_receipts_each_take_less_than_a_tenth_of_a_second() {
    let count = number("LOCKSTEP_RECEIPTS", 1_000_000);
    let temporary = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("LOCKSTEP_FOLDER").map(PathBuf::from);
    let folder = kept.unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&folder).unwrap();
    let postgres = std::env::var("LOCKSTEP_LEDGER").is_ok_and(|which| which == "postgres");
    let cluster = postgres.then(|| postgres::Cluster::start_with("-c shared_buffers=256MB").unwrap());
    let database: Database = match &cluster {
        Some(cluster) => cluster.database(),
        None => format!("sqlite:{}", folder.join("ledger.sqlite").display()).parse().unwrap(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let node = folder.join("node");
    let (operator, names) = said("receipts made", || runtime.block_on(make_receipts(&node, count)));
    said("books made", || runtime.block_on(make_books(&folder, database.clone(), &operator, &names)));
    said("records made", || make_records(&node.join("device")));

    let ledger = said("ledger opened", || {
        runtime.block_on(Ledger::open(ledger::Config::new(database, folder.join("spool")))).unwrap()
    });
    let (engine, adapters) = (support::engine(|_| {}), support::demo().adapters.clone());
    let mut keys = Keys::default();
    keys.add("c0", "heavy");
    keys.add("c7", "light");
    let config = Config { folder: node, base: support::BASE.into(), adapters, keys, limits: Limits::default() };
    let server = said("log and openings opened", || Server::new(engine.clone(), config).unwrap());
    for extra in 0..1000 {
        engine.adapters().register(&format!("extra-{extra:04}"), Path::new("/nowhere")).unwrap();
    }
    let prices = PriceList::parse(r#"{"version": 1, "default": {"prompt": 100000, "output": 400000}}"#).unwrap();
    let billing = Billing::new(ledger.clone()).with_prices(prices);
    let server = server.with_device(Device::known().remove(0)).with_admin_key("root");
    let server = runtime.block_on(server.with_billing(billing)).unwrap();
    let served = Served::running(engine, server);

    let mut timed = Timed::default();
    let root = [("authorization", "Bearer root")];
    let (begun, mut looks) = (Instant::now(), vec![]);
    loop {
        let asked = Instant::now();
        let page = served.send("GET", "/dashboard?period=month", &root, b"");
        looks.push((asked.elapsed(), asked - begun));
        if !page.text().contains("being summed up") {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(300));
        std::thread::sleep(Duration::from_millis(100));
    }
    let reading = begun.elapsed().as_secs_f64();
    looks.sort_unstable();
    let (median, looked) = (milliseconds(looks[looks.len() / 2].0), looks.len());
    println!(
        "ledger and records summed up: {reading:.1} s; meanwhile {looked} overviews, {median:.1} ms in the median"
    );
    for (took, at) in looks.iter().rev().take(5) {
        println!("  {:.1} ms after {:.2} s", milliseconds(*took), at.as_secs_f64());
    }

    let body = support::with(
        support::ask("sql", "How many orders were placed in Graz?"),
        serde_json::json!({"max_tokens": 12}),
    );
    let headers = [("content-type", "application/json"), ("authorization", "Bearer heavy")];
    let answer = served.send("POST", "/v1/chat/completions", &headers, body.to_string().as_bytes()).ok();
    let newest = answer["receipt"]["id"].as_str().unwrap().to_owned();

    println!("| page | HTML, ms: median, slowest of {TIMES} | JSON | CSV |\n|---|---|---|---|");
    let transactions = runtime.block_on(ledger.transactions(None, 1)).unwrap()[0].number;
    let size = names.len() as u64;
    let page = |timed: &mut Timed, what: &str, key: &str, path: &str| timed.page(&served, what, key, path);
    for period in ["day", "week", "month"] {
        page(&mut timed, &format!("overview, {period}"), "root", &format!("/dashboard?period={period}"));
    }
    page(&mut timed, "playground", "root", "/dashboard/playground");
    for (place, before) in [("first", u64::MAX), ("middle", size / 2), ("last", 25)] {
        page(&mut timed, &format!("log, {place} page"), "root", &format!("/dashboard/receipts?before={before}"));
    }
    let id = |at: u64| format!("/dashboard/receipt?id=rcpt-{}", hex::encode(&names[at as usize]));
    // The very first entry commits to secrets of seeds.
    for (place, at) in [("first", 1), ("middle", size / 2), ("last", size - 1)] {
        page(&mut timed, &format!("receipt by id, {place}"), "root", &id(at));
    }
    page(&mut timed, "receipt with its key, the newest", "root", &format!("/dashboard/receipt?id={newest}"));
    for (key, who) in [("heavy", "a quarter of all"), ("light", "a thousandth")] {
        for (place, before) in [("first", i64::MAX), ("middle", transactions * 32), ("last", 64 * 120_000)] {
            let path = format!("/dashboard/receipts?before={before}");
            page(&mut timed, &format!("a customer's receipts ({who}), {place} page"), key, &path);
        }
    }
    for (place, before) in [("first", i64::MAX), ("middle", transactions / 2), ("last", 51)] {
        page(
            &mut timed,
            &format!("ledger, transactions, {place} page"),
            "root",
            &format!("/dashboard/ledger?before={before}"),
        );
    }
    for (what, query) in [
        ("accounts, middle", "after=customer:c5"),
        ("accounts, last", "after=customer:c95"),
        ("search, some", "search=c99"),
        ("search, none", "search=nobody"),
    ] {
        page(&mut timed, &format!("ledger, {what}"), "root", &format!("/dashboard/ledger?{query}"));
    }
    for account in ["customer:c0", "customer:c7", operator.as_str(), "network"] {
        for (place, before) in [("first", i64::MAX), ("middle", transactions * 32), ("last", 64 * 2000)] {
            page(
                &mut timed,
                &format!("account {account}, {place} page"),
                "root",
                &format!("/dashboard/account?name={account}&before={before}"),
            );
        }
    }
    page(&mut timed, "an own account", "heavy", "/dashboard/ledger");
    page(&mut timed, "transaction", "root", &format!("/dashboard/transaction?id=chatcmpl-{:032x}", size / 2));
    for period in ["day", "month"] {
        page(&mut timed, &format!("adapters, {period}"), "root", &format!("/dashboard/adapters?period={period}"));
    }
    page(&mut timed, "adapters, last page", "root", "/dashboard/adapters?after=extra-0950");
    page(&mut timed, "health", "root", "/dashboard/health");
    for period in ["day", "week", "month"] {
        page(&mut timed, &format!("statistics, {period}"), "light", &format!("/dashboard/statistics?period={period}"));
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default();
    let (median, single) = (milliseconds(timed.median), milliseconds(timed.single));
    println!("slowest median {median:.1} ms, slowest of all {single:.1} ms; {memory}");
    assert!(timed.median < Duration::from_millis(100));
}
