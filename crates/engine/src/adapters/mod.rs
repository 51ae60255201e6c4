//! Adapters by the thousand: known by name, identified by content, in one of three places.
//!
//! disk → host memory → resident. A name is cheap: it costs a few hundred bytes until somebody asks for it. Loading goes
//! on in a thread of its own while others compute. A request holds its adapter by handle, not by name: whatever is
//! registered under the name later has another handle, and another digest.

mod disk;
mod loader;
mod registry;
mod roots;
mod tiers;

pub use registry::{AdapterError, Adapters};
pub use roots::Roots;

pub(crate) use disk::{Disk, Loaded};
pub(crate) use loader::{Haste, Loader};
pub(crate) use tiers::{Readiness, Tiers};

use cpu::Hash;
use model::Adapter;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// An adapter as it was registered: one name, one content.
#[derive(Debug)]
pub struct AdapterHandle {
    id: u64,
    name: String,
    source: Source,
    digest: OnceLock<Hash>,
    bytes: AtomicU64,
    rank: AtomicU64,
    pinned: AtomicBool,
    retired: AtomicBool,
    whereabouts: AtomicU8,
}

/// Where an adapter is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Whereabouts {
    /// In its folder, or wherever whoever registered it keeps it.
    Disk,
    /// On its way to the host's memory.
    Loading,
    /// In the host's memory.
    Host,
    /// In the device's memory.
    Resident,
}

/// Where it comes from.
pub(crate) enum Source {
    Memory(Arc<Adapter>),
    Folder(PathBuf),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Memory(_) => f.write_str("memory"),
            Source::Folder(folder) => write!(f, "{}", folder.display()),
        }
    }
}

impl AdapterHandle {
    /// The name it was registered under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Identity of its contents; none before it was loaded for the first time.
    pub fn digest(&self) -> Option<Hash> {
        self.digest.get().copied()
    }

    /// Bytes it takes when loaded; none before it was loaded for the first time.
    pub fn bytes(&self) -> Option<u64> {
        Some(self.bytes.load(Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// The largest rank of its maps; none before it was loaded for the first time.
    pub fn rank(&self) -> Option<usize> {
        Some(self.rank.load(Relaxed) as usize).filter(|rank| *rank > 0)
    }

    /// Whether it stays resident once it is.
    pub fn is_pinned(&self) -> bool {
        self.pinned.load(Relaxed)
    }

    pub(crate) fn pin(&self, pinned: bool) {
        self.pinned.store(pinned, Relaxed);
    }

    /// Where it was after the engine's last step.
    pub fn whereabouts(&self) -> Whereabouts {
        match self.whereabouts.load(Relaxed) {
            1 => Whereabouts::Loading,
            2 => Whereabouts::Host,
            3 => Whereabouts::Resident,
            _ => Whereabouts::Disk,
        }
    }

    pub(crate) fn show(&self, whereabouts: Whereabouts) {
        self.whereabouts.store(whereabouts as u8, Relaxed);
    }

    /// Its folder, if it comes from one.
    pub fn folder(&self) -> Option<&Path> {
        match &self.source {
            Source::Folder(folder) => Some(folder),
            Source::Memory(_) => None,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn in_memory(&self) -> Option<&Arc<Adapter>> {
        match &self.source {
            Source::Memory(adapter) => Some(adapter),
            Source::Folder(_) => None,
        }
    }

    /// Notes what was loaded. Gives false if it is not what was loaded before.
    pub(crate) fn note(&self, adapter: &Adapter) -> bool {
        self.bytes.store((adapter.bytes() as u64).max(1), Relaxed);
        self.rank.store(adapter.rank() as u64, Relaxed);
        *self.digest.get_or_init(|| adapter.digest) == adapter.digest
    }

    pub(crate) fn retire(&self) {
        self.retired.store(true, Relaxed);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Relaxed)
    }
}
