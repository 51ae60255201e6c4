//! Which entry has a name, without all names in memory: rows of name and number, sorted in files of many.

use crate::error::LogError;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// First half of an entry's BLAKE3.
pub type Name = [u8; 16];

const ROW_BYTES: usize = 24;

/// A table of names and numbers. Full blocks are files that are searched by halving; the newest names are in memory.
pub struct Names {
    folder: PathBuf,
    /// Sorted blocks, oldest first, with their rows' number.
    blocks: Vec<(File, u64)>,
    newest: HashMap<Name, u64>,
}

impl Names {
    /// Opens the first `blocks` blocks in a folder; one that is not there or not whole is made with `fill`.
    ///
    /// # Errors
    /// The folder cannot be used, or `fill` fails.
    pub fn open(
        folder: &Path,
        blocks: u64,
        mut fill: impl FnMut(u64) -> Result<Vec<(Name, u64)>, LogError>,
    ) -> Result<Names, LogError> {
        std::fs::create_dir_all(folder).map_err(LogError::file(folder))?;
        let mut names = Names { folder: folder.to_owned(), blocks: vec![], newest: HashMap::new() };
        for block in 0..blocks {
            if names.open_block(block)?.is_none() {
                let rows = fill(block)?;
                names.write_block(block, rows)?;
            }
        }
        Ok(names)
    }

    /// Notes a name.
    pub fn insert(&mut self, name: Name, number: u64) {
        self.newest.insert(name, number);
    }

    /// Names in memory.
    pub fn newest(&self) -> usize {
        self.newest.len()
    }

    /// Moves the names whose number is below `end` from memory to a block of their own.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn seal(&mut self, end: u64) -> Result<(), LogError> {
        let rows = self.newest.iter().filter(|(_, number)| **number < end).map(|(name, number)| (*name, *number));
        let rows = rows.collect();
        self.write_block(self.blocks.len() as u64, rows)?;
        self.newest.retain(|_, number| *number >= end);
        Ok(())
    }

    /// The number of a name.
    ///
    /// # Errors
    /// A block cannot be read.
    pub fn find(&self, name: &Name) -> Result<Option<u64>, LogError> {
        if let Some(number) = self.newest.get(name) {
            return Ok(Some(*number));
        }
        for (file, rows) in self.blocks.iter().rev() {
            let found = search(file, *rows, name).map_err(LogError::file(&self.folder))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Opens a block if it is whole: its last 32 bytes are the BLAKE3 of what is before.
    fn open_block(&mut self, block: u64) -> Result<Option<()>, LogError> {
        let path = self.path(block);
        let Ok(bytes) = std::fs::read(&path) else { return Ok(None) };
        let Some((rows, sum)) = bytes.split_last_chunk::<32>() else { return Ok(None) };
        if blake3::hash(rows).as_bytes() != sum || rows.len() % ROW_BYTES != 0 {
            return Ok(None);
        }
        let file = File::open(&path).map_err(LogError::file(&path))?;
        self.blocks.push((file, (rows.len() / ROW_BYTES) as u64));
        Ok(Some(()))
    }

    fn write_block(&mut self, block: u64, mut rows: Vec<(Name, u64)>) -> Result<(), LogError> {
        rows.sort_unstable();
        let mut bytes = Vec::with_capacity(rows.len() * ROW_BYTES + 32);
        for (name, number) in &rows {
            bytes.extend(name);
            bytes.extend(number.to_le_bytes());
        }
        let sum = *blake3::hash(&bytes).as_bytes();
        bytes.extend(sum);
        let path = self.path(block);
        // Can be made again: it need not be durable, only whole, which the sum tells.
        std::fs::write(&path, bytes).map_err(LogError::file(&path))?;
        let file = File::open(&path).map_err(LogError::file(&path))?;
        self.blocks.push((file, rows.len() as u64));
        Ok(())
    }

    fn path(&self, block: u64) -> PathBuf {
        self.folder.join(format!("{block:06}"))
    }
}

fn search(file: &File, rows: u64, name: &Name) -> std::io::Result<Option<u64>> {
    let (mut low, mut high) = (0, rows);
    while low < high {
        let middle = low + (high - low) / 2;
        let mut row = [0; ROW_BYTES];
        file.read_exact_at(&mut row, middle * ROW_BYTES as u64)?;
        let (found, number) = row.split_at(16);
        match found.cmp(name.as_slice()) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Ok(number.try_into().ok().map(u64::from_le_bytes)),
        }
    }
    Ok(None)
}
