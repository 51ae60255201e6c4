//! Who asks for what, and when: from a trace, or drawn.

use crate::failure::{Failure, io};
use clap::{Args, ValueEnum};
use exact::generator::philox;
use serde::Deserialize;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Requests of one trace, at most.
const REQUESTS_MAX: usize = 10_000_000;

/// The traffic.
#[derive(Args, Clone, Debug)]
pub(crate) struct TrafficArgs {
    /// A trace to replay: a line of JSON for each request, {"at": SECONDS, "model": NAME, "prompt_tokens": N,
    /// "output_tokens": N}, and "prefix": N for those that share the beginning of their prompts.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "arrivals", "zipf"])]
    trace: Option<PathBuf>,
    /// Requests a second, on average.
    #[arg(long, default_value_t = 4.0, value_name = "N")]
    rate: f64,
    /// How they come.
    #[arg(long, value_enum, default_value = "poisson")]
    arrivals: Arrivals,
    /// Seconds of traffic.
    #[arg(long, default_value_t = 30.0, value_name = "S")]
    duration: f64,
    /// How unevenly models are asked for: the model at place k as often as 1 / k^ZIPF. 0 is evenly.
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    zipf: f64,
    /// Tokens of a prompt, on average; each is drawn from half to one and a half times as many.
    #[arg(long, default_value_t = 100, value_name = "N")]
    prompt_tokens: u64,
    /// Tokens of an answer, on average; drawn the same way.
    #[arg(long, default_value_t = 30, value_name = "N")]
    output_tokens: u64,
    /// Tokens that prompts share at their beginning, beside their own.
    #[arg(long, default_value_t = 0, value_name = "N")]
    shared_tokens: u64,
    /// How many different beginnings there are.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    prefixes: u64,
    /// Draws other traffic.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

/// How requests come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Arrivals {
    /// Independently of each other.
    Poisson,
    /// In bursts: ten seconds with four times the rate, thirty with none, Poisson within.
    Bursty,
    /// Evenly.
    Even,
}

/// A request to come.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arrival {
    /// Seconds from the beginning.
    pub(crate) at: f64,
    pub(crate) model: String,
    /// Tokens of its own prompt, shared ones included.
    pub(crate) prompt_tokens: u64,
    pub(crate) output_tokens: u64,
    /// Which beginning it shares with others.
    #[serde(default)]
    pub(crate) prefix: Option<u64>,
    /// How many of its tokens are shared.
    #[serde(default)]
    pub(crate) shared_tokens: u64,
}

impl TrafficArgs {
    /// All requests in the order in which they come; `models` are those there are, the most wanted first.
    pub(crate) fn arrivals(&self, models: &[String]) -> Result<Vec<Arrival>, Failure> {
        match &self.trace {
            Some(path) => read(path),
            None => self.draw(models),
        }
    }

    /// Seconds of drawn traffic; of a trace, until its last request.
    pub(crate) fn seconds(&self, arrivals: &[Arrival]) -> f64 {
        match &self.trace {
            Some(_) => arrivals.last().map_or(0.0, |last| last.at),
            None => self.duration,
        }
    }

    fn draw(&self, models: &[String]) -> Result<Vec<Arrival>, Failure> {
        if !(self.rate > 0.0 && self.rate <= 1e6 && self.duration > 0.0 && self.rate * self.duration <= 1e7) {
            return Err(Failure("--rate and --duration are above 0, and at most ten million requests".to_owned()));
        }
        if !(0.0..=10.0).contains(&self.zipf) {
            return Err(Failure("--zipf is from 0 to 10".to_owned()));
        }
        if models.is_empty() {
            return Err(Failure("there are no models to ask for".to_owned()));
        }
        let mut dice = Dice { key: self.seed, count: 0 };
        let weights: Vec<f64> = (1..=models.len()).map(|place| (place as f64).powf(-self.zipf)).collect();
        let whole: f64 = weights.iter().sum();
        let (mut arrivals, mut at) = (Vec::new(), 0.0);
        loop {
            at += match self.arrivals {
                Arrivals::Even => 1.0 / self.rate,
                Arrivals::Poisson => -dice.unit().ln() / self.rate,
                Arrivals::Bursty => -dice.unit().ln() / (4.0 * self.rate),
            };
            if self.arrivals == Arrivals::Bursty && at % 40.0 >= 10.0 {
                at = (at / 40.0).ceil() * 40.0;
            }
            if at >= self.duration {
                return Ok(arrivals);
            }
            let mut left = dice.unit() * whole;
            let place = weights.iter().position(|weight| {
                left -= weight;
                left <= 0.0
            });
            let mut around = |mean: u64| ((mean as f64) * (0.5 + dice.unit())).round().max(1.0) as u64;
            let (prompt, output_tokens) = (around(self.prompt_tokens), around(self.output_tokens));
            arrivals.push(Arrival {
                at,
                model: models[place.unwrap_or(0)].clone(),
                prompt_tokens: prompt + self.shared_tokens,
                output_tokens,
                prefix: (self.shared_tokens > 0).then(|| dice.next() % self.prefixes),
                shared_tokens: self.shared_tokens,
            });
        }
    }
}

fn read(path: &Path) -> Result<Vec<Arrival>, Failure> {
    let file = std::fs::File::open(path).map_err(io(path))?;
    let mut arrivals: Vec<Arrival> = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.map_err(io(path))?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |what: String| Failure(format!("{}, line {number}: {what}", path.display()));
        let arrival: Arrival = serde_json::from_str(&line).map_err(|error| wrong(error.to_string()))?;
        if !(arrival.at >= 0.0 && arrival.at < 1e9) {
            return Err(wrong("\"at\" is a number of seconds from the beginning".to_owned()));
        }
        if arrivals.len() == REQUESTS_MAX {
            return Err(wrong(format!("a trace has at most {REQUESTS_MAX} requests")));
        }
        arrivals.push(arrival);
    }
    if arrivals.is_empty() {
        return Err(Failure(format!("{} holds no requests", path.display())));
    }
    arrivals.sort_by(|one, other| one.at.total_cmp(&other.at));
    Ok(arrivals)
}

/// Numbers that look random, the same for the same seed.
pub(crate) struct Dice {
    pub(crate) key: u64,
    pub(crate) count: u64,
}

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.count += 1;
        let words = philox(
            [self.key as u32, (self.key >> 32) as u32],
            [self.count as u32, (self.count >> 32) as u32, 0x10ad, 0],
        );
        u64::from(words[0]) << 32 | u64::from(words[1])
    }

    /// Above 0, at most 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        traffic: TrafficArgs,
    }

    fn draw(args: &[&str]) -> Vec<Arrival> {
        let models: Vec<String> = (0..10).map(|n| format!("m{n}")).collect();
        let command = Command::parse_from([&["load"], args].concat());
        command.traffic.arrivals(&models).unwrap()
    }

    #[test]
    fn drawn_traffic_has_the_rate_and_the_mix_asked_for() {
        let all = draw(&["--rate", "50", "--duration", "200", "--shared-tokens", "64"]);
        assert!((9_600..10_400).contains(&all.len()), "{}", all.len());
        assert!(all.is_sorted_by(|a, b| a.at <= b.at));
        let count = |name: &str| all.iter().filter(|arrival| arrival.model == name).count() as f64;
        let ratio = count("m0") / count("m4");
        assert!((4.0..6.2).contains(&ratio), "1 / k: {ratio}");
        let mean = all.iter().map(|arrival| arrival.prompt_tokens).sum::<u64>() as f64 / all.len() as f64;
        assert!((160.0..168.0).contains(&mean), "{mean}");
        assert_eq!(draw(&["--seed", "9"]), draw(&["--seed", "9"]));
        assert_ne!(draw(&["--seed", "9"]), draw(&["--seed", "8"]));
    }

    #[test]
    fn bursts_come_in_a_quarter_of_the_time() {
        let all = draw(&["--arrivals", "bursty", "--rate", "20", "--duration", "400"]);
        assert!((7_000..9_000).contains(&all.len()), "{}", all.len());
        assert!(all.iter().all(|arrival| arrival.at % 40.0 < 10.0));
        assert_eq!(draw(&["--arrivals", "even", "--rate", "2", "--duration", "10.1"]).len(), 20);
    }

    #[test]
    fn traces_are_read_and_faults_named_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let line = r#"{"at": 2, "model": "a", "prompt_tokens": 5, "output_tokens": 6}"#;
        std::fs::write(&path, format!("{line}\n\n{}\n", line.replace('2', "1"))).unwrap();
        let read_back = read(&path).unwrap();
        assert_eq!(read_back.iter().map(|arrival| arrival.at).collect::<Vec<_>>(), [1.0, 2.0]);
        for wrong in ["{}", "x", &line.replace('2', "-1"), &line.replace("at", "when")] {
            std::fs::write(&path, format!("{line}\n{wrong}\n")).unwrap();
            assert!(read(&path).unwrap_err().0.contains("line 2"), "{wrong}");
        }
        std::fs::write(&path, "\n").unwrap();
        assert!(read(&path).is_err());
    }
}
