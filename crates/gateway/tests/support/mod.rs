//! A server over the demo model, and the least of an HTTP client to talk to it.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test support")]
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its own part of this")]

pub mod pages;

use engine::Engine;
use exact::{Activations, Isa};
use gateway::{Config, Keys, Limits, Server, StartError};
use model::{Adapter, LoadOptions, Model, Text};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

pub const BASE: &str = "demo/base";

/// The demo model, loaded once.
pub struct Demo {
    pub model: Arc<Model>,
    pub text: Arc<Text>,
    pub adapters: BTreeMap<String, Arc<Adapter>>,
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo")
}

pub fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| {
        let base = folder().join("base");
        let model = Model::load(&base, &LoadOptions::new(Activations::A8)).unwrap();
        let adapter = |name: &str| {
            let adapter = Adapter::load(&folder().join("adapters").join(name), &model, Isa::best()).unwrap();
            (name.to_owned(), Arc::new(adapter))
        };
        let adapters = ["triage", "extract", "sql", "reply", "spanish"].map(adapter).into();
        Demo { text: Arc::new(Text::load(&base).unwrap()), adapters, model: Arc::new(model) }
    })
}

/// Looks again and again until something is there, for a minute at most.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "a minute went by without {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until it is so.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, || is_so().then_some(()));
}

/// What comes of a start once nobody has the folder's lock: a process that another test is starting may have a copy of it
/// for a moment.
pub fn once_unlocked(start: impl Fn() -> Result<Server, StartError>) -> Result<Server, StartError> {
    wait_for("the folder's lock", || match start() {
        Err(StartError::Locked { .. }) => None,
        started => Some(started),
    })
}

/// A new engine, changed as the test wants it.
pub fn engine(change: impl FnOnce(&mut engine::Config)) -> Arc<Engine> {
    let demo = demo();
    let mut config = engine::Config::for_memory(&demo.model.shape, 256 << 20, 2, Isa::best());
    change(&mut config);
    Arc::new(Engine::start(demo.model.clone(), demo.text.clone(), config).unwrap())
}

/// A server in a thread of its own; ends with the value.
pub struct Served {
    pub address: SocketAddr,
    pub engine: Arc<Engine>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Over a new engine and a folder.
    pub fn start(folder: &Path) -> Served {
        Served::with(engine(|_| {}), folder, Limits::default())
    }

    pub fn with(engine: Arc<Engine>, folder: &Path, limits: Limits) -> Served {
        Served::serving(engine, folder, limits, demo().adapters.clone(), Keys::default())
    }

    pub fn serving(
        engine: Arc<Engine>,
        folder: &Path,
        limits: Limits,
        adapters: BTreeMap<String, Arc<Adapter>>,
        keys: Keys,
    ) -> Served {
        let config = Config { folder: folder.to_owned(), base: BASE.into(), adapters, keys, limits };
        let server = once_unlocked(|| Server::new(engine.clone(), config.clone())).unwrap();
        Served::running(engine, server)
    }

    /// One that asks for a key from whoever changes its adapters.
    pub fn keyed(engine: Arc<Engine>, folder: &Path, key: &str) -> Served {
        let (adapters, limits) = (demo().adapters.clone(), Limits::default());
        let config = Config { folder: folder.to_owned(), base: BASE.into(), adapters, keys: Keys::default(), limits };
        Served::running(engine.clone(), Server::new(engine, config).unwrap().with_admin_key(key))
    }

    pub fn running(engine: Arc<Engine>, server: Server) -> Served {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                server.serve(listener, async { drop(ended.await) }).await;
            });
        });
        Served { address, engine, end: Some(end), thread: Some(thread) }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.open(method, path, headers, body);
        let mut bytes = vec![];
        stream.read_to_end(&mut bytes).unwrap();
        Answer::parse(&bytes)
    }

    /// Sends a request and gives the connection, on which the answer comes.
    pub fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.address);
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("content-length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        stream
    }

    /// What Prometheus is told, in the first line that begins so.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics");
        let line = metrics.text().lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// How many answers ended so: `stop`, `length`, or `abort` if nobody wanted them any more.
    pub fn ended(&self, how: &str) -> f64 {
        self.metric(&format!("vllm:request_success_total{{model_name=\"{BASE}\",finished_reason=\"{how}\"}}"))
    }

    /// Waits until the engine has nothing to do.
    pub fn wait_until_idle(&self) {
        let start = Instant::now();
        loop {
            let load = self.engine.load();
            if load.waiting == 0 && load.running == 0 && load.pages_used == 0 {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "the engine still works: {load:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.end();
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a complete head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut body = bytes[end + 4..].to_vec();
        if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            body = join_chunks(&body);
        }
        Answer { status, headers, body }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    /// The JSON of a successful answer.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The data of each event of a stream.
    pub fn events(&self) -> Vec<String> {
        assert_eq!(self.status, 200, "{}", self.text());
        let events = self.text().split("\n\n").filter_map(|event| event.strip_prefix("data: "));
        events.map(str::to_owned).collect()
    }
}

fn join_chunks(mut rest: &[u8]) -> Vec<u8> {
    let mut body = vec![];
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        body.extend_from_slice(&rest[end + 2..][..size]);
        rest = &rest[end + 2 + size + 2..];
    }
    body
}

/// A conversation of one message.
pub fn ask(model: &str, content: &str) -> Value {
    serde_json::json!({"model": model, "messages": [{"role": "user", "content": content}]})
}

/// The same object with more fields.
pub fn with(mut request: Value, more: Value) -> Value {
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

/// The text of a chat or text completion.
pub fn content(answer: &Value) -> String {
    let choice = &answer["choices"][0];
    choice["message"]["content"].as_str().or(choice["text"].as_str()).unwrap().to_owned()
}

/// Prompts of the demo's examples for an adapter.
pub fn examples(adapter: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(folder().join("examples").join(format!("{adapter}.jsonl"))).unwrap();
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        let message = |i: usize| value["messages"][i]["content"].as_str().unwrap().to_owned();
        (message(0), message(1))
    };
    text.lines().map(line).collect()
}
