//! The rules: whose turn it is, what may be said, and who is right in the end. Both parties and the referee run it.

use crate::dispute::case::Case;
use crate::dispute::evidence::Evidence;
use crate::dispute::message::Message;
use crate::trace::tree::{Hash, STEPS, TRACE, Tree, left_count, row_hash};
use crate::trace::{Borders, Program, StepId, compute};

/// A side of a dispute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Party {
    /// Stands by the receipt.
    Prover,
    /// Doubts it.
    Challenger,
}

impl Party {
    /// The other one.
    pub fn other(self) -> Party {
        match self {
            Party::Prover => Party::Challenger,
            Party::Challenger => Party::Prover,
        }
    }
}

/// Why it was decided so.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// The row was recomputed: it is, or is not, what the prover says.
    Computed {
        /// Absolute position.
        position: usize,
        /// Step of the position.
        step: StepId,
        /// The step in words.
        what: String,
        /// Row of the step.
        row: usize,
    },
    /// A message that the rules do not allow, or that does not fit what its sender said before.
    Foul(&'static str),
    /// Tokens and settings alone show it.
    Plain(String),
    /// The party whose turn it was said nothing.
    Silence,
}

/// Who is right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ruling {
    /// The party that is.
    pub winner: Party,
    /// Why.
    pub why: Why,
}

/// A part of a tree, walked down from the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Node {
    /// First leaf under it.
    pub start: usize,
    /// Leaves under it.
    pub count: usize,
    /// Its hash.
    pub hash: Hash,
    /// Its sides, once said.
    pub children: Option<(Hash, Hash)>,
}

impl Node {
    fn root(count: usize, hash: Hash) -> Node {
        Node { start: 0, count, hash, children: None }
    }
}

/// Where a dispute stands.
#[derive(Clone, PartialEq, Debug)]
pub enum Stage {
    /// The prover opens the trace's root.
    Trace,
    /// Down to a position.
    Positions(Node),
    /// The prover opens the position.
    Position {
        /// Which.
        position: usize,
        /// Its leaf.
        leaf: Hash,
    },
    /// Down to a step.
    Steps(Node),
    /// Down to a row of a step.
    Rows(StepId, Node),
    /// The prover shows the row and its inputs.
    Evidence {
        /// The step.
        step: StepId,
        /// The row.
        row: usize,
        /// The row's hash.
        hash: Hash,
    },
    /// It is decided.
    Over(Ruling),
}

/// A dispute under way.
pub struct Game<'a> {
    case: &'a Case,
    stage: Stage,
    trace: Hash,
    /// The position's program and the root over its steps.
    position: Option<(Program, Hash)>,
}

impl<'a> Game<'a> {
    /// At its start. It is over at once if tokens and settings alone show that the receipt is wrong.
    pub fn new(case: &'a Case) -> Game<'a> {
        let stage = match case.plain_fault() {
            Some(fault) => Stage::Over(Ruling { winner: Party::Challenger, why: Why::Plain(fault.to_string()) }),
            None => Stage::Trace,
        };
        Game { case, stage, trace: [0; 32], position: None }
    }

    /// Where it stands.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// What is disputed.
    pub fn case(&self) -> &'a Case {
        self.case
    }

    /// The steps of the disputed position, once it is known.
    pub fn program(&self) -> Option<&Program> {
        self.position.as_ref().map(|(program, _)| program)
    }

    /// Who is right, once it is decided.
    pub fn ruling(&self) -> Option<&Ruling> {
        match &self.stage {
            Stage::Over(ruling) => Some(ruling),
            _ => None,
        }
    }

    /// Whose turn it is; none when it is over.
    pub fn turn(&self) -> Option<Party> {
        match &self.stage {
            Stage::Over(_) => None,
            Stage::Positions(node) | Stage::Steps(node) | Stage::Rows(_, node) if node.children.is_some() => {
                Some(Party::Challenger)
            }
            _ => Some(Party::Prover),
        }
    }

    /// The party whose turn it is said nothing in time.
    pub fn forfeit(&mut self) {
        if let Some(party) = self.turn() {
            self.stage = Stage::Over(Ruling { winner: party.other(), why: Why::Silence });
        }
    }

    /// Takes a message of the party whose turn it is. A message that breaks the rules decides against its sender.
    pub fn take(&mut self, message: &Message) {
        let Some(party) = self.turn() else { return };
        let stage = std::mem::replace(&mut self.stage, Stage::Trace);
        self.stage = match self.after(stage, message) {
            Ok(stage) => stage,
            Err(foul) => Stage::Over(Ruling { winner: party.other(), why: Why::Foul(foul) }),
        };
    }

    fn after(&mut self, stage: Stage, message: &Message) -> Result<Stage, &'static str> {
        match (stage, message) {
            (Stage::Trace, Message::Trace { root }) => {
                if self.case.salted(root) != self.case.receipt.claims.trace {
                    return Err("this is not the root that the receipt binds");
                }
                self.trace = *root;
                Ok(settle(Node::root(self.case.positions(), *root), Stage::Positions, position))
            }
            (Stage::Positions(node), message) => Ok(settle(down(node, TRACE, message)?, Stage::Positions, position)),
            (Stage::Position { position, leaf }, Message::Position { root, borders, leaf: proof, border, drawn }) => {
                let claims = Claims { root: *root, borders: *borders, leaf, proof, border, drawn };
                self.open_position(position, &claims)
            }
            (Stage::Steps(node), message) => {
                let node = down(node, STEPS, message)?;
                if node.count > 1 { Ok(Stage::Steps(node)) } else { self.rows_of(node.start, node.hash) }
            }
            (Stage::Rows(step, node), message) => {
                let last = |node: Node| Stage::Evidence { step, row: node.start, hash: node.hash };
                Ok(settle(down(node, STEPS, message)?, |node| Stage::Rows(step, node), last))
            }
            (Stage::Evidence { step, row, hash }, Message::Evidence(evidence)) => {
                if row_hash(&evidence.row) != hash {
                    return Err("this is not the row that was asked for");
                }
                let computed = self.computed(step, row, evidence)?;
                let program = self.program().ok_or("no position is open")?;
                let winner = if computed == evidence.row { Party::Prover } else { Party::Challenger };
                let what = program.describe(step);
                let why = Why::Computed { position: program.position, step, what, row };
                Ok(Stage::Over(Ruling { winner, why }))
            }
            _ => Err("this message is not the one that is due"),
        }
    }

    /// What the referee computes from a prover's evidence, if it is due: the row in question. For whoever shows it.
    ///
    /// # Errors
    /// No row is in question, or the evidence does not open what was agreed on.
    pub fn recompute(&self, evidence: &Evidence) -> Result<Vec<u8>, &'static str> {
        match self.stage {
            Stage::Evidence { step, row, .. } => self.computed(step, row, evidence),
            _ => Err("no row is in question"),
        }
    }

    fn computed(&self, step: StepId, row: usize, evidence: &Evidence) -> Result<Vec<u8>, &'static str> {
        let (program, root) = self.position.as_ref().ok_or("no position is open")?;
        let opened = evidence.open(self.case, program, root, &self.trace).map_err(|missing| missing.0)?;
        let mut computed = vec![];
        compute(program, step, row, &opened, &mut computed).map_err(|missing| missing.0)?;
        Ok(computed)
    }

    fn open_position(&mut self, position: usize, claims: &Claims<'_>) -> Result<Stage, &'static str> {
        let vocabulary = self.case.base.shape.vocabulary;
        let within = |border: Option<u32>| border.is_none_or(|id| (id as usize) < vocabulary);
        if !within(claims.borders.top_k) || !within(claims.borders.top_p) {
            return Err("a border is not in the vocabulary");
        }
        let program = self.case.program(position, claims.borders);
        let shows = |step: Option<StepId>, row: &[u8], proof: &[Hash]| match step {
            None => proof.is_empty(),
            Some(step) => STEPS.root_of(program.steps.len(), step, &[row_hash(row)], proof) == Some(claims.root),
        };
        if !shows(Some(program.leaf), &claims.leaf, claims.proof) {
            return Err("the position does not give the leaf that the receipt binds");
        }
        if !shows(program.border, &1u32.to_le_bytes(), claims.border) {
            return Err("the borders are not shown to be right");
        }
        let token = self.case.tokens[position + 1];
        if !shows(program.drawn, &token.to_le_bytes(), claims.drawn) {
            return Err("the position does not give the token that the receipt binds");
        }
        let steps = program.steps.len();
        self.position = Some((program, claims.root));
        Ok(Stage::Steps(Node::root(steps, claims.root)))
    }

    fn rows_of(&self, step: StepId, hash: Hash) -> Result<Stage, &'static str> {
        let program = self.program().ok_or("no position is open")?;
        let rows = program.steps.get(step).ok_or("there is no such step")?.layout.rows();
        let last = |node: Node| Stage::Evidence { step, row: node.start, hash: node.hash };
        Ok(settle(Node::root(rows, hash), |node| Stage::Rows(step, node), last))
    }
}

/// What a prover says about a position.
struct Claims<'a> {
    root: Hash,
    borders: Borders,
    leaf: Hash,
    proof: &'a [Hash],
    border: &'a [Hash],
    drawn: &'a [Hash],
}

fn position(node: Node) -> Stage {
    Stage::Position { position: node.start, leaf: node.hash }
}

/// A node of one leaf is the end of the way down.
fn settle(node: Node, go_on: impl FnOnce(Node) -> Stage, end: impl FnOnce(Node) -> Stage) -> Stage {
    if node.count > 1 { go_on(node) } else { end(node) }
}

/// One message further down.
fn down(node: Node, tree: Tree, message: &Message) -> Result<Node, &'static str> {
    match (node.children, message) {
        (None, Message::Children { left, right }) if tree.node(left, right) == node.hash => {
            Ok(Node { children: Some((*left, *right)), ..node })
        }
        (None, Message::Children { .. }) => Err("these are not the sides of the node that is looked at"),
        (Some((left, right)), Message::Turn { right: to_the_right }) => {
            let middle = left_count(node.count);
            let (start, count, hash) = if *to_the_right {
                (node.start + middle, node.count - middle, right)
            } else {
                (node.start, middle, left)
            };
            Ok(Node { start, count, hash, children: None })
        }
        _ => Err("this message is not the one that is due"),
    }
}
