//! An honest answer replays equal, however it was computed and wherever it is replayed.

mod support;

use audit::{Progress, ReplayConfig, replay};
use exact::{Activations, Isa};
use model::{Adapter, Mlp, Model, Shape};
use receipt::{Finish, Settings};
use std::sync::Arc;
use support::{Case, How, answer, audit, model, prompt, settings, shape};

#[test]
fn an_answer_replays_equal_whatever_computed_it_and_whatever_replays_it() {
    let model = model();
    let adapter = Adapter::random(&model.plan, 8, 5);
    let prompt = prompt(70);
    for adapter in [None, Some(&adapter)] {
        let (all, best) = (Isa::available(), Isa::best());
        let isas = all.iter().map(|isa| How { isa: *isa, ..How::plain() });
        let chunks = [1, 7, 256].map(|chunk| How { chunk, ..How::plain() });
        let threads = How { isa: best, threads: 2, chunk: 48, companions: 3 };
        let hows: Vec<How> = isas.chain(chunks).chain([threads]).collect();
        let answers: Vec<_> = hows.iter().map(|how| answer(&model, adapter, &prompt, &settings(), *how)).collect();
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        let bundle = Case::new(&model, adapter, &prompt, &settings(), &answers[0]).sign();
        for isa in all {
            for (threads, chunk_tokens) in [(1, 1), (1, 5), (2, 64), (1, 256), (1, 0), (0, 69)] {
                let config = ReplayConfig { chunk_tokens, ..ReplayConfig::new(isa, threads) };
                let verdict = replay(&bundle, model.clone(), adapter, config).unwrap();
                assert!(verdict.is_equal(), "{isa}, {threads} threads, chunks of {chunk_tokens}: {verdict}");
            }
        }
    }
}

#[test]
fn answers_in_a_batch_with_others_and_their_adapters_replay_equal() {
    let model = model();
    let adapter = Adapter::random(&model.plan, 8, 5);
    let alone = answer(&model, Some(&adapter), &prompt(20), &settings(), How::plain());
    for companions in [1, 4, 9] {
        let how = How { companions, ..How::plain() };
        let together = answer(&model, Some(&adapter), &prompt(20), &settings(), how);
        assert_eq!(together, alone);
        let bundle = Case::new(&model, Some(&adapter), &prompt(20), &settings(), &together).sign();
        assert!(audit(&bundle, &model, Some(&adapter)).unwrap().is_equal());
    }
}

#[test]
fn every_kind_of_model_replays_equal() {
    let experts = Mlp::Experts { experts: 6, chosen: 2, width: 32, renormalise: true };
    let shapes = [
        Shape { mlps: vec![experts, Mlp::Gated { width: 96 }], ..shape() },
        Shape { head_norms: true, window: Some(48), ..shape() },
        Shape { spread: false, tied: false, ..shape() },
    ];
    for shape in shapes {
        for activations in [Activations::A8, Activations::A16] {
            let model = Arc::new(Model::random(shape.clone(), activations, 3));
            let bundle = Case::honest(&model, None, &prompt(90), &settings()).sign();
            let verdict = audit(&bundle, &model, None).unwrap();
            assert!(verdict.is_equal(), "{shape:?} {activations:?}: {verdict}");
        }
    }
}

#[test]
fn every_way_of_drawing_replays_equal() {
    let model = model();
    let with = |change: fn(&mut receipt::Shaping)| {
        let mut settings = settings();
        change(&mut settings.shaping);
        settings
    };
    let ways = [
        Settings { temperature: 0.0, ..settings() },
        Settings { top_k: 5, ..settings() },
        Settings { top_p: 0.4, ..settings() },
        Settings { min_p: 0.3, temperature: 1.5, ..settings() },
        with(|shaping| shaping.repetition = 1.4),
        with(|shaping| (shaping.frequency, shaping.presence) = (0.8, -0.5)),
        with(|shaping| shaping.bias = vec![(3, 6.0), (17, 9.5), (200, -100.0)]),
        Settings { top_k: 100, top_p: 0.9, min_p: 0.05, seed: u64::MAX, ..settings() },
    ];
    for settings in ways {
        let bundle = Case::honest(&model, None, &prompt(9), &settings).sign();
        let verdict = audit(&bundle, &model, None).unwrap();
        assert!(verdict.is_equal(), "{settings:?}: {verdict}");
    }
}

#[test]
fn every_way_of_ending_replays_equal() {
    let model = model();
    let free = answer(&model, None, &prompt(9), &settings(), How::plain());
    // A token that had not come before.
    let at = (10..free.tokens.len()).find(|i| !free.tokens[..*i].contains(&free.tokens[*i])).unwrap();
    let stopping = Settings { stop_tokens: vec![319, free.tokens[at]], ..settings() };
    let stopped = Case::honest(&model, None, &prompt(9), &stopping);
    assert_eq!((stopped.claims.finish, stopped.opening.output.len()), (Finish::Stop, at + 1));
    assert!(audit(&stopped.sign(), &model, None).unwrap().is_equal());

    // The same stop token, passed over for a while: other tokens are drawn.
    let shaping = receipt::Shaping { tokens_min: at as u64 + 2, ..Default::default() };
    let late = Settings { shaping, ..stopping.clone() };
    let late = Case::honest(&model, None, &prompt(9), &late);
    assert!(late.opening.output.len() > at + 1 && late.opening.output[at] != free.tokens[at]);
    assert!(audit(&late.sign(), &model, None).unwrap().is_equal());

    let exactly = Settings { tokens_max: at as u64 + 1, ..stopping };
    let both = Case::honest(&model, None, &prompt(9), &exactly);
    assert_eq!(both.claims.finish, Finish::Stop, "a stop token counts as a stop on the last token too");
    assert!(audit(&both.sign(), &model, None).unwrap().is_equal());
}

#[test]
fn one_token_of_prompt_and_one_of_answer_replay_equal() {
    let model = model();
    for (prompt_tokens, tokens_max) in [(1, 1), (1, 66), (64, 1), (65, 2), (442, 70)] {
        let settings = Settings { tokens_max, ..settings() };
        let bundle = Case::honest(&model, None, &prompt(prompt_tokens), &settings).sign();
        let verdict = audit(&bundle, &model, None).unwrap();
        assert!(verdict.is_equal(), "{prompt_tokens} + {tokens_max}: {verdict}");
    }
}

#[test]
fn progress_is_told_up_to_the_last_position() {
    let model = model();
    let bundle = Case::honest(&model, None, &prompt(50), &settings()).sign();
    let mut told: Vec<Progress> = vec![];
    let mut progress = |at| told.push(at);
    let config = ReplayConfig { chunk_tokens: 20, progress: Some(&mut progress), ..ReplayConfig::new(Isa::best(), 1) };
    assert!(replay(&bundle, model, None, config).unwrap().is_equal());
    let positions: Vec<usize> = told.iter().map(|at| at.positions).collect();
    assert_eq!(positions, [20, 40, 49, 69, 89, 109, 119]);
    assert!(told.iter().all(|at| at.positions_total == 119));
}
