//! What can go wrong between a folder on disk and a model ready to run.

use std::io;
use std::path::{Path, PathBuf};

/// Why a checkpoint, an adapter, a tokenizer or a repository could not be used. Each message names the file, the place
/// in it, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The operating system refused to read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The operating system refused to write.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A JSON file is not what its name promises.
    #[error("{path} cannot be read as JSON: {source}; download it again")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A file's structure is broken.
    #[error("{path} is damaged: {what}; download it again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// One tensor is not as it should be.
    #[error("{path}: tensor {tensor}: {what}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What is wrong.
        what: String,
    },
    /// A tensor the model needs is in no file.
    #[error("{path} has no tensor {tensor}: {what}")]
    Missing {
        /// The folder or file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// Why it is needed.
        what: String,
    },
    /// A setting has a value that cannot be.
    #[error("{path}: {key}: {what}")]
    Setting {
        /// The file.
        path: PathBuf,
        /// The key in it.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// Valid, but something this engine does not do.
    #[error("{path}: {feature} is not supported: {advice}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it asks for, by its name.
        feature: String,
        /// What to do instead.
        advice: String,
    },
    /// An adapter's matrices do not fit this base.
    #[error("{path}: adapter is for another base: site {site} has {adapter}, this base has {base}")]
    OtherBase {
        /// The file.
        path: PathBuf,
        /// The linear map.
        site: String,
        /// What the adapter has there.
        adapter: String,
        /// What the base has there.
        base: String,
    },
    /// Tokenizer or chat template failed.
    #[error("{path}: {what}")]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A repository could not be fetched.
    #[error("{repository}: {what}")]
    Hub {
        /// As it was asked for.
        repository: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// This processor's floating-point unit is not in the state the arithmetic is defined for.
    #[error("the floating-point unit does not round to nearest even or flushes subnormals: run without such settings")]
    FloatEnvironment,
}

impl ModelError {
    pub(crate) fn read(path: &Path) -> impl FnOnce(io::Error) -> ModelError {
        move |source| ModelError::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path) -> impl FnOnce(io::Error) -> ModelError {
        move |source| ModelError::Write { path: path.to_owned(), source }
    }

    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> ModelError {
        ModelError::Damaged { path: path.to_owned(), what: what.into() }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, what: impl Into<String>) -> ModelError {
        ModelError::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), what: what.into() }
    }

    pub(crate) fn missing(path: &Path, tensor: &str, what: impl Into<String>) -> ModelError {
        ModelError::Missing { path: path.to_owned(), tensor: tensor.to_owned(), what: what.into() }
    }

    pub(crate) fn setting(path: &Path, key: &str, what: impl Into<String>) -> ModelError {
        ModelError::Setting { path: path.to_owned(), key: key.to_owned(), what: what.into() }
    }

    pub(crate) fn unsupported(path: &Path, feature: impl Into<String>, advice: impl Into<String>) -> ModelError {
        ModelError::Unsupported { path: path.to_owned(), feature: feature.into(), advice: advice.into() }
    }

    pub(crate) fn text(path: &Path, what: impl Into<String>) -> ModelError {
        ModelError::Text { path: path.to_owned(), what: what.into() }
    }
}
