//! Reads a log from wherever it is served, and believes nothing but its key.

use crate::error::LogError;
use crate::head::Head;
use crate::merkle::{
    Hash, Hashes, Peaks, consistency_proof, inclusion_proof, leaf_hash, verify_consistency, verify_inclusion,
};
use crate::note::{Note, VerifierKey};
use crate::state::State;
use crate::tile::{TILE_WIDTH, Tile, split_entries};
use crate::tree::fold;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

/// Tiles kept in memory.
const TILES_KEPT: usize = 64;

/// Gives the resources of a log by their paths.
pub trait Source {
    /// The bytes of `checkpoint` or of a tile, of which there may be `bytes_max`.
    ///
    /// # Errors
    /// It is not there, too large, or cannot be fetched.
    fn get(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, LogError>;
}

/// A log's folder, whether or not somebody is appending to it; or a copy of what a log serves.
#[derive(Clone, Debug)]
pub struct Folder(pub PathBuf);

impl Source for Folder {
    fn get(&self, path: &str, bytes_max: usize) -> Result<Vec<u8>, LogError> {
        let file_path = self.0.join(path);
        let tile = Tile::parse(path).filter(|_| !file_path.exists());
        if let Some(tile) = tile.filter(|_| self.0.join("tail").exists()) {
            let newest = State::look(&self.0)?.tile(&tile)?;
            return newest.ok_or(LogError::Absent("a tile beyond its end"));
        }
        let mut bytes = vec![];
        let file = std::fs::File::open(&file_path).map_err(LogError::file(&file_path))?;
        file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(LogError::file(&file_path))?;
        if bytes.len() > bytes_max {
            return Err(LogError::Fetch { what: path.to_owned(), why: "it is too large".to_owned() });
        }
        Ok(bytes)
    }
}

/// A log head and the tiles that stand behind it. Every hash and entry it gives out is one that the head's root vouches
/// for.
pub struct Reader<S> {
    source: S,
    /// The head as it was signed.
    note: Note,
    head: Head,
    tiles: RefCell<BTreeMap<Tile, Vec<Hash>>>,
}

impl<S: Source> Reader<S> {
    /// Fetches the log's newest head.
    ///
    /// # Errors
    /// It cannot be fetched, or is not signed by the key.
    pub fn open(source: S, log: &VerifierKey) -> Result<Reader<S>, LogError> {
        let bytes = source.get("checkpoint", crate::HEAD_BYTES_MAX)?;
        Reader::at(source, &Note::parse(&bytes)?, log)
    }

    /// Reads the log as of this head.
    ///
    /// # Errors
    /// The head is not signed by the key.
    pub fn at(source: S, note: &Note, log: &VerifierKey) -> Result<Reader<S>, LogError> {
        let head = Head::verify(note.to_string().as_bytes(), log)?;
        Ok(Reader { source, note: note.clone(), head, tiles: RefCell::default() })
    }

    /// The head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The head as it was signed.
    pub fn note(&self) -> &Note {
        &self.note
    }

    /// A proof that entry `index` with this leaf hash is in the log; it is verified.
    ///
    /// # Errors
    /// Tiles cannot be fetched, or do not lead to the head's root.
    pub fn prove(&self, leaf: &Hash, index: u64) -> Result<Vec<Hash>, LogError> {
        let proof = inclusion_proof(self, index, self.head.size)?;
        if verify_inclusion(leaf, index, self.head.size, &self.head.root, &proof) {
            return Ok(proof);
        }
        Err(LogError::Contradiction(format!("its tiles do not lead from entry {index} to its root")))
    }

    /// A proof that this head continues an older one; it is verified.
    ///
    /// # Errors
    /// Tiles cannot be fetched, or the head does not continue the older one: a split view, or a log that was rolled back.
    pub fn prove_consistency(&self, old: &Head) -> Result<Vec<Hash>, LogError> {
        if old.size > self.head.size {
            let what = format!("it has {} entries, and had {} before: it was rolled back", self.head.size, old.size);
            return Err(LogError::Contradiction(what));
        }
        let proof = consistency_proof(self, old.size, self.head.size)?;
        if verify_consistency(old.size, &old.root, self.head.size, &self.head.root, &proof) {
            return Ok(proof);
        }
        let what = format!("the head of {} entries does not continue the one of {}", self.head.size, old.size);
        Err(LogError::Contradiction(what))
    }

    /// An entry; that it is in the log is verified.
    ///
    /// # Errors
    /// It cannot be fetched, or is not the one the head vouches for.
    pub fn entry(&self, index: u64) -> Result<Vec<u8>, LogError> {
        if index >= self.head.size {
            return Err(LogError::Absent("an entry beyond its head"));
        }
        let bytes = self.entries_tile(index / TILE_WIDTH)?;
        let entries = split_entries(&bytes)?;
        let entry = entries.get((index % TILE_WIDTH) as usize).ok_or(LogError::Malformed("a tile of entries"))?;
        self.prove(&leaf_hash(entry), index)?;
        Ok(entry.to_vec())
    }

    /// Gives all entries in order to `read`, and verifies that they are the ones the head vouches for: all of them were
    /// before this returns without an error.
    ///
    /// # Errors
    /// Something cannot be fetched, or is not what the head vouches for; or `read` says so.
    pub fn entries(&self, mut read: impl FnMut(u64, &[u8]) -> Result<(), LogError>) -> Result<(), LogError> {
        let mut rebuilt = Peaks::default();
        for index in 0..self.head.size.div_ceil(TILE_WIDTH) {
            let bytes = self.entries_tile(index)?;
            let entries = split_entries(&bytes)?;
            if entries.len() as u64 != (self.head.size - index * TILE_WIDTH).min(TILE_WIDTH) {
                return Err(LogError::Malformed("a tile of entries"));
            }
            for (index, entry) in (index * TILE_WIDTH..).zip(entries) {
                rebuilt.push(leaf_hash(entry));
                read(index, entry)?;
            }
        }
        if rebuilt.root() == self.head.root {
            return Ok(());
        }
        Err(LogError::Contradiction("its entries do not lead to its root".to_owned()))
    }

    fn entries_tile(&self, index: u64) -> Result<Vec<u8>, LogError> {
        let tile = Tile::entries(index, self.width(0, index));
        self.fetch(&tile, TILE_WIDTH as usize * (crate::ENTRY_BYTES_MAX + 2))
    }

    /// How wide a tile is in the tree of the head.
    fn width(&self, level: u8, index: u64) -> u16 {
        let there = self.head.size.checked_shr(8 * u32::from(level)).unwrap_or(0);
        there.saturating_sub(index.saturating_mul(TILE_WIDTH)).min(TILE_WIDTH) as u16
    }

    /// Fetches a tile; a partial one may have become full since, and be found under that name only.
    fn fetch(&self, tile: &Tile, bytes_max: usize) -> Result<Vec<u8>, LogError> {
        let found = self.source.get(&tile.path(), bytes_max);
        if found.is_ok() || tile.is_full() {
            return found;
        }
        let full = Tile { width: TILE_WIDTH as u16, ..*tile };
        let Ok(bytes) = self.source.get(&full.path(), bytes_max) else { return found };
        let width = usize::from(tile.width);
        match tile.level {
            Some(_) => Ok(bytes.get(..32 * width).ok_or(LogError::Malformed("a tile of hashes"))?.to_vec()),
            None => crate::tile::join_entries(split_entries(&bytes)?.into_iter().take(width)),
        }
    }
}

impl<S: Source> Hashes for Reader<S> {
    fn hash(&self, level: u32, index: u64) -> Result<Hash, LogError> {
        let (tile_level, height) = ((level / 8) as u8, level % 8);
        let first = index << height;
        let tile = first / TILE_WIDTH;
        let tile = Tile { level: Some(tile_level), index: tile, width: self.width(tile_level, tile) };
        let wrong = || LogError::Malformed("a tile of hashes");
        let mut tiles = self.tiles.borrow_mut();
        if !tiles.contains_key(&tile) {
            if tiles.len() >= TILES_KEPT {
                tiles.pop_first();
            }
            let bytes = self.fetch(&tile, 32 * TILE_WIDTH as usize)?;
            let (hashes, rest) = bytes.as_chunks::<32>();
            if !rest.is_empty() || hashes.len() != usize::from(tile.width) {
                return Err(wrong());
            }
            tiles.insert(tile, hashes.to_vec());
        }
        let at = (first % TILE_WIDTH) as usize;
        let hashes = tiles.get(&tile).and_then(|hashes| hashes.get(at..at + (1 << height)));
        Ok(fold(hashes.ok_or_else(wrong)?))
    }
}
