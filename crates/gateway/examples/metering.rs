//! What metering, ledger and receipts cost a request, over an engine that has next to nothing to compute.
//!
//! ```sh
//! cargo run --release -p lockstep-gateway --example metering -- [SECONDS] [ROUNDS]
//! ```
//!
//! Four ways in turn, several rounds: the engine asked directly (no API, no receipt), the server without keys (API and
//! receipts), and the server with a key that pays, its ledger surviving the end of the process or a loss of power. Each
//! serves in a process of its own, whose processor time is counted; clients are threads here, each with one connection. At
//! the most clients it is told by thread, too: what the ledger and the receipts do has threads of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a measurement: what fails ends it")]

use engine::{Engine, Event, Request};
use exact::{Activations, Isa};
use gateway::{Billing, Config, Keys, Limits, Server};
use ledger::{Durability, Ledger, PriceList};
use model::{Mlp, Model, Rotary, Shape, Text};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const WAYS: [&str; 4] = ["engine alone", "without keys", "paid, process", "paid, power"];
const CLIENTS: [usize; 3] = [1, 16, 64];
const PROMPT: &str = "Where is the red lamp that I ordered on Monday?";
const ANSWER_TOKENS: usize = 4;

/// A layer of 64 values: a step takes some ten microseconds.
fn engine() -> Arc<Engine> {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/base");
    let shape = Shape {
        hidden: 64,
        layers: 1,
        heads: 1,
        key_heads: 1,
        head_dim: 64,
        mlps: vec![Mlp::Gated { width: 64 }],
        vocabulary: 2048,
        context: 512,
        norm_eps: 1e-5,
        rotary: Rotary::plain(10_000.0, 64),
        window: None,
        head_norms: false,
        tied: true,
        spread: true,
    };
    let model = Arc::new(Model::random(shape, Activations::A8, 1));
    let config = engine::Config::for_memory(&model.shape, 64 << 20, 1, Isa::best());
    Arc::new(Engine::start(model, Arc::new(Text::load(&demo).unwrap()), config).unwrap())
}

/// Serves until its input ends; the first line it prints is its port.
fn serve(way: &str, folder: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let keys_file = folder.join("keys");
    std::fs::write(&keys_file, format!("ada {} budget=1000000\n", blake3::hash(b"secret").to_hex())).unwrap();
    let paid = way.starts_with("paid");
    let keys = if paid { Keys::read(&keys_file).unwrap() } else { Keys::default() };
    let (adapters, limits) = (BTreeMap::new(), Limits::default());
    let config = Config { folder: folder.join("node"), base: "tiny".into(), adapters, keys, limits };
    let mut server = Server::new(engine(), config).unwrap();
    runtime.block_on(async {
        if paid {
            let database = format!("sqlite:{}", folder.join("ledger.sqlite").display()).parse().unwrap();
            let durability = if way.ends_with("power") { Durability::Power } else { Durability::Process };
            let books = ledger::Config { durability, ..ledger::Config::new(database, folder.join("spool")) };
            let prices =
                PriceList::parse(r#"{"version": 1, "default": {"prompt": 100000, "output": 400000}}"#).unwrap();
            let billing = Billing::new(Ledger::open(books).await.unwrap()).with_prices(prices);
            server = server.with_billing(billing).await.unwrap();
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        let ended = tokio::task::spawn_blocking(|| drop(std::io::stdin().read(&mut [0])));
        server.serve(listener, async { drop(ended.await) }).await;
    });
}

/// What was measured of one way at one number of clients.
#[derive(Clone, Default)]
struct Figures {
    /// Processor time a request, microseconds.
    computed: f64,
    /// The same by the threads' names.
    threads: BTreeMap<String, f64>,
    /// Requests a second.
    rate: f64,
    /// Milliseconds until the whole answer was there: median, and one of a hundred.
    median: f64,
    late: f64,
}

impl Figures {
    fn of(mut latencies: Vec<f64>, (computed, threads): (f64, BTreeMap<String, f64>), seconds: f64) -> Figures {
        latencies.sort_by(f64::total_cmp);
        let count = latencies.len();
        assert!(count > 0, "no answer came");
        let threads: BTreeMap<String, f64> =
            threads.into_iter().map(|(name, seconds)| (name, 1e6 * seconds / count as f64)).collect();
        Figures {
            computed: 1e6 * computed / count as f64,
            threads,
            rate: count as f64 / seconds,
            median: 1e3 * latencies[count / 2],
            late: 1e3 * latencies[count * 99 / 100],
        }
    }

    fn median_of(rounds: &[Figures]) -> Figures {
        let middle = |value: &dyn Fn(&Figures) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let of_thread = |name: &String| middle(&|f: &Figures| f.threads.get(name).copied().unwrap_or_default());
        let names = rounds.iter().flat_map(|round| round.threads.keys());
        Figures {
            computed: middle(&|f| f.computed),
            threads: names.map(|name| (name.clone(), of_thread(name))).collect(),
            rate: middle(&|f| f.rate),
            median: middle(&|f| f.median),
            late: middle(&|f| f.late),
        }
    }
}

/// Seconds that a process computed, and its threads by name: those that ended are in the first only.
type Computed = (f64, BTreeMap<String, f64>);

fn computed_seconds(process: u32) -> Computed {
    // The name of a process or thread, and the seconds that it computed.
    let read = |stat: &str| {
        let (head, tail) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let ticks: f64 = [11, 12].map(|field: usize| fields[field].parse::<f64>().unwrap()).iter().sum();
        (head.split_once('(').unwrap().1.to_owned(), ticks / 100.0)
    };
    let (_, all) = read(&std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap());
    let mut threads = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        // One that ends meanwhile has no file any more.
        let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
        let (name, seconds) = read(&stat);
        *threads.entry(name).or_default() += seconds;
    }
    (all, threads)
}

/// What was computed since `before`.
fn computed_since(process: u32, before: &Computed) -> Computed {
    let (all, threads) = computed_seconds(process);
    let since = |(name, seconds): (String, f64)| {
        let before = before.1.get(&name).copied().unwrap_or_default();
        (name, (seconds - before).max(0.0))
    };
    (all - before.0, threads.into_iter().map(since).collect())
}

/// The engine asked directly by as many tasks.
fn ask_engine(clients: usize, seconds: f64) -> Figures {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let engine = engine();
    let prompt: Vec<u32> = (0..12).map(|token| 20 + token).collect();
    let before = computed_seconds(std::process::id());
    let started = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (engine, prompt) = (engine.clone(), prompt.clone());
            runtime.spawn(async move {
                let mut latencies = vec![];
                while started.elapsed().as_secs_f64() < seconds {
                    let asked = Instant::now();
                    let mut events = engine.submit(Request::new(prompt.clone(), ANSWER_TOKENS)).unwrap();
                    while let Some(event) = events.recv().await {
                        if matches!(event, Event::Done(_)) {
                            latencies.push(asked.elapsed().as_secs_f64());
                        }
                    }
                }
                latencies
            })
        })
        .collect();
    let latencies: Vec<f64> = tasks.into_iter().flat_map(|task| runtime.block_on(task).unwrap()).collect();
    let seconds = started.elapsed().as_secs_f64();
    Figures::of(latencies, computed_since(std::process::id(), &before), seconds)
}

/// One request and its answer on a connection that stays open.
fn ask(stream: &mut BufReader<TcpStream>, request: &[u8]) {
    stream.get_mut().write_all(request).unwrap();
    let (mut length, mut line) = (0, String::new());
    stream.read_line(&mut line).unwrap();
    let ok = line.starts_with("HTTP/1.1 200");
    loop {
        line.clear();
        stream.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    assert!(ok, "{}", String::from_utf8_lossy(&body));
}

/// As many clients as connections.
fn ask_server(server: &Child, port: u16, clients: usize, seconds: f64) -> Figures {
    let body = format!(
        r#"{{"model": "tiny", "prompt": "{PROMPT}", "max_tokens": {ANSWER_TOKENS}, "temperature": 0, "ignore_eos": true}}"#
    );
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer secret\r\ncontent-type: application/json";
    let request = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let (counting, ended) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let client = || {
            let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", port)).unwrap());
            stream.get_ref().set_nodelay(true).unwrap();
            let mut latencies = vec![];
            while !ended.load(Ordering::Relaxed) {
                let asked = Instant::now();
                ask(&mut stream, request.as_bytes());
                if counting.load(Ordering::Relaxed) {
                    latencies.push(asked.elapsed().as_secs_f64());
                }
            }
            latencies
        };
        let threads: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        std::thread::sleep(Duration::from_millis(500));
        let (before, started) = (computed_seconds(server.id()), Instant::now());
        counting.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs_f64(seconds));
        counting.store(false, Ordering::Relaxed);
        let (computed, seconds) = (computed_since(server.id(), &before), started.elapsed().as_secs_f64());
        ended.store(true, Ordering::Relaxed);
        let latencies = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        Figures::of(latencies, computed, seconds)
    })
}

fn measure(way: &str, seconds: f64) -> [Figures; 3] {
    if way == WAYS[0] {
        return CLIENTS.map(|clients| ask_engine(clients, seconds));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("serve").arg(way).arg(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = command.spawn().unwrap();
    let mut port = String::new();
    BufReader::new(server.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
    let port = port.trim().parse().unwrap_or_else(|_| panic!("the server did not start"));
    let figures = CLIENTS.map(|clients| ask_server(&server, port, clients, seconds));
    drop(server.stdin.take());
    server.wait().unwrap();
    figures
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, way, folder] = &arguments[..]
        && verb == "serve"
    {
        return serve(way, Path::new(folder));
    }
    let seconds: f64 = arguments.first().map_or(3.0, |text| text.parse().unwrap());
    let rounds: usize = arguments.get(1).map_or(3, |text| text.parse().unwrap());
    let mut found: [[Vec<Figures>; 3]; 4] = Default::default();
    for round in 0..rounds {
        for (way, found) in WAYS.iter().zip(&mut found) {
            eprintln!("round {} of {rounds}: {way}", round + 1);
            for (found, figures) in found.iter_mut().zip(measure(way, seconds)) {
                found.push(figures);
            }
        }
    }
    println!("answers of {ANSWER_TOKENS} tokens, medians of {rounds} rounds of {seconds} s");
    for (number, clients) in CLIENTS.iter().enumerate() {
        println!("{clients} at once");
        let alone = Figures::median_of(&found[0][number]);
        for (way, found) in WAYS.iter().zip(&found) {
            let Figures { computed, rate, median, late, .. } = Figures::median_of(&found[number]);
            println!(
                "  {way:14} {computed:7.1} us of a processor a request (+{:6.1}), {rate:8.0} requests/s, median {median:7.2} ms \
                 (+{:6.2}), one of a hundred {late:7.2} ms (+{:6.2})",
                computed - alone.computed,
                median - alone.median,
                late - alone.late
            );
        }
    }
    let most = CLIENTS.len() - 1;
    println!("{} at once, us of a processor a request, by thread", CLIENTS[most]);
    for (way, found) in WAYS.iter().zip(&found).skip(1) {
        let mut threads: Vec<(String, f64)> = Figures::median_of(&found[most]).threads.into_iter().collect();
        threads.sort_by(|one, other| other.1.total_cmp(&one.1));
        let told = threads.iter().filter(|(_, time)| *time >= 0.5).map(|(name, time)| format!("{name} {time:.0}"));
        println!("  {way:14} {}", told.collect::<Vec<_>>().join(", "));
    }
}
