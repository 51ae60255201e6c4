//! Promises of the engine, checked step by step.

mod adapters;
mod chaos;
mod fairness;
mod prefixes;
mod pressure;
mod speculation;
mod time;

use crate::adapters::{AdapterHandle, Adapters, Disk, Loaded, Loader};
use crate::config::Config;
use crate::core::Core;
use crate::device::{CpuDevice, Device, RowDraw, Stepped};
use crate::request::{Completion, Event, Failure, Request};
use crate::sequence::Sequence;
use crate::ticket::Tickets;
use cpu::{Hash, Pages, Segment};
use exact::generator::philox;
use exact::sample::Sampling;
use exact::{Activations, Isa};
use model::{Adapter, Mlp, Model, Rotary, Shape, Text};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::sync::mpsc::Receiver;

pub(crate) fn demo_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo")
}

pub(crate) fn text() -> Arc<Text> {
    static TEXT: OnceLock<Arc<Text>> = OnceLock::new();
    TEXT.get_or_init(|| Arc::new(Text::load(&demo_folder().join("base")).unwrap())).clone()
}

pub(crate) fn model() -> Arc<Model> {
    static MODEL: OnceLock<Arc<Model>> = OnceLock::new();
    let shape = Shape {
        hidden: 64,
        layers: 2,
        heads: 4,
        key_heads: 2,
        head_dim: 16,
        mlps: vec![Mlp::Gated { width: 96 }; 2],
        vocabulary: 300,
        context: 1024,
        norm_eps: 1e-5,
        rotary: Rotary::plain(10_000.0, 16),
        window: None,
        head_norms: false,
        tied: true,
        spread: true,
    };
    MODEL.get_or_init(|| Arc::new(Model::random(shape, Activations::A8, 1))).clone()
}

pub(crate) fn page_bytes() -> u64 {
    Pages::page_bytes(&model().shape) as u64
}

pub(crate) fn adapter(seed: u64) -> Arc<Adapter> {
    Arc::new(Adapter::random(&model().plan, 4, seed))
}

/// Numbers that look random, the same in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 += 1;
        philox([5, 5], [self.0 as u32, (self.0 >> 32) as u32, 0, 0])[0] as usize % n
    }
}

pub(crate) fn tokens(seed: u64, count: usize) -> Vec<u32> {
    let mut dice = Dice(seed << 32);
    (0..count).map(|_| dice.below(300) as u32).collect()
}

/// A config of so many pages, and room for adapters beside them.
pub(crate) fn config(pages: usize) -> Config {
    let memory = pages as u64 * page_bytes();
    Config {
        threads: 1,
        isa: Isa::best(),
        pages,
        memory: memory + (1 << 20),
        host_memory: 1 << 20,
        sequences_max: 64,
        step_tokens: 256,
        slowdown_max: f64::INFINITY,
        quick_step: std::time::Duration::ZERO,
        queue_max: 1024,
        context: (pages * cpu::PAGE).min(1024),
        prefix_cache: true,
        draft_tokens: 64,
        loads_ahead: 8,
        apart: None,
    }
}

/// How long a step takes here, and how much longer for each of its tokens, in nanoseconds.
pub(crate) const STEP_NANOSECONDS: u64 = 10_000_000;
pub(crate) const TOKEN_NANOSECONDS: u64 = 1_000_000;

/// A device whose steps take as long as they are said to.
struct Timed {
    device: CpuDevice,
    clock: Arc<AtomicU64>,
}

impl Device for Timed {
    fn step(&mut self, segments: &[Segment<'_>], draws: &[RowDraw<'_>]) -> Stepped {
        let tokens: usize = segments.iter().map(|segment| segment.tokens.len()).sum();
        self.clock.fetch_add(STEP_NANOSECONDS + TOKEN_NANOSECONDS * tokens as u64, SeqCst);
        self.device.step(segments, draws)
    }

    fn release_page(&mut self, page: u32) {
        self.device.release_page(page);
    }

    fn keep_adapter(&mut self, adapter: &Arc<Adapter>) {
        self.device.keep_adapter(adapter);
    }

    fn drop_adapter(&mut self, adapter: &Arc<Adapter>) {
        self.device.drop_adapter(adapter);
    }
}

/// A core with a clock of its own, and adapters whose loading the test does by hand: what happens depends on nothing else.
pub(crate) struct Rig {
    pub(crate) core: Core,
    pub(crate) adapters: Adapters,
    pub(crate) tickets: Arc<Tickets>,
    /// Nanoseconds.
    pub(crate) clock: Arc<AtomicU64>,
}

impl Rig {
    pub(crate) fn new(config: Config) -> Rig {
        let executor = cpu::Config { threads: config.threads, isa: config.isa, trace: true };
        let plan = config.plan(&model().shape);
        let device = CpuDevice::new(model(), executor, plan.pages_max).unwrap();
        let clock = Arc::new(AtomicU64::new(0));
        let (device, shown) = (Timed { device, clock: clock.clone() }, clock.clone());
        let core = Core::new(Box::new(device), &model(), config, Box::new(move || shown.load(SeqCst)));
        let disk = Arc::new(Disk::new(model(), config.isa));
        let loader = Arc::new(Loader::start(disk.clone(), drop).unwrap());
        let adapters = Adapters::new(disk, loader, plan.adapters_bytes_max);
        Rig { core, adapters, tickets: Arc::default(), clock }
    }

    /// An adapter that must be loaded: [`Rig::deliver`] does.
    pub(crate) fn on_disk(&self, name: &str) -> Arc<AdapterHandle> {
        self.adapters.register(name, Path::new("/nowhere")).unwrap()
    }

    pub(crate) fn submit(&mut self, request: Request) -> Receiver<Event> {
        let (events, receiver) = tokio::sync::mpsc::channel(request.tokens_max + 3);
        let ticket = self.tickets.take(request.tenant, 1 << 20);
        self.core.add(Sequence::new(request, &text(), None, events, ticket));
        receiver
    }

    pub(crate) fn step(&mut self) -> bool {
        self.core.step(Instant::now())
    }

    /// Loads what must be loaded: the adapter whose seed is its name.
    pub(crate) fn deliver(&mut self) -> usize {
        let jobs = self.core.take_jobs();
        let count = jobs.len();
        jobs.into_iter().for_each(|handle| self.deliver_one(handle));
        count
    }

    pub(crate) fn deliver_one(&mut self, handle: Arc<AdapterHandle>) {
        let adapter = adapter(handle.name().parse().unwrap());
        assert!(handle.note(&adapter));
        self.core.loaded(Loaded { handle, result: Ok(adapter), seconds: 0.0 });
    }

    /// Steps until nothing is left, loading at once.
    pub(crate) fn finish(&mut self) {
        for _ in 0..100_000 {
            if self.core.is_idle() {
                return;
            }
            self.step();
            self.deliver();
        }
        panic!("the engine does not come to an end: {:?}", self.core.load());
    }
}

/// What came of a request.
pub(crate) fn outcome(receiver: &mut Receiver<Event>) -> Option<Result<Completion, Failure>> {
    loop {
        match receiver.try_recv() {
            Ok(Event::Text(..)) => {}
            Ok(Event::Done(completion)) => return Some(Ok(completion)),
            Ok(Event::Failed(failure)) => return Some(Err(failure)),
            Ok(Event::Token(..)) => {}
            Err(_) => return None,
        }
    }
}

pub(crate) fn done(receiver: &mut Receiver<Event>) -> Completion {
    outcome(receiver).unwrap().unwrap()
}

/// Tokens and leaves: what must be the same whatever happens around.
pub(crate) type Bits = (Vec<u32>, Vec<Hash>);

pub(crate) fn bits(completion: Completion) -> Bits {
    (completion.tokens, completion.leaves)
}

/// On a quiet machine: alone, nothing shared, nothing guessed, everything at hand.
pub(crate) fn quiet(request: &Request) -> Bits {
    let mut rig = Rig::new(Config { prefix_cache: false, draft_tokens: 0, ..config(16) });
    let adapter = request.adapter.as_ref().map(|handle| {
        let adapter = adapter(handle.name().parse().unwrap());
        rig.adapters.insert(handle.name(), adapter).unwrap()
    });
    let mut receiver = rig.submit(Request { adapter, prediction: vec![], ..request.clone() });
    rig.finish();
    bits(done(&mut receiver))
}

/// A request whose answer is drawn, not the likeliest.
pub(crate) fn drawn(prompt: Vec<u32>, tokens_max: usize, seed: u64) -> Request {
    let sampling = Sampling { temperature: 0.8, seed, ..Sampling::GREEDY };
    Request { sampling, ..Request::new(prompt, tokens_max) }
}
