//! Why a log cannot be read, written or believed.

use std::io;
use std::path::{Path, PathBuf};

/// Why a log cannot be read, written or believed. Each message says what to do, where something can be done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The operating system refused.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// What was written cannot be read any more.
    #[error("{path} is damaged at byte {offset}: {what}; restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The disk holds less than was published.
    #[error(
        "the log was rolled back: it published a head of {published} entries, but {path} does not continue it; restore \
         the newest backup, or begin a new log with a new key"
    )]
    RolledBack {
        /// Entries of the head that was published.
        published: u64,
        /// The log's folder.
        path: PathBuf,
    },
    /// An earlier write failed, and nobody knows what the disk holds.
    #[error("an earlier write failed; restart once the disk is well")]
    Broken,
    /// Something beyond the log.
    #[error("the log does not hold {0}")]
    Absent(&'static str),
    /// An entry that cannot be written.
    #[error("an entry has at most {max} bytes, this has {0}", max = crate::ENTRY_BYTES_MAX)]
    TooLarge(usize),
    /// Bytes that are not what they should be.
    #[error("this is not {0}")]
    Malformed(&'static str),
    /// A signature that is not valid, or none of the key that is trusted.
    #[error("it is not signed by {0}")]
    Signature(String),
    /// Proof and log head disagree.
    #[error("the log contradicts its own head: {0}")]
    Contradiction(String),
    /// A source could not give what was asked for.
    #[error("cannot fetch {what}: {why}")]
    Fetch {
        /// The resource.
        what: String,
        /// Why not.
        why: String,
    },
}

impl LogError {
    /// The operating system refused something about `path`.
    pub fn file(path: &Path) -> impl FnOnce(io::Error) -> LogError {
        move |source| LogError::File { path: path.to_owned(), source }
    }
}
