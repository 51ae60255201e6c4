//! Hashes of files that were hashed before, by how the files looked then, so that a start need not read every byte of
//! a checkpoint to know it. Kept as JSON with its own hash: a damaged index is an empty one.

use crate::files::Stamp;
use crate::merkle::Hash;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

/// A file changed this recently is not remembered: another change might leave the same times.
const SETTLED_NS: i128 = 2_000_000_000;

/// The index.
#[derive(Default)]
pub(crate) struct Index {
    files: BTreeMap<String, Seen>,
    changed: bool,
}

#[derive(serde::Serialize, serde::Deserialize, Clone, PartialEq)]
struct Seen {
    bytes: u64,
    modified_ns: String,
    changed_ns: String,
    blake3: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Document {
    files: BTreeMap<String, Seen>,
    /// BLAKE3 of `files` as compact JSON.
    check: String,
}

fn check_of(files: &BTreeMap<String, Seen>) -> Option<String> {
    Some(blake3::hash(&serde_json::to_vec(files).ok()?).to_hex().to_string())
}

fn seen(stamp: &Stamp, hash: &Hash) -> Seen {
    Seen {
        bytes: stamp.bytes,
        modified_ns: stamp.modified_ns.to_string(),
        changed_ns: stamp.changed_ns.to_string(),
        blake3: blake3::Hash::from(*hash).to_hex().to_string(),
    }
}

impl Index {
    /// From the text of its file, if that is undamaged.
    pub(crate) fn parse(text: &[u8]) -> Option<Index> {
        let document: Document = serde_json::from_slice(text).ok()?;
        let intact = check_of(&document.files)? == document.check;
        intact.then_some(Index { files: document.files, changed: false })
    }

    /// The text to write, if there is news.
    pub(crate) fn text_if_changed(&self) -> Option<String> {
        let document = Document { files: self.files.clone(), check: check_of(&self.files)? };
        if self.changed { serde_json::to_string_pretty(&document).ok() } else { None }
    }

    /// The hash of a file that looks like this.
    pub(crate) fn get(&self, stamp: &Stamp) -> Option<Hash> {
        let known = self.files.get(stamp.path.to_str()?)?;
        let hash = *blake3::Hash::from_hex(&known.blake3).ok()?.as_bytes();
        (*known == seen(stamp, &hash)).then_some(hash)
    }

    /// Remembers the hash of a file that looks like this.
    pub(crate) fn insert(&mut self, stamp: &Stamp, hash: Hash) {
        let now_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as i128);
        let settled = now_ns - stamp.changed_ns.max(stamp.modified_ns) > SETTLED_NS;
        if let (true, Some(path)) = (settled, stamp.path.to_str()) {
            self.files.insert(path.to_owned(), seen(stamp, &hash));
            self.changed = true;
        }
    }
}
