//! What a prover hands out for a light check.

use crate::trace::tree::Hash;
use crate::wire::{Malformed, Reader, Writer};

/// Embedding of a token, opened against the exact digest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct EmbeddingOpening {
    pub(crate) token: u32,
    pub(crate) row: Vec<u8>,
    pub(crate) proof: Vec<Hash>,
}

/// An earlier position: what its leaf is the hash of, and keys and values of each layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PastOpening {
    pub(crate) leaf: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
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
    /// Of each position of the span: the sums of its linear maps in the order they run, 32 bits each.
    pub(crate) sums: Vec<Vec<u8>>,
}

impl LightOpening {
    /// Positions of the span.
    pub fn positions(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.sums.len()
    }

    /// Bytes of sums, and of earlier positions.
    pub fn weight_bytes(&self) -> (usize, usize) {
        let past = |past: &PastOpening| past.leaf.len() + past.layers.iter().map(Vec::len).sum::<usize>();
        (self.sums.iter().map(Vec::len).sum(), self.past.iter().map(past).sum())
    }

    /// One sum changed by `by`: what a prover does who knows the key. `at` counts the sums of a position.
    pub fn forged(mut self, position: usize, at: usize, by: i32) -> LightOpening {
        if let Some(word) = self.sums[position - self.start].as_chunks_mut::<4>().0.get_mut(at) {
            *word = i32::from_le_bytes(*word).wrapping_add(by).to_le_bytes();
        }
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
        writer.bytes(b"lockstep light opening 1").number(self.start).number(self.embeddings.len());
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
        if reader.bytes()? != b"lockstep light opening 1" {
            return Err(Malformed("their heading"));
        }
        let start = reader.number()?;
        let mut opening = LightOpening { start, embeddings: vec![], past: vec![], sums: vec![] };
        for _ in 0..reader.count(20)? {
            let (token, row) = (reader.word()?, reader.bytes()?.to_vec());
            opening.embeddings.push(EmbeddingOpening { token, row, proof: reader.hashes()? });
        }
        for _ in 0..reader.count(16)? {
            let leaf = reader.bytes()?.to_vec();
            let mut layers = vec![];
            for _ in 0..reader.count(8)? {
                layers.push(reader.bytes()?.to_vec());
            }
            opening.past.push(PastOpening { leaf, layers });
        }
        for _ in 0..reader.count(8)? {
            opening.sums.push(reader.bytes()?.to_vec());
        }
        reader.finish()?;
        Ok(opening)
    }
}
