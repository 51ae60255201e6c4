//! What logs and witnesses hand out: notes, heads, proofs, tiles, statements.
#![no_main]

use libfuzzer_sys::fuzz_target;
use receipt::{Monitor, Statement};
use tlog::{Head, Note, Proof, SigningKey, Tile, leaf_hash, split_entries, verifier_of};

fuzz_target!(|bytes: &[u8]| {
    let _ = Statement::parse(bytes);
    let node = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
    let _ = Monitor::new(node).read(bytes);
    if let Ok(note) = Note::parse(bytes) {
        let _ = Head::of(&note);
    }
    if let (Ok(proof), Ok(log)) = (Proof::parse(bytes), verifier_of(&node)) {
        assert!(proof.verify(bytes, &log).is_err());
    }
    if let Ok(path) = std::str::from_utf8(bytes)
        && let Some(tile) = Tile::parse(path)
    {
        assert_eq!(tile.path(), path);
    }
    if let Ok(entries) = split_entries(bytes) {
        for entry in entries {
            std::hint::black_box(leaf_hash(entry));
        }
    }
});
