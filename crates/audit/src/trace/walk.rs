//! Regenerates a position from weights.

use crate::trace::compute::compute;
use crate::trace::draw;
use crate::trace::drawing::Draw;
use crate::trace::history::History;
use crate::trace::outline::Outline;
use crate::trace::position::Position;
use crate::trace::program::{Borders, Expert, Operation, Program, StepId};
use crate::trace::source::{Missing, Source, Table};
use exact::matrix::Matrix;
use model::{Adapter, Model};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// All values of `token` at `position`, from weights and the keys and values before it. `borders` are somebody else's
/// where settings cut the rank; without them they are found.
pub fn regenerate(
    model: &Model,
    adapter: Option<&Adapter>,
    history: &History,
    position: usize,
    token: u32,
    draw: Option<Draw>,
    borders: Option<Borders>,
) -> Result<Position, Missing> {
    let outline = Arc::new(Outline::of(model, adapter));
    let given = borders.unwrap_or_default();
    let mut program = Program::new(&outline, position, token, draw.clone(), given);
    let mut memory = Memory { model, adapter, history, program: &program, values: vec![] };
    let mut found = None;
    for step in 0..program.steps.len() {
        if program.steps[step].operation == Operation::Tallies && borders.is_none() {
            let logits = draw::logits(&memory.values[program.steps[step].sources[0]]);
            found = draw.as_ref().map(|draw| draw::borders(&logits, draw));
            break;
        }
        memory.step(step)?;
    }
    let mut values = memory.values;
    if let Some(found) = found {
        program.borders = found;
        let mut memory = Memory { model, adapter, history, program: &program, values };
        for step in memory.values.len()..program.steps.len() {
            memory.step(step)?;
        }
        values = memory.values;
    }
    Ok(Position::new(program, values))
}

/// Values so far, and the weights.
struct Memory<'a> {
    model: &'a Model,
    adapter: Option<&'a Adapter>,
    history: &'a History,
    program: &'a Program,
    values: Vec<Vec<u8>>,
}

impl Memory<'_> {
    fn step(&mut self, step: StepId) -> Result<(), Missing> {
        let layout = self.program.steps[step].layout;
        self.values.push(Vec::with_capacity(layout.bytes()));
        let mut row_bytes = vec![];
        for row in 0..layout.rows() {
            row_bytes.clear();
            compute(self.program, step, row, self, &mut row_bytes)?;
            self.values[step].extend_from_slice(&row_bytes);
        }
        Ok(())
    }
}

impl Source for Memory<'_> {
    fn rows(&self, step: StepId, rows: Range<usize>) -> Result<Cow<'_, [u8]>, Missing> {
        let value = self.values.get(step).ok_or(Missing("a step"))?;
        let bytes = self.program.steps[step].layout.bytes_of(rows);
        value.get(bytes).map(Cow::Borrowed).ok_or(Missing("rows"))
    }

    fn weights(&self, table: Table, row: usize) -> Result<Cow<'_, [u8]>, Missing> {
        weight_row(self.model, self.adapter, table, row).map(Cow::Owned)
    }

    fn weight_scale(&self, table: Table, row: usize) -> Result<f32, Missing> {
        weight_scale(self.model, self.adapter, table, row)
    }

    fn past(&self, position: usize, layer: usize) -> Result<Cow<'_, [u8]>, Missing> {
        self.history.row(position, layer).map(Cow::Borrowed).ok_or(Missing("keys and values"))
    }
}

fn matrix<'a>(model: &'a Model, adapter: Option<&'a Adapter>, table: Table) -> Option<&'a Matrix> {
    let weights = &model.weights;
    match table {
        Table::Linear(site) => Some(&weights.linears.get(site)?.matrix),
        Table::AdapterB(site) => Some(&adapter?.sites.get(site)?.as_ref()?.b),
        Table::Expert(mixture, expert, part) => {
            let expert = weights.mixtures.get(mixture)?.experts.get(expert)?;
            Some(match part {
                Expert::Gate => &expert.gate,
                Expert::Up => &expert.up,
                Expert::Down => &expert.down,
            })
        }
        _ => None,
    }
}

fn weight_scale(model: &Model, adapter: Option<&Adapter>, table: Table, row: usize) -> Result<f32, Missing> {
    let scale = || match table {
        Table::AdapterA(site) => adapter?.sites.get(site)?.as_ref()?.a.scales().get(row).copied(),
        Table::Router(mixture) => Some(model.weights.mixtures.get(mixture)?.router.row(row).1),
        _ => matrix(model, adapter, table)?.scales().get(row).copied(),
    };
    scale().ok_or(Missing("a row of weights"))
}

/// The data of a row's leaf (docs/digests.md).
pub(crate) fn weight_row(
    model: &Model,
    adapter: Option<&Adapter>,
    table: Table,
    row: usize,
) -> Result<Vec<u8>, Missing> {
    let weights = &model.weights;
    let floats = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let data = || -> Option<Vec<u8>> {
        Some(match table {
            Table::Embedding => {
                let (bits, hidden) = (&weights.embedding.bits, weights.embedding.hidden);
                bits.get(row * hidden..(row + 1) * hidden)?.iter().flat_map(|bits| bits.to_le_bytes()).collect()
            }
            Table::Norm(norm) => floats(weights.norms.get(norm)?),
            Table::Bias(site) => floats(weights.linears.get(site)?.bias.as_ref()?),
            Table::AdapterA(site) => {
                let a = &adapter?.sites.get(site)?.as_ref()?.a;
                let mut data = a.scales().get(row)?.to_le_bytes().to_vec();
                data.extend(a.row(row).iter().map(|level| *level as u8));
                data
            }
            Table::Router(mixture) => {
                let router = &weights.mixtures.get(mixture)?.router;
                let (levels, scale) = (row < router.experts()).then(|| router.row(row))?;
                let mut data = scale.to_le_bytes().to_vec();
                data.extend(levels.iter().flat_map(|level| level.to_le_bytes()));
                data
            }
            _ => {
                let matrix = matrix(model, adapter, table)?;
                let mut levels = vec![0i8; matrix.inputs()];
                (row < matrix.outputs()).then(|| matrix.row(row, &mut levels))?;
                let mut data = matrix.scales()[row].to_le_bytes().to_vec();
                data.extend(levels.iter().map(|level| *level as u8));
                data
            }
        })
    };
    data().ok_or(Missing("a row of weights"))
}
