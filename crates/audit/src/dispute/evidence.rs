//! One row and everything it is computed from, opened: rows of earlier steps against the position's root, rows of weights
//! against the manifest, keys and values of earlier positions against the trace's root.

use crate::dispute::case::Case;
use crate::trace::tree::{Hash, STEPS, TRACE, WEIGHTS, row_hash};
use crate::trace::{Expert, Missing, Program, Source, StepId, Table};
use crate::wire::{Malformed, Reader, Writer};
use std::borrow::Cow;
use std::ops::Range;

/// Consecutive rows of a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowsOpening {
    /// The step.
    pub step: StepId,
    /// Its first row that is opened.
    pub first: usize,
    /// How many are.
    pub count: usize,
    /// Their bytes.
    pub bytes: Vec<u8>,
    /// From the rows to the step's root.
    pub rows: Vec<Hash>,
    /// From there to the position's.
    pub steps: Vec<Hash>,
}

/// A row of a tensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WeightOpening {
    /// The tensor.
    pub table: Table,
    /// The row.
    pub row: usize,
    /// Its leaf's data.
    pub data: Vec<u8>,
    /// To the tensor's root.
    pub proof: Vec<Hash>,
}

/// Keys and values of an earlier position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PastOpening {
    /// The position.
    pub position: usize,
    /// The layer.
    pub layer: usize,
    /// Keys and values of the layer.
    pub keys_and_values: Vec<u8>,
    /// What the position's leaf is the hash of.
    pub leaf: Vec<u8>,
    /// From the leaf to the trace's root.
    pub proof: Vec<Hash>,
}

/// The row in question and its inputs.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Evidence {
    /// What the prover claims.
    pub row: Vec<u8>,
    /// Rows of earlier steps, and earlier rows of the same.
    pub rows: Vec<RowsOpening>,
    /// Rows of weights.
    pub weights: Vec<WeightOpening>,
    /// Earlier positions.
    pub past: Vec<PastOpening>,
}

fn write_table(table: Table, writer: &mut Writer) {
    let (kind, a, b) = match table {
        Table::Embedding => (0, 0, 0),
        Table::Norm(norm) => (1, norm, 0),
        Table::Linear(site) => (2, site, 0),
        Table::Bias(site) => (3, site, 0),
        Table::AdapterA(site) => (4, site, 0),
        Table::AdapterB(site) => (5, site, 0),
        Table::Router(mixture) => (6, mixture, 0),
        Table::Expert(mixture, expert, Expert::Gate) => (7, mixture, expert),
        Table::Expert(mixture, expert, Expert::Up) => (8, mixture, expert),
        Table::Expert(mixture, expert, Expert::Down) => (9, mixture, expert),
    };
    writer.byte(kind).number(a).number(b);
}

fn read_table(reader: &mut Reader<'_>) -> Result<Table, Malformed> {
    let (kind, a, b) = (reader.byte()?, reader.number()?, reader.number()?);
    if b != 0 && kind < 7 {
        return Err(Malformed("a tensor"));
    }
    Ok(match kind {
        0 if a == 0 => Table::Embedding,
        1 => Table::Norm(a),
        2 => Table::Linear(a),
        3 => Table::Bias(a),
        4 => Table::AdapterA(a),
        5 => Table::AdapterB(a),
        6 => Table::Router(a),
        7 => Table::Expert(a, b, Expert::Gate),
        8 => Table::Expert(a, b, Expert::Up),
        9 => Table::Expert(a, b, Expert::Down),
        _ => return Err(Malformed("a tensor")),
    })
}

impl Evidence {
    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.bytes(&self.row).number(self.rows.len());
        for opening in &self.rows {
            writer.number(opening.step).number(opening.first).number(opening.count);
            writer.bytes(&opening.bytes).hashes(&opening.rows).hashes(&opening.steps);
        }
        writer.number(self.weights.len());
        for opening in &self.weights {
            write_table(opening.table, writer);
            writer.number(opening.row).bytes(&opening.data).hashes(&opening.proof);
        }
        writer.number(self.past.len());
        for opening in &self.past {
            writer.number(opening.position).number(opening.layer);
            writer.bytes(&opening.keys_and_values).bytes(&opening.leaf).hashes(&opening.proof);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Evidence, Malformed> {
        let mut evidence = Evidence { row: reader.bytes()?.to_vec(), ..Evidence::default() };
        for _ in 0..reader.count(48)? {
            evidence.rows.push(RowsOpening {
                step: reader.number()?,
                first: reader.number()?,
                count: reader.number()?,
                bytes: reader.bytes()?.to_vec(),
                rows: reader.hashes()?,
                steps: reader.hashes()?,
            });
        }
        for _ in 0..reader.count(41)? {
            evidence.weights.push(WeightOpening {
                table: read_table(reader)?,
                row: reader.number()?,
                data: reader.bytes()?.to_vec(),
                proof: reader.hashes()?,
            });
        }
        for _ in 0..reader.count(40)? {
            evidence.past.push(PastOpening {
                position: reader.number()?,
                layer: reader.number()?,
                keys_and_values: reader.bytes()?.to_vec(),
                leaf: reader.bytes()?.to_vec(),
                proof: reader.hashes()?,
            });
        }
        Ok(evidence)
    }

    /// The evidence as a source of inputs, if everything in it opens what the parties agreed on before.
    pub(crate) fn open<'a>(
        &'a self,
        case: &Case,
        program: &'a Program,
        root: &Hash,
        trace: &Hash,
    ) -> Result<Opened<'a>, Missing> {
        for opening in &self.rows {
            rows_open(opening, program, root)?;
        }
        for opening in &self.weights {
            weights_open(opening, case)?;
        }
        for opening in &self.past {
            past_opens(opening, case, trace)?;
        }
        Ok(Opened { evidence: self, program })
    }
}

fn rows_open(opening: &RowsOpening, program: &Program, root: &Hash) -> Result<(), Missing> {
    let wrong = Missing("rows do not open the position's root");
    let layout = program.steps.get(opening.step).ok_or(wrong)?.layout;
    let end = opening.first.checked_add(opening.count).filter(|end| *end <= layout.rows()).ok_or(wrong)?;
    if opening.count == 0 || opening.bytes.len() != layout.bytes_of(opening.first..end).len() {
        return Err(wrong);
    }
    let size = layout.per_row * layout.element_bytes;
    let hashes: Vec<Hash> = opening.bytes.chunks(size).map(row_hash).collect();
    let step = STEPS.root_of(layout.rows(), opening.first, &hashes, &opening.rows).ok_or(wrong)?;
    let found = STEPS.root_of(program.steps.len(), opening.step, &[step], &opening.steps);
    if found == Some(*root) { Ok(()) } else { Err(wrong) }
}

fn weights_open(opening: &WeightOpening, case: &Case) -> Result<(), Missing> {
    let wrong = Missing("a row of weights does not open the digest");
    let name = opening.table.name(&case.outline).ok_or(wrong)?;
    let tensors = match (opening.table.is_adapters(), &case.adapter) {
        (false, _) => &case.base.tensors,
        (true, Some(adapter)) => &adapter.tensors,
        (true, None) => return Err(wrong),
    };
    let entry = tensors.get(&name).ok_or(wrong)?;
    let leaf = model::merkle::leaf(&opening.data);
    let found = WEIGHTS.root_of(entry.rows, opening.row, &[leaf], &opening.proof);
    if found == Some(entry.root) { Ok(()) } else { Err(wrong) }
}

fn past_opens(opening: &PastOpening, case: &Case, trace: &Hash) -> Result<(), Missing> {
    let wrong = Missing("keys and values do not open the trace");
    let digest = blake3::Hasher::new().update(&[0x10]).update(&opening.keys_and_values).finalize();
    // The token comes first in a leaf, then the layer digests.
    let at = opening.layer.checked_mul(32).and_then(|at| at.checked_add(4)).ok_or(wrong)?;
    if opening.layer >= case.base.shape.layers || opening.leaf.get(at..at + 32) != Some(digest.as_bytes()) {
        return Err(wrong);
    }
    let leaf = *blake3::Hasher::new().update(&[0x11]).update(&opening.leaf).finalize().as_bytes();
    let found = TRACE.root_of(case.positions(), opening.position, &[leaf], &opening.proof);
    if found == Some(*trace) { Ok(()) } else { Err(wrong) }
}

/// Inputs that were opened.
pub(crate) struct Opened<'a> {
    evidence: &'a Evidence,
    program: &'a Program,
}

impl Source for Opened<'_> {
    fn rows(&self, step: StepId, rows: Range<usize>) -> Result<Cow<'_, [u8]>, Missing> {
        let mut all = self.evidence.rows.iter().filter(|opening| opening.step == step);
        let layout = self.program.steps.get(step).ok_or(Missing("a step"))?.layout;
        let covers = |opening: &&RowsOpening| opening.first <= rows.start && rows.end <= opening.first + opening.count;
        let opening = all.find(covers).ok_or(Missing("rows of an earlier step"))?;
        let skip = layout.bytes_of(opening.first..rows.start).len();
        let wanted = skip..skip + layout.bytes_of(rows).len();
        opening.bytes.get(wanted).map(Cow::Borrowed).ok_or(Missing("rows of an earlier step"))
    }

    fn weights(&self, table: Table, row: usize) -> Result<Cow<'_, [u8]>, Missing> {
        let found = self.evidence.weights.iter().find(|opening| opening.table == table && opening.row == row);
        found.map(|opening| Cow::Borrowed(&opening.data[..])).ok_or(Missing("a row of weights"))
    }

    fn past(&self, position: usize, layer: usize) -> Result<Cow<'_, [u8]>, Missing> {
        let found = self.evidence.past.iter().find(|opening| opening.position == position && opening.layer == layer);
        found.map(|opening| Cow::Borrowed(&opening.keys_and_values[..])).ok_or(Missing("keys and values"))
    }
}
