//! `lockstep selftest --device cuda` and `lockstep bench --device cuda`: the device's bits against the CPU's, and its
//! speed beside what it can do at most.

use crate::failure::Failure;
use crate::source::{Base, MachineArgs};
use cpu::Hash;
use cuda::bench::{Account, Effort, Line, Peak};
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

/// A device that is opened again once it has failed: many errors last as long as the context does.
struct Reopened<D, O> {
    driver: Option<D>,
    open: O,
}

impl<D, O: FnMut() -> Result<D, DeviceError>> Reopened<D, O> {
    /// What `run` gives; the driver is closed where it fails.
    fn with<T>(&mut self, run: impl FnOnce(&mut D) -> Result<T, DeviceError>) -> Result<T, DeviceError> {
        let driver = match &mut self.driver {
            Some(driver) => driver,
            closed => closed.insert((self.open)()?),
        };
        let made = run(driver);
        if made.is_err() {
            self.driver = None;
        }
        made
    }
}

/// A little of everything, no model: for tools under which a device is a hundred times slower.
pub(crate) fn quick(number: usize, seed: u64) -> Result<(), Failure> {
    let tally = check::quick(&mut open(number)?, &mut Dice::new(seed))?;
    println!("{} results compared, {} differing", tally.vectors, tally.differing);
    verdict(tally, 0)
}

/// Success if every bit is equal and nothing failed.
fn verdict(all: Tally, failures: usize) -> Result<(), Failure> {
    if failures > 0 {
        let what = "LOCKSTEP_CUDA_WAIT=1 before the command names the kernel";
        return Err(Failure(format!("{failures} checks failed and {} results have other bits; {what}", all.differing)));
    }
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

/// Every kernel on random shapes, random models, then the given model and its adapters. A check that fails is told and the
/// others still run.
pub(crate) fn selftest(
    number: usize,
    base: &Base,
    adapters: &[Adapter],
    seed: u64,
    machine: &MachineArgs,
) -> Result<(), Failure> {
    let mut device = Reopened { driver: Some(open(number)?), open: || Driver::open(number) };
    let model = &base.model;
    let dice = &mut Dice::new(seed);
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
        ("random models, several spans", Box::new(|l, d| check::models(l, d, 9, 3000))),
        ("the given model and its adapters", Box::new(|l, d| check::given(l, d, model, adapters, 6, 300))),
    ];
    let (mut all, mut failures) = (Tally::default(), 0);
    let mut tell = |what: &str, start: Instant, made: Result<Tally, Failure>| {
        let seconds = start.elapsed().as_secs_f64();
        match made {
            Ok(tally) => {
                println!("{what:38} {:10} {:10} {seconds:8.1}", tally.vectors, tally.differing);
                all.vectors += tally.vectors;
                all.differing += tally.differing;
            }
            Err(error) => {
                println!("{what:38} failed after {seconds:.1} s: {error}");
                failures += 1;
            }
        }
    };
    println!("{:38} {:>10} {:>10} {:>8}", "", "compared", "differing", "seconds");
    for (what, run) in &checks {
        let start = Instant::now();
        tell(what, start, device.with(|driver| run(driver, dice)).map_err(Failure::from));
    }
    // The engine's device is opened anew, with nothing left of this one.
    drop(device);
    let start = Instant::now();
    tell(GENERATIONS, start, generations(number, base, adapters, seed, machine));
    println!("{:38} {:10} {:10}", "all", all.vectors, all.differing);
    verdict(all, failures)
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
    let start = Instant::now();
    let mut device = Reopened { driver: Some(open(number)?), open: || Driver::open(number) };
    let peak = device.with(|driver| {
        let bytes = (driver.memory()?.0 / 8).min(2 << 30) / 4096 * 4096;
        cuda::bench::peak(driver, bytes, 4000)
    })?;
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
        let effort = Effort::full();
        match device.with(|driver| cuda::bench::model(driver, &shape, activations, &effort, enough, report)) {
            Ok(account) => remarks(name, &effort, &account),
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

/// What the lines of a model leave open.
fn remarks(name: &str, effort: &Effort, account: &Account) {
    let ((count, bytes), room) = (account.registered, account.adapter_bytes as f64 / 1e9);
    println!(
        "{name}: {count} of {} adapters of rank {} registered, {:.1} GB of the {room:.1} kept for adapters",
        effort.registered,
        effort.rank,
        bytes as f64 / 1e9
    );
    if let Some(error) = &account.unrecorded {
        println!("{name}: steps could not be recorded, each kernel was launched by itself: {error}");
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_failed_is_opened_anew_and_the_command_fails_at_the_end() {
        let mut opened = 0;
        let open = || {
            opened += 1;
            if opened == 2 { Err(DeviceError::Absent("gone".to_owned())) } else { Ok(opened) }
        };
        let mut device = Reopened { driver: Some(0), open };
        assert_eq!(device.with(|driver| Ok(*driver)), Ok(0));
        assert!(device.with(|_| Err::<(), _>(DeviceError::Memory(1))).is_err());
        assert_eq!(device.with(|driver| Ok(*driver)), Ok(1));
        assert!(device.with(|_| Err::<(), _>(DeviceError::Memory(1))).is_err());
        assert!(matches!(device.with(|driver| Ok(*driver)), Err(DeviceError::Absent(_))));
        assert_eq!(device.with(|driver| Ok(*driver)), Ok(3));
        let equal = Tally { vectors: 9, differing: 0 };
        assert!(verdict(equal, 0).is_ok() && verdict(equal, 1).is_err());
        assert!(verdict(Tally { differing: 1, ..equal }, 0).is_err());
    }
}
