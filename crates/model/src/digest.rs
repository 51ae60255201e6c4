//! Digests: 32 bytes that name exactly what decides outputs. `docs/digests.md` defines them.

use crate::merkle::{self, Hash, hash_each};
use crate::parts::{self, Kind, PartRef, Slot};
use crate::{Half, LowRank, Mlp, Plan, Shape, Weights, parallel};
use exact::hash::LANES;
use exact::matrix::{Matrix, RowMatrix};
use exact::mixture::Router;
use exact::{Activations, Isa};
use std::convert::Infallible;
use std::ops::Range;

/// Bytes of weights hashed by one job, about.
const JOB_BYTES: usize = 1 << 20;
/// A shorter row takes as long as one of so many bytes.
const ROW_BYTES: usize = 64;

/// A list of texts, numbers and hashes, each written so that no two lists look alike; a digest is its hash.
pub(crate) struct Transcript(Vec<u8>);

impl Transcript {
    /// Starts with the name of what is being hashed.
    pub(crate) fn new(name: &str) -> Transcript {
        let mut transcript = Transcript(vec![]);
        transcript.text(name);
        transcript
    }

    /// Its length in bytes as a number, then the text.
    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    /// 64 bits, little end first.
    pub(crate) fn number(&mut self, number: usize) {
        self.0.extend((number as u64).to_le_bytes());
    }

    /// 64 bits, little end first.
    pub(crate) fn bits(&mut self, bits: u64) {
        self.0.extend(bits.to_le_bytes());
    }

    /// 32 bytes.
    pub(crate) fn hash(&mut self, hash: &Hash) {
        self.0.extend(hash);
    }

    pub(crate) fn finish(&self) -> Hash {
        *blake3::hash(&self.0).as_bytes()
    }
}

/// A table of numbers whose rows are the leaves of a tree.
#[derive(Clone, Copy)]
enum Table<'a> {
    Matrix(&'a Matrix),
    Rows(&'a RowMatrix),
    Router(&'a Router),
    Halves(&'a [u16], Half, usize),
    Floats(&'a [f32]),
}

impl Table<'_> {
    /// Rows, and numbers in each.
    fn size(&self) -> (usize, usize) {
        match self {
            Table::Matrix(matrix) => (matrix.outputs(), matrix.inputs()),
            Table::Rows(matrix) => (matrix.outputs(), matrix.inputs()),
            Table::Router(router) => (router.experts(), router.inputs()),
            Table::Halves(bits, _, columns) => (bits.len() / columns.max(&1), *columns),
            Table::Floats(values) => (1, values.len()),
        }
    }

    fn element(&self) -> &'static str {
        match self {
            Table::Matrix(_) | Table::Rows(_) => "i8",
            Table::Router(_) => "i16",
            Table::Halves(_, Half::Brain, _) => "bf16",
            Table::Halves(_, Half::Ieee, _) => "f16",
            Table::Floats(_) => "f32",
        }
    }

    /// Appends a leaf's data: the scale, where rows have one, then the numbers, little end first.
    fn write_row(&self, row: usize, levels: &mut Vec<i8>, out: &mut Vec<u8>) {
        match self {
            Table::Matrix(matrix) => {
                levels.resize(matrix.inputs(), 0);
                matrix.row(row, levels);
                out.extend(matrix.scales()[row].to_le_bytes());
                out.extend_from_slice(bytemuck::cast_slice(levels));
            }
            Table::Rows(matrix) => {
                out.extend(matrix.scales()[row].to_le_bytes());
                out.extend_from_slice(bytemuck::cast_slice(matrix.row(row)));
            }
            Table::Router(router) => {
                let (levels, scale) = router.row(row);
                out.extend(scale.to_le_bytes());
                out.extend(levels.iter().flat_map(|level| level.to_le_bytes()));
            }
            Table::Halves(bits, _, columns) => {
                out.extend(bits[row * columns..][..*columns].iter().flat_map(|bits| bits.to_le_bytes()));
            }
            Table::Floats(values) => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        }
    }

    fn leaves(&self, rows: Range<usize>) -> Vec<Hash> {
        let mut hashes = vec![[0; 32]; rows.len()];
        let (mut levels, mut messages) = (vec![], vec![]);
        for (first, hashes) in rows.step_by(LANES).zip(hashes.chunks_mut(LANES)) {
            messages.clear();
            for row in first..first + hashes.len() {
                messages.push(0);
                self.write_row(row, &mut levels, &mut messages);
            }
            hash_each(Isa::best(), &messages, hashes);
        }
        hashes
    }
}

/// Hashes of the leaves of each table, the rows spread over threads.
fn leaves(tables: &[Table<'_>], threads: usize) -> Vec<Vec<Hash>> {
    let mut jobs = vec![];
    for (number, table) in tables.iter().enumerate() {
        let (rows, columns) = table.size();
        let step = (JOB_BYTES / columns.max(ROW_BYTES)).next_multiple_of(LANES).max(LANES);
        jobs.extend((0..rows).step_by(step).map(|first| (number, first..rows.min(first + step))));
    }
    let hash = |job: usize| -> Result<_, Infallible> {
        let (number, rows) = jobs[job].clone();
        Ok((number, tables[number].leaves(rows)))
    };
    let Ok(done) = parallel::map(threads, jobs.len(), hash);
    let mut all = vec![vec![]; tables.len()];
    for (number, hashes) in done {
        all[number].extend(hashes);
    }
    all
}

fn write_entries(transcript: &mut Transcript, entries: &[Entry]) {
    transcript.number(entries.len());
    for Entry { name, element, size: (rows, columns), root } in entries {
        transcript.text(name);
        transcript.text(element);
        transcript.number(*rows);
        transcript.number(*columns);
        transcript.hash(root);
    }
}

fn tables<'a>(shape: &Shape, plan: &Plan, weights: &'a Weights) -> Vec<(String, Table<'a>)> {
    let slots = parts::slots(shape, plan);
    slots.iter().zip(parts::of(weights)).flat_map(|(slot, part)| tables_of(slot, part)).collect()
}

/// The tables of one part.
fn tables_of<'a>(slot: &Slot, part: PartRef<'a>) -> Vec<(String, Table<'a>)> {
    let suffix = if slot.kind == Kind::Folded { "folded" } else { "weight" };
    let weight = format!("{}.{suffix}", slot.name);
    match part {
        PartRef::Embedding(e) => vec![(weight, Table::Halves(&e.bits, e.half, e.hidden))],
        PartRef::Norm(norm) => vec![(weight, Table::Floats(norm))],
        PartRef::Router(router) => vec![(weight, Table::Router(router))],
        PartRef::Expert(matrix) => vec![(weight, Table::Matrix(matrix))],
        PartRef::Linear(linear) => {
            let bias = linear.bias.as_ref().map(|bias| (format!("{}.bias", slot.name), Table::Floats(bias)));
            [(weight, Table::Matrix(&linear.matrix))].into_iter().chain(bias).collect()
        }
    }
}

/// An entry of a manifest's list of tensors.
pub(crate) struct Entry {
    name: String,
    element: &'static str,
    size: (usize, usize),
    root: Hash,
}

/// The entries of one part.
pub(crate) fn entries(slot: &Slot, part: PartRef<'_>, threads: usize) -> Vec<Entry> {
    entries_of(&tables_of(slot, part), threads)
}

fn entries_of(tables: &[(String, Table<'_>)], threads: usize) -> Vec<Entry> {
    let only: Vec<_> = tables.iter().map(|(_, table)| *table).collect();
    let entry = |((name, table), leaves): (&(String, Table<'_>), Vec<Hash>)| Entry {
        name: name.clone(),
        element: table.element(),
        size: table.size(),
        root: merkle::root(&leaves),
    };
    tables.iter().zip(leaves(&only, threads)).map(entry).collect()
}

/// The exact digest of a model, its rows hashed on `threads` threads.
pub fn exact(shape: &Shape, plan: &Plan, weights: &Weights, activations: Activations, threads: usize) -> Hash {
    *blake3::hash(&manifest(shape, plan, weights, activations, threads)).as_bytes()
}

/// The manifest of a model: the bytes whose hash is the exact digest. [`crate::Manifest`] reads them.
pub fn manifest(shape: &Shape, plan: &Plan, weights: &Weights, activations: Activations, threads: usize) -> Vec<u8> {
    manifest_of(shape, activations, &entries_of(&tables(shape, plan, weights), threads))
}

/// The same from entries.
pub(crate) fn manifest_of(shape: &Shape, activations: Activations, entries: &[Entry]) -> Vec<u8> {
    let mut transcript = Transcript::new("lockstep exact digest 1");
    transcript.number(exact::VERSION as usize);
    transcript.text(activations.name());
    write_shape(&mut transcript, shape);
    write_entries(&mut transcript, entries);
    transcript.0
}

/// Hashes of the rows of one tensor of a model (`model.layers.0.mlp.up_proj.weight` for one): the leaves under its
/// root, of which [`merkle::proof`] opens any. None if there is no such tensor.
pub fn tensor_leaves(shape: &Shape, plan: &Plan, weights: &Weights, tensor: &str, threads: usize) -> Option<Vec<Hash>> {
    let table = tables(shape, plan, weights).into_iter().find(|(name, _)| name == tensor)?.1;
    leaves(&[table], threads).pop()
}

/// The leaf of a row of int8 weights: its scale, then its integers.
pub fn row_leaf(levels: &[i8], scale: f32) -> Hash {
    let mut data = scale.to_le_bytes().to_vec();
    data.extend_from_slice(bytemuck::cast_slice(levels));
    merkle::leaf(&data)
}

fn write_shape(transcript: &mut Transcript, shape: &Shape) {
    for number in [shape.hidden, shape.layers, shape.heads, shape.key_heads, shape.head_dim] {
        transcript.number(number);
    }
    for mlp in &shape.mlps {
        let numbers = match *mlp {
            Mlp::Gated { width } => [0, width, 0, 0, 0],
            Mlp::Experts { experts, chosen, width, renormalise } => {
                [1, width, experts, chosen, usize::from(renormalise)]
            }
        };
        numbers.into_iter().for_each(|number| transcript.number(number));
    }
    transcript.number(shape.vocabulary);
    transcript.number(shape.context);
    transcript.bits(u64::from(shape.norm_eps.to_bits()));
    transcript.number(shape.rotary.inverse_frequencies.len());
    shape.rotary.inverse_frequencies.iter().for_each(|omega| transcript.bits(omega.to_bits()));
    transcript.number(shape.window.unwrap_or(0));
    transcript.number(usize::from(shape.head_norms));
    transcript.number(usize::from(shape.tied));
    transcript.number(usize::from(shape.spread));
}

/// The digest of an adapter: `sites` in the order of the plan's, named as there.
pub(crate) fn adapter(plan: &Plan, sites: &[Option<LowRank>], threads: usize) -> Hash {
    *blake3::hash(&adapter_manifest(plan, sites, threads)).as_bytes()
}

/// The manifest of an adapter: the bytes whose hash is its digest. [`crate::AdapterManifest`] reads them.
pub fn adapter_manifest(plan: &Plan, sites: &[Option<LowRank>], threads: usize) -> Vec<u8> {
    let present = || plan.sites.iter().zip(sites).filter_map(|(site, low_rank)| Some((site, low_rank.as_ref()?)));
    let mut transcript = Transcript::new("lockstep adapter digest 1");
    transcript.number(exact::VERSION as usize);
    transcript.number(present().count());
    for (site, low_rank) in present() {
        transcript.text(&site.name);
        transcript.bits(u64::from(low_rank.gain.to_bits()));
    }
    write_entries(&mut transcript, &entries_of(&adapter_tables(plan, sites), threads));
    transcript.0
}

fn adapter_tables<'a>(plan: &Plan, sites: &'a [Option<LowRank>]) -> Vec<(String, Table<'a>)> {
    let present = plan.sites.iter().zip(sites).filter_map(|(site, low_rank)| Some((site, low_rank.as_ref()?)));
    present
        .flat_map(|(site, low_rank)| {
            let named = |half| format!("{}.lora_{half}.weight", site.name);
            [(named("A"), Table::Rows(&low_rank.a)), (named("B"), Table::Matrix(&low_rank.b))]
        })
        .collect()
}

/// Hashes of the rows of one tensor of an adapter (`model.layers.0.mlp.up_proj.lora_A.weight` for one).
pub fn adapter_leaves(plan: &Plan, sites: &[Option<LowRank>], tensor: &str, threads: usize) -> Option<Vec<Hash>> {
    let table = adapter_tables(plan, sites).into_iter().find(|(name, _)| name == tensor)?.1;
    leaves(&[table], threads).pop()
}
