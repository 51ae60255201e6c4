//! What is refused, how, and that the server goes on.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use gateway::Limits;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::OnceLock;
use std::time::Duration;
use support::{Answer, BASE, Served, ask, engine, wait_for, wait_until, with};

fn served() -> &'static Served {
    static SERVED: OnceLock<(tempfile::TempDir, Served)> = OnceLock::new();
    let (_, served) = SERVED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { body_bytes_max: 1 << 20, ..Limits::default() };
        let served = Served::with(engine(|_| {}), folder.path(), limits);
        (folder, served)
    });
    served
}

/// Checks the shape and the status; gives the error.
fn error(answer: &Answer, status: u16) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    let error = body["error"].as_object().unwrap();
    let keys: Vec<&str> = error.keys().map(String::as_str).collect();
    assert_eq!(keys.len(), 4, "{keys:?}");
    assert!(error["message"].as_str().unwrap().len() > 5);
    assert!(keys.contains(&"type") && keys.contains(&"param") && keys.contains(&"code"));
    body["error"].clone()
}

fn chat(request: Value) -> Answer {
    served().post("/v1/chat/completions", &request)
}

#[test]
fn an_unknown_model_is_told_which_there_are() {
    for path in ["/v1/chat/completions", "/v1/completions"] {
        let request = match path {
            "/v1/completions" => json!({"model": "gpt-9", "prompt": "a"}),
            _ => ask("gpt-9", "a"),
        };
        let error = error(&served().post(path, &request), 404);
        assert_eq!(error["code"], "model_not_found");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("gpt-9") && message.contains(BASE) && message.contains("triage"), "{message}");
    }
}

#[test]
fn wrong_parameters_are_named() {
    let cases = [
        ("temperature", json!(-1)),
        ("temperature", json!("warm")),
        ("top_p", json!(2)),
        ("top_k", json!(-7)),
        ("min_p", json!(1.5)),
        ("max_tokens", json!(0)),
        ("max_completion_tokens", json!(-1)),
        ("seed", json!("x")),
        ("seed", json!(1e300)),
        ("stop", json!([[]])),
        ("stream", json!("yes")),
        ("n", json!(0)),
        ("logprobs", json!(3)),
        ("top_logprobs", json!(2)),
        ("logit_bias", json!({"1": 200})),
        ("logit_bias", json!({"x": 1})),
        ("min_tokens", json!(-1)),
        ("response_format", json!("json")),
        ("tool_choice", json!("required")),
        ("frequency_penalty", json!(3)),
        ("presence_penalty", json!(-2.5)),
        ("repetition_penalty", json!(0)),
        ("colour", json!("red")),
        ("messages", json!([])),
        ("messages", json!(null)),
        ("model", json!(null)),
    ];
    for (name, value) in cases {
        let error = error(&chat(with(ask("sql", "a"), json!({name: value}))), 400);
        assert_eq!((&error["param"], &error["type"]), (&json!(name), &json!("invalid_request_error")), "{error}");
    }
}

#[test]
fn an_unknown_parameter_is_told_as_openai_tells_it() {
    let error = error(&chat(with(ask("sql", "a"), json!({"colour": "red"}))), 400);
    assert_eq!(error["message"], "Unrecognized request argument supplied: colour");
}

#[test]
fn images_are_refused_by_name() {
    let content = json!([{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "x"}}]);
    let request = json!({"model": "sql", "messages": [{"role": "user", "content": content}]});
    let error = error(&chat(request), 400);
    assert_eq!(error["param"], "messages[0].content[1]");
    assert!(error["message"].as_str().unwrap().contains("image_url"));
}

#[test]
fn what_is_longer_than_the_context_is_refused_whatever_its_length() {
    for words in [3_000, 100_000] {
        let error = error(&chat(ask("sql", &"kettle ".repeat(words))), 400);
        assert_eq!((&error["code"], &error["param"]), (&json!("context_length_exceeded"), &json!("messages")));
    }
    let request = with(ask("sql", "a"), json!({"max_tokens": 1_000_000}));
    assert_eq!(error(&chat(request), 400)["code"], "context_length_exceeded");
    let request = json!({"model": BASE, "prompt": vec![9; 5000]});
    assert_eq!(error(&served().post("/v1/completions", &request), 400)["code"], "context_length_exceeded");
}

#[test]
fn tokens_that_do_not_exist_and_empty_prompts_are_refused() {
    for prompt in [json!([999_999]), json!([]), json!([[]]), json!([1.5])] {
        let answer = served().post("/v1/completions", &json!({"model": BASE, "prompt": prompt}));
        assert_eq!(error(&answer, 400)["param"], "prompt");
    }
}

#[test]
fn bodies_that_are_not_json_objects_are_refused() {
    let json = [("content-type", "application/json")];
    let deep = vec![b'['; 100_000];
    let bodies: [&[u8]; 7] = [b"", b"{", b"[]", b"\"a\"", b"\xff\xfe", b"{\"model\": 1e999}", &deep];
    for body in bodies {
        error(&served().send("POST", "/v1/chat/completions", &json, body), 400);
    }
    let body = ask("sql", "a").to_string();
    for headers in [&[][..], &[("content-type", "text/plain")]] {
        error(&served().send("POST", "/v1/chat/completions", headers, body.as_bytes()), 415);
    }
}

#[test]
fn a_body_that_is_too_large_is_refused_in_openais_shape() {
    for bytes in [(1 << 20) + 1, 3 << 20] {
        let request = ask("sql", &"a".repeat(bytes));
        assert_eq!(error(&chat(request), 413)["code"], "request_too_large");
    }
}

#[test]
fn a_body_that_does_not_arrive_is_not_waited_for_long() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { body_deadline: Duration::from_millis(500), ..Limits::default() };
    let served = Served::with(engine(|_| {}), folder.path(), limits);
    let mut stream = std::net::TcpStream::connect(served.address).unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{";
    stream.write_all(head.as_bytes()).unwrap();
    // Less than the 60 s that others have.
    stream.set_read_timeout(Some(Duration::from_secs(50))).unwrap();
    let mut got = vec![0; 64];
    let count = stream.read(&mut got).unwrap();
    assert!(got[..count].starts_with(b"HTTP/1.1 408"));
}

#[test]
fn other_routes_and_methods_are_refused_in_the_same_shape() {
    error(&served().get("/v2/models"), 404);
    error(&served().get("/v1/chat/completions"), 405);
    error(&served().post("/v1/models", &json!({})), 405);
    error(&served().get("/v1/models/nothing"), 404);
    for id in ["x", "rcpt-", "rcpt-zz", &format!("rcpt-{}", "0".repeat(32)), "..%2F..%2Fnode.key"] {
        error(&served().get(&format!("/v1/receipts/{id}")), 404);
    }
}

#[test]
fn an_answer_that_takes_too_long_ends_with_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { answer_deadline: Duration::from_millis(50), ..Limits::default() };
    let served = Served::with(engine(|_| {}), folder.path(), limits);
    let long = with(ask("reply", "a"), json!({"max_tokens": 1900, "ignore_eos": true}));
    let whole = served.post("/v1/chat/completions", &long);
    assert_eq!(error(&whole, 504)["code"], "deadline_exceeded");
    let streamed = with(long, json!({"stream": true}));
    // Where the time is over before the answer begins, the error comes instead of a stream.
    let events = wait_for("a stream", || {
        let answer = served.post("/v1/chat/completions", &streamed);
        if answer.status == 200 {
            return Some(answer.events());
        }
        assert_eq!(error(&answer, 504)["code"], "deadline_exceeded");
        None
    });
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], "deadline_exceeded");
    served.wait_until_idle();
}

#[test]
fn clients_that_vanish_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::with(engine(|_| {}), folder.path(), Limits::default());
    let json = [("content-type", "application/json")];
    for stream in [true, false] {
        let long = with(ask("reply", "a"), json!({"max_tokens": 1900, "ignore_eos": true, "stream": stream}));
        let open = || served.open("POST", "/v1/chat/completions", &json, long.to_string().as_bytes());
        // Answers given up, and those that have a receipt.
        let ends = || (served.ended("abort"), served.metric("lockstep:receipts_total"));
        wait_until("five that vanish before any has its answer", || {
            let (given_up, kept) = ends();
            let mut streams: Vec<_> = (0..5).map(|_| open()).collect();
            if stream {
                for stream in &mut streams {
                    stream.read_exact(&mut [0; 200]).unwrap();
                }
            } else {
                wait_until("all five", || served.engine.load().running == 5 || ends().1 > kept);
            }
            for stream in streams {
                // Whoever has its answer is gone already.
                let _ = stream.shutdown(Shutdown::Both);
            }
            served.wait_until_idle();
            let ended = wait_for("an end of each", || {
                Some(ends()).filter(|(now_given_up, now_kept)| now_given_up + now_kept == given_up + kept + 5.0)
            });
            ended == (given_up + 5.0, kept)
        });
    }
    served.post("/v1/chat/completions", &with(ask("sql", "a"), json!({"max_tokens": 3}))).ok();
}

#[test]
fn an_adapter_that_leaves_the_range_of_numbers_is_told_as_the_servers_error() {
    let folder = tempfile::tempdir().unwrap();
    let sql = support::folder().join("adapters/sql");
    let mut adapter = model::Adapter::load(&sql, &support::demo().model, exact::Isa::best()).unwrap();
    for low_rank in adapter.sites.iter_mut().flatten() {
        low_rank.gain = 1e38;
    }
    let adapters = [("damaged".to_owned(), std::sync::Arc::new(adapter))].into();
    let served = Served::serving(engine(|_| {}), folder.path(), Limits::default(), adapters, gateway::Keys::default());
    let request = ask("damaged", "Count the orders.");
    let whole = error(&served.post("/v1/chat/completions", &request), 500);
    assert_eq!(whole["type"], "server_error");
    let events = served.post("/v1/chat/completions", &with(request, json!({"stream": true}))).events();
    let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
    assert_eq!(last["error"], whole);
    served.wait_until_idle();
    served.post("/v1/chat/completions", &with(ask(BASE, "a"), json!({"max_tokens": 3}))).ok();
}
