//! `lockstep bench serving`: what serving at full load promises, measured. Each scenario prints what it did and what came
//! of it; answers are compared bit for bit where that is the promise.

mod adapters;
mod edits;
mod forms;
mod load;
mod noise;
mod pace;
mod prefix;
mod rounds;

use crate::failure::Failure;
use crate::source::ModelArgs;
use clap::{Args, ValueEnum};
use engine::{Completion, Config, Engine, Event, Request};
use exact::generator::philox;
use model::{Model, Shape, Text};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Options of `lockstep bench serving`.
#[derive(Args, Debug)]
pub(crate) struct ServingArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// What to measure.
    #[arg(long, value_enum)]
    scenario: Scenario,
    /// Make random weights of a shape instead of loading a model (prefix and edits).
    #[arg(long, value_name = "llama-1.24b", value_parser = ["llama-1.24b"], conflicts_with = "model")]
    random: Option<String>,
    /// Requests: for each point (adapters), or in all (prefix).
    #[arg(long, default_value_t = 32)]
    requests: usize,
    /// adapters, load: how many there are. noise: how many come at once.
    #[arg(long)]
    adapters: Option<usize>,
    /// adapters: requests at once. noise: streams that must not be disturbed. pace: a quarter of the requests at once that
    /// show what the machine can do. forms: streams at once, beside one alone.
    #[arg(long, default_value = "8", value_parser = at_least_one)]
    clients: usize,
    /// adapters: host memory for adapters, as a multiple of the resident ones'.
    #[arg(long, default_value_t = 0)]
    host: u64,
    /// How many times as long a step may take for the sake of newcomers; see the engine's `slowdown_max`.
    #[arg(long)]
    slowdown: Option<f64>,
    /// Milliseconds of a step that is quick enough for anybody; see the engine's `quick_step`.
    #[arg(long)]
    quick_step: Option<f64>,
    /// pace: requests a second that are the full load. Default: what the machine answers when some always wait.
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
    /// prefix: tokens all prompts share.
    #[arg(long, default_value_t = 2000)]
    shared: usize,
    /// prefix: requests measured without the cache.
    #[arg(long, default_value_t = 4)]
    uncached: usize,
    /// edits: lines of the file, of ten tokens each.
    #[arg(long, default_value_t = 1000)]
    lines: usize,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Scenario {
    /// Time to the first token as the adapters in use outgrow the places for them.
    Adapters,
    /// Time to load an adapter, in parts.
    Load,
    /// Time between tokens of others while many cold adapters are asked for at once.
    Noise,
    /// Time between tokens at a fifth and at four fifths of what the machine can do.
    Pace,
    /// Time to the first token of prompts that begin the same.
    Prefix,
    /// A long answer of which the client predicts all but ten lines.
    Edits,
    /// Time a token with a JSON schema and without.
    Forms,
}

/// Measures and prints.
pub(crate) fn run(args: &ServingArgs) -> Result<(), Failure> {
    match args.scenario {
        Scenario::Adapters => adapters::run(args),
        Scenario::Load => load::run(args),
        Scenario::Noise => noise::run(args),
        Scenario::Pace => pace::run(args),
        Scenario::Prefix => prefix::run(args),
        Scenario::Edits => edits::run(args),
        Scenario::Forms => forms::run(args),
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// A model, and words to show its tokens with.
struct Served {
    model: Arc<Model>,
    text: Arc<Text>,
}

impl Served {
    /// The model asked for, or the demo; with room for `positions`, more than it was made for if need be: here speed and
    /// bits count, not sense.
    fn load(args: &ServingArgs, positions: usize) -> Result<Served, Failure> {
        // Tokens are shown in the demo's words, whatever model draws them.
        let base = args.model.load()?;
        let text = base.text()?;
        let mut model = match &args.random {
            None => base.model,
            Some(name) => {
                eprintln!("making random weights of {name} …");
                Arc::new(Model::random(Shape::llama_1_24b(), args.model.activations, 1))
            }
        };
        if let Some(model) = Arc::get_mut(&mut model) {
            model.shape.context = model.shape.context.max(positions);
        }
        Ok(Served { model, text })
    }

    /// Room for so many pages, and what `change` makes of the rest.
    fn engine(&self, args: &ServingArgs, pages: usize, change: impl FnOnce(&mut Config)) -> Result<Engine, Failure> {
        let machine = &args.model.machine;
        let memory = 2 * (pages * cpu::Pages::page_bytes(&self.model.shape)) as u64;
        let mut config = Config::for_memory(&self.model.shape, memory, machine.threads(), machine.isa()?);
        config.slowdown_max = args.slowdown.unwrap_or(config.slowdown_max);
        if let Some(milliseconds) = args.quick_step {
            config.quick_step = Duration::try_from_secs_f64(milliseconds / 1e3)
                .map_err(|error| Failure(format!("--quick-step {milliseconds}: {error}")))?;
        }
        change(&mut config);
        Engine::start(self.model.clone(), self.text.clone(), config)
            .map_err(|error| Failure(format!("starting threads: {error}")))
    }
}

/// Words that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn word(&mut self) -> u32 {
        self.0 += 1;
        philox([3, 3], [self.0 as u32, (self.0 >> 32) as u32, 0, 0])[0]
    }

    fn below(&mut self, n: usize) -> usize {
        self.word() as usize % n
    }

    /// Token ids that every tokenizer here knows.
    fn tokens(&mut self, count: usize) -> Vec<u32> {
        (0..count).map(|_| 3 + self.below(200) as u32).collect()
    }
}

/// An answer and when its parts came.
struct Timed {
    first: Duration,
    total: Duration,
    completion: Completion,
}

/// Asks and listens to the end.
fn ask(engine: &Engine, request: Request) -> Result<Timed, Failure> {
    let started = Instant::now();
    let mut events = engine.submit(request)?;
    let mut first = None;
    loop {
        let event = events.blocking_recv().ok_or_else(|| Failure("the engine stopped".to_owned()))?;
        let now = Instant::now();
        first.get_or_insert(now - started);
        match event {
            Event::Token(..) => {}
            Event::Text(..) => {}
            Event::Failed(failure) => return Err(failure.into()),
            Event::Done(completion) => {
                let first = first.unwrap_or(now - started);
                return Ok(Timed { first, total: now - started, completion });
            }
        }
    }
}

/// A thread's own runtime, on which it listens to many answers.
fn listener() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.map_err(|error| Failure(format!("starting a thread that listens: {error}")))
}

/// Runs `client` on so many threads and gathers what each gives.
fn together<T: Send>(
    clients: usize,
    client: impl Fn(usize) -> Result<Vec<T>, Failure> + Sync,
) -> Result<Vec<T>, Failure> {
    std::thread::scope(|scope| {
        let client = &client;
        let threads: Vec<_> = (0..clients).map(|number| scope.spawn(move || client(number))).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| Failure("a client broke off".to_owned()))??);
        }
        Ok(all)
    })
}

/// The value that `share` of the values do not exceed, in milliseconds.
fn percentile(values: &[Duration], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).map_or(0.0, |value| value.as_secs_f64() * 1e3)
}
