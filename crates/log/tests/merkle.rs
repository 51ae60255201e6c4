//! Roots and proofs are RFC 6962's, and no other proof is believed.

mod support;

use proptest::prelude::*;
use support::{entry, tree};
use tlog::{
    Hash, Hashes, Tile, consistency_proof, empty_root, inclusion_proof, leaf_hash, node_hash, root, verify_consistency,
    verify_inclusion,
};
use tlog_tiles::tlog as other;

/// The definitions as RFC 6962 writes them.
mod definition {
    use super::*;

    pub(super) fn tree(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => empty_root(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                node_hash(&tree(left), &tree(right))
            }
        }
    }

    pub(super) fn path(index: usize, leaves: &[Hash]) -> Vec<Hash> {
        if leaves.len() == 1 {
            return vec![];
        }
        let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
        if index < left.len() {
            [path(index, left), vec![tree(right)]].concat()
        } else {
            [path(index - left.len(), right), vec![tree(left)]].concat()
        }
    }

    pub(super) fn proof(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
        if old == leaves.len() {
            return if whole { vec![] } else { vec![tree(leaves)] };
        }
        let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
        if old <= left.len() {
            [proof(old, left, whole), vec![tree(right)]].concat()
        } else {
            [proof(old - left.len(), right, false), vec![tree(left)]].concat()
        }
    }
}

fn leaves(size: u64) -> Vec<Hash> {
    (0..size).map(|index| leaf_hash(&entry(index))).collect()
}

#[test]
fn roots_and_proofs_are_those_of_the_definition_and_are_believed() {
    for size in (0..70).chain([127, 128, 129, 200]) {
        let (tree, leaves) = (tree(size), leaves(size));
        let whole = root(&tree, size).unwrap();
        assert_eq!(whole, definition::tree(&leaves));
        for index in 0..size {
            let proof = inclusion_proof(&tree, index, size).unwrap();
            assert_eq!(proof, definition::path(index as usize, &leaves), "{index} of {size}");
            assert!(verify_inclusion(&leaves[index as usize], index, size, &whole, &proof));
        }
        assert!(inclusion_proof(&tree, size, size).is_err());
        for old in 0..=size {
            let proof = consistency_proof(&tree, old, size).unwrap();
            let old_root = root(&tree, old).unwrap();
            if old > 0 {
                assert_eq!(proof, definition::proof(old as usize, &leaves, true), "{old} to {size}");
            }
            assert!(verify_consistency(old, &old_root, size, &whole, &proof), "{old} to {size}");
        }
        assert!(consistency_proof(&tree, size + 1, size).is_err());
    }
}

/// Hashes for the other implementation, by its numbering.
struct Numbered(Vec<other::Hash>);

impl other::HashReader for Numbered {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<other::Hash>, other::Error> {
        Ok(indexes.iter().map(|index| self.0[*index as usize]).collect())
    }
}

#[test]
fn another_implementation_makes_the_same_proofs_and_believes_them() {
    let mut numbered = Numbered(vec![]);
    for index in 0..300 {
        let new = other::stored_hashes(index, &entry(index), &numbered).unwrap();
        numbered.0.extend(new);
    }
    let tree = tree(300);
    let theirs = |proof: &[Hash]| proof.iter().map(|hash| other::Hash(*hash)).collect::<Vec<_>>();
    for size in [1, 2, 3, 64, 100, 255, 256, 257, 300] {
        let whole = root(&tree, size).unwrap();
        assert_eq!(other::tree_hash(size, &numbered).unwrap().0, whole);
        for index in (0..size).step_by(7) {
            let proof = inclusion_proof(&tree, index, size).unwrap();
            assert!(other::prove_record(size, index, &numbered).unwrap() == theirs(&proof));
            let leaf = other::Hash(leaf_hash(&entry(index)));
            other::check_record(&theirs(&proof), size, other::Hash(whole), index, leaf).unwrap();
            let old_root = root(&tree, index + 1).unwrap();
            let proof = consistency_proof(&tree, index + 1, size).unwrap();
            assert!(other::prove_tree(size, index + 1, &numbered).unwrap() == theirs(&proof));
            other::check_tree(&theirs(&proof), size, other::Hash(whole), index + 1, other::Hash(old_root)).unwrap();
        }
    }
}

#[test]
fn tiles_have_the_names_that_another_implementation_gives_them() {
    for (level, index, width) in
        [(Some(0), 0, 256), (Some(1), 999, 1), (Some(2), 1000, 255), (Some(63), 1_234_067, 256), (None, 1_234_067, 17)]
    {
        let tile = Tile { level, index, width };
        // It writes the height of tiles as well, and names those of entries otherwise, as older logs do.
        let theirs = tlog_tiles::Tile::new(8, level.unwrap_or(0), index, width.into(), level.is_none()).path();
        let theirs = theirs.replacen("tile/8/", "tile/", 1).replacen("/data/", "/entries/", 1);
        assert_eq!(tile.path(), theirs);
        assert_eq!(Tile::parse(&theirs), Some(tile));
    }
    assert_eq!(Tile { level: Some(0), index: 1_234_067, width: 256 }.path(), "tile/0/x001/x234/067");
    for path in [
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/0/x000/000",
        "tile/0/1000",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/0/+01",
        "tile/-1/000",
        "tile/0/000/",
        "tile/0/x001",
        "tile//000",
        "tile/entries/",
        "tile/0/../000",
        "tile/0/x999/x999/x999/x999/x999/x999/x999/999",
    ] {
        assert_eq!(Tile::parse(path), None, "{path}");
    }
}

#[test]
fn a_tile_is_there_if_the_log_is_long_enough() {
    let tile = |level, index, width| Tile { level: Some(level), index, width };
    assert!(tile(0, 0, 5).is_within(5) && !tile(0, 0, 6).is_within(5));
    assert!(tile(0, 0, 256).is_within(256) && !tile(1, 0, 1).is_within(255) && tile(1, 0, 1).is_within(256));
    assert!(Tile::entries(1, 44).is_within(300) && !Tile::entries(1, 45).is_within(300));
    assert!(!tile(63, u64::MAX, 256).is_within(u64::MAX) && !tile(8, 0, 1).is_within(u64::MAX));
}

proptest! {
    #[test]
    fn a_changed_proof_leaf_place_size_or_root_is_not_believed(
        size in 2u64..300, at in any::<u64>(), what in 0usize..6, bit in 0usize..256,
    ) {
        let (tree, index) = (tree(size), at % size);
        let mut leaf = leaf_hash(&entry(index));
        let mut whole = root(&tree, size).unwrap();
        let mut proof = inclusion_proof(&tree, index, size).unwrap();
        let (mut index, mut claimed) = (index, size);
        match what {
            0 => leaf[bit / 8] ^= 1 << (bit % 8),
            1 => whole[bit / 8] ^= 1 << (bit % 8),
            2 => { let i = at as usize % proof.len(); proof[i][bit / 8] ^= 1 << (bit % 8); }
            3 => { proof.remove(at as usize % proof.len()); }
            4 => proof.push([0; 32]),
            _ => {
                // Another place of the same tree; the size alone need not change the way to the root.
                index = (index + 1 + at % (size - 1)) % size;
                claimed = size;
            }
        }
        prop_assert!(!verify_inclusion(&leaf, index, claimed, &whole, &proof));
    }

    #[test]
    fn a_changed_consistency_proof_is_not_believed(
        size in 2u64..300, at in any::<u64>(), what in 0usize..5, bit in 0usize..256,
    ) {
        let (tree, old) = (tree(size), 1 + at % (size - 1));
        let mut old_root = root(&tree, old).unwrap();
        let mut whole = root(&tree, size).unwrap();
        let mut proof = consistency_proof(&tree, old, size).unwrap();
        match what {
            0 => old_root[bit / 8] ^= 1 << (bit % 8),
            1 => whole[bit / 8] ^= 1 << (bit % 8),
            2 => { let i = at as usize % proof.len(); proof[i][bit / 8] ^= 1 << (bit % 8); }
            3 => { proof.remove(at as usize % proof.len()); }
            _ => proof.push([0; 32]),
        }
        prop_assert!(!verify_consistency(old, &old_root, size, &whole, &proof));
    }

    #[test]
    fn arbitrary_numbers_and_proofs_never_panic(
        numbers in any::<[u64; 2]>(), proof in proptest::collection::vec(any::<Hash>(), 0..130), hash in any::<Hash>(),
    ) {
        prop_assert!(!verify_inclusion(&hash, numbers[0], numbers[1], &[0; 32], &proof));
        prop_assert!(!verify_consistency(numbers[0], &hash, numbers[1], &[0; 32], &proof) || numbers[0] == 0);
    }

    #[test]
    fn paths_of_tiles_read_back(path in "(tile/)?([0-9]{1,2}|entries)/(x[0-9]{3}/){0,3}[0-9]{1,3}(\\.p/[0-9]{1,3})?") {
        if let Some(tile) = Tile::parse(&path) {
            prop_assert_eq!(tile.path(), path);
        }
    }
}

#[test]
fn a_hash_beyond_the_tree_is_an_error() {
    assert!(tree(3).hash(0, 3).is_err() && tree(3).hash(2, 0).is_err());
}
