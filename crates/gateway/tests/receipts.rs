//! Receipts: true, durable, in one chain, and opened only for whom they are for.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use gateway::{Config, Limits, Server, StartError};
use receipt::{Bundle, Finish, Receipt, trace};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use support::{BASE, Served, ask, content, demo, engine, once_unlocked, wait_until, with};

fn serve(folder: &Path) -> Served {
    Served::with(engine(|_| {}), folder, Limits::default())
}

fn url(answer: &Value) -> &str {
    answer["receipt"]["url"].as_str().unwrap()
}

/// The bundle of an answer, checked.
fn bundle(served: &Served, url: &str) -> (Bundle, Receipt) {
    let answer = served.get(url);
    assert_eq!((answer.status, answer.headers["content-type"].as_str()), (200, "application/cbor"));
    let bundle = Bundle::from_bytes(&answer.body).unwrap();
    let receipt = bundle.check().unwrap();
    (bundle, receipt)
}

#[test]
fn a_receipt_binds_what_was_asked_and_answered() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    let settings = json!({"temperature": 0.8, "top_p": 0.9, "top_k": 40, "min_p": 0.01, "seed": 11, "max_tokens": 30,
        "stop": ["###"]});
    let answer = served.post("/v1/chat/completions", &with(ask("reply", "Where is my kettle?"), settings)).ok();
    let (bundle, receipt) = bundle(&served, url(&answer));
    let (claims, opening, demo) = (&receipt.claims, &bundle.opening, demo());
    assert_eq!((claims.base, claims.adapter), (demo.model.digest, Some(demo.adapters["reply"].digest)));
    assert_eq!((claims.tokenizer, claims.template), (Some(demo.text.tokenizer_digest()), demo.text.template_digest()));
    assert!(claims.base_files.is_some());
    assert_eq!((claims.seed, claims.seed_from_client, claims.number, claims.previous), (11, true, 0, None));
    assert_eq!(claims.prompt_tokens, answer["usage"]["prompt_tokens"]);
    assert_eq!(claims.output_tokens, answer["usage"]["completion_tokens"]);
    let want = demo.text.encode_chat(&[model::Message::new("user", "Where is my kettle?")], &[]).unwrap();
    assert_eq!(opening.prompt, want);
    let settings = &opening.settings;
    assert_eq!((settings.temperature, settings.top_p, settings.top_k, settings.min_p), (0.8, 0.9, 40, 0.01));
    assert_eq!((settings.tokens_max, settings.stop_strings.clone()), (30, vec!["###".to_owned()]));
    assert_eq!(settings.stop_tokens, demo.text.end_tokens());
    assert_eq!(claims.trace, trace::root(&opening.leaves, &opening.salts.trace));
    let ended = answer["choices"][0]["finish_reason"] == "stop";
    assert_eq!(claims.finish, if ended { Finish::Stop } else { Finish::Length });
    let tokens = opening.output.strip_suffix(demo.text.end_tokens()).unwrap_or(&opening.output);
    assert_eq!(demo.text.decode(tokens, false).unwrap(), content(&answer));
}

#[test]
fn receipts_of_the_base_and_of_plain_text_name_no_adapter_and_no_template() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    let answer = served.post("/v1/completions", &json!({"model": BASE, "prompt": "My order"})).ok();
    let (_, receipt) = bundle(&served, url(&answer));
    assert_eq!((receipt.claims.adapter, receipt.claims.template), (None, None));
}

#[test]
fn a_receipt_can_be_read_as_json() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    let answer = served.post("/v1/chat/completions", &with(ask("sql", "a"), json!({"max_tokens": 4}))).ok();
    let (bundle, receipt) = bundle(&served, url(&answer));
    let by_format = served.get(&format!("{}?format=json", url(&answer))).ok();
    let by_header = served.send("GET", url(&answer), &[("accept", "application/json")], b"").ok();
    assert_eq!(by_format, by_header);
    assert_eq!(by_format["id"], receipt.id());
    assert_eq!(by_format["claims"]["seed"], receipt.claims.seed);
    assert_eq!(by_format["opening"]["output"], json!(bundle.opening.output));
    assert_eq!(by_format["receipt"].as_str().unwrap().len(), 2 * bundle.receipt.len());
    assert_eq!(served.get(&format!("{}?format=xml", url(&answer))).status, 400);
}

#[test]
fn without_the_key_a_receipt_tells_no_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path());
    let ask = with(ask("sql", "a secret"), json!({"max_tokens": 4}));
    let first = served.post("/v1/chat/completions", &ask).ok();
    let second = served.post("/v1/chat/completions", &ask).ok();
    // Who got the second receipt knows the first one's hash, and so its name.
    let (_, next) = bundle(&served, url(&second));
    let name = receipt::id(&next.claims.previous.unwrap());
    assert!(url(&first).contains(&name));
    let alone = served.get(&format!("/v1/receipts/{name}"));
    assert_eq!(alone.headers["content-type"], receipt::CONTENT_TYPE);
    assert_eq!(Receipt::parse(&alone.body).unwrap().id(), name);
    assert!(served.get(&format!("/v1/receipts/{name}?format=json")).ok().get("opening").is_none());
    let wrong = format!("/v1/receipts/{name}-{}", "0".repeat(32));
    assert_eq!(served.get(&wrong).status, 404);
    let key_of_second = url(&second).rsplit('-').next().unwrap();
    assert_eq!(served.get(&format!("/v1/receipts/{name}-{key_of_second}")).status, 404);
}

#[test]
fn the_chain_goes_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut urls = vec![];
    let mut node = None;
    for _ in 0..3 {
        let served = serve(folder.path());
        for _ in 0..2 {
            let request = with(ask("sql", "a"), json!({"max_tokens": 2}));
            urls.push(url(&served.post("/v1/chat/completions", &request).ok()).to_owned());
        }
        served.stop();
    }
    let served = serve(folder.path());
    let mut previous = None;
    for (number, url) in urls.iter().enumerate() {
        let (_, receipt) = bundle(&served, url);
        assert_eq!((receipt.claims.number, receipt.claims.previous), (number as u64, previous));
        assert_eq!(*node.get_or_insert(receipt.node), receipt.node);
        previous = Some(receipt.hash);
    }
}

#[test]
fn a_folder_serves_one_server_and_one_key() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let config = Config {
            folder: folder.path().to_owned(),
            base: BASE.into(),
            adapters: BTreeMap::new(),
            keys: gateway::Keys::default(),
            limits: Limits::default(),
        };
        Server::new(engine(|_| {}), config)
    };
    let served = serve(folder.path());
    assert!(matches!(start(), Err(StartError::Locked { .. })));
    served.post("/v1/chat/completions", &with(ask("sql", "a"), json!({"max_tokens": 2}))).ok();
    served.stop();
    drop(once_unlocked(start).unwrap());
    std::fs::remove_file(folder.path().join("node.key")).unwrap();
    assert!(matches!(once_unlocked(start), Err(StartError::OtherKey { .. })));
    assert!(!folder.path().join("node.key").exists());
}

#[test]
fn names_that_cannot_name_a_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = demo().adapters["sql"].clone();
    for (base, name) in [("base", "base"), ("base", ""), ("", "sql"), ("base", "a b"), ("base", "a\n")] {
        let adapters = BTreeMap::from([(name.to_owned(), adapter.clone())]);
        let config = Config {
            folder: folder.path().to_owned(),
            base: base.into(),
            adapters,
            keys: gateway::Keys::default(),
            limits: Limits::default(),
        };
        assert!(matches!(Server::new(engine(|_| {}), config), Err(StartError::Name { .. })), "{base:?} {name:?}");
    }
}

const CHILD_FOLDER: &str = "LOCKSTEP_TEST_FOLDER";

/// Not a test of its own: the server that the next test kills.
#[test]
#[ignore = "run by the next test"]
fn serve_until_killed() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let served = serve(Path::new(&folder));
    let address = Path::new(&folder).join("address");
    std::fs::write(address.with_extension("new"), served.address.to_string()).unwrap();
    std::fs::rename(address.with_extension("new"), address).unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// Kills the process when it is dropped, whatever becomes of the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the server above; it may write files of so many KiB.
fn start_child(folder: &Path, file_kib_max: &str) -> (Running, String) {
    let address = folder.join("address");
    let _ = std::fs::remove_file(&address);
    // Without the signal a write beyond the limit fails as on a full disk.
    let script = r#"trap '' XFSZ; ulimit -f "$0"; exec "$1" --exact serve_until_killed --ignored --nocapture"#;
    let mut command = Command::new("bash");
    command.args(["-c", script, file_kib_max]).arg(std::env::current_exe().unwrap());
    // The limit would also hold for a file that this test's own output goes to.
    command.env(CHILD_FOLDER, folder).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Running(command.spawn().unwrap());
    wait_until("a child that serves", || {
        assert!(child.0.try_wait().unwrap().is_none(), "the child ended before it served");
        address.exists()
    });
    (child, std::fs::read_to_string(address).unwrap())
}

/// Asks until the server is gone; gives the receipts it was told of, and counts them.
fn ask_until_gone(address: &str, count: &AtomicUsize) -> Vec<String> {
    let body = with(ask("sql", "a"), json!({"max_tokens": 1})).to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut told = vec![];
    while let Ok(mut stream) = std::net::TcpStream::connect(address) {
        let mut answer = String::new();
        let sent = std::io::Write::write_all(&mut stream, request.as_bytes());
        if sent.and_then(|()| stream.read_to_string(&mut answer)).is_err() {
            break;
        }
        if let Some(id) = answer.lines().find_map(|line| line.strip_prefix("x-lockstep-receipt: ")) {
            told.push(id.to_owned());
            count.fetch_add(1, SeqCst);
        }
    }
    told
}

#[test]
fn a_server_that_is_killed_has_lost_no_receipt_it_told_of() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = vec![];
    for round in 0..3 {
        let (child, address) = start_child(folder.path(), "unlimited");
        let count = AtomicUsize::new(0);
        told.extend(std::thread::scope(|scope| {
            let askers: Vec<_> = (0..8).map(|_| scope.spawn(|| ask_until_gone(&address, &count))).collect();
            wait_until("four answers", || count.load(SeqCst) >= 4);
            std::thread::sleep(Duration::from_millis(400 + 170 * round));
            drop(child);
            askers.into_iter().flat_map(|asker| asker.join().unwrap()).collect::<Vec<_>>()
        }));
    }
    assert!(told.len() >= 10, "only {} answers", told.len());
    let served = serve(folder.path());
    let mut by_number = BTreeMap::new();
    for id in &told {
        let (_, receipt) = bundle(&served, &format!("/v1/receipts/{id}"));
        assert!(by_number.insert(receipt.claims.number, receipt).is_none(), "a number was given twice");
    }
    for (number, receipt) in &by_number {
        if let Some(before) = number.checked_sub(1).and_then(|before| by_number.get(&before)) {
            assert_eq!(receipt.claims.previous, Some(before.hash));
        }
    }
    let kept = served.get("/health").ok()["receipts"].as_u64().unwrap();
    assert!(kept > *by_number.keys().last().unwrap());
}

/// Sends a request to the child; gives the whole answer.
fn post(address: &str, request: &Value) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let body = request.to_string();
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_full_disk_ends_answers_with_an_error_and_loses_no_receipt() {
    let folder = tempfile::tempdir().unwrap();
    let (child, address) = start_child(folder.path(), "24");
    let request = with(ask("sql", "a"), json!({"max_tokens": 1}));
    let mut told = vec![];
    let refused = loop {
        let answer = post(&address, &request);
        let Some(id) = answer.lines().find_map(|line| line.strip_prefix("x-lockstep-receipt: ")) else { break answer };
        told.push(id.to_owned());
        assert!(told.len() < 100, "the disk does not fill");
    };
    assert!(refused.starts_with("HTTP/1.1 500") && refused.contains("receipt_failed"), "{refused}");
    let streamed = post(&address, &with(request, json!({"stream": true})));
    assert!(streamed.contains("receipt_failed") && !streamed.contains("[DONE]"), "{streamed}");
    assert!(!streamed.contains("\"finish_reason\":\"length\""), "{streamed}");
    drop(child);
    let served = serve(folder.path());
    for (number, id) in told.iter().enumerate() {
        assert_eq!(bundle(&served, &format!("/v1/receipts/{id}")).1.claims.number, number as u64);
    }
    let next = served.post("/v1/chat/completions", &with(ask("sql", "a"), json!({"max_tokens": 1}))).ok();
    assert_eq!(bundle(&served, url(&next)).1.claims.number, told.len() as u64);
}
