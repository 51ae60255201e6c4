//! What can be wrong with what returns are computed from.

use std::path::{Path, PathBuf};

/// Why a return cannot be computed. Each message says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReturnsError {
    /// The operating system refused.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A line of a journal is no record.
    #[error("{path}, line {line} is not a record of a device's time ({what}): restore the file or move it aside")]
    Record {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A device's costs cannot be used.
    #[error("{path}: {what}")]
    Device {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// There is no device of this name.
    #[error("there is no device {name:?}; known are {known}, and a file of your own (--help says what is in it)")]
    UnknownDevice {
        /// The name.
        name: String,
        /// Names there are.
        known: String,
    },
    /// The period is empty or in the future.
    #[error("the period ends before it begins: --from must be before --to")]
    Period,
}

impl ReturnsError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> ReturnsError {
        move |source| ReturnsError::File { path: path.to_owned(), source }
    }

    pub(crate) fn record(path: &Path, line: usize, error: serde_json::Error) -> ReturnsError {
        ReturnsError::Record { path: path.to_owned(), line, what: error.to_string() }
    }
}
