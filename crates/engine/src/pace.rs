//! How long a step takes for so many tokens, learnt from the steps before, and how many of its tokens newcomers may have.
//!
//! A step takes nearly a constant, in which the weights are read, and so much for each token. A straight line tells both:
//! its slope through the last five hundred steps or so, its height through the last hundred. Steps that are slow because
//! other programs had the cores tilt a line through few steps so much that newcomers wait for no reason, at half load for a
//! second. Those whose answers are well under way are *settled*: for the sake of newcomers
//! (prompts, and answers that have just begun) a step may take longer than the settled alone would by a given factor, or as
//! long as a step that is quick enough for anybody. So a burst of requests slows nobody's stream down at once, however
//! many they are; as its answers settle in turn, the steps grow. Where weights are dear and tokens cheap, many fit in.

use std::time::Duration;

/// What is left of a step's weight after the next one, for the line's height and for its slope.
const FADING: f64 = 0.99;
const FADING_SLOPE: f64 = 0.998;
/// Steps before the line is trusted, and the tokens of newcomers until then.
const STEPS_LEAST: f64 = 16.0;
const TOKENS_AT_FIRST: usize = 64;
/// Newcomers have at least so many tokens, so that none of them waits for ever.
const TOKENS_LEAST: usize = 4;
/// Share of a step that its tokens take when the machine is full.
const FULL: f64 = 0.9;
/// Fewer streams do not fill a machine, whatever the line says: its constant is a small difference of large means.
const STREAMS_LEAST: usize = 8;
/// Variance of the numbers of tokens below which the line's slope stays as it was.
const VARIANCE_LEAST: f64 = 2.0;

/// Who decodes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Crowd {
    /// Answers well under way.
    pub(crate) settled: usize,
    /// Answers that have just begun.
    pub(crate) young: usize,
}

/// Steps, faded: sums of weights, tokens, nanoseconds and their products.
#[derive(Clone, Default, Debug)]
struct Sums {
    weight: f64,
    tokens: f64,
    nanoseconds: f64,
    tokens_squared: f64,
    product: f64,
}

impl Sums {
    fn add(&mut self, fading: f64, x: f64, y: f64) {
        for (sum, new) in [
            (&mut self.weight, 1.0),
            (&mut self.tokens, x),
            (&mut self.nanoseconds, y),
            (&mut self.tokens_squared, x * x),
            (&mut self.product, x * y),
        ] {
            *sum = *sum * fading + new;
        }
    }

    fn means(&self) -> (f64, f64) {
        (self.tokens / self.weight.max(1.0), self.nanoseconds / self.weight.max(1.0))
    }

    /// Of the line that fits best, if the steps differ enough to tell.
    fn slope(&self) -> Option<f64> {
        let (mean_x, mean_y) = self.means();
        let variance = self.tokens_squared / self.weight - mean_x * mean_x;
        (variance > VARIANCE_LEAST).then(|| (self.product / self.weight - mean_x * mean_y) / variance)
    }
}

/// The line.
#[derive(Clone, Default, Debug)]
pub(crate) struct Pace {
    latest: Sums,
    longer: Sums,
    /// Nanoseconds a token.
    slope: f64,
    slowdown_max: f64,
    quick_nanoseconds: f64,
}

impl Pace {
    pub(crate) fn new(slowdown_max: f64, quick: Duration) -> Pace {
        Pace { slowdown_max, quick_nanoseconds: quick.as_nanos() as f64, ..Pace::default() }
    }

    /// A step of so many tokens took so long.
    pub(crate) fn learn(&mut self, tokens: usize, nanoseconds: u64) {
        let (x, mut y) = (tokens as f64, nanoseconds as f64);
        if self.latest.weight >= STEPS_LEAST {
            // Other programs had the cores, which says nothing about tokens.
            y = y.min(4.0 * self.step_nanoseconds(x));
        }
        self.latest.add(FADING, x, y);
        self.longer.add(FADING_SLOPE, x, y);
        let (mean_x, mean_y) = self.latest.means();
        self.slope = self.longer.slope().unwrap_or(self.slope);
        // Neither a token nor a step takes less than nothing.
        self.slope = self.slope.clamp(0.0, mean_y / mean_x.max(1.0));
    }

    fn constant_nanoseconds(&self) -> f64 {
        let (tokens, nanoseconds) = self.latest.means();
        nanoseconds - self.slope * tokens
    }

    fn step_nanoseconds(&self, tokens: f64) -> f64 {
        self.constant_nanoseconds() + self.slope * tokens
    }

    /// Whether so many streams fill the machine, in steps that are not quick enough for anybody.
    pub(crate) fn is_full(&self, streams: usize) -> bool {
        let is_known = self.slowdown_max.is_finite() && self.latest.weight >= STEPS_LEAST;
        if !is_known || streams < STREAMS_LEAST {
            return false;
        }
        let step = self.step_nanoseconds(streams as f64);
        step > self.quick_nanoseconds && self.slope * streams as f64 >= FULL * step
    }

    /// Tokens that prompts may have in the next step.
    pub(crate) fn beside(&self, crowd: Crowd) -> usize {
        // Where none is settled, all are equals.
        let (others, newcomers) = match crowd {
            Crowd { settled: 0, young: 0 } => return usize::MAX,
            Crowd { settled: 0, young } => (young, 0),
            Crowd { settled, young } => (settled, young),
        };
        if self.slowdown_max.is_infinite() {
            return usize::MAX;
        }
        if self.latest.weight < STEPS_LEAST || self.slope <= 0.0 {
            return TOKENS_AT_FIRST;
        }
        let longest = self.quick_nanoseconds.max(self.slowdown_max * self.step_nanoseconds(others as f64));
        // A hair more, so that rounding takes no token away.
        let tokens = ((longest - self.constant_nanoseconds()) / self.slope + 1e-3) as usize;
        tokens.saturating_sub(others + newcomers).max(TOKENS_LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(4);

    /// Steps of this constant and so much a token, in microseconds.
    fn taught(constant: u64, each: u64, tokens: impl Iterator<Item = usize>) -> Pace {
        let mut pace = Pace::new(1.5, QUICK);
        tokens.for_each(|tokens| pace.learn(tokens, 1000 * (constant + each * tokens as u64)));
        pace
    }

    fn crowd(settled: usize, young: usize) -> Crowd {
        Crowd { settled, young }
    }

    #[test]
    fn a_step_grows_by_the_factor_and_no_more() {
        // Dear weights: 30 ms a step, 1 ms a token. Beside one stream 15.5 ms more are 15 tokens.
        let pace = taught(30_000, 1000, (0..400).map(|i| 1 + i % 40));
        assert_eq!(pace.beside(crowd(1, 0)), 15);
        assert_eq!(pace.beside(crowd(1, 5)), 10);
        assert_eq!(pace.beside(crowd(10, 0)), 20);
        // However many newcomers decode already, prompts go on.
        assert_eq!(pace.beside(crowd(1, 60)), TOKENS_LEAST);
        // Among equals the factor counts from all of them; alone, everything is theirs.
        assert_eq!(pace.beside(crowd(0, 10)), 20);
        assert_eq!(pace.beside(crowd(0, 0)), usize::MAX);
    }

    #[test]
    fn short_steps_may_grow_to_what_is_quick_enough_for_anybody() {
        // 0.2 ms a step, 0.1 ms a token: 38 tokens in 4 ms.
        let pace = taught(200, 100, (0..400).map(|i| 1 + i % 40));
        assert!((36..=38).contains(&(pace.beside(crowd(1, 0)) + 1)));
        assert!((27..=30).contains(&pace.beside(crowd(8, 0))));
    }

    #[test]
    fn the_machine_is_full_when_more_streams_make_it_no_faster() {
        // 0.9 ms a step and 0.1 ms a token: nine tenths of a step of 81 tokens are theirs.
        let pace = taught(900, 100, (0..400).map(|i| 1 + i % 40));
        assert_eq!([79, 80, 82, 83].map(|streams| pace.is_full(streams)), [false, false, true, true]);
        // 0.1 ms a step: from 9 tokens on, but 38 are as quick as anybody needs.
        let pace = taught(100, 100, (0..400).map(|i| 1 + i % 40));
        assert_eq!([9, 38, 40].map(|streams| pace.is_full(streams)), [false, false, true]);
        // Where weights are dear it never is.
        let pace = taught(30_000, 100, (0..400).map(|i| 1 + i % 40));
        assert!(!pace.is_full(1000));
        assert!(!Pace::new(1.5, QUICK).is_full(1000));
    }

    #[test]
    fn steady_steps_and_single_slow_ones_do_not_spoil_what_was_learnt() {
        let mut pace = taught(30_000, 1000, (0..400).map(|i| 1 + i % 40));
        for _ in 0..5000 {
            pace.learn(8, 38_000_000);
        }
        assert!((18..=20).contains(&pace.beside(crowd(8, 0))), "{}", pace.beside(crowd(8, 0)));
        pace.learn(8, 5_000_000_000);
        assert!((10..=40).contains(&pace.beside(crowd(8, 0))), "{}", pace.beside(crowd(8, 0)));
    }

    #[test]
    fn other_programs_on_the_cores_do_not_make_newcomers_wait() {
        // 3.5 ms a step and 0.06 ms a token: beside five settled and seven young ones there is room for 20 tokens.
        let mut pace = Pace::new(1.4, Duration::ZERO);
        let mut state = 1u64;
        let mut below = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % n
        };
        let mut least = usize::MAX;
        for step in 0..20_000 {
            // Some steps have a prompt in them; a tenth is slow.
            let tokens = 8 + below(8) + if below(8) == 0 { 20 } else { 0 };
            let slow = if below(10) == 0 { 4_000_000 + below(12_000_000) } else { 0 };
            pace.learn(tokens as usize, 3_500_000 + 60_000 * tokens + slow);
            if step > 1000 {
                least = least.min(pace.beside(crowd(5, 7)));
            }
        }
        assert!(least > TOKENS_LEAST, "{least}");
    }

    #[test]
    fn before_anything_is_known_there_is_a_guess() {
        assert_eq!(Pace::new(1.5, QUICK).beside(crowd(3, 0)), TOKENS_AT_FIRST);
        assert_eq!(Pace::new(f64::INFINITY, QUICK).beside(crowd(3, 0)), usize::MAX);
    }
}
