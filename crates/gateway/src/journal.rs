//! The file that keeps receipts: append only, durable group by group.
//!
//! A group is `"LKRG" ‖ length of payload (u32) ‖ BLAKE3(offset of the group (u64) ‖ payload) ‖ payload`, the payload a
//! row of `hash of the receipt ‖ length of the bundle (u32) ‖ bundle`, numbers little end first. A group is written with
//! one call and synchronised before anybody hears of its receipts. So a crash can only leave the last group broken, of
//! which nobody heard, and [`Journal::open`] drops it. A broken group with a sound one behind it is damage, not a crash.

use crate::start::StartError;
use receipt::{Bundle, Hash, Receipt};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const HEADER: &[u8; 16] = b"lockstep log 1\n\0";
const MARK: &[u8; 4] = b"LKRG";
/// Bytes of a group before its payload.
const HEAD_BYTES: usize = 40;
/// Bytes searched at once.
const WINDOW_BYTES: usize = 1 << 20;

/// First half of a receipt's hash: what its id shows.
pub(crate) type Name = [u8; 16];

/// Where a bundle stands in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) bytes: u32,
}

/// A receipt to keep.
pub(crate) struct Entry {
    pub(crate) hash: Hash,
    /// Bytes of the bundle.
    pub(crate) bundle: Vec<u8>,
}

/// What a journal held when it was opened.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) places: HashMap<Name, Place>,
    /// The newest receipt, its signature verified.
    pub(crate) last: Option<Receipt>,
}

/// An open journal.
pub(crate) struct Journal {
    file: Arc<File>,
    path: PathBuf,
    /// Bytes that are durable.
    end: u64,
    /// Set when nobody knows what the disk holds: nothing is written until a restart reads it again.
    broken: bool,
}

/// The half of a hash that names its receipt.
pub(crate) fn name_of(hash: &Hash) -> Name {
    std::array::from_fn(|byte| hash[byte])
}

impl Journal {
    /// Opens the journal at `path`, or creates it; drops a group that a crash left unfinished.
    pub(crate) fn open(path: &Path) -> Result<(Journal, Kept), StartError> {
        let io = || StartError::file(path);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).mode(0o600).open(path).map_err(io())?;
        let mut journal = Journal { file: Arc::new(file), path: path.to_owned(), end: 0, broken: false };
        let length = journal.file.metadata().map_err(io())?.len();
        journal.read_header(length)?;
        let mut kept = Kept::default();
        let mut newest = None;
        while let Some(payload) = journal.read_group(journal.end, length).map_err(io())? {
            newest = Some(journal.index(&payload, &mut kept)?);
            journal.end += (HEAD_BYTES + payload.len()) as u64;
        }
        journal.drop_unfinished(length)?;
        kept.last = newest.map(|place| journal.receipt_at(place)).transpose()?;
        Ok((journal, kept))
    }

    /// The file, to read bundles from.
    pub(crate) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Keeps a group of receipts. They are durable when this returns, or nothing is kept.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> io::Result<Vec<Place>> {
        if self.broken {
            return Err(io::Error::other("an earlier write failed; restart the server once the disk is well"));
        }
        let mut group = vec![0; HEAD_BYTES];
        let mut places = Vec::with_capacity(entries.len());
        for entry in entries {
            let bytes = u32::try_from(entry.bundle.len()).map_err(io::Error::other)?;
            group.extend_from_slice(&entry.hash);
            group.extend_from_slice(&bytes.to_le_bytes());
            places.push(Place { offset: self.end + group.len() as u64, bytes });
            group.extend_from_slice(&entry.bundle);
        }
        let (head, payload) = group.split_at_mut(HEAD_BYTES);
        let bytes = u32::try_from(payload.len()).map_err(io::Error::other)?;
        head[..4].copy_from_slice(MARK);
        head[4..8].copy_from_slice(&bytes.to_le_bytes());
        head[8..].copy_from_slice(&checksum(self.end, payload));
        if let Err(error) = self.file.write_all_at(&group, self.end) {
            // A full disk: what was written is taken back, and there may be room later.
            self.broken = self.file.set_len(self.end).is_err();
            return Err(error);
        }
        // After a failed synchronisation the system forgets what it could not write; only reading again tells.
        self.file.sync_data().inspect_err(|_| self.broken = true)?;
        self.end += group.len() as u64;
        Ok(places)
    }

    fn read_header(&mut self, length: u64) -> Result<(), StartError> {
        let io = || StartError::file(&self.path);
        let mut header = vec![0; HEADER.len().min(length as usize)];
        self.file.read_exact_at(&mut header, 0).map_err(io())?;
        if !HEADER.starts_with(&header) {
            return Err(self.damaged(0, "this is not a file of receipts"));
        }
        if header.len() < HEADER.len() {
            self.file.write_all_at(HEADER, 0).and_then(|()| self.file.sync_all()).map_err(io())?;
        }
        self.end = HEADER.len() as u64;
        Ok(())
    }

    /// The payload of the group at `offset`, if a sound one is there.
    fn read_group(&self, offset: u64, length: u64) -> io::Result<Option<Vec<u8>>> {
        let left = length.saturating_sub(offset);
        if left < HEAD_BYTES as u64 {
            return Ok(None);
        }
        let mut head = [0; HEAD_BYTES];
        self.file.read_exact_at(&mut head, offset)?;
        let bytes = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if &head[..4] != MARK || u64::from(bytes) > left - HEAD_BYTES as u64 {
            return Ok(None);
        }
        let mut payload = vec![0; bytes as usize];
        self.file.read_exact_at(&mut payload, offset + HEAD_BYTES as u64)?;
        Ok(Some(payload).filter(|payload| checksum(offset, payload) == head[8..]))
    }

    /// Notes where the bundles of the group at the end are; gives the last of them.
    fn index(&self, payload: &[u8], kept: &mut Kept) -> Result<Place, StartError> {
        let mut rest = payload;
        let mut newest = None;
        while let Some((hash, after)) = rest.split_first_chunk::<32>() {
            let entry = after.split_first_chunk::<4>().map(|(bytes, after)| (u32::from_le_bytes(*bytes), after));
            let entry = entry.and_then(|(bytes, after)| Some((bytes, after.split_at_checked(bytes as usize)?)));
            let Some((bytes, (_, after))) = entry else { break };
            let offset = self.end + (HEAD_BYTES + payload.len() - after.len() - bytes as usize) as u64;
            newest = Some(Place { offset, bytes });
            kept.places.insert(name_of(hash), Place { offset, bytes });
            rest = after;
        }
        newest.filter(|_| rest.is_empty()).ok_or_else(|| self.damaged(self.end, "a group does not hold whole receipts"))
    }

    fn receipt_at(&self, place: Place) -> Result<Receipt, StartError> {
        let bytes = read(&self.file, place).map_err(StartError::file(&self.path))?;
        let receipt = Bundle::from_bytes(&bytes).and_then(|bundle| bundle.check());
        receipt.map_err(|error| self.damaged(place.offset, error.to_string()))
    }

    /// Cuts off what follows the last sound group, which a crash left; keeps it in a file of its own.
    fn drop_unfinished(&self, length: u64) -> Result<(), StartError> {
        if length <= self.end {
            return Ok(());
        }
        let io = || StartError::file(&self.path);
        if let Some(offset) = self.sound_group_after(self.end + 1, length).map_err(io())? {
            return Err(self.damaged(self.end, format!("what is there cannot be read, but at {offset} it goes on")));
        }
        let aside = self.path.with_extension(format!("unfinished-{}", self.end));
        tracing::warn!(
            "the last {} bytes of {} were not finished when the server ended; no answer was given with them; moved to {}",
            length - self.end,
            self.path.display(),
            aside.display()
        );
        let bytes = Place { offset: self.end, bytes: u32::try_from(length - self.end).unwrap_or(u32::MAX) };
        let moved = read(&self.file, bytes).and_then(|bytes| std::fs::write(&aside, bytes));
        moved.map_err(StartError::file(&aside))?;
        self.file.set_len(self.end).and_then(|()| self.file.sync_all()).map_err(io())
    }

    fn sound_group_after(&self, start: u64, length: u64) -> io::Result<Option<u64>> {
        let mut offset = start;
        let mut window = vec![];
        while offset + (HEAD_BYTES as u64) <= length {
            window.resize(WINDOW_BYTES.min((length - offset) as usize), 0);
            self.file.read_exact_at(&mut window, offset)?;
            for at in window.windows(MARK.len()).enumerate().filter(|(_, four)| four == MARK).map(|(at, _)| at) {
                if self.read_group(offset + at as u64, length)?.is_some() {
                    return Ok(Some(offset + at as u64));
                }
            }
            offset += (window.len() - (MARK.len() - 1)) as u64;
        }
        Ok(None)
    }

    fn damaged(&self, offset: u64, what: impl Into<String>) -> StartError {
        StartError::Damaged { path: self.path.clone(), offset, what: what.into() }
    }
}

/// The bytes at a place.
pub(crate) fn read(file: &File, place: Place) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; place.bytes as usize];
    file.read_exact_at(&mut bytes, place.offset)?;
    Ok(bytes)
}

fn checksum(offset: u64, payload: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(&offset.to_le_bytes()).update(payload).finalize().as_bytes()
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
