//! A log on disk.
//!
//! What is appended goes into a journal, the *tail*, group by group. Once there is enough of it, full tiles are written
//! as files in the layout of `tlog-tiles`, and a new tail begins behind them. So the folder can be served as it is, but
//! for the newest entries, and opening a log reads only its tail.

use crate::error::LogError;
use crate::head::Head;
use crate::journal::Journal;
use crate::merkle::{Hash, Hashes, consistency_proof, inclusion_proof, leaf_hash, root};
use crate::names::{Name, Names};
use crate::note::{Note, NoteSignature, VerifierKey};
use crate::proof::Proof;
use crate::state::{State, begin_tail, read_entries, tail_path};
use crate::tile::{ENTRY_BYTES_MAX, TILE_WIDTH, Tile, join_entries, split_entries};
use ed25519_dalek::SigningKey;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

/// Entries in a block of names.
const NAMES_BLOCK: u64 = 1 << 16;

/// When tiles are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Entries of a tail; a multiple of 256.
    pub tail_entries: u64,
    /// Bytes of a tail.
    pub tail_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { tail_entries: 4096, tail_bytes: 8 << 20 }
    }
}

/// Where entries were appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Index of the first.
    pub first: u64,
    /// Entries of the log with them.
    pub size: u64,
}

/// A log on disk. Appending is for one at a time, reading for many at once.
pub struct Log {
    folder: PathBuf,
    origin: String,
    key: SigningKey,
    limits: Limits,
    tail: Mutex<Journal>,
    /// What readers see: only what is durable.
    state: RwLock<State>,
    names: RwLock<Names>,
    /// The newest head that was signed, with witnesses' signatures.
    head: Mutex<Option<(Head, Note)>>,
    /// The newest head that a witness signed.
    cosigned: Mutex<Option<(u64, Note)>>,
}

/// The name of an entry: the first half of its BLAKE3.
pub fn name_of(entry: &[u8]) -> Name {
    let hash = *blake3::hash(entry).as_bytes();
    std::array::from_fn(|byte| hash[byte])
}

impl Log {
    /// Opens the log in a folder, or begins one. `origin` names it and its key. Gives each entry of the tail to `read`:
    /// those that came last.
    ///
    /// # Errors
    /// The folder cannot be used or is damaged, or the log is shorter than, or another than, it was when it last signed.
    pub fn open(folder: &Path, origin: &str, key: SigningKey, limits: Limits) -> Result<Log, LogError> {
        std::fs::create_dir_all(folder.join("tile")).map_err(LogError::file(folder))?;
        let (state, tail) = State::open(folder)?;
        let base = state.base;
        let mut names = Names::open(&folder.join("names"), base / NAMES_BLOCK, |block| {
            names_of(folder, block * NAMES_BLOCK, (block + 1) * NAMES_BLOCK)
        })?;
        for (name, index) in names_of(folder, base / NAMES_BLOCK * NAMES_BLOCK, base)? {
            names.insert(name, index);
        }
        for (index, entry) in (base..).zip(&state.entries) {
            names.insert(name_of(entry), index);
        }
        let log = Log {
            folder: folder.to_owned(),
            origin: origin.to_owned(),
            key,
            limits,
            tail: Mutex::new(tail),
            state: RwLock::new(state),
            names: RwLock::new(names),
            head: Mutex::new(None),
            cosigned: Mutex::new(None),
        };
        log.check_published()?;
        Ok(log)
    }

    /// The log's name.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What verifies its heads.
    ///
    /// # Errors
    /// The origin cannot name a key.
    pub fn verifier(&self) -> Result<VerifierKey, LogError> {
        VerifierKey::new(&self.origin, crate::note::Kind::Plain, self.key.verifying_key().as_bytes())
    }

    /// Entries.
    pub fn size(&self) -> u64 {
        self.state().tree.size()
    }

    /// Appends entries. They are durable when this returns, or none is kept.
    ///
    /// # Errors
    /// An entry is too large, or the disk refuses.
    pub fn append(&self, entries: &[Vec<u8>]) -> Result<Appended, LogError> {
        if let Some(entry) = entries.iter().find(|entry| entry.len() > ENTRY_BYTES_MAX) {
            return Err(LogError::TooLarge(entry.len()));
        }
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let first = self.size();
        if entries.is_empty() {
            return Ok(Appended { first, size: first });
        }
        tail.append(&[&join_entries(entries.iter().map(Vec::as_slice))?])?;
        let leaves: Vec<(Hash, Name)> = entries.iter().map(|entry| (leaf_hash(entry), name_of(entry))).collect();
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        for (index, (leaf, name)) in (first..).zip(leaves) {
            state.tree.push(leaf);
            names.insert(name, index);
        }
        state.bytes += entries.iter().map(Vec::len).sum::<usize>();
        state.entries.extend_from_slice(entries);
        let size = state.tree.size();
        let full = size - state.base >= self.limits.tail_entries || state.bytes >= self.limits.tail_bytes;
        drop((state, names));
        if full && let Err(error) = self.write_tiles(&mut tail) {
            // Nothing is lost: the tail holds everything, and grows until tiles can be written.
            tracing::error!("tiles of the log could not be written: {error}");
        }
        Ok(Appended { first, size })
    }

    /// Writes full tiles as files, then begins a new tail behind them.
    fn write_tiles(&self, tail: &mut Journal) -> Result<(), LogError> {
        let state = self.state();
        let base = state.tree.size() / TILE_WIDTH * TILE_WIDTH;
        let count = (base - state.base) as usize;
        if count == 0 {
            return Ok(());
        }
        let mut folders = std::collections::BTreeSet::new();
        for (tile, bytes) in state.tree.fresh() {
            folders.extend(self.write(&tile.path(), &bytes)?);
        }
        for (index, entries) in (state.base / TILE_WIDTH..).zip(state.entries[..count].chunks(TILE_WIDTH as usize)) {
            let bytes = join_entries(entries.iter().map(Vec::as_slice))?;
            folders.extend(self.write(&Tile::entries(index, TILE_WIDTH as u16).path(), &bytes)?);
        }
        folders.iter().try_for_each(|folder| sync_folder(folder))?;
        let base_root = root(&state.tree, base)?;
        let rest = join_entries(state.entries[count..].iter().map(Vec::as_slice))?;
        drop(state);

        let (path, new_path) = (tail_path(&self.folder), self.folder.join("tail.new"));
        match std::fs::remove_file(&new_path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(LogError::file(&new_path)(error)),
            _ => {}
        }
        let new = begin_tail(&new_path, base, &base_root, &rest)?;
        std::fs::rename(&new_path, &path).map_err(LogError::file(&path))?;
        *tail = new;
        sync_folder(&self.folder)?;

        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let blocks = state.base / NAMES_BLOCK..base / NAMES_BLOCK;
        state.entries.drain(..count);
        state.bytes = state.entries.iter().map(Vec::len).sum();
        state.base = base;
        state.tree.forget_fresh();
        drop(state);
        blocks.into_iter().try_for_each(|block| names.seal((block + 1) * NAMES_BLOCK))
    }

    /// Writes a file whole and synchronised. Gives the folders that must be synchronised for its name to last.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<Vec<PathBuf>, LogError> {
        let path = self.folder.join(name);
        let parents: Vec<PathBuf> = path
            .ancestors()
            .skip(1)
            .take_while(|parent| parent.starts_with(&self.folder))
            .map(Path::to_owned)
            .collect();
        std::fs::create_dir_all(&parents[0]).map_err(LogError::file(&parents[0]))?;
        write_whole(&path, bytes, true)?;
        Ok(parents)
    }

    /// The newest head, signed now if it is not yet; with witnesses' signatures if there are any.
    ///
    /// # Errors
    /// It cannot be noted as published.
    pub fn head(&self) -> Result<(Head, Note), LogError> {
        let (size, root) = {
            let state = self.state();
            (state.tree.size(), state.tree.root())
        };
        let mut newest = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((head, note)) = newest.as_ref().filter(|(head, _)| head.size >= size) {
            return Ok((head.clone(), note.clone()));
        }
        let head = Head { origin: self.origin.clone(), size, root };
        let note = head.sign(&self.key)?;
        // Before anybody sees it: a log that is rolled back notices when it is opened.
        write_whole(&self.folder.join("checkpoint"), note.to_string().as_bytes(), false)?;
        *newest = Some((head.clone(), note.clone()));
        Ok((head, note))
    }

    /// The newest head that witnesses signed.
    pub fn cosigned(&self) -> Option<Note> {
        self.cosigned.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, note)| note.clone())
    }

    /// Keeps a witness's signature of the head `note`, which this log signed.
    ///
    /// # Errors
    /// The note is not a head of this log, or the witness's signature is not valid.
    pub fn cosign(&self, note: &Note, signature: NoteSignature, witness: &VerifierKey) -> Result<(), LogError> {
        note.verify(&self.verifier()?)?;
        let size = Head::of(note)?.size;
        let mut signed = Note { text: note.text.clone(), signatures: vec![signature.clone()] };
        signed.verify(witness)?;
        let mut cosigned = self.cosigned.lock().unwrap_or_else(PoisonError::into_inner);
        match cosigned.as_mut() {
            Some((newest, kept)) if *newest == size && kept.text == note.text => kept.signatures.push(signature),
            Some((newest, _)) if *newest >= size => {}
            _ => {
                signed.signatures.splice(0..0, note.signatures.iter().cloned());
                *cosigned = Some((size, signed));
            }
        }
        Ok(())
    }

    /// Index of the entry with this name.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn find(&self, name: &Name) -> Result<Option<u64>, LogError> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).find(name)
    }

    /// An entry.
    ///
    /// # Errors
    /// It is beyond the log, or its tile cannot be read.
    pub fn entry(&self, index: u64) -> Result<Vec<u8>, LogError> {
        self.state().entry(index)
    }

    /// A proof that an entry is in the log, against the newest head that holds it: one that witnesses signed, if there
    /// is one.
    ///
    /// # Errors
    /// The entry is beyond the log, or a tile cannot be read.
    pub fn prove(&self, index: u64) -> Result<Proof, LogError> {
        let cosigned = self.cosigned().and_then(|note| Some((Head::of(&note).ok()?, note)));
        let (head, note) = match cosigned.filter(|(head, _)| head.size > index) {
            Some(cosigned) => cosigned,
            None => self.head()?,
        };
        let hashes = inclusion_proof(&self.state().tree, index, head.size)?;
        Ok(Proof { index, hashes, head: note })
    }

    /// A proof that the head of `size` entries continues the one of `old`.
    ///
    /// # Errors
    /// One of them is beyond the log, or a tile cannot be read.
    pub fn prove_consistency(&self, old: u64, size: u64) -> Result<Vec<Hash>, LogError> {
        let state = self.state();
        if size > state.tree.size() {
            return Err(LogError::Absent("a log head beyond the newest"));
        }
        consistency_proof(&state.tree, old, size)
    }

    /// The bytes of a tile; none if the log does not have it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, LogError> {
        self.state().tile(tile)
    }

    /// Whether this is the log, or a continuation of the log, whose head was published last.
    fn check_published(&self) -> Result<(), LogError> {
        let path = self.folder.join("checkpoint");
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(LogError::file(&path))?,
        };
        // Not signed by this key: written by nobody who could have published it.
        let Ok(published) = Head::verify(&bytes, &self.verifier()?) else { return Ok(()) };
        let state = self.state();
        let size = published.size;
        if size > state.tree.size() || root(&state.tree, size)? != published.root {
            return Err(LogError::RolledBack { published: size, path: self.folder.clone() });
        }
        Ok(())
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hashes for Log {
    fn hash(&self, level: u32, index: u64) -> Result<Hash, LogError> {
        self.state().tree.hash(level, index)
    }
}

/// Names of the entries in full tiles on disk.
fn names_of(folder: &Path, first: u64, end: u64) -> Result<Vec<(Name, u64)>, LogError> {
    let mut names = vec![];
    for index in first / TILE_WIDTH..end / TILE_WIDTH {
        let bytes = read_entries(folder, index)?;
        names.extend(split_entries(&bytes)?.into_iter().map(name_of).zip(index * TILE_WIDTH..));
    }
    Ok(names)
}

/// Writes a file so that at any moment it is as it was or complete.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], durable: bool) -> Result<(), LogError> {
    let mut new_path = path.as_os_str().to_owned();
    new_path.push(".new");
    let new_path = PathBuf::from(new_path);
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o644).open(&new_path);
    file.and_then(|mut file| file.write_all(bytes).and_then(|()| if durable { file.sync_all() } else { Ok(()) }))
        .and_then(|()| std::fs::rename(&new_path, path))
        .map_err(LogError::file(path))
}

/// Makes new names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), LogError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(LogError::file(folder))
}
