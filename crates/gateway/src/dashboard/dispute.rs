//! A dispute, walked: a liar made up on the spot stands by an answer, this node doubts it, and a referee without the model
//! decides (docs/disputes.md). All three play here, in one process, by the code that `lockstep dispute` runs; nothing is signed
//! with the node's key, and nothing leaves the server.
//!
//! It computes beside the engine, in a thread of its own: one at a time, only so long, only for answers of some length.

use super::check::{Cheat, adapter, forge, other, trace};
use crate::app::{App, random};
use crate::error::ApiError;
use audit::dispute::{Case, Challenger, Evidence, Game, Message, Node, Party, Prover, Ruling, Stage};
use audit::trace::tree::{Hash, STEPS, TRACE, left_count};
use audit::trace::{Borders, History, Map, Missing, Operation, Position, Run, regenerate};
use engine::AdapterHandle;
use model::{Adapter, Model, digest};
use receipt::{Bundle, Lie, Opening, SigningKey, sign_as_if_true};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;

/// Prompt and answer of what is disputed here, at most: its keys and values are held in memory once more.
const TOKENS_MAX: usize = 2048;
/// How long a dispute may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Who lies, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Liar {
    /// Nobody: the doubt is false.
    Nobody,
    /// The node exchanged a token of the answer.
    Token,
    /// The node got one dot product wrong by one.
    Sum,
    /// The node computed with another adapter, or with none.
    Swap(String),
}

/// Two messages of the way down: what is looked at, and what is looked at next.
pub(crate) struct Round {
    pub(crate) looks_at: String,
    /// What the node says that the left half hashes to, or the whole if it is not halved.
    pub(crate) node: Hash,
    /// What the doubter has there itself; none where it knows nothing of its own.
    pub(crate) doubter: Option<Hash>,
    /// What came of it.
    pub(crate) then: String,
    pub(crate) bytes: usize,
}

/// A dot product.
pub(crate) struct Dot {
    pub(crate) levels: Vec<i32>,
    pub(crate) weights: Vec<i32>,
}

/// What the referee is shown, and what it computes.
pub(crate) struct Judged {
    /// The operation, and where it belongs.
    pub(crate) operation: Operation,
    pub(crate) what: String,
    pub(crate) part: String,
    pub(crate) row: usize,
    pub(crate) claimed: Vec<u8>,
    /// By the referee.
    pub(crate) computed: Result<Vec<u8>, &'static str>,
    /// By the doubter.
    pub(crate) doubted: Vec<u8>,
    pub(crate) dot: Option<Dot>,
    /// Whether the dot product's levels have 16 bits.
    pub(crate) wide: bool,
    /// Bytes of the evidence, and how long the referee took.
    pub(crate) bytes: usize,
    pub(crate) took: Duration,
}

/// A dispute from its beginning to its end.
pub(crate) struct Walked {
    pub(crate) rounds: Vec<Round>,
    pub(crate) judged: Option<Judged>,
    pub(crate) ruling: Ruling,
    /// Messages, and their bytes.
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    /// The position in doubt.
    pub(crate) position: usize,
    pub(crate) took: Duration,
}

/// A case, and what its sides compute with.
struct Scene {
    bundle: Bundle,
    /// What the model that the receipt names leaves behind.
    honest: Vec<Hash>,
    position: usize,
    liar: Liar,
    named: Option<Arc<Adapter>>,
    /// What the liar computed with instead.
    own: Option<Option<Arc<Adapter>>>,
}

/// Makes the lie and disputes it.
pub(crate) async fn walk(
    app: &Arc<App>,
    bundle: Bundle,
    liar: Liar,
    turn: OwnedSemaphorePermit,
) -> Result<(Walked, Bundle), ApiError> {
    let tokens = bundle.opening.prompt.len() + bundle.opening.output.len();
    if tokens > TOKENS_MAX || bundle.opening.output.is_empty() {
        let message = format!(
            "answers of at most {TOKENS_MAX} tokens with their prompts are disputed here: `lockstep dispute` takes longer ones"
        );
        return Err(ApiError::invalid("id", message));
    }
    let scene = scene(app, bundle, liar).await?;
    let own = app.clone();
    let walked = tokio::task::spawn_blocking(move || {
        // The permit ends with the work, whoever still waits for it.
        let _turn = turn;
        play(&own, &scene).map(|walked| (walked, scene.bundle))
    });
    walked.await.map_err(|error| ApiError::server(format!("the dispute broke off: {error}")))?
}

async fn scene(app: &Arc<App>, bundle: Bundle, liar: Liar) -> Result<Scene, ApiError> {
    let claims = bundle.check().map_err(|error| ApiError::server(error.to_string()))?.claims;
    if let Some(what) = other(app, &claims) {
        return Err(ApiError::conflict(what));
    }
    let named = fetch(app, adapter(app, &claims)?).await?;
    let middle = bundle.opening.prompt.len() + bundle.opening.output.len() / 2 - 1;
    let (bundle, own) = match &liar {
        Liar::Nobody => (bundle, None),
        Liar::Token => (forge(app, &bundle, &Cheat::Lie(Lie::Answer)).await?, None),
        Liar::Sum => {
            let mut opening = bundle.opening.clone();
            // Whatever its trace would be: it only must not be the true one.
            opening.leaves.get_mut(middle).into_iter().for_each(|leaf| leaf[0] ^= 1);
            let key = SigningKey::from_bytes(&random()?);
            (sign_as_if_true(&claims, opening, &key), None)
        }
        Liar::Swap(name) => {
            let own = fetch(app, app.find(name)?).await?;
            (forge(app, &bundle, &Cheat::Swap(name.clone())).await?, Some(own))
        }
    };
    let honest = trace(app, &claims, &bundle.opening).await?;
    let differs = bundle.opening.leaves.iter().zip(&honest).position(|(claimed, own)| claimed != own);
    Ok(Scene { position: differs.unwrap_or(middle).min(honest.len() - 1), bundle, honest, liar, named, own })
}

async fn fetch(app: &Arc<App>, handle: Option<Arc<AdapterHandle>>) -> Result<Option<Arc<Adapter>>, ApiError> {
    let Some(handle) = handle else { return Ok(None) };
    let app = app.clone();
    let fetched = tokio::task::spawn_blocking(move || app.engine.fetch_adapter(&handle)).await;
    let fetched = fetched.map_err(|error| ApiError::server(error.to_string()))?;
    fetched.map(Some).map_err(|error| ApiError::adapter(&error))
}

/// What one side computes with.
struct Side<'a> {
    model: &'a Model,
    adapter: Option<&'a Adapter>,
    history: History,
    case: &'a Case,
    until: Instant,
}

/// What is said when the time is over.
const LATE: Missing = Missing("the time is over");

impl Side<'_> {
    fn position(&self, position: usize, borders: Option<Borders>) -> Result<Position, Missing> {
        if Instant::now() > self.until {
            return Err(LATE);
        }
        let token = *self.case.tokens.get(position).ok_or(Missing("a position"))?;
        let draw = self.case.draw(position);
        regenerate(self.model, self.adapter, &self.history, position, token, draw, borders)
    }
}

fn play(app: &App, scene: &Scene) -> Result<Walked, ApiError> {
    let started = Instant::now();
    let until = started + DEADLINE;
    let (model, named) = (app.engine.model(), scene.named.as_deref());
    let manifest = digest::manifest(&model.shape, &model.plan, &model.weights, model.activations, 1);
    let adapter = named.map(|named| digest::adapter_manifest(&model.plan, &named.sites, 1));
    let case = Case::read(&scene.bundle, &manifest, adapter.as_deref(), Some(app.engine.text()));
    let case = case.map_err(|error| ApiError::conflict(error.to_string()))?;
    let computed = &case.tokens[..case.positions()];
    let side = |adapter| -> Result<Side<'_>, ApiError> {
        let run = Run { model: model.clone(), adapter, isa: app.engine.config().isa, threads: 1 };
        let history = run.history(computed).map_err(|error| ApiError::server(error.to_string()))?;
        Ok(Side { model, adapter, history, case: &case, until })
    };
    let honest = side(named)?;
    let own = scene.own.as_ref().map(|own| side(own.as_deref())).transpose()?;
    let lying = own.as_ref().unwrap_or(&honest);
    let target = scene.position;
    let lie = |position: usize, borders: Option<Borders>| -> Result<Position, Missing> {
        let true_one = lying.position(position, borders)?;
        let is_forged = scene.liar == Liar::Sum && position == target;
        Ok(if is_forged { one_more(true_one) } else { true_one })
    };
    let leaves = scene.bundle.opening.leaves.clone();
    let mut prover = Prover::new(leaves, Box::new(lie), model, named);
    let mut challenger = Challenger::new(target, Box::new(|position, borders| honest.position(position, borders)));
    let mut walk = Walk { scene, honest: &honest, own: None, rounds: vec![], judged: None };
    let (mut game, mut messages, mut bytes) = (Game::new(&case), 0, 0);
    while let Some(party) = game.turn() {
        let said = match party {
            Party::Prover => prover.answer(&game),
            Party::Challenger => challenger.answer(&game),
        };
        match said {
            Ok(message) => {
                let size = message.to_bytes().len();
                (messages, bytes) = (messages + 1, bytes + size);
                walk.hear(&game, &message, size).map_err(failed)?;
                game.take(&message);
            }
            Err(missing) if missing == LATE => return Err(failed(missing)),
            Err(_) => game.forfeit(),
        }
    }
    let ruling = game.ruling().cloned().ok_or_else(|| ApiError::server("nothing was decided"))?;
    let (rounds, judged) = (walk.rounds, walk.judged);
    Ok(Walked { rounds, judged, ruling, messages, bytes, position: target, took: started.elapsed() })
}

fn failed(missing: Missing) -> ApiError {
    if missing == LATE { ApiError::deadline(DEADLINE.as_secs()) } else { ApiError::server(missing.to_string()) }
}

/// The position with one dot product in the middle of the model wrong by one.
fn one_more(position: Position) -> Position {
    let steps = &position.program.steps;
    let is_sum = |step: &usize| matches!(steps[*step].operation, Operation::Sums(Map::Site(_)));
    let sums: Vec<usize> = (0..steps.len()).filter(is_sum).collect();
    let Some(step) = sums.get(sums.len() / 2).copied() else { return position };
    let middle = steps[step].layout.rows() / 2;
    let at = steps[step].layout.bytes_of(middle..middle + 1).start;
    position.forged(step, |bytes| {
        if let Some(sum) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<4>()) {
            *sum = i32::from_le_bytes(*sum).wrapping_add(1).to_le_bytes();
        }
    })
}

/// Listens to both sides.
struct Walk<'a> {
    scene: &'a Scene,
    honest: &'a Side<'a>,
    /// The position in doubt as the doubter has it.
    own: Option<Position>,
    rounds: Vec<Round>,
    judged: Option<Judged>,
}

impl Walk<'_> {
    /// Notes a message before it is taken.
    fn hear(&mut self, game: &Game<'_>, message: &Message, bytes: usize) -> Result<(), Missing> {
        match (game.stage(), message) {
            (Stage::Trace, Message::Trace { root }) => {
                let (looks_at, own) =
                    (format!("all {} positions", self.honest.case.positions()), TRACE.root(&self.scene.honest));
                let then = "the root that the receipt binds".to_owned();
                self.rounds.push(Round { looks_at, node: *root, doubter: Some(own), then, bytes });
            }
            (Stage::Positions(node) | Stage::Steps(node) | Stage::Rows(_, node), Message::Children { left, .. }) => {
                let doubter = self.left(game, node);
                let looks_at = self.looks_at(game, node);
                self.rounds.push(Round { looks_at, node: *left, doubter, then: String::new(), bytes });
            }
            (_, Message::Turn { right }) => {
                if let Some(last) = self.rounds.last_mut() {
                    last.then = if *right { "the same: go right" } else { "not the same: go left" }.to_owned();
                    if matches!(game.stage(), Stage::Positions(_)) {
                        last.then = format!(
                            "position {} is on the {}",
                            self.scene.position,
                            if *right { "right" } else { "left" }
                        );
                    }
                    last.bytes += bytes;
                }
            }
            (Stage::Position { position, .. }, Message::Position { root, borders, .. }) => {
                let own = self.honest.position(*position, Some(*borders))?;
                let looks_at = format!("position {position}: all {} steps", own.program.steps.len());
                let then = "opened".to_owned();
                self.rounds.push(Round { looks_at, node: *root, doubter: Some(own.root()), then, bytes });
                self.own = Some(own);
            }
            (Stage::Evidence { step, row, hash }, Message::Evidence(evidence)) => {
                let own = self.own.as_ref().ok_or(Missing("a position"))?;
                let doubter = own.row_hashes(*step).get(*row).copied();
                let looks_at = format!("row {row} of step {step}");
                let then = "shown to the referee, with all it is computed from".to_owned();
                self.rounds.push(Round { looks_at, node: *hash, doubter, then, bytes });
                self.judged = Some(judge(game, own, (*step, *row), evidence, bytes)?);
            }
            _ => {}
        }
        Ok(())
    }

    /// What the doubter has on the left of a node.
    fn left(&self, game: &Game<'_>, node: &Node) -> Option<Hash> {
        let left = node.start..node.start + left_count(node.count);
        match game.stage() {
            Stage::Positions(_) => Some(TRACE.root(self.scene.honest.get(left)?)),
            Stage::Steps(_) => Some(STEPS.root(self.own.as_ref()?.roots().get(left)?)),
            Stage::Rows(step, _) => Some(STEPS.root(self.own.as_ref()?.row_hashes(*step).get(left)?)),
            _ => None,
        }
    }

    fn looks_at(&self, game: &Game<'_>, node: &Node) -> String {
        let (first, last) = (node.start, node.start + node.count - 1);
        match game.stage() {
            Stage::Positions(_) => format!("positions {first} to {last}"),
            Stage::Steps(_) => {
                let part = |step| game.program().map_or(String::new(), |program| super::steps::part(program, step));
                let (from, to) = (part(first), part(last));
                let parts = if from == to { from } else { format!("{from} to {to}") };
                format!("steps {first} to {last} ({parts})")
            }
            Stage::Rows(step, _) => format!("rows {first} to {last} of step {step}"),
            _ => String::new(),
        }
    }
}

fn judge(
    game: &Game<'_>,
    own: &Position,
    (step, row): (usize, usize),
    evidence: &Evidence,
    bytes: usize,
) -> Result<Judged, Missing> {
    let started = Instant::now();
    let computed = game.recompute(evidence);
    let took = started.elapsed();
    let program = game.program().ok_or(Missing("a position"))?;
    let operation = program.steps.get(step).ok_or(Missing("a step"))?.operation;
    Ok(Judged {
        operation,
        what: super::steps::what(program, step),
        part: super::steps::part(program, step),
        row,
        claimed: evidence.row.clone(),
        computed,
        doubted: own.rows(step, row..row + 1)?.to_vec(),
        wide: super::steps::is_wide(program, step),
        dot: super::steps::dot(program, (step, row), evidence),
        bytes,
        took,
    })
}

/// The tokens before and at a position, for people.
pub(crate) fn token_at(opening: &Opening, position: usize) -> Option<u32> {
    opening.prompt.iter().chain(&opening.output).nth(position).copied()
}
