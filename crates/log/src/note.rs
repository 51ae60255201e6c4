//! Signed notes (C2SP `signed-note`): text, and lines with signatures by named keys, plain or of witnesses.

use crate::error::LogError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// The most bytes a note may have.
pub(crate) const NOTE_BYTES_MAX: usize = 1 << 16;
/// The most signatures a note may have.
const SIGNATURES_MAX: usize = 64;

/// What a key's signatures mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Ed25519 over the text.
    Plain,
    /// A witness's, with the time (C2SP `tlog-cosignature`).
    Cosignature,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Plain => 1,
            Kind::Cosignature => 4,
        }
    }
}

/// A named public key. Written as `name+hash+key`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifierKey {
    name: String,
    kind: Kind,
    key: VerifyingKey,
}

impl VerifierKey {
    /// A key under a name.
    ///
    /// # Errors
    /// No key has this name or these bytes.
    pub fn new(name: &str, kind: Kind, key: &[u8; 32]) -> Result<VerifierKey, LogError> {
        if !is_name(name) {
            return Err(LogError::Malformed("a key's name: it has no spaces and no +"));
        }
        let key = VerifyingKey::from_bytes(key).map_err(|_| LogError::Malformed("an Ed25519 key"))?;
        Ok(VerifierKey { name: name.to_owned(), kind, key })
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public key.
    pub fn key(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// What its signatures mean.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What tells it from others of its name.
    pub fn id(&self) -> [u8; 4] {
        let mut hasher = Sha256::new();
        hasher.update(self.name.as_bytes());
        hasher.update([b'\n', self.kind.byte()]);
        hasher.update(self.key.as_bytes());
        let hash = hasher.finalize();
        [hash[0], hash[1], hash[2], hash[3]]
    }

    fn claims(&self, signature: &NoteSignature) -> bool {
        signature.name == self.name && signature.id == self.id()
    }

    fn verifies(&self, text: &str, signature: &NoteSignature) -> bool {
        let verify = |message: &[u8], bytes: &[u8]| {
            Signature::from_slice(bytes).is_ok_and(|signature| self.key.verify_strict(message, &signature).is_ok())
        };
        match self.kind {
            Kind::Plain => verify(text.as_bytes(), &signature.bytes),
            Kind::Cosignature => signature.bytes.split_first_chunk().is_some_and(|(time, bytes)| {
                let time_seconds = u64::from_be_bytes(*time);
                time_seconds <= i64::MAX as u64 && verify(cosigned(text, time_seconds).as_bytes(), bytes)
            }),
        }
    }
}

/// `name+hash+base64(kind ‖ key)`.
impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.id());
        let mut bytes = vec![self.kind.byte()];
        bytes.extend(self.key.as_bytes());
        write!(f, "{}+{id:08x}+{}", self.name, STANDARD.encode(bytes))
    }
}

impl FromStr for VerifierKey {
    type Err = LogError;

    fn from_str(text: &str) -> Result<VerifierKey, LogError> {
        let wrong = || LogError::Malformed("a verifier key (name+hash+key)");
        let mut parts = text.splitn(3, '+');
        let (name, key) = (parts.next().ok_or_else(wrong)?, (parts.next(), parts.next()).1.ok_or_else(wrong)?);
        let bytes = STANDARD.decode(key).map_err(|_| wrong())?;
        let (kind, key) = bytes.split_first().ok_or_else(wrong)?;
        let kind =
            [Kind::Plain, Kind::Cosignature].into_iter().find(|known| known.byte() == *kind).ok_or_else(wrong)?;
        let key = VerifierKey::new(name, kind, key.try_into().map_err(|_| wrong())?)?;
        if key.to_string() == text { Ok(key) } else { Err(wrong()) }
    }
}

/// Not empty, no spaces, no plus, no control characters.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 1024 && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}

/// What a witness signs.
fn cosigned(text: &str, time_seconds: u64) -> String {
    format!("cosignature/v1\ntime {time_seconds}\n{text}")
}

/// One line under a note.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoteSignature {
    name: String,
    id: [u8; 4],
    bytes: Vec<u8>,
}

impl NoteSignature {
    /// By a plain key.
    ///
    /// # Errors
    /// No key has this name.
    pub fn sign(name: &str, key: &SigningKey, text: &str) -> Result<NoteSignature, LogError> {
        let verifier = VerifierKey::new(name, Kind::Plain, key.verifying_key().as_bytes())?;
        let bytes = key.sign(text.as_bytes()).to_bytes().to_vec();
        Ok(NoteSignature { name: name.to_owned(), id: verifier.id(), bytes })
    }

    /// By a witness.
    ///
    /// # Errors
    /// No key has this name.
    pub fn cosign(name: &str, key: &SigningKey, text: &str, time_seconds: u64) -> Result<NoteSignature, LogError> {
        let verifier = VerifierKey::new(name, Kind::Cosignature, key.verifying_key().as_bytes())?;
        let mut bytes = time_seconds.to_be_bytes().to_vec();
        bytes.extend(key.sign(cosigned(text, time_seconds).as_bytes()).to_bytes());
        Ok(NoteSignature { name: name.to_owned(), id: verifier.id(), bytes })
    }

    /// Reads a line, without its end.
    ///
    /// # Errors
    /// It is not a signature's line.
    pub fn parse(line: &str) -> Result<NoteSignature, LogError> {
        let wrong = || LogError::Malformed("a signature's line");
        let (name, signature) = line.strip_prefix("— ").and_then(|rest| rest.split_once(' ')).ok_or_else(wrong)?;
        let bytes = STANDARD.decode(signature).map_err(|_| wrong())?;
        let (id, bytes) = bytes.split_first_chunk().ok_or_else(wrong)?;
        if !is_name(name) || bytes.is_empty() {
            return Err(wrong());
        }
        Ok(NoteSignature { name: name.to_owned(), id: *id, bytes: bytes.to_vec() })
    }

    /// The key's name, as the line gives it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The line, without its end.
impl fmt::Display for NoteSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.id[..], &self.bytes].concat();
        write!(f, "— {} {}", self.name, STANDARD.encode(bytes))
    }
}

/// A text and its signatures, of which nothing is believed yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// Ends with a line's end.
    pub text: String,
    /// At least one.
    pub signatures: Vec<NoteSignature>,
}

impl Note {
    /// Reads a note. Takes memory in proportion to `bytes`, of which there may be 64 KiB.
    ///
    /// # Errors
    /// It is not a note.
    pub fn parse(bytes: &[u8]) -> Result<Note, LogError> {
        let wrong = || LogError::Malformed("a signed note");
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(LogError::Malformed("a signed note: it is too large"));
        }
        let all = std::str::from_utf8(bytes).map_err(|_| wrong())?;
        if all.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return Err(wrong());
        }
        let at = all.rfind("\n\n").ok_or_else(wrong)?;
        let (text, lines) = (&all[..=at], all[at + 2..].strip_suffix('\n').ok_or_else(wrong)?);
        let signatures = lines.split('\n').take(SIGNATURES_MAX + 1).map(NoteSignature::parse);
        let signatures = signatures.collect::<Result<Vec<_>, _>>()?;
        if signatures.len() > SIGNATURES_MAX {
            return Err(LogError::Malformed("a signed note: it has too many signatures"));
        }
        Ok(Note { text: text.to_owned(), signatures })
    }

    /// Whether this key signed it: one of its lines is by the key and valid, and none is by the key and not.
    ///
    /// # Errors
    /// It did not.
    pub fn verify(&self, key: &VerifierKey) -> Result<(), LogError> {
        let mut own = self.signatures.iter().filter(|signature| key.claims(signature)).peekable();
        if own.peek().is_some() && own.all(|signature| key.verifies(&self.text, signature)) {
            Ok(())
        } else {
            Err(LogError::Signature(key.name.clone()))
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}
