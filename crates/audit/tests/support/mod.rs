//! A small node: answers prompts on tiny random models with the CPU executor, and signs receipts, honest or not.
#![expect(clippy::unwrap_used, reason = "test support")]
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses a part")]

pub mod lattice;

use audit::{AuditError, ReplayConfig, Verdict, replay};
use cpu::{Config, Draw, Executor, PAGE, Pages, Segment, Wanted};
use exact::adjust::{Adjust, Choice};
use exact::sample::Sampling;
use exact::{Activations, Isa};
use model::{Adapter, Mlp, Model, Rotary, Shape};
use receipt::{Bundle, Claims, Finish, Hash, Opening, Salts, Settings, Shaping, SigningKey, sign_as_if_true};
use std::sync::Arc;

pub fn shape() -> Shape {
    Shape {
        hidden: 64,
        layers: 2,
        heads: 4,
        key_heads: 2,
        head_dim: 16,
        mlps: vec![Mlp::Gated { width: 96 }; 2],
        vocabulary: 320,
        context: 512,
        norm_eps: 1e-5,
        rotary: Rotary::plain(10_000.0, 16),
        window: None,
        head_norms: false,
        tied: true,
        spread: true,
    }
}

pub fn model() -> Arc<Model> {
    Arc::new(Model::random(shape(), Activations::A8, 1))
}

pub fn settings() -> Settings {
    Settings {
        temperature: 0.9,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: 42,
        tokens_max: 70,
        stop_tokens: vec![],
        stop_strings: vec![],
        shaping: Shaping::default(),
    }
}

pub fn prompt(tokens: u32) -> Vec<u32> {
    (0..tokens).map(|i| (i * 37 + 11) % 320).collect()
}

/// How an answer is computed; changes no bit of it.
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub isa: Isa,
    pub threads: usize,
    /// Tokens of the prompt in one step.
    pub chunk: usize,
    /// Other sequences in every step.
    pub companions: usize,
}

impl How {
    pub fn plain() -> How {
        How { isa: Isa::best(), threads: 1, chunk: 64, companions: 0 }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub tokens: Vec<u32>,
    pub leaves: Vec<Hash>,
    pub finish: Finish,
}

pub fn sampling(settings: &Settings) -> Sampling {
    let Settings { temperature, top_k, top_p, min_p, seed, .. } = *settings;
    Sampling { temperature, top_k, top_p, min_p, seed }
}

/// Generates an answer token by token, as an engine does.
pub fn answer(model: &Arc<Model>, adapter: Option<&Adapter>, prompt: &[u32], settings: &Settings, how: How) -> Answer {
    let mut executor =
        Executor::new(model.clone(), Config { threads: how.threads, isa: how.isa, trace: true }).unwrap();
    // Companions are up to three tokens ahead.
    let page_count = (prompt.len() + settings.tokens_max as usize + 3).div_ceil(PAGE);
    let mut pages = Pages::new(&model.shape, page_count * (how.companions + 1));
    let ids: Vec<u32> = (0..pages.count() as u32).collect();
    let others: Vec<Adapter> = (0..how.companions as u64).map(|i| Adapter::random(&model.plan, 4, 900 + i)).collect();
    let (mut tokens, mut leaves, mut done) = (prompt.to_vec(), vec![], 0);
    loop {
        let count = how.chunk.min(tokens.len() - done);
        let companions = (0..how.companions).map(|i| Segment {
            tokens: &[17, 18, 19][..1 + (done + i) % 3],
            start: done,
            pages: &ids[page_count * (i + 1)..],
            adapter: (i % 2 == 0).then_some(&others[i]),
            wanted: if i % 3 == 0 { Wanted::None } else { Wanted::Last },
        });
        let own = Segment {
            tokens: &tokens[done..done + count],
            start: done,
            pages: &ids,
            adapter,
            wanted: if done + count == tokens.len() { Wanted::Last } else { Wanted::None },
        };
        let mut segments: Vec<_> = companions.collect();
        segments.push(own);
        let number = segments.len() - 1;
        let mut outcome = executor.step(&mut pages, &segments);
        assert!(!outcome.failed[number]);
        leaves.append(&mut outcome.leaves[number]);
        let position = (done + count) as u64;
        let shaping = &settings.shaping;
        let adjust = Adjust {
            repetition: shaping.repetition,
            frequency: shaping.frequency,
            presence: shaping.presence,
            bias: shaping.bias.clone(),
        };
        let answer = &tokens[prompt.len()..];
        let early = (answer.len() as u64) < shaping.tokens_min;
        let banned = if early { &settings.stop_tokens[..] } else { &[] };
        let choice = Choice { adjust: Some(&adjust), prompt, answer, allowed: None, banned };
        let draw = Draw { segment: number, sampling: sampling(settings), choice, position };
        let drawn = (own.wanted == Wanted::Last).then(|| outcome.draw(&[draw])[0].unwrap());
        done += count;
        let Some(token) = drawn else { continue };
        tokens.push(token);
        let answer = &tokens[prompt.len()..];
        let finish = if settings.stop_tokens.contains(&token) {
            Finish::Stop
        } else if answer.len() as u64 == settings.tokens_max {
            Finish::Length
        } else {
            continue;
        };
        return Answer { tokens: answer.to_vec(), leaves, finish };
    }
}

/// What a node signs and hands to auditors.
#[derive(Clone)]
pub struct Case {
    pub claims: Claims,
    pub opening: Opening,
}

impl Case {
    /// A truthful receipt for an answer.
    pub fn new(model: &Model, adapter: Option<&Adapter>, prompt: &[u32], settings: &Settings, answer: &Answer) -> Case {
        let opening = Opening {
            prompt: prompt.to_vec(),
            output: answer.tokens.clone(),
            settings: settings.clone(),
            salts: Salts::from_random(&std::array::from_fn(|i| i as u8)),
            leaves: answer.leaves.clone(),
            seed: None,
        };
        let claims = Claims {
            arithmetic: exact::VERSION,
            activations: receipt::Activations::from_name(model.activations.name()).unwrap(),
            base: model.digest,
            base_files: None,
            adapter: adapter.map(|adapter| adapter.digest),
            tokenizer: None,
            template: None,
            prompt: [0; 32],
            settings: [0; 32],
            output: [0; 32],
            prompt_tokens: 0,
            output_tokens: 0,
            finish: answer.finish,
            seed: 0,
            seed_from_client: true,
            seed_number: None,
            trace: [0; 32],
            time_seconds: 1_790_000_000,
            price: 0,
            opening_seconds: 0,
            number: 0,
            previous: None,
        };
        Case { claims, opening }
    }

    /// Generates an answer and writes a truthful receipt for it.
    pub fn honest(model: &Arc<Model>, adapter: Option<&Adapter>, prompt: &[u32], settings: &Settings) -> Case {
        Case::new(model, adapter, prompt, settings, &answer(model, adapter, prompt, settings, How::plain()))
    }

    /// Signs, with hashes and counts of what the opening holds now.
    pub fn sign(&self) -> Bundle {
        sign_as_if_true(&self.claims, self.opening.clone(), &SigningKey::from_bytes(&[3; 32]))
    }
}

pub fn config() -> ReplayConfig<'static> {
    ReplayConfig { chunk_tokens: 32, ..ReplayConfig::new(Isa::best(), 1) }
}

pub fn audit(bundle: &Bundle, model: &Arc<Model>, adapter: Option<&Adapter>) -> Result<Verdict, AuditError> {
    replay(bundle, model.clone(), adapter, config())
}
