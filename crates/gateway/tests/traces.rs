//! Traces reach a collector as OpenTelemetry's conventions have them, and a collector that is ill harms nobody.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use gateway::{Config, Keys, Limits, Otlp, Server};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use support::{BASE, Served, ask, demo, engine, wait_until, with};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const CHILDREN: [&str; 4] = ["queue", "prefill", "decode", "receipt"];

/// A collector that takes everything; gives each request's head and body.
fn collector() -> (SocketAddr, Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, (sender, receiver)) = (listener.local_addr().unwrap(), channel());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            std::thread::spawn(move || listen(&stream.unwrap(), &sender));
        }
    });
    (address, receiver)
}

fn listen(stream: &TcpStream, sender: &Sender<(String, Value)>) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut head, mut line) = (String::new(), String::new());
        while reader.read_line(&mut line).unwrap_or(0) > 2 {
            head += &line.to_lowercase();
            line.clear();
        }
        let Some(length) = head.lines().find_map(|line| line.strip_prefix("content-length: ")) else { return };
        let mut body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        // Whoever asked may have seen enough.
        let _ = sender.send((head, serde_json::from_slice(&body).unwrap()));
        (&*stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
    }
}

fn traced(folder: &Path, collector: SocketAddr) -> Served {
    let engine = engine(|_| {});
    let (folder, adapters) = (folder.to_owned(), demo().adapters.clone());
    let config = Config { folder, base: BASE.into(), adapters, keys: Keys::default(), limits: Limits::default() };
    let otlp = Otlp::new(&format!("http://{collector}"), "x-token=a%20b", "shop").unwrap();
    let server = Server::new(engine.clone(), config).unwrap().with_traces(otlp).unwrap();
    Served::running(engine, server)
}

fn post(served: &Served, headers: &[(&str, &str)], body: &Value) -> support::Answer {
    let headers = [headers, &[("content-type", "application/json")]].concat();
    served.send("POST", "/v1/chat/completions", &headers, body.to_string().as_bytes())
}

/// All spans of all requests so far.
fn spans(requests: &[(String, Value)]) -> Vec<Value> {
    let of =
        |(_, body): &(String, Value)| body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone();
    requests.iter().flat_map(of).collect()
}

/// What a collector is sent until there is enough: a server that has ended sends on what it has.
fn sent(requests: &Receiver<(String, Value)>, enough: impl Fn(&[Value]) -> bool) -> Vec<(String, Value)> {
    let mut sent = vec![];
    while !enough(&spans(&sent)) {
        sent.push(requests.recv_timeout(Duration::from_secs(60)).unwrap());
    }
    sent
}

/// A span's attributes by name.
fn attributes(span: &Value) -> BTreeMap<String, Value> {
    let one = |attribute: &Value| {
        let (_, value) = attribute["value"].as_object().unwrap().iter().next().unwrap();
        (attribute["key"].as_str().unwrap().to_owned(), value.clone())
    };
    span["attributes"].as_array().unwrap().iter().map(one).collect()
}

fn texts(value: &Value) -> Vec<&str> {
    value["values"].as_array().unwrap().iter().map(|text| text["stringValue"].as_str().unwrap()).collect()
}

#[test]
fn a_request_is_a_span_of_its_callers_trace_and_tells_no_text() {
    let ((collector, requests), folder) = (collector(), tempfile::tempdir().unwrap());
    let served = traced(folder.path(), collector);
    let address = served.address;
    let headers = [("traceparent", &*format!("00-{TRACE}-{PARENT}-01")), ("tracestate", "a=1")];
    let asked = json!({"max_tokens": 7, "ignore_eos": true, "temperature": 0.5, "top_p": 0.9, "seed": 3,
        "presence_penalty": 0.25});
    let asked = with(ask("sql", "Marmalade in the cellar"), asked);
    let answer = post(&served, &headers, &asked).ok();
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    post(&served, &[("traceparent", &unsampled)], &asked).ok();
    let several = with(ask(BASE, "a"), json!({"max_tokens": 3, "n": 2, "stream": true}));
    post(&served, &[("traceparent", "not one")], &several).events();
    served.stop();
    let requests = sent(&requests, |spans| spans.len() >= 5 + 9);
    for (head, body) in &requests {
        assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
        assert!(head.contains("content-type: application/json") && head.contains("x-token: a b"), "{head}");
        let resource = attributes(&body["resourceSpans"][0]["resource"]);
        assert_eq!(resource["service.name"], "shop");
        assert!(resource.contains_key("service.version") && resource.contains_key("service.instance.id"));
        let said = answer["choices"][0]["message"]["content"].as_str().unwrap();
        let (receipt, text) = (answer["receipt"]["id"].as_str().unwrap(), body.to_string());
        let key = receipt.rsplit('-').next().unwrap();
        for secret in ["Marmalade", said.trim(), key] {
            assert!(!text.contains(secret), "{secret:?} is told");
        }
    }
    let spans = spans(&requests);
    assert_eq!(spans.len(), 5 + 9, "what the caller does not record is not recorded");
    let span = spans.iter().find(|span| span["parentSpanId"] == PARENT).unwrap();
    assert_eq!((&span["traceId"], &span["name"]), (&json!(TRACE), &json!("chat sql")));
    assert_eq!((&span["kind"], &span["flags"], &span["traceState"]), (&json!(2), &json!(0x301), &json!("a=1")));
    assert!(span["status"].is_null());
    let told = attributes(span);
    let usage = &answer["usage"];
    for (name, value) in [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("lockstep")),
        ("gen_ai.request.model", json!("sql")),
        ("gen_ai.response.model", json!("sql")),
        ("gen_ai.response.id", answer["id"].clone()),
        ("gen_ai.request.max_tokens", json!("7")),
        ("gen_ai.request.temperature", json!(0.5)),
        ("gen_ai.request.top_p", json!(0.9)),
        ("gen_ai.request.seed", json!("3")),
        ("gen_ai.request.presence_penalty", json!(0.25)),
        ("gen_ai.usage.input_tokens", json!(usage["prompt_tokens"].to_string())),
        ("gen_ai.usage.output_tokens", json!("7")),
        ("server.address", json!(address.ip().to_string())),
        ("server.port", json!(address.port().to_string())),
    ] {
        assert_eq!(told[name], value, "{name}");
    }
    assert_eq!(texts(&told["gen_ai.response.finish_reasons"]), ["length"]);
    let receipt = answer["receipt"]["id"].as_str().unwrap();
    assert_eq!(texts(&told["lockstep.receipt.ids"]), [receipt.rsplit_once('-').unwrap().0]);
    // Its parts follow each other within it.
    let time = |span: &Value, name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
    let mut at = time(span, "startTimeUnixNano");
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(since_1970 - Duration::from_nanos(at) < Duration::from_secs(600));
    for name in CHILDREN {
        let child =
            spans.iter().find(|child| child["name"] == name && child["parentSpanId"] == span["spanId"]).unwrap();
        assert_eq!((&child["traceId"], &child["kind"]), (&json!(TRACE), &json!(1)));
        let [start, end] = ["startTimeUnixNano", "endTimeUnixNano"].map(|name| time(child, name));
        assert!(at <= start && start <= end, "{name}");
        at = end;
    }
    assert!(at <= time(span, "endTimeUnixNano"));
    // Two answers to one question, streamed, in a trace of their own.
    let other = spans.iter().find(|span| span["name"] == format!("chat {BASE}")).unwrap();
    assert!(other["parentSpanId"].is_null() && other["traceId"] != TRACE);
    let told = attributes(other);
    assert_eq!(told["gen_ai.request.choice.count"], "2");
    assert_eq!(texts(&told["gen_ai.response.finish_reasons"]).len(), 2);
    assert_eq!(spans.iter().filter(|span| span["parentSpanId"] == other["spanId"]).count(), 8);
}

#[test]
fn requests_that_fail_or_are_given_up_say_so() {
    let ((collector, requests), folder) = (collector(), tempfile::tempdir().unwrap());
    let served = traced(folder.path(), collector);
    assert_eq!(post(&served, &[], &ask("gpt-9", "a")).status, 404);
    assert_eq!(post(&served, &[], &with(ask(BASE, "a"), json!({"colour": "red"}))).status, 400);
    let body = with(ask(BASE, "a"), json!({"max_tokens": 1900, "ignore_eos": true, "stream": true})).to_string();
    // One that was complete before its client had gone did not fail: then another is asked.
    wait_until("a request that is given up", || {
        let mut stream =
            served.open("POST", "/v1/chat/completions", &[("content-type", "application/json")], body.as_bytes());
        stream.read_exact(&mut [0; 200]).unwrap();
        drop(stream);
        served.wait_until_idle();
        served.ended("abort") >= 1.0
    });
    served.stop();
    let errors = |spans: &[Value]| -> Vec<(Value, Value)> {
        let error = |span: &Value| Some((attributes(span).get("error.type")?.clone(), span["status"].clone()));
        spans.iter().filter_map(error).collect()
    };
    let mut ends = errors(&spans(&sent(&requests, |spans| errors(spans).len() >= 3)));
    // More than one may have been given up.
    ends.dedup();
    let failed = json!({"code": 2});
    let ended = ["model_not_found", "invalid_request_error", "cancelled"].map(|name| (json!(name), failed.clone()));
    assert_eq!(ends, ended);
}

#[test]
fn a_collector_that_is_down_refuses_or_hangs_harms_nobody() {
    let down = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Accepts by itself, as far as the system does, and never answers.
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    for collector in [down, hanging.local_addr().unwrap()] {
        let folder = tempfile::tempdir().unwrap();
        let served = traced(folder.path(), collector);
        for _ in 0..5 {
            post(&served, &[], &with(ask(BASE, "a"), json!({"max_tokens": 3}))).ok();
        }
        assert_eq!(served.get("/health").status, 200);
        assert_eq!(served.metric("lockstep:spans_exported_total"), 0.0);
        served.stop();
    }
}

#[test]
fn what_the_queue_cannot_hold_is_dropped_and_counted() {
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let served = traced(folder.path(), hanging.local_addr().unwrap());
    let address = served.address;
    // Far more than 8,192 spans, and the batch under way.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(move || flood(address, 1250));
        }
    });
    assert!(served.metric("lockstep:spans_dropped_total") > 500.0);
    post(&served, &[], &with(ask(BASE, "a"), json!({"max_tokens": 3}))).ok();
}

/// So many requests that fail, on one connection.
fn flood(address: SocketAddr, count: usize) {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    for _ in 0..count {
        stream.write_all(request.as_bytes()).unwrap();
        let (mut length, mut line) = (0, String::new());
        while reader.read_line(&mut line).unwrap() > 2 {
            if let Some(digits) = line.to_lowercase().strip_prefix("content-length: ") {
                length = digits.trim().parse().unwrap();
            }
            line.clear();
        }
        reader.read_exact(&mut vec![0; length]).unwrap();
    }
}
