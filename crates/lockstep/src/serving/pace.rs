//! The same kind of requests at a fifth and at four fifths of what the machine can do: how much slower does a stream get?

use super::adapters::Farm;
use super::{Dice, Served, ServingArgs, percentile, together};
use crate::failure::Failure;
use engine::{AdapterHandle, Engine, Event, Request};
use exact::sample::Sampling;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const PROMPT: usize = 32;
const ANSWER: usize = 64;
/// Adapters in use, all of them in place.
const ADAPTERS: usize = 16;
/// How long each load lasts.
const LASTS: Duration = Duration::from_secs(12);

pub(super) fn run(args: &ServingArgs) -> Result<(), Failure> {
    let served = Served::load(args, 0)?;
    let farm = Farm::grow(args, ADAPTERS)?;
    let engine = served.engine(args, 4096, |config| config.memory += 1 << 30)?;
    let handles = farm.register(&engine, ADAPTERS)?;
    for handle in &handles {
        super::ask(&engine, Request { adapter: Some(handle.clone()), ..Request::new(vec![5; 4], 1) })?;
    }
    let capacity = capacity(args, &engine, &handles)?;
    println!(
        "{PROMPT} tokens of prompt, {ANSWER} of answer, {ADAPTERS} adapters in place; {} clients at once get {capacity:.1} \
         requests/s",
        4 * args.clients
    );
    println!(
        "{:>6} {:>11} {:>9}  {:>34}  {:>21}",
        "load", "requests/s", "answered", "between tokens p50, p99, worst ms", "first p50, p99 ms"
    );
    let mut low = None;
    for share in [0.2, 0.5, 0.8] {
        let (gaps, firsts) = offered(&engine, &handles, share * capacity)?;
        let p99 = percentile(&gaps, 0.99);
        let ratio = p99 / *low.get_or_insert(p99);
        println!(
            "{:5.0}% {:11.1} {:9}  {:10.2} {p99:11.2} {:11.2}  {:10.2} {:10.2}  p99 {ratio:.2}×",
            100.0 * share,
            share * capacity,
            firsts.len(),
            percentile(&gaps, 0.5),
            percentile(&gaps, 1.0),
            percentile(&firsts, 0.5),
            percentile(&firsts, 0.99),
        );
    }
    Ok(())
}

fn request(handles: &[Arc<AdapterHandle>], dice: &mut Dice) -> Request {
    let adapter = Some(handles[dice.below(handles.len())].clone());
    let sampling = Sampling { temperature: 1.5, seed: u64::from(dice.word()), ..Sampling::GREEDY };
    Request { adapter, sampling, ..Request::new(dice.tokens(PROMPT), ANSWER) }
}

/// Requests a second when there are always some waiting.
fn capacity(args: &ServingArgs, engine: &Engine, handles: &[Arc<AdapterHandle>]) -> Result<f64, Failure> {
    let started = Instant::now();
    let ends = together(4 * args.clients, |client| {
        let mut dice = Dice((1 + client as u64) << 32);
        let mut ends = Vec::new();
        while started.elapsed() < LASTS / 2 {
            super::ask(engine, request(handles, &mut dice))?;
            ends.push(started.elapsed());
        }
        Ok(ends)
    })?;
    // Without the beginning, in which all come at once, and the end, at which few are left.
    let (from, to) = (LASTS / 6, LASTS / 2);
    Ok(ends.iter().filter(|end| (from..to).contains(end)).count() as f64 / (to - from).as_secs_f64())
}

/// Requests that come at random moments, whatever became of those before; gaps between tokens, and times to the first.
fn offered(
    engine: &Engine,
    handles: &[Arc<AdapterHandle>],
    per_second: f64,
) -> Result<(Vec<Duration>, Vec<Duration>), Failure> {
    let (sender, receiver) = channel();
    let mut dice = Dice(1 << 40);
    let started = Instant::now();
    let mut next = Duration::ZERO;
    let answers = std::thread::scope(|scope| {
        let mut listeners = Vec::new();
        while next < LASTS {
            let u = (f64::from(dice.word()) + 1.0) / (f64::from(u32::MAX) + 2.0);
            next += Duration::from_secs_f64(-u.ln() / per_second);
            std::thread::sleep(next.saturating_sub(started.elapsed()));
            let asked = Instant::now();
            let mut events = engine.submit(request(handles, &mut dice))?;
            let sender = sender.clone();
            listeners.push(scope.spawn(move || {
                let (mut first, mut last, mut gaps) = (None, None, Vec::new());
                while let Some(event) = events.blocking_recv() {
                    let now = Instant::now();
                    if let Event::Text(..) = event {
                        first.get_or_insert(now - asked);
                        gaps.extend(last.replace(now).map(|last: Instant| now - last));
                    }
                }
                // Nobody listens only if another listener broke off.
                let _ = sender.send((gaps, first));
            }));
        }
        drop(sender);
        Ok::<_, Failure>(receiver.iter().collect::<Vec<_>>())
    })?;
    let firsts = answers.iter().filter_map(|(_, first)| *first).collect();
    Ok((answers.into_iter().flat_map(|(gaps, _)| gaps).collect(), firsts))
}
