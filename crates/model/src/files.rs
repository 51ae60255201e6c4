//! Which files a checkpoint is, whether they changed, and their digest: the BLAKE3 of each (what `b3sum` prints),
//! computed by several threads.

use crate::digest::Transcript;
use crate::merkle::Hash;
use crate::{ModelError, parallel, tensors};
use blake3::hazmat::{self, ChainingValue, HasherExt, Mode};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes hashed by one job: a subtree of BLAKE3, so a power of two.
const JOB_BYTES: u64 = 4 << 20;
/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;

/// A file as it was seen: equal stamps mean unchanged contents, as far as the file system tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    /// Nanoseconds of last modification and last change of the inode.
    pub(crate) modified_ns: i128,
    pub(crate) changed_ns: i128,
}

impl Stamp {
    fn of(path: &Path) -> Result<Stamp, ModelError> {
        let path = path.canonicalize().map_err(ModelError::read(path))?;
        let metadata = path.metadata().map_err(ModelError::read(&path))?;
        let ns = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        Ok(Stamp {
            bytes: metadata.len(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            path,
        })
    }
}

/// The files that decide a model: config.json, then the safetensors files by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Files {
    /// Names in the folder and how the files look.
    pub(crate) files: Vec<(String, Stamp)>,
}

impl Files {
    /// Those of a checkpoint's folder.
    pub(crate) fn of(folder: &Path) -> Result<Files, ModelError> {
        let mut paths = vec![folder.join("config.json")];
        paths.extend(tensors::shard_paths(folder)?);
        let named = |path: PathBuf| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            Ok((name, Stamp::of(&path)?))
        };
        Ok(Files { files: paths.into_iter().map(named).collect::<Result<_, _>>()? })
    }

    /// Fails if a file changed since.
    pub(crate) fn check_unchanged(&self) -> Result<(), ModelError> {
        for (_, stamp) in &self.files {
            if Stamp::of(&stamp.path)? != *stamp {
                return Err(ModelError::damaged(&stamp.path, "it changed while it was being read"));
            }
        }
        Ok(())
    }

    /// The file digest, from the BLAKE3 of each file in turn.
    pub(crate) fn digest(&self, hashes: &[Hash]) -> Hash {
        let mut transcript = Transcript::new("lockstep file digest 1");
        transcript.number(self.files.len());
        for ((name, stamp), hash) in self.files.iter().zip(hashes) {
            transcript.text(name);
            transcript.bits(stamp.bytes);
            transcript.hash(hash);
        }
        transcript.finish()
    }
}

/// The file digest of a checkpoint's folder, every byte hashed.
///
/// # Errors
/// A file is missing, cannot be read, or changes meanwhile.
pub fn file_digest(folder: &Path, threads: usize) -> Result<Hash, ModelError> {
    let files = Files::of(folder)?;
    let hashes = files.files.iter().map(|(_, stamp)| hash_file(&stamp.path, threads)).collect::<Result<Vec<_>, _>>()?;
    files.check_unchanged()?;
    Ok(files.digest(&hashes))
}

/// Opens a file, and nothing else that may have its name: opening a pipe would wait for whoever writes to it.
pub(crate) fn open(path: &Path) -> Result<File, ModelError> {
    let metadata = path.metadata().map_err(ModelError::read(path))?;
    if !metadata.is_file() {
        return Err(ModelError::damaged(path, "it is not a file"));
    }
    File::open(path).map_err(ModelError::read(path))
}

/// BLAKE3 of a file.
pub(crate) fn hash_file(path: &Path, threads: usize) -> Result<Hash, ModelError> {
    let file = open(path)?;
    let bytes = file.metadata().map_err(ModelError::read(path))?.len();
    if bytes <= JOB_BYTES {
        let mut hasher = blake3::Hasher::new();
        feed(&mut hasher, &file, 0, bytes).map_err(ModelError::read(path))?;
        return Ok(*hasher.finalize().as_bytes());
    }
    let subtrees = parallel::map(threads, bytes.div_ceil(JOB_BYTES) as usize, |job| {
        let start = job as u64 * JOB_BYTES;
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(start);
        feed(&mut hasher, &file, start, JOB_BYTES.min(bytes - start)).map_err(ModelError::read(path))?;
        Ok(hasher.finalize_non_root())
    })?;
    let left = (hazmat::left_subtree_len(bytes) / JOB_BYTES) as usize;
    let (left, right) = (join(&subtrees[..left]), join(&subtrees[left..]));
    Ok(*hazmat::merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
}

/// The value of the subtree over these neighbours: the left side takes the largest power of two below their number.
fn join(subtrees: &[ChainingValue]) -> ChainingValue {
    match subtrees {
        [one] => *one,
        many => {
            let (left, right) = many.split_at(many.len().next_power_of_two() / 2);
            hazmat::merge_subtrees_non_root(&join(left), &join(right), Mode::Hash)
        }
    }
}

fn feed(hasher: &mut blake3::Hasher, file: &File, start: u64, bytes: u64) -> std::io::Result<()> {
    let mut buffer = vec![0u8; READ_BYTES.min(bytes as usize)];
    let mut at = 0;
    while at < bytes {
        let count = buffer.len().min((bytes - at) as usize);
        file.read_exact_at(&mut buffer[..count], start + at)?;
        hasher.update(&buffer[..count]);
        parallel::give_way();
        at += count as u64;
    }
    Ok(())
}
