//! Merkle trees in the shape of RFC 6962, of any kind of node: opened by consecutive leaves, and walked down by two
//! parties who differ.

use std::ops::Range;

/// 32 bytes of BLAKE3.
pub type Hash = [u8; 32];

/// A kind of tree, named by the byte its nodes are hashed with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tree(pub u8);

/// Over the leaves of all positions (docs/receipts.md, section 3).
pub const TRACE: Tree = Tree(0x12);
/// Over the rows of a step, and over the steps of a position (docs/disputes.md).
pub const STEPS: Tree = Tree(0x32);
/// Over the rows of a tensor (docs/digests.md).
pub const WEIGHTS: Tree = Tree(1);

/// Hash of a row of a step.
pub fn row_hash(bytes: &[u8]) -> Hash {
    *blake3::Hasher::new().update(&[0x31]).update(bytes).finalize().as_bytes()
}

/// Leaves on the left side of a node over `count` of them, more than one.
pub fn left_count(count: usize) -> usize {
    count.next_power_of_two() / 2
}

impl Tree {
    /// A node's hash.
    pub fn node(self, left: &Hash, right: &Hash) -> Hash {
        let mut data = [self.0; 65];
        data[1..33].copy_from_slice(left);
        data[33..].copy_from_slice(right);
        *blake3::hash(&data).as_bytes()
    }

    /// Root over these leaves, at least one: a single leaf is its own root.
    pub fn root(self, leaves: &[Hash]) -> Hash {
        let mut level = leaves.to_vec();
        while level.len() > 1 {
            let above = |pair: &[Hash]| if let [left, right] = pair { self.node(left, right) } else { pair[0] };
            level = level.chunks(2).map(above).collect();
        }
        level.first().copied().unwrap_or_else(|| *blake3::hash(&[self.0]).as_bytes())
    }

    /// The hashes that, with the leaves `range`, make the root: left to right.
    pub fn prove(self, leaves: &[Hash], range: &Range<usize>) -> Vec<Hash> {
        let mut proof = vec![];
        if range.start < range.end && range.end <= leaves.len() {
            self.collect(leaves, 0, range, &mut proof);
        }
        proof
    }

    fn collect(self, leaves: &[Hash], start: usize, range: &Range<usize>, proof: &mut Vec<Hash>) {
        let end = start + leaves.len();
        if end <= range.start || start >= range.end {
            proof.push(self.root(leaves));
        } else if start < range.start || end > range.end {
            let left = left_count(leaves.len());
            self.collect(&leaves[..left], start, range, proof);
            self.collect(&leaves[left..], start + left, range, proof);
        }
    }

    /// The root of a tree of `count` leaves whose leaves from `first` on are `known`, by the proof [`Tree::prove`] gave. None
    /// if they do not fit together.
    pub fn root_of(self, count: usize, first: usize, known: &[Hash], proof: &[Hash]) -> Option<Hash> {
        let range = first..first.checked_add(known.len())?;
        if known.is_empty() || range.end > count {
            return None;
        }
        let mut rest = proof;
        let root = self.rebuild(0..count, &range, known, &mut rest)?;
        rest.is_empty().then_some(root)
    }

    fn rebuild(self, node: Range<usize>, range: &Range<usize>, known: &[Hash], proof: &mut &[Hash]) -> Option<Hash> {
        if node.end <= range.start || node.start >= range.end {
            let (first, rest) = proof.split_first()?;
            *proof = rest;
            return Some(*first);
        }
        if range.start <= node.start && node.end <= range.end {
            return Some(self.root(&known[node.start - range.start..node.end - range.start]));
        }
        let middle = node.start + left_count(node.len());
        let left = self.rebuild(node.start..middle, range, known, proof)?;
        let right = self.rebuild(middle..node.end, range, known, proof)?;
        Some(self.node(&left, &right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes()).collect()
    }

    #[test]
    fn any_consecutive_leaves_open_the_root_and_nothing_else_does() {
        for count in [1usize, 2, 3, 5, 8, 13, 64, 65] {
            let leaves = leaves(count);
            let root = STEPS.root(&leaves);
            for first in 0..count {
                for end in first + 1..=count {
                    let proof = STEPS.prove(&leaves, &(first..end));
                    assert_eq!(STEPS.root_of(count, first, &leaves[first..end], &proof), Some(root));
                    let mut other = leaves[first..end].to_vec();
                    other[0][0] ^= 1;
                    assert_ne!(STEPS.root_of(count, first, &other, &proof), Some(root));
                    if first + 1 < count {
                        assert_ne!(STEPS.root_of(count, first + 1, &leaves[first..end], &proof), Some(root));
                    }
                    let longer = [&proof[..], &[[0; 32]]].concat();
                    assert_eq!(STEPS.root_of(count, first, &leaves[first..end], &longer), None);
                }
            }
        }
    }

    #[test]
    fn the_tree_is_that_of_the_weights() {
        let leaves = leaves(21);
        assert_eq!(WEIGHTS.root(&leaves), model::merkle::root(&leaves));
        assert_eq!(model::merkle::proof(&leaves, 20).map(|path| path.len()), Some(2));
        assert!(WEIGHTS.prove(&leaves, &(20..21)).len() == 2);
    }
}
