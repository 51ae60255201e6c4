//! Who pays for what: held before, settled after, however an answer ends.

#![expect(clippy::unwrap_used, reason = "test")]

mod support;

use gateway::{Billing, Config, Keys, Limits, Server, Target};
use ledger::{AccountId, Entry, Ledger, Micros, Outcome, PriceList, Split};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{BASE, Served, demo, engine, wait_for};

const PRICES: &str = r#"{"version": 7, "default": {"prompt": 1000000, "output": 3000000, "accepted": 1000000},
    "models": {"sql": {"prompt": 2000000, "cached": 0, "output": 5000000}}}"#;

/// A server with a ledger beside it, and a key for ada.
struct Shop {
    served: Served,
    ledger: Ledger,
    runtime: tokio::runtime::Runtime,
}

fn keys(bounds: &str) -> Keys {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, format!("ada {} {bounds}\n", blake3::hash(b"secret").to_hex())).unwrap();
    Keys::read(&path).unwrap()
}

fn open(folder: &Path, bounds: &str, change: impl FnOnce(Billing) -> Billing) -> Shop {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let database = format!("sqlite:{}", folder.join("ledger.sqlite").display()).parse().unwrap();
    let ledger = runtime.block_on(Ledger::open(ledger::Config::new(database, folder.join("spool")))).unwrap();
    let billing = change(Billing::new(ledger.clone()).with_prices(PriceList::parse(PRICES).unwrap()));
    let (engine, adapters) = (engine(|_| {}), demo().adapters.clone());
    let keys = if bounds == "none" { Keys::default() } else { keys(bounds) };
    let config = Config { folder: folder.join("node"), base: BASE.into(), adapters, keys, limits: Limits::default() };
    let server = Server::new(engine.clone(), config).unwrap();
    let server = runtime.block_on(server.with_billing(billing)).unwrap();
    Shop { served: Served::running(engine, server), ledger, runtime }
}

impl Shop {
    fn ask(&self, body: &Value) -> support::Answer {
        let headers = [("content-type", "application/json"), ("authorization", "Bearer secret")];
        self.served.send("POST", "/v1/completions", &headers, body.to_string().as_bytes())
    }

    fn settlements(&self) -> Vec<Entry> {
        self.runtime.block_on(self.ledger.settlements(0, i64::MAX, None, 100)).unwrap()
    }

    /// Waits until so many are settled and nothing is held any more.
    fn settled(&self, count: usize) -> Vec<Entry> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let (settled, holds) = (self.settlements(), self.runtime.block_on(self.ledger.holds(None, 10)).unwrap());
            if settled.len() == count && holds.is_empty() {
                return settled;
            }
            assert!(Instant::now() < until, "{settled:?} {holds:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn balance(&self, account: &str) -> Option<Micros> {
        let account: AccountId = account.parse().unwrap();
        self.runtime.block_on(self.ledger.balance(&account)).unwrap().map(|found| found.balance)
    }
}

fn body(model: &str, tokens: usize) -> Value {
    json!({"model": model, "prompt": "The red lamp", "max_tokens": tokens, "temperature": 0, "ignore_eos": true})
}

#[test]
fn an_answer_costs_what_the_list_says_and_pays_those_who_earned_it() {
    let folder = tempfile::tempdir().unwrap();
    let split: Split = "operator=700000,author:ada-lovelace=300000".parse().unwrap();
    let shop = open(folder.path(), "budget=5", |billing| {
        let hour = Duration::from_secs(3600);
        let splits = BTreeMap::from([("sql".to_owned(), split.clone())]);
        billing.with_splits(splits).with_targets(Target { first: hour, each: hour }, BTreeMap::new())
    });
    let answer = shop.ask(&body("sql", 10));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let value = answer.json();
    let prompt = value["usage"]["prompt_tokens"].as_i64().unwrap();
    assert_eq!(value["usage"]["completion_tokens"], 10);
    let cost = 2 * prompt + 5 * 10;
    let settled = shop.settled(1).remove(0);
    let details = settled.settled.clone().unwrap();
    assert_eq!((settled.amount, details.model.as_str(), details.price), (Micros(cost), "sql", 7));
    assert_eq!((details.outcome, details.usage.output, details.late), (Outcome::Paid, 10, false));
    assert_eq!(details.held, Micros(cost), "the worst case is ten tokens too");
    assert_eq!(shop.balance("customer:ada"), Some(Micros(-cost)));
    let author = shop.balance("author:ada-lovelace").unwrap();
    assert_eq!(shop.balance(details.operator.as_str()).unwrap().0 + author.0, cost);
    assert!((author.0 * 10 - cost * 3).abs() < 10);
    // The receipt names the price list, and the ledger the receipt.
    let id = value["receipt"]["id"].as_str().unwrap();
    assert!(id.contains(settled.reference.as_deref().unwrap()));
    let receipt = shop.served.get(&format!("/v1/receipts/{id}?format=json"));
    assert_eq!(receipt.json()["claims"]["price"], 7, "{}", receipt.text());
    let prices = shop.served.get("/v1/prices").json();
    assert_eq!(prices["prices"]["models"]["sql"]["output"], 5_000_000);
    assert_eq!(prices["splits"]["models"]["sql"], split.to_string());
}

#[test]
fn who_has_spent_the_budget_is_told_so_until_more_is_paid_in() {
    let folder = tempfile::tempdir().unwrap();
    let shop = open(folder.path(), "budget=0.0001", |billing| billing);
    assert_eq!(shop.ask(&body(BASE, 10)).status, 200);
    let refused = shop.ask(&body(BASE, 100));
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error"]["code"], "insufficient_quota");
    assert_eq!(shop.settled(1).len(), 1);
    let account: AccountId = "customer:ada".parse().unwrap();
    shop.runtime.block_on(shop.ledger.deposit("d1", &account, Micros(1_000_000))).unwrap();
    assert_eq!(shop.ask(&body(BASE, 100)).status, 200);
    // Several answers to one prompt are held one by one, and all or none are given.
    let mut several = body(BASE, 60);
    several["n"] = json!(3);
    assert_eq!(shop.ask(&several).status, 200);
    let settled = shop.settled(5);
    let prompts: Vec<u64> = settled[2..].iter().map(|entry| entry.settled.clone().unwrap().usage.prompt).collect();
    assert_eq!(prompts.iter().filter(|tokens| **tokens > 0).count(), 1, "a prompt is paid once");
}

#[test]
fn a_client_that_goes_pays_for_what_it_got() {
    let folder = tempfile::tempdir().unwrap();
    let shop = open(folder.path(), "budget=5", |billing| billing);
    let mut long = body(BASE, 1900);
    long["stream"] = json!(true);
    let headers = [("content-type", "application/json"), ("authorization", "Bearer secret")];
    let mut asked = 0;
    // One that was complete before its client had gone has a receipt: then another is asked.
    let settled = wait_for("an answer broken off", || {
        let mut stream = shop.served.open("POST", "/v1/completions", &headers, long.to_string().as_bytes());
        let mut read = Vec::new();
        while read.windows(5).filter(|bytes| bytes == b"data:").count() < 3 {
            let mut bytes = [0; 256];
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0);
            read.extend_from_slice(&bytes[..count]);
        }
        drop(stream);
        asked += 1;
        shop.settled(asked).pop().filter(|newest| newest.reference.is_none())
    });
    let details = settled.settled.unwrap();
    assert_eq!(details.outcome, Outcome::Paid);
    assert!((1..1900).contains(&details.usage.output), "{details:?}");
    assert_eq!(settled.amount.0, (details.usage.prompt + 3 * details.usage.output) as i64);
}

#[test]
fn without_a_key_everything_is_free_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let shop = open(folder.path(), "none", |billing| {
        let target = Target { first: Duration::ZERO, each: Duration::ZERO };
        billing.with_targets(target, BTreeMap::new())
    });
    assert_eq!(shop.ask(&body("spanish", 5)).status, 200);
    let settled = shop.settled(1).remove(0);
    let details = settled.settled.unwrap();
    assert_eq!((details.outcome, settled.amount, details.price), (Outcome::Free, Micros::ZERO, 0));
    assert!(settled.reference.is_some() && details.late, "nothing is as fast as that");
}

#[test]
fn keys_that_ask_too_often_wait() {
    let folder = tempfile::tempdir().unwrap();
    let shop = open(folder.path(), "budget=5 requests=2", |billing| billing);
    assert_eq!([(); 2].map(|()| shop.ask(&body(BASE, 1)).status), [200, 200]);
    let refused = shop.ask(&body(BASE, 1));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    let retry: u64 = refused.headers["retry-after"].parse().unwrap();
    assert!((1..=30).contains(&retry), "{retry}");
    assert_eq!(shop.settled(2).len(), 2);
}

#[test]
fn the_devices_time_is_recorded_to_the_last_moment() {
    let folder = tempfile::tempdir().unwrap();
    let before = Instant::now();
    let shop = open(folder.path(), "budget=5", |billing| billing);
    let opened = Instant::now();
    (0..3).for_each(|_| assert_eq!(shop.ask(&body("sql", 30)).status, 200));
    let closing = Instant::now();
    let Shop { served, .. } = shop;
    drop(served);
    let closed = Instant::now();
    let records = returns::read(&folder.path().join("node/device"), 0, u64::MAX).unwrap();
    let mut time = returns::Time::default();
    let mut sql = returns::Use::default();
    for record in &records {
        time.add(&record.time);
        record.adapters.get("sql").into_iter().for_each(|used| sql.add(used));
    }
    assert_eq!((sql.answers, sql.answer_tokens), (3, 90));
    // From some moment while it opened to some moment while it ended, to the nanosecond.
    let (least, most) = ((closing - opened).as_nanos() as u64, (closed - before).as_nanos() as u64);
    assert!((least..=most).contains(&time.total()), "{} of {least} to {most}", time.total());
    assert!(time.busy() > 0 && time.busy() <= least && sql.time.busy() == time.busy());
    let last = records.last().unwrap();
    assert!(last.bytes.base > 0 && last.bytes.separate > 5 * last.bytes.base && last.bytes.models == 6);
    // The same by the clock of the day, which runs a little faster or slower while it is set right.
    let (wall, slack) = ((last.to - records[0].from) * 1000, most / 1000 + 2_000_000);
    assert!(least <= wall + slack && wall <= most + slack, "{wall} of {least} to {most}");
}
