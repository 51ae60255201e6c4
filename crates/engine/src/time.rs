//! Where the device's time goes: every nanosecond since the engine started is charged once.
//!
//! A step's time is divided among the tokens it computed, alike, and so among purposes and adapters. What lies between
//! two steps is *held* time if somebody waits, *loading* if all who wait wait for adapters, and *idle* if nobody does.

use crate::counters::StepTokens;
use std::time::Instant;

/// Nanoseconds of a device's time by what they went into.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Time {
    /// Computing prompts for the first time.
    pub prefill: u64,
    /// Computing answers, token by token.
    pub decode: u64,
    /// Computing tokens that were guessed ahead, and right.
    pub accepted: u64,
    /// Computing tokens that were guessed ahead, and wrong.
    pub rejected: u64,
    /// Computing again what a pre-emption had thrown away.
    pub recomputed: u64,
    /// Computing answers again to check them.
    pub audit: u64,
    /// Waiting for adapters, with nothing else to compute.
    pub loading: u64,
    /// Not computing although somebody waits: choosing, passing on, waiting for masks of forms.
    pub held: u64,
    /// Nobody waits.
    pub idle: u64,
}

impl Time {
    /// Every kind of time by its name, in the order of a report.
    pub fn kinds(&self) -> [(&'static str, u64); 9] {
        [
            ("prefill", self.prefill),
            ("decode", self.decode),
            ("accepted", self.accepted),
            ("rejected", self.rejected),
            ("recomputed", self.recomputed),
            ("audit", self.audit),
            ("loading", self.loading),
            ("held", self.held),
            ("idle", self.idle),
        ]
    }

    /// All of it.
    pub fn total(&self) -> u64 {
        self.kinds().iter().map(|(_, nanoseconds)| nanoseconds).sum()
    }

    /// What was spent computing.
    pub fn busy(&self) -> u64 {
        self.prefill + self.decode + self.accepted + self.rejected + self.recomputed + self.audit
    }

    pub(crate) fn add(&mut self, other: &Time) {
        self.prefill += other.prefill;
        self.decode += other.decode;
        self.accepted += other.accepted;
        self.rejected += other.rejected;
        self.recomputed += other.recomputed;
        self.audit += other.audit;
        self.loading += other.loading;
        self.held += other.held;
        self.idle += other.idle;
    }
}

/// What a name (an adapter, or the base by itself) took and gave.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Use {
    /// Its part of the device's time.
    pub time: Time,
    /// Tokens of prompts computed.
    pub prefill_tokens: u64,
    /// Tokens of prompts that were found computed.
    pub cached_tokens: u64,
    /// Tokens drawn.
    pub answer_tokens: u64,
    /// Answers completed.
    pub answers: u64,
}

impl Use {
    pub(crate) fn add(&mut self, other: &Use) {
        self.time.add(&other.time);
        self.prefill_tokens += other.prefill_tokens;
        self.cached_tokens += other.cached_tokens;
        self.answer_tokens += other.answer_tokens;
        self.answers += other.answers;
    }
}

/// Tells the nanoseconds since some moment. Everything that depends on how long steps take asks this and nothing else, so
/// that tests say how long they take.
pub(crate) type Clock = Box<dyn Fn() -> u64 + Send>;

/// The machine's clock, from now on.
pub(crate) fn machine_clock() -> Clock {
    let start = Instant::now();
    Box::new(move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// Measures laps.
pub(crate) struct Meter {
    clock: Clock,
    mark: u64,
}

impl Meter {
    pub(crate) fn new(clock: Clock) -> Meter {
        Meter { mark: clock(), clock }
    }

    /// Nanoseconds since it was asked last.
    pub(crate) fn lap(&mut self) -> u64 {
        let now = (self.clock)();
        now.saturating_sub(std::mem::replace(&mut self.mark, now))
    }
}

/// Divides a step's nanoseconds among sequences by their tokens, and within each among purposes: to the nanosecond.
pub(crate) fn divide(nanoseconds: u64, parts: &[(StepTokens, bool)]) -> Vec<Time> {
    let weight = |part: &StepTokens| part.prefill + part.decode + part.accepted + part.rejected + part.recomputed;
    let all: u64 = parts.iter().map(|(part, _)| weight(part)).sum();
    let (mut before, mut given) = (0, 0);
    let mut take = |tokens: u64| {
        before += tokens;
        let until = (u128::from(nanoseconds) * u128::from(before) / u128::from(all.max(1))) as u64;
        let own = until - given;
        given = until;
        own
    };
    let divided = parts.iter().map(|(part, audit)| match audit {
        true => Time { audit: take(weight(part)), ..Time::default() },
        false => Time {
            prefill: take(part.prefill),
            decode: take(part.decode),
            accepted: take(part.accepted),
            rejected: take(part.rejected),
            recomputed: take(part.recomputed),
            ..Time::default()
        },
    });
    divided.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_of_a_step_is_lost(
            nanoseconds in 0..u64::MAX,
            parts in prop::collection::vec(([0..300u64, 0..3u64, 0..9u64, 0..9u64, 0..70u64], any::<bool>()), 1..40),
        ) {
            let parts: Vec<(StepTokens, bool)> = parts
                .into_iter()
                .map(|([prefill, decode, accepted, rejected, recomputed], audit)| {
                    (StepTokens { prefill, decode, accepted, rejected, recomputed }, audit)
                })
                .collect();
            let divided = divide(nanoseconds, &parts);
            let total: u128 = divided.iter().map(|time| u128::from(time.total())).sum();
            let any = parts.iter().any(|(part, _)| {
                part.prefill + part.decode + part.accepted + part.rejected + part.recomputed > 0
            });
            prop_assert_eq!(total, if any { u128::from(nanoseconds) } else { 0 });
            for (time, (_, audit)) in divided.iter().zip(&parts) {
                prop_assert_eq!(time.audit, if *audit { time.total() } else { 0 });
            }
        }
    }

    #[test]
    fn tokens_weigh_alike() {
        let tokens = |prefill, decode| (StepTokens { prefill, decode, ..StepTokens::default() }, false);
        let divided =
            divide(1000, &[tokens(8, 0), tokens(0, 1), (StepTokens { decode: 1, ..StepTokens::default() }, true)]);
        assert_eq!([divided[0].prefill, divided[1].decode, divided[2].audit], [800, 100, 100]);
    }
}
