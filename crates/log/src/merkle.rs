//! The tree of RFC 6962 over SHA-256: roots and proofs from the hashes of complete subtrees, wherever they are kept.

use crate::error::LogError;
use sha2::{Digest, Sha256};

/// 32 bytes of SHA-256.
pub type Hash = [u8; 32];

/// The most hashes in a proof: twice the height of the tallest tree is more than enough.
pub(crate) const PROOF_HASHES_MAX: usize = 128;

/// Hash of an entry: SHA-256(0 ‖ entry).
pub fn leaf_hash(entry: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(entry).finalize().into()
}

/// Hash of a node: SHA-256(1 ‖ left ‖ right).
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Root of the tree over nothing.
pub fn empty_root() -> Hash {
    Sha256::digest([]).into()
}

/// Where hashes of complete subtrees come from.
pub trait Hashes {
    /// Hash of the subtree over the 2^level entries that begin with entry index · 2^level. Only asked for subtrees that
    /// are within the tree.
    ///
    /// # Errors
    /// It cannot be read.
    fn hash(&self, level: u32, index: u64) -> Result<Hash, LogError>;
}

/// All leaves of a small tree, in memory.
#[derive(Clone, Default, Debug)]
pub struct Memory {
    leaves: Vec<Hash>,
}

impl Memory {
    /// Appends an entry's hash.
    pub fn push(&mut self, leaf: Hash) {
        self.leaves.push(leaf);
    }
}

impl Hashes for Memory {
    fn hash(&self, level: u32, index: u64) -> Result<Hash, LogError> {
        if level > 0 {
            return Ok(node_hash(&self.hash(level - 1, 2 * index)?, &self.hash(level - 1, 2 * index + 1)?));
        }
        let leaf = usize::try_from(index).ok().and_then(|index| self.leaves.get(index));
        leaf.copied().ok_or(LogError::Absent("a hash beyond the tree"))
    }
}

/// Roots of the complete subtrees that make up a tree, the largest first: one for every bit of its size.
#[derive(Clone, Default, Debug)]
pub(crate) struct Peaks {
    pub(crate) size: u64,
    pub(crate) roots: Vec<Hash>,
}

impl Peaks {
    pub(crate) fn push(&mut self, leaf: Hash) {
        // As many subtrees merge as carries ripple through the size.
        let mut peak = leaf;
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.roots.pop() {
                peak = node_hash(&left, &peak);
            }
        }
        self.roots.push(peak);
        self.size += 1;
    }

    pub(crate) fn root(&self) -> Hash {
        let mut roots = self.roots.iter().rev();
        let smallest = roots.next().copied();
        smallest.map_or_else(empty_root, |smallest| roots.fold(smallest, |right, left| node_hash(left, &right)))
    }
}

/// Root of the tree over the first `size` entries.
///
/// # Errors
/// A hash cannot be read.
pub fn root(hashes: &impl Hashes, size: u64) -> Result<Hash, LogError> {
    if size == 0 { Ok(empty_root()) } else { range(hashes, 0, size) }
}

/// Hashes that lead from entry `index` to the root over `size` entries: the leaf's sibling first.
///
/// # Errors
/// The entry is not among them, or a hash cannot be read.
pub fn inclusion_proof(hashes: &impl Hashes, index: u64, size: u64) -> Result<Vec<Hash>, LogError> {
    if index >= size {
        return Err(LogError::Absent("an entry beyond the log head"));
    }
    let (mut begin, mut end, mut proof) = (0, size, vec![]);
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            proof.push(range(hashes, middle, end)?);
            end = middle;
        } else {
            proof.push(range(hashes, begin, middle)?);
            begin = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// Hashes that show that the tree over `size` entries continues the one over `old`. Empty if one of them is.
///
/// # Errors
/// `old` is beyond `size`, or a hash cannot be read.
pub fn consistency_proof(hashes: &impl Hashes, old: u64, size: u64) -> Result<Vec<Hash>, LogError> {
    if old > size {
        return Err(LogError::Absent("a log head beyond the newest"));
    }
    if old == 0 || old == size {
        return Ok(vec![]);
    }
    let (mut begin, mut end, mut proof) = (0, size, vec![]);
    // The old tree's part of [begin, end) is [begin, old).
    while old < end {
        let middle = begin + split(end - begin);
        if old <= middle {
            proof.push(range(hashes, middle, end)?);
            end = middle;
        } else {
            proof.push(range(hashes, begin, middle)?);
            begin = middle;
        }
    }
    if begin > 0 {
        proof.push(range(hashes, begin, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Largest power of two below `count`, which is at least 2.
fn split(count: u64) -> u64 {
    1 << (u64::BITS - 1 - (count - 1).leading_zeros())
}

/// Hash of a subtree that begins where a split put it.
fn range(hashes: &impl Hashes, begin: u64, end: u64) -> Result<Hash, LogError> {
    let count = end - begin;
    if count.is_power_of_two() {
        let level = count.trailing_zeros();
        return hashes.hash(level, begin >> level);
    }
    let middle = begin + split(count);
    Ok(node_hash(&range(hashes, begin, middle)?, &range(hashes, middle, end)?))
}

/// Whether the proof leads from this leaf, entry `index`, to this root over `size` entries (RFC 9162, 2.1.3.2).
pub fn verify_inclusion(leaf: &Hash, index: u64, size: u64, root: &Hash, proof: &[Hash]) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether the proof shows that `root` over `size` entries continues `old_root` over `old` (RFC 9162, 2.1.4.2).
pub fn verify_consistency(old: u64, old_root: &Hash, size: u64, root: &Hash, proof: &[Hash]) -> bool {
    if old > size {
        return false;
    }
    if old == size {
        return proof.is_empty() && old_root == root;
    }
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    // A complete old tree is a subtree of the new one, and the proof does not repeat its root.
    let (first, rest) = match proof.split_first() {
        _ if old.is_power_of_two() => (old_root, proof),
        Some((first, rest)) => (first, rest),
        None => return false,
    };
    let (mut at, mut last) = (old - 1, size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old_hash, mut hash) = (*first, *first);
    for sibling in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old_hash = node_hash(sibling, &old_hash);
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old_hash == *old_root && hash == *root
}
