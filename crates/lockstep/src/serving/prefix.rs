//! Requests that begin the same: what the shared pages spare.

use super::{Dice, Served, ServingArgs, Timed, ask, percentile, together};
use crate::failure::Failure;
use engine::{Engine, Request};
use std::time::Duration;

/// Tokens of each prompt that are its own, and of each answer.
const OWN: usize = 16;
const ANSWER: usize = 4;

pub(super) fn run(args: &ServingArgs) -> Result<(), Failure> {
    let positions = args.shared + OWN + ANSWER;
    let served = Served::load(args, positions)?;
    let pages = args.requests.max(args.uncached) * positions.div_ceil(cpu::PAGE);
    println!("prompts of {} tokens, the first {} the same; {ANSWER} tokens of answer", args.shared + OWN, args.shared);
    let uncached = served.engine(args, pages, |config| config.prefix_cache = false)?;
    let without = one_by_one(args, &uncached, args.uncached)?;
    drop(uncached);
    show("not cached, one by one", &without);
    let engine = served.engine(args, pages, |_| {})?;
    let with = one_by_one(args, &engine, args.requests)?;
    show("cached, one by one", &with);
    let same = without
        .iter()
        .zip(&with)
        .all(|(a, b)| a.completion.tokens == b.completion.tokens && a.completion.leaves == b.completion.leaves);
    println!(
        "  answers and traces of the first {}: {}",
        without.len(),
        if same { "the same bits" } else { "DIFFERENT" }
    );
    let counters = engine.counters();
    let (found, all) = (counters.cached_tokens as f64, (args.requests * (args.shared + OWN)) as f64);
    println!("  {:.1} % of the prompts' tokens found computed", 100.0 * found / all);
    println!(
        "  time to first token: {:.1} times shorter (median)",
        percentile(&first(&without), 0.5) / percentile(&first(&with), 0.5)
    );
    drop(engine);
    let engine = served.engine(args, pages, |_| {})?;
    let all = together(args.requests, |number| Ok(vec![ask(&engine, request(args, number))?]))?;
    show("cached, all at once", &all);
    let counters = engine.counters();
    println!(
        "  computed {} tokens of prompt, found {}: {:.1} % of the work avoided",
        counters.prefill_tokens,
        counters.cached_tokens,
        100.0 * counters.cached_tokens as f64 / (counters.cached_tokens + counters.prefill_tokens) as f64
    );
    if same { Ok(()) } else { Err(Failure("the cache changed an answer".to_owned())) }
}

fn request(args: &ServingArgs, number: usize) -> Request {
    let prompt = [Dice(1 << 32).tokens(args.shared), Dice((2 + number as u64) << 32).tokens(OWN)].concat();
    Request::new(prompt, ANSWER)
}

fn one_by_one(args: &ServingArgs, engine: &Engine, count: usize) -> Result<Vec<Timed>, Failure> {
    (0..count).map(|number| ask(engine, request(args, number))).collect()
}

fn first(all: &[Timed]) -> Vec<Duration> {
    all.iter().map(|timed| timed.first).collect()
}

fn show(what: &str, all: &[Timed]) {
    let first = first(all);
    println!(
        "{what}: {} requests, first token after {:.1} ms (median), {:.1} ms (p99)",
        all.len(),
        percentile(&first, 0.5),
        percentile(&first, 0.99)
    );
}
