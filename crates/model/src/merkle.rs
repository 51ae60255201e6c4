//! Merkle trees in the shape of RFC 6962 over BLAKE3: a leaf is `BLAKE3(0 ‖ data)`, a node `BLAKE3(1 ‖ left ‖ right)`,
//! the left side of a tree of n leaves holds the largest power of two below n, and the empty tree is `BLAKE3()`.
//!
//! ```
//! use model::merkle;
//!
//! let leaves: Vec<_> = ["a", "b", "c"].iter().map(|data| merkle::leaf(data.as_bytes())).collect();
//! let root = merkle::root(&leaves);
//! let path = merkle::proof(&leaves, 2).unwrap_or_default();
//! assert!(merkle::verify(&root, 3, 2, &leaves[2], &path));
//! assert!(!merkle::verify(&root, 3, 1, &leaves[2], &path));
//! ```

use crate::parallel::give_way;
use exact::Isa;
use exact::hash::{CHUNK_BYTES, LANES, many};

/// 32 bytes of BLAKE3.
pub type Hash = [u8; 32];

/// Nodes that are hashed before others may have this core.
const NODES: usize = 64 * LANES;

/// Hash of a leaf's data.
pub fn leaf(data: &[u8]) -> Hash {
    *blake3::Hasher::new().update(&[0]).update(data).finalize().as_bytes()
}

/// Hash of a node.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut data = [1u8; 65];
    data[1..33].copy_from_slice(left);
    data[33..].copy_from_slice(right);
    *blake3::hash(&data).as_bytes()
}

/// Hashes of as many messages as there is room for, all of one length, one behind the other: side by side, unless there are so few
/// that the chunks of each are more.
///
/// # Panics
/// If the messages cannot be of one length.
pub fn hash_each(isa: Isa, messages: &[u8], hashes: &mut [Hash]) {
    let length = messages.len().checked_div(hashes.len()).unwrap_or_default();
    assert_eq!(messages.len(), length * hashes.len(), "messages of one length, one behind the other");
    for (number, hashes) in hashes.chunks_mut(LANES).enumerate() {
        let messages = &messages[number * LANES * length..][..hashes.len() * length];
        if hashes.len() > length.div_ceil(CHUNK_BYTES) {
            many(isa, messages, length, hashes);
        } else {
            for (number, hash) in hashes.iter_mut().enumerate() {
                *hash = *blake3::hash(&messages[number * length..][..length]).as_bytes();
            }
        }
    }
}

/// The level above: neighbours joined, an odd last one carried up as it is.
fn above(level: &[Hash]) -> Vec<Hash> {
    let (pairs, left_over) = level.as_chunks::<2>();
    let mut above = vec![[0; 32]; pairs.len()];
    let mut messages = vec![];
    for (pairs, hashes) in pairs.chunks(NODES).zip(above.chunks_mut(NODES)) {
        messages.clear();
        for pair in pairs {
            messages.push(1);
            messages.extend_from_slice(pair.as_flattened());
        }
        hash_each(Isa::best(), &messages, hashes);
        give_way();
    }
    above.extend_from_slice(left_over);
    above
}

/// Root of the tree over these leaf hashes.
pub fn root(leaves: &[Hash]) -> Hash {
    if leaves.is_empty() {
        return *blake3::hash(b"").as_bytes();
    }
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = above(&level);
    }
    level[0]
}

/// The hashes beside the way from leaf `index` to the root, lowest first; none if there is no such leaf.
pub fn proof(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    let (mut level, mut index, mut path) = (leaves.to_vec(), index, vec![]);
    while level.len() > 1 {
        path.extend(level.get(index ^ 1));
        level = above(&level);
        index /= 2;
    }
    Some(path)
}

/// Whether `leaf` is number `index` of the `count` leaves under `root`, by the `path` that [`proof`] gave.
pub fn verify(root: &Hash, count: usize, index: usize, leaf: &Hash, path: &[Hash]) -> bool {
    if index >= count {
        return false;
    }
    let (mut hash, mut index, mut width, mut path) = (*leaf, index, count, path.iter());
    while width > 1 {
        if index % 2 == 1 || index + 1 < width {
            let Some(beside) = path.next() else { return false };
            hash = if index % 2 == 1 { node(beside, &hash) } else { node(&hash, beside) };
        }
        index /= 2;
        width = width.div_ceil(2);
    }
    hash == *root && path.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition as RFC 6962 writes it.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => *blake3::hash(b"").as_bytes(),
            [leaf] => *leaf,
            _ => {
                let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
                node(&by_definition(left), &by_definition(right))
            }
        }
    }

    #[test]
    fn roots_are_those_of_the_definition_also_where_nodes_come_in_portions() {
        for count in (0..70).chain([2 * NODES - 1, 2 * NODES, 2 * NODES + 1, 4 * NODES + 3]) {
            let leaves: Vec<Hash> = (0..count).map(|i| leaf(&i.to_le_bytes())).collect();
            assert_eq!(root(&leaves), by_definition(&leaves), "{count} leaves");
        }
    }

    #[test]
    fn messages_side_by_side_have_the_hashes_they_have_alone() {
        for length in [0, 1, 17, 64, 65, 1023, 1024, 1025, 3000, 17_000] {
            for (isa, count) in
                Isa::available().into_iter().flat_map(|isa| [0, 1, 2, 15, 16, 17, 40].map(|count| (isa, count)))
            {
                let messages: Vec<u8> = (0..length * count).map(|i| (i * 31 % 251) as u8).collect();
                let mut hashes = vec![[0; 32]; count];
                hash_each(isa, &messages, &mut hashes);
                for (number, hash) in hashes.iter().enumerate() {
                    let message = &messages[number * length..][..length];
                    assert_eq!(blake3::hash(message).as_bytes(), hash, "{count} of {length} bytes");
                }
            }
        }
    }
}
