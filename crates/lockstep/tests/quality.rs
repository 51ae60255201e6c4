//! What rounding to 8 bits costs the demo, against float32 (models/demo/expected.json).

#![expect(clippy::unwrap_used, reason = "what a test builds must succeed")]

use cpu::{Config, Executor, Pages, Segment, Wanted};
use engine::{Engine, Event, Request};
use exact::{Activations, Isa};
use model::{Adapter, LoadOptions, Message, Model, Text};
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo")
}

fn expected() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(demo().join("expected.json")).unwrap()).unwrap()
}

fn load(activations: Activations) -> (Arc<Model>, Arc<Text>) {
    let model = Model::load(&demo().join("base"), &LoadOptions::new(activations)).unwrap();
    (Arc::new(model), Arc::new(Text::load(&demo().join("base")).unwrap()))
}

fn negative_log_likelihood(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().fold(f64::NEG_INFINITY, |a, x| a.max(f64::from(*x)));
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - max).exp()).sum();
    max + sum.ln() - f64::from(logits[token as usize])
}

/// Sum over the tokens from `from` on.
fn score(executor: &mut Executor, adapter: Option<&Adapter>, tokens: &[u32], from: usize) -> f64 {
    let shape = executor.model().shape.clone();
    let mut pages = Pages::new(&shape, tokens.len().div_ceil(64));
    let table: Vec<u32> = (0..pages.count() as u32).collect();
    let segment = Segment { tokens, start: 0, pages: &table, adapter, wanted: Wanted::All };
    let outcome = executor.step(&mut pages, &[segment]);
    let rows: Vec<&[f32]> = outcome.logits(0).collect();
    (from..tokens.len()).map(|i| negative_log_likelihood(rows[i - 1], tokens[i])).sum()
}

#[test]
fn plain_text_is_as_likely_as_in_float32() {
    let want = expected()["base"]["text_nll"].as_f64().unwrap();
    let text = std::fs::read_to_string(demo().join("examples/text.ids.txt")).unwrap();
    for activations in [Activations::A8, Activations::A16] {
        let (model, _) = load(activations);
        let mut executor = Executor::new(model, Config { threads: 2, isa: Isa::best(), trace: false }).unwrap();
        let (mut sum, mut count) = (0.0, 0);
        for line in text.lines() {
            let ids: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
            sum += score(&mut executor, None, &ids, 1);
            count += ids.len() - 1;
        }
        let (mean, off) = (sum / count as f64, 100.0 * (sum / count as f64 / want - 1.0));
        println!("{} {mean:.6}, {off:+.3} %", activations.name());
        assert!(off.abs() <= 0.5, "{activations:?}: {mean} against {want}");
    }
}

#[test]
fn every_adapter_answers_as_in_float32() {
    let expected = expected();
    for activations in [Activations::A8, Activations::A16] {
        let (model, text) = load(activations);
        let config = engine::Config::for_memory(&model.shape, 256 << 20, 2, Isa::best());
        let engine = Engine::start(model.clone(), text.clone(), config).unwrap();
        let mut executor = Executor::new(model.clone(), Config { threads: 2, isa: Isa::best(), trace: false }).unwrap();
        for name in ["triage", "extract", "sql", "reply", "spanish"] {
            let adapter = Adapter::load(&demo().join("adapters").join(name), &model, Isa::best()).unwrap();
            let adapter = Arc::new(adapter);
            let handle = engine.adapters().insert(name, adapter.clone()).unwrap();
            let examples = std::fs::read_to_string(demo().join(format!("examples/{name}.jsonl"))).unwrap();
            let (mut answers, mut sum, mut count) = (Vec::new(), 0.0, 0);
            for line in examples.lines() {
                let example: serde_json::Value = serde_json::from_str(line).unwrap();
                let content = |i: usize| example["messages"][i]["content"].as_str().unwrap().to_owned();
                let prompt = text.encode_chat(&[Message::new("user", content(0))], &[]).unwrap();
                let answer = text.encode(&format!("{}<|end|>", content(1)), false).unwrap();
                sum += score(&mut executor, Some(&adapter), &[prompt.clone(), answer.clone()].concat(), prompt.len());
                count += answer.len();
                let receiver = engine
                    .submit(Request {
                        adapter: Some(handle.clone()),
                        stop_tokens: text.end_tokens().to_vec(),
                        ..Request::new(prompt, 200)
                    })
                    .unwrap();
                answers.push((receiver, content(1)));
            }
            let mut equal = 0;
            for (mut receiver, want) in answers {
                let mut got = String::new();
                while let Some(event) = receiver.blocking_recv() {
                    match event {
                        Event::Text(piece, _) => got.push_str(&piece),
                        Event::Token(..) => {}
                        Event::Done(_) => break,
                        Event::Failed(failure) => panic!("{failure}"),
                    }
                }
                equal += usize::from(got == want);
            }
            let want = &expected[name];
            assert_eq!(count as u64, want["answer_tokens"].as_u64().unwrap(), "{name}: other tokens");
            let off = sum / count as f64 - want["answer_nll"].as_f64().unwrap();
            println!("{} {name:8} exact match {equal} of 100, negative log-likelihood {off:+.5}", activations.name());
            assert!(equal >= 99, "{name}: {equal} of 100 answers as expected");
            assert!(off.abs() <= 0.005, "{name}: {off:+.5} off");
        }
    }
}
