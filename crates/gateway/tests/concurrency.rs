//! Many clients at once get what each would get alone.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use receipt::Bundle;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use support::{BASE, Served, ask, content, examples, with};

/// Fifty different requests: every model, whole and streamed, greedy and drawn.
fn requests() -> Vec<Value> {
    let models = [BASE, "triage", "extract", "sql", "reply", "spanish"];
    let questions: Vec<(String, String)> = examples("reply");
    (0..50)
        .map(|i| {
            let settings = json!({
                "max_tokens": 8 + i % 17,
                "temperature": if i % 3 == 0 { 0.0 } else { 1.0 },
                "seed": i,
                "stream": i % 5 == 0,
            });
            with(ask(models[i % models.len()], &questions[i].0), settings)
        })
        .collect()
}

/// The text of an answer and the id of its receipt.
fn answer(served: &Served, request: &Value) -> (String, String) {
    let answer = served.post("/v1/chat/completions", request);
    if request["stream"] == false {
        let answer = answer.ok();
        return (content(&answer), answer["receipt"]["id"].as_str().unwrap().to_owned());
    }
    let mut events = answer.events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let chunks: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let pieces = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    let id = chunks.last().unwrap()["receipt"]["id"].as_str().unwrap().to_owned();
    (pieces.collect(), id)
}

#[test]
fn fifty_clients_of_all_adapters_at_once_get_what_they_get_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let requests = requests();
    let alone: Vec<_> = requests.iter().map(|request| answer(&served, request)).collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let served = &served;
        let askers: Vec<_> = requests.iter().map(|request| scope.spawn(move || answer(served, request))).collect();
        askers.into_iter().map(|asker| asker.join().unwrap()).collect()
    });
    let mut numbers = BTreeSet::new();
    for (i, ((text_alone, id_alone), (text_together, id_together))) in alone.iter().zip(&together).enumerate() {
        assert_eq!(text_alone, text_together, "request {i}");
        let bundle = |id: &str| Bundle::from_bytes(&served.get(&format!("/v1/receipts/{id}")).body).unwrap();
        let (alone, together) = (bundle(id_alone), bundle(id_together));
        assert_eq!(alone.opening.leaves, together.opening.leaves, "the traces of request {i}");
        assert_eq!(alone.opening.output, together.opening.output);
        numbers.extend([alone, together].map(|bundle| bundle.check().unwrap().claims.number));
    }
    assert_eq!(numbers, (0..100).collect());
}
