//! A folder in memory, one for each process, whose files each input replaces.

use std::path::PathBuf;

/// The folder, with these files written anew.
pub fn folder(files: &[(&str, &[u8])]) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let root = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let folder = root.join(format!("lockstep-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder in memory");
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).expect("a file in memory");
    }
    folder
}
