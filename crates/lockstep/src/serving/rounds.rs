//! Streams heard under several conditions in turn, round after round: other programs on the machine disturb single rounds, so
//! medians are told, and each round's conditions are compared with that round's first.

use super::percentile;
use crate::failure::Failure;
use crate::progress::count_bar;
use engine::{Engine, Event, Request};
use std::time::{Duration, Instant};

/// Rounds in which every condition is measured once.
pub(super) const ROUNDS: usize = 5;

/// What was heard of one answer.
#[derive(Default)]
pub(super) struct Heard {
    /// From asking to the first text.
    pub(super) first: Option<Duration>,
    /// When a token came, and how long after the one before it. A character of several tokens is shown with its last one;
    /// such gaps say nothing of how steadily tokens come and are left out.
    pub(super) gaps: Vec<(Instant, Duration)>,
}

/// Asks, and listens to the answer's end or until somebody says that it is `over`.
pub(super) fn hear<O: Fn() -> bool>(
    engine: &Engine,
    request: Request,
    over: O,
) -> Result<impl Future<Output = Result<Heard, Failure>> + use<O>, Failure> {
    let asked = Instant::now();
    let mut events = engine.submit(request)?;
    let (mut heard, mut last) = (Heard::default(), None);
    Ok(async move {
        while let Some(event) = events.recv().await {
            let now = Instant::now();
            if over() {
                return Ok(heard);
            }
            match event {
                Event::Failed(failure) => return Err(failure.into()),
                Event::Done(_) => return Ok(heard),
                Event::Token(..) => {}
                Event::Text(_, drawn) => {
                    heard.first.get_or_insert(now - asked);
                    if let Some((before, count)) = last.replace((now, drawn))
                        && drawn == count + 1
                    {
                        heard.gaps.push((now, now - before));
                    }
                }
            }
        }
        Err(Failure("the engine stopped".to_owned()))
    })
}

/// What one round showed of one condition, in milliseconds: its gaps between tokens and whatever else it is asked for.
struct Round<const MORE: usize> {
    p50: f64,
    p99: f64,
    worst: f64,
    /// How many times the p99 of the same round's first condition.
    ratio: f64,
    more: [f64; MORE],
}

/// Every round of one condition.
pub(super) struct Rounds<const MORE: usize>(Vec<Round<MORE>>);

impl<const MORE: usize> Rounds<MORE> {
    /// Measures each condition once a round. `measure` is told which round and which condition, and gives the gaps between
    /// tokens and what else is to be told.
    pub(super) fn measure(
        conditions: usize,
        mut measure: impl FnMut(usize, usize) -> Result<(Vec<Duration>, [f64; MORE]), Failure>,
    ) -> Result<Vec<Rounds<MORE>>, Failure> {
        let bar = count_bar("rounds", (ROUNDS * conditions) as u64);
        let mut all: Vec<_> = (0..conditions).map(|_| Rounds(Vec::new())).collect();
        for round in 0..ROUNDS {
            let mut reference = None;
            for (condition, rounds) in all.iter_mut().enumerate() {
                let (gaps, more) = measure(round, condition)?;
                let [p50, p99, worst] = [0.5, 0.99, 1.0].map(|share| percentile(&gaps, share));
                let ratio = p99 / *reference.get_or_insert(p99);
                rounds.0.push(Round { p50, p99, worst, ratio, more });
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(all)
    }

    /// The middle one of what `value` gives of each round.
    fn median(&self, value: impl Fn(&Round<MORE>) -> f64) -> f64 {
        let mut values: Vec<f64> = self.0.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    }

    /// The medians as a row of a table with [`HEADS`].
    pub(super) fn row(&self) -> String {
        let [p50, p99, worst] =
            [self.median(|round| round.p50), self.median(|round| round.p99), self.median(|round| round.worst)];
        let ratios: Vec<String> = self.0.iter().map(|round| format!("{:.2}", round.ratio)).collect();
        format!("{p50:8.2} {p99:8.2} {worst:8.2} {:7.2}×  {}", self.median(|round| round.ratio), ratios.join(" "))
    }

    /// The medians of what else was told.
    pub(super) fn more(&self) -> [f64; MORE] {
        std::array::from_fn(|i| self.median(|round| round.more[i]))
    }
}

/// Over what [`Rounds::row`] gives: milliseconds between tokens, and p99 as a multiple of the first condition's.
pub(super) const HEADS: &str = "  p50 ms   p99 ms worst ms to first  every round";
