//! What clients see of caches, predictions and adapters that come and go.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use engine::Roots;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use support::{Answer, BASE, Served, ask, content, demo, engine, examples, with};

const CHAT: &str = "/v1/chat/completions";

fn long_question() -> Value {
    let text: Vec<String> = examples("reply").into_iter().take(12).map(|(question, _)| question).collect();
    with(ask("reply", &text.join(" ")), json!({"temperature": 0, "max_tokens": 24}))
}

fn post_as(served: &Served, key: &str, path: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("authorization", key)];
    served.send("POST", path, &headers, body.to_string().as_bytes())
}

fn cached(answer: &Value) -> u64 {
    answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
}

#[test]
fn usage_tells_what_was_cached_and_keys_share_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys = gateway::Keys::default();
    [("ada", "a"), ("ada", "a2"), ("bob", "b")].into_iter().for_each(|(name, key)| keys.add(name, key));
    let (adapters, limits) = (demo().adapters.clone(), gateway::Limits::default());
    let served = Served::serving(engine(|_| {}), folder.path(), limits, adapters, keys);
    let ask_as = |key: &str| post_as(&served, key, CHAT, &long_question()).ok();
    // It is the name that counts, however the key is written, and not the header.
    let (first, second, stranger) = (ask_as("Bearer a"), ask_as("bearer a2"), ask_as("Bearer b"));
    assert_eq!((cached(&first), cached(&stranger)), (0, 0));
    let prompt = first["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(prompt > 128 && cached(&second) == (prompt - 1) / 64 * 64, "{second}");
    assert_eq!(content(&first), content(&second));
    assert_eq!(content(&first), content(&stranger));
}

#[test]
fn an_adapter_nobody_has_asked_for_yet_is_loaded_for_all_who_ask() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(|_| {});
    let sql = support::folder().join("adapters/sql");
    engine.adapters().register("lazy", &sql).unwrap();
    let broken = tempfile::tempdir().unwrap();
    fs::write(broken.path().join("adapter_config.json"), "{").unwrap();
    engine.adapters().register("broken", broken.path()).unwrap();
    let served = Served::with(engine.clone(), folder.path(), gateway::Limits::default());
    let question = |name: &str| with(ask(name, "How many orders were placed in Graz?"), json!({"temperature": 0}));
    let expected = content(&served.post(CHAT, &question("sql")).ok());
    let before = engine.counters().adapters_loaded;
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(content(&served.post(CHAT, &question("lazy")).ok()), expected));
            scope.spawn(|| {
                let answer = served.post(CHAT, &question("broken"));
                assert_eq!((answer.status, &answer.json()["error"]["code"]), (500, &json!("adapter_failed")));
            });
        }
    });
    // Whoever comes in the very moment may have it loaded once more, from the system's memory.
    assert!((1..=2).contains(&(engine.counters().adapters_loaded - before)));
}

#[test]
fn a_class_of_service_is_told_and_nobody_puts_himself_before_others() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let request = with(ask("sql", "a"), json!({"max_tokens": 2}));
    assert!(served.post(CHAT, &request).ok().get("service_tier").is_none());
    for (asked, told) in [("auto", "default"), ("default", "default"), ("flex", "flex"), ("priority", "default")] {
        let answer = served.post(CHAT, &with(request.clone(), json!({"service_tier": asked}))).ok();
        assert_eq!(answer["service_tier"], told, "{asked}");
    }
    assert_eq!(served.post(CHAT, &with(request, json!({"service_tier": "express"}))).status, 400);
}

#[test]
fn a_prediction_is_counted_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let request = with(ask("reply", &examples("reply")[0].0), json!({"temperature": 0}));
    let plain = served.post(CHAT, &request).ok();
    let none = json!({"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0});
    assert_eq!(plain["usage"]["completion_tokens_details"], none);
    let prediction = json!({"prediction": {"type": "content", "content": content(&plain)}});
    let predicted = served.post(CHAT, &with(request, prediction)).ok();
    assert_eq!(content(&plain), content(&predicted));
    let details = &predicted["usage"]["completion_tokens_details"];
    assert!(details["accepted_prediction_tokens"].as_u64().unwrap() > 5, "{details}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

#[test]
fn adapters_come_and_go_while_answers_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let root = tempfile::tempdir().unwrap();
    copy(&support::folder().join("adapters/sql"), &root.path().join("a"));
    copy(&support::folder().join("adapters/reply"), &root.path().join("b"));
    let engine = engine(|_| {});
    assert!(engine.adapters().allow(Roots::new(&[root.path().to_owned()]).unwrap()));
    let served =
        Served::serving(engine, folder.path(), gateway::Limits::default(), [].into(), gateway::Keys::default());
    let (load, unload) = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter");
    let question = with(ask("mine", "How many orders were placed in Graz?"), json!({"temperature": 0}));
    assert_eq!(served.post(CHAT, &question).status, 404);
    let loaded = served.post(load, &json!({"lora_name": "mine", "lora_path": "a"})).ok();
    assert_eq!((&loaded["id"], &loaded["parent"]), (&json!("mine"), &json!(BASE)));
    let first = served.post(CHAT, &question).ok();
    let again = json!({"lora_name": "mine", "lora_path": "b"});
    assert_eq!(served.post(load, &again).status, 400);
    let replaced = served.post(load, &with(again, json!({"load_inplace": true}))).ok();
    assert_ne!(loaded["digest"], replaced["digest"]);
    let second = served.post(CHAT, &question).ok();
    assert_ne!(content(&first), content(&second));
    assert_eq!(cached(&second), 0);
    served.post(unload, &json!({"lora_name": "mine"})).ok();
    assert_eq!(served.post(unload, &json!({"lora_name": "mine"})).status, 404);
    assert_eq!(served.post(CHAT, &question).status, 404);
    for (body, param) in [
        (json!({"lora_name": "x", "lora_path": "../a"}), "lora_path"),
        (json!({"lora_name": "x", "lora_path": "/etc"}), "lora_path"),
        (json!({"lora_name": "x", "lora_path": "missing"}), "lora_path"),
        (json!({"lora_name": "x"}), "lora_path"),
        (json!({"lora_path": "a"}), "lora_name"),
        (json!({"lora_name": "a b", "lora_path": "a"}), "lora_name"),
        (json!({"lora_name": BASE, "lora_path": "a"}), "lora_name"),
        (json!({"lora_name": "x", "lora_path": "a", "url": "http://x"}), "url"),
    ] {
        let answer = served.post(load, &body);
        assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &json!(param)), "{body}");
    }
}

#[test]
fn adapters_are_changed_only_by_whoever_has_the_key_and_only_where_it_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let body = json!({"lora_name": "x", "lora_path": "a"});
    assert_eq!(served.post("/v1/load_lora_adapter", &body).status, 403, "no folder is allowed");
    drop(served);
    let served = Served::keyed(engine(|_| {}), folder.path(), "secret");
    for path in ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"] {
        assert_eq!(served.post(path, &body).status, 401);
        for key in ["Bearer secre", "Bearer secret2", "secret", "Bearer "] {
            assert_eq!(post_as(&served, key, path, &body).status, 401, "{key}");
        }
    }
    assert_eq!(post_as(&served, "Bearer secret", "/v1/load_lora_adapter", &body).status, 403);
    let body = json!({"lora_name": "x"});
    assert_eq!(post_as(&served, "Bearer secret", "/v1/unload_lora_adapter", &body).status, 404);
    served.post(CHAT, &with(ask("sql", "a"), json!({"max_tokens": 2}))).ok();
}

#[test]
fn a_flood_is_refused_in_time_and_leaves_others_their_turn() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(|config| (config.queue_max, config.sequences_max) = (8, 1));
    let served = Served::with(engine.clone(), folder.path(), gateway::Limits::default());
    let prompt = demo().text.encode("a", true).unwrap();
    let request = engine::Request { tenant: [7; 32], ..engine::Request::new(prompt, 300) };
    // The first is being computed, four wait, and the rest is refused at once; whoever is done makes room for one more.
    let mut taken: Vec<_> = (0..10_000).filter_map(|_| engine.submit(request.clone()).ok()).collect();
    let done = taken.iter_mut().filter_map(|events| {
        std::iter::from_fn(|| events.try_recv().ok()).find(|event| matches!(event, engine::Event::Done(_)))
    });
    let done = done.count();
    assert!((4..=5 + done).contains(&taken.len()), "{}, of whom {done} are done", taken.len());
    let body = with(ask("sql", "a"), json!({"max_tokens": 2}));
    taken.truncate(2);
    served.post(CHAT, &body).ok();
    drop(taken);
    served.wait_until_idle();
}
