//! A witness (C2SP `tlog-witness`): signs a log head only if it continues the last one it signed, and remembers it
//! before it answers. Two histories of one log never both get its signature.

use crate::error::LogError;
use crate::head::{HEAD_BYTES_MAX, Head, hash, number};
use crate::log::{sync_folder, write_whole};
use crate::merkle::{Hash, empty_root, verify_consistency};
use crate::note::{Kind, Note, NoteSignature, VerifierKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The most hashes of a consistency proof.
const PROOF_LINES_MAX: usize = 63;

/// Why a witness does not sign.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request cannot be read, or asks for something impossible.
    #[error("{0}")]
    Malformed(String),
    /// The log is not one of those that are witnessed.
    #[error("the log {0} is not witnessed here")]
    UnknownLog(String),
    /// The log's key did not sign the head.
    #[error("the head is not signed by the log's key")]
    Unsigned,
    /// The last head the witness signed is not the one that was named, or has another root.
    #[error("the last head that was witnessed has {size} entries")]
    Conflict {
        /// Its entries.
        size: u64,
    },
    /// The proof does not show that the head continues the last one.
    #[error("the head does not continue the last one that was witnessed")]
    Inconsistent,
    /// The witness cannot remember.
    #[error("the witness cannot remember the head: {0}")]
    State(#[from] LogError),
}

impl Refusal {
    /// The HTTP status that says so.
    pub fn status(&self) -> u16 {
        match self {
            Refusal::Malformed(_) => 400,
            Refusal::Unsigned => 403,
            Refusal::UnknownLog(_) => 404,
            Refusal::Conflict { .. } => 409,
            Refusal::Inconsistent => 422,
            Refusal::State(_) => 500,
        }
    }
}

/// Which logs are witnessed: gives the key of the log with an origin.
pub type Known = Box<dyn Fn(&str) -> Option<VerifierKey> + Send + Sync>;

/// A witness and what it remembers.
pub struct Witness {
    name: String,
    key: SigningKey,
    folder: PathBuf,
    known: Known,
    /// One at a time compares and remembers. Also keeps other processes out of the folder.
    lock: Mutex<File>,
}

impl Witness {
    /// Opens a witness whose memory is in `folder`.
    ///
    /// # Errors
    /// The folder cannot be used, is used by another witness, or the name cannot name a key.
    pub fn open(folder: &Path, name: &str, key: SigningKey, known: Known) -> Result<Witness, LogError> {
        VerifierKey::new(name, Kind::Cosignature, key.verifying_key().as_bytes())?;
        std::fs::create_dir_all(folder).map_err(LogError::file(folder))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(LogError::file(&path))?;
        lock.try_lock().map_err(|_| LogError::Fetch {
            what: path.display().to_string(),
            why: "another witness is using it".to_owned(),
        })?;
        Ok(Witness { name: name.to_owned(), key, folder: folder.to_owned(), known, lock: Mutex::new(lock) })
    }

    /// What verifies its signatures.
    ///
    /// # Errors
    /// Never, for a witness that could be opened.
    pub fn verifier(&self) -> Result<VerifierKey, LogError> {
        VerifierKey::new(&self.name, Kind::Cosignature, self.key.verifying_key().as_bytes())
    }

    /// Answers the body of an `add-checkpoint` request at this time: a line with its signature.
    ///
    /// # Errors
    /// It does not sign.
    pub fn add_checkpoint(&self, body: &[u8], time_seconds: u64) -> Result<String, Refusal> {
        let (old, proof, note) = read_body(body).ok_or_else(|| {
            Refusal::Malformed("the body is not an old size, a consistency proof and a log head".to_owned())
        })?;
        let head = Head::of(&note).map_err(|error| Refusal::Malformed(error.to_string()))?;
        let log = (self.known)(&head.origin).ok_or_else(|| Refusal::UnknownLog(head.origin.clone()))?;
        note.verify(&log).map_err(|_| Refusal::Unsigned)?;
        if old > head.size {
            return Err(Refusal::Malformed("the old size is beyond the new one".to_owned()));
        }
        let _alone = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let (size, root) = self.last(&head.origin)?.map_or((0, empty_root()), |last| (last.size, last.root));
        if old != size || (size == head.size && root != head.root) {
            return Err(Refusal::Conflict { size });
        }
        if !verify_consistency(size, &root, head.size, &head.root, &proof) {
            return Err(Refusal::Inconsistent);
        }
        let signature = NoteSignature::cosign(&self.name, &self.key, &note.text, time_seconds)?;
        let line = format!("{signature}\n");
        let remembered = Note { text: note.text, signatures: vec![signature] };
        write_whole(&self.path(&head.origin), remembered.to_string().as_bytes(), true)?;
        sync_folder(&self.folder)?;
        Ok(line)
    }

    /// The last head of a log that it signed, with its signature.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn remembered(&self, origin: &str) -> Result<Option<Note>, LogError> {
        let path = self.path(origin);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(LogError::file(&path))?,
        };
        let damaged = |_| LogError::Damaged { path, offset: 0, what: "it is not what this witness signed".to_owned() };
        let note = Note::parse(&bytes).and_then(|note| note.verify(&self.verifier()?).map(|()| note));
        note.map(Some).map_err(damaged)
    }

    fn last(&self, origin: &str) -> Result<Option<Head>, LogError> {
        self.remembered(origin)?.map(|note| Head::of(&note)).transpose()
    }

    fn path(&self, origin: &str) -> PathBuf {
        self.folder.join(format!("{}.head", blake3::hash(origin.as_bytes()).to_hex()))
    }
}

/// The body of an `add-checkpoint` request.
pub fn add_checkpoint_body(old: u64, proof: &[Hash], head: &Note) -> String {
    let proof: String = proof.iter().map(|hash| format!("{}\n", STANDARD.encode(hash))).collect();
    format!("old {old}\n{proof}\n{head}")
}

fn read_body(body: &[u8]) -> Option<(u64, Vec<Hash>, Note)> {
    if body.len() > HEAD_BYTES_MAX + 45 * PROOF_LINES_MAX + 100 {
        return None;
    }
    let (proof, head) = std::str::from_utf8(body).ok()?.split_once("\n\n")?;
    let mut lines = proof.split('\n');
    let old = number(lines.next()?.strip_prefix("old ")?)?;
    let proof = lines.map(hash).collect::<Option<Vec<_>>>().filter(|proof| proof.len() <= PROOF_LINES_MAX)?;
    Some((old, proof, Note::parse(head.as_bytes()).ok()?))
}
