//! A file of groups: append only, each group durable before anybody hears of it.
//!
//! After 16 bytes that name its kind, a group is `"LKRG" ‖ length of payload (u32) ‖ BLAKE3(offset of the group (u64) ‖
//! payload) ‖ payload`, numbers little end first. A group is written with one call and synchronised. So a crash can only
//! leave the last group broken, of which nobody heard, and [`Journal::open`] drops it. A broken group with a sound one
//! behind it is damage, not a crash.

use crate::error::LogError;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MARK: &[u8; 4] = b"LKRG";
/// Bytes that name the kind of file.
const KIND_BYTES: usize = 16;
/// Bytes of a group before its payload.
const HEAD_BYTES: usize = 40;
/// Bytes searched at once.
const WINDOW_BYTES: usize = 1 << 20;

/// An open journal.
pub struct Journal {
    file: Arc<File>,
    path: PathBuf,
    /// Bytes that are durable.
    end: u64,
    /// Set when nobody knows what the disk holds: nothing is written until a restart reads it again.
    broken: bool,
}

impl Journal {
    /// Opens the journal at `path`, or creates it; gives every group's payload and where it stands to `read`, one at a
    /// time; drops a group that a crash left unfinished. That the file's name is durable is for the caller to see.
    ///
    /// # Errors
    /// The file cannot be used, is of another kind, is damaged, or `read` says that a group makes no sense.
    pub fn open(
        path: &Path,
        kind: &[u8; KIND_BYTES],
        mut read: impl FnMut(u64, Vec<u8>) -> Result<(), String>,
    ) -> Result<Journal, LogError> {
        let io = || LogError::file(path);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true).mode(0o600).open(path).map_err(io())?;
        let mut journal = Journal { file: Arc::new(file), path: path.to_owned(), end: 0, broken: false };
        let length = journal.file.metadata().map_err(io())?.len();
        journal.read_kind(kind, length)?;
        while let Some(payload) = journal.read_group(journal.end, length).map_err(io())? {
            let bytes = payload.len();
            let offset = journal.end + HEAD_BYTES as u64;
            read(offset, payload).map_err(|what| journal.damaged(journal.end, what))?;
            journal.end += (HEAD_BYTES + bytes) as u64;
        }
        journal.drop_unfinished(length)?;
        Ok(journal)
    }

    /// Reads the groups of a journal that somebody else may be appending to, and changes nothing.
    ///
    /// # Errors
    /// The file cannot be read or is of another kind, or `read` says that a group makes no sense.
    pub fn look(
        path: &Path,
        kind: &[u8; KIND_BYTES],
        mut read: impl FnMut(Vec<u8>) -> Result<(), String>,
    ) -> Result<(), LogError> {
        let (journal, mut payload) = Journal::open_finished(path, kind)?;
        let mut offset = KIND_BYTES as u64;
        loop {
            let bytes = payload.len();
            read(payload).map_err(|what| journal.damaged(offset, what))?;
            offset += (HEAD_BYTES + bytes) as u64;
            match journal.read_group(offset, journal.end).map_err(LogError::file(path))? {
                Some(next) => payload = next,
                None => return Ok(()),
            }
        }
    }

    /// Opens a journal to which nothing will be appended, without reading it all. Gives the first payload too.
    ///
    /// # Errors
    /// The file cannot be read, is of another kind, or does not begin with a sound group.
    pub fn open_finished(path: &Path, kind: &[u8; KIND_BYTES]) -> Result<(Journal, Vec<u8>), LogError> {
        let io = || LogError::file(path);
        let file = File::open(path).map_err(io())?;
        let end = file.metadata().map_err(io())?.len();
        let journal = Journal { file: Arc::new(file), path: path.to_owned(), end, broken: true };
        let mut found = [0; KIND_BYTES];
        journal.file.read_exact_at(&mut found, 0).map_err(io())?;
        if found != *kind {
            return Err(journal.damaged(0, "this is a file of another kind"));
        }
        let first = journal.read_group(KIND_BYTES as u64, end).map_err(io())?;
        let first = first.ok_or_else(|| journal.damaged(KIND_BYTES as u64, "its first group cannot be read"))?;
        Ok((journal, first))
    }

    /// The file, to read payloads from.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Durable bytes.
    pub fn bytes(&self) -> u64 {
        self.end
    }

    /// Appends a group made of `parts`. It is durable when this returns, or nothing is kept. Gives where the payload
    /// stands.
    ///
    /// # Errors
    /// The disk refused, now or before.
    pub fn append(&mut self, parts: &[&[u8]]) -> Result<u64, LogError> {
        if self.broken {
            return Err(LogError::Broken);
        }
        let io = |error| LogError::file(&self.path)(error);
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(bytes).map_err(|error| io(io::Error::other(error)))?;
        let mut group = Vec::with_capacity(HEAD_BYTES + bytes);
        group.resize(HEAD_BYTES, 0);
        parts.iter().for_each(|part| group.extend_from_slice(part));
        let (head, payload) = group.split_at_mut(HEAD_BYTES);
        head[..4].copy_from_slice(MARK);
        head[4..8].copy_from_slice(&length.to_le_bytes());
        head[8..].copy_from_slice(&checksum(self.end, payload));
        if let Err(error) = self.file.write_all_at(&group, self.end) {
            // A full disk: what was written is taken back, and there may be room later.
            self.broken = self.file.set_len(self.end).is_err();
            return Err(io(error));
        }
        // After a failed synchronisation the system forgets what it could not write; only reading again tells.
        let synchronised = self.file.sync_data();
        self.broken = synchronised.is_err();
        synchronised.map_err(|error| LogError::file(&self.path)(error))?;
        let payload = self.end + HEAD_BYTES as u64;
        self.end += group.len() as u64;
        Ok(payload)
    }

    fn read_kind(&mut self, kind: &[u8; KIND_BYTES], length: u64) -> Result<(), LogError> {
        let io = || LogError::file(&self.path);
        let mut found = vec![0; KIND_BYTES.min(length as usize)];
        self.file.read_exact_at(&mut found, 0).map_err(io())?;
        if !kind.starts_with(&found) {
            return Err(self.damaged(0, "this is a file of another kind"));
        }
        if found.len() < KIND_BYTES {
            self.file.write_all_at(kind, 0).and_then(|()| self.file.sync_all()).map_err(io())?;
        }
        self.end = KIND_BYTES as u64;
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

    /// Cuts off what follows the last sound group, which a crash left; keeps it in a file of its own.
    fn drop_unfinished(&self, length: u64) -> Result<(), LogError> {
        if length <= self.end {
            return Ok(());
        }
        let io = || LogError::file(&self.path);
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
        let mut bytes = vec![0; usize::try_from(length - self.end).unwrap_or(usize::MAX)];
        let moved = self.file.read_exact_at(&mut bytes, self.end).and_then(|()| {
            let mut options = OpenOptions::new();
            let file = options.create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
            file.write_all_at(&bytes, 0)
        });
        moved.map_err(LogError::file(&aside))?;
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

    fn damaged(&self, offset: u64, what: impl Into<String>) -> LogError {
        LogError::Damaged { path: self.path.clone(), offset, what: what.into() }
    }
}

fn checksum(offset: u64, payload: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(&offset.to_le_bytes()).update(payload).finalize().as_bytes()
}
