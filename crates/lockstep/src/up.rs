//! `lockstep up`: one process that serves a base and its adapters to any OpenAI client.

use crate::demo;
use crate::failure::{Failure, io};
use crate::source::{Base, ModelArgs, named_adapter};
use crate::witness::Asked;
use clap::Args;
use engine::{Config, Engine};
use model::{Adapter, Origin};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// Between two heads that a witness is asked to sign.
const WITNESS_PAUSE: Duration = Duration::from_secs(5);

/// Options of `lockstep up`.
#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// An adapter (LoRA, in PEFT's layout) and the name clients will ask for. May be given many times. Without --model:
    /// the demo's five adapters are served as well.
    #[arg(long = "adapter", value_name = "NAME=DIR")]
    adapters: Vec<String>,
    /// Name of the base model for clients. Default: its folder's or repository's name.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8000", value_name = "ADDR")]
    listen: SocketAddr,
    /// Gigabytes for keys and values. Default: half of the memory that is free.
    #[arg(long, value_name = "GB")]
    memory: Option<f64>,
    /// A witness that is asked to sign the heads of the log of receipts. May be given many times.
    #[arg(long = "witness", value_name = "KEY=URL")]
    witnesses: Vec<Asked>,
    /// Days for which what opens receipts is kept for auditors; then it is deleted.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    audit_days: u16,
}

/// Serves until interrupted.
pub(crate) fn run(args: &UpArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let base = args.model.load()?;
    let name = args.name.clone().unwrap_or_else(|| base.name.clone());
    let adapters = adapters(args, &base)?;
    let machine = &args.model.machine;
    let config = Config::for_memory(&base.model.shape, memory(args)?, machine.threads(), machine.isa()?);
    let engine = Engine::start(base.model.clone(), base.text()?, config)
        .map_err(|error| Failure(format!("starting threads: {error}")))?;
    let engine = Arc::new(engine);
    let folder = args.model.data_folder()?.join("node");
    let server = gateway::Server::new(
        engine.clone(),
        gateway::Config { folder, base: name.clone(), adapters: adapters.clone(), limits: limits(args) },
    )
    .map_err(|error| Failure(error.to_string()))?;
    ask_witnesses(&args.witnesses, &server.log())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure(format!("starting threads: {error}")))?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await.map_err(|error| {
            Failure(format!("cannot listen on {}: {error}; choose another address with --listen", args.listen))
        })?;
        let address = listener.local_addr().map_err(io(std::path::Path::new("listener")))?;
        announce(&base, &name, &adapters, &config, address, &server.node(), started);
        server.serve(listener, interrupted()).await;
        Ok(())
    })
}

fn limits(args: &UpArgs) -> gateway::Limits {
    let audit_window = Duration::from_secs(u64::from(args.audit_days) * 24 * 3600);
    gateway::Limits { audit_window, ..gateway::Limits::default() }
}

/// Has the log's heads witnessed for as long as the process lives, by every witness in a thread of its own.
fn ask_witnesses(witnesses: &[Asked], log: &Arc<tlog::Log>) -> Result<(), Failure> {
    for witness in witnesses {
        let (witness, log) = (witness.clone(), log.clone());
        let ask = move || {
            let (mut last, mut failed) = (0, false);
            loop {
                match witness.ask(&log, &mut last) {
                    Ok(()) => failed = false,
                    Err(failure) if !failed => {
                        eprintln!("note: the witness {} does not sign: {failure}", witness.name());
                        failed = true;
                    }
                    Err(_) => {}
                }
                std::thread::sleep(WITNESS_PAUSE);
            }
        };
        let thread = std::thread::Builder::new().name("lockstep-witness".to_owned()).spawn(ask);
        thread.map_err(|error| Failure(format!("starting threads: {error}")))?;
    }
    Ok(())
}

fn adapters(args: &UpArgs, base: &Base) -> Result<BTreeMap<String, Arc<Adapter>>, Failure> {
    let mut named: Vec<(String, String)> = Vec::new();
    if args.model.model.is_none() {
        named.extend(demo::ADAPTERS.iter().map(|name| ((*name).to_owned(), (*name).to_owned())));
    }
    for argument in &args.adapters {
        named.push(named_adapter(argument)?);
    }
    let mut adapters = BTreeMap::new();
    for (name, folder) in named {
        let adapter = Arc::new(args.model.load_adapter(base, &folder)?);
        if adapters.insert(name.clone(), adapter).is_some() {
            return Err(Failure(format!("two adapters are called {name}: give one another name")));
        }
    }
    Ok(adapters)
}

/// Bytes for keys and values.
fn memory(args: &UpArgs) -> Result<u64, Failure> {
    if let Some(gigabytes) = args.memory {
        if !(gigabytes > 0.0 && gigabytes < 1e6) {
            return Err(Failure("--memory is a number of gigabytes above 0".to_owned()));
        }
        return Ok((gigabytes * 1e9) as u64);
    }
    Ok(free_memory().map_or(2 << 30, |free| free / 2))
}

/// What the system says programs can still have, in bytes.
fn free_memory() -> Option<u64> {
    let table = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = table.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

fn announce(
    base: &Base,
    name: &str,
    adapters: &BTreeMap<String, Arc<Adapter>>,
    config: &Config,
    address: SocketAddr,
    node: &[u8; 32],
    started: Instant,
) {
    let megabytes = |bytes: usize| bytes as f64 / 1e6;
    let base_bytes = base.model.weights.bytes();
    let adapter_bytes: usize = adapters.values().map(|adapter| adapter.bytes()).sum();
    let origin = match base.model.origin {
        Origin::Cache { .. } => "from the quantised copy",
        _ => "quantised now",
    };
    println!("Lockstep serves {name} and {} adapters at http://{address}/v1", adapters.len());
    println!("  base      {:9.1} MB  {}, {origin}", megabytes(base_bytes), base.model.activations.name());
    for (name, adapter) in adapters {
        println!("  {name:9} {:9.1} MB  rank {}", megabytes(adapter.bytes()), adapter.rank());
    }
    let separate = base_bytes * adapters.len().max(1) + adapter_bytes;
    println!(
        "  together  {:9.1} MB  instead of {:.1} MB as separate deployments",
        megabytes(base_bytes + adapter_bytes),
        megabytes(separate)
    );
    let page = cpu::Pages::page_bytes(&base.model.shape);
    println!(
        "  keys and values: up to {:.1} MB for {} positions, {} a sequence at most",
        megabytes(config.pages * page),
        config.pages * cpu::PAGE,
        config.context
    );
    println!("  {} on {} threads; node {}", config.isa, config.threads, crate::score::hex(node));
    println!("  ready after {:.2} s\n", started.elapsed().as_secs_f64());
    let model = if adapters.contains_key("sql") { "sql" } else { name };
    let question = if model == "sql" { "How many orders were placed in Graz?" } else { "Hello!" };
    println!("Try:  curl http://{address}/v1/chat/completions -H 'Content-Type: application/json' \\");
    println!(
        "        -d '{{\"model\": \"{model}\", \"temperature\": 0, \"messages\": [{{\"role\": \"user\", \"content\": \"{question}\"}}]}}'"
    );
}

/// Done when the process is asked to end.
pub(crate) async fn interrupted() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
        if let Ok(mut terminate) = terminate {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = interrupt.await;
}
