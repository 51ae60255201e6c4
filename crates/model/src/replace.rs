//! Files that are replaced in one step: written under a name of their own beside their place, then renamed. Whoever reads
//! finds the old one or the new one, and never a part.

use crate::ModelError;
use std::fs::File;
use std::path::Path;

/// The end of names of files that are not in their place yet.
pub(crate) const UNFINISHED: &str = ".tmp";

/// Whether what is written outlives a power failure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durable {
    Yes,
    /// For what is checked when it is read, and cheap to make again.
    No,
}

/// Puts a file in the place of `path`, whose folder is made if need be. `fill` is given where it is being written.
pub(crate) fn replace(
    path: &Path,
    durable: Durable,
    fill: impl FnOnce(&Path, &mut File) -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(ModelError::write(folder))?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let thread = std::thread::current().id();
    let beside = folder.join(format!(".{name}.{}.{thread:?}.{}{UNFINISHED}", std::process::id(), now.as_nanos()));
    let made = File::create_new(&beside).map_err(ModelError::write(&beside)).and_then(|mut file| {
        fill(&beside, &mut file)?;
        if durable == Durable::Yes {
            file.sync_all().map_err(ModelError::write(&beside))?;
        }
        std::fs::rename(&beside, path).map_err(ModelError::write(path))
    });
    if made.is_err() {
        // The error that matters is already known; what is left behind is at worst an unused file.
        let _ = std::fs::remove_file(&beside);
    }
    made
}
