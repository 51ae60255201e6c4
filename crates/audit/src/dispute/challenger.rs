//! The side that doubts.

use crate::dispute::Regenerate;
use crate::dispute::game::{Game, Node, Stage};
use crate::dispute::message::Message;
use crate::trace::tree::{Hash, STEPS, left_count};
use crate::trace::{Missing, Position};

/// Doubts one position: compares each side it is shown with its own and walks to the first difference.
pub struct Challenger<'a> {
    position: usize,
    regenerate: Regenerate<'a>,
    own: Option<Position>,
    rows: Option<(usize, Vec<Hash>)>,
}

impl<'a> Challenger<'a> {
    /// Doubts `position`; `regenerate` gives its own trace of any position.
    pub fn new(position: usize, regenerate: Regenerate<'a>) -> Challenger<'a> {
        Challenger { position, regenerate, own: None, rows: None }
    }

    /// What it says next. Call it when it is its turn.
    pub fn answer(&mut self, game: &Game<'_>) -> Result<Message, Missing> {
        let right = match game.stage() {
            Stage::Positions(node) => self.position >= node.start + left_count(node.count),
            Stage::Steps(node) => {
                let program = game.program().ok_or(Missing("a program"))?;
                if self.own.is_none() {
                    self.own = Some((self.regenerate)(program.position, Some(program.borders))?);
                }
                let own = self.own.as_ref().ok_or(Missing("a position"))?;
                left_agrees(node, own.roots())?
            }
            Stage::Rows(step, node) => {
                if self.rows.as_ref().is_none_or(|(of, _)| of != step) {
                    let own = self.own.as_ref().ok_or(Missing("a position"))?;
                    self.rows = Some((*step, own.row_hashes(*step)));
                }
                let (_, rows) = self.rows.as_ref().ok_or(Missing("rows"))?;
                left_agrees(node, rows)?
            }
            _ => return Err(Missing("it is not the challenger's turn")),
        };
        Ok(Message::Turn { right })
    }
}

/// Whether the left side is what this party has there itself: then the first difference is on the right.
fn left_agrees(node: &Node, own: &[Hash]) -> Result<bool, Missing> {
    let left = own.get(node.start..node.start + left_count(node.count)).ok_or(Missing("leaves"))?;
    Ok(node.children.is_some_and(|(said, _)| said == STEPS.root(left)))
}
