//! The same kind of requests at a fifth and at four fifths of what the machine can do: how much slower does a stream get?

use super::adapters::Farm;
use super::{Dice, Served, ServingArgs, each, listener, median, percentile, together};
use crate::failure::Failure;
use crate::progress::count_bar;
use engine::{AdapterHandle, Engine, Event, Request};
use exact::sample::Sampling;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

const PROMPT: usize = 32;
const ANSWER: usize = 64;
/// Adapters in use, all of them in place.
const ADAPTERS: usize = 16;
/// How long each load lasts.
const LASTS: Duration = Duration::from_secs(8);
/// Parts of the full load, measured in turn so often: other programs on the machine disturb single rounds.
const SHARES: [f64; 3] = [0.2, 0.5, 0.8];
const ROUNDS: usize = 5;

/// What a round showed of one load, in milliseconds.
#[derive(Clone, Copy)]
struct Round {
    p50: f64,
    p99: f64,
    worst: f64,
    first_p50: f64,
    first_p99: f64,
    /// How many times the p99 of the same round's lowest load.
    ratio: f64,
}

pub(super) fn run(args: &ServingArgs) -> Result<(), Failure> {
    let served = Served::load(args, 0)?;
    let farm = Farm::grow(args, ADAPTERS)?;
    let engine = served.engine(args, 4096, |config| config.memory += 1 << 30)?;
    let handles = farm.register(&engine, ADAPTERS)?;
    for handle in &handles {
        super::ask(&engine, Request { adapter: Some(handle.clone()), ..Request::new(vec![5; 4], 1) })?;
    }
    let capacity = match args.rate {
        Some(rate) if rate > 0.0 => rate,
        Some(_) => return Err(Failure("--rate is a number of requests a second above 0".to_owned())),
        None => capacity(args, &engine, &handles)?,
    };
    println!(
        "{PROMPT} tokens of prompt, {ANSWER} of answer, {ADAPTERS} adapters in place; {capacity:.1} requests/s are full load; \
         medians of {ROUNDS} rounds"
    );
    let bar = count_bar("rounds", (ROUNDS * SHARES.len()) as u64);
    let mut rounds: [Vec<Round>; SHARES.len()] = Default::default();
    for round in 0..ROUNDS {
        let mut low = None;
        for (share, rounds) in SHARES.iter().zip(&mut rounds) {
            let (gaps, firsts) = offered(&engine, &handles, share * capacity, round)?;
            let [p50, p99, worst] = [0.5, 0.99, 1.0].map(|share| percentile(&gaps, share));
            let [first_p50, first_p99] = [0.5, 0.99].map(|share| percentile(&firsts, share));
            let ratio = p99 / *low.get_or_insert(p99);
            rounds.push(Round { p50, p99, worst, first_p50, first_p99, ratio });
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    println!(
        "{:>6} {:>11}  {:>34}  {:>21}  {:>10}  all",
        "load", "requests/s", "between tokens p50, p99, worst ms", "first p50, p99 ms", "p99 to 20%"
    );
    for (share, rounds) in SHARES.iter().zip(&rounds) {
        println!(
            "{:5.0}% {:11.1}  {:10.2} {:11.2} {:11.2}  {:10.2} {:10.2}  {:9.2}×  {}",
            100.0 * share,
            share * capacity,
            median(rounds, |round| round.p50),
            median(rounds, |round| round.p99),
            median(rounds, |round| round.worst),
            median(rounds, |round| round.first_p50),
            median(rounds, |round| round.first_p99),
            median(rounds, |round| round.ratio),
            each(rounds, |round| round.ratio)
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

/// Requests that come at random moments, whatever became of those before; gaps between tokens, and times to the first. One
/// thread listens to all: one for each would take the cores from the engine.
fn offered(
    engine: &Engine,
    handles: &[Arc<AdapterHandle>],
    per_second: f64,
    round: usize,
) -> Result<(Vec<Duration>, Vec<Duration>), Failure> {
    let mut dice = Dice((1 + round as u64) << 40);
    let started = Instant::now();
    let mut next = Duration::ZERO;
    let (mut gaps, mut firsts) = (vec![], vec![]);
    listener()?.block_on(async {
        let mut listeners = JoinSet::new();
        while next < LASTS {
            let u = (f64::from(dice.word()) + 1.0) / (f64::from(u32::MAX) + 2.0);
            next += Duration::from_secs_f64(-u.ln() / per_second);
            tokio::time::sleep(next.saturating_sub(started.elapsed())).await;
            let asked = Instant::now();
            let mut events = engine.submit(request(handles, &mut dice))?;
            listeners.spawn(async move {
                let (mut first, mut last, mut gaps) = (None, None, Vec::new());
                while let Some(event) = events.recv().await {
                    let now = Instant::now();
                    if let Event::Text(..) = event {
                        first.get_or_insert(now - asked);
                        gaps.extend(last.replace(now).map(|last: Instant| now - last));
                    }
                }
                (gaps, first)
            });
        }
        for (of_one, first) in listeners.join_all().await {
            gaps.extend(of_one);
            firsts.extend(first);
        }
        Ok::<_, Failure>(())
    })?;
    Ok((gaps, firsts))
}
