//! A process that is told to end finishes what it has begun, refuses the rest, and ends.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ends the process whatever becomes of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn open(address: &str, method: &str, path: &str, body: &str) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n");
    stream.write_all(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    Ok(stream)
}

/// The answer in small letters; none from a server that has ended.
fn answer(address: &str, method: &str, path: &str, body: &str) -> Option<String> {
    let mut answer = String::new();
    open(address, method, path, body).and_then(|mut stream| stream.read_to_string(&mut answer)).ok()?;
    (!answer.is_empty()).then(|| answer.to_lowercase())
}

fn question(more: &str) -> String {
    format!(r#"{{"model": "sql", "messages": [{{"role": "user", "content": "a"}}], {more}}}"#)
}

const CHAT: &str = "/v1/chat/completions";

/// Asks a server that was told to end, until it refuses and then some more; none if it has ended before.
fn refused(address: &str) -> Option<()> {
    let short = question(r#""max_tokens": 1"#);
    let (mut refused, start) = (answer(address, "POST", CHAT, &short)?, Instant::now());
    // The signal takes a moment to arrive; from then on everybody is refused.
    while refused.starts_with("http/1.1 200") {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not refuse");
        refused = answer(address, "POST", CHAT, &short)?;
    }
    for _ in 0..5 {
        assert!(refused.starts_with("http/1.1 503") && refused.contains("\r\nretry-after: 1\r\n"), "{refused}");
        refused = answer(address, "POST", CHAT, &short)?;
    }
    assert!(answer(address, "GET", "/health", "")?.starts_with("http/1.1 503"));
    Some(())
}

/// With so many old answers; none if they were complete before everybody had asked.
fn attempt(answers: usize) -> Option<()> {
    let data = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lockstep"));
    command.args(["up", "--listen", "127.0.0.1:0", "--memory", "0.3", "--data"]).arg(data.path());
    let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut told = BufReader::new(running.0.stdout.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    std::thread::spawn(move || io::copy(&mut told, &mut io::sink()));

    let long = question(&format!(r#""max_tokens": 1900, "ignore_eos": true, "stream": true, "n": {answers}"#));
    let mut old = open(&address, "POST", CHAT, &long).unwrap();
    old.read_exact(&mut [0; 200]).unwrap();
    let terminated = Command::new("sh").args(["-c", &format!("kill -TERM {}", running.0.id())]).status().unwrap();
    assert!(terminated.success());
    let refused = refused(&address);
    let mut rest = String::new();
    old.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("[DONE]") && rest.contains(r#""id":"rcpt-"#), "the old answer is not complete");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = running.0.try_wait().unwrap() {
            break status;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(status.success(), "{status}");
    assert!(TcpStream::connect(&address).is_err());
    refused
}

#[test]
fn told_to_end_a_server_refuses_new_requests_and_finishes_old_ones() {
    // More of them take longer; no more than must be, as the server breaks them off after half a minute.
    assert!([1, 1, 2, 2, 4].into_iter().any(|answers| attempt(answers).is_some()), "it always ends too soon");
}
