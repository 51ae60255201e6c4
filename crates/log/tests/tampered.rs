//! Proofs that were tampered with are refused: a generator changes every field.
//!
//! `cargo test --release -p lockstep-log --test tampered -- --ignored --nocapture` does it 20,000 times.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{entry, signed, tree, verifier};
use tlog::{Proof, consistency_proof, inclusion_proof, leaf_hash, root, verify_consistency};

/// A small generator: the same numbers in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

fn tamper(times: usize) {
    let mut chance = Chance(20_261_120);
    let size = 1000;
    let (tree, fork) = (tree(size), {
        let mut fork = support::tree(500);
        (500..size).for_each(|index| fork.push(leaf_hash(&entry(index + 1))));
        fork
    });
    let (mut refused, mut by_field) = (0, [0usize; 8]);
    while refused < times {
        let field = chance.below(by_field.len());
        let index = chance.below(size as usize) as u64;
        let head_size = index + 1 + chance.below((size - index) as usize) as u64;
        let honest =
            Proof { index, hashes: inclusion_proof(&tree, index, head_size).unwrap(), head: signed(head_size, &tree) };
        let mut proof = honest.clone();
        let mut leaf = entry(index);
        match field {
            0 => proof.index = chance.below(2 * size as usize) as u64,
            1 if !proof.hashes.is_empty() => {
                let at = chance.below(proof.hashes.len());
                proof.hashes[at][chance.below(32)] ^= 1 << chance.below(8);
            }
            2 if !proof.hashes.is_empty() => drop(proof.hashes.remove(chance.below(proof.hashes.len()))),
            3 => proof.hashes.insert(chance.below(proof.hashes.len() + 1), [chance.below(256) as u8; 32]),
            4 => proof.head = signed(1 + chance.below(size as usize) as u64, &tree),
            5 if index >= 500 || head_size > 500 => proof.head = signed(head_size, &fork),
            6 => {
                let at = chance.below(leaf.len());
                leaf[at] ^= 1 << chance.below(8);
            }
            7 => {
                let mut bytes = proof.to_string().into_bytes();
                let at = chance.below(bytes.len());
                bytes[at] ^= 1 << chance.below(8);
                match Proof::parse(&bytes) {
                    Ok(read) => proof = read,
                    Err(_) => {
                        refused += 1;
                        by_field[field] += 1;
                        continue;
                    }
                }
            }
            _ => continue,
        }
        if proof == honest && leaf == entry(index) {
            continue;
        }
        assert!(proof.verify(&leaf, &verifier()).is_err(), "field {field}: {proof}");
        refused += 1;
        by_field[field] += 1;
    }
    assert!(by_field.iter().all(|count| *count > 0));
    println!("{refused} tampered proofs of inclusion refused, by field: {by_field:?}");

    let mut by_field = [0usize; 4];
    for _ in 0..times {
        let old = 1 + chance.below(size as usize - 1) as u64;
        let mut proof = consistency_proof(&tree, old, size).unwrap();
        let (mut old_root, mut whole) = (root(&tree, old).unwrap(), root(&tree, size).unwrap());
        let field = chance.below(by_field.len());
        match field {
            0 => old_root[chance.below(32)] ^= 1 << chance.below(8),
            1 => whole[chance.below(32)] ^= 1 << chance.below(8),
            2 => {
                let at = chance.below(proof.len());
                proof[at][chance.below(32)] ^= 1 << chance.below(8);
            }
            _ => proof.truncate(chance.below(proof.len())),
        }
        assert!(!verify_consistency(old, &old_root, size, &whole, &proof), "field {field}, {old}");
        by_field[field] += 1;
    }
    println!("{times} tampered proofs of consistency refused, by field: {by_field:?}");
}

#[test]
fn tampered_proofs_are_refused() {
    tamper(300);
}

#[test]
#[ignore = "the whole of it: some seconds"]
fn ten_thousand_tampered_proofs_of_each_kind_are_refused() {
    tamper(10_000);
}
