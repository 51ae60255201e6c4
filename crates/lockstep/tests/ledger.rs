//! `lockstep ledger` and `lockstep statement`, as somebody types them.

#![expect(clippy::unwrap_used, reason = "tests")]

use ledger::{Config, Database, Hold, Ledger, Micros, Outcome, Settlement, Split, Usage};
use std::path::Path;
use std::process::Command;

/// What the command printed, and whether it was content.
fn told(data: &Path, arguments: &[&str]) -> (String, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
    let output = command.args(arguments).env("LOCKSTEP_DATA", data).env_remove("LOCKSTEP_DATABASE").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (text, output.status.success())
}

/// Books with one settled request, and a node's key beside them.
fn books(data: &Path) {
    let node = data.join("node");
    std::fs::create_dir_all(&node).unwrap();
    std::fs::write(node.join("node.key"), "07".repeat(32)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = Config::new(Database::Sqlite(node.join("ledger.sqlite")), node.join("ledger.spool"));
        let ledger = Ledger::open(config).await.unwrap();
        let ada: ledger::AccountId = "customer:ada".parse().unwrap();
        ledger.deposit("d1", &ada, Micros(5_000_000)).await.unwrap();
        let (id, expires_at) = ("r1".to_owned(), ledger.now() + 60_000_000);
        ledger.hold(Hold { id, customer: ada, amount: Micros(900), expires_at }).await.unwrap();
        let settlement = Settlement {
            hold: "r1".to_owned(),
            amount: Micros(100),
            operator: "operator:n1".parse().unwrap(),
            split: Split::standard(),
            usage: Usage { prompt: 10, cached: 0, output: 5, accepted: 0 },
            model: "sql".to_owned(),
            price: 1,
            receipt: None,
            outcome: Outcome::Paid,
            first_token_ms: None,
            total_ms: 3,
            late: false,
        };
        ledger.settle(settlement).await.unwrap();
    });
}

#[test]
fn orders_are_given_once_and_answered_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let (text, well) = told(data, &["ledger", "accounts"]);
    assert!(!well && text.contains("there is no ledger") && text.contains("--database"), "{text}");
    books(data);
    for before in ["d2: 1.500000", "d2 had been carried out before: 1.500000"] {
        let (text, well) = told(data, &["ledger", "deposit", "customer:ada", "1.5", "--id", "d2", "--note", "by hand"]);
        assert!(well && text.starts_with(before), "{text}");
    }
    let (text, _) = told(data, &["ledger", "accounts", "ada"]);
    assert!(text.contains("customer:ada") && text.contains("6.499900"), "{text}");
    let (text, _) = told(data, &["ledger", "show", "r1"]);
    assert!(text.contains("paid, 0.000100 of 0.000900 held") && text.contains("operator:n1"), "{text}");
    let (text, well) = told(data, &["ledger", "payout", "operator:n1", "0.00008"]);
    assert!(!well && text.contains("waits for the audit window"), "{text}");
    let (text, well) = told(data, &["ledger", "refund", "r1"]);
    assert!(well, "{text}");
    for wrong in
        [["deposit", "bank:ada", "1"], ["deposit", "customer:ada", "1.0000001"], ["deposit", "customer:ada", "0"]]
    {
        let (text, well) = told(data, &[&["ledger"][..], &wrong[..]].concat());
        assert!(!well && text.contains("error: "), "{text}");
    }
    let (text, well) = told(data, &["ledger", "check", "--all"]);
    assert!(well && text.contains("add up to zero; 4 transactions"), "{text}");
}

#[test]
fn statements_are_checked_without_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    books(folder.path());
    let out = folder.path().join("july");
    let at = |name: &str| out.join(name).display().to_string();
    let (text, well) = told(folder.path(), &["statement", "make", "--out", &at("")]);
    assert!(well && text.contains("5 accounts after 2 transactions add up to 0.000000"), "{text}");
    std::fs::remove_dir_all(folder.path().join("node")).unwrap();
    let verify =
        |file: &str, more: &[&str]| told(folder.path(), &[&["statement", "verify", &at(file)][..], more].concat());
    let (text, well) = verify("proofs/customer:ada", &["--account", "customer:ada"]);
    assert!(well && text.starts_with("holds: customer:ada had 4.999900"), "{text}");
    let (text, well) = verify("proofs/customer:ada", &["--account", "customer:bob"]);
    assert!(!well && text.contains("this is the proof of customer:ada, not of customer:bob"), "{text}");
    let (text, well) = verify("proofs/customer:ada", &["--node", &"00".repeat(32)]);
    assert!(!well && text.contains("not of 0000"), "{text}");
    let (text, well) = verify("balances", &[]);
    assert!(well && text.contains("each once, add up to zero"), "{text}");
    let (text, well) = verify("statement", &[]);
    assert!(well && text.starts_with("holds: signed; 5 accounts"), "{text}");
    let changed = std::fs::read_to_string(out.join("proofs/customer:ada")).unwrap().replace("4.999900", "4.999901");
    std::fs::write(out.join("changed"), changed).unwrap();
    let (text, well) = verify("changed", &[]);
    assert!(!well && text.contains("does not hold"), "{text}");
    // Nothing that was there is written over.
    books(folder.path());
    let (text, well) = told(folder.path(), &["statement", "make", "--out", &at("")]);
    assert!(!well && text.contains("exists"), "{text}");
}
