//! The trace's root: a Merkle tree in the shape of RFC 6962 over one leaf per computed position.
//!
//! A node is `BLAKE3(0x12 ‖ left ‖ right)`; the left side of a tree of n leaves holds the largest power of two below n.
//! Leaves are hashes of another domain already and enter as they are. Because a page's 64 positions are a power of two,
//! this one tree is also the tree over the roots of pages, so that the root of a cached page is computed once.

use crate::hash::{Domain, Hash, Salt, salted};

/// Positions in a page.
pub const PAGE: usize = 64;

/// The root over the leaves of one page: 64 of them, or fewer at the end.
pub fn page_root(leaves: &[Hash]) -> Hash {
    tree(leaves)
}

/// The salted root over the leaves of all positions.
pub fn root(leaves: &[Hash], salt: &Salt) -> Hash {
    let pages: Vec<Hash> = leaves.chunks(PAGE).map(page_root).collect();
    root_of_pages(&pages, salt)
}

/// The salted root over the roots of all pages.
pub fn root_of_pages(page_roots: &[Hash], salt: &Salt) -> Hash {
    salted(Domain::Trace, salt, &tree(page_roots))
}

/// The empty tree is a node of nothing.
fn tree(leaves: &[Hash]) -> Hash {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level =
            level.chunks(2).map(|pair| if let [left, right] = pair { node(left, right) } else { pair[0] }).collect();
    }
    level.first().copied().unwrap_or_else(|| *blake3::hash(&[Domain::TraceNode as u8]).as_bytes())
}

fn node(left: &Hash, right: &Hash) -> Hash {
    // At once: a hasher that is fed piece by piece takes twice as long for so few bytes.
    let mut content = [Domain::TraceNode as u8; 65];
    content[1..33].copy_from_slice(left);
    content[33..].copy_from_slice(right);
    *blake3::hash(&content).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(root(&leaves, &salt), salted(Domain::Trace, &salt, &by_definition(&leaves)), "{count} leaves");
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
