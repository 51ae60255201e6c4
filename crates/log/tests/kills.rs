//! A log that is killed at any instant has lost nothing it acknowledged and never contradicts a head it published.
//!
//! `cargo test --release -p lockstep-log --test kills -- --ignored hundreds_of_kills --nocapture` kills it 300 times.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use support::{entries, entry, key, verifier};
use tlog::{Head, Limits, Log, Note, verify_consistency};

const CHILD_FOLDER: &str = "LOCKSTEP_TEST_FOLDER";

/// Tiles are written all the time.
const TINY: Limits = Limits { tail_entries: 256, tail_bytes: 1 << 20 };

fn open(folder: &Path) -> Log {
    Log::open(folder, support::ORIGIN, key(), TINY).unwrap()
}

/// Not a test of its own: the log that the next tests kill.
#[test]
#[ignore = "run by the next tests"]
fn append_until_killed() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let log = open(Path::new(&folder));
    let mut told = std::io::stdout();
    for group in 0.. {
        let first = log.size();
        let appended = log.append(&entries(first..first + 1 + group % 97)).unwrap();
        let line = if group % 3 == 0 {
            let note = log.head().unwrap().1;
            format!("head {}\n", note.to_string().replace('\n', "|"))
        } else {
            format!("size {}\n", appended.size)
        };
        // One call, so that a line is told whole or not at all.
        told.write_all(line.as_bytes()).unwrap();
    }
}

/// Kills the child so long after it first told of something, or after its start if that is not waited for; gives the size it
/// last acknowledged and the heads it published.
fn run_and_kill(folder: &Path, after: Duration, waits: bool) -> (u64, Vec<Head>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "append_until_killed", "--ignored", "--nocapture", "--quiet"])
        .env(CHILD_FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let output = child.stdout.take().unwrap();
    let (tells, told) = channel();
    let reader = std::thread::spawn(move || {
        let (mut size, mut heads) = (0, vec![]);
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(told) = line.strip_prefix("size ") {
                size = told.parse().unwrap();
            } else if let Some(told) = line.strip_prefix("head ") {
                let note = told.replace('|', "\n");
                let head = Head::verify(note.as_bytes(), &verifier()).unwrap();
                size = head.size;
                heads.push(head);
            }
            if size > 0 {
                // Only the first is waited for.
                let _ = tells.send(());
            }
        }
        (size, heads)
    });
    let began = !waits || told.recv_timeout(Duration::from_secs(60)).is_ok();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(began, "the child tells of nothing");
    reader.join().unwrap()
}

fn kill(times: u64) {
    let folder = tempfile::tempdir().unwrap();
    // A small generator: other instants every time, the same in every run.
    let mut state = 20_261_120u64;
    let (mut published, mut acknowledged): (Vec<Head>, u64) = (vec![], 0);
    let (mut round, mut enough, mut last) = (0, false, Instant::now());
    // Where kills come before much is done, there are more of them.
    while round < times || !enough {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let after = Duration::from_micros(20_000 + (state >> 33) % 60_000);
        // Every fourth kill may come while the log is being opened.
        let (size, heads) = run_and_kill(folder.path(), after, round % 4 != 3);
        acknowledged = acknowledged.max(size);
        published.extend(heads);
        let log = open(folder.path());
        let (head, note) = log.head().unwrap();
        assert!(head.size >= acknowledged, "round {round}: {} of {acknowledged} entries are left", head.size);
        Note::parse(note.to_string().as_bytes()).unwrap().verify(&verifier()).unwrap();
        for index in (0..head.size).rev().take(300).chain((0..head.size).step_by(1009)) {
            assert_eq!(log.entry(index).unwrap(), entry(index));
        }
        // Every head ever published is a beginning of what is there.
        let keep = published.len().saturating_sub(50);
        for old in published[keep..].iter().chain(published.iter().step_by(101)) {
            let proof = log.prove_consistency(old.size, head.size).unwrap();
            assert!(verify_consistency(old.size, &old.root, head.size, &head.root, &proof), "round {round}: a fork");
        }
        enough = acknowledged > 100 && !published.is_empty();
        round += 1;
        if round <= times {
            last = Instant::now();
        }
        assert!(enough || last.elapsed() < Duration::from_secs(60), "{acknowledged} entries acknowledged");
    }
    println!("{round} kills, {acknowledged} entries acknowledged, {} heads published, none lost", published.len());
}

#[test]
fn a_few_kills_lose_nothing() {
    kill(8);
}

#[test]
#[ignore = "takes a minute"]
fn hundreds_of_kills_lose_nothing() {
    kill(300);
}
