//! Random combinations of the rows of every linear map.

use crate::light::frame::{Frame, FrameMaker};
use crate::light::sections::Sections;
use crate::light::verdict::LightError;
use crate::trace::tree::Hash;
use crate::wire::{Malformed, Reader, Writer};
use exact::Isa;
use exact::elements::{Elements, STRETCH};
use exact::field::{P, Projection, Vector};
use model::pieces::{self, Piece};
use model::{LoadOptions, Model, Plan, Shape, digest};
use std::path::Path;

/// What a verifier keeps of a model's weights. Whoever knows it can pass false sums off on its owner: it is never shared,
/// unless it was drawn from a coin after the sums were fixed.
#[derive(Clone)]
pub struct Key {
    /// Exact digest of the model.
    pub base: Hash,
    /// Hash of the model's frame.
    pub frame: Hash,
    seed: Hash,
    /// r · W of each section.
    pub(crate) projections: Vec<Vector>,
}

/// The numbers r is made of, from a seed: 61 bits each, the one that is not in the field passed over.
fn numbers(seed: &Hash) -> impl Iterator<Item = u64> {
    let mut stream = blake3::Hasher::new_keyed(seed).update(b"lockstep light check 2").finalize_xof();
    let mut bytes = vec![0u8; 1 << 14];
    let block = move || {
        stream.fill(&mut bytes);
        let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word) >> 3).collect();
        words
    };
    std::iter::repeat_with(block).flatten().filter(|value| *value < P)
}

/// The elements r, with so many outer ones.
fn elements(seed: &Hash, stretches: usize) -> Elements {
    Elements::new(&numbers(seed).take(STRETCH + stretches).collect::<Vec<u64>>())
}

/// The seed of a public coin: of what was handed out, and of a beacon's value that nobody knew by then.
pub fn coin(opening: &[u8], beacon: &[u8]) -> Hash {
    coin_of(blake3::hash(opening).as_bytes(), beacon)
}

/// The same from the hash of what was handed out.
pub fn coin_of(opening: &Hash, beacon: &[u8]) -> Hash {
    *blake3::Hasher::new().update(b"lockstep coin 1").update(opening).update(beacon).finalize().as_bytes()
}

/// Makes a key from the pieces of a model, each seen once.
pub struct KeyMaker {
    isa: Isa,
    seed: Hash,
    elements: Elements,
    sections: Sections,
    projections: Vec<Option<Projection>>,
    finished: Vec<Vec<u64>>,
    frame: FrameMaker,
}

impl KeyMaker {
    /// For a model of these dimensions.
    pub fn new(shape: &Shape, plan: &Plan, seed: Hash, isa: Isa) -> KeyMaker {
        let sections = Sections::new(shape, plan);
        let count = sections.shapes.len();
        KeyMaker {
            isa,
            seed,
            elements: elements(&seed, sections.stretches_max()),
            projections: (0..count).map(|_| None).collect(),
            finished: vec![vec![]; count],
            sections,
            frame: FrameMaker::default(),
        }
    }

    /// Takes a piece.
    pub fn take(&mut self, piece: Piece<'_>) {
        self.frame.take(piece);
        let (section, place, matrix) = match piece {
            Piece::Linear(site, linear) => {
                let Some((section, place)) = self.sections.place_of(site) else { return };
                (section, place, &linear.matrix)
            }
            Piece::Expert(mixture, expert, part, matrix) => {
                (self.sections.of_expert(mixture, expert, part == 2), part % 2, matrix)
            }
            _ => return,
        };
        let (inputs, outputs) = &self.sections.shapes[section];
        let first = outputs[..place].iter().map(|outputs| Elements::stretches_of(*outputs)).sum();
        let projection = self.projections[section].get_or_insert_with(|| Projection::new(*inputs));
        let mut levels = vec![0i8; *inputs];
        for output in 0..matrix.outputs() {
            matrix.row(output, &mut levels);
            projection.add(self.isa, self.elements.get(first, output), &levels);
        }
        if place + 1 == outputs.len() {
            self.finished[section] = projection.finish();
            self.projections[section] = None;
        }
    }

    /// Key and frame, with the bytes of the model's manifest.
    pub fn finish(self, manifest: Vec<u8>) -> Result<(Key, Frame), Malformed> {
        let frame = self.frame.finish(manifest)?;
        let projections = self.finished.iter().map(|projection| Vector::new(projection)).collect();
        Ok((Key { base: frame.base.digest, frame: frame.hash(), seed: self.seed, projections }, frame))
    }
}

impl Key {
    /// A secret key of a model in memory; `seed` is 32 random bytes.
    pub fn secret(model: &Model, seed: Hash, isa: Isa, threads: usize) -> Result<(Key, Frame), Malformed> {
        let mut maker = KeyMaker::new(&model.shape, &model.plan, seed, isa);
        pieces::of_model(model, |piece| maker.take(piece));
        maker.finish(digest::manifest(&model.shape, &model.plan, &model.weights, model.activations, threads))
    }

    /// A key of the checkpoint in `folder`, whose weights pass through memory one by one.
    pub fn streamed(folder: &Path, options: &LoadOptions<'_>, seed: Hash) -> Result<(Key, Frame), LightError> {
        let maker = std::cell::RefCell::new(None);
        let start = |shape: &Shape, plan: &Plan| {
            maker.replace(Some(KeyMaker::new(shape, plan, seed, options.isa)));
        };
        let take = |piece: Piece<'_>| {
            if let Some(maker) = &mut *maker.borrow_mut() {
                maker.take(piece);
            }
        };
        let streamed = pieces::stream(folder, options, start, take)?;
        let maker = maker.into_inner().ok_or(Malformed("the checkpoint has no pieces"))?;
        Ok(maker.finish(streamed.manifest)?)
    }

    /// The key of a public coin: made anew for every opening, of a model in memory.
    pub fn from_coin(
        model: &Model,
        opening: &[u8],
        beacon: &[u8],
        isa: Isa,
        threads: usize,
    ) -> Result<(Key, Frame), Malformed> {
        Key::secret(model, coin(opening, beacon), isa, threads)
    }

    /// The elements r, with so many outer ones: for the verifier, and for whoever it leaked to.
    pub fn elements(&self, stretches: usize) -> Elements {
        elements(&self.seed, stretches)
    }

    /// Its one encoding.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.bytes(b"lockstep light key 2").hash(&self.base).hash(&self.frame).hash(&self.seed);
        writer.number(self.projections.len());
        for projection in &self.projections {
            writer.number(projection.len());
            (0..projection.len()).for_each(|at| writer.0.extend(projection.get(at).to_le_bytes()));
        }
        writer.0
    }

    /// Reads a key. Takes memory in proportion to `bytes`, whatever they say.
    pub fn from_bytes(bytes: &[u8]) -> Result<Key, Malformed> {
        let mut reader = Reader(bytes);
        if reader.bytes()? != b"lockstep light key 2" {
            return Err(Malformed("their heading"));
        }
        let mut key = Key { base: reader.hash()?, frame: reader.hash()?, seed: reader.hash()?, projections: vec![] };
        for _ in 0..reader.count(8)? {
            let count = reader.count(8)?;
            let words = reader.take(8 * count)?.as_chunks::<8>().0;
            let values: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
            if values.iter().any(|value| *value >= P) {
                return Err(Malformed("an element is not in the field"));
            }
            key.projections.push(Vector::new(&values));
        }
        reader.finish()?;
        Ok(key)
    }

    /// Whether it is a key of such a model.
    pub(crate) fn fits(&self, sections: &Sections) -> bool {
        let sizes = sections.shapes.iter().map(|(inputs, _)| *inputs);
        self.projections.len() == sections.shapes.len() && self.projections.iter().map(Vector::len).eq(sizes)
    }
}
