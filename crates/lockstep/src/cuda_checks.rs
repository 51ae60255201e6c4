//! `lockstep selftest --device cuda` and `lockstep bench --device cuda`: the device's bits against the CPU's, and its
//! speed beside what it can do at most.

use crate::failure::Failure;
use crate::source::{Base, MachineArgs};
use cpu::Hash;
use cuda::bench::{Effort, Line, Peak};
use cuda::check::{self, Dice, Tally};
use cuda::{DeviceError, Driver, Executor, Launcher};
use engine::{Config, Engine, Event, Request};
use exact::Activations;
use exact::sample::Sampling;
use model::Adapter;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn open(number: usize) -> Result<Driver, Failure> {
    let start = Instant::now();
    let driver = crate::device::driver(number)?;
    let (free, total) = driver.memory()?;
    let gigabytes = |bytes: usize| bytes as f64 / 1e9;
    println!("{}: {:.1} of {:.1} GB free", driver.name(), gigabytes(free), gigabytes(total));
    println!("kernels ready after {:.1} s\n", start.elapsed().as_secs_f64());
    Ok(driver)
}

/// Every kernel on random shapes, random models, then the given model and its adapters.
pub(crate) fn selftest(
    number: usize,
    base: &Base,
    adapters: &[Adapter],
    seed: u64,
    machine: &MachineArgs,
) -> Result<(), Failure> {
    let (mut driver, model) = (open(number)?, &base.model);
    let (driver, dice) = (&mut driver, &mut Dice::new(seed));
    type Check<'a> = (&'a str, Box<dyn Fn(&mut Driver, &mut Dice) -> Result<Tally, DeviceError> + 'a>);
    let checks: Vec<Check<'_>> = vec![
        ("rows: norm, SiLU, spread, quantise", Box::new(|l, d| check::rows(l, d, 60_000, 5000))),
        ("rows wider than shared memory", Box::new(|l, d| check::rows(l, d, 200, 80_000))),
        ("dot products, every kernel, small", Box::new(|l, d| check::products(l, d, 1_000_000, [70, 200, 700]))),
        ("dot products, every kernel, large", Box::new(|l, d| check::products(l, d, 3_000_000, [700, 1000, 9000]))),
        ("routes to experts", Box::new(|l, d| check::routes(l, d, 10_000, 2048))),
        ("draws", Box::new(|l, d| check::draws(l, d, 20_000, 3000))),
        ("draws, large vocabulary", Box::new(|l, d| check::draws(l, d, 300, 152_000))),
        ("hashes", Box::new(|l, d| check::hashes(l, d, 50_000, 20_000))),
        ("hashes of long messages", Box::new(|l, d| check::hashes(l, d, 500, 288 * 1024))),
        ("random models, short sequences", Box::new(|l, d| check::models(l, d, 60, 200))),
        ("random models, several spans", Box::new(|l, d| check::models(l, d, 8, 3000))),
        ("the given model and its adapters", Box::new(|l, d| check::given(l, d, model, adapters, 6, 300))),
    ];
    let mut all = Tally::default();
    println!("{:38} {:>10} {:>10} {:>8}", "", "compared", "differing", "seconds");
    for (what, run) in &checks {
        let start = Instant::now();
        let tally = run(driver, dice)?;
        println!("{what:38} {:10} {:10} {:8.1}", tally.vectors, tally.differing, start.elapsed().as_secs_f64());
        all.vectors += tally.vectors;
        all.differing += tally.differing;
    }
    let start = Instant::now();
    let answers = generations(number, base, adapters, seed, machine)?;
    println!("{GENERATIONS:38} {:10} {:10} {:8.1}", answers.vectors, answers.differing, start.elapsed().as_secs_f64());
    all.vectors += answers.vectors;
    all.differing += answers.differing;
    println!("{:38} {:10} {:10}", "all", all.vectors, all.differing);
    if all.differing > 0 {
        let what = format!(
            "{} of {} results have other bits: please report this with the device's name",
            all.differing, all.vectors
        );
        return Err(Failure(what));
    }
    println!("every bit equal");
    Ok(())
}

const GENERATIONS: &str = "whole answers, adapters mixed";

/// Whole answers, many at once, by an engine on the device and by one on the processor: tokens and every leaf.
fn generations(
    number: usize,
    base: &Base,
    adapters: &[Adapter],
    seed: u64,
    machine: &MachineArgs,
) -> Result<Tally, Failure> {
    let (model, text, shape) = (&base.model, base.text()?, &base.model.shape);
    let (threads, isa, memory) = (machine.threads(), machine.isa()?, 1 << 30);
    let executor = Executor::new(Driver::open(number)?, model, Config::executor())?;
    let there = Config::for_device(shape, executor.memory(), memory, threads, isa);
    let failed = |error| Failure(format!("starting threads: {error}"));
    let there = Engine::start_on(executor, model.clone(), text.clone(), there).map_err(failed)?;
    let here = Config::for_memory(shape, memory, threads, isa);
    let here = Engine::start(model.clone(), text, here).map_err(failed)?;
    let mut dice = Dice::new(seed ^ 0x5eed);
    let requests: Vec<(usize, Request)> = (0..128)
        .map(|number| {
            let prompt = (0..1 + dice.below(200)).map(|_| dice.below(shape.vocabulary) as u32).collect();
            let temperature = if number % 4 == 0 { 0.0 } else { 0.8 };
            let sampling = Sampling { temperature, top_p: 0.95, seed: number, ..Sampling::GREEDY };
            (dice.below(adapters.len() + 1), Request { sampling, ..Request::new(prompt, 40) })
        })
        .collect();
    let answers = [&here, &there].map(|engine| answers(engine, adapters, &requests));
    let [here, there] = answers;
    let (here, there) = (here?, there?);
    let differing = here.iter().zip(&there).filter(|(here, there)| here != there).count();
    Ok(Tally { vectors: here.len() as u64, differing: differing as u64 })
}

/// An answer's tokens and leaves.
type Answer = (Vec<u32>, Vec<Hash>);

/// Of every request, all asked at once.
fn answers(engine: &Engine, adapters: &[Adapter], requests: &[(usize, Request)]) -> Result<Vec<Answer>, Failure> {
    let mut handles = vec![None];
    for (number, adapter) in adapters.iter().enumerate() {
        handles.push(Some(engine.adapters().insert(&number.to_string(), Arc::new(adapter.clone()))?));
    }
    let submit = |(adapter, request): &(usize, Request)| {
        engine.submit(Request { adapter: handles[*adapter].clone(), ..request.clone() })
    };
    let events = requests.iter().map(submit).collect::<Result<Vec<_>, _>>()?;
    events
        .into_iter()
        .map(|mut events| {
            loop {
                match events.blocking_recv() {
                    Some(Event::Done(completion)) => return Ok((completion.tokens, completion.leaves)),
                    Some(Event::Failed(failure)) => return Err(failure.into()),
                    Some(_) => {}
                    None => return Err(Failure("the engine stopped before the answer was complete".to_owned())),
                }
            }
        })
        .collect()
}

/// No new measurement starts after this long.
const LONGEST: Duration = Duration::from_secs(400);

/// Random weights of several models; a table last.
pub(crate) fn bench(number: usize, activations: Activations) -> Result<(), Failure> {
    let (start, mut driver) = (Instant::now(), open(number)?);
    let bytes = (driver.memory()?.0 / 8).min(2 << 30) / 4096 * 4096;
    let peak = cuda::bench::peak(&mut driver, bytes, 4000)?;
    println!(
        "limits, measured now: copy {:.0} GB/s (read and written), 8-bit products {:.0} TOP/s\n",
        peak.copy_bytes / 1e9,
        peak.ops / 1e12
    );
    let (mut table, mut failure) = (Vec::new(), None);
    for (name, shape) in cuda::bench::shapes() {
        let enough = || start.elapsed() > LONGEST;
        if enough() {
            println!("{name}: left out, time is up");
            continue;
        }
        println!("{name}: placing random weights …");
        let report = |line: Line| {
            let text = format!("{name:8} {}", row(&line, peak));
            println!("{text}");
            table.push(text);
        };
        match cuda::bench::model(&mut driver, &shape, activations, &Effort::full(), enough, report) {
            Ok(true) => {}
            Ok(false) => println!("{name}: steps could not be recorded; each kernel was launched by itself"),
            Err(DeviceError::Memory(bytes)) => println!("{name}: left out, it takes {bytes} bytes more than there are"),
            Err(error) => {
                println!("{name}: {error}");
                failure = failure.or(Some(error));
            }
        }
    }
    println!(
        "\n{:8} {:44} {:>10} {:>9} {:>8} {:>6} {:>8} {:>6}",
        "",
        activations.name(),
        "tokens/s",
        "ms",
        "GB/s",
        "share",
        "TOP/s",
        "share"
    );
    table.iter().for_each(|line| println!("{line}"));
    println!(
        "\nshares: of the copy bandwidth and of the 8-bit products above; {:.0} s in all",
        start.elapsed().as_secs_f64()
    );
    failure.map_or(Ok(()), |error| Err(error.into()))
}

fn row(line: &Line, peak: Peak) -> String {
    let (bytes, ops) = (line.bytes / line.seconds, line.ops / line.seconds);
    format!(
        "{:44} {:10.0} {:9.3} {:8.0} {:5.0}% {:8.1} {:5.0}%",
        line.what,
        line.tokens,
        line.seconds * 1e3,
        bytes / 1e9,
        100.0 * bytes / peak.copy_bytes,
        ops / 1e12,
        100.0 * ops / peak.ops,
    )
}
