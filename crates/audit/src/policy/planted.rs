//! **Rule.** Among the receipts an auditor is given are some that are known to be bad, made by whoever assigns the work and
//! committed to beforehand. An auditor who does not look says "equal" to one of them sooner or later: one planted receipt
//! passed as true is proof, since the commitment opens to it. Planted receipts look like any other: same models, same
//! lengths, bad in a place drawn at random.

use receipt::Hash;
use std::collections::BTreeMap;

/// The planted receipts of one batch: a salt, and why each is bad (the position that differs).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planted {
    salt: [u8; 32],
    bad: BTreeMap<Hash, u64>,
}

/// How an auditor did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Score {
    /// Planted receipts that were found, at the right position.
    pub found: usize,
    /// Planted receipts said to be true, or not answered, or found at another position: proofs that it did not look.
    pub missed: Vec<Hash>,
}

impl Planted {
    /// Of receipts and the positions that differ; `salt` is 32 random bytes.
    pub fn new(salt: [u8; 32], bad: impl IntoIterator<Item = (Hash, u64)>) -> Planted {
        Planted { salt, bad: bad.into_iter().collect() }
    }

    /// What is published before the batch is given out.
    pub fn commitment(&self) -> Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"lockstep planted 1").update(&self.salt);
        for (receipt, position) in &self.bad {
            hasher.update(receipt).update(&position.to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// Scores an auditor's verdicts: the first position that differs, none for a true receipt. Anyone who has the opened list
    /// computes the same.
    pub fn score(&self, verdicts: &BTreeMap<Hash, Option<u64>>) -> Score {
        let right = |(receipt, position): &(&Hash, &u64)| verdicts.get(*receipt) == Some(&Some(**position));
        let (found, missed): (Vec<_>, Vec<_>) = self.bad.iter().partition(right);
        Score { found: found.len(), missed: missed.into_iter().map(|(receipt, _)| *receipt).collect() }
    }

    /// The chance that an auditor who looks at a share `honest` of its receipts misses none of so many planted ones.
    pub fn chance_to_pass(honest: f64, planted: u32) -> f64 {
        honest.clamp(0.0, 1.0).powi(i32::try_from(planted).unwrap_or(i32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_auditor_who_does_not_look_is_proven_not_to() {
        let planted = Planted::new([7; 32], [([1; 32], 40), ([2; 32], 3)]);
        let honest = BTreeMap::from([([1; 32], Some(40)), ([2; 32], Some(3)), ([9; 32], None)]);
        assert_eq!(planted.score(&honest), Score { found: 2, missed: vec![] });
        let lazy = BTreeMap::from([([1; 32], None), ([2; 32], None), ([9; 32], None)]);
        assert_eq!(planted.score(&lazy).missed, [[1; 32], [2; 32]]);
        let guessing = BTreeMap::from([([1; 32], Some(40)), ([2; 32], Some(4))]);
        assert_eq!(planted.score(&guessing), Score { found: 1, missed: vec![[2; 32]] });
    }

    #[test]
    fn the_list_cannot_be_changed_after_it_was_committed_to() {
        let planted = Planted::new([7; 32], [([1; 32], 40)]);
        for other in [
            Planted::new([8; 32], [([1; 32], 40)]),
            Planted::new([7; 32], [([1; 32], 41)]),
            Planted::new([7; 32], [([1; 32], 40), ([2; 32], 1)]),
        ] {
            assert_ne!(other.commitment(), planted.commitment());
        }
        assert!((Planted::chance_to_pass(0.9, 20) - 0.1216).abs() < 1e-3);
    }
}
