//! How many devices some traffic needs, shared by all models or one deployment for each, and what they return.
//!
//! A request takes of a device the time that its tokens take when the device is full. In every window of time there must
//! be devices enough that none is busy for more than a given part of it: what is left keeps queues short.

use crate::device::{Cost, Device};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// How fast a full device is.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Speed {
    /// Tokens of prompts in a second.
    pub prefill: f64,
    /// Tokens of answers in a second, of all streams together.
    pub decode: f64,
}

/// A request as far as it matters here.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Ask<'a> {
    /// Seconds from the beginning.
    pub at: f64,
    /// Who answers.
    pub model: &'a str,
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Of these, shared with others that have the same `prefix`.
    pub shared: u64,
    /// Which beginning it shares.
    pub prefix: Option<u64>,
    /// Tokens of the answer.
    pub output: u64,
}

/// Tokens of some traffic, by how they are charged.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Tokens {
    /// Requests.
    pub requests: u64,
    /// Tokens of prompts, found computed or not.
    pub prompt: u64,
    /// Of these, found computed because another prompt of the model began the same.
    pub cached: u64,
    /// Tokens of answers.
    pub output: u64,
}

/// Devices for some traffic.
#[derive(Clone, Copy, Default, PartialEq, Debug, Serialize)]
pub struct Fleet {
    /// How many.
    pub devices: u64,
    /// Seconds of computing, of all of them.
    pub busy_seconds: f64,
}

impl Fleet {
    /// What it costs to have it for so many seconds.
    pub fn cost(&self, device: &Device, seconds: f64) -> Cost {
        let nanoseconds = |seconds: f64| (seconds * 1e9).min(u64::MAX as f64) as u64;
        device.cost(nanoseconds(seconds * self.devices as f64), nanoseconds(self.busy_seconds))
    }
}

/// What traffic asks for: tokens by model, and devices shared or apart.
#[derive(Clone, Default, PartialEq, Debug, Serialize)]
pub struct Need {
    /// By model.
    pub tokens: BTreeMap<String, Tokens>,
    /// If all models share every device.
    pub shared: Fleet,
    /// If each model has devices of its own.
    pub separate: Fleet,
}

/// Sums up traffic of so many seconds in windows of `window` seconds, in which devices may be busy for the part `load_max`.
pub fn need(asks: &[Ask<'_>], seconds: f64, speed: Speed, window: f64, load_max: f64) -> Need {
    let count = (seconds / window).ceil().max(1.0) as usize;
    let mut need = Need::default();
    let mut all = vec![0.0; count];
    let mut each: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for ask in asks {
        let known = ask.prefix.is_some_and(|prefix| !seen.insert((ask.model, prefix)));
        let cached = if known { ask.shared.min(ask.prompt) } else { 0 };
        let tokens = need.tokens.entry(ask.model.to_owned()).or_default();
        tokens.requests += 1;
        tokens.prompt += ask.prompt;
        tokens.cached += cached;
        tokens.output += ask.output;
        let work = (ask.prompt - cached) as f64 / speed.prefill + ask.output as f64 / speed.decode;
        let place = ((ask.at / window) as usize).min(count - 1);
        all[place] += work;
        each.entry(ask.model).or_insert_with(|| vec![0.0; count])[place] += work;
    }
    // The last window may be shorter than the others.
    let length = |place: usize| window.min(seconds - place as f64 * window).max(window / 1000.0);
    let fleet = |work: &[f64]| {
        let devices = (0..).zip(work).map(|(place, work)| (work / (length(place) * load_max)).ceil() as u64);
        Fleet { devices: devices.max().unwrap_or(1).max(1), busy_seconds: work.iter().sum() }
    };
    need.shared = fleet(&all);
    for work in each.values() {
        let own = fleet(work);
        need.separate.devices += own.devices;
        need.separate.busy_seconds += own.busy_seconds;
    }
    need
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEED: Speed = Speed { prefill: 1000.0, decode: 100.0 };

    fn ask(at: f64, model: &str) -> Ask<'_> {
        Ask { at, model, prompt: 500, shared: 0, prefix: None, output: 50 }
    }

    #[test]
    fn a_second_of_work_each() {
        // Ten models, each asked once in ten seconds: ten seconds of work.
        let names: Vec<String> = (0..10).map(|n| format!("m{n}")).collect();
        let asks: Vec<Ask<'_>> = (0..10).map(|n| ask(n as f64, &names[n])).collect();
        let need = super::need(&asks, 10.0, SPEED, 10.0, 0.5);
        assert_eq!((need.shared.devices, need.separate.devices), (2, 10));
        assert!((need.shared.busy_seconds - 10.0).abs() < 1e-9 && need.tokens.len() == 10);
        let cost = need.shared.cost(&Device { rent: 3_600_000_000, ..Device::default() }, 10.0);
        assert_eq!(cost.hosting, 20_000_000);
    }

    #[test]
    fn the_fullest_window_decides() {
        let asks: Vec<Ask<'_>> = (0..8).map(|n| ask(if n < 6 { 1.0 } else { 15.0 }, "m")).collect();
        assert_eq!(super::need(&asks, 20.0, SPEED, 4.0, 1.0).shared.devices, 2);
        assert_eq!(super::need(&asks, 20.0, SPEED, 20.0, 1.0).shared.devices, 1);
        assert_eq!(super::need(&[], 20.0, SPEED, 20.0, 1.0).shared.devices, 1);
    }

    #[test]
    fn beginnings_are_computed_once_for_each_model() {
        let shared = |model| Ask { shared: 400, prefix: Some(3), ..ask(0.0, model) };
        let need = super::need(&[shared("a"), shared("a"), shared("b")], 10.0, SPEED, 10.0, 1.0);
        assert_eq!((need.tokens["a"].cached, need.tokens["b"].cached), (400, 0));
        assert!((need.shared.busy_seconds - (0.5 * 3.0 + 0.1 + 0.5 * 2.0)).abs() < 1e-9);
    }
}
