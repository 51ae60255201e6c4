//! The data folder: what must survive a restart, for one server at a time, readable by its owner only.

use crate::start::StartError;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A data folder nobody else uses while this exists.
pub(crate) struct Folder {
    path: PathBuf,
    /// Locked. The operating system unlocks it however this process ends.
    _lock: File,
}

impl Folder {
    /// Opens the folder, or creates it.
    pub(crate) fn open(path: &Path) -> Result<Folder, StartError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StartError::file(path))?;
        let lock_path = path.join("lock");
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(StartError::file(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Folder { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StartError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(StartError::file(&lock_path)(error)),
        }
    }

    /// Where a file of this name is.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes new names durable.
    pub(crate) fn sync(&self) -> Result<(), StartError> {
        File::open(&self.path).and_then(|folder| folder.sync_all()).map_err(StartError::file(&self.path))
    }

    /// Writes a file so that at any moment it is either not there or complete.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StartError> {
        let (path, new_path) = (self.file(name), self.file(&format!("{name}.new")));
        let written = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new_path);
        written
            .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
            .and_then(|()| std::fs::rename(&new_path, &path))
            .map_err(StartError::file(&path))?;
        self.sync()
    }
}
