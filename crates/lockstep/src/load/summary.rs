//! What a server gave under load, in numbers.

use super::client::Answered;
use gateway::Target;
use returns::Device;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Models shown on the terminal.
const MODELS_SHOWN: usize = 12;

/// Sums and percentiles.
pub(crate) struct Summary {
    sent: usize,
    /// Seconds from the first request's time to the last answer's end, and of the traffic itself.
    seconds: f64,
    offered_seconds: f64,
    good: usize,
    good_tokens: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    output_tokens: u64,
    first: Times,
    gaps: Times,
    total: Times,
    errors: BTreeMap<String, usize>,
    models: BTreeMap<String, (usize, Times)>,
}

/// Sorted durations.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn sorted(mut times: Vec<Duration>) -> Times {
        times.sort_unstable();
        Times(times)
    }

    /// The time, in milliseconds, that this share of all does not exceed.
    fn at(&self, share: f64) -> f64 {
        let place = ((self.0.len() as f64 * share).ceil() as usize).clamp(1, self.0.len().max(1)) - 1;
        self.0.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    }

    fn to_json(&self) -> Value {
        json!({"p50": self.at(0.5), "p90": self.at(0.9), "p99": self.at(0.99), "max": self.at(1.0)})
    }
}

impl Summary {
    pub(crate) fn new(all: &[Answered], took: Duration, offered_seconds: f64, target: &Target) -> Summary {
        let answered: Vec<&Answered> = all.iter().filter(|one| one.error.is_none()).collect();
        let is_good = |one: &&&Answered| !target.is_missed(one.first, one.total, one.output_tokens as usize);
        let good: Vec<&&Answered> = answered.iter().filter(is_good).collect();
        let mut errors = BTreeMap::new();
        for error in all.iter().filter_map(|one| one.error.clone()) {
            *errors.entry(error).or_default() += 1;
        }
        let mut models: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
        for one in &answered {
            models.entry(one.model.clone()).or_default().push(one.first);
        }
        let times = |of: fn(&Answered) -> Duration| Times::sorted(answered.iter().map(|one| of(one)).collect());
        let sum = |of: fn(&Answered) -> u64| answered.iter().map(|one| of(one)).sum();
        Summary {
            sent: all.len(),
            seconds: took.as_secs_f64(),
            offered_seconds,
            good: good.len(),
            good_tokens: good.iter().map(|one| one.prompt_tokens + one.output_tokens).sum(),
            prompt_tokens: sum(|one| one.prompt_tokens),
            cached_tokens: sum(|one| one.cached_tokens),
            output_tokens: sum(|one| one.output_tokens),
            first: times(|one| one.first),
            gaps: Times::sorted(answered.iter().flat_map(|one| one.gaps.iter().copied()).collect()),
            total: times(|one| one.total),
            errors,
            models: models.into_iter().map(|(name, first)| (name, (first.len(), Times::sorted(first)))).collect(),
        }
    }

    /// Dollars for a million tokens of prompts and answers, and for a million good ones, if the device was paid for from the
    /// first request to the last answer.
    fn dollars_per_million(&self, device: &Device) -> (f64, f64) {
        let nanoseconds = (self.seconds * 1e9) as u64;
        let dollars = device.cost(nanoseconds, nanoseconds).total() as f64 / 1e6;
        let each = |tokens: u64| dollars / tokens.max(1) as f64 * 1e6;
        (each(self.prompt_tokens + self.output_tokens), each(self.good_tokens))
    }

    pub(crate) fn to_json(&self, device: Option<&Device>) -> Value {
        let models: BTreeMap<&String, Value> = self
            .models
            .iter()
            .map(|(name, (count, first))| (name, json!({"answers": count, "first_ms": first.to_json()})))
            .collect();
        json!({
            "requests": self.sent,
            "answers": self.total.0.len(),
            "errors": self.errors,
            "seconds": self.seconds,
            "offered_seconds": self.offered_seconds,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "output_tokens": self.output_tokens,
            "good_answers": self.good,
            "good_tokens": self.good_tokens,
            "first_ms": self.first.to_json(),
            "between_ms": self.gaps.to_json(),
            "total_ms": self.total.to_json(),
            "models": models,
            "dollars_per_million_tokens": device.map(|device| self.dollars_per_million(device).0),
            "dollars_per_million_good_tokens": device.map(|device| self.dollars_per_million(device).1),
        })
    }

    pub(crate) fn print(&self, device: Option<&Device>) {
        let answers = self.total.0.len();
        let rate = |count: f64| count / self.seconds.max(1e-9);
        println!(
            "{} requests over {:.1} s, {answers} answered, after {:.1} s all: {:.2} answers/s",
            self.sent,
            self.offered_seconds,
            self.seconds,
            rate(answers as f64)
        );
        for (error, count) in &self.errors {
            println!("  failed: {count} × {error}");
        }
        println!(
            "  tokens of prompts {:10}   {:8.1} /s, {:.1} % found computed",
            self.prompt_tokens,
            rate(self.prompt_tokens as f64),
            100.0 * self.cached_tokens as f64 / self.prompt_tokens.max(1) as f64
        );
        println!("  tokens of answers {:10}   {:8.1} /s", self.output_tokens, rate(self.output_tokens as f64));
        println!("  milliseconds                p50        p90        p99        max");
        for (what, times) in
            [("to the first token", &self.first), ("between pieces", &self.gaps), ("whole", &self.total)]
        {
            let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| times.at(share));
            println!("  {what:20} {p50:10.1} {p90:10.1} {p99:10.1} {max:10.1}");
        }
        println!(
            "  goodput: {} of {} requests within the target ({:.1} %), {:.1} tokens/s",
            self.good,
            self.sent,
            100.0 * self.good as f64 / self.sent.max(1) as f64,
            rate(self.good_tokens as f64)
        );
        if let Some(device) = device {
            let (all, good) = self.dollars_per_million(device);
            println!("  {}: {all:.4} dollars for a million tokens, {good:.4} for a million good ones", device.name);
        }
        let mut models: Vec<_> = self.models.iter().collect();
        models.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        println!("  model                          answers   first token p50        p99 ms");
        for (name, (count, first)) in models.iter().take(MODELS_SHOWN) {
            println!("  {name:28} {count:9} {:17.1} {:10.1}", first.at(0.5), first.at(0.99));
        }
        if models.len() > MODELS_SHOWN {
            println!("  and {} more (--json tells all)", models.len() - MODELS_SHOWN);
        }
    }
}
