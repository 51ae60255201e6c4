//! Who signs: the node's Ed25519 key, kept in the data folder.

use crate::folder::Folder;
use crate::hex;
use crate::start::StartError;
use receipt::SigningKey;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;

const NAME: &str = "node.key";

/// The key in the folder, if there is one.
pub(crate) fn load(folder: &Folder) -> Result<Option<SigningKey>, StartError> {
    let path = folder.file(NAME);
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
        Some(secret) => Ok(Some(SigningKey::from_bytes(&secret))),
        None => Err(StartError::KeyDamaged { path }),
    }
}

/// A new key, written to the folder.
pub(crate) fn create(folder: &Folder) -> Result<SigningKey, StartError> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(StartError::Random)?;
    folder.write(NAME, format!("{}\n", hex::encode(&secret)).as_bytes())?;
    Ok(SigningKey::from_bytes(&secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_key_is_kept_and_only_its_owner_may_read_it() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        assert!(load(&folder).unwrap().is_none());
        let key = create(&folder).unwrap();
        assert_eq!(load(&folder).unwrap().unwrap().to_bytes(), key.to_bytes());
        let path = place.path().join(NAME);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(load(&folder), Err(StartError::KeyExposed { .. })));
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        folder.write(NAME, b"0123").unwrap();
        assert!(matches!(load(&folder), Err(StartError::KeyDamaged { .. })));
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
