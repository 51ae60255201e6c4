//! The side that stands by a receipt.

use crate::dispute::Regenerate;
use crate::dispute::evidence::{Evidence, PastOpening, RowsOpening, WeightOpening};
use crate::dispute::game::{Game, Node, Stage};
use crate::dispute::message::Message;
use crate::trace::tree::{Hash, STEPS, TRACE, Tree, WEIGHTS, left_count};
use crate::trace::{Borders, Missing, Position, Source, StepId, Table, compute, weight_row};
use model::{Adapter, Model, digest};
use std::borrow::Cow;
use std::cell::RefCell;
use std::ops::Range;

/// Stands by a receipt. What it regenerates need not give what the receipt claims: it then claims that anyway, in the hope
/// that nobody looks there.
pub struct Prover<'a> {
    leaves: Vec<Hash>,
    regenerate: Regenerate<'a>,
    model: &'a Model,
    adapter: Option<&'a Adapter>,
    position: Option<Position>,
    rows: Option<(StepId, Vec<Hash>)>,
}

impl<'a> Prover<'a> {
    /// A prover with the leaves of its trace, `regenerate` for its trace of any position, and the weights that the
    /// receipt names, to open rows of them.
    pub fn new(
        leaves: Vec<Hash>,
        regenerate: Regenerate<'a>,
        model: &'a Model,
        adapter: Option<&'a Adapter>,
    ) -> Prover<'a> {
        Prover { leaves, regenerate, model, adapter, position: None, rows: None }
    }

    /// What it says next. Call it when it is its turn.
    pub fn answer(&mut self, game: &Game<'_>) -> Result<Message, Missing> {
        match game.stage() {
            Stage::Trace => Ok(Message::Trace { root: TRACE.root(&self.leaves) }),
            Stage::Positions(node) => children(node, TRACE, &self.leaves),
            Stage::Position { position, leaf } => self.open_position(game, *position, leaf),
            Stage::Steps(node) => {
                let position = self.position.as_ref().ok_or(Missing("a position"))?;
                children(node, STEPS, position.roots())
            }
            Stage::Rows(step, node) => {
                if self.rows.as_ref().is_none_or(|(of, _)| of != step) {
                    let position = self.position.as_ref().ok_or(Missing("a position"))?;
                    self.rows = Some((*step, position.row_hashes(*step)));
                }
                let (_, rows) = self.rows.as_ref().ok_or(Missing("rows"))?;
                children(node, STEPS, rows)
            }
            Stage::Evidence { step, row, .. } => self.evidence(*step, *row).map(Message::Evidence),
            Stage::Over(_) => Err(Missing("it is over")),
        }
    }

    fn open_position(&mut self, game: &Game<'_>, position: usize, leaf: &Hash) -> Result<Message, Missing> {
        let mut own = (self.regenerate)(position, None)?;
        let program = own.program.clone();
        let token = game.case().tokens[position + 1];
        let claims = [
            (Some(program.leaf), leaf.to_vec()),
            (program.border, 1u32.to_le_bytes().to_vec()),
            (program.drawn, token.to_le_bytes().to_vec()),
        ];
        for (step, row) in &claims {
            if let Some(step) = *step
                && own.value(step) != row
            {
                own = own.forged(step, |bytes| bytes.copy_from_slice(row));
            }
        }
        let proof = |step: Option<StepId>| step.map_or(vec![], |step| STEPS.prove(own.roots(), &(step..step + 1)));
        let Borders { top_k, top_p } = program.borders;
        let message = Message::Position {
            root: own.root(),
            borders: Borders { top_k, top_p },
            leaf: proof(Some(program.leaf)),
            border: proof(program.border),
            drawn: proof(program.drawn),
        };
        self.position = Some(own);
        Ok(message)
    }

    fn evidence(&mut self, step: StepId, row: usize) -> Result<Evidence, Missing> {
        let position = self.position.as_ref().ok_or(Missing("a position"))?;
        let recorder = Recorder {
            position,
            model: self.model,
            adapter: self.adapter,
            regenerate: RefCell::new(&mut self.regenerate),
            needs: RefCell::default(),
        };
        compute(&position.program, step, row, &recorder, &mut vec![])?;
        let needs = recorder.needs.into_inner();
        let mut evidence = Evidence { row: position.rows(step, row..row + 1)?.to_vec(), ..Evidence::default() };
        for (step, rows) in merged(needs.rows) {
            evidence.rows.push(RowsOpening {
                step,
                first: rows.start,
                count: rows.len(),
                bytes: position.rows(step, rows.clone())?.to_vec(),
                rows: STEPS.prove(&position.row_hashes(step), &rows),
                steps: STEPS.prove(position.roots(), &(step..step + 1)),
            });
        }
        for (table, row) in needs.weights {
            let leaves = tensor_leaves(self.model, self.adapter, &position.program.outline, table)?;
            evidence.weights.push(WeightOpening {
                table,
                row,
                data: weight_row(self.model, self.adapter, table, row)?,
                proof: WEIGHTS.prove(&leaves, &(row..row + 1)),
            });
        }
        for (earlier, layer, keys_and_values, leaf) in needs.past {
            let proof = TRACE.prove(&self.leaves, &(earlier..earlier + 1));
            evidence.past.push(PastOpening { position: earlier, layer, keys_and_values, leaf, proof });
        }
        Ok(evidence)
    }
}

fn tensor_leaves(
    model: &Model,
    adapter: Option<&Adapter>,
    outline: &crate::trace::Outline,
    table: Table,
) -> Result<Vec<Hash>, Missing> {
    let name = table.name(outline).ok_or(Missing("a tensor"))?;
    let leaves = match (table.is_adapters(), adapter) {
        (true, Some(adapter)) => digest::adapter_leaves(&model.plan, &adapter.sites, &name, 1),
        (true, None) => None,
        (false, _) => digest::tensor_leaves(&model.shape, &model.plan, &model.weights, &name, 1),
    };
    leaves.ok_or(Missing("a tensor"))
}

fn children(node: &Node, tree: Tree, leaves: &[Hash]) -> Result<Message, Missing> {
    let under = leaves.get(node.start..node.start + node.count).ok_or(Missing("leaves"))?;
    let (left, right) = under.split_at(left_count(node.count));
    Ok(Message::Children { left: tree.root(left), right: tree.root(right) })
}

/// Ranges of one step that touch become one.
fn merged(mut rows: Vec<(StepId, Range<usize>)>) -> Vec<(StepId, Range<usize>)> {
    rows.sort_by_key(|(step, range)| (*step, range.start));
    let mut merged: Vec<(StepId, Range<usize>)> = vec![];
    for (step, range) in rows {
        match merged.last_mut() {
            Some((last, joined)) if *last == step && range.start <= joined.end => {
                joined.end = joined.end.max(range.end)
            }
            _ => merged.push((step, range)),
        }
    }
    merged
}

/// Position, layer, its keys and values, its leaf's data.
type Past = (usize, usize, Vec<u8>, Vec<u8>);

#[derive(Default)]
struct Needs {
    rows: Vec<(StepId, Range<usize>)>,
    weights: Vec<(Table, usize)>,
    past: Vec<Past>,
}

/// Gives the prover's own values and writes down what was asked for.
struct Recorder<'a, 'r> {
    position: &'a Position,
    model: &'a Model,
    adapter: Option<&'a Adapter>,
    regenerate: RefCell<&'a mut Regenerate<'r>>,
    needs: RefCell<Needs>,
}

impl Source for Recorder<'_, '_> {
    fn rows(&self, step: StepId, rows: Range<usize>) -> Result<Cow<'_, [u8]>, Missing> {
        self.needs.borrow_mut().rows.push((step, rows.clone()));
        self.position.rows(step, rows).map(Cow::Borrowed)
    }

    fn weights(&self, table: Table, row: usize) -> Result<Cow<'_, [u8]>, Missing> {
        let mut needs = self.needs.borrow_mut();
        if !needs.weights.contains(&(table, row)) {
            needs.weights.push((table, row));
        }
        weight_row(self.model, self.adapter, table, row).map(Cow::Owned)
    }

    fn past(&self, position: usize, layer: usize) -> Result<Cow<'_, [u8]>, Missing> {
        let earlier = (self.regenerate.borrow_mut())(position, None)?;
        let row = earlier.layer_row(layer)?;
        self.needs.borrow_mut().past.push((position, layer, row.clone(), earlier.leaf_data()));
        Ok(Cow::Owned(row))
    }
}
