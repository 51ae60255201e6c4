//! The long measurements behind the promises of docs/light-check.md, docs/disputes.md and the README:
//!
//! ```sh
//! cargo run --release -p lockstep-audit --example measure -- honest 10000     # no false alarm
//! cargo run --release -p lockstep-audit --example measure -- tampered 10000   # every attack caught, and where
//! cargo run --release -p lockstep-audit --example measure -- products 1000000 # altered sums rejected
//! cargo run --release -p lockstep-audit --example measure -- light 64 16 avx2 # 1.24 billion parameters: prompt, answer, instruction set
//! cargo run --release -p lockstep-audit --example measure -- replay 128 64    # 1.24 billion parameters
//! ```

#![expect(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot go on has failed")]

#[path = "../../tests/support/mod.rs"]
mod support;

mod answers;
mod light;
mod replaying;

use answers::{honest, tampered};
use exact::{Activations, Isa};
use light::{light, light_check, products};
use model::{Model, Shape};
use receipt::Settings;
use replaying::replaying;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use support::{How, settings};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| arguments.get(at).map_or(default, |text| text.parse().unwrap());
    match arguments.first().map(String::as_str) {
        Some("honest") => honest(number(1, 10_000)),
        Some("tampered") => tampered(number(1, 10_000)),
        Some("products") => products(number(1, 1_000_000)),
        Some("light") => light(number(1, 64) as u32, number(2, 16), arguments.get(3).map_or("best", String::as_str)),
        Some("light-check") => light_check(Path::new(&arguments[1]), &arguments[2], &arguments[3]),
        Some("replay") => replaying(number(1, 128) as u32, number(2, 64)),
        _ => println!("honest N | tampered N | products N | light PROMPT ANSWER | replay PROMPT ANSWER"),
    }
}

/// A stream of numbers from one seed.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        ((u128::from(self.0 ^ (self.0 >> 33)) * u128::from(bound)) >> 64) as u64
    }

    pub(crate) fn prompt(&mut self, longest: u64) -> Vec<u32> {
        (0..1 + self.below(longest)).map(|_| self.below(320) as u32).collect()
    }

    pub(crate) fn settings(&mut self, longest: u64) -> Settings {
        Settings {
            temperature: [0.0, 0.6, 0.9, 1.3][self.below(4) as usize],
            top_k: [0, 0, 5, 60][self.below(4) as usize],
            top_p: [1.0, 0.95, 0.5][self.below(3) as usize],
            min_p: [0.0, 0.0, 0.1][self.below(3) as usize],
            seed: self.below(u64::MAX),
            tokens_max: 1 + self.below(longest),
            ..settings()
        }
    }
}

pub(crate) fn large() -> Arc<Model> {
    let started = Instant::now();
    let model = Arc::new(Model::random(Shape::llama_1_24b(), Activations::A8, 1));
    println!("random model of 1.24 billion parameters made in {:.0} s", started.elapsed().as_secs_f64());
    model
}

pub(crate) fn long_settings(tokens_max: u64) -> Settings {
    Settings { tokens_max, temperature: 0.8, ..settings() }
}

pub(crate) fn two_threads() -> How {
    How { threads: 2, chunk: 256, ..How::plain() }
}

/// An instruction set of this machine by its name.
pub(crate) fn isa_of(name: &str) -> Isa {
    let named = Isa::available().into_iter().find(|isa| isa.to_string() == name);
    if name == "best" { Isa::best() } else { named.unwrap() }
}

/// Seconds that all threads of this process computed.
pub(crate) fn computed_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

pub(crate) fn most_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(0.0) / 1e3
}
