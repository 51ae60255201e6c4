//! What receipts cost beside the answers they are of, in time of processors. Long measurements, run by name:
//!
//! ```sh
//! cargo test --release -p lockstep-gateway --lib the_cost_of_receipts_of_the_demo -- --ignored --nocapture
//! cargo test --release -p lockstep-gateway --lib the_cost_of_receipts_at_a_billion -- --ignored --nocapture
//! ```

use crate::draft::{Base, Draft, Link, Question};
use crate::folder::Folder;
use crate::openings::{Keeping, Openings};
use crate::recorder::Recorder;
use engine::{Completion, Config, Engine, Event, Request};
use exact::sample::Sampling;
use exact::{Activations, Isa};
use model::{LoadOptions, Model, Shape, Text};
use receipt::{Nonce, SigningKey};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use tlog::Log;

/// Seconds that all threads of this process computed.
fn computed_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    [11, 12].map(|field: usize| fields[field].parse::<f64>().unwrap() / 100.0).iter().sum()
}

/// Seconds that one run of `work` takes: so many runs that the clock's hundredths do not matter.
fn seconds_of(mut work: impl FnMut()) -> f64 {
    let (before, mut runs) = (computed_seconds(), 0u32);
    loop {
        (0..64).for_each(|_| work());
        runs += 64;
        let seconds = computed_seconds() - before;
        if seconds > 0.5 {
            return seconds / f64::from(runs);
        }
    }
}

/// Answers asked for at once: how many, and tokens of prompt and answer of each.
#[derive(Clone, Copy)]
struct Load {
    answers: usize,
    prompt: usize,
    answer: usize,
}

fn request(load: Load, number: usize) -> Request {
    let sampling = Sampling { temperature: 0.7, top_p: 0.95, ..Sampling::GREEDY };
    let prompt = (0..load.prompt).map(|i| ((7 * number + 13 * i) % 1000) as u32).collect();
    Request { sampling, ..Request::new(prompt, load.answer) }
}

/// Asks for all answers and waits for them; gives them and the seconds they took.
async fn serve(engine: &Engine, load: Load) -> (Vec<Completion>, f64) {
    let before = computed_seconds();
    let asked: Vec<_> = (0..load.answers).map(|number| engine.submit(request(load, number)).unwrap()).collect();
    let mut completions = vec![];
    for mut events in asked {
        while let Some(event) = events.recv().await {
            if let Event::Done(completion) = event {
                completions.push(completion);
            }
        }
    }
    assert_eq!(completions.len(), load.answers);
    (completions, computed_seconds() - before)
}

fn question(request: Request) -> Question {
    Question {
        request,
        seed_from_client: false,
        nonce: Nonce::default(),
        taken: None,
        chat: true,
        counted: true,
        calls: None,
    }
}

/// Seconds a receipt takes, from the number of its seed to the disk.
async fn record(base: &Base, completions: &[Completion], load: Load) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::start(Folder::open(folder.path()).unwrap(), 1000).unwrap());
    let rounds = 6400usize.div_ceil(completions.len());
    let mut seconds = 0.0;
    for _ in 0..rounds {
        let asked: Vec<(Request, Completion)> =
            completions.iter().enumerate().map(|(number, done)| (request(load, number), done.clone())).collect();
        let before = computed_seconds();
        let tasks: Vec<_> = asked
            .into_iter()
            .map(|(request, completion)| {
                let (recorder, base) = (recorder.clone(), base.clone());
                tokio::spawn(async move {
                    let mut question = question(request);
                    assert!(question.admit(&base, |nonce| recorder.take(nonce)));
                    let draft = Draft::new(&base, question, completion).unwrap();
                    recorder.record(draft).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        seconds += computed_seconds() - before;
    }
    seconds / (rounds * completions.len()) as f64
}

/// Seconds that one position's digests and leaf take in steps of so many rows.
fn hash_position(shape: &Shape, rows: usize) -> f64 {
    let layer_bytes = 1 + 2 * shape.key_heads * (shape.head_dim + 4);
    let leaf_bytes = 1 + 4 + 32 * shape.layers + 2 * shape.hidden + 4;
    let (layers, leaves) = (vec![7u8; rows * shape.layers * layer_bytes], vec![9u8; rows * leaf_bytes]);
    let mut hashes = vec![[0; 32]; rows * shape.layers];
    let seconds = seconds_of(|| {
        model::merkle::hash_each(Isa::best(), black_box(&layers), &mut hashes);
        model::merkle::hash_each(Isa::best(), black_box(&leaves), &mut hashes[..rows]);
        black_box(&hashes);
    });
    seconds / rows as f64
}

/// Prints how long each part of making a receipt takes, one after the other in one thread.
fn parts(base: &Base, completion: &Completion, load: Load) {
    let part = |name: &str, seconds: f64| println!("    {name} {:.1} us", 1e6 * seconds);
    let key = SigningKey::from_bytes(&[1; 32]);
    let draft = || {
        let mut question = question(request(load, 1));
        question.seed_from_client = true;
        Draft::new(base, question, completion.clone()).unwrap()
    };
    part("hash", seconds_of(|| drop(black_box(draft()))));
    part("hash and sign", seconds_of(|| drop(black_box(draft().sign(&key, Link::default(), 0)))));
    let bundle = draft().sign(&key, Link::default(), 0).0;
    part("encode", seconds_of(|| drop(black_box(bundle.to_bytes()))));
    let folder = tempfile::tempdir().unwrap();
    let keeping = Keeping { window_seconds: 1000, segment_bytes: 64 << 20 };
    let openings = Openings::open(folder.path(), [1; 32], keeping, 0).unwrap();
    let bundles = vec![([1; 16], bundle.to_bytes()); 64];
    part("encrypt and keep, 64 at once", seconds_of(|| openings.append(&bundles, 0).unwrap()) / 64.0);
    let log = Log::open(&folder.path().join("log"), "test", key, tlog::Limits::default()).unwrap();
    let receipts = vec![bundle.receipt; 64];
    part("log, 64 at once", seconds_of(|| assert!(log.append(&receipts).is_ok())) / 64.0);
}

async fn cost(model: Arc<Model>, loads: &[Load]) {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/base");
    let text = Arc::new(Text::load(&demo).unwrap());
    let (base, shape) = (Base::of(&model, &text), model.shape.clone());
    let mut config = Config::for_memory(&model.shape, 1 << 30, 2, Isa::best());
    // So that every round computes all of its prompts.
    config.prefix_cache = false;
    let engine = Engine::start(model, text, config).unwrap();
    for load in loads {
        let Load { answers, prompt, answer } = *load;
        let mut shares = vec![];
        // Prompts go in steps of many rows, answers in steps of a row each.
        let hashing = prompt as f64 * hash_position(&shape, 64) + (answer - 1) as f64 * hash_position(&shape, answers);
        for _ in 0..3 {
            let (completions, serving) = serve(&engine, *load).await;
            let each = serving / answers as f64;
            let recording = record(&base, &completions, *load).await;
            println!(
                "{answers} at once of {prompt} + {answer} tokens: {:.0} us each; hashing positions {:.1} us, receipt, opening \
                 and log {:.1} us: {:.2} + {:.2} %",
                1e6 * each,
                1e6 * hashing,
                1e6 * recording,
                100.0 * hashing / each,
                100.0 * recording / each
            );
            shares.push(100.0 * (hashing + recording) / each);
            if shares.len() == 3 {
                parts(&base, &completions[0], *load);
            }
        }
        shares.sort_by(f64::total_cmp);
        println!("  median {:.2} %", shares[1]);
    }
}

#[tokio::test]
#[ignore = "measures"]
async fn the_cost_of_receipts_of_the_demo() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/base");
    let model = Arc::new(Model::load(&demo, &LoadOptions::new(Activations::A8)).unwrap());
    let loads = [(64, 60, 60), (64, 240, 1), (16, 8, 200), (1, 60, 200)];
    cost(model, &loads.map(|(answers, prompt, answer)| Load { answers, prompt, answer })).await;
}

#[tokio::test]
#[ignore = "measures"]
async fn the_cost_of_receipts_at_a_billion() {
    let model = Arc::new(Model::random(Shape::llama_1_24b(), Activations::A8, 1));
    let loads = [(4, 512, 1), (16, 32, 32), (1, 32, 32)];
    cost(model, &loads.map(|(answers, prompt, answer)| Load { answers, prompt, answer })).await;
}
