//! Others decode while a burst of cold adapters is asked for: do they notice?

use super::adapters::Farm;
use super::rounds::{HEADS, ROUNDS, Rounds, hear};
use super::{Dice, Served, ServingArgs, ask, listener};
use crate::failure::Failure;
use engine::{AdapterHandle, Engine, Request};
use exact::sample::Sampling;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Tokens of the burst's prompts and answers.
const PROMPT: usize = 16;
const ANSWER: usize = 8;

const KINDS: [(&str, Burst); 4] = [
    ("quiet", Burst::None),
    ("burst on adapters in place", Burst::Warm),
    ("burst on adapters never seen before", Burst::Cold),
    ("burst on adapters whose forms are kept", Burst::Cold),
];

pub(super) fn run(args: &ServingArgs) -> Result<(), Failure> {
    let burst = args.adapters.unwrap_or(200);
    let served = Served::load(args, 0)?;
    let farm = Farm::grow(args, burst + args.clients)?;
    println!(
        "{} streams, each on its adapter; then {burst} requests at once, {PROMPT} tokens of prompt and {ANSWER} of answer; \
         medians of {ROUNDS} rounds of the streams' time between tokens",
        args.clients
    );
    let all = Rounds::measure(KINDS.len(), |_, kind| {
        if kind == 0 {
            farm.forget_forms();
        }
        let engine = served.engine(args, 4096, |config| config.memory += 1 << 30)?;
        let handles = farm.register(&engine, burst + args.clients)?;
        let (own, others) = handles.split_at(args.clients);
        for handle in own {
            ask(&engine, Request { adapter: Some(handle.clone()), ..Request::new(vec![5; 4], 1) })?;
        }
        let (gaps, seconds) = measure(&engine, own, others, KINDS[kind].1)?;
        Ok((gaps, [seconds]))
    })?;
    println!("{:38} {:>7}  {HEADS}", "", "burst s");
    for ((what, _), rounds) in KINDS.iter().zip(&all) {
        let [seconds] = rounds.more();
        println!("{what:38} {seconds:7.2}  {}", rounds.row());
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Burst {
    None,
    Warm,
    Cold,
}

/// Gaps between the streams' tokens while the burst is answered, and how long that takes.
fn measure(
    engine: &Engine,
    own: &[Arc<AdapterHandle>],
    others: &[Arc<AdapterHandle>],
    kind: Burst,
) -> Result<(Vec<Duration>, f64), Failure> {
    let over = Arc::new(AtomicBool::new(false));
    let heard = over.clone();
    std::thread::scope(|scope| {
        let listening = scope.spawn(move || listen(engine, own, &heard));
        std::thread::sleep(Duration::from_millis(500));
        let started = Instant::now();
        let burst = || {
            if kind == Burst::None {
                std::thread::sleep(Duration::from_secs(4));
            } else {
                let mut dice = Dice(77 << 32);
                let mut receivers = Vec::new();
                for (number, handle) in others.iter().enumerate() {
                    let handle = if kind == Burst::Cold { handle } else { &own[number % own.len()] };
                    let adapter = Some(handle.clone());
                    receivers.push(engine.submit(Request { adapter, ..Request::new(dice.tokens(PROMPT), ANSWER) })?);
                }
                receivers.iter_mut().for_each(|receiver| while receiver.blocking_recv().is_some() {});
            }
            Ok::<_, Failure>(())
        };
        let asked = burst();
        let seconds = started.elapsed().as_secs_f64();
        over.store(true, SeqCst);
        let gaps = listening.join().map_err(|_| Failure("a stream broke off".to_owned()))??;
        asked?;
        Ok((gaps.into_iter().filter(|(at, _)| *at >= started).map(|(_, gap)| gap).collect(), seconds))
    })
}

/// When single tokens of the streams came, and how long after the one before; until all is over. One thread listens to all of
/// them: one for each would take the cores from the engine.
fn listen(
    engine: &Engine,
    adapters: &[Arc<AdapterHandle>],
    over: &Arc<AtomicBool>,
) -> Result<Vec<(Instant, Duration)>, Failure> {
    let ask = |number: usize, turn: u64| {
        // Random, so that the answers neither end nor repeat.
        let sampling = Sampling { temperature: 1.5, seed: 1000 * turn + number as u64, ..Sampling::GREEDY };
        let prompt = Dice(sampling.seed << 32).tokens(8);
        let adapter = Some(adapters[number].clone());
        let over = over.clone();
        let answer =
            hear(engine, Request { adapter, sampling, ..Request::new(prompt, 400) }, move || over.load(SeqCst))?;
        Ok::<_, Failure>(async move { (number, turn, answer.await) })
    };
    listener()?.block_on(async {
        let (mut streams, mut all) = (JoinSet::new(), vec![]);
        for number in 0..adapters.len() {
            streams.spawn(ask(number, 1)?);
        }
        while let Some(ended) = streams.join_next().await {
            let (number, turn, heard) = ended.map_err(|error| Failure(format!("a stream broke off: {error}")))?;
            all.extend(heard?.gaps);
            if !over.load(SeqCst) {
                streams.spawn(ask(number, turn + 1)?);
            }
        }
        Ok(all)
    })
}
