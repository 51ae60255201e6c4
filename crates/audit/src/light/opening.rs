//! What a prover hands out for a light check.

use crate::light::sums;
use crate::trace::tree::Hash;
use crate::wire::{Malformed, Reader, Writer};
use std::borrow::Cow;
use std::io;
use std::ops::Range;

pub(crate) const HEADING: &[u8] = b"lockstep light opening 2";

/// Embedding of a token, opened against the exact digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmbeddingOpening {
    pub(crate) token: u32,
    pub(crate) row: Vec<u8>,
    pub(crate) proof: Vec<Hash>,
}

impl EmbeddingOpening {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<EmbeddingOpening, Malformed> {
        Ok(EmbeddingOpening { token: reader.word()?, row: reader.bytes()?.to_vec(), proof: reader.hashes()? })
    }
}

/// An earlier position: what its leaf is the hash of, and keys and values of each layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PastOpening {
    pub(crate) leaf: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
}

impl PastOpening {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<PastOpening, Malformed> {
        let leaf = reader.bytes()?.to_vec();
        let mut layers = vec![];
        for _ in 0..reader.count(8)? {
            layers.push(reader.bytes()?.to_vec());
        }
        Ok(PastOpening { leaf, layers })
    }
}

/// An opening, wherever it lies: in memory ([`LightOpening`]) or in a file ([`crate::light::OpeningFile`]).
pub trait Opened: Sync {
    /// Positions of the span.
    fn span(&self) -> Range<usize>;

    /// One embedding of each token in the span.
    fn embeddings(&self) -> &[EmbeddingOpening];

    /// Earlier positions there are.
    fn past_positions(&self) -> usize;

    /// An earlier position.
    fn past(&self, position: usize) -> io::Result<Cow<'_, PastOpening>>;

    /// Bytes of sums of the span's position with this number.
    fn sums_bytes(&self, index: usize) -> usize;

    /// So many of these bytes, from `at` on: where they lie, or read into `buffer`. There are as many.
    fn sums<'a>(&'a self, index: usize, at: usize, bytes: usize, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]>;
}

/// A span of positions, opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LightOpening {
    /// First position of the span.
    pub start: usize,
    /// One of each token in the span, ascending.
    pub(crate) embeddings: Vec<EmbeddingOpening>,
    /// Every position before the span.
    pub(crate) past: Vec<PastOpening>,
    /// Of each position of the span: the sums of its sections in the order they run (light/sums.rs).
    pub(crate) sums: Vec<Vec<u8>>,
}

impl LightOpening {
    /// Bytes of sums, and of earlier positions.
    pub fn weight_bytes(&self) -> (usize, usize) {
        let past = |past: &PastOpening| past.leaf.len() + past.layers.iter().map(Vec::len).sum::<usize>();
        (self.sums.iter().map(Vec::len).sum(), self.past.iter().map(past).sum())
    }

    /// How many sums it has.
    pub fn sums_count(&self) -> usize {
        let sections = self.sums.iter().filter_map(|position| sums::read(position)).flatten();
        sections.flatten().map(|list| list.len()).sum()
    }

    /// One sum changed by `by`: what a prover does who knows the key. `at` counts the sums of a position.
    pub fn forged(mut self, position: usize, at: usize, by: i32) -> LightOpening {
        rewrite(&mut self.sums[position - self.start], 4, |sections| {
            if let Some(sum) = sections.iter_mut().flatten().flatten().nth(at) {
                *sum = sum.wrapping_add(by);
            }
        });
        self
    }

    /// The same with at least so many bits a sum above the low sixteen, 4, 8 or 16, as another prover may keep them.
    pub fn kept_at(mut self, least_bits: u8) -> LightOpening {
        self.sums.iter_mut().for_each(|bytes| rewrite(bytes, least_bits, |_| {}));
        self
    }

    /// One byte of an earlier position's keys and values changed.
    pub fn past_forged(mut self, position: usize, layer: usize, byte: usize) -> LightOpening {
        self.past[position].layers[layer][byte] ^= 1;
        self
    }

    /// Its one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(HEADING).number(self.start).number(self.embeddings.len());
        for embedding in &self.embeddings {
            writer.word(embedding.token).bytes(&embedding.row).hashes(&embedding.proof);
        }
        writer.number(self.past.len());
        for past in &self.past {
            writer.bytes(&past.leaf).number(past.layers.len());
            past.layers.iter().for_each(|layer| {
                writer.bytes(layer);
            });
        }
        writer.number(self.sums.len());
        self.sums.iter().for_each(|sums| {
            writer.bytes(sums);
        });
        writer.0
    }

    /// Reads an opening; nothing it says is checked yet. Takes memory in proportion to `bytes`, whatever they say.
    pub fn from_bytes(bytes: &[u8]) -> Result<LightOpening, Malformed> {
        let mut reader = Reader(bytes);
        if reader.bytes()? != HEADING {
            return Err(Malformed("their heading"));
        }
        let start = reader.number()?;
        let mut opening = LightOpening { start, embeddings: vec![], past: vec![], sums: vec![] };
        for _ in 0..reader.count(20)? {
            opening.embeddings.push(EmbeddingOpening::read(&mut reader)?);
        }
        for _ in 0..reader.count(16)? {
            opening.past.push(PastOpening::read(&mut reader)?);
        }
        for _ in 0..reader.count(8)? {
            opening.sums.push(reader.bytes()?.to_vec());
        }
        reader.finish()?;
        Ok(opening)
    }
}

/// A position's sums changed and written again, if they are well formed.
fn rewrite(bytes: &mut Vec<u8>, least_bits: u8, change: impl FnOnce(&mut Vec<Vec<Vec<i32>>>)) {
    let Some(mut sections) = sums::read(bytes) else { return };
    change(&mut sections);
    bytes.clear();
    sections.iter().for_each(|lists| sums::write(lists, least_bits, bytes));
}

impl Opened for LightOpening {
    fn span(&self) -> Range<usize> {
        self.start..self.start.saturating_add(self.sums.len())
    }

    fn embeddings(&self) -> &[EmbeddingOpening] {
        &self.embeddings
    }

    fn past_positions(&self) -> usize {
        self.past.len()
    }

    fn past(&self, position: usize) -> io::Result<Cow<'_, PastOpening>> {
        Ok(Cow::Borrowed(&self.past[position]))
    }

    fn sums_bytes(&self, index: usize) -> usize {
        self.sums[index].len()
    }

    fn sums<'a>(&'a self, index: usize, at: usize, bytes: usize, _: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        Ok(&self.sums[index][at..at + bytes])
    }
}
