//! What it costs to hold an answer to a form: time a token with a JSON schema and without, and time to compile schemas.

use super::{Dice, Served, ServingArgs, percentile, together};
use crate::failure::Failure;
use engine::{Engine, Event, Request, Shaping};
use exact::sample::Sampling;
use grammar::{Grammar, Kind, Source, Vocabulary};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PROMPT: usize = 16;
const ANSWER: usize = 256;
/// Each round measures plain answers and answers with the form, in turns.
const ROUNDS: usize = 12;
/// Schemas compiled, each of them new.
const COMPILED: usize = 200;

/// A list of orders that is never complete within an answer: strings, patterns, numbers, choices, lists.
fn schema(number: usize) -> String {
    let order = r#"{"type": "object", "additionalProperties": false, "required": ["id", "item", "colour", "price", "tags"],
        "properties": {"id": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{5}$"}, "item": {"type": "string", "maxLength": 40},
        "colour": {"enum": ["red", "blue", "green", null]}, "price": {"type": "number", "minimum": 0, "maximum": 999},
        "count": {"type": "integer", "minimum": 1, "maximum": 12},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 1, "maxItems": 4}}}"#;
    format!(r#"{{"title": "Orders {number}", "type": "array", "minItems": 100, "items": {order}}}"#)
}

pub(super) fn run(args: &ServingArgs) -> Result<(), Failure> {
    let served = Served::load(args, 0)?;
    let engine = served.engine(args, 4096, |config| config.draft_tokens = 0)?;
    let started = Instant::now();
    let vocabulary = Vocabulary::new(&served.text).map_err(|error| Failure(error.to_string()))?;
    println!(
        "vocabulary of {} tokens read in {:.0} ms",
        served.text.vocabulary(),
        1e3 * started.elapsed().as_secs_f64()
    );
    let form = compile(&vocabulary, 0)?.0;
    let compiled = (1..=COMPILED).map(|number| compile(&vocabulary, number).map(|(_, took)| took));
    let compiled = compiled.collect::<Result<Vec<_>, _>>()?;
    println!(
        "{COMPILED} schemas compiled: median {:.2} ms, p99 {:.2} ms",
        percentile(&compiled, 0.5),
        percentile(&compiled, 0.99)
    );
    println!(
        "{:>7}  {:>27}  {:>27}  {:>18}",
        "streams", "plain: median, p99 µs/token", "form: median, p99 µs/token", "median with form"
    );
    for streams in [1, args.clients] {
        let (mut plain, mut formed) = (Vec::new(), Vec::new());
        for round in 0..=ROUNDS {
            let gaps = [None, Some(&form)].map(|form| answers(&engine, streams, round, form));
            let [without, with] = gaps;
            // The first warms up.
            if round > 0 {
                plain.extend(without?);
                formed.extend(with?);
            }
        }
        let at = |gaps: &[Duration], share| 1e3 * percentile(gaps, share);
        let (median, formed_median) = (at(&plain, 0.5), at(&formed, 0.5));
        println!(
            "{streams:7}  {median:13.0} {:13.0}  {formed_median:13.0} {:13.0}  {:+8.0} µs {:+6.1} %",
            at(&plain, 0.99),
            at(&formed, 0.99),
            formed_median - median,
            100.0 * (formed_median / median - 1.0)
        );
    }
    Ok(())
}

fn compile(vocabulary: &Arc<Vocabulary>, number: usize) -> Result<(Arc<Grammar>, Duration), Failure> {
    let source = Source { kind: Kind::JsonSchema, text: schema(number) };
    let started = Instant::now();
    let compiled = vocabulary.compile(&source).map_err(|error| Failure(error.to_string()))?;
    Ok((compiled, started.elapsed()))
}

/// Time for each token after the first, of answers that come at once.
fn answers(
    engine: &Engine,
    streams: usize,
    round: usize,
    form: Option<&Arc<Grammar>>,
) -> Result<Vec<Duration>, Failure> {
    together(streams, |stream| {
        let number = (round * streams + stream) as u64;
        let sampling = Sampling { temperature: 1.0, seed: number, ..Sampling::GREEDY };
        let shaping = Shaping { form: form.cloned(), ..Shaping::default() };
        let prompt = Dice(number << 32).tokens(PROMPT);
        let mut events = engine.submit(Request { sampling, shaping, ..Request::new(prompt, ANSWER) })?;
        let (mut last, mut gaps) = (None, Vec::new());
        while let Some(event) = events.blocking_recv() {
            match event {
                Event::Text(_, drawn) => {
                    let now = Instant::now();
                    if let Some((before, count)) = last.replace((now, drawn)) {
                        // Some tokens bring no text of their own: the gap is that of several.
                        let tokens = u32::try_from(drawn - count).unwrap_or(u32::MAX).max(1);
                        gaps.extend((0..tokens).map(|_| (now - before) / tokens));
                    }
                }
                Event::Failed(failure) => return Err(failure.into()),
                Event::Done(..) | Event::Token(..) => {}
            }
        }
        Ok(gaps)
    })
}
