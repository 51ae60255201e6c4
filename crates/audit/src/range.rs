//! Replays many answers, of a folder or of a log, with a signed line for each verdict, going on where it was left.
//!
//! The lines are a chain: each names the hash of the one before. A line that was cut off by a crash is dropped when the
//! file is opened again, and its answer replayed again; nothing that was written whole is lost or done twice.

use crate::error::AuditError;
use crate::replay::{ReplayConfig, replay};
use crate::verdict::Verdict;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use model::{Adapter, Model};
use receipt::{Bundle, Hash};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One line of a verdict file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Line {
    /// What is signed, as JSON: receipt, verdict, the line before.
    pub statement: String,
    /// Public key of the auditor, in hexadecimal.
    pub auditor: String,
    /// Ed25519 over the statement, in hexadecimal.
    pub signature: String,
}

/// What a line states.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct Statement {
    /// Version of this format: 1.
    pub version: u32,
    /// Version of the arithmetic that was replayed.
    pub arithmetic: u32,
    /// Hash of the receipt, in hexadecimal.
    pub receipt: String,
    /// Hash of the line before, in hexadecimal; empty on the first.
    pub previous: String,
    /// The verdict, or `{"verdict": "error", "why": …}` where there is none; "withheld" if the node did not open its receipt.
    pub verdict: serde_json::Value,
}

/// Why a verdict file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// It could not be read or written.
    #[error("{path}: {error}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A line is not what its auditor signed, or does not follow the one before.
    #[error("line {line} is not signed as it stands, or does not follow the one before: the file was altered")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// Replay could not start.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// A verdict could not be written as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// An open verdict file.
pub struct Verdicts {
    file: File,
    path: PathBuf,
    key: SigningKey,
    last: String,
    done: HashSet<String>,
    /// Lines that do not say "equal".
    others: usize,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N || !text.is_ascii() {
        return None;
    }
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Answers that were withheld are asked for again in the next run.
fn is_final(verdict: &serde_json::Value) -> bool {
    verdict["verdict"] != "withheld"
}

fn is_equal(verdict: &serde_json::Value) -> bool {
    verdict["verdict"] == "equal"
}

fn signed(statement: &str) -> Vec<u8> {
    [b"lockstep verdict line 1\n", statement.as_bytes()].concat()
}

/// Reads the lines of a verdict file and checks every signature and the chain. A last line without its end is left out.
pub fn read(text: &str) -> Result<Vec<(Line, Statement)>, RangeError> {
    let (mut lines, mut previous): (Vec<(Line, Statement)>, String) = (vec![], String::new());
    for (number, line_text) in text.split_inclusive('\n').enumerate() {
        if !line_text.ends_with('\n') {
            break;
        }
        let altered = || RangeError::Line { line: number + 1 };
        let line: Line = serde_json::from_str(line_text).map_err(|_| altered())?;
        let statement: Statement = serde_json::from_str(&line.statement).map_err(|_| altered())?;
        let key = unhex::<32>(&line.auditor).and_then(|key| VerifyingKey::from_bytes(&key).ok());
        let signature = unhex::<64>(&line.signature).map(|bytes| Signature::from_bytes(&bytes));
        let valid = key
            .zip(signature)
            .is_some_and(|(key, signature)| key.verify_strict(&signed(&line.statement), &signature).is_ok());
        if !valid || statement.previous != previous {
            return Err(altered());
        }
        previous = hex(blake3::hash(line_text.as_bytes()).as_bytes());
        lines.push((line, statement));
    }
    Ok(lines)
}

impl Verdicts {
    /// Opens or creates a verdict file; a line that was cut off is dropped.
    pub fn open(path: &Path, key: SigningKey) -> Result<Verdicts, RangeError> {
        let failed = |error| RangeError::File { path: path.to_owned(), error };
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(false).read(true).write(true).open(path).map_err(failed)?;
        let mut bytes = vec![];
        file.read_to_end(&mut bytes).map_err(failed)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        let text = std::str::from_utf8(&bytes[..whole]).map_err(|_| RangeError::Line { line: 1 })?;
        let lines = read(text)?;
        let others = lines.iter().filter(|(_, statement)| !is_equal(&statement.verdict)).count();
        let settled = lines.into_iter().filter(|(_, statement)| is_final(&statement.verdict));
        let done = settled.map(|(_, statement)| statement.receipt).collect();
        let last_line = text.split_inclusive('\n').next_back();
        let last = last_line.map_or(String::new(), |line| hex(blake3::hash(line.as_bytes()).as_bytes()));
        Ok(Verdicts { file, path: path.to_owned(), key, last, done, others })
    }

    /// Whether a receipt has its line, and is not to be asked for again.
    pub fn has(&self, receipt: &Hash) -> bool {
        self.done.contains(&hex(receipt))
    }

    /// Receipts that have one.
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.done.is_empty()
    }

    /// Lines that say something else than "equal", of this run and of earlier ones.
    pub fn others(&self) -> usize {
        self.others
    }

    /// Signs and appends a verdict; it is on the disk when this returns.
    pub fn append(&mut self, receipt: &Hash, verdict: &Result<Verdict, AuditError>) -> Result<(), RangeError> {
        let verdict = match verdict {
            Ok(verdict) => serde_json::to_value(verdict)?,
            Err(AuditError::Withheld(why)) => serde_json::json!({"verdict": "withheld", "why": why}),
            Err(error) => serde_json::json!({"verdict": "error", "why": error.to_string()}),
        };
        self.others += usize::from(!is_equal(&verdict));
        let settled = is_final(&verdict);
        let statement = Statement {
            version: 1,
            arithmetic: exact::VERSION,
            receipt: hex(receipt),
            previous: self.last.clone(),
            verdict,
        };
        let statement = serde_json::to_string(&statement)?;
        let line = Line {
            auditor: hex(&self.key.verifying_key().to_bytes()),
            signature: hex(&self.key.sign(&signed(&statement)).to_bytes()),
            statement,
        };
        let text = serde_json::to_string(&line)? + "\n";
        let failed = |error| RangeError::File { path: self.path.clone(), error };
        self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_data()).map_err(failed)?;
        self.last = hex(blake3::hash(text.as_bytes()).as_bytes());
        if settled {
            self.done.insert(hex(receipt));
        }
        Ok(())
    }
}

/// What a run over a range came to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Answers that are true.
    pub equal: usize,
    /// Answers that are not.
    pub differing: usize,
    /// Answers without a verdict.
    pub errors: usize,
    /// Answers that had their line already.
    pub skipped: usize,
    /// Files that are no bundles.
    pub unreadable: usize,
    /// Answers that the node did not open.
    pub withheld: usize,
    /// Positions replayed.
    pub positions: usize,
}

/// What there is of an answer.
pub enum Produced {
    /// Its bundle.
    Bundle(Box<Bundle>),
    /// The node owes the opening of the receipt with this hash and did not give it; why.
    Withheld(Hash, String),
    /// Something that is no bundle.
    Unreadable,
}

impl<E> From<Result<Bundle, E>> for Produced {
    fn from(read: Result<Bundle, E>) -> Produced {
        read.map_or(Produced::Unreadable, |bundle| Produced::Bundle(Box::new(bundle)))
    }
}

/// Replays bundles, skipping those that have a line. `told` is called after each with the tally so far, the receipt's name and
/// the verdict.
pub fn replay_all<'a>(
    answers: impl Iterator<Item = Produced>,
    base: &Arc<Model>,
    adapters: &[Adapter],
    config: impl Fn() -> ReplayConfig<'a>,
    verdicts: &mut Verdicts,
    mut told: impl FnMut(&Tally, &str, &Result<Verdict, AuditError>),
) -> Result<Tally, RangeError> {
    let mut tally = Tally::default();
    for answer in answers {
        let (hash, verdict) = match answer {
            Produced::Unreadable => {
                tally.unreadable += 1;
                continue;
            }
            Produced::Withheld(hash, why) => (hash, Err(AuditError::Withheld(why))),
            Produced::Bundle(bundle) => {
                let hash = receipt::hash(&bundle.receipt);
                if verdicts.has(&hash) {
                    tally.skipped += 1;
                    continue;
                }
                let claims = receipt::Receipt::parse(&bundle.receipt).map(|receipt| receipt.claims);
                let named = claims.ok().and_then(|claims| claims.adapter);
                let adapter = adapters.iter().find(|adapter| Some(adapter.digest) == named);
                (hash, replay(&bundle, base.clone(), adapter, config()))
            }
        };
        let verdict = match verdict {
            // No fault of the answer: its line is written when it has been replayed.
            Err(error @ (AuditError::Threads(_) | AuditError::Device(_))) => return Err(error.into()),
            verdict => verdict,
        };
        match &verdict {
            Ok(Verdict::Equal { positions, .. }) => {
                tally.equal += 1;
                tally.positions += positions;
            }
            Ok(Verdict::Differs { .. }) => tally.differing += 1,
            Err(AuditError::Withheld(_)) => tally.withheld += 1,
            Err(_) => tally.errors += 1,
        }
        verdicts.append(&hash, &verdict)?;
        told(&tally, &receipt::id(&hash), &verdict);
    }
    Ok(tally)
}
