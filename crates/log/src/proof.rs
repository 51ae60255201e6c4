//! A proof that an entry is in a log, whole in itself (C2SP `tlog-proof`): index, hashes, signed log head.

use crate::error::LogError;
use crate::head::{HEAD_BYTES_MAX, Head, hash, number};
use crate::merkle::{Hash, PROOF_HASHES_MAX, leaf_hash, verify_inclusion};
use crate::note::{Note, VerifierKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1";

/// Index, inclusion proof and log head of an entry, of which nothing is believed yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proof {
    /// Of the entry.
    pub index: u64,
    /// The inclusion proof.
    pub hashes: Vec<Hash>,
    /// The signed log head, perhaps with witnesses' signatures.
    pub head: Note,
}

impl Proof {
    /// Reads a proof. Takes memory in proportion to `bytes`.
    ///
    /// # Errors
    /// It is not a proof.
    pub fn parse(bytes: &[u8]) -> Result<Proof, LogError> {
        let wrong = || LogError::Malformed("a proof of inclusion (tlog-proof)");
        if bytes.len() > HEAD_BYTES_MAX + 45 * PROOF_HASHES_MAX + 100 {
            return Err(wrong());
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong())?;
        let (proof, head) = text.split_once("\n\n").ok_or_else(wrong)?;
        let mut lines = proof.split('\n');
        let first = lines.next() == Some(FIRST_LINE);
        let index = lines.next().and_then(|line| number(line.strip_prefix("index ")?)).filter(|_| first);
        let hashes = lines.map(hash).collect::<Option<Vec<_>>>().filter(|hashes| hashes.len() <= PROOF_HASHES_MAX);
        Ok(Proof {
            index: index.ok_or_else(wrong)?,
            hashes: hashes.ok_or_else(wrong)?,
            head: Note::parse(head.as_bytes())?,
        })
    }

    /// Whether it shows that `entry` is in the log with this key; gives the log head.
    ///
    /// # Errors
    /// It does not.
    pub fn verify(&self, entry: &[u8], log: &VerifierKey) -> Result<Head, LogError> {
        self.head.verify(log)?;
        let head = Head::of(&self.head)?;
        if head.origin != log.name() {
            return Err(LogError::Signature(log.name().to_owned()));
        }
        if verify_inclusion(&leaf_hash(entry), self.index, head.size, &head.root, &self.hashes) {
            Ok(head)
        } else {
            Err(LogError::Contradiction(format!("this is not entry {} of its {}", self.index, head.size)))
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}\nindex {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{}", STANDARD.encode(hash)))?;
        write!(f, "\n{}", self.head)
    }
}
