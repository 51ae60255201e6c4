//! `lockstep generate`: one answer on the terminal, as it comes.

use crate::device::{DeviceArgs, Place};
use crate::failure::Failure;
use crate::source::ModelArgs;
use clap::Args;
use engine::{Config, Engine, Event, Request};
use exact::sample::Sampling;
use model::Message;
use std::io::{IsTerminal, Read, Write};
use std::sync::Arc;
use std::time::Instant;

/// Options of `lockstep generate`.
#[derive(Args, Debug)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Folder of a LoRA adapter in PEFT's layout, or the name of one of the demo's.
    #[arg(long, value_name = "DIR")]
    adapter: Option<String>,
    /// What to answer, as a user's message through the model's chat template. Without it: read from standard input.
    prompt: Option<String>,
    /// Take the prompt as plain text to continue, without a chat template.
    #[arg(long)]
    raw: bool,
    /// The most tokens of the answer.
    #[arg(long, default_value_t = 256)]
    tokens_max: usize,
    /// 0 takes the likeliest token each time.
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Keep this many of the likeliest tokens; 0 keeps all.
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// Keep the likeliest tokens until their probabilities reach this.
    #[arg(long, default_value_t = 1.0)]
    top_p: f64,
    /// Keep tokens at least this likely relative to the likeliest.
    #[arg(long, default_value_t = 0.0)]
    min_p: f64,
    /// The same seed gives the same answer, on every machine.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// End the answer before this text. May be given several times.
    #[arg(long)]
    stop: Vec<String>,
}

/// Generates one answer.
pub(crate) fn run(args: &GenerateArgs) -> Result<(), Failure> {
    let sampling = sampling(args)?;
    let base = args.model.load()?;
    let adapter = args.adapter.as_ref().map(|name| args.model.load_adapter(&base, name)).transpose()?;
    let text = base.text()?;
    let prompt = match &args.prompt {
        Some(prompt) => prompt.clone(),
        None => read_prompt()?,
    };
    let prompt = if args.raw || !text.has_chat_template() {
        text.encode(&prompt, true)?
    } else {
        text.encode_chat(&[Message::new("user", prompt)], &[])?
    };
    let tokens_max = args.tokens_max.min(base.model.shape.context.saturating_sub(prompt.len()).max(1));
    let positions = prompt.len() + tokens_max;
    let machine = &args.model.machine;
    let room = 2 * adapter.as_ref().map_or(0, |adapter| adapter.bytes() as u64);
    let (shape, threads, isa) = (&base.model.shape, machine.threads(), machine.isa()?);
    let pages = Some(2 * positions.div_ceil(cpu::PAGE));
    let place = args.device.open(&base.model, cuda::Config { positions, pages, ..Config::executor() })?;
    let engine = match place {
        Place::Cuda(executor, name) => {
            eprintln!("computing on {name}");
            let config = Config::for_device(shape, executor.memory(), room, threads, isa);
            Engine::start_on(*executor, base.model.clone(), text.clone(), config)
        }
        Place::Processor(_) => {
            let pages = cpu::Pages::page_bytes(shape) * positions.div_ceil(cpu::PAGE);
            let config = Config::for_memory(shape, 2 * pages as u64, threads, isa);
            let config = Config { memory: config.memory + room, ..config };
            Engine::start(base.model.clone(), text.clone(), config)
        }
    };
    let engine = engine.map_err(|error| Failure(format!("starting threads: {error}")))?;
    let start = Instant::now();
    let prompt_tokens = prompt.len();
    let adapter = adapter.map(|adapter| engine.adapters().insert("adapter", Arc::new(adapter))).transpose()?;
    let mut events = engine.submit(Request {
        adapter,
        sampling,
        stop_tokens: text.end_tokens().to_vec(),
        stop_strings: args.stop.clone(),
        ..Request::new(prompt, tokens_max)
    })?;
    let mut first = None;
    let mut out = std::io::stdout().lock();
    loop {
        match events.blocking_recv() {
            Some(Event::Text(piece, _)) => {
                first.get_or_insert_with(|| start.elapsed());
                let _ = write!(out, "{piece}").and_then(|()| out.flush());
            }
            Some(Event::Done(completion)) => {
                let _ = writeln!(out);
                let (count, total) = (completion.tokens.len(), start.elapsed());
                let first = first.unwrap_or(total);
                eprintln!(
                    "{prompt_tokens} tokens of prompt, first text after {:.0} ms; {count} tokens, {:.1} a second",
                    first.as_secs_f64() * 1e3,
                    count.saturating_sub(1) as f64 / (total - first).as_secs_f64().max(1e-6),
                );
                return Ok(());
            }
            Some(Event::Token(..)) => {}
            Some(Event::Failed(failure)) => return Err(failure.into()),
            None => return Err(Failure("the engine stopped before the answer was complete".to_owned())),
        }
    }
}

fn sampling(args: &GenerateArgs) -> Result<Sampling, Failure> {
    let wrong = |what: &str| Err(Failure(what.to_owned()));
    if !(args.temperature == 0.0 || (0.001..=100.0).contains(&args.temperature)) {
        return wrong("--temperature is 0, or from 0.001 to 100");
    }
    if !(0.0..=1.0).contains(&args.top_p) || !(0.0..=1.0).contains(&args.min_p) {
        return wrong("--top-p and --min-p are from 0 to 1");
    }
    let (temperature, top_k, top_p, min_p, seed) = (args.temperature, args.top_k, args.top_p, args.min_p, args.seed);
    Ok(Sampling { temperature, top_k, top_p, min_p, seed })
}

fn read_prompt() -> Result<String, Failure> {
    if std::io::stdin().is_terminal() {
        eprintln!("type the prompt, then end it with Ctrl-D");
    }
    let mut prompt = String::new();
    std::io::stdin().read_to_string(&mut prompt).map_err(|error| Failure(format!("reading the prompt: {error}")))?;
    Ok(prompt)
}
