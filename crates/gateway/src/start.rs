//! Why a server does not start.

use std::io;
use std::path::{Path, PathBuf};

/// Why a server does not start. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The operating system refused.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another server uses the data folder.
    #[error("another server is using {path}: stop it, or give this one another data folder")]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// Others may read the node's key.
    #[error("{path} can be read by others: run `chmod 600` on it, and make a new key if somebody may have copied it")]
    KeyExposed {
        /// The file.
        path: PathBuf,
    },
    /// The node's key cannot be read.
    #[error("{path} is not a secret of this node (64 hexadecimal digits): restore it from a backup")]
    KeyDamaged {
        /// The file.
        path: PathBuf,
    },
    /// The folder holds receipts that an earlier version wrote.
    #[error("{path} holds receipts of an earlier format: move the folder aside, or use a new data folder")]
    OldFormat {
        /// The file with the receipts.
        path: PathBuf,
    },
    /// There are openings, but what they were encrypted with is gone or another.
    #[error("{path} was encrypted with another openings.key: restore it, or move the openings aside")]
    OtherOpeningsKey {
        /// The file with openings.
        path: PathBuf,
    },
    /// The log of receipts cannot be used.
    #[error(transparent)]
    Log(#[from] tlog::LogError),
    /// There are receipts, but the key that signed them is gone or another.
    #[error("the receipts in {path} were signed with another key than node.key: restore it, or use a new data folder")]
    OtherKey {
        /// The file with the receipts.
        path: PathBuf,
    },
    /// A file of API keys cannot be used.
    #[error("{path}, line {line}: {what}; `lockstep key NAME` makes a line")]
    Keys {
        /// The file.
        path: PathBuf,
        /// Counted from 1; 0 is the file.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// A model cannot be served under this name.
    #[error("{name:?} cannot name a model: {what}")]
    Name {
        /// The name.
        name: String,
        /// Why not.
        what: &'static str,
    },
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] ledger::LedgerError),
    /// A name cannot name an account.
    #[error(transparent)]
    Account(#[from] ledger::AccountError),
    /// Records of the device's time cannot be kept.
    #[error(transparent)]
    DeviceTime(#[from] returns::ReturnsError),
    /// An adapter cannot be served.
    #[error(transparent)]
    Adapter(#[from] engine::AdapterError),
    /// The operating system has no thread to give.
    #[error("starting threads: {0}")]
    Thread(io::Error),
    /// The operating system has no random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Random(getrandom::Error),
}

impl StartError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(io::Error) -> StartError {
        move |source| StartError::File { path: path.to_owned(), source }
    }
}
