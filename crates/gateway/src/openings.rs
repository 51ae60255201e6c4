//! What opens receipts, for as long as auditors may ask for it: encrypted at rest, in segments that are deleted whole.
//!
//! A segment is a folder with a journal and, once it is full or old, a table of names. Its first group is `salt (32) ‖
//! time it was begun (u64) ‖ check (32)`, the others rows of `name (16) ‖ bytes (u32) ‖ ciphertext`, numbers little end
//! first. The segment's key comes from the folder's secret and the salt; each bundle is sealed with ChaCha20-Poly1305 under a
//! key of its own, made from the segment's key and its name. Nothing is in memory but the names of the newest segment.
//!
//! A segment takes openings for a sixteenth of the window, and is deleted when all in it are older than the window; first
//! its salt is overwritten, without which no key opens it any more.

use crate::start::StartError;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use receipt::Hash;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use tlog::{Journal, LogError, Name, Names};

const KIND: &[u8; 16] = b"lockstep open 1\n";
/// Bytes before a ciphertext.
const ROW_HEAD_BYTES: usize = 20;
/// Bytes of the first group's payload.
const FIRST_BYTES: usize = 72;
/// A window is cut into so many segments at least.
const SEGMENTS_A_WINDOW: u64 = 16;

/// How long openings are kept, and how large their files become.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keeping {
    pub(crate) window_seconds: u64,
    pub(crate) segment_bytes: u64,
}

/// A store of openings. One thread writes, many read.
pub(crate) struct Openings {
    folder: PathBuf,
    secret: [u8; 32],
    keeping: Keeping,
    segments: RwLock<Vec<Segment>>,
}

struct Segment {
    number: u64,
    folder: PathBuf,
    journal: Journal,
    key: Hash,
    begun_seconds: u64,
    names: Names,
}

/// An opening to keep: name and bytes of a bundle.
pub(crate) type Entry = (Name, Vec<u8>);

impl Openings {
    /// Opens the store in a folder, or begins one.
    pub(crate) fn open(folder: &Path, secret: [u8; 32], keeping: Keeping, now: u64) -> Result<Openings, StartError> {
        std::fs::create_dir_all(folder).map_err(StartError::file(folder))?;
        let mut numbers = vec![];
        for item in std::fs::read_dir(folder).map_err(StartError::file(folder))? {
            let item = item.map_err(StartError::file(folder))?;
            numbers.extend(item.file_name().to_str().and_then(|name| name.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        let last = numbers.last().copied();
        let openings = Openings { folder: folder.to_owned(), secret, keeping, segments: RwLock::default() };
        for number in numbers {
            let segment = openings.segment(number, now, Some(number) != last)?;
            openings.segments.write().unwrap_or_else(PoisonError::into_inner).push(segment);
        }
        openings.sweep(now)?;
        Ok(openings)
    }

    /// Keeps a group of openings. They are durable when this returns, or nothing is kept.
    pub(crate) fn append(&self, entries: &[Entry], now: u64) -> Result<(), StartError> {
        self.begin_segment(now)?;
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let Some(segment) = segments.last_mut() else { return Err(LogError::Broken.into()) };
        let key = segment.key;
        drop(segments);
        // Encrypting and writing take a while, and readers need not wait: this thread alone changes the newest segment.
        let (mut payload, mut places) = (vec![], Vec::with_capacity(entries.len()));
        for (name, bundle) in entries {
            let sealed = seal(&key, name, bundle).ok_or(LogError::TooLarge(bundle.len()))?;
            let bytes = u32::try_from(sealed.len()).map_err(|_| LogError::TooLarge(sealed.len()))?;
            places.push((*name, payload.len() as u64));
            payload.extend_from_slice(name);
            payload.extend_from_slice(&bytes.to_le_bytes());
            payload.extend_from_slice(&sealed);
        }
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let Some(segment) = segments.last_mut() else { return Err(LogError::Broken.into()) };
        let offset = segment.journal.append(&[&payload])?;
        for (name, at) in places {
            segment.names.insert(name, offset + at);
        }
        Ok(())
    }

    /// The bytes of the bundle with this name; none if it is not here, or no longer.
    pub(crate) fn find(&self, name: &Name) -> Result<Option<Vec<u8>>, StartError> {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        for segment in segments.iter().rev() {
            if let Some(offset) = segment.names.find(name)? {
                return segment.read(name, offset).map(Some);
            }
        }
        Ok(None)
    }

    /// Begins a new segment if there is none, or the newest is full or old.
    fn begin_segment(&self, now: u64) -> Result<(), StartError> {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let number = match segments.last_mut() {
            Some(newest)
                if newest.journal.bytes() < self.keeping.segment_bytes && now <= newest.begun_seconds + self.age() =>
            {
                return Ok(());
            }
            Some(newest) => {
                newest.names.seal(u64::MAX)?;
                newest.number + 1
            }
            None => 0,
        };
        segments.push(self.segment(number, now, false)?);
        drop(segments);
        self.sweep(now)
    }

    /// Deletes what is older than the window.
    pub(crate) fn sweep(&self, now: u64) -> Result<(), StartError> {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        let kept_from = now.saturating_sub(self.keeping.window_seconds);
        while segments.first().is_some_and(|first| first.begun_seconds + self.age() < kept_from) {
            segments.remove(0).delete()?;
        }
        Ok(())
    }

    /// For how many seconds a segment takes openings.
    fn age(&self) -> u64 {
        self.keeping.window_seconds / SEGMENTS_A_WINDOW
    }

    /// Opens a segment, or begins it now.
    fn segment(&self, number: u64, now: u64, sealed: bool) -> Result<Segment, StartError> {
        let folder = self.folder.join(format!("{number:08}"));
        std::fs::create_dir_all(&folder).map_err(StartError::file(&folder))?;
        let path = folder.join("openings");
        let mut rows = vec![];
        let (journal, first) = if sealed { Journal::open_finished(&path, KIND)? } else { scan(&path, &mut rows)? };
        let (mut journal, mut first) = (journal, first);
        if first.is_empty() {
            first = self.begin(now)?.to_vec();
            journal.append(&[&first])?;
            for folder in [&folder, &self.folder] {
                File::open(folder).and_then(|folder| folder.sync_all()).map_err(StartError::file(folder))?;
            }
        }
        let first = <[u8; FIRST_BYTES]>::try_from(first);
        let first = first.map_err(|_| StartError::file(&path)(io::ErrorKind::InvalidData.into()))?;
        let key = self.segment_key(&first);
        if first[40..] != *blake3::keyed_hash(&key, b"check").as_bytes() {
            return Err(StartError::OtherOpeningsKey { path });
        }
        let begun_seconds = u64::from_le_bytes(std::array::from_fn(|byte| first[32 + byte]));
        let mut names = Names::open(&folder.join("names"), u64::from(sealed), |_| {
            // The table is gone or damaged: it is made again.
            let mut rows = vec![];
            scan(&path, &mut rows)?;
            Ok(rows)
        })?;
        rows.into_iter().for_each(|(name, offset)| names.insert(name, offset));
        Ok(Segment { number, folder, journal, key, begun_seconds, names })
    }

    /// The first payload of a segment that begins now.
    fn begin(&self, now: u64) -> Result<[u8; FIRST_BYTES], StartError> {
        let mut first = [0; FIRST_BYTES];
        getrandom::fill(&mut first[..32]).map_err(StartError::Random)?;
        first[32..40].copy_from_slice(&now.to_le_bytes());
        let check = blake3::keyed_hash(&self.segment_key(&first), b"check");
        first[40..].copy_from_slice(check.as_bytes());
        Ok(first)
    }

    fn segment_key(&self, first: &[u8; FIRST_BYTES]) -> Hash {
        blake3::derive_key("lockstep gateway 2: openings", &[&self.secret[..], &first[..32]].concat())
    }
}

impl Segment {
    fn read(&self, name: &Name, offset: u64) -> Result<Vec<u8>, StartError> {
        let file = self.journal.file();
        let io = |error| StartError::file(self.journal.path())(error);
        let mut head = [0; ROW_HEAD_BYTES];
        file.read_exact_at(&mut head, offset).map_err(io)?;
        let bytes = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
        // A damaged length must not take all memory.
        if u64::from(bytes) > self.journal.bytes() {
            return Err(io(io::ErrorKind::InvalidData.into()));
        }
        let mut sealed = vec![0; bytes as usize];
        file.read_exact_at(&mut sealed, offset + ROW_HEAD_BYTES as u64).map_err(io)?;
        open(&self.key, name, &sealed).ok_or_else(|| io(io::ErrorKind::InvalidData.into()))
    }

    fn delete(self) -> Result<(), StartError> {
        let path = self.journal.path();
        // The salt is the first of the first payload, behind 16 bytes of kind and 40 of group.
        let file = OpenOptions::new().write(true).open(path).map_err(StartError::file(path))?;
        file.write_all_at(&[0; 32], 56).and_then(|()| file.sync_all()).map_err(StartError::file(path))?;
        std::fs::remove_dir_all(&self.folder).map_err(StartError::file(&self.folder))
    }
}

/// Opens a segment's journal and reads it all: its first payload, empty if there is none, and its rows.
fn scan(path: &Path, rows: &mut Vec<(Name, u64)>) -> Result<(Journal, Vec<u8>), LogError> {
    let mut first = vec![];
    let journal = Journal::open(path, KIND, |offset, payload| {
        if first.is_empty() {
            first = payload;
            return Ok(());
        }
        rows_of(&payload, |name, at| rows.push((*name, offset + at))).ok_or_else(|| "a row breaks off".to_owned())
    })?;
    Ok((journal, first))
}

/// Gives each row's name and where in the payload it begins; nothing if the payload breaks off.
fn rows_of(payload: &[u8], mut row: impl FnMut(&Name, u64)) -> Option<()> {
    let mut rest = payload;
    while !rest.is_empty() {
        let at = payload.len() - rest.len();
        let (name, after) = rest.split_first_chunk::<16>()?;
        let (bytes, after) = after.split_first_chunk::<4>()?;
        rest = after.get(u32::from_le_bytes(*bytes) as usize..)?;
        row(name, at as u64);
    }
    Some(())
}

/// The key of one bundle seals nothing else, so that its nonce may be always the same.
fn cipher(key: &Hash, name: &Name) -> ChaCha20Poly1305 {
    ChaCha20Poly1305::new(&Key::from(*blake3::keyed_hash(key, name).as_bytes()))
}

fn seal(key: &Hash, name: &Name, bundle: &[u8]) -> Option<Vec<u8>> {
    cipher(key, name).encrypt(&Nonce::from([0; 12]), Payload { msg: bundle, aad: name }).ok()
}

fn open(key: &Hash, name: &Name, sealed: &[u8]) -> Option<Vec<u8>> {
    cipher(key, name).decrypt(&Nonce::from([0; 12]), Payload { msg: sealed, aad: name }).ok()
}

#[cfg(test)]
#[path = "openings_tests.rs"]
mod tests;
