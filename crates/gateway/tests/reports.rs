//! Return on GPU of several nodes that share a ledger: each has its own work, and together they have all of it.

#![expect(clippy::unwrap_used, reason = "test")]

use gateway::{Node, report};
use ledger::{AccountId, Clock, Hold, Ledger, Micros, Outcome, Settlement, Split, Usage};
use returns::{Device, Journal, Period, Record, Returns, Standing, Time};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};

const HOUR: u64 = 3_600_000_000;

fn settlement(operator: &AccountId, id: &str, amount: i64) -> Settlement {
    Settlement {
        hold: id.to_owned(),
        amount: Micros(amount),
        operator: operator.clone(),
        split: Split::standard(),
        usage: Usage { prompt: 10, cached: 4, output: 5, accepted: 0 },
        model: "sql".to_owned(),
        price: 1,
        receipt: Some(format!("{id}-receipt")),
        outcome: Outcome::Paid,
        first_token_ms: Some(10),
        total_ms: 20,
        late: false,
    }
}

fn node(folder: &Path, number: u8, hours: std::ops::Range<u64>, rent: u64) -> Node {
    let records = folder.join(format!("device-{number}"));
    let mut journal = Journal::open(&records).unwrap();
    for hour in hours.clone() {
        let time = Time { decode: HOUR * 250, idle: HOUR * 750, ..Time::default() };
        journal.append(&Record { from: hour * HOUR, to: (hour + 1) * HOUR, time, ..Record::default() }).unwrap();
    }
    let period = Period { from: hours.start * HOUR, to: hours.end * HOUR, devices: 1 };
    let device = Device { rent, ..Device::default() };
    Node { operator: gateway::operator(&[number; 32]).unwrap(), records, period, device }
}

#[tokio::test]
async fn nodes_of_one_ledger_are_told_apart_and_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let time = Arc::new(AtomicI64::new(0));
    let shown = time.clone();
    let config = ledger::Config {
        clock: Clock::new(move || shown.load(SeqCst)),
        check_every: None,
        ..ledger::Config::new(ledger::Database::Sqlite(folder.path().join("books")), folder.path().join("spool"))
    };
    let ledger = Ledger::open(config).await.unwrap();
    let ada = AccountId::customer("ada").unwrap();
    ledger.deposit("deposit", &ada, Micros(100_000_000)).await.unwrap();
    // The second node begins an hour later than the first and serves two hours longer.
    let nodes = [node(folder.path(), 1, 100..102, 100_000), node(folder.path(), 2, 101..104, 300_000)];
    let one_operator = nodes[0].operator.clone();
    let stranger = gateway::operator(&[3; 32]).unwrap();
    for (number, (operator, hour)) in [
        (&nodes[0].operator, 100),
        (&nodes[0].operator, 101),
        (&nodes[1].operator, 101),
        (&nodes[1].operator, 103),
        // Of nobody's period, and of nobody here.
        (&nodes[1].operator, 100),
        (&stranger, 101),
    ]
    .into_iter()
    .enumerate()
    {
        time.store((hour * HOUR + number as u64) as i64, SeqCst);
        let (id, customer) = (format!("request-{number}"), ada.clone());
        ledger
            .hold(Hold { id: id.clone(), customer, amount: Micros(4_000_000), expires_at: i64::MAX / 2 })
            .await
            .unwrap();
        ledger.settle(settlement(operator, &id, 1_000_000 << (number % 2))).await.unwrap();
    }
    // The fourth receipt is in the other node's log only.
    let stands = |operator: &AccountId, receipt: &str| receipt != "request-3-receipt" || *operator == one_operator;
    let reports = report(&ledger, &nodes, &stands).await.unwrap();
    let [one, two] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!((one.of(Standing::Good).answers, one.of(Standing::Good).amount), (2, 3_000_000));
    assert_eq!((two.of(Standing::Good).amount, two.of(Standing::Unverified).amount), (1_000_000, 2_000_000));
    assert_eq!((one.returns().revenue, one.returns().economic_profit), (1_500_000, 1_400_000));
    assert_eq!((two.returns().revenue, two.returns().economic_profit), (333_333, 33_333));
    let together = Returns::together(&reports);
    assert_eq!((together.revenue, together.economic_profit, together.busy_ppm), (800_000, 580_000, 250_000));
    // 45 good tokens for 1.1 dollars.
    assert_eq!(together.goodput_per_dollar, Some(41));
    for (node, told) in nodes.into_iter().zip(&reports) {
        assert_eq!(&report(&ledger, &[node], &stands).await.unwrap()[0], told, "by itself it says the same");
    }
}
