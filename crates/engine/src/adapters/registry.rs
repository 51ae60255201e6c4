//! Which adapters there are, by name.

use super::{AdapterHandle, Disk, Haste, Loader, Roots, Source};
use cpu::Hash;
use model::{Adapter, AdapterCache};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

/// Names there may be.
const NAMES_MAX: usize = 100_000;
const NAME_BYTES_MAX: usize = 200;

/// Why an adapter could not be registered or removed. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// The name cannot name a model.
    #[error("an adapter's name has 1 to 200 bytes, no spaces and no control characters")]
    Name,
    /// The name is taken.
    #[error("there is an adapter called {0} already: unload it first, or replace it in place")]
    Taken(String),
    /// There is no such adapter.
    #[error("there is no adapter called {0}")]
    Unknown(String),
    /// There are as many as there can be.
    #[error("there are {NAMES_MAX} adapters, which is the most: unload some first")]
    Full,
    /// No folder is allowed.
    #[error("this server loads no adapters while it runs: start it with --adapter-root DIR")]
    NoRoots,
    /// The path leads outside, or to nothing.
    #[error("there is no such folder inside the folders this server may load adapters from (--adapter-root)")]
    Outside,
    /// It can never be resident.
    #[error("the adapter takes {bytes} bytes, and adapters have {room} here: give the server more memory (--memory)")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The most bytes adapters may take.
        room: u64,
    },
    /// Too much would stay resident.
    #[error(
        "with it pinned adapters would take {bytes} bytes, and they may take half of the {room} that adapters have here: \
         unpin another, or give the server more memory (--memory)"
    )]
    TooManyPinned {
        /// What all would take.
        bytes: u64,
        /// The most bytes adapters may take.
        room: u64,
    },
    /// The contents are not what was asked for.
    #[error("the folder holds an adapter of another digest than its name says: it was changed or copied incompletely")]
    OtherDigest,
    /// It cannot be loaded.
    #[error("{0}")]
    Unusable(Arc<str>),
}

/// The adapters of an engine by name. Shared with whoever answers requests.
pub struct Adapters {
    disk: Arc<Disk>,
    loader: Arc<Loader>,
    bytes_max: u64,
    roots: OnceLock<Roots>,
    names: RwLock<BTreeMap<String, Arc<AdapterHandle>>>,
    next: AtomicU64,
    /// Held while one is identified, so that many callers do not load it as often.
    identifying: Mutex<()>,
}

impl Adapters {
    pub(crate) fn new(disk: Arc<Disk>, loader: Arc<Loader>, bytes_max: u64) -> Adapters {
        Adapters {
            disk,
            loader,
            bytes_max,
            roots: OnceLock::new(),
            names: RwLock::default(),
            next: AtomicU64::new(0),
            identifying: Mutex::default(),
        }
    }

    /// Sets the folders that [`crate::Engine::load_adapter`] may load from. Can be done once; gives whether it was.
    pub fn allow(&self, roots: Roots) -> bool {
        self.roots.set(roots).is_ok()
    }

    /// Keeps adapters' quantised forms, so that loading one again takes as long as reading it. Can be done once; gives
    /// whether it was.
    pub fn keep_forms(&self, forms: AdapterCache) -> bool {
        self.disk.keep(forms)
    }

    /// The adapter of this name.
    pub fn find(&self, name: &str) -> Option<Arc<AdapterHandle>> {
        self.read(|names| names.get(name).cloned())
    }

    /// All of them, by name.
    pub fn list(&self) -> Vec<Arc<AdapterHandle>> {
        self.read(|names| names.values().cloned().collect())
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.read(BTreeMap::len)
    }

    /// Registers an adapter that is in memory and stays there. The same again is no error.
    pub fn insert(&self, name: &str, adapter: Arc<Adapter>) -> Result<Arc<AdapterHandle>, AdapterError> {
        self.check_size(adapter.bytes() as u64)?;
        if let Some(same) = self.find(name).filter(|known| known.digest() == Some(adapter.digest)) {
            return Ok(same);
        }
        let handle = self.handle(name, Source::Memory(adapter.clone()), false);
        handle.note(&adapter);
        self.add(handle, false).map(|(handle, _)| handle)
    }

    /// Registers a folder without reading it: that is done when somebody asks for the adapter. For whoever starts the
    /// server; the folder may be anywhere.
    pub fn register(&self, name: &str, folder: &Path) -> Result<Arc<AdapterHandle>, AdapterError> {
        self.add(self.handle(name, Source::Folder(folder.to_owned()), false), false).map(|(handle, _)| handle)
    }

    /// Loads and registers an adapter. All that are pinned must together leave half of the room.
    pub(crate) fn load(
        &self,
        name: &str,
        folder: &Path,
        pinned: bool,
    ) -> Result<(Arc<AdapterHandle>, Arc<Adapter>), AdapterError> {
        let handle = Arc::new(self.handle(name, Source::Folder(folder.to_owned()), pinned));
        let adapter = self.loader.load(handle.clone(), Haste::Patient).result.map_err(AdapterError::Unusable)?;
        self.check_size(adapter.bytes() as u64)?;
        if pinned {
            self.check_pins(&handle, adapter.bytes() as u64)?;
        }
        Ok((self.add(handle, false)?.0, adapter))
    }

    /// Pins an adapter whose size is known, if all that are pinned together leave half of the room.
    pub(crate) fn pin(&self, handle: &Arc<AdapterHandle>) -> Result<(), AdapterError> {
        // One at a time, so that two do not both see room for themselves.
        let _one = self.identifying.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_pins(handle, handle.bytes().unwrap_or_default())?;
        handle.pin(true);
        Ok(())
    }

    fn check_pins(&self, handle: &AdapterHandle, own: u64) -> Result<(), AdapterError> {
        let others = self.list();
        let others = others.iter().filter(|other| other.is_pinned() && other.id() != handle.id());
        let (bytes, room) = (others.filter_map(|other| other.bytes()).sum::<u64>() + own, self.bytes_max);
        if 2 * bytes > room { Err(AdapterError::TooManyPinned { bytes, room }) } else { Ok(()) }
    }

    /// Loads what `path` names inside the allowed folders; `digest:HEX` is the folder of that name, whose contents must
    /// have that digest. Gives the adapter and what it replaced.
    pub(crate) fn open(&self, name: &str, path: &str, replace: bool) -> Result<Opened, AdapterError> {
        check_name(name)?;
        if !replace && self.find(name).is_some() {
            return Err(AdapterError::Taken(name.to_owned()));
        }
        let (path, digest) = match path.strip_prefix("digest:") {
            Some(hex) => (hex, Some(hash_of(hex).ok_or(AdapterError::Outside)?)),
            None => (path, None),
        };
        let folder: PathBuf = self.roots.get().ok_or(AdapterError::NoRoots)?.resolve(path)?;
        let handle = self.handle(name, Source::Folder(folder), false);
        let loaded = self.loader.load(Arc::new(handle), Haste::Patient);
        let adapter = loaded.result.map_err(AdapterError::Unusable)?;
        if digest.is_some_and(|digest| digest != adapter.digest) {
            return Err(AdapterError::OtherDigest);
        }
        self.check_size(adapter.bytes() as u64)?;
        let (handle, replaced) = self.add(loaded.handle, replace)?;
        Ok(Opened { handle, adapter, replaced })
    }

    /// Loads an adapter whose digest is not known yet, for a request that waits for it.
    pub(crate) fn identify(&self, handle: &Arc<AdapterHandle>) -> Result<Option<Arc<Adapter>>, AdapterError> {
        let _one = self.identifying.lock().unwrap_or_else(PoisonError::into_inner);
        if handle.digest().is_some() {
            return Ok(None);
        }
        let adapter = self.loader.load(handle.clone(), Haste::Quick).result.map_err(AdapterError::Unusable)?;
        self.check_size(adapter.bytes() as u64)?;
        Ok(Some(adapter))
    }

    /// The adapter itself, loaded now unless it is kept in memory.
    pub(crate) fn fetch(&self, handle: &Arc<AdapterHandle>) -> Result<Arc<Adapter>, AdapterError> {
        self.loader.load(handle.clone(), Haste::Patient).result.map_err(AdapterError::Unusable)
    }

    /// Forgets a name.
    pub(crate) fn remove(&self, name: &str) -> Result<Arc<AdapterHandle>, AdapterError> {
        let removed = self.names.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        let handle = removed.ok_or_else(|| AdapterError::Unknown(name.to_owned()))?;
        handle.retire();
        Ok(handle)
    }

    fn handle(&self, name: &str, source: Source, pinned: bool) -> AdapterHandle {
        AdapterHandle {
            id: self.next.fetch_add(1, Relaxed),
            name: name.to_owned(),
            source,
            digest: OnceLock::new(),
            bytes: AtomicU64::new(0),
            rank: AtomicU64::new(0),
            pinned: AtomicBool::new(pinned),
            retired: AtomicBool::new(false),
            whereabouts: AtomicU8::new(0),
        }
    }

    fn add(
        &self,
        handle: impl Into<Arc<AdapterHandle>>,
        replace: bool,
    ) -> Result<(Arc<AdapterHandle>, Option<Arc<AdapterHandle>>), AdapterError> {
        let handle = handle.into();
        check_name(handle.name())?;
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        let taken = names.contains_key(handle.name());
        if taken && !replace {
            return Err(AdapterError::Taken(handle.name().to_owned()));
        }
        if !taken && names.len() >= NAMES_MAX {
            return Err(AdapterError::Full);
        }
        let replaced = names.insert(handle.name().to_owned(), handle.clone());
        if let Some(replaced) = &replaced {
            replaced.retire();
        }
        Ok((handle, replaced))
    }

    fn check_size(&self, bytes: u64) -> Result<(), AdapterError> {
        let room = self.bytes_max;
        if bytes > room { Err(AdapterError::TooLarge { bytes, room }) } else { Ok(()) }
    }

    fn read<T>(&self, read: impl FnOnce(&BTreeMap<String, Arc<AdapterHandle>>) -> T) -> T {
        read(&self.names.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What [`Adapters::open`] did.
pub(crate) struct Opened {
    pub(crate) handle: Arc<AdapterHandle>,
    pub(crate) adapter: Arc<Adapter>,
    pub(crate) replaced: Option<Arc<AdapterHandle>>,
}

fn check_name(name: &str) -> Result<(), AdapterError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len());
    let plain = !name.chars().any(|c| c.is_control() || c.is_whitespace());
    if fits && plain { Ok(()) } else { Err(AdapterError::Name) }
}

fn hash_of(hex: &str) -> Option<Hash> {
    let mut hash = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(hash)
}
