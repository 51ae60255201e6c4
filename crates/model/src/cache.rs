//! Quantised models on disk, so that a start takes as long as reading them. A file is named by what it depends on (the
//! checkpoint's files, the arithmetic, the activation mode, this format), written beside its place and then renamed,
//! and every byte is hashed again when it is read: damage means quantising anew, never wrong weights.

use crate::digest::Transcript;
use crate::index::Index;
use crate::load::{LoadOptions, Stage, in_order_of_size};
use crate::merkle::Hash;
use crate::parts::{self, Part, PartRef};
use crate::replace::{Durable, replace};
use crate::section::{Section, pieces, read_part};
use crate::{Half, ModelError, Plan, Shape, Weights};
use exact::Activations;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Version of the file format.
const FORMAT: usize = 1;
const MAGIC: &[u8; 16] = b"lockstep model 1";
/// Magic, length of the header, hash of the header.
const PREFIX_BYTES: usize = 16 + 8 + 32;
const HEADER_BYTES_MAX: u64 = 256 << 20;
/// Sections start at multiples of this.
const ALIGNMENT: u64 = 4096;

/// A folder of quantised models.
pub(crate) struct Cache {
    folder: PathBuf,
}

/// What the cache has for a key.
pub(crate) enum Found {
    Nothing,
    Damaged(String),
    Model { weights: Weights, digest: Hash },
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Header {
    key: String,
    /// The exact digest.
    digest: String,
    /// Whether the embedding is bfloat16 rather than IEEE half.
    brain: bool,
    sections: Vec<Section>,
}

impl Cache {
    pub(crate) fn at(folder: &Path) -> Cache {
        Cache { folder: folder.to_owned() }
    }

    /// What a quantised model depends on.
    pub(crate) fn key(file_digest: &Hash, activations: Activations) -> Hash {
        let mut transcript = Transcript::new("lockstep cache key");
        transcript.number(FORMAT);
        transcript.number(exact::VERSION as usize);
        transcript.text(activations.name());
        transcript.text(if cfg!(target_endian = "big") { "big" } else { "little" });
        transcript.hash(file_digest);
        transcript.finish()
    }

    fn path(&self, key: &Hash) -> PathBuf {
        self.folder.join(format!("{}.lockstep", blake3::Hash::from(*key).to_hex()))
    }

    /// Reads the model of a key, all of it checked against the hashes in its header.
    pub(crate) fn read(&self, key: &Hash, shape: &Shape, plan: &Plan, options: &LoadOptions<'_>) -> Found {
        let path = self.path(key);
        if !path.exists() {
            return Found::Nothing;
        }
        match read(&path, key, shape, plan, options) {
            Ok((weights, digest)) => Found::Model { weights, digest },
            Err(error) => Found::Damaged(format!("{}: {error}; it was quantised again", path.display())),
        }
    }

    /// Writes a model under a key, replacing what is there in one step.
    pub(crate) fn write(
        &self,
        key: &Hash,
        shape: &Shape,
        plan: &Plan,
        weights: &Weights,
        digest: &Hash,
        options: &LoadOptions<'_>,
    ) -> Result<(), ModelError> {
        let slots = parts::slots(shape, plan);
        let parts = parts::of(weights);
        let Ok(mut sections) = in_order_of_size(options.threads, &slots, |number, slot| {
            Ok::<_, std::convert::Infallible>(Section::of(slot, parts[number]))
        });
        let mut offset = 0u64;
        for section in &mut sections {
            section.offset = offset;
            offset = (offset + section.bytes).next_multiple_of(ALIGNMENT);
        }
        let header = Header {
            key: blake3::Hash::from(*key).to_hex().to_string(),
            digest: blake3::Hash::from(*digest).to_hex().to_string(),
            brain: weights.embedding.half == Half::Brain,
            sections,
        };
        replace(&self.path(key), Durable::Yes, |path, file| {
            write(file, &header, &parts, options).map_err(ModelError::write(path))
        })
    }

    /// The hashes of files seen before; empty if there are none or they are damaged.
    pub(crate) fn read_index(&self) -> Index {
        std::fs::read(self.index_path()).ok().and_then(|text| Index::parse(&text)).unwrap_or_default()
    }

    /// Keeps the index for the next start. Failing to is harmless: the files are hashed again.
    pub(crate) fn write_index(&self, index: &Index) {
        if let Some(text) = index.text_if_changed() {
            let _ = replace(&self.index_path(), Durable::Yes, |path, file| {
                file.write_all(text.as_bytes()).map_err(ModelError::write(path))
            });
        }
    }

    fn index_path(&self) -> PathBuf {
        self.folder.join("files.json")
    }
}

fn write(file: &mut File, header: &Header, parts: &[PartRef<'_>], options: &LoadOptions<'_>) -> std::io::Result<()> {
    let text = serde_json::to_vec(header)?;
    file.write_all(MAGIC)?;
    file.write_all(&(text.len() as u64).to_le_bytes())?;
    file.write_all(blake3::hash(&text).as_bytes())?;
    file.write_all(&text)?;
    let body = body_start(text.len() as u64);
    let meter = options.meter(Stage::WriteCache, header.sections.iter().map(|section| section.bytes).sum());
    for (section, part) in header.sections.iter().zip(parts) {
        let mut at = body + section.offset;
        for piece in pieces(*part) {
            file.write_all_at(&piece, at)?;
            at += piece.len() as u64;
        }
        meter.add(section.bytes);
    }
    Ok(())
}

fn body_start(header_bytes: u64) -> u64 {
    (PREFIX_BYTES as u64 + header_bytes).next_multiple_of(ALIGNMENT)
}

fn read(
    path: &Path,
    key: &Hash,
    shape: &Shape,
    plan: &Plan,
    options: &LoadOptions<'_>,
) -> Result<(Weights, Hash), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let (header, body) = read_header(&file)?;
    let digest = blake3::Hash::from_hex(&header.digest).map_err(|_| "its digest is damaged")?;
    if header.key != blake3::Hash::from(*key).to_hex().as_str() {
        return Err("it holds another model".to_owned());
    }
    let slots = parts::slots(shape, plan);
    if header.sections.len() != slots.len() {
        return Err("it holds another model".to_owned());
    }
    let meter = options.meter(Stage::ReadCache, header.sections.iter().map(|section| section.bytes).sum());
    let half = if header.brain { Half::Brain } else { Half::Ieee };
    let parts = in_order_of_size(options.threads, &slots, |number, slot| -> Result<Part, String> {
        let section = &header.sections[number];
        let part = read_part(&file, body, section, slot, half)?;
        meter.add(section.bytes);
        Ok(part)
    })?;
    let weights = parts::assemble(shape, plan, parts).ok_or("it holds another model")?;
    Ok((weights, *digest.as_bytes()))
}

fn read_header(file: &File) -> Result<(Header, u64), String> {
    let truncated = |_| "it is truncated".to_owned();
    let mut prefix = [0u8; PREFIX_BYTES];
    file.read_exact_at(&mut prefix, 0).map_err(truncated)?;
    let mut length = [0u8; 8];
    length.copy_from_slice(&prefix[16..24]);
    let bytes = u64::from_le_bytes(length);
    let file_bytes = file.metadata().map_err(|error| error.to_string())?.len();
    if prefix[..16] != *MAGIC || bytes > HEADER_BYTES_MAX || bytes > file_bytes {
        return Err("its first bytes are damaged".to_owned());
    }
    let mut text = vec![0u8; bytes as usize];
    file.read_exact_at(&mut text, PREFIX_BYTES as u64).map_err(truncated)?;
    if blake3::hash(&text).as_bytes()[..] != prefix[24..] {
        return Err("its header is damaged".to_owned());
    }
    let header = serde_json::from_slice(&text).map_err(|error| format!("its header is damaged: {error}"))?;
    Ok((header, body_start(bytes)))
}
