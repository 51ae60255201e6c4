//! Folders that adapters may be loaded from while the server runs. Nothing outside them is opened, whatever a path says.

use super::AdapterError;
use std::path::{Component, Path, PathBuf};

/// Allowed folders, as the file system resolves them.
#[derive(Clone, Debug, Default)]
pub struct Roots(Vec<PathBuf>);

impl Roots {
    /// The folders must exist.
    pub fn new(folders: &[PathBuf]) -> std::io::Result<Roots> {
        Ok(Roots(folders.iter().map(|folder| folder.canonicalize()).collect::<Result<_, _>>()?))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The folder behind `path`: absolute inside a root, or relative to one. Links are followed before the check, of
    /// the folder and of the files in it, so that none leads outside.
    pub fn resolve(&self, path: &str) -> Result<PathBuf, AdapterError> {
        if self.is_empty() {
            return Err(AdapterError::NoRoots);
        }
        let asked = Path::new(path);
        let climbs = asked.components().any(|part| matches!(part, Component::ParentDir));
        if path.is_empty() || climbs {
            return Err(AdapterError::Outside);
        }
        let candidates = self.0.iter().map(|root| root.join(asked)).filter_map(|path| path.canonicalize().ok());
        let Some(folder) = candidates.into_iter().find(|folder| self.holds(folder)) else {
            return Err(AdapterError::Outside);
        };
        if !folder.is_dir() {
            return Err(AdapterError::Outside);
        }
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            let file = folder.join(name);
            if file.canonicalize().is_ok_and(|file| !self.holds(&file)) {
                return Err(AdapterError::Outside);
            }
        }
        Ok(folder)
    }

    fn holds(&self, path: &Path) -> bool {
        self.0.iter().any(|root| path.starts_with(root) && path != root)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_path_leads_outside_the_allowed_folders() {
        let folder = tempfile::tempdir().unwrap();
        let (root, secret) = (folder.path().join("root"), folder.path().join("secret"));
        for made in [&root.join("good"), &root.join("sly"), &secret, &folder.path().join("root-beside")] {
            fs::create_dir_all(made).unwrap();
        }
        fs::write(secret.join("adapter_model.safetensors"), "x").unwrap();
        symlink(&secret, root.join("link")).unwrap();
        symlink(secret.join("adapter_model.safetensors"), root.join("sly/adapter_model.safetensors")).unwrap();
        let roots = Roots::new(std::slice::from_ref(&root)).unwrap();
        let good = root.canonicalize().unwrap().join("good");
        assert_eq!(roots.resolve("good").unwrap(), good);
        assert_eq!(roots.resolve(good.to_str().unwrap()).unwrap(), good);
        let secret = secret.to_str().unwrap().to_owned();
        let beside = format!("{}-beside", root.display());
        for path in ["../secret", "good/../../secret", "link", "sly", "", ".", "/", "/etc", "missing", &secret, &beside]
        {
            assert!(matches!(roots.resolve(path), Err(AdapterError::Outside)), "{path}");
        }
        assert!(matches!(Roots::default().resolve("good"), Err(AdapterError::NoRoots)));
    }
}
