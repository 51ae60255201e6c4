//! Keys, logs and trees for tests.
#![expect(clippy::unwrap_used, reason = "test support")]
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses a part")]

use std::path::Path;
use tlog::{Head, Kind, Limits, Log, Memory, Note, SigningKey, VerifierKey, leaf_hash, root};

pub const ORIGIN: &str = "example.com/log";

/// Tiles are written after every 512 entries.
pub const SMALL: Limits = Limits { tail_entries: 512, tail_bytes: 1 << 20 };

pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub fn verifier() -> VerifierKey {
    VerifierKey::new(ORIGIN, Kind::Plain, key().verifying_key().as_bytes()).unwrap()
}

pub fn open(folder: &Path) -> Log {
    Log::open(folder, ORIGIN, key(), SMALL).unwrap()
}

pub fn entry(index: u64) -> Vec<u8> {
    format!("entry {index}").repeat(1 + index as usize % 5).into_bytes()
}

pub fn entries(range: std::ops::Range<u64>) -> Vec<Vec<u8>> {
    range.map(entry).collect()
}

/// The tree over entries `begin`, `begin + 1`, …
pub fn tree(size: u64) -> Memory {
    let mut tree = Memory::default();
    (0..size).for_each(|index| tree.push(leaf_hash(&entry(index))));
    tree
}

pub fn signed(size: u64, tree: &Memory) -> Note {
    Head { origin: ORIGIN.to_owned(), size, root: root(tree, size).unwrap() }.sign(&key()).unwrap()
}
