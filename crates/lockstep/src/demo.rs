//! The demo model inside the binary, so that the first command needs neither files nor a network.

use crate::failure::{Failure, io};
use std::fs;
use std::path::{Path, PathBuf};

/// Names of the demo's adapters.
pub(crate) const ADAPTERS: [&str; 5] = ["triage", "extract", "sql", "reply", "spanish"];

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../../models/demo/", $path)))),*]
    };
}

const FILES: &[(&str, &[u8])] = files![
    "base/config.json",
    "base/generation_config.json",
    "base/model.safetensors",
    "base/tokenizer.json",
    "base/tokenizer_config.json",
    "adapters/triage/adapter_config.json",
    "adapters/triage/adapter_model.safetensors",
    "adapters/extract/adapter_config.json",
    "adapters/extract/adapter_model.safetensors",
    "adapters/sql/adapter_config.json",
    "adapters/sql/adapter_model.safetensors",
    "adapters/reply/adapter_config.json",
    "adapters/reply/adapter_model.safetensors",
    "adapters/spanish/adapter_config.json",
    "adapters/spanish/adapter_model.safetensors",
];

/// Puts the demo's files under `data` if they are not there yet. Gives the folder that holds `base` and `adapters`.
pub(crate) fn unpack(data: &Path) -> Result<PathBuf, Failure> {
    let folder = data.join("demo");
    for (name, contents) in FILES {
        let path = folder.join(name);
        if fs::metadata(&path).is_ok_and(|found| found.len() == contents.len() as u64) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io(parent))?;
        }
        // Whole or not at all, also when two processes start at once.
        let partial = path.with_extension(format!("partial-{}", std::process::id()));
        fs::write(&partial, contents).map_err(io(&partial))?;
        fs::rename(&partial, &path).map_err(io(&path))?;
    }
    Ok(folder)
}
