//! A log of a million receipts: `cargo test --release -p lockstep-log --test million -- --ignored --nocapture`.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::path::Path;
use std::time::Instant;
use support::{ORIGIN, key, verifier};
use tlog::{Folder, Limits, Log, Reader, name_of};

/// As long as a usual receipt.
fn entry(index: u64) -> Vec<u8> {
    let mut entry = vec![0; 510];
    entry[..8].copy_from_slice(&index.to_le_bytes());
    entry[100..132].copy_from_slice(blake3::hash(&index.to_le_bytes()).as_bytes());
    entry
}

fn open(folder: &Path) -> Log {
    Log::open(folder, ORIGIN, key(), Limits::default()).unwrap()
}

/// Megabytes of memory that are in use.
fn memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}

#[test]
#[ignore = "writes 600 MB"]
fn a_million_receipts_are_not_held_in_memory() {
    const SIZE: u64 = 1_000_000;
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let (before, started) = (memory_mb(), Instant::now());
    for first in (0..SIZE).step_by(200) {
        log.append(&(first..first + 200).map(entry).collect::<Vec<_>>()).unwrap();
    }
    println!("appended in {:.1} s, {} MB of memory more", started.elapsed().as_secs_f64(), memory_mb() - before);
    drop(log);
    let started = Instant::now();
    let log = open(folder.path());
    println!("opened in {:.3} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    for index in (0..SIZE).step_by(997) {
        assert_eq!(log.find(&name_of(&entry(index))).unwrap(), Some(index));
    }
    println!("a name found in {:.1} us", 1e6 * started.elapsed().as_secs_f64() / (SIZE / 997) as f64);
    let started = Instant::now();
    for index in (0..SIZE).step_by(9973) {
        log.prove(index).unwrap().verify(&entry(index), &verifier()).unwrap();
    }
    println!("an entry proved in {:.1} us", 1e6 * started.elapsed().as_secs_f64() / (SIZE / 9973) as f64);
    let started = Instant::now();
    let reader = Reader::open(Folder(folder.path().to_owned()), &verifier()).unwrap();
    let mut count = 0;
    reader
        .entries(|index, bytes| {
            assert_eq!(bytes, entry(index));
            count += 1;
            Ok(())
        })
        .unwrap();
    println!("all {count} read and checked in {:.1} s", started.elapsed().as_secs_f64());
    assert!(count == SIZE && memory_mb() < before + 200);
}
