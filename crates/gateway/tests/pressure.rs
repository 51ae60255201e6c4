//! Keys, full queues, what is measured, and readers that do not read.

mod support;

use gateway::{Keys, Limits};
use serde_json::json;
use std::io::{Read, Write};
use std::time::Duration;
use support::{BASE, Served, ask, demo, engine, wait_for, wait_until, with};

#[test]
fn without_its_key_nothing_under_v1_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut keys = Keys::default();
    keys.add("ada", "lsk-secret");
    let served = Served::serving(engine(|_| {}), folder.path(), Limits::default(), demo().adapters.clone(), keys);
    let body = with(ask(BASE, "a"), json!({"max_tokens": 2})).to_string();
    let send = |key: Option<&str>| {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(key.map(|key| ("authorization", key)));
        served.send("POST", "/v1/chat/completions", &headers, body.as_bytes())
    };
    assert_eq!(send(Some("Bearer lsk-secret")).status, 200);
    for key in [None, Some("Bearer lsk-secre"), Some("lsk-secret"), Some("Bearer")] {
        let answer = send(key);
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (401, &json!("invalid_api_key")));
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    assert_eq!(served.get("/v1/receipts/rcpt-00").status, 404);
    for path in ["/v1/models", "/v1/models/sql", "/v1/nothing"] {
        assert_eq!(served.get(path).status, 401, "{path}");
    }
    assert_eq!((served.get("/health").status, served.get("/metrics").status), (200, 200));
}

#[test]
fn a_full_queue_says_so_at_once_and_when_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(|config| (config.sequences_max, config.queue_max) = (1, 2));
    let served = Served::with(engine.clone(), folder.path(), Limits::default());
    let long = with(ask(BASE, "a"), json!({"max_tokens": 900, "ignore_eos": true, "stream": true})).to_string();
    let headers = [("content-type", "application/json")];
    let open = || {
        let mut stream = served.open("POST", "/v1/chat/completions", &headers, long.as_bytes());
        assert!(stream.read(&mut [0; 16]).unwrap() > 0);
        stream
    };
    let mut streams = vec![];
    // One runs and two wait, unless the first is done already: then the queue is filled again.
    let refused = wait_for("a full queue", || {
        let load = engine.load();
        if load.waiting < 2 {
            streams.push(open());
        }
        if load.waiting < 2 || load.running == 0 {
            return None;
        }
        let answer = served.post("/v1/chat/completions", &with(ask(BASE, "a"), json!({"max_tokens": 1})));
        (answer.status != 200).then_some(answer)
    });
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("queue_full")), "{}", refused.text());
    assert!(refused.headers["retry-after"].parse::<u32>().unwrap() >= 1);
    assert!(served.metric("lockstep:request_errors_total{model_name=\"demo/base\",kind=\"queue_full\"}") >= 1.0);
    drop(streams);
    served.wait_until_idle();
    assert_eq!(served.post("/v1/chat/completions", &with(ask(BASE, "a"), json!({"max_tokens": 2}))).status, 200);
}

#[test]
fn what_is_measured_is_told_to_prometheus() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let value = |name: &str| served.metric(name);
    let answer =
        served.post("/v1/chat/completions", &with(ask("sql", "a"), json!({"max_tokens": 5, "ignore_eos": true}))).ok();
    assert_eq!(served.post("/v1/chat/completions", &json!({})).status, 400);
    assert_eq!(value("vllm:generation_tokens_total"), 5.0);
    assert_eq!(value("vllm:prompt_tokens_total"), answer["usage"]["prompt_tokens"].as_f64().unwrap());
    assert_eq!(served.ended("length"), 1.0);
    assert_eq!(value("lockstep:request_errors_total{model_name=\"demo/base\",kind=\"refused\"}"), 1.0);
    assert_eq!(value("vllm:time_to_first_token_seconds_count"), 1.0);
    assert_eq!(value("vllm:e2e_request_latency_seconds_count"), 1.0);
    assert!(value("vllm:inter_token_latency_seconds_count") >= 1.0);
    served.wait_until_idle();
    assert_eq!((value("vllm:num_requests_running"), value("vllm:kv_cache_usage_perc")), (0.0, 0.0));
}

#[test]
fn an_answer_that_nobody_reads_ends_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { stall_deadline: Duration::from_millis(300), ..Limits::default() };
    let served = Served::with(engine(|_| {}), folder.path(), limits);
    let more = json!({"max_tokens": 900, "ignore_eos": true, "stream": true, "logprobs": true, "top_logprobs": 20});
    let headers = [("content-type", "application/json")];
    // A few hundred tokens with twenty likely ones each are more than a connection's buffers hold.
    let deaf = served.open("POST", "/v1/chat/completions", &headers, with(ask(BASE, "a"), more).to_string().as_bytes());
    let answer = served.post("/v1/chat/completions", &with(ask(BASE, "b"), json!({"max_tokens": 4}))).ok();
    assert!(answer["usage"]["completion_tokens"].as_u64().unwrap() >= 1);
    served.wait_until_idle();
    drop(deaf);
}

#[test]
fn a_server_that_ends_finishes_what_it_has_begun_and_refuses_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { shutdown_grace: Duration::from_secs(600), ..Limits::default() };
    // Answers one after another: seconds, in which all below happens.
    let served = Served::with(engine(|config| config.sequences_max = 1), folder.path(), limits);
    let more = json!({"max_tokens": 1900, "ignore_eos": true, "stream": true, "n": 8});
    let headers = [("content-type", "application/json")];
    let body = with(ask(BASE, "a"), more).to_string();
    let mut stream = served.open("POST", "/v1/chat/completions", &headers, body.as_bytes());
    assert!(stream.read(&mut [0; 16]).unwrap() > 0);
    let address = served.address;
    let engine = served.engine.clone();
    let ending = std::thread::spawn(move || served.stop());
    wait_until("its end", || engine.is_draining());
    // Whoever comes now is told, for as long as the answer under way takes.
    for _ in 0..3 {
        let mut late = std::net::TcpStream::connect(address).unwrap();
        let body = ask(BASE, "b").to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut answer = String::new();
        late.write_all(format!("{head}{body}").as_bytes()).unwrap();
        late.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
    }
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("[DONE]") && rest.contains("\"receipt\""), "the answer under way is complete");
    ending.join().unwrap();
}
