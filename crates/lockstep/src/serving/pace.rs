//! The same kind of requests at a fifth and at four fifths of what the machine can do: how much slower does a stream get?

use super::adapters::Farm;
use super::rounds::{HEADS, ROUNDS, Rounds, hear};
use super::{Dice, Served, ServingArgs, listener, percentile};
use crate::failure::Failure;
use engine::{AdapterHandle, Engine, Request};
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
/// Parts of the full load.
const SHARES: [f64; 3] = [0.2, 0.5, 0.8];

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
    if capacity * LASTS.as_secs_f64() < 1.0 {
        return Err(Failure(format!(
            "{capacity} requests a second are too few to be measured in {LASTS:?}: name a --rate"
        )));
    }
    println!(
        "{PROMPT} tokens of prompt, {ANSWER} of answer, {ADAPTERS} adapters in place; {capacity:.1} requests/s are full load; \
         medians of {ROUNDS} rounds"
    );
    let all = Rounds::measure(SHARES.len(), |round, share| {
        let (gaps, firsts) = offered(&engine, &handles, SHARES[share] * capacity, round)?;
        Ok((gaps, [0.5, 0.99].map(|share| percentile(&firsts, share))))
    })?;
    println!("{:>5} {:>10}  {:>16}  {HEADS}", "load", "requests/s", "first p50 p99 ms");
    for (share, rounds) in SHARES.iter().zip(&all) {
        let [p50, p99] = rounds.more();
        println!("{:4.0}% {:10.1}  {p50:8.2} {p99:7.2}  {}", 100.0 * share, share * capacity, rounds.row());
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
    // Without the beginning, in which all come at once, and the end, at which few are left.
    let (from, to) = (LASTS / 6, LASTS / 2);
    let started = Instant::now();
    let mut ended = 0;
    listener()?.block_on(async {
        let mut dice = Dice(1 << 32);
        let mut answers = JoinSet::new();
        for _ in 0..4 * args.clients {
            answers.spawn(hear(engine, request(handles, &mut dice), || false)?);
        }
        while let Some(answer) = answers.join_next().await {
            answer.map_err(|error| Failure(format!("an answer broke off: {error}")))??;
            ended += u32::from((from..to).contains(&started.elapsed()));
            if started.elapsed() < to {
                answers.spawn(hear(engine, request(handles, &mut dice), || false)?);
            }
        }
        Ok::<_, Failure>(())
    })?;
    Ok(f64::from(ended) / (to - from).as_secs_f64())
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
        let mut answers = JoinSet::new();
        while next < LASTS {
            let u = (f64::from(dice.word()) + 1.0) / (f64::from(u32::MAX) + 2.0);
            next += Duration::from_secs_f64(-u.ln() / per_second);
            tokio::time::sleep(next.saturating_sub(started.elapsed())).await;
            answers.spawn(hear(engine, request(handles, &mut dice), || false)?);
        }
        for heard in answers.join_all().await {
            let heard = heard?;
            gaps.extend(heard.gaps.into_iter().map(|(_, gap)| gap));
            firsts.extend(heard.first);
        }
        Ok::<_, Failure>(())
    })?;
    Ok((gaps, firsts))
}
