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

/// 32 bytes of BLAKE3.
pub type Hash = [u8; 32];

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

/// The level above: neighbours joined, an odd last one carried up as it is.
fn above(level: &[Hash]) -> Vec<Hash> {
    level
        .chunks(2)
        .map(|pair| match pair {
            [left, right] => node(left, right),
            _ => pair[0],
        })
        .collect()
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
