//! `lockstep up`: one process that serves a base and its adapters to any OpenAI client.

use crate::books::BillingArgs;
use crate::demo;
use crate::device::{DeviceArgs, Place};
use crate::failure::{Failure, io};
use crate::logs::{self, Form};
use crate::source::{Base, ModelArgs, named_adapter};
use crate::witness::Asked;
use clap::Args;
use engine::{AdapterHandle, Config, Engine, Roots};
use gateway::{Keys, Otlp};
use model::{AdapterCache, Origin};
use returns::Device as Costs;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
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
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    billing: BillingArgs,
    /// An adapter (LoRA, in PEFT's layout) and the name clients will ask for. May be given many times. Without --model:
    /// the demo's five adapters are served as well.
    #[arg(long = "adapter", value_name = "NAME=DIR")]
    adapters: Vec<String>,
    /// Serve every adapter in this folder under its folder's name; each is loaded when somebody asks for it. May be given
    /// several times.
    #[arg(long, value_name = "DIR")]
    adapters_in: Vec<PathBuf>,
    /// Keep this adapter (one given with --adapter, by name) resident. May be given several times.
    #[arg(long, value_name = "NAME")]
    pin: Vec<String>,
    /// Let clients load adapters from folders inside this one while the server runs (/v1/load_lora_adapter). May be given
    /// several times.
    #[arg(long, value_name = "DIR")]
    adapter_root: Vec<PathBuf>,
    /// Key that loading and unloading adapters takes. Needed with --adapter-root if others can reach the server.
    #[arg(long, value_name = "KEY", env = "LOCKSTEP_ADMIN_KEY", hide_env_values = true)]
    admin_key: Option<String>,
    /// Name of the base model for clients. Default: its folder's or repository's name.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8000", value_name = "ADDR")]
    listen: SocketAddr,
    /// A key clients must send. Without this and --api-keys anybody is served.
    #[arg(long, env = "LOCKSTEP_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    /// A file of keys: a line for each, as `lockstep key NAME` makes them.
    #[arg(long, value_name = "FILE")]
    api_keys: Option<PathBuf>,
    /// What the device costs, for the dashboard: a known device's name or a file, as `lockstep report --costs` takes it.
    #[arg(long, value_name = "NAME|FILE")]
    costs: Option<String>,
    /// Send a trace of each request to this OpenTelemetry collector (OTLP over HTTP, in JSON; /v1/traces is added).
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp: Option<String>,
    /// Headers the collector wants, NAME=VALUE,NAME=VALUE, values percent-encoded.
    #[arg(
        long,
        env = "OTEL_EXPORTER_OTLP_HEADERS",
        hide_env_values = true,
        value_name = "HEADERS",
        default_value = ""
    )]
    otlp_headers: String,
    /// Name of this server in traces.
    #[arg(long, env = "OTEL_SERVICE_NAME", value_name = "NAME", default_value = "lockstep")]
    otlp_service: String,
    /// How what happens is logged, on standard error.
    #[arg(long, value_enum, default_value = "text")]
    log: Form,
    /// Gigabytes for keys, values and resident adapters. Default: half of the memory that is free; of a CUDA device's, what
    /// weights leave.
    #[arg(long, value_name = "GB")]
    memory: Option<f64>,
    /// A witness that is asked to sign the heads of the log of receipts. May be given many times.
    #[arg(long = "witness", value_name = "KEY=URL")]
    witnesses: Vec<Asked>,
    /// Days for which what opens receipts is kept for auditors; then it is deleted.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    audit_days: u16,
    /// Gigabytes beside it for adapters that are loaded but not resident. Default: a quarter of --memory.
    #[arg(long, value_name = "GB")]
    host_memory: Option<f64>,
    /// Gigabytes of the data folder for adapters' quantised forms, from which they load some twenty times as fast.
    #[arg(long, value_name = "GB", default_value_t = 8.0)]
    adapter_cache: f64,
}

/// Serves until interrupted.
pub(crate) fn run(args: &UpArgs) -> Result<(), Failure> {
    let started = Instant::now();
    logs::start(args.log);
    let keys = keys(args)?;
    let base = args.model.load()?;
    let name = args.name.clone().unwrap_or_else(|| base.name.clone());
    check_reach(args)?;
    let (engine, place) = start(args, &base)?;
    let engine = Arc::new(engine);
    let data = args.model.data_folder()?;
    if !args.model.no_cache {
        let forms = AdapterCache::new(&data.join("adapters"), bytes("--adapter-cache", args.adapter_cache)?);
        engine.adapters().keep_forms(forms);
    }
    let adapters = adapters(args, &engine)?;
    let folder = data.join("node");
    let server = gateway::Server::new(
        engine.clone(),
        gateway::Config {
            folder: folder.clone(),
            base: name.clone(),
            adapters: BTreeMap::new(),
            keys,
            limits: limits(args),
        },
    )
    .map_err(|error| Failure(error.to_string()))?;
    let server = match &args.admin_key {
        Some(key) => server.with_admin_key(key),
        None => server,
    };
    let costs = args.costs.as_deref().map(Costs::find).transpose()?.unwrap_or_default();
    let server = traced(server.with_device(costs), args)?;
    ask_witnesses(&args.witnesses, &server.log())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure(format!("starting threads: {error}")))?;
    runtime.block_on(async {
        let billing = args.billing.open(&folder, limits(args).audit_window).await?;
        let server = server.with_billing(billing).await.map_err(|error| Failure(error.to_string()))?;
        let listener = TcpListener::bind(args.listen).await.map_err(|error| {
            Failure(format!("cannot listen on {}: {error}; choose another address with --listen", args.listen))
        })?;
        let address = listener.local_addr().map_err(io(std::path::Path::new("listener")))?;
        let ready = Ready { base: &base, name: &name, adapters: &adapters, engine: &engine, place: &place, started };
        ready.announce(address, &server.node());
        server.serve(listener, ended()).await;
        Ok(())
    })
}

fn traced(server: gateway::Server, args: &UpArgs) -> Result<gateway::Server, Failure> {
    let Some(url) = args.otlp.as_deref().filter(|url| !url.is_empty()) else { return Ok(server) };
    let otlp = Otlp::new(url, &args.otlp_headers, &args.otlp_service)?;
    server.with_traces(otlp).map_err(|error| Failure(error.to_string()))
}

/// Starts the engine where it shall compute; says where that is, and why on the processor if that was not asked for.
fn start(args: &UpArgs, base: &Base) -> Result<(Engine, String), Failure> {
    let machine = &args.model.machine;
    let (model, shape, threads, isa) = (base.model.clone(), &base.model.shape, machine.threads(), machine.isa()?);
    let host = args.host_memory.map(|gigabytes| bytes("--host-memory", gigabytes)).transpose()?;
    let mut executor = Config::executor();
    if let Some(gigabytes) = args.memory {
        let memory = bytes("--memory", gigabytes)? as usize;
        executor.adapter_bytes = Some(memory / 4);
        executor.pages = Some((memory / 4 * 3 / cuda::page_bytes(shape)).max(1));
    }
    let (engine, place) = match args.device.open(&base.model, executor)? {
        Place::Cuda(executor, name) => {
            let host = host.map_or_else(|| memory(args).map(|bytes| bytes / 4), Ok)?;
            let config = Config::for_device(shape, executor.memory(), host, threads, isa);
            (Engine::start_on(*executor, model, base.text()?, config), name)
        }
        Place::Processor(why) => {
            let mut config = Config::for_memory(shape, memory(args)?, threads, isa);
            config.host_memory = host.unwrap_or(config.host_memory);
            let why = why.map_or(String::new(), |why| format!(": {why}"));
            (Engine::start(model, base.text()?, config), format!("the processor, {isa} on {threads} threads{why}"))
        }
    };
    Ok((engine.map_err(|error| Failure(format!("starting threads: {error}")))?, place))
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

/// Whoever may change the server must be known where strangers can reach it.
fn check_reach(args: &UpArgs) -> Result<(), Failure> {
    if !args.adapter_root.is_empty() && args.admin_key.is_none() && !args.listen.ip().is_loopback() {
        let what = "others can reach this address, and could load adapters: give a key with --admin-key";
        return Err(Failure(what.to_owned()));
    }
    Ok(())
}

/// Loads the adapters given by name, registers those in folders, and allows roots.
fn adapters(args: &UpArgs, engine: &Engine) -> Result<Vec<Arc<AdapterHandle>>, Failure> {
    let mut named: Vec<(String, String)> = Vec::new();
    if args.model.model.is_none() {
        named.extend(demo::ADAPTERS.iter().map(|name| ((*name).to_owned(), (*name).to_owned())));
    }
    for argument in &args.adapters {
        named.push(named_adapter(argument)?);
    }
    if let Some(name) = args.pin.iter().find(|name| !named.iter().any(|(known, _)| known == *name)) {
        return Err(Failure(format!("--pin {name}: there is no --adapter of that name")));
    }
    let mut adapters = Vec::new();
    for (name, argument) in named {
        let folder = args.model.adapter_folder(&argument)?;
        adapters.push(engine.add_adapter(&name, &folder, args.pin.contains(&name))?);
    }
    for folder in &args.adapters_in {
        for entry in std::fs::read_dir(folder).map_err(io(folder))? {
            let path = entry.map_err(io(folder))?.path();
            if let (true, Some(name)) = (path.join("adapter_config.json").is_file(), path.file_name()) {
                engine.adapters().register(&name.to_string_lossy(), &path)?;
            }
        }
    }
    if !args.adapter_root.is_empty() {
        let roots = Roots::new(&args.adapter_root).map_err(|error| Failure(format!("--adapter-root: {error}")))?;
        engine.adapters().allow(roots);
    }
    Ok(adapters)
}

fn keys(args: &UpArgs) -> Result<Keys, Failure> {
    let mut keys = match &args.api_keys {
        Some(path) => Keys::read(path).map_err(|error| Failure(error.to_string()))?,
        None => Keys::default(),
    };
    match args.api_key.as_deref() {
        Some("") => return Err(Failure("--api-key is empty: everybody knows that".to_owned())),
        Some(key) => keys.add("api-key", key),
        None => {}
    }
    Ok(keys)
}

fn bytes(flag: &str, gigabytes: f64) -> Result<u64, Failure> {
    if !(gigabytes > 0.0 && gigabytes < 1e6) {
        return Err(Failure(format!("{flag} is a number of gigabytes above 0")));
    }
    Ok((gigabytes * 1e9) as u64)
}

/// Bytes for keys, values and resident adapters.
fn memory(args: &UpArgs) -> Result<u64, Failure> {
    if let Some(gigabytes) = args.memory {
        return bytes("--memory", gigabytes);
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

/// What serves from now on.
struct Ready<'a> {
    base: &'a Base,
    name: &'a str,
    adapters: &'a [Arc<AdapterHandle>],
    engine: &'a Engine,
    /// Where it computes.
    place: &'a str,
    started: Instant,
}

impl Ready<'_> {
    fn announce(&self, address: SocketAddr, node: &[u8; 32]) {
        let Ready { base, name, adapters, engine, place, started } = self;
        let megabytes = |bytes: usize| bytes as f64 / 1e6;
        let base_bytes = base.model.weights.bytes();
        let adapter_bytes: usize = adapters.iter().filter_map(|adapter| adapter.bytes()).sum::<u64>() as usize;
        let origin = match base.model.origin {
            Origin::Cache { .. } => "from the quantised copy",
            _ => "quantised now",
        };
        println!("Lockstep serves {name} and {} adapters at http://{address}/v1", engine.adapters().count());
        println!("  base      {:9.1} MB  {}, {origin}", megabytes(base_bytes), base.model.activations.name());
        for adapter in *adapters {
            let (bytes, rank) = (adapter.bytes().unwrap_or(0), adapter.rank().unwrap_or(0));
            let pinned = if adapter.is_pinned() { ", pinned" } else { "" };
            println!("  {:9} {:9.1} MB  rank {rank}{pinned}", adapter.name(), megabytes(bytes as usize));
        }
        let separate = base_bytes * adapters.len().max(1) + adapter_bytes;
        println!(
            "  together  {:9.1} MB  instead of {:.1} MB as separate deployments",
            megabytes(base_bytes + adapter_bytes),
            megabytes(separate)
        );
        let config = engine.config();
        println!("  memory    {}", config.plan(&base.model.shape));
        println!("  computes  on {place}");
        println!("  node      {}", crate::score::hex(node));
        println!("  ready after {:.2} s\n", started.elapsed().as_secs_f64());
        let model = if engine.adapters().find("sql").is_some() { "sql" } else { *name };
        let question = if model == "sql" { "How many orders were placed in Graz?" } else { "Hello!" };
        println!("Try:  curl http://{address}/v1/chat/completions -H 'Content-Type: application/json' \\");
        println!(
            "        -d '{{\"model\": \"{model}\", \"temperature\": 0, \"messages\": [{{\"role\": \"user\", \"content\": \"{question}\"}}]}}'"
        );
    }
}

/// Done when the server is asked to end: answers under way may finish. Asked once more, the process ends at once, which
/// loses nothing that was acknowledged.
async fn ended() {
    interrupted().await;
    eprintln!("ending when the answers under way are complete; once more to end at once");
    tokio::spawn(async {
        interrupted().await;
        std::process::exit(130);
    });
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
