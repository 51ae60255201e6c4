//! The trace's root: a Merkle tree in the shape of RFC 6962 over one leaf per computed position.
//!
//! A node is `BLAKE3(0x12 ‖ left ‖ right)`; the left side of a tree of n leaves holds the largest power of two below n.
//! Leaves are hashes of another domain already and enter as they are. Because a page's 64 positions are a power of two,
//! this one tree is also the tree over the roots of pages, so that the root of a cached page is computed once.

use crate::hash::{Domain, Hash, Salt, salted};

/// Positions in a page.
pub const PAGE: usize = 64;

/// Bytes that a node is the hash of.
const NODE_BYTES: usize = 65;

/// The root over the leaves of one page: 64 of them, or fewer at the end.
pub fn page_root(leaves: &[Hash]) -> Hash {
    tree(leaves)
}

/// The salted root over the leaves of all positions.
pub fn root(leaves: &[Hash], salt: &Salt) -> Hash {
    root_with(leaves, salt, one_by_one)
}

/// The same for whoever hashes many short messages faster: `hash_each` is given messages of one length, one behind the other, and
/// room for their BLAKE3 hashes.
pub fn root_with(leaves: &[Hash], salt: &Salt, hash_each: impl FnMut(&[u8], &mut [Hash])) -> Hash {
    salted(Domain::Trace, salt, &tree_with(leaves, hash_each))
}

/// The salted root over the roots of all pages.
pub fn root_of_pages(page_roots: &[Hash], salt: &Salt) -> Hash {
    salted(Domain::Trace, salt, &tree(page_roots))
}

fn tree(leaves: &[Hash]) -> Hash {
    tree_with(leaves, one_by_one)
}

/// The empty tree is a node of nothing.
fn tree_with(leaves: &[Hash], mut hash_each: impl FnMut(&[u8], &mut [Hash])) -> Hash {
    let mut level = leaves.to_vec();
    let mut nodes = vec![];
    while level.len() > 1 {
        let (pairs, left_over) = level.as_chunks::<2>();
        nodes.clear();
        for pair in pairs {
            nodes.push(Domain::TraceNode as u8);
            nodes.extend_from_slice(pair.as_flattened());
        }
        let mut above = vec![[0; 32]; pairs.len()];
        hash_each(&nodes, &mut above);
        above.extend_from_slice(left_over);
        level = above;
    }
    level.first().copied().unwrap_or_else(|| *blake3::hash(&[Domain::TraceNode as u8]).as_bytes())
}

fn one_by_one(messages: &[u8], hashes: &mut [Hash]) {
    for (message, hash) in messages.chunks_exact(NODE_BYTES).zip(hashes) {
        *hash = *blake3::hash(message).as_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(left: &Hash, right: &Hash) -> Hash {
        *blake3::hash(&[&[0x12], &left[..], right].concat()).as_bytes()
    }

    /// The definition as RFC 6962 writes it.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => *blake3::hash(&[0x12]).as_bytes(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                node(&by_definition(left), &by_definition(right))
            }
        }
    }

    fn leaves(count: usize) -> Vec<Hash> {
        (0..count).map(|i| *blake3::hash(&i.to_le_bytes()).as_bytes()).collect()
    }

    #[test]
    fn the_tree_over_pages_is_the_tree_over_positions() {
        let salt = [7; 16];
        for count in (0..200).chain([255, 256, 257, 640, 1000]) {
            let leaves = leaves(count);
            let defined = salted(Domain::Trace, &salt, &by_definition(&leaves));
            assert_eq!(root(&leaves, &salt), defined, "{count} leaves");
            let pages: Vec<Hash> = leaves.chunks(PAGE).map(page_root).collect();
            assert_eq!(root_of_pages(&pages, &salt), defined, "{count} leaves");
        }
    }

    #[test]
    fn every_leaf_its_place_the_number_of_leaves_and_the_salt_decide_the_root() {
        let (leaves, salt) = (leaves(131), [7; 16]);
        let honest = root(&leaves, &salt);
        for i in 0..leaves.len() {
            let mut other = leaves.clone();
            other[i][31] ^= 1;
            assert_ne!(root(&other, &salt), honest);
            assert_ne!(root(&leaves[..i], &salt), honest);
        }
        let mut swapped = leaves.clone();
        swapped.swap(3, 4);
        assert_ne!(root(&swapped, &salt), honest);
        assert_ne!(root(&leaves, &[8; 16]), honest);
    }
}
