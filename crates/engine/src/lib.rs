//! Many sequences share one device.
//!
//! An [`Engine`] owns the device through one thread that repeats a step: admit what fits into memory, batch the next
//! tokens of every sequence whatever their adapters, draw, and pass on what is new. Requests go in through
//! [`Engine::submit`]; dropping the receiver cancels.

mod core;
mod pool;
mod request;
mod schedule;
mod sequence;
mod stop;

pub use crate::core::Load;
pub use request::{Completion, Event, Failure, Finish, Refusal, Request};

use crate::core::Core;
use crate::sequence::Sequence;
use cpu::{Executor, PAGE, Pages};
use exact::Isa;
use model::{Model, Shape, Text};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::mpsc;

/// How an engine runs. Nothing here changes a bit of any answer.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Threads that compute.
    pub threads: usize,
    /// Instruction set.
    pub isa: Isa,
    /// Pages of keys and values.
    pub pages: usize,
    /// Sequences computed at once.
    pub sequences_max: usize,
    /// Tokens of one step, prompts' chunks included.
    pub step_tokens: usize,
    /// Requests that may wait.
    pub queue_max: usize,
    /// Positions of one sequence.
    pub context: usize,
}

impl Config {
    /// Sensible numbers for a model with `memory` bytes for keys and values: up to 64 sequences and 256 tokens a step.
    pub fn for_memory(shape: &Shape, memory: u64, threads: usize, isa: Isa) -> Config {
        let sequences_max = 64;
        let page = Pages::page_bytes(shape) as u64;
        let useful = (sequences_max * shape.context.div_ceil(PAGE)) as u64;
        let pages = (memory / page).clamp(1, useful) as usize;
        Config {
            threads,
            isa,
            pages,
            sequences_max,
            step_tokens: 256,
            queue_max: 1024,
            context: shape.context.min(pages * PAGE),
        }
    }
}

enum Command {
    Add(Box<Sequence>),
    Stop,
}

/// A running engine.
pub struct Engine {
    commands: SyncSender<Command>,
    load: Arc<Mutex<Load>>,
    model: Arc<Model>,
    text: Arc<Text>,
    config: Config,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the engine's thread.
    pub fn start(model: Arc<Model>, text: Arc<Text>, config: Config) -> std::io::Result<Engine> {
        let (commands, inbox) = sync_channel(config.queue_max);
        let load = Arc::new(Mutex::new(Load::default()));
        let executor_config = cpu::Config { threads: config.threads, isa: config.isa, trace: true };
        let executor = Executor::new(model.clone(), executor_config)?;
        let shown = load.clone();
        let core = Core::new(executor, config);
        let thread = std::thread::Builder::new()
            .name("lockstep-0".to_owned())
            .spawn(move || run(core, &inbox, &shown, config.queue_max))?;
        Ok(Engine { commands, load, model, text, config, thread: Some(thread) })
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

    /// How full it was after its last step.
    pub fn load(&self) -> Load {
        *self.load.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request. Its events come through the receiver; dropping the receiver cancels it.
    pub fn submit(&self, request: Request) -> Result<mpsc::Receiver<Event>, Refusal> {
        self.check(&request)?;
        // At most one text a token, one more at the end, and the end itself.
        let (events, receiver) = mpsc::channel(request.tokens_max + 3);
        let sequence = Box::new(Sequence::new(request, &self.text, events));
        match self.commands.try_send(Command::Add(sequence)) {
            Ok(()) => Ok(receiver),
            Err(TrySendError::Full(_)) => Err(Refusal::Busy),
            Err(TrySendError::Disconnected(_)) => Err(Refusal::ShuttingDown),
        }
    }

    fn check(&self, request: &Request) -> Result<(), Refusal> {
        let vocabulary = self.model.shape.vocabulary;
        if request.prompt.is_empty() {
            return Err(Refusal::EmptyPrompt);
        }
        if request.tokens_max == 0 {
            return Err(Refusal::NoTokens);
        }
        if let Some(id) = request.prompt.iter().find(|id| **id as usize >= vocabulary) {
            return Err(Refusal::UnknownToken(*id, vocabulary));
        }
        let (prompt, answer, context) = (request.prompt.len(), request.tokens_max, self.config.context);
        if prompt.saturating_add(answer) > context {
            return Err(Refusal::TooLong { prompt, answer, context });
        }
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A full queue still drains: the thread takes commands between any two steps.
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Steps while there is work, sleeps while there is none.
fn run(mut core: Core, inbox: &Receiver<Command>, shown: &Mutex<Load>, queue_max: usize) {
    loop {
        let command = if core.is_idle() {
            inbox.recv().map_err(|_| TryRecvError::Disconnected)
        } else if core.load().waiting < queue_max {
            inbox.try_recv()
        } else {
            Err(TryRecvError::Empty)
        };
        match command {
            Ok(Command::Add(sequence)) => {
                core.add(*sequence);
                continue;
            }
            Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                core.fail_all(Failure::ShuttingDown);
                return;
            }
            Err(TryRecvError::Empty) => core.step(),
        }
        *shown.lock().unwrap_or_else(PoisonError::into_inner) = core.load();
    }
}
