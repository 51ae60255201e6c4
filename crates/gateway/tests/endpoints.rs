//! What every endpoint answers when all is well.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use serde_json::{Value, json};
use std::sync::OnceLock;
use support::{BASE, Served, ask, content, examples, with};

/// One server for the tests of this file.
fn served() -> &'static Served {
    static SERVED: OnceLock<(tempfile::TempDir, Served)> = OnceLock::new();
    let (_, served) = SERVED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let served = Served::start(folder.path());
        (folder, served)
    });
    served
}

fn chat(request: Value) -> Value {
    served().post("/v1/chat/completions", &request).ok()
}

/// The chunks of a stream, which must end with `[DONE]`.
fn chunks(path: &str, request: Value) -> Vec<Value> {
    let mut events = served().post(path, &with(request, json!({"stream": true}))).events();
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

#[test]
fn the_front_page_says_where_to_point_a_client() {
    let answer = served().get("/");
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("/v1/chat/completions") && answer.text().contains(BASE));
}

#[test]
fn health_tells_the_load() {
    let health = served().get("/health").ok();
    assert_eq!(health["status"], "ok");
    assert!(health["load"]["pages_total"].as_u64().unwrap() > 0);
}

#[test]
fn the_base_and_the_adapters_are_models() {
    let list = served().get("/v1/models").ok();
    let ids: Vec<&str> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [BASE, "extract", "reply", "spanish", "sql", "triage"]);
    for id in ids {
        let model = served().get(&format!("/v1/models/{id}")).ok();
        assert_eq!((&model["id"], &model["object"]), (&json!(id), &json!("model")));
        assert_eq!(model["parent"].is_null(), id == BASE);
    }
    assert_eq!(served().get("/v1/models/demo%2Fbase").ok()["id"], BASE);
    assert_eq!(served().get("/v1/models/none").status, 404);
}

#[test]
fn adapters_answer_as_they_were_trained_to() {
    for adapter in ["sql", "triage"] {
        let examples = &examples(adapter)[..10];
        let right = examples
            .iter()
            .filter(|(question, want)| content(&chat(with(ask(adapter, question), json!({"temperature": 0})))) == *want)
            .count();
        assert!(right >= 8, "{adapter}: {right} of 10");
    }
}

#[test]
fn a_chat_completion_has_openais_shape() {
    let request = with(ask("sql", "Count the paid orders per city."), json!({"temperature": 0, "max_tokens": 5}));
    let answer = served().post("/v1/chat/completions", &request);
    let got = answer.ok();
    assert!(got["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!((&got["object"], &got["model"]), (&json!("chat.completion"), &json!("sql")));
    assert!(got["created"].as_u64().unwrap() > 1_700_000_000);
    assert!(got["system_fingerprint"].as_str().unwrap().starts_with(&format!("lockstep-{}-", exact::VERSION)));
    let choice = &got["choices"][0];
    assert_eq!((&choice["index"], &choice["finish_reason"]), (&json!(0), &json!("length")));
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(got["usage"]["completion_tokens"], 5);
    let total = got["usage"]["prompt_tokens"].as_u64().unwrap() + 5;
    assert_eq!(got["usage"]["total_tokens"], total);
    let id = got["receipt"]["id"].as_str().unwrap();
    assert_eq!(answer.headers["x-lockstep-receipt"], id);
    assert_eq!(got["receipt"]["url"], format!("/v1/receipts/{id}"));
}

#[test]
fn a_chat_without_a_limit_goes_on_until_the_model_ends_it() {
    let got = chat(with(ask("triage", &examples("triage")[0].0), json!({"temperature": 0})));
    assert_eq!(got["choices"][0]["finish_reason"], "stop");
}

#[test]
fn a_text_completion_has_openais_shape_and_16_tokens_by_default() {
    let request = json!({"model": BASE, "prompt": "Hello, my order", "ignore_eos": true});
    let got = served().post("/v1/completions", &request).ok();
    assert!(got["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!(got["object"], "text_completion");
    assert_eq!(got["usage"]["completion_tokens"], 16);
    assert_eq!(got["choices"][0]["finish_reason"], "length");
    assert!(got["choices"][0]["text"].is_string() && got["receipt"]["id"].is_string());
}

#[test]
fn several_prompts_become_choices_each_with_a_receipt() {
    let text = ["Where is my order?", "The red kettle", "Refund"];
    let request = |prompt: Value| json!({"model": BASE, "prompt": prompt, "temperature": 0, "max_tokens": 8});
    let answer = served().post("/v1/completions", &request(json!(text)));
    let got = answer.ok();
    let mut ids = vec![];
    for (index, text) in text.iter().enumerate() {
        let alone = served().post("/v1/completions", &request(json!(text))).ok();
        let choice = &got["choices"][index];
        assert_eq!((&choice["text"], &choice["index"]), (&alone["choices"][0]["text"], &json!(index)));
        ids.push(choice["receipt"]["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(answer.headers["x-lockstep-receipt"], ids.join(", "));
    let tokens: Vec<Vec<u32>> = text.iter().map(|text| support::demo().text.encode(text, true).unwrap()).collect();
    let by_tokens = served().post("/v1/completions", &request(json!(tokens))).ok();
    let texts = |answer: &Value| -> Vec<Value> {
        answer["choices"].as_array().unwrap().iter().map(|choice| choice["text"].clone()).collect()
    };
    assert_eq!(texts(&by_tokens), texts(&got));
    let one = served().post("/v1/completions", &request(json!(tokens[0]))).ok();
    assert_eq!(one["choices"][0]["text"], got["choices"][0]["text"]);
}

#[test]
fn a_streamed_chat_says_what_the_whole_one_says() {
    for (adapter, temperature) in [("reply", 0.0), ("reply", 1.0), ("spanish", 1.5), (BASE, 1.0)] {
        let settings = json!({"temperature": temperature, "seed": 7, "max_tokens": 60, "top_p": 0.95});
        let request = with(ask(adapter, &examples("reply")[1].0), settings);
        let whole = chat(request.clone());
        let chunks = chunks("/v1/chat/completions", request);
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        let pieces = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
        assert_eq!(pieces.collect::<String>(), content(&whole));
        let last = chunks.last().unwrap();
        assert_eq!(last["choices"][0]["finish_reason"], whole["choices"][0]["finish_reason"]);
        assert!(last["receipt"]["id"].as_str().unwrap().starts_with("rcpt-"));
        for chunk in &chunks {
            assert_eq!((&chunk["id"], &chunk["object"]), (&chunks[0]["id"], &json!("chat.completion.chunk")));
            assert!(chunk.get("usage").is_none());
        }
    }
}

#[test]
fn a_stream_tells_its_usage_if_asked() {
    let request = with(ask("sql", "Count the paid orders per city."), json!({"temperature": 0}));
    let whole = chat(request.clone());
    let chunks = chunks("/v1/chat/completions", with(request, json!({"stream_options": {"include_usage": true}})));
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
    assert!(others.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
}

#[test]
fn a_streamed_text_completion_gives_each_choice() {
    let request = json!({"model": BASE, "prompt": ["My order", "The lamp"], "seed": 3, "max_tokens": 20});
    let whole = served().post("/v1/completions", &request).ok();
    let chunks = chunks("/v1/completions", request);
    for index in 0..2 {
        let of_choice = || chunks.iter().filter(|chunk| chunk["choices"][0]["index"] == index);
        let text: String = of_choice().filter_map(|chunk| chunk["choices"][0]["text"].as_str()).collect();
        assert_eq!(text, whole["choices"][index]["text"].as_str().unwrap());
        assert_eq!(of_choice().filter(|chunk| chunk["receipt"]["id"].is_string()).count(), 1);
    }
}

#[test]
fn stop_strings_end_an_answer_before_them() {
    let request = with(ask("sql", "Count the paid orders per city."), json!({"temperature": 0}));
    let whole = content(&chat(request.clone()));
    let stop = &whole[7..12];
    let got = chat(with(request.clone(), json!({"stop": stop})));
    assert_eq!(content(&got), whole.split(stop).next().unwrap());
    assert_eq!(got["choices"][0]["finish_reason"], "stop");
    let streamed = chunks("/v1/chat/completions", with(request, json!({"stop": ["never", stop]})));
    let pieces = streamed.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(pieces.collect::<String>(), content(&got));
}

#[test]
fn an_answer_without_a_seed_can_be_repeated_with_the_seed_its_receipt_names() {
    let request = with(ask("reply", &examples("reply")[2].0), json!({"temperature": 1.2, "max_tokens": 40}));
    let first = chat(request.clone());
    let url = format!("{}?format=json", first["receipt"]["url"].as_str().unwrap());
    let receipt = served().get(&url).ok();
    assert_eq!(receipt["claims"]["seed_from_client"], false);
    let again = chat(with(request, json!({"seed": receipt["claims"]["seed"]})));
    assert_eq!(content(&again), content(&first));
}

#[test]
fn a_request_that_keeps_its_connection_can_be_followed_by_another() {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(served().address).unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /v1/models/sql HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
        let mut got = vec![];
        while !got.ends_with(b"}") {
            let mut buffer = [0; 4096];
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0);
            got.extend_from_slice(&buffer[..count]);
        }
    }
}
