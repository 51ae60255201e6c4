//! The commands about logs, on small logs in folders.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use receipt::{Bundle, Seeds, seed};
use std::path::Path;
use support::{bundle, key, lockstep};
use tlog::{Limits, Log};

/// The first line the command printed, and whether it was content.
fn told(arguments: &[&str]) -> (String, bool) {
    let (text, content) = support::told(arguments);
    (text.lines().next().unwrap_or_default().to_owned(), content)
}

fn open(folder: &Path) -> Log {
    Log::open(folder, &tlog::origin_of(&key().verifying_key().to_bytes()), key(), Limits::default()).unwrap()
}

/// Appends receipts with these seeds; gives the last.
fn answer(log: &Log, seeds: &[u64]) -> Bundle {
    let mut bundles: Vec<Bundle> = vec![];
    for (number, seed) in (0..).zip(seeds) {
        let previous = bundles.last().map(|bundle| receipt::hash(&bundle.receipt));
        bundles.push(bundle(number, previous, *seed));
    }
    log.append(&bundles.iter().map(|bundle| bundle.receipt.clone()).collect::<Vec<_>>()).unwrap();
    log.head().unwrap();
    bundles.pop().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_log_is_checked_its_receipts_proved_and_its_heads_witnessed() {
    let place = tempfile::tempdir().unwrap();
    let (folder, head, witness) = (place.path().join("log"), place.path().join("head"), place.path().join("witness"));
    let log = open(&folder);
    let commitments = (0..4).map(|number| seed::commitment(number, &[9; 32])).collect();
    log.append(&[Seeds { first: 0, commitments, time_seconds: 0 }.sign(&key())]).unwrap();
    let last = answer(&log, &[1, 2, 3]);

    let (words, equal) = told(&["log", "check", text(&folder), "--keep", text(&head)]);
    assert!(
        equal && words.starts_with("equal: 4 entries of lockstep.node/") && words.contains("3 receipts"),
        "{words}"
    );
    let (key, _) = told(&["witness", "init", text(&witness), "witness.example.com/w"]);
    assert!(key.starts_with("witness.example.com/w+"), "{key}");
    assert!(!told(&["witness", "init", text(&witness), "witness.example.com/w"]).1, "a key is not replaced");
    assert!(told(&["witness", "cosign", text(&witness), text(&folder)]).1);

    let (bundle, proof) = (place.path().join("answer.receipt"), place.path().join("answer.tlog-proof"));
    std::fs::write(&bundle, last.to_bytes()).unwrap();
    let written = lockstep(&["log", "prove", text(&folder), "3"]);
    std::fs::write(&proof, written.stdout).unwrap();
    let (words, equal) = told(&["log", "verify", text(&bundle), text(&proof)]);
    assert!(equal && words.starts_with("equal: entry 3 of the 4"), "{words}");
    let (words, equal) = told(&["log", "verify", text(&bundle), text(&proof), "--witness", &key]);
    assert!(!equal && words.contains("not signed by witness.example.com/w"), "{words}");
    std::fs::write(&proof, lockstep(&["log", "prove", text(&folder), "2"]).stdout).unwrap();
    assert!(!told(&["log", "verify", text(&bundle), text(&proof)]).1);
    assert!(!told(&["log", "prove", text(&folder), "4"]).1);

    // Two histories: one goes on as it was, the other was told differently from the start.
    let fork = open(&place.path().join("fork"));
    answer(&fork, &[1, 2, 4, 5, 6, 7]);
    let (words, signed) = told(&["witness", "cosign", text(&witness), text(&place.path().join("fork"))]);
    assert!(!signed && words.contains("does not continue"), "{words}");
    let (words, equal) = told(&["log", "check", text(&place.path().join("fork")), "--since", text(&head)]);
    assert!(!equal && words.contains("does not continue"), "{words}");
    drop(log);
    let log = open(&folder);
    log.append(&[Seeds { first: 4, commitments: vec![[0; 32]], time_seconds: 0 }.sign(&self::key())]).unwrap();
    log.head().unwrap();
    assert!(told(&["log", "check", text(&folder), "--since", text(&head)]).1);
    assert!(told(&["witness", "cosign", text(&witness), text(&folder)]).1);
}

#[test]
fn a_fault_in_a_log_is_named() {
    let place = tempfile::tempdir().unwrap();
    let log = open(place.path());
    let last = answer(&log, &[1, 2]);
    log.append(&[last.receipt]).unwrap();
    log.head().unwrap();
    let (words, equal) = told(&["log", "check", text(place.path())]);
    assert!(
        !equal && words.contains("entry 2") && words.contains("receipt 2 was expected, this is number 1"),
        "{words}"
    );
    let other = "0".repeat(64);
    assert!(!told(&["log", "check", text(place.path()), "--node", &other]).1);
    assert!(!told(&["log", "check", text(&place.path().join("nothing"))]).1);
}
