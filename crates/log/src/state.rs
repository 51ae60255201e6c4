//! The entries and hashes of a log: full tiles on disk, the newest entries from its tail.

use crate::error::LogError;
use crate::journal::Journal;
use crate::merkle::{Hash, empty_root, leaf_hash};
use crate::tile::{TILE_WIDTH, Tile, join_entries, split_entries};
use crate::tree::Tree;
use std::path::{Path, PathBuf};

const TAIL_KIND: &[u8; 16] = b"lockstep tail 1\n";

/// A log as of some size.
pub(crate) struct State {
    pub(crate) folder: PathBuf,
    pub(crate) tree: Tree,
    /// Entries from here on are in memory; tiles hold those before.
    pub(crate) base: u64,
    pub(crate) entries: Vec<Vec<u8>>,
    /// Bytes of the entries in memory.
    pub(crate) bytes: usize,
}

/// What a tail tells: where it begins, the root there, and its entries.
#[derive(Default)]
struct Tail {
    begin: Option<(u64, Hash)>,
    entries: Vec<Vec<u8>>,
}

impl Tail {
    fn read(&mut self, payload: &[u8]) -> Result<(), String> {
        if self.begin.is_none() {
            let wrong = "it does not say where it begins";
            let (size, root) = payload.split_first_chunk().ok_or(wrong)?;
            self.begin = Some((u64::from_le_bytes(*size), Hash::try_from(root).map_err(|_| wrong)?));
            return Ok(());
        }
        let group = split_entries(payload).map_err(|error| error.to_string())?;
        self.entries.extend(group.into_iter().map(<[u8]>::to_vec));
        Ok(())
    }
}

/// Where a log's tail is.
pub(crate) fn tail_path(folder: &Path) -> PathBuf {
    folder.join("tail")
}

/// A new tail at `path`, behind `size` entries with this root, that holds some entries already.
pub(crate) fn begin_tail(path: &Path, size: u64, root: &Hash, rest: &[u8]) -> Result<Journal, LogError> {
    let mut tail = Journal::open(path, TAIL_KIND, |_, _| Ok(()))?;
    tail.append(&[&size.to_le_bytes(), root])?;
    if !rest.is_empty() {
        tail.append(&[rest])?;
    }
    Ok(tail)
}

impl State {
    /// Opens a log to append to it: cuts off what a crash left unfinished.
    pub(crate) fn open(folder: &Path) -> Result<(State, Journal), LogError> {
        let (path, mut tail) = (tail_path(folder), Tail::default());
        let mut journal = Journal::open(&path, TAIL_KIND, |_, payload| tail.read(&payload))?;
        if tail.begin.is_none() {
            journal.append(&[&0u64.to_le_bytes(), &empty_root()])?;
            crate::log::sync_folder(folder)?;
        }
        Ok((State::new(folder, tail)?, journal))
    }

    /// Reads a log that somebody else may be appending to.
    pub(crate) fn look(folder: &Path) -> Result<State, LogError> {
        let mut tail = Tail::default();
        Journal::look(&tail_path(folder), TAIL_KIND, |payload| tail.read(&payload))?;
        State::new(folder, tail)
    }

    fn new(folder: &Path, tail: Tail) -> Result<State, LogError> {
        let damaged = |what: &str| LogError::Damaged { path: tail_path(folder), offset: 0, what: what.to_owned() };
        let (base, base_root) = tail.begin.unwrap_or_else(|| (0, empty_root()));
        if base % TILE_WIDTH != 0 {
            return Err(damaged("it does not begin with a tile"));
        }
        let mut tree = Tree::open(folder, base)?;
        if base_root != tree.root() {
            return Err(damaged("it does not continue the tiles beside it"));
        }
        tail.entries.iter().for_each(|entry| tree.push(leaf_hash(entry)));
        let bytes = tail.entries.iter().map(Vec::len).sum();
        Ok(State { folder: folder.to_owned(), tree, base, entries: tail.entries, bytes })
    }

    /// An entry that is in memory; or the path of the tile that holds it.
    pub(crate) fn entry(&self, index: u64) -> Result<Vec<u8>, LogError> {
        let beyond = LogError::Absent("an entry beyond its end");
        if let Some(at) = index.checked_sub(self.base) {
            let entry = usize::try_from(at).ok().and_then(|at| self.entries.get(at));
            return entry.cloned().ok_or(beyond);
        }
        let bytes = read_entries(&self.folder, index / TILE_WIDTH)?;
        let entries = split_entries(&bytes)?;
        entries.get((index % TILE_WIDTH) as usize).map(|entry| entry.to_vec()).ok_or(beyond)
    }

    /// The bytes of a tile; none if the log does not have it.
    pub(crate) fn tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, LogError> {
        if tile.level.is_some() {
            return self.tree.tile(tile);
        }
        if !tile.is_within(self.tree.size()) {
            return Ok(None);
        }
        if let Some(at) = (tile.index * TILE_WIDTH).checked_sub(self.base) {
            let entries = self.entries[at as usize..][..usize::from(tile.width)].iter();
            return join_entries(entries.map(Vec::as_slice)).map(Some);
        }
        let bytes = read_entries(&self.folder, tile.index)?;
        if tile.is_full() {
            return Ok(Some(bytes));
        }
        join_entries(split_entries(&bytes)?.into_iter().take(tile.width.into())).map(Some)
    }
}

/// A full tile of entries.
pub(crate) fn read_entries(folder: &Path, index: u64) -> Result<Vec<u8>, LogError> {
    let path = folder.join(Tile::entries(index, TILE_WIDTH as u16).path());
    std::fs::read(&path).map_err(LogError::file(&path))
}
