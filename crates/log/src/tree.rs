//! The tree of a log that grows: full tiles on disk, the rest in memory.

use crate::error::LogError;
use crate::merkle::{Hash, Hashes, Peaks, node_hash};
use crate::tile::{TILE_WIDTH, Tile};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const WIDTH: usize = TILE_WIDTH as usize;

/// Hashes of all complete tiles' entries and of the unfinished right edge.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    folder: PathBuf,
    /// For every level the unfinished tile: fewer than 256 hashes.
    edge: Vec<Vec<Hash>>,
    /// Full tiles that are not on disk yet, by level and index.
    fresh: BTreeMap<(u8, u64), Vec<Hash>>,
    peaks: Peaks,
}

impl Tree {
    /// The tree whose full tiles below `size`, a multiple of 256, are on disk.
    pub(crate) fn open(folder: &Path, size: u64) -> Result<Tree, LogError> {
        let peaks = Peaks { size, roots: vec![] };
        let mut tree = Tree { folder: folder.to_owned(), edge: vec![], fresh: BTreeMap::new(), peaks };
        let mut count = size;
        for level in 0u8.. {
            let first = count / TILE_WIDTH * TILE_WIDTH;
            let hashes = if level == 0 {
                vec![]
            } else {
                (first..count).map(|index| tree.subtree(level - 1, index, 8, 0)).collect::<Result<_, _>>()?
            };
            tree.edge.push(hashes);
            if count < TILE_WIDTH {
                break;
            }
            count /= TILE_WIDTH;
        }
        tree.peaks.roots = (0..u64::BITS)
            .rev()
            .filter(|bit| size >> bit & 1 == 1)
            .map(|bit| tree.hash(bit, (size >> bit) - 1))
            .collect::<Result<_, _>>()?;
        Ok(tree)
    }

    pub(crate) fn size(&self) -> u64 {
        self.peaks.size
    }

    pub(crate) fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        for level in 0u8.. {
            let at = usize::from(level);
            if self.edge.len() == at {
                self.edge.push(vec![]);
            }
            self.edge[at].push(hash);
            if self.edge[at].len() < WIDTH {
                break;
            }
            let full = std::mem::take(&mut self.edge[at]);
            hash = fold(&full);
            self.fresh.insert((level, self.size() >> (8 * (u32::from(level) + 1))), full);
        }
        self.peaks.push(leaf);
    }

    pub(crate) fn root(&self) -> Hash {
        self.peaks.root()
    }

    /// Full tiles that are not on disk yet.
    pub(crate) fn fresh(&self) -> impl Iterator<Item = (Tile, Vec<u8>)> {
        self.fresh.iter().map(|((level, index), hashes)| {
            (Tile { level: Some(*level), index: *index, width: WIDTH as u16 }, hashes.as_flattened().to_vec())
        })
    }

    /// Forgets full tiles, which are on disk now.
    pub(crate) fn forget_fresh(&mut self) {
        self.fresh.clear();
    }

    /// The bytes of a tile of hashes; none if the tree does not have it.
    pub(crate) fn tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, LogError> {
        let (Some(level), true) = (tile.level, tile.is_within(self.size())) else { return Ok(None) };
        let hashes = self.hashes_of(level, tile.index)?;
        Ok(hashes.get(..usize::from(tile.width)).map(|hashes| hashes.as_flattened().to_vec()))
    }

    /// All hashes there are of a tile.
    fn hashes_of(&self, level: u8, index: u64) -> Result<Vec<Hash>, LogError> {
        let there = self.size().checked_shr(8 * u32::from(level)).unwrap_or(0);
        if index == there / TILE_WIDTH {
            return Ok(self.edge.get(usize::from(level)).cloned().unwrap_or_default());
        }
        if let Some(hashes) = self.fresh.get(&(level, index)) {
            return Ok(hashes.clone());
        }
        let tile = Tile { level: Some(level), index, width: WIDTH as u16 };
        let path = self.folder.join(tile.path());
        let bytes = std::fs::read(&path).map_err(LogError::file(&path))?;
        let (hashes, rest) = bytes.as_chunks::<32>();
        if hashes.len() != WIDTH || !rest.is_empty() {
            let what = "it is not 256 hashes".to_owned();
            return Err(LogError::Damaged { path, offset: 0, what });
        }
        Ok(hashes.to_vec())
    }

    /// Root of the 2^height hashes of a tile that begin at `index` · 2^height.
    fn subtree(&self, level: u8, tile: u64, height: u32, index: usize) -> Result<Hash, LogError> {
        let hashes = self.hashes_of(level, tile)?;
        let hashes = hashes.get(index << height..(index + 1) << height);
        Ok(fold(hashes.ok_or(LogError::Absent("a hash beyond the tree"))?))
    }
}

impl Hashes for Tree {
    fn hash(&self, level: u32, index: u64) -> Result<Hash, LogError> {
        // Subtrees of 2^(8·l + h) entries are 2^h hashes of a tile of level l.
        let (tile_level, height) = ((level / 8) as u8, level % 8);
        let first = index << height;
        self.subtree(tile_level, first / TILE_WIDTH, height, (first % TILE_WIDTH) as usize >> height)
    }
}

/// Root over a power of two of hashes.
pub(crate) fn fold(hashes: &[Hash]) -> Hash {
    match hashes {
        [hash] => *hash,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(&fold(left), &fold(right))
        }
    }
}
