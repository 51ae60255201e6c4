//! The engine over the CUDA executor, the kernels running on the processor: tokens, leaves, likelihoods and receipts of
//! whatever mix of requests are those of the engine over the processor, and either replays the other's answers.

#![expect(clippy::unwrap_used, reason = "what a test builds must succeed")]

mod support;

use audit::{AuditError, Difference, ReplayConfig, Verdict, replay};
use cuda::{Executor, Single};
use engine::{Completion, Config, Engine, Event, Failure, Request, Shaping};
use exact::adjust::Adjust;
use exact::logprob::Logprobs;
use exact::sample::Sampling;
use exact::{Activations, Isa};
use model::{Adapter, Mlp, Model, Rotary, Shape, Text};
use receipt::{Bundle, Claims, Finish, Opening, Salts, Settings, SigningKey, sign};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use support::{Dice, Shim};

fn text() -> Arc<Text> {
    static TEXT: OnceLock<Arc<Text>> = OnceLock::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/base");
    TEXT.get_or_init(|| Arc::new(Text::load(&folder).unwrap())).clone()
}

fn model() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    let shape = Shape {
        hidden: 32,
        layers: 2,
        heads: 4,
        key_heads: 2,
        head_dim: 16,
        mlps: vec![Mlp::Gated { width: 48 }; 2],
        vocabulary: 300,
        context: 1024,
        norm_eps: 1e-5,
        rotary: Rotary::plain(10_000.0, 16),
        window: None,
        head_norms: false,
        tied: true,
        spread: true,
    };
    MODEL.get_or_init(|| Arc::new(Model::random(shape, Activations::A8, 1))).clone()
}

fn adapter(rank: usize) -> Arc<Adapter> {
    Arc::new(Adapter::random(&model().plan, rank, rank as u64))
}

fn tokens(seed: u64, count: usize) -> Vec<u32> {
    let mut dice = Dice(seed << 32);
    (0..count).map(|_| dice.below(300) as u32).collect()
}

/// An engine over the processor, and one over the shim with `pages` pages.
fn here() -> Engine {
    Engine::start(model(), text(), Config::for_memory(&model().shape, 8 << 20, 1, Isa::best())).unwrap()
}

fn there(shim: Shim, pages: usize) -> Engine {
    let executor = cuda::Config { rows: 128, logit_rows: 32, pages: Some(pages), ..Config::executor() };
    let executor = Executor::new(shim, &model(), executor).unwrap();
    let config = Config::for_device(&model().shape, executor.memory(), 1 << 20, 1, Isa::best());
    assert_eq!((config.pages, config.step_tokens, config.sequences_max), (pages, 128, 24));
    Engine::start_on(executor, model(), text(), config).unwrap()
}

/// A request with the rank of its adapter, 0 for none.
struct Asked {
    rank: usize,
    request: Request,
}

fn asked(rank: usize, seed: u64, prompt: usize, answer: usize) -> Asked {
    let sampling = Sampling { temperature: 0.8, top_p: 0.95, seed, ..Sampling::GREEDY };
    Asked { rank, request: Request { sampling, ..Request::new(tokens(seed, prompt), answer) } }
}

type Answer = Result<(Completion, Vec<(u32, Logprobs)>), Failure>;

/// All at once, or each after the one before.
fn ask(engine: &Engine, asked: &[Asked], together: bool) -> Vec<Answer> {
    let request = |asked: &Asked| {
        let insert = |rank| engine.adapters().insert(&format!("rank-{rank}"), adapter(rank)).unwrap();
        let adapter = (asked.rank > 0).then(|| insert(asked.rank));
        Request { adapter, ..asked.request.clone() }
    };
    // Made before the first is asked, so that nothing comes between them.
    let requests: Vec<Request> = asked.iter().map(request).collect();
    let submit = |request: Request| engine.submit(request).unwrap();
    let wait = |mut events: tokio::sync::mpsc::Receiver<Event>| {
        let mut told = Vec::new();
        loop {
            match events.blocking_recv().unwrap() {
                Event::Token(token, logprobs) => told.push((token, logprobs)),
                Event::Text(..) => {}
                Event::Done(completion) => return Ok((completion, told)),
                Event::Failed(failure) => return Err(failure),
            }
        }
    };
    if together {
        let events: Vec<_> = requests.into_iter().map(submit).collect();
        events.into_iter().map(wait).collect()
    } else {
        requests.into_iter().map(|request| wait(submit(request))).collect()
    }
}

/// What a node would sign for an answer.
fn bundle(asked: &Asked, completion: &Completion) -> Bundle {
    let Sampling { temperature, top_k, top_p, min_p, seed } = asked.request.sampling;
    let adjust = &asked.request.shaping.adjust;
    let shaping = receipt::Shaping {
        repetition: adjust.repetition,
        frequency: adjust.frequency,
        presence: adjust.presence,
        bias: adjust.bias.clone(),
        ..receipt::Shaping::default()
    };
    let tokens_max = asked.request.tokens_max as u64;
    let (stop_tokens, stop_strings) = (vec![], vec![]);
    let settings = Settings { temperature, top_k, top_p, min_p, seed, tokens_max, stop_tokens, stop_strings, shaping };
    let opening = Opening {
        prompt: asked.request.prompt.clone(),
        output: completion.tokens.clone(),
        settings,
        salts: Salts::from_random(&[7; 64]),
        leaves: completion.leaves.clone(),
        seed: None,
    };
    let claims = Claims {
        arithmetic: exact::VERSION,
        activations: receipt::Activations::A8,
        base: model().digest,
        base_files: None,
        adapter: completion.adapter,
        tokenizer: None,
        template: None,
        prompt: opening.prompt_hash(),
        settings: opening.settings_hash(),
        output: opening.output_hash(),
        prompt_tokens: opening.prompt.len() as u64,
        output_tokens: opening.output.len() as u64,
        finish: Finish::Length,
        seed,
        seed_from_client: true,
        seed_number: None,
        trace: opening.trace_root(),
        time_seconds: 1_790_000_000,
        price: 0,
        opening_seconds: 0,
        number: 0,
        previous: None,
    };
    Bundle { receipt: sign(&SigningKey::from_bytes(&[3; 32]), &claims), opening }
}

fn assert_same(asked: &[Asked], want: &[Answer], got: &[Answer]) {
    for (number, (want, got)) in want.iter().zip(got).enumerate() {
        let ((want, told_want), (got, told)) = (want.as_ref().unwrap(), got.as_ref().unwrap());
        assert_eq!(want.tokens, got.tokens, "answer {number}");
        assert_eq!(want.leaves, got.leaves, "leaves of answer {number}");
        assert_eq!(told_want, told, "likelihoods of answer {number}");
        let receipts = [want, got].map(|completion| bundle(&asked[number], completion).receipt);
        assert_eq!(receipts[0], receipts[1], "receipt {number}");
    }
}

#[test]
fn mixed_adapters_penalties_guesses_and_shared_prompts_give_the_processors_answers() {
    let mut all = vec![asked(0, 1, 70, 12), asked(3, 2, 9, 12), asked(16, 3, 130, 6), asked(0, 4, 1, 14)];
    all[0].request.sampling = Sampling::GREEDY;
    let adjust = Adjust { repetition: 1.3, frequency: 0.2, presence: 0.1, bias: vec![(7, 2.0), (250, -3.0)] };
    all.push(asked(3, 5, 40, 10));
    all[4].request.shaping = Shaping { adjust, ..Shaping::default() };
    all.push(asked(1, 6, 20, 8));
    all[5].request.shaping.top_logprobs = Some(3);
    let cpu = here();
    let want = ask(&cpu, &all, true);
    let shim = there(Shim::default(), 24);
    assert_same(&all, &want, &ask(&shim, &all, true));
    // Again: prompts are found computed, and the answers are guessed ahead, rightly but for one token.
    for (asked, want) in all.iter_mut().zip(&want) {
        let mut guess = want.as_ref().unwrap().0.tokens.clone();
        guess[4] ^= 1;
        asked.request.prediction = guess;
    }
    assert_same(&all, &want, &ask(&shim, &all, false));
    let counters = shim.counters();
    assert!(counters.drafts_accepted > 0 && counters.drafts_rejected > 0, "{counters:?}");
    assert!(counters.cached_tokens >= 64 + 128, "{counters:?}");
}

#[test]
fn who_gives_way_for_want_of_pages_answers_the_same_later() {
    let all = [asked(0, 11, 60, 12), asked(3, 12, 60, 12), asked(0, 13, 60, 12)];
    let (want, begun) = (ask(&here(), &all, true), Instant::now());
    loop {
        let shim = there(Shim::default(), 4);
        assert_same(&all, &want, &ask(&shim, &all, true));
        if shim.counters().preemptions > 0 {
            return;
        }
        // They may have come one after another all the same.
        assert!(begun.elapsed() < Duration::from_secs(60), "nobody gives way");
    }
}

#[test]
fn an_adapter_the_device_cannot_take_fails_its_own_request_alone() {
    let all = [asked(0, 21, 9, 8), asked(1030, 22, 9, 8), asked(3, 23, 9, 8)];
    let shim = there(Shim::default(), 12);
    let got = ask(&shim, &all, true);
    match &got[1] {
        Err(Failure::Device(what)) => assert!(what.contains("rank 1030"), "{what}"),
        other => panic!("{:?}", other.as_ref().map(|_| ())),
    }
    let want = ask(&here(), &all, true);
    for number in [0, 2] {
        assert_same(&all[number..=number], &want[number..=number], &got[number..=number]);
    }
}

#[test]
fn a_device_that_breaks_ends_its_answers_with_its_words() {
    let shim = there(Shim { fails_after: 150, ..Shim::default() }, 12);
    let all = [asked(0, 31, 9, 40), asked(3, 32, 9, 40)];
    for round in 0..2 {
        for answer in ask(&shim, &all, true) {
            match answer {
                Err(Failure::Device(what)) => assert!(what.contains("fell off the bus"), "{what}"),
                other => panic!("round {round}: {:?}", other.map(|_| ())),
            }
        }
    }
    shim.settle_time();
    assert_eq!(shim.load().pages_used, 0, "and nothing is left behind");
}

#[test]
fn a_device_replays_answers_and_finds_what_is_not_true() {
    let all = [asked(3, 41, 70, 9), asked(0, 42, 5, 9)];
    let answers = ask(&here(), &all, true);
    let executor = cuda::Config { rows: 64, logit_rows: 8, pages: Some(4), ..cuda::Config::default() };
    let shim = Mutex::new(Single::new(Executor::new(Shim::default(), &model(), executor).unwrap()));
    let verdicts = |bundle: &Bundle, adapter: Option<&Adapter>| -> [Result<Verdict, AuditError>; 2] {
        let config = || ReplayConfig { chunk_tokens: 50, ..ReplayConfig::new(Isa::best(), 1) };
        let there = ReplayConfig { device: Some(&shim), ..config() };
        [replay(bundle, model(), adapter, config()), replay(bundle, model(), adapter, there)]
    };
    for (asked, answer) in all.iter().zip(&answers) {
        let own = (asked.rank > 0).then(|| adapter(asked.rank));
        let honest = bundle(asked, &answer.as_ref().unwrap().0);
        for verdict in verdicts(&honest, own.as_deref()) {
            assert!(verdict.unwrap().is_equal());
        }
        let position = asked.request.prompt.len() + 4;
        let mut completion = answer.as_ref().unwrap().0.clone();
        completion.tokens[4] ^= 1;
        for verdict in verdicts(&bundle(asked, &completion), own.as_deref()) {
            let Verdict::Differs { position: at, what: Difference::Token { .. }, .. } = verdict.unwrap() else {
                panic!()
            };
            assert_eq!(at, Some(position));
        }
        let mut completion = answer.as_ref().unwrap().0.clone();
        completion.leaves[3][0] ^= 1;
        for verdict in verdicts(&bundle(asked, &completion), own.as_deref()) {
            let Verdict::Differs { position: at, what: Difference::Trace, .. } = verdict.unwrap() else { panic!() };
            assert_eq!(at, Some(3));
        }
    }
    // Longer than the device has pages for: no verdict, and no false one.
    let long = asked(0, 43, 300, 2);
    let answer = ask(&here(), std::slice::from_ref(&long), true).remove(0).unwrap().0;
    let [here, there] = verdicts(&bundle(&long, &answer), None);
    assert!(here.unwrap().is_equal());
    assert!(matches!(there, Err(AuditError::Device(what)) if what.contains("--device cpu")));
}
