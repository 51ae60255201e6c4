//! Penalties, biases, likelihoods, several answers, forms and tools: what comes back, and that its receipt replays.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use audit::{ReplayConfig, Verdict, replay};
use exact::Isa;
use receipt::Bundle;
use serde_json::{Value, json};
use std::sync::OnceLock;
use support::{BASE, Served, ask, content, demo, with};

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

/// The bundle of an answer's receipt.
fn bundle(receipt: &Value) -> Bundle {
    let answer = served().get(receipt["url"].as_str().unwrap());
    assert_eq!(answer.status, 200);
    Bundle::from_bytes(&answer.body).unwrap()
}

fn verdict(bundle: &Bundle) -> Verdict {
    let demo = demo();
    let claims = bundle.check().unwrap().claims;
    let adapter = demo.adapters.values().find(|adapter| Some(adapter.digest) == claims.adapter);
    let mut config = ReplayConfig::new(Isa::best(), 2);
    config.text = Some(&demo.text);
    replay(bundle, demo.model.clone(), adapter.map(|adapter| &**adapter), config).unwrap()
}

fn assert_replays(receipt: &Value) {
    let verdict = verdict(&bundle(receipt));
    assert!(verdict.is_equal(), "{verdict}");
}

const QUESTION: &str = "Where is the red lamp?";

#[test]
fn penalties_and_biases_change_answers_and_replay() {
    let request = with(ask(BASE, QUESTION), json!({"temperature": 0, "max_tokens": 24}));
    let plain = content(&chat(request.clone()));
    let again = with(request.clone(), json!({"presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}}));
    assert_eq!(content(&chat(again)), plain);
    for more in [
        json!({"presence_penalty": 2}),
        json!({"frequency_penalty": 2}),
        json!({"repetition_penalty": 1.8}),
        json!({"logit_bias": {"300": 60}}),
        json!({"min_tokens": 24, "ignore_eos": false}),
    ] {
        let answer = chat(with(request.clone(), more.clone()));
        assert_replays(&answer["receipt"]);
        if more.get("min_tokens").is_some() {
            assert_eq!(answer["usage"]["completion_tokens"], 24);
        }
        if more.get("logit_bias").is_some() {
            assert_ne!(content(&answer), plain);
        }
    }
}

#[test]
fn likelihoods_are_told_of_every_token_streamed_or_not() {
    let request = with(ask(BASE, QUESTION), json!({"seed": 4, "max_tokens": 12, "logprobs": true, "top_logprobs": 20}));
    let whole = chat(request.clone());
    let tokens = whole["choices"][0]["logprobs"]["content"].as_array().unwrap().clone();
    assert_eq!(tokens.len() as u64, whole["usage"]["completion_tokens"].as_u64().unwrap());
    for token in &tokens {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 20);
        let logprobs: Vec<f64> = top.iter().map(|named| named["logprob"].as_f64().unwrap()).collect();
        assert!(logprobs.is_sorted_by(|a, b| a >= b) && logprobs.iter().map(|p| p.exp()).sum::<f64>() <= 1.000_01);
        let own = token["logprob"].as_f64().unwrap();
        let same = top.iter().find(|named| named["bytes"] == token["bytes"]);
        assert!(same.is_none_or(|named| named["logprob"].as_f64() == Some(own)));
    }
    let bytes: Vec<u8> =
        tokens.iter().flat_map(|token| token["bytes"].as_array().unwrap()).map(|b| b.as_u64().unwrap() as u8).collect();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.starts_with(&content(&whole)), "{text:?}");
    let events = served().post("/v1/chat/completions", &with(request, json!({"stream": true}))).events();
    let streamed: Vec<Value> = events
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .flat_map(|chunk| chunk["choices"][0]["logprobs"]["content"].as_array().cloned().unwrap_or_default())
        .collect();
    assert_eq!(streamed, tokens);

    let request = json!({"model": BASE, "prompt": "My order", "max_tokens": 5, "seed": 1, "logprobs": 2});
    let answer = served().post("/v1/completions", &request).ok();
    let logprobs = &answer["choices"][0]["logprobs"];
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(logprobs[name].as_array().unwrap().len() as u64, answer["usage"]["completion_tokens"], "{name}");
    }
}

#[test]
fn several_answers_come_to_one_question_each_with_its_receipt() {
    let request = with(ask("reply", QUESTION), json!({"seed": 11, "max_tokens": 10, "n": 3, "temperature": 1.5}));
    let three = chat(request.clone());
    let choices = three["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 3);
    let one = chat(with(request, json!({"n": 1, "seed": 13})));
    assert_eq!(choices[2]["message"]["content"], one["choices"][0]["message"]["content"]);
    let seeds: Vec<u64> =
        choices.iter().map(|choice| bundle(&choice["receipt"]).check().unwrap().claims.seed).collect();
    assert_eq!(seeds, [11, 12, 13]);
    assert_eq!(three["usage"]["prompt_tokens"], one["usage"]["prompt_tokens"]);
    choices.iter().for_each(|choice| assert_replays(&choice["receipt"]));
}

#[test]
fn answers_keep_to_the_form_asked_for_and_replay() {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["colour", "count"],
        "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "minimum": 3, "maximum": 40}},
    });
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    for seed in 0..6 {
        let request = with(
            ask("extract", "Two blue kettles"),
            json!({"seed": seed, "temperature": 1.5, "max_tokens": 80, "response_format": format}),
        );
        let answer = chat(request);
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        let value: Value = serde_json::from_str(&content(&answer)).unwrap();
        assert!(["red", "blue"].contains(&value["colour"].as_str().unwrap()), "{value}");
        assert!((3..=40).contains(&value["count"].as_i64().unwrap()), "{value}");
        assert_eq!(value.as_object().unwrap().len(), 2);
        let bundle = bundle(&answer["receipt"]);
        assert!(verdict(&bundle).is_equal());
        // Another form is another answer.
        let mut cheated = bundle.clone();
        cheated.opening.settings.shaping.form = None;
        assert!(cheated.check().is_err());
    }
    let regex = json!({"response_format": {"type": "regex", "pattern": "[A-Z]{3}-[0-9]{4}"}, "max_tokens": 30});
    let answer = chat(with(ask("sql", "a number?"), regex));
    let text = content(&answer);
    assert!(text.len() == 8 && text.as_bytes()[3] == b'-', "{text}");
    assert_replays(&answer["receipt"]);
    let request = json!({"model": BASE, "prompt": "It is", "structured_outputs": {"choice": ["warm", "cold \"now\""]}});
    let answer = served().post("/v1/completions", &request).ok();
    assert!(["warm", "cold \"now\""].contains(&content(&answer).as_str()));
}

#[test]
fn forms_that_mean_nothing_or_too_much_are_refused_and_harm_nobody() {
    let ask_for = |format: Value| {
        served()
            .post("/v1/chat/completions", &with(ask(BASE, "a"), json!({"response_format": format, "max_tokens": 20})))
    };
    let schema = |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    let mut deep = json!({"type": "string"});
    for _ in 0..100 {
        deep = json!({"type": "array", "items": deep});
    }
    let wide: serde_json::Map<String, Value> =
        (0..60_000).map(|i| (format!("key{i}"), json!({"type": "string"}))).collect();
    for format in [
        schema(json!({"type": "strin"})),
        schema(json!({"$ref": "https://example.com/x"})),
        schema(json!(false)),
        schema(deep),
        schema(json!({"type": "object", "properties": wide})),
        json!({"type": "regex", "pattern": "(((("}),
    ] {
        let answer = ask_for(format);
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert_eq!(answer.json()["error"]["param"], "response_format");
    }
    // Large, but not too large.
    let large = json!({"type": "regex", "pattern": "(a{1,1000}){1,1000}(b{1,1000}){1,1000}"});
    assert!([200, 400].contains(&ask_for(large).status));
    assert_eq!(ask_for(json!({"type": "json_object"})).status, 200);
}

/// Schemas that are small to write and large to keep to.
fn bombs() -> Vec<Value> {
    let chain = |count: usize, each: &dyn Fn(Value) -> Value| {
        let link = |i: usize| (format!("a{i}"), each(json!({"$ref": format!("#/$defs/a{}", i + 1)})));
        let mut defs: serde_json::Map<String, Value> = (0..count).map(link).collect();
        defs.insert(format!("a{count}"), json!({"type": "string", "maxLength": 9}));
        json!({"$ref": "#/$defs/a0", "$defs": defs})
    };
    let pair = |name: &'static str| move |link: Value| json!({name: [link.clone(), link]});
    let two = |link: Value| {
        json!({"type": "object", "properties": {"a": link.clone(), "b": link},
        "required": ["a", "b"], "additionalProperties": false})
    };
    let words: Vec<String> = (0..15_000).map(|i| format!("word{i}")).collect();
    let choices: Vec<Value> = (0..2_000)
        .map(|i| json!({"type": "object", "properties": {format!("k{i}"): {"type": "integer"}}, "additionalProperties": false}))
        .collect();
    let mut nested = json!({"type": "boolean"});
    for _ in 0..60 {
        nested = json!({"type": "object", "properties": {"a": nested}, "required": ["a"]});
    }
    vec![
        chain(3_000, &|link| link),
        chain(40, &pair("allOf")),
        chain(40, &pair("anyOf")),
        chain(40, &two),
        json!({"$ref": "#"}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        json!({"type": "array", "items": {"$ref": "#"}, "minItems": 1_000_000_000}),
        json!({"enum": words}),
        json!({"anyOf": choices}),
        nested,
        json!({"type": "string", "minLength": 1_000_000_000}),
        json!({"type": "string", "pattern": "^((a|b){1,500}){1,500}$"}),
        json!({"type": "integer", "minimum": 1, "maximum": 1e300, "multipleOf": 7}),
        json!({"type": "array", "items": {"type": "string", "pattern": "^.*x.{50}$"}}),
    ]
}

#[test]
fn small_forms_that_explode_end_in_an_answer_or_an_error_and_harm_nobody() {
    let expressions = [
        "((a{1,300}){1,300}){1,300}",
        "(x+x+)+y",
        ".*a.{200}",
        "[a-z]{0,1000000}",
        "(a|aa|aaa|aaaa){1,100000}",
        "(.*)*(.*)*(.*)*b",
        "(?i)(straße|ſtraße){1,5000}",
    ];
    let schemas = bombs()
        .into_iter()
        .map(|schema| json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}));
    let expressions = expressions.map(|pattern| json!({"type": "regex", "pattern": pattern}));
    for format in schemas.chain(expressions) {
        let asked = json!({"response_format": format, "max_tokens": 16, "temperature": 0});
        let answer = served().post("/v1/chat/completions", &with(ask(BASE, "a"), asked));
        if answer.status != 200 {
            let error = &answer.json()["error"];
            assert_eq!(answer.status, 400, "{}", answer.text());
            assert!(["invalid_form", "form_failed"].contains(&error["code"].as_str().unwrap()), "{error}");
        }
        assert_eq!(chat(with(ask(BASE, "a"), json!({"max_tokens": 2})))["object"], "chat.completion");
    }
}

fn tools() -> Value {
    let parameters = json!({"type": "object", "additionalProperties": false, "required": ["city"],
        "properties": {"city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 1, "maximum": 9}}});
    json!([
        {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": parameters}},
        {"type": "function", "function": {"name": "time"}},
    ])
}

#[test]
fn tools_that_must_be_called_are_called_in_their_form_streamed_or_not() {
    let named = json!({"type": "function", "function": {"name": "weather"}});
    for (choice, reason) in [(json!("required"), "tool_calls"), (named, "stop")] {
        let more = json!({"tools": tools(), "tool_choice": choice, "parallel_tool_calls": false, "seed": 5, "max_tokens": 200});
        let request = with(ask("extract", "What is the weather in Graz?"), more);
        let answer = chat(request.clone());
        let message = &answer["choices"][0]["message"];
        assert_eq!((&message["content"], &answer["choices"][0]["finish_reason"]), (&Value::Null, &json!(reason)));
        let calls = message["tool_calls"].as_array().unwrap();
        assert_eq!(calls.len(), 1);
        assert!(calls[0]["id"].as_str().unwrap().starts_with("call_") && calls[0]["type"] == "function");
        let function = &calls[0]["function"];
        let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
        match function["name"].as_str().unwrap() {
            "weather" => assert!(arguments["city"].as_str().unwrap().chars().count() <= 12),
            name => assert!(name == "time" && arguments == json!({}) && choice == "required"),
        }
        assert_replays(&answer["receipt"]);

        let events = served().post("/v1/chat/completions", &with(request, json!({"stream": true}))).events();
        let chunks: Vec<Value> = events.iter().filter_map(|event| serde_json::from_str(event).ok()).collect();
        let deltas: Vec<&Value> =
            chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].get(0)).collect();
        assert_eq!(deltas[0]["function"]["name"], function["name"]);
        assert!(deltas[0]["id"].is_string() && deltas.iter().all(|delta| delta["index"] == 0));
        let streamed: String = deltas.iter().filter_map(|delta| delta["function"]["arguments"].as_str()).collect();
        assert_eq!(streamed, function["arguments"].as_str().unwrap());
        assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], reason);
    }
}

#[test]
fn conversations_with_calls_and_results_are_answered() {
    let call =
        json!({"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Graz\"}"}});
    let messages = json!([
        {"role": "user", "content": "Weather in Graz?"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]);
    for choice in ["auto", "none"] {
        let request =
            json!({"model": "reply", "messages": messages, "tools": tools(), "tool_choice": choice, "max_tokens": 16});
        let answer = chat(request);
        assert_replays(&answer["receipt"]);
    }
}

#[test]
fn stop_strings_are_part_of_the_replay() {
    let request = with(ask("reply", QUESTION), json!({"temperature": 0, "max_tokens": 40, "seed": 1}));
    let text = content(&chat(request.clone()));
    let middle: String = text.chars().skip(8).take(3).collect();
    let answer = chat(with(request.clone(), json!({"stop": [middle]})));
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_replays(&answer["receipt"]);

    // A server that stops too early, or not at all, and signs for it.
    let key = receipt::SigningKey::from_bytes(&[3; 32]);
    let resign = |bundle: &Bundle, change: &dyn Fn(&mut receipt::Opening, &mut receipt::Claims)| {
        let (mut opening, mut claims) = (bundle.opening.clone(), bundle.check().unwrap().claims);
        change(&mut opening, &mut claims);
        opening.leaves.truncate((opening.prompt.len() + opening.output.len()).saturating_sub(1));
        claims.settings = opening.settings_hash();
        claims.output = opening.output_hash();
        claims.output_tokens = opening.output.len() as u64;
        claims.trace = opening.trace_root();
        Bundle { receipt: receipt::sign(&key, &claims), opening }
    };
    let honest = bundle(&answer["receipt"]);
    assert!(verdict(&resign(&honest, &|_, _| {})).is_equal());
    let early = resign(&honest, &|opening, _| opening.output.truncate(opening.output.len() - 1));
    assert!(!verdict(&early).is_equal());
    let full = bundle(&chat(request)["receipt"]);
    let ignored =
        resign(&full, &|opening, _| opening.settings.stop_strings = honest.opening.settings.stop_strings.clone());
    assert!(!verdict(&ignored).is_equal());
}
