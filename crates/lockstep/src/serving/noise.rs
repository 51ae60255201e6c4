//! Others decode while a burst of cold adapters is asked for: do they notice?

use super::adapters::Farm;
use super::{Dice, Served, ServingArgs, ask, percentile, together};
use crate::failure::Failure;
use engine::{AdapterHandle, Engine, Request};
use exact::sample::Sampling;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Tokens of the burst's prompts and answers.
const PROMPT: usize = 16;
const ANSWER: usize = 8;

pub(super) fn run(args: &ServingArgs) -> Result<(), Failure> {
    let burst = args.adapters.unwrap_or(200);
    let served = Served::load(args, 0)?;
    let farm = Farm::grow(args, burst + args.clients)?;
    println!(
        "{} streams, each on its adapter; then {burst} requests at once, {PROMPT} tokens of prompt and {ANSWER} of answer",
        args.clients
    );
    println!(
        "{:38} {:>10} {:>10} {:>10}  {:>9}",
        "between tokens of the streams, ms", "p50", "p99", "worst", "burst s"
    );
    let mut quiet_p99 = None;
    for (what, kind) in [
        ("quiet", Burst::None),
        ("burst on adapters in place", Burst::Warm),
        ("burst on adapters never seen before", Burst::Cold),
        ("burst on adapters whose forms are kept", Burst::Cold),
    ] {
        let engine = served.engine(args, 4096, |config| config.memory += 1 << 30)?;
        let handles = farm.register(&engine, burst + args.clients)?;
        let (own, others) = handles.split_at(args.clients);
        for handle in own {
            ask(&engine, Request { adapter: Some(handle.clone()), ..Request::new(vec![5; 4], 1) })?;
        }
        let (gaps, seconds) = measure(args, &engine, own, others, kind)?;
        let p99 = percentile(&gaps, 0.99);
        let ratio = quiet_p99.map_or(String::new(), |quiet: f64| format!("p99 {:.2}× quiet", p99 / quiet));
        quiet_p99.get_or_insert(p99);
        println!(
            "{what:38} {:10.2} {p99:10.2} {:10.2}  {seconds:9.2}  {ratio}",
            percentile(&gaps, 0.5),
            percentile(&gaps, 1.0)
        );
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
    args: &ServingArgs,
    engine: &Engine,
    own: &[Arc<AdapterHandle>],
    others: &[Arc<AdapterHandle>],
    kind: Burst,
) -> Result<(Vec<Duration>, f64), Failure> {
    let over = AtomicBool::new(false);
    let streams = args.clients;
    std::thread::scope(|scope| {
        let over = &over;
        let listening = scope.spawn(move || {
            together(streams, |number| {
                let mut gaps = Vec::new();
                let mut seed = number as u64;
                while !over.load(SeqCst) {
                    seed += 1000;
                    // Random, so that the answers neither end nor repeat.
                    let sampling = Sampling { temperature: 1.5, seed, ..Sampling::GREEDY };
                    let adapter = Some(own[number].clone());
                    let prompt = Dice(seed << 32).tokens(8);
                    let request = Request { adapter, sampling, ..Request::new(prompt, 400) };
                    gaps.extend(listen(engine, request, over)?);
                }
                Ok(gaps)
            })
        });
        std::thread::sleep(Duration::from_millis(500));
        let started = Instant::now();
        let asked = match kind {
            Burst::None => {
                std::thread::sleep(Duration::from_secs(2));
                Ok(vec![])
            }
            Burst::Warm | Burst::Cold => {
                let mut dice = Dice(77 << 32);
                let mut receivers = Vec::new();
                for (number, handle) in others.iter().enumerate() {
                    let handle = if kind == Burst::Cold { handle } else { &own[number % own.len()] };
                    let adapter = Some(handle.clone());
                    receivers.push(engine.submit(Request { adapter, ..Request::new(dice.tokens(PROMPT), ANSWER) })?);
                }
                receivers.iter_mut().for_each(|receiver| while receiver.blocking_recv().is_some() {});
                Ok::<_, Failure>(receivers)
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        over.store(true, SeqCst);
        let gaps = listening.join().map_err(|_| Failure("a stream broke off".to_owned()))??;
        asked?;
        Ok((gaps.into_iter().filter(|(at, _)| *at >= started).map(|(_, gap)| gap).collect(), seconds))
    })
}

/// When each text of an answer came, and how long after the one before; until all is over.
fn listen(engine: &Engine, request: Request, over: &AtomicBool) -> Result<Vec<(Instant, Duration)>, Failure> {
    let mut events = engine.submit(request)?;
    let (mut last, mut gaps) = (None, Vec::new());
    while let Some(event) = events.blocking_recv() {
        let now = Instant::now();
        if over.load(SeqCst) {
            break;
        }
        match event {
            engine::Event::Failed(failure) => return Err(failure.into()),
            engine::Event::Done(_) => break,
            engine::Event::Token(..) => {}
            engine::Event::Text(..) => gaps.extend(last.replace(now).map(|last| (now, now - last))),
        }
    }
    Ok(gaps)
}
