//! What must not be lost while the database is away: settlements and releases, in a file, in order.
//!
//! The file is a journal of the `tlog` crate: each group of operations is framed, checksummed and synchronised before anybody
//! is told; a torn end, which a kill leaves, is cut off. Operations go to the database in order when it is back, and because of
//! their ids never twice; when all are there the file begins anew. What the rules refuse then is set aside in a second file.

use crate::error::LedgerError;
use crate::operation::Operation;
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tlog::{Journal, LogError};

/// How long the file's lock is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(1);
const KIND: &[u8; 16] = b"lockstep spool 1";

/// Operations that wait for the database.
pub(crate) struct Spool {
    path: PathBuf,
    bytes_max: u64,
    /// None: what is on disk is to be read again before more is written.
    journal: Option<Journal>,
    waiting: VecDeque<Operation>,
    /// None: there is no file, and nothing can wait.
    lock: Option<File>,
}

impl Spool {
    /// No file: settlements are refused while the database is away. For whoever only asks and orders.
    pub(crate) fn none() -> Spool {
        Spool { path: PathBuf::new(), bytes_max: 0, journal: None, waiting: VecDeque::new(), lock: None }
    }

    /// Opens the file, or creates it; what waits in it is read. One process at a time.
    pub(crate) fn open(path: &Path, bytes_max: u64) -> Result<Spool, LedgerError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| spool_error(folder, &error))?;
        }
        let lock_path = path.with_extension("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(|error| spool_error(&lock_path, &error))?;
        let begun = Instant::now();
        // A process that this one is just starting holds what is open here for a moment.
        while lock.try_lock().is_err() {
            if begun.elapsed() < LOCK_WAIT {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            let what = format!("{} is used by another process: give each its own spool", path.display());
            return Err(LedgerError::Config(what.into()));
        }
        let (journal, waiting) = read(path).map_err(|error| LedgerError::Config(error.to_string().into()))?;
        Ok(Spool { path: path.to_owned(), bytes_max, journal: Some(journal), waiting, lock: Some(lock) })
    }

    /// How many operations wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Keeps operations; they are durable when this returns, or none is kept.
    pub(crate) fn keep(&mut self, operations: &[&Operation]) -> Result<(), LedgerError> {
        let failed = |what: String| LedgerError::Spool(what.into());
        if self.lock.is_none() {
            return Err(failed("there is no file where this could wait for it".to_owned()));
        }
        let bytes = serde_json::to_vec(operations).map_err(|error| failed(error.to_string()))?;
        let journal = match self.journal.as_mut() {
            Some(journal) => journal,
            None => {
                // After an error only reading again tells what the disk holds.
                let (journal, waiting) = read(&self.path).map_err(|error| failed(error.to_string()))?;
                self.waiting = waiting;
                self.journal.insert(journal)
            }
        };
        if journal.bytes() + bytes.len() as u64 > self.bytes_max {
            let (path, max) = (self.path.display(), self.bytes_max);
            return Err(failed(format!("{path}, where this would wait for it, is full ({max} bytes)")));
        }
        if let Err(error) = journal.append(&[&bytes]) {
            self.journal = None;
            return Err(failed(format!("what would wait for it cannot be written: {error}")));
        }
        self.waiting.extend(operations.iter().map(|operation| (*operation).clone()));
        Ok(())
    }

    /// The operations that wait longest, `count` at most.
    pub(crate) fn front(&self, count: usize) -> Vec<&Operation> {
        self.waiting.iter().take(count).collect()
    }

    /// Takes the first `count` operations out: the database has them, or they were set aside.
    pub(crate) fn drop_front(&mut self, count: usize) -> Result<(), LedgerError> {
        self.waiting.drain(..count.min(self.waiting.len()));
        if !self.waiting.is_empty() {
            return Ok(());
        }
        self.journal = None;
        // If a crash brings the file back, everything in it was done, and is not done again.
        std::fs::remove_file(&self.path).map_err(|error| spool_error(&self.path, &error))?;
        let (journal, _) = read(&self.path).map_err(|error| LedgerError::Spool(error.to_string().into()))?;
        self.journal = Some(journal);
        Ok(())
    }

    /// Sets an operation aside that the rules refuse, for people to look at.
    pub(crate) fn set_aside(&self, operation: &Operation, why: &str) -> Result<(), LedgerError> {
        let path = self.refused_path();
        let line = serde_json::json!({ "refused": why, "operation": operation });
        let written = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).and_then(|mut file| {
            file.write_all(format!("{line}\n").as_bytes())?;
            file.sync_data()
        });
        written.map_err(|error| spool_error(&path, &error))
    }

    /// How many operations were set aside.
    pub(crate) fn set_aside_count(&self) -> usize {
        std::fs::read_to_string(self.refused_path()).map_or(0, |text| text.lines().count())
    }

    fn refused_path(&self) -> PathBuf {
        self.path.with_extension("refused")
    }
}

fn read(path: &Path) -> Result<(Journal, VecDeque<Operation>), LogError> {
    let mut waiting = VecDeque::new();
    let journal = Journal::open(path, KIND, |_, payload| {
        let group: Vec<Operation> = serde_json::from_slice(&payload).map_err(|error| error.to_string())?;
        waiting.extend(group);
        Ok(())
    })?;
    // The file's name must be as durable as what is in it.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(LogError::file(folder))?;
    Ok((journal, waiting))
}

fn spool_error(path: &Path, error: &std::io::Error) -> LedgerError {
    LedgerError::Spool(format!("{}: {error}", path.display()).into())
}
