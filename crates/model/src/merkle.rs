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
pub fn hash_each(isa: Isa, messages: &[u8], hashes: &mut [Hash]) {
    let Some(length) = messages.len().checked_div(hashes.len()) else { return };
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
