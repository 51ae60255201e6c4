//! A server: what it is made of, and its life.

use crate::app::{App, now_seconds};
use crate::billing::Billing;
use crate::connections;
use crate::dashboard::Dashboard;
use crate::device_time::{self, DeviceTime};
use crate::draft::Base;
use crate::folder::Folder;
use crate::hex;
use crate::keys::Keys;
use crate::metrics::Metrics;
use crate::pace::Paces;
use crate::recorder::Recorder;
use crate::routes;
use crate::start::StartError;
use crate::trace::{Otlp, Traces};
use engine::Engine;
use model::Adapter;
use returns::Device;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Prompts being read and tokenised at once: each may take many times its body's memory.
const TOKENISING_MAX: usize = 8;

/// How long the last traces may take to reach their collector when a server ends.
const LAST_TRACES: Duration = Duration::from_secs(3);

/// What a server serves, and where it keeps what must survive a restart.
#[derive(Clone)]
pub struct Config {
    /// The data folder: the node's key and the receipts. Created if it is not there; for one server at a time.
    pub folder: PathBuf,
    /// The name of the base model.
    pub base: String,
    /// Adapters that are in memory, by the names clients ask for; beside those the engine knows already.
    pub adapters: BTreeMap<String, Arc<Adapter>>,
    /// Who may use it; without keys everybody.
    pub keys: Keys,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds that keep one client from spoiling the others' day.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one request's body.
    pub body_bytes_max: usize,
    /// Bytes of all bodies in memory at once; further requests wait.
    pub bodies_bytes_max: usize,
    /// How long a body may take to arrive.
    pub body_deadline: Duration,
    /// How long an answer may take, its time in the queue included.
    pub answer_deadline: Duration,
    /// How long a receipt may take to reach the disk once its answer is complete.
    pub receipt_deadline: Duration,
    /// Connections at once; further ones wait.
    pub connections_max: usize,
    /// How long a connection may be idle, or take to send a request's head.
    pub idle_deadline: Duration,
    /// How long a client may read nothing while an answer waits for it.
    pub stall_deadline: Duration,
    /// How long answers may go on once the server is to end.
    pub shutdown_grace: Duration,
    /// How long what opens a receipt is kept for auditors, at least; it is deleted at most a sixteenth later.
    pub audit_window: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes_max: 8 << 20,
            bodies_bytes_max: 256 << 20,
            body_deadline: Duration::from_secs(60),
            answer_deadline: Duration::from_secs(600),
            receipt_deadline: Duration::from_secs(30),
            connections_max: 4096,
            idle_deadline: Duration::from_secs(120),
            stall_deadline: Duration::from_secs(60),
            shutdown_grace: Duration::from_secs(30),
            audit_window: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

impl Limits {
    /// The audit window as receipts state it.
    pub(crate) fn window_seconds(&self) -> u32 {
        u32::try_from(self.audit_window.as_secs()).unwrap_or(u32::MAX)
    }

    /// KiB of all bodies; room for one at least.
    pub(crate) fn bodies_kib(&self) -> u32 {
        let kib = self.bodies_bytes_max.max(self.body_bytes_max).div_ceil(1024);
        u32::try_from(kib).unwrap_or(u32::MAX).min(u32::MAX >> 4)
    }
}

/// A server that is ready to serve.
pub struct Server {
    app: Arc<App>,
}

impl Server {
    /// Opens the data folder and continues the chain of receipts in it.
    ///
    /// # Errors
    /// The folder cannot be used, is used by another server, or is damaged; or a name cannot name a model.
    pub fn new(engine: Arc<Engine>, config: Config) -> Result<Server, StartError> {
        check_names(&config)?;
        for (name, adapter) in &config.adapters {
            engine.adapters().insert(name, adapter.clone())?;
        }
        let recorder = Recorder::start(Folder::open(&config.folder)?, config.limits.window_seconds())?;
        let device_time = DeviceTime::open(&config.folder.join("device"), &engine)?;
        let dashboard = Dashboard::new(&config.folder)?;
        let operator = crate::report::operator(&recorder.node())?;
        let processors = std::thread::available_parallelism().map_or(1, |processors| processors.get());
        let app = App {
            base: Base::of(engine.model(), engine.text()),
            engine,
            base_name: config.base,
            recorder,
            created_seconds: now_seconds(),
            tokenising: Arc::new(Semaphore::new(processors.min(TOKENISING_MAX))),
            keys: config.keys,
            paces: Paces::default(),
            billing: None,
            operator,
            metrics: Metrics::default(),
            traces: Traces::default(),
            device_time,
            dashboard,
            vocabulary: OnceLock::new(),
            bodies: Arc::new(Semaphore::new(config.limits.bodies_kib() as usize)),
            loading: Arc::new(Semaphore::new(1)),
            admin: None,
            forming: Arc::new(Semaphore::new((processors / 4).clamp(1, TOKENISING_MAX))),
            limits: config.limits,
        };
        Ok(Server { app: Arc::new(app) })
    }

    /// Asks for this key from whoever changes the server's adapters.
    pub fn with_admin_key(mut self, key: &str) -> Server {
        if let Some(app) = Arc::get_mut(&mut self.app) {
            app.admin = Some(blake3::hash(key.as_bytes()));
        }
        self
    }

    /// Sends traces of requests to a collector.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn with_traces(mut self, otlp: Otlp) -> Result<Server, StartError> {
        let instance = hex::encode(&self.node());
        if let Some(app) = Arc::get_mut(&mut self.app) {
            app.traces = Traces::to(otlp, &instance).map_err(StartError::Thread)?;
        }
        Ok(self)
    }

    /// Reckons with what this device costs, where returns are shown.
    pub fn with_device(mut self, device: Device) -> Server {
        if let Some(app) = Arc::get_mut(&mut self.app) {
            app.dashboard.device = device;
        }
        self
    }

    /// Charges requests by this; opens accounts for the server's keys.
    ///
    /// # Errors
    /// The ledger cannot be used, or the prices are other than those published under their version.
    pub async fn with_billing(mut self, billing: Billing) -> Result<Server, StartError> {
        billing.open(&self.app.keys.budgets()).await?;
        if let Some(app) = Arc::get_mut(&mut self.app) {
            app.base = app.base.clone().priced(billing.version());
            app.billing = Some(Arc::new(billing));
        }
        Ok(self)
    }

    /// The public key that receipts are signed with.
    pub fn node(&self) -> [u8; 32] {
        self.app.recorder.node()
    }

    /// The log of receipts, for whoever has it witnessed.
    pub fn log(&self) -> Arc<tlog::Log> {
        self.app.recorder.log().clone()
    }

    /// Serves until `shutdown` is done and the answers under way are finished, or their grace is over; meanwhile new
    /// requests are refused with 503. Then the data folder is free for another server. Needs a Tokio runtime with time and IO.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let router = routes::router(self.app.clone());
        if let Ok(address) = listener.local_addr() {
            self.app.traces.set_address(address);
        }
        self.app.dashboard.set_private(listener.local_addr().is_ok_and(|address| address.ip().is_loopback()));
        let summing = tokio::spawn(sum(self.app.clone()));
        let app = self.app.clone();
        let shutdown = async move {
            shutdown.await;
            app.dashboard.close();
        };
        let sweeping = tokio::spawn(sweep(self.app.clone()));
        let recording = tokio::spawn(keep_records(self.app.clone()));
        let ending = drained(self.app.clone(), shutdown);
        connections::serve_until(listener, router, &self.app.limits, ending).await;
        sweeping.abort();
        summing.abort();
        recording.abort();
        record(&self.app).await;
        let app = self.app.clone();
        // It fails only when the process ends.
        let _ = tokio::task::spawn_blocking(move || app.traces.close(LAST_TRACES)).await;
    }
}

/// Keeps the sums that pages show, for ever.
async fn sum(app: Arc<App>) {
    app.dashboard.sums.keep(&app).await;
}

/// Records the device's time, and signs a head of the log, for ever: together with the ledger that is what a report needs.
async fn keep_records(app: Arc<App>) {
    let mut ticks = tokio::time::interval(device_time::EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        record(&app).await;
    }
}

async fn record(app: &Arc<App>) {
    let app = app.clone();
    let recorded = tokio::task::spawn_blocking(move || {
        if let Err(error) = app.device_time.record(&app) {
            tracing::error!("the device's time could not be recorded, and will be with the next record: {error}");
        }
        if let Err(error) = app.recorder.log().head() {
            tracing::error!("the log's head could not be kept: {error}");
        }
    });
    // It fails only when the process ends.
    let _ = recorded.await;
}

/// Once `shutdown` is done: takes no new work, which is told with 503, and waits for what is under way. Gives how long
/// connections may then still take to pass it on.
async fn drained(app: Arc<App>, shutdown: impl Future<Output = ()>) -> Duration {
    shutdown.await;
    let patience = app.limits.shutdown_grace;
    tracing::info!(seconds = patience.as_secs(), "no new requests; answers under way may finish");
    let engine = app.engine.clone();
    let drained = tokio::task::spawn_blocking(move || engine.drain(patience)).await;
    if drained.is_ok_and(|drained| drained) { patience } else { Duration::ZERO }
}

/// Deletes what is older than the audit window, for ever.
async fn sweep(app: Arc<App>) {
    let pause = (app.limits.audit_window / 64).clamp(Duration::from_secs(1), Duration::from_secs(3600));
    loop {
        tokio::time::sleep(pause).await;
        let app = app.clone();
        let swept = tokio::task::spawn_blocking(move || app.recorder.sweep()).await;
        if let Ok(Err(error)) = swept {
            tracing::error!("openings could not be deleted: {error}");
        }
    }
}

fn check_names(config: &Config) -> Result<(), StartError> {
    let wrong = |name: &str, what| Err(StartError::Name { name: name.to_owned(), what });
    for name in config.adapters.keys().chain([&config.base]) {
        if name.is_empty() || name.len() > 200 {
            return wrong(name, "a name has 1 to 200 bytes");
        }
        if name.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return wrong(name, "a name has no spaces and no control characters");
        }
    }
    if config.adapters.contains_key(&config.base) {
        return wrong(&config.base, "an adapter has the name of the base");
    }
    Ok(())
}
