//! Adapters' quantised forms on disk, so that loading one again takes as long as reading it.
//!
//! A form is found by what it was made of: the bytes of the adapter's two files and the base's exact digest, which commits
//! to the arithmetic's version, the plan and the norms that are folded in. Both files are hashed whenever an adapter is
//! loaded, which costs a small part of quantising it: so no change of a folder, however it was made, can bring up an old
//! form. Every byte of a form is hashed again when it is read; a damaged one is made anew. Forms take a bounded
//! part of the disk: those used longest ago go first. That a form cannot be kept is told and harms nothing.

use crate::digest::Transcript;
use crate::merkle::Hash;
use crate::replace::{Durable, UNFINISHED, replace};
use crate::{Adapter, Model, ModelError, adapter_form, files};
use exact::Isa;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The end of a form's name.
const SUFFIX: &str = "lora";
/// A form counts as used at most this often, so that reading many does not write as often.
const USED_EVERY: Duration = Duration::from_secs(60);
/// After a form could not be kept, none is tried for so long: a full disk stays full for a while.
const PAUSE: Duration = Duration::from_secs(30);
/// Unfinished files that nobody can be writing any more.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder of adapters' quantised forms, of at most so many bytes. Several processes may share it.
#[derive(Debug)]
pub struct AdapterCache {
    folder: PathBuf,
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of all forms; none before the folder was looked through.
    bytes: Option<u64>,
    /// Until when no form is written.
    paused_until: Option<Instant>,
}

/// Where a loaded adapter came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kept {
    /// It was read from its form.
    Found,
    /// It was quantised, and its form kept for the next time.
    Made,
    /// It was quantised, and what is said happened to its form.
    Complaint(String),
}

impl AdapterCache {
    /// Forms in `folder`, which is made when the first is kept.
    pub fn new(folder: &Path, bytes_max: u64) -> AdapterCache {
        AdapterCache { folder: folder.to_owned(), bytes_max, state: Mutex::default() }
    }

    /// As [`Adapter::load_on`], from the adapter's form if there is one, which is kept if not.
    ///
    /// # Errors
    /// As [`Adapter::load_on`]; or the files change while they are being read.
    pub fn load(&self, folder: &Path, base: &Model, isa: Isa, threads: usize) -> Result<(Adapter, Kept), ModelError> {
        let Ok(made_of) = made_of(folder, base, threads) else {
            // What cannot be read is told by whoever needs it.
            return Adapter::load_on(folder, base, isa, threads).map(|adapter| (adapter, Kept::Made));
        };
        let path = self.path(&made_of);
        let damage = match self.read(&path, &made_of, base) {
            Ok(Some(adapter)) => return Ok((adapter, Kept::Found)),
            Ok(None) => None,
            Err(what) => Some(format!("{}: {what}; it was made again", path.display())),
        };
        let adapter = Adapter::load_on(folder, base, isa, threads)?;
        if self::made_of(folder, base, threads)? != made_of {
            let what = "the adapter changed while it was being read: load it again when it is complete";
            return Err(ModelError::damaged(folder, what));
        }
        let kept = match self.write(&path, &made_of, &adapter) {
            Ok(()) => damage.map_or(Kept::Made, Kept::Complaint),
            Err(error) => Kept::Complaint(format!("the adapter's quantised form was not kept: {error}")),
        };
        Ok((adapter, kept))
    }

    fn path(&self, key: &Hash) -> PathBuf {
        self.folder.join(format!("{}.{SUFFIX}", blake3::Hash::from(*key).to_hex()))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The adapter in a form; none if there is no such form, and what is wrong with it if it cannot be used.
    fn read(&self, path: &Path, key: &Hash, base: &Model) -> Result<Option<Adapter>, String> {
        // What cannot be opened is put in its place anew, or that cannot be done and is told then.
        let Ok(mut file) = File::open(path) else { return Ok(None) };
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        if metadata.len() > self.bytes_max {
            return Err("it is too large".to_owned());
        }
        let mut bytes = Vec::with_capacity(metadata.len() as usize);
        file.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        let adapter = adapter_form::read(&bytes, key, &base.plan)?;
        let now = SystemTime::now();
        if metadata.modified().is_ok_and(|used| now.duration_since(used).is_ok_and(|since| since > USED_EVERY)) {
            // Its age only decides what goes first.
            let _ = file.set_modified(now);
        }
        Ok(Some(adapter))
    }

    fn write(&self, path: &Path, key: &Hash, adapter: &Adapter) -> Result<(), ModelError> {
        if self.state().paused_until.is_some_and(|until| Instant::now() < until) {
            return Ok(());
        }
        let bytes = adapter_form::write(key, adapter).map_err(|error| ModelError::write(path)(error.into()))?;
        if bytes.len() as u64 > self.bytes_max {
            return Ok(());
        }
        let written = replace(path, Durable::No, |path, file| file.write_all(&bytes).map_err(ModelError::write(path)));
        let mut state = self.state();
        if written.is_err() {
            state.paused_until = Some(Instant::now() + PAUSE);
            return written;
        }
        let known = state.bytes.map(|known| known + bytes.len() as u64);
        if known.is_none_or(|known| known > self.bytes_max) {
            state.bytes = Some(self.make_room());
        } else {
            state.bytes = known;
        }
        Ok(())
    }

    /// Deletes what was used longest ago until an eighth is free, if there is too much, and what unfinished writing left
    /// behind. Gives the bytes that stay.
    fn make_room(&self) -> u64 {
        let mut forms = Vec::new();
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let age = SystemTime::now().duration_since(used).unwrap_or_default();
            if path.extension() == Some(OsStr::new(SUFFIX)) {
                forms.push((used, metadata.len(), path));
            } else if path.to_string_lossy().ends_with(UNFINISHED) && age > ABANDONED {
                // Another process may have been quicker.
                let _ = fs::remove_file(path);
            }
        }
        forms.sort();
        let mut bytes: u64 = forms.iter().map(|(_, bytes, _)| bytes).sum();
        if bytes > self.bytes_max {
            for (_, size, path) in forms {
                if bytes <= self.bytes_max / 8 * 7 {
                    break;
                }
                let _ = fs::remove_file(path);
                bytes -= size;
            }
        }
        bytes
    }
}

/// The key of a form: everything it is made of.
fn made_of(folder: &Path, base: &Model, threads: usize) -> Result<Hash, ModelError> {
    let mut transcript = Transcript::new("lockstep adapter form 1");
    transcript.hash(&base.digest);
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        transcript.hash(&files::hash_file(&folder.join(name), threads)?);
    }
    Ok(transcript.finish())
}
