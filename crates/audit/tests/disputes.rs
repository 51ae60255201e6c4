//! Disputes: whoever is right wins, whatever the other does; the referee holds no weights; a transcript convinces alone.

#![expect(clippy::panic, clippy::unwrap_used, reason = "test support")]

mod support;

use audit::dispute::{
    Case, Challenger, Game, Message, Party, Prover, Regenerate, Ruling, Transcript, Why, play, target,
};
use audit::trace::{Borders, Draw, History, Missing, Operation, Position, Run, regenerate};
use exact::{Activations, Isa};
use model::{Adapter, Mlp, Model, Shape, digest};
use receipt::{Bundle, Hash, Settings, Shaping, SigningKey};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{Case as Answered, How, answer, audit, prompt, settings, shape};

/// A model, an adapter, an answer, and everything both sides need.
struct Scene {
    model: Arc<Model>,
    adapter: Option<Adapter>,
    bundle: Bundle,
    history: History,
    tokens: Vec<u32>,
}

impl Scene {
    fn new(model: Arc<Model>, adapter: Option<Adapter>, bundle: Bundle) -> Scene {
        let mut tokens = [&bundle.opening.prompt[..], &bundle.opening.output[..]].concat();
        tokens.pop();
        let run = Run { model: model.clone(), adapter: adapter.as_ref(), isa: Isa::best(), threads: 1 };
        let history = run.history(&tokens).unwrap();
        Scene { model, adapter, bundle, history, tokens }
    }

    fn honest(model: Arc<Model>, adapter: Option<Adapter>, prompt_tokens: u32, settings: &Settings) -> Scene {
        let bundle = Answered::honest(&model, adapter.as_ref(), &prompt(prompt_tokens), settings).sign();
        Scene::new(model, adapter, bundle)
    }

    fn case(&self) -> Case {
        let model = &self.model;
        let base = digest::manifest(&model.shape, &model.plan, &model.weights, model.activations, 1);
        let adapter = self.adapter.as_ref().map(|a| digest::adapter_manifest(&model.plan, &a.sites, 1));
        Case::read(&self.bundle, &base, adapter.as_deref(), None).unwrap()
    }

    fn position(&self, position: usize, borders: Option<Borders>) -> Result<Position, Missing> {
        let (model, adapter) = (&self.model, self.adapter.as_ref());
        let draw = Draw::after(&self.bundle.opening, position, model.shape.vocabulary);
        regenerate(model, adapter, &self.history, position, self.tokens[position], draw, borders)
    }

    fn regenerate(&self) -> Regenerate<'_> {
        Box::new(|position, borders| self.position(position, borders))
    }

    fn leaves(&self) -> Vec<Hash> {
        self.bundle.opening.leaves.clone()
    }

    fn prover<'a>(&'a self, regenerate: Regenerate<'a>) -> Prover<'a> {
        Prover::new(self.leaves(), regenerate, &self.model, self.adapter.as_ref())
    }
}

fn node_key() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

fn play_out(case: &Case, mut prover: Prover<'_>, mut challenger: Challenger<'_>) -> (Ruling, Transcript) {
    let (a, b) = (node_key(), SigningKey::from_bytes(&[4; 32]));
    let (ruling, transcript) = play(case, (&mut prover, &a), (&mut challenger, &b)).unwrap();
    let bytes = transcript.to_bytes();
    assert!(bytes.len() <= 64 << 10, "{} bytes", bytes.len());
    assert_eq!(Transcript::from_bytes(&bytes).unwrap().judge(case).as_ref(), Ok(&ruling));
    (ruling, transcript)
}

fn place(ruling: &Ruling) -> (usize, usize, usize) {
    match &ruling.why {
        Why::Computed { position, step, row, .. } => (*position, *step, *row),
        other => panic!("{other:?}"),
    }
}

fn small() -> Shape {
    let experts = Mlp::Experts { experts: 4, chosen: 2, width: 32, renormalise: true };
    Shape { mlps: vec![experts, Mlp::Gated { width: 96 }], head_norms: true, ..shape() }
}

/// A row of every kind of operation of a position.
fn rows_of_every_kind(position: &Position) -> BTreeMap<String, (usize, usize)> {
    let mut rows = BTreeMap::new();
    for (number, step) in position.program.steps.iter().enumerate() {
        let kind = format!("{:?}", step.operation);
        let kind = kind.split(['(', '{']).next().unwrap().to_owned();
        let last = step.layout.rows() - 1;
        for (which, row) in [("first", 0), ("middle", last / 2), ("last", last)] {
            rows.insert(format!("{kind} {which}"), (number, row));
        }
    }
    rows
}

#[test]
fn a_forged_row_of_every_kind_of_operation_is_found_and_a_false_doubt_of_it_fails() {
    let model = Arc::new(Model::random(small(), Activations::A8, 1));
    let adapter = Adapter::random(&model.plan, 4, 7);
    let shaped = Settings { top_k: 40, top_p: 0.8, ..shaped() };
    let scene = Scene::honest(model, Some(adapter), 70, &shaped);
    let case = scene.case();
    let doubted = 75;
    let honest = scene.position(doubted, None).unwrap();
    let kinds = rows_of_every_kind(&honest);
    assert!(kinds.len() > 90, "{}", kinds.len());
    for (kind, (step, row)) in kinds {
        let layout = honest.program.steps[step].layout;
        let at = layout.bytes_of(row..row + 1).start;
        let forge = |position: Position| position.forged(step, |bytes| bytes[at] ^= 1);
        let fixed = [Some(honest.program.leaf), honest.program.border, honest.program.drawn].contains(&Some(step));
        if !fixed {
            // The prover forged one byte.
            let lie: Regenerate<'_> = Box::new(|p, borders| {
                scene.position(p, borders).map(|position| if p == doubted { forge(position) } else { position })
            });
            let (ruling, _) = play_out(&case, scene.prover(lie), Challenger::new(doubted, scene.regenerate()));
            assert_eq!(ruling.winner, Party::Challenger, "{kind}: {ruling:?}");
            assert_eq!(place(&ruling), (doubted, step, row), "{kind}");
        }
        // The challenger did.
        let lie: Regenerate<'_> = Box::new(|p, borders| scene.position(p, borders).map(forge));
        let (ruling, _) = play_out(&case, scene.prover(scene.regenerate()), Challenger::new(doubted, lie));
        assert_eq!(ruling.winner, Party::Prover, "{kind}: {ruling:?}");
        assert_eq!(place(&ruling), (doubted, step, row), "{kind}");
    }
}

/// Penalties, biases, and stop tokens that may not be drawn for a while.
fn shaped() -> Settings {
    let shaping = Shaping {
        repetition: 1.4,
        frequency: 0.3,
        presence: 0.2,
        bias: vec![(150, 6.0), (170, -4.0)],
        tokens_min: 30,
        form: None,
    };
    Settings { stop_tokens: (0..100).collect(), shaping, ..settings() }
}

#[test]
fn under_penalties_biases_and_a_least_length_the_true_side_wins() {
    let (model, mut lied) = (support::model(), 0);
    for settings in [shaped(), Settings { temperature: 0.0, ..shaped() }, Settings { top_p: 0.6, ..shaped() }] {
        let scene = Scene::honest(model.clone(), None, 30, &settings);
        assert!(audit(&scene.bundle, &model, None).unwrap().is_equal());
        let case = scene.case();
        for position in [3, 29, 40, scene.tokens.len() - 1] {
            let lie: Regenerate<'_> = Box::new(|p, borders| {
                let position = scene.position(p, borders)?;
                let step = position.program.drawn.unwrap_or(1) - 1;
                Ok(position.forged(step, |bytes| bytes[0] ^= 1))
            });
            let (ruling, _) = play_out(&case, scene.prover(scene.regenerate()), Challenger::new(position, lie));
            assert_eq!(ruling.winner, Party::Prover, "{position}: {ruling:?}");
        }
        // Drawn without what was asked: other penalties, no bias, or a stop token too early.
        let plain = Shaping { tokens_min: 30, ..Shaping::default() };
        for shaping in [plain, Shaping { bias: vec![], ..settings.shaping.clone() }] {
            let other = Settings { shaping, ..settings.clone() };
            let cheated = answer(&model, None, &prompt(30), &other, How::plain());
            let bundle = Answered::new(&model, None, &prompt(30), &settings, &cheated).sign();
            // Where both draw the same tokens it is no lie.
            let Some(position) = target(&audit(&bundle, &model, None).unwrap()) else { continue };
            lied += 1;
            let scene = Scene::new(model.clone(), None, bundle);
            let case = scene.case();
            let challenger = Challenger::new(position, scene.regenerate());
            let (ruling, _) = play_out(&case, scene.prover(scene.regenerate()), challenger);
            assert_eq!((ruling.winner, place(&ruling).0), (Party::Challenger, position), "{ruling:?}");
        }
    }
    assert!(lied >= 3, "{lied}");
}

#[test]
fn other_weights_by_one_bit_lose_at_the_row_that_was_changed() {
    let honest = support::model();
    let mut cheat = Model::random(shape(), Activations::A8, 1);
    let (site, output) = (11, 7);
    let matrix = &mut cheat.weights.linears[site].matrix;
    let mut row = vec![0; matrix.inputs()];
    matrix.row(output, &mut row);
    row[5] ^= 1;
    let scale = matrix.scales()[output];
    matrix.set_row(output, &row, scale);
    let cheat = Arc::new(cheat);
    let cheated = answer(&cheat, None, &prompt(30), &settings(), How::plain());
    let bundle = Answered::new(&honest, None, &prompt(30), &settings(), &cheated).sign();
    let verdict = audit(&bundle, &honest, None).unwrap();
    let position = target(&verdict).unwrap();
    let scene = Scene::new(honest, None, bundle.clone());
    let liar = Scene::new(cheat, None, bundle);
    let case = scene.case();
    // The liar opens the true weights: its own do not open the digest.
    let prover = Prover::new(scene.leaves(), liar.regenerate(), &scene.model, None);
    let (ruling, _) = play_out(&case, prover, Challenger::new(position, scene.regenerate()));
    let (at, step, found) = place(&ruling);
    assert_eq!((ruling.winner, at, found), (Party::Challenger, position, output), "{ruling:?}");
    let program = case.program(position, Borders::default());
    assert_eq!(program.steps[step].operation, Operation::Sums(audit::trace::Map::Site(site)));
    let Why::Computed { what, .. } = &ruling.why else { panic!() };
    assert!(what.contains("model.layers.1.mlp.gate_proj"), "{what}");
    // Its own weights in evidence are a foul.
    let prover = Prover::new(scene.leaves(), liar.regenerate(), &liar.model, None);
    let (ruling, _) = play_out(&case, prover, Challenger::new(position, scene.regenerate()));
    assert_eq!(
        (ruling.winner, ruling.why),
        (Party::Challenger, Why::Foul("a row of weights does not open the digest"))
    );
}

#[test]
fn an_edited_answer_an_edited_prompt_other_settings_and_another_adapter_lose() {
    let model = support::model();
    let honest = Answered::honest(&model, None, &prompt(30), &settings());
    // A cheaper decoder behind an honest prefill: the token is not the one that is drawn, the trace is its own.
    let mut edited = honest.clone();
    edited.opening.output[12] = (edited.opening.output[12] + 1) % 320;
    let mut all = [&edited.opening.prompt[..], &edited.opening.output[..]].concat();
    all.truncate(100);
    let once = Settings { tokens_max: 1, ..settings() };
    edited.opening.leaves = answer(&model, None, &all, &once, How::plain()).leaves[..99].to_vec();
    // Another prompt than the one that ran.
    let mut asked = prompt(30);
    asked[11] += 1;
    let other_prompt = answer(&model, None, &asked, &settings(), How::plain());
    let other_prompt = Answered::new(&model, None, &prompt(30), &settings(), &other_prompt);
    let cold = Settings { temperature: 0.3, ..settings() };
    let cold =
        Answered::new(&model, None, &prompt(30), &settings(), &answer(&model, None, &prompt(30), &cold, How::plain()));
    let filtered = Settings { top_p: 0.5, top_k: 17, ..settings() };
    let hot = answer(&model, None, &prompt(30), &settings(), How::plain());
    let unfiltered = Answered::new(&model, None, &prompt(30), &filtered, &hot);
    for (name, cheat) in [("answer", edited), ("prompt", other_prompt), ("cold", cold), ("filters", unfiltered)] {
        let bundle = cheat.sign();
        let verdict = audit(&bundle, &model, None).unwrap();
        let position = target(&verdict).unwrap();
        let scene = Scene::new(model.clone(), None, bundle);
        let case = scene.case();
        // The prover claims what it must, and forges what follows.
        let (ruling, _) =
            play_out(&case, scene.prover(scene.regenerate()), Challenger::new(position, scene.regenerate()));
        assert_eq!((ruling.winner, place(&ruling).0), (Party::Challenger, position), "{name}: {ruling:?}");
    }
    let (good, bad) = (Adapter::random(&model.plan, 8, 5), Adapter::random(&model.plan, 8, 6));
    let ran = answer(&model, Some(&bad), &prompt(30), &settings(), How::plain());
    let bundle = Answered::new(&model, Some(&good), &prompt(30), &settings(), &ran).sign();
    let scene = Scene::new(model.clone(), Some(good), bundle.clone());
    let liar = Scene::new(model, Some(bad), bundle);
    let case = scene.case();
    let prover = Prover::new(scene.leaves(), liar.regenerate(), &scene.model, scene.adapter.as_ref());
    let (ruling, _) = play_out(&case, prover, Challenger::new(0, scene.regenerate()));
    assert_eq!((ruling.winner, place(&ruling).0), (Party::Challenger, 0), "{ruling:?}");
}

#[test]
fn borders_of_the_rank_that_are_not_the_settings_lose() {
    let filtered = Settings { top_k: 30, top_p: 0.7, ..settings() };
    let scene = Scene::honest(support::model(), None, 30, &filtered);
    let case = scene.case();
    for change in [0, 1] {
        let lie: Regenerate<'_> = Box::new(|p, _| {
            let mut borders = scene.position(p, None)?.program.borders;
            let border = if change == 0 { &mut borders.top_k } else { &mut borders.top_p };
            *border = border.map(|id| (id + 1) % 320);
            scene.position(p, Some(borders))
        });
        let (ruling, _) = play_out(&case, scene.prover(lie), Challenger::new(40, scene.regenerate()));
        assert_eq!(ruling.winner, Party::Challenger, "{ruling:?}");
    }
}

#[test]
fn silence_and_messages_out_of_turn_lose() {
    let scene = Scene::honest(support::model(), None, 30, &settings());
    let case = scene.case();
    let mut game = Game::new(&case);
    game.forfeit();
    assert_eq!(game.ruling(), Some(&Ruling { winner: Party::Challenger, why: Why::Silence }));
    let mut game = Game::new(&case);
    game.take(&Message::Turn { right: true });
    assert_eq!(game.ruling().unwrap().winner, Party::Challenger);
    let mut game = Game::new(&case);
    game.take(&Message::Trace { root: [9; 32] });
    assert_eq!(game.ruling().unwrap().why, Why::Foul("this is not the root that the receipt binds"));
    // An answer that cannot have ended so needs no game.
    let mut short = Answered::honest(&support::model(), None, &prompt(30), &settings());
    short.opening.output.truncate(10);
    short.opening.leaves.truncate(39);
    let short = Scene::new(support::model(), None, short.sign());
    let case = short.case();
    assert!(matches!(Game::new(&case).ruling().unwrap().why, Why::Plain(_)));
}

#[test]
fn a_transcript_cannot_be_altered_shortened_or_moved() {
    let scene = Scene::honest(support::model(), None, 30, &settings());
    let case = scene.case();
    let lie: Regenerate<'_> = Box::new(|p, b| Ok(scene.position(p, b)?.forged(40, |bytes| bytes[0] ^= 1)));
    let (ruling, transcript) = play_out(&case, scene.prover(lie), Challenger::new(40, scene.regenerate()));
    assert_eq!(ruling.winner, Party::Challenger);
    for number in 0..transcript.entries.len() {
        let mut altered = transcript.clone();
        let last = altered.entries[number].message.len() - 1;
        altered.entries[number].message[last] ^= 1;
        assert!(altered.judge(&case).is_err(), "message {number}");
        let mut altered = transcript.clone();
        altered.entries[number].signature[0] ^= 1;
        assert!(altered.judge(&case).is_err(), "signature {number}");
        let mut altered = transcript.clone();
        altered.entries.truncate(number);
        assert!(altered.judge(&case).is_err(), "cut before {number}");
    }
    let other = Scene::honest(support::model(), None, 31, &settings());
    assert!(transcript.judge(&other.case()).is_err());
}
