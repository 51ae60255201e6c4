//! More than a server can take: it says so at once, its memory stays bounded, and others are served.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use gateway::Limits;
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::Duration;
use support::{BASE, Served, ask, content, engine, wait_until, with};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
/// Bytes that a flood may add to what the process holds: far less than keeping all of it would take.
const GROWTH_MAX: u64 = 192 << 20;

/// These tests look at the memory of the process, which they share: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Bytes that the process holds; nothing where the system does not tell.
fn held_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10)
}

/// Sends a request `count` times, as fast as answers come; gives how many were refused because the queue was full, and the
/// connections of those that were taken all the same: each keeps its place.
fn flood(address: SocketAddr, body: &str, count: usize) -> (usize, Vec<BufReader<TcpStream>>) {
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut reader = BufReader::new(TcpStream::connect(address).unwrap());
    let (mut refused, mut taken) = (0, vec![]);
    for _ in 0..count {
        reader.get_mut().write_all(request.as_bytes()).unwrap();
        let (mut head, mut line) = (String::new(), String::new());
        while reader.read_line(&mut line).unwrap() > 2 {
            head += &line.to_lowercase();
            line.clear();
        }
        if head.starts_with("http/1.1 200") {
            taken.push(std::mem::replace(&mut reader, BufReader::new(TcpStream::connect(address).unwrap())));
            continue;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        assert!(head.starts_with("http/1.1 429") && head.contains("\r\nretry-after: 1\r\n"), "{head}");
        assert!(String::from_utf8(body).unwrap().contains("queue_full"));
        refused += 1;
    }
    (refused, taken)
}

#[test]
fn ten_thousand_requests_at_once_are_refused_in_words_and_those_before_are_served() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let engine = engine(|config| (config.sequences_max, config.queue_max) = (2, 32));
    let limits = Limits { stall_deadline: Duration::from_secs(600), ..Limits::default() };
    let served = Served::with(engine.clone(), folder.path(), limits);
    let more = json!({"max_tokens": 1900, "ignore_eos": true, "stream": true});
    let long = with(ask(BASE, &"the lamp ".repeat(10)), more).to_string();
    let open = || {
        let mut stream = served.open("POST", "/v1/chat/completions", &JSON, long.as_bytes());
        stream.read_exact(&mut [0; 16]).unwrap();
        stream
    };
    let mut streams: Vec<TcpStream> = vec![open(), open()];
    wait_until("both being computed", || served.metric("vllm:num_requests_waiting") == 0.0);
    streams.extend((0..32).map(|_| open()));
    let before = held_bytes();
    let address = served.address;
    let more = json!({"max_tokens": 1000, "ignore_eos": true, "stream": true});
    let long = with(ask(BASE, &"a long prompt ".repeat(150)), more).to_string();
    let floods: Vec<_> = std::thread::scope(|scope| {
        let floods: Vec<_> = (0..10).map(|_| scope.spawn(|| flood(address, &long, 1000))).collect();
        floods.into_iter().map(|flood| flood.join().unwrap()).collect()
    });
    let refused: usize = floods.iter().map(|(refused, _)| refused).sum();
    assert!(refused > 9_000, "{refused} of 10,000");
    let grown = held_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
    // Whoever was there before goes on to the end; who waits is served as places become free.
    let mut whole = String::new();
    streams[0].read_to_string(&mut whole).unwrap();
    assert!(whole.contains("[DONE]"));
    drop((streams, floods));
    served.wait_until_idle();
    served.post("/v1/chat/completions", &with(ask("sql", "a"), json!({"max_tokens": 2}))).ok();
}

#[test]
fn prompts_of_a_megabyte_are_refused_in_words_and_others_are_served() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let served = Served::with(engine(|_| {}), folder.path(), Limits::default());
    let question = with(ask("sql", "How many orders were placed in Graz?"), json!({"temperature": 0}));
    let quiet = content(&served.post("/v1/chat/completions", &question).ok());
    let before = held_bytes();
    let texts = ["kettle ".repeat(150_000), "a".repeat(1 << 20), "\u{1f980}".repeat(1 << 18), " \n".repeat(1 << 19)];
    std::thread::scope(|scope| {
        for text in &texts {
            let served = &served;
            scope.spawn(move || {
                for _ in 0..2 {
                    let answer = served.post("/v1/chat/completions", &ask(BASE, text));
                    assert_eq!(answer.status, 400, "{}", answer.text());
                    assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
                }
            });
        }
        for _ in 0..5 {
            assert_eq!(content(&served.post("/v1/chat/completions", &question).ok()), quiet);
        }
    });
    let grown = held_bytes().saturating_sub(before);
    assert!(grown < 4 * GROWTH_MAX, "{grown} bytes more");
}

#[test]
fn readers_that_stop_reading_are_let_go_and_others_are_served() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { stall_deadline: Duration::from_millis(300), ..Limits::default() };
    let served = Served::with(engine(|config| config.sequences_max = 3), folder.path(), limits);
    // Twenty likely tokens with each are more than a connection's buffers hold.
    let more = json!({"max_tokens": 1200, "ignore_eos": true, "stream": true, "logprobs": true, "top_logprobs": 20});
    let body = with(ask(BASE, "a"), more).to_string();
    let before = held_bytes();
    let deaf: Vec<_> = (0..4).map(|_| served.open("POST", "/v1/chat/completions", &JSON, body.as_bytes())).collect();
    for _ in 0..5 {
        served.post("/v1/chat/completions", &with(ask("sql", "b"), json!({"max_tokens": 4}))).ok();
    }
    wait_until("all four let go", || served.ended("abort") == 4.0);
    served.wait_until_idle();
    let grown = held_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
    // None of them has a receipt: an answer that nobody takes is not complete.
    assert_eq!(served.get("/health").ok()["receipts"], 5);
    drop(deaf);
}
