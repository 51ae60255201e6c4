//! The node's secrets, 32 bytes each, kept in the data folder: its Ed25519 key, what openings are encrypted with, and what
//! auditors show.

use crate::folder::Folder;
use crate::hex;
use crate::start::StartError;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;

/// The key that signs.
pub(crate) const NODE: &str = "node.key";
/// The key of openings.
pub(crate) const OPENINGS: &str = "openings.key";
/// The token of auditors.
pub(crate) const AUDIT: &str = "audit.token";

/// The secret of this name in the folder, if there is one.
pub(crate) fn load(folder: &Folder, name: &str) -> Result<Option<[u8; 32]>, StartError> {
    let path = folder.file(name);
    let mut file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(StartError::file(&path))?,
    };
    let mode = file.metadata().map_err(StartError::file(&path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(StartError::KeyExposed { path });
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(StartError::file(&path))?;
    match hex::decode(text.trim()) {
        Some(secret) => Ok(Some(secret)),
        None => Err(StartError::KeyDamaged { path }),
    }
}

/// A new secret, written to the folder.
pub(crate) fn create(folder: &Folder, name: &str) -> Result<[u8; 32], StartError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(StartError::Random)?;
    folder.write(name, format!("{}\n", hex::encode(&secret)).as_bytes())?;
    Ok(secret)
}

/// The secret of this name, made if there is none.
pub(crate) fn load_or_create(folder: &Folder, name: &str) -> Result<[u8; 32], StartError> {
    load(folder, name)?.map_or_else(|| create(folder, name), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_kept_and_only_its_owner_may_read_it() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        assert!(load(&folder, NODE).unwrap().is_none());
        let key = create(&folder, NODE).unwrap();
        assert_eq!(load(&folder, NODE).unwrap().unwrap(), key);
        let path = place.path().join(NODE);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(&folder, NODE), Err(StartError::KeyExposed { .. })));
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        folder.write(NODE, b"0123").unwrap();
        assert!(matches!(load(&folder, NODE), Err(StartError::KeyDamaged { .. })));
    }

    #[test]
    fn a_folder_is_for_one_server() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        assert!(matches!(Folder::open(place.path()), Err(StartError::Locked { .. })));
        drop(folder);
        assert!(Folder::open(place.path()).is_ok());
    }
}
