//! Log heads (C2SP `tlog-checkpoint`): how many entries a log has, and the root over them.

use crate::error::LogError;
use crate::merkle::Hash;
use crate::note::{Note, NoteSignature, VerifierKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;

/// The most bytes a signed log head may have.
pub const HEAD_BYTES_MAX: usize = crate::note::NOTE_BYTES_MAX;

/// A log head, unsigned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The log's name, and the name of the key that signs its heads.
    pub origin: String,
    /// Entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

impl Head {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// Signed by the log.
    ///
    /// # Errors
    /// The origin cannot name a key.
    pub fn sign(&self, key: &SigningKey) -> Result<Note, LogError> {
        let text = self.text();
        let signature = NoteSignature::sign(&self.origin, key, &text)?;
        Ok(Note { text, signatures: vec![signature] })
    }

    /// Reads the text of a note. Lines after the third are not read.
    ///
    /// # Errors
    /// It is not a log head.
    pub fn of(note: &Note) -> Result<Head, LogError> {
        let wrong = || LogError::Malformed("a log head");
        let mut lines = note.text.strip_suffix('\n').ok_or_else(wrong)?.split('\n');
        let (origin, size, root) = (lines.next(), lines.next(), lines.next());
        let origin = origin.filter(|origin| !origin.is_empty()).ok_or_else(wrong)?.to_owned();
        let size = number(size.ok_or_else(wrong)?).ok_or_else(wrong)?;
        let root = hash(root.ok_or_else(wrong)?).ok_or_else(wrong)?;
        if lines.any(str::is_empty) {
            return Err(wrong());
        }
        Ok(Head { origin, size, root })
    }

    /// Reads a signed log head and verifies that this log's key signed it.
    ///
    /// # Errors
    /// It is not a log head, of another log, or not signed by the key.
    pub fn verify(bytes: &[u8], key: &VerifierKey) -> Result<Head, LogError> {
        let note = Note::parse(bytes)?;
        note.verify(key)?;
        let head = Head::of(&note)?;
        if head.origin == key.name() { Ok(head) } else { Err(LogError::Signature(key.name().to_owned())) }
    }
}

/// A number in decimal digits, without leading zeros.
pub(crate) fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    digits.then(|| text.parse().ok()).flatten()
}

/// A hash in base64.
pub(crate) fn hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}
