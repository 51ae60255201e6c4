//! Many sequences share one device.
//!
//! An [`Engine`] owns the device through one thread that repeats a step: admit who is next, batch the next tokens of every
//! sequence whatever their adapters, draw, and pass on what is new. Requests go in through [`Engine::submit`]; dropping
//! the receiver cancels.
//!
//! **Exactness makes scheduling free.** A token depends on what stands before it and on nothing else, so the engine may
//! - share pages between prompts that begin the same, leaves of the trace included;
//! - take pages as they are needed, and when they run out let the youngest sequence give way and compute it again;
//! - check several guessed tokens in one step, and keep those that are what would have been drawn;
//! - keep few adapters resident out of many, and load others while computing;
//!
//! and every answer has the same bits as on a quiet machine.
//!
//! **Who goes first.** [`Priority`] first; within a class tenants share alike, and within a tenant its adapters. Whoever
//! waits long moves up a class, at last above all. A request whose adapter is being loaded is passed by, and holds nobody
//! up.
//!
//! **Memory** is one budget of pages and resident adapters ([`MemoryPlan`]). What is kept only in case it is wanted again
//! goes when room is needed, the cheapest to have back first.

mod adapters;
mod config;
mod core;
mod counters;
mod device;
mod draft;
mod memory;
mod pace;
mod prefix;
mod queue;
mod request;
mod run;
mod schedule;
mod sequence;
mod shaping;
mod stop;
mod ticket;
mod time;

#[cfg(test)]
mod tests;

pub use crate::core::Load;
pub use adapters::{AdapterError, AdapterHandle, Adapters, Roots, Whereabouts};
pub use config::{Apart, Config, MemoryPlan};
pub use counters::Counters;
pub use request::{Completion, Effort, Event, Failure, Finish, Priority, Purpose, Refusal, Request, Times};
pub use shaping::Shaping;
pub use time::{Time, Use};

use crate::adapters::{Disk, Loader};
use crate::core::Core;
use crate::device::{CpuDevice, CudaDevice, Device};
use crate::run::{Command, Shown, run};
use crate::sequence::Sequence;
use crate::ticket::Tickets;
use crate::time::machine_clock;
use grammar::Guides;
use model::{Adapter, Model, Text};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Threads that compute masks of forms beside the engine: one for four that compute, at most these.
const MASK_THREADS_MAX: usize = 4;

/// A running engine.
pub struct Engine {
    commands: Sender<Command>,
    shown: Arc<Mutex<Shown>>,
    tickets: Arc<Tickets>,
    adapters: Arc<Adapters>,
    guides: Guides,
    model: Arc<Model>,
    text: Arc<Text>,
    config: Config,
    draining: AtomicBool,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the engine's threads; the processor computes.
    pub fn start(model: Arc<Model>, text: Arc<Text>, config: Config) -> std::io::Result<Engine> {
        let executor = cpu::Config { threads: config.threads, isa: config.isa, trace: true };
        let device = CpuDevice::new(model.clone(), executor, config.plan(&model.shape).pages_max)?;
        Engine::drive(Box::new(device), model, text, config)
    }

    /// The same where `executor` computes, which was made for this model, with traces; `config` is from
    /// [`Config::for_device`] and no larger than that says.
    pub fn start_on<L: cuda::Launcher + Send + 'static>(
        executor: cuda::Executor<L>,
        model: Arc<Model>,
        text: Arc<Text>,
        config: Config,
    ) -> std::io::Result<Engine> {
        let device = CudaDevice::new(executor, config.threads, config.isa)?;
        Engine::drive(Box::new(device), model, text, config)
    }

    fn drive(device: Box<dyn Device>, model: Arc<Model>, text: Arc<Text>, config: Config) -> std::io::Result<Engine> {
        let (commands, inbox) = channel();
        let plan = config.plan(&model.shape);
        let core = Core::new(device, &model, config, machine_clock());
        let back = commands.clone();
        // A failing send means that the engine ends.
        let deliver = move |loaded| drop(back.send(Command::Loaded(loaded)));
        let disk = Arc::new(Disk::new(model.clone(), config.isa));
        let loader = Arc::new(Loader::start(disk.clone(), deliver)?);
        let shown = Arc::new(Mutex::new(Shown { load: core.load(), ..Shown::default() }));
        let (showing, jobs) = (shown.clone(), loader.clone());
        let thread = std::thread::Builder::new()
            .name("lockstep-0".to_owned())
            .spawn(move || run(core, &inbox, &jobs, &showing))?;
        let adapters = Arc::new(Adapters::new(disk, loader, plan.adapters_bytes_max));
        let (tickets, draining) = (Arc::default(), AtomicBool::new(false));
        let guides = Guides::start((config.threads / 4).clamp(1, MASK_THREADS_MAX))?;
        Ok(Engine { commands, shown, tickets, adapters, guides, model, text, config, draining, thread: Some(thread) })
    }

    /// The model it serves.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// The model's tokenizer.
    pub fn text(&self) -> &Arc<Text> {
        &self.text
    }

    /// How it runs.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The adapters it knows.
    pub fn adapters(&self) -> &Arc<Adapters> {
        &self.adapters
    }

    /// How full it was after its last step, with the requests that came since.
    pub fn load(&self) -> Load {
        let load = self.shown.lock().unwrap_or_else(PoisonError::into_inner).load;
        Load { waiting: load.waiting.max(self.tickets.taken()), ..load }
    }

    /// What its time went into until its last step.
    pub fn counters(&self) -> Counters {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).counters
    }

    /// Has the time until now charged, for whoever asks for counters and uses next; takes as long as a step.
    pub fn settle_time(&self) {
        let (asked, answer) = channel();
        if self.commands.send(Command::Show(asked)).is_ok() {
            let _ = answer.recv();
        }
    }

    /// What each adapter took and gave since the engine started, by name; the base by itself has no name. Names that were
    /// unloaded stay.
    pub fn uses(&self) -> Vec<(Option<String>, Use)> {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let base = (None, shown.base);
        std::iter::once(base).chain(shown.adapters.iter().map(|(name, own)| (Some(name.clone()), *own))).collect()
    }

    /// Queues a request. Its events come through the receiver; dropping the receiver cancels it.
    pub fn submit(&self, request: Request) -> Result<mpsc::Receiver<Event>, Refusal> {
        self.check(&request)?;
        if self.draining.load(SeqCst) {
            return Err(Refusal::ShuttingDown);
        }
        let ticket = self.tickets.take(request.tenant, self.config.queue_max).ok_or(Refusal::Busy)?;
        // At most one text a token (and its likelihood), one more at the end, and the end itself.
        let each = 1 + usize::from(request.shaping.top_logprobs.is_some());
        let (events, receiver) = mpsc::channel(each * request.tokens_max + 3);
        let guide = request.shaping.form.as_deref().map(|form| self.guides.guide(form));
        let sequence = Box::new(Sequence::new(request, &self.text, guide, events, Some(ticket)));
        self.commands.send(Command::Add(sequence)).map_err(|_| Refusal::ShuttingDown)?;
        Ok(receiver)
    }

    /// Whether a request of this tenant would be queued now: a look that spares reading it if not.
    pub fn has_room(&self, tenant: &cpu::Hash) -> bool {
        self.tickets.has_room(tenant, self.config.queue_max)
    }

    fn check(&self, request: &Request) -> Result<(), Refusal> {
        let vocabulary = self.model.shape.vocabulary;
        if request.prompt.is_empty() {
            return Err(Refusal::EmptyPrompt);
        }
        if request.tokens_max == 0 {
            return Err(Refusal::NoTokens);
        }
        if let Some(id) = request.prompt.iter().chain(&request.prediction).find(|id| **id as usize >= vocabulary) {
            return Err(Refusal::UnknownToken(*id, vocabulary));
        }
        let (prompt, answer, context) = (request.prompt.len(), request.tokens_max, self.config.context);
        if prompt.saturating_add(answer) > context {
            return Err(Refusal::TooLong { prompt, answer, context });
        }
        request.shaping.check(vocabulary, &request.stop_tokens)
    }

    /// Loads the adapter in `path` (inside an allowed folder, or `digest:HEX`) and registers it as `name`, in the place of
    /// the one of that name if `replace`. Requests that were made with the old one keep it; if it was pinned, so is the new
    /// one, where that fits. Takes as long as loading does.
    pub fn load_adapter(&self, name: &str, path: &str, replace: bool) -> Result<Arc<AdapterHandle>, AdapterError> {
        let opened = self.adapters.open(name, path, replace)?;
        // A failing send means that the engine ends, and with it everything it would have kept.
        let _ = self.commands.send(Command::Deliver(opened.handle.clone(), opened.adapter));
        if let Some(replaced) = opened.replaced {
            if replaced.is_pinned() && self.adapters.pin(&opened.handle).is_ok() {
                let _ = self.commands.send(Command::Pin(opened.handle.clone(), true));
            }
            let _ = self.commands.send(Command::Forget(replaced));
        }
        Ok(opened.handle)
    }

    /// Makes sure that the adapter's digest is known, by loading it if nobody has asked for it before.
    pub fn identify(&self, handle: &Arc<AdapterHandle>) -> Result<(), AdapterError> {
        if let Some(adapter) = self.adapters.identify(handle)? {
            let _ = self.commands.send(Command::Deliver(handle.clone(), adapter));
        }
        Ok(())
    }

    /// Keeps the adapter of this name resident from now on, as soon as there is room for it, or lets it go again when
    /// others need its place. Pinning one that nobody has asked for yet takes as long as loading it does.
    ///
    /// # Errors
    /// There is no such adapter, it cannot be loaded, or too much would be pinned.
    pub fn pin_adapter(&self, name: &str, pinned: bool) -> Result<Arc<AdapterHandle>, AdapterError> {
        let handle = self.adapters.find(name).ok_or_else(|| AdapterError::Unknown(name.to_owned()))?;
        if pinned {
            // Only then its size is known.
            self.identify(&handle)?;
            self.adapters.pin(&handle)?;
        } else {
            handle.pin(false);
        }
        let _ = self.commands.send(Command::Pin(handle.clone(), pinned));
        Ok(handle)
    }

    /// The adapter itself, for whoever checks answers without the engine. Takes as long as loading does, unless whoever
    /// registered it keeps it in memory.
    ///
    /// # Errors
    /// It cannot be loaded, or its files are not what they were.
    pub fn fetch_adapter(&self, handle: &Arc<AdapterHandle>) -> Result<Arc<Adapter>, AdapterError> {
        self.adapters.fetch(handle)
    }

    /// Forgets the adapter of this name. Requests that were made with it keep it.
    pub fn unload_adapter(&self, name: &str) -> Result<(), AdapterError> {
        let handle = self.adapters.remove(name)?;
        let _ = self.commands.send(Command::Forget(handle));
        Ok(())
    }

    /// Loads and registers the adapter in `folder`, wherever that is; a pinned one stays resident from now on. For whoever
    /// starts the server.
    pub fn add_adapter(&self, name: &str, folder: &Path, pinned: bool) -> Result<Arc<AdapterHandle>, AdapterError> {
        let (handle, adapter) = self.adapters.load(name, folder, pinned)?;
        let _ = self.commands.send(Command::Deliver(handle.clone(), adapter));
        Ok(handle)
    }

    /// Whether it takes no more requests.
    pub fn is_draining(&self) -> bool {
        self.draining.load(SeqCst)
    }

    /// Takes no more requests and waits until those it has are answered, or `patience` is over. Gives whether they are.
    pub fn drain(&self, patience: Duration) -> bool {
        self.draining.store(true, SeqCst);
        let until = Instant::now() + patience;
        loop {
            let (asked, answer) = channel();
            if self.commands.send(Command::IsIdle(asked)).is_err() || answer.recv() == Ok(true) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
