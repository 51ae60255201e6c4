//! The long measurements behind the promises of docs/light-check.md, docs/disputes.md and the README:
//!
//! ```sh
//! cargo run --release -p lockstep-audit --example measure -- honest 10000     # no false alarm
//! cargo run --release -p lockstep-audit --example measure -- tampered 10000   # every attack caught, and where
//! cargo run --release -p lockstep-audit --example measure -- products 1000000 # altered sums rejected
//! cargo run --release -p lockstep-audit --example measure -- light 64 16      # 1.24 billion parameters: prompt, answer
//! cargo run --release -p lockstep-audit --example measure -- replay 128 64    # 1.24 billion parameters
//! ```

#![expect(clippy::unwrap_used, clippy::panic, reason = "a measurement that cannot go on has failed")]

#[path = "../tests/support/mod.rs"]
mod support;

use audit::light::{Key, LightConfig, check, prove};
use audit::trace::Run;
use audit::{Difference, ReplayConfig, Verdict, replay};
use exact::field::{P, Projection, Vector};
use exact::{Activations, Isa};
use model::{Adapter, Mlp, Model, Shape};
use receipt::Settings;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use support::{Case, How, answer, prompt, settings, shape};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, default: u64| arguments.get(at).map_or(default, |text| text.parse().unwrap());
    match arguments.first().map(String::as_str) {
        Some("honest") => honest(number(1, 10_000)),
        Some("tampered") => tampered(number(1, 10_000)),
        Some("products") => products(number(1, 1_000_000)),
        Some("light") => light(number(1, 64) as u32, number(2, 16)),
        Some("replay") => replaying(number(1, 128) as u32, number(2, 64)),
        _ => println!("honest N | tampered N | products N | light PROMPT ANSWER | replay PROMPT ANSWER"),
    }
}

/// A stream of numbers from one seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        ((u128::from(self.0 ^ (self.0 >> 33)) * u128::from(bound)) >> 64) as u64
    }

    fn prompt(&mut self, longest: u64) -> Vec<u32> {
        (0..1 + self.below(longest)).map(|_| self.below(320) as u32).collect()
    }

    fn settings(&mut self, longest: u64) -> Settings {
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

fn models() -> Vec<(Arc<Model>, Vec<Adapter>)> {
    let experts = Mlp::Experts { experts: 6, chosen: 2, width: 32, renormalise: true };
    let shapes = [
        shape(),
        Shape { mlps: vec![experts, Mlp::Gated { width: 96 }], ..shape() },
        Shape { head_norms: true, window: Some(48), spread: false, ..shape() },
    ];
    let mut models = vec![];
    for shape in shapes {
        for mode in [Activations::A8, Activations::A16] {
            let model = Arc::new(Model::random(shape.clone(), mode, 3));
            let adapters = [1, 4, 16].map(|rank| Adapter::random(&model.plan, rank, rank as u64)).into();
            models.push((model, adapters));
        }
    }
    models
}

fn plain(isa: Isa) -> ReplayConfig<'static> {
    ReplayConfig { chunk_tokens: 64, ..ReplayConfig::new(isa, 1) }
}

fn honest(count: u64) {
    let (models, isas, started) = (models(), Isa::available(), Instant::now());
    let (mut numbers, mut positions, mut kinds) = (Numbers(1), 0, BTreeMap::new());
    for i in 0..count {
        let (model, adapters) = &models[numbers.below(models.len() as u64) as usize];
        let adapter = adapters.get(numbers.below(4) as usize);
        let how = How {
            isa: isas[numbers.below(isas.len() as u64) as usize],
            threads: 1,
            chunk: [1, 7, 64][numbers.below(3) as usize],
            companions: numbers.below(3) as usize,
        };
        let (prompt, settings) = (numbers.prompt(40), numbers.settings(24));
        let answer = answer(model, adapter, &prompt, &settings, how);
        let bundle = Case::new(model, adapter, &prompt, &settings, &answer).sign();
        let isa = isas[numbers.below(isas.len() as u64) as usize];
        match replay(&bundle, model.clone(), adapter, plain(isa)).unwrap() {
            Verdict::Equal { positions: all, .. } => positions += all,
            verdict => panic!("answer {i} ({how:?}, replayed on {isa}): {verdict}"),
        }
        *kinds.entry(format!("{} answered, {isa} replayed", how.isa)).or_insert(0) += 1;
    }
    println!("{count} honest answers, {positions} positions, 0 false alarms, {:.0} s", started.elapsed().as_secs_f64());
    kinds.iter().for_each(|(kind, count)| println!("  {count:6} {kind}"));
}

/// The first position at which two traces differ.
fn first_difference(a: &support::Answer, b: &support::Answer) -> Option<usize> {
    a.leaves.iter().zip(&b.leaves).position(|(a, b)| a != b)
}

fn tampered(count: u64) {
    let (models, started, mut numbers) = (models(), Instant::now(), Numbers(2));
    let (mut caught, mut without_effect) = (BTreeMap::<&str, u64>::new(), 0u64);
    let mut done = 0;
    while done < count {
        let (model, adapters) = &models[numbers.below(models.len() as u64) as usize];
        let adapter = adapters.get(numbers.below(4) as usize);
        let (prompt, settings) = (numbers.prompt(30), numbers.settings(16));
        let honest = answer(model, adapter, &prompt, &settings, How::plain());
        let mut case = Case::new(model, adapter, &prompt, &settings, &honest);
        let (p, a) = (prompt.len(), honest.tokens.len());
        let (in_answer, in_trace) = (numbers.below(a as u64) as usize, numbers.below((p + a - 1) as u64) as usize);
        let run = |model: &Arc<Model>, adapter, prompt: &[u32], settings: &Settings| {
            answer(model, adapter, prompt, settings, How::plain())
        };
        // What the attack is, and the first position that must be named; none: any position of a kind that is checked below.
        let (name, expected): (&str, Option<usize>) = match numbers.below(12) {
            0 => {
                case.opening.output[in_answer] = (case.opening.output[in_answer] + 1) % 320;
                ("edited answer", Some(p + in_answer))
            }
            1 => {
                case.opening.leaves[in_trace][3] ^= 1 << numbers.below(8);
                ("edited trace", Some(in_trace))
            }
            2 => {
                // A cheaper decoder behind an honest prefill: all tokens from one on are its own, the trace is theirs.
                let mut tokens = [&prompt[..], &honest.tokens].concat();
                tokens[p + in_answer] = (tokens[p + in_answer] + 1) % 320;
                let forced = run(model, adapter, &tokens, &Settings { tokens_max: 1, ..settings.clone() });
                case.opening.output = tokens[p..].to_vec();
                case.opening.leaves = forced.leaves[..p + a - 1].to_vec();
                ("cheaper decoder, true trace", Some(p + in_answer))
            }
            3 => {
                let at = numbers.below(p as u64) as usize;
                case.opening.prompt[at] = (case.opening.prompt[at] + 1) % 320;
                ("edited prompt", Some(at))
            }
            4 if a > 1 => {
                case.opening.output.truncate(a - 1);
                case.opening.leaves.truncate(p + a - 2);
                ("early stop", Some(p + a - 2))
            }
            5 => {
                let mut cheat = Model::random(model.shape.clone(), model.activations, 3);
                let site = numbers.below(cheat.plan.sites.len() as u64 - 1) as usize;
                let matrix = &mut cheat.weights.linears[site].matrix;
                let output = numbers.below(matrix.outputs() as u64) as usize;
                let mut row = vec![0; matrix.inputs()];
                matrix.row(output, &mut row);
                let column = numbers.below(row.len() as u64) as usize;
                row[column] ^= 1 << numbers.below(7);
                let scale = matrix.scales()[output];
                matrix.set_row(output, &row, scale);
                let cheated = run(&Arc::new(cheat), adapter, &prompt, &settings);
                // Where rounding hides the bit the answer is the true one, and there is nothing to catch.
                let Some(at) = first_difference(&cheated, &honest) else {
                    without_effect += 1;
                    continue;
                };
                case = Case::new(model, adapter, &prompt, &settings, &cheated);
                ("one bit of one weight", Some(at))
            }
            6 => {
                let other = adapters.iter().find(|other| adapter.is_none_or(|own| own.digest != other.digest));
                let cheated = run(model, other, &prompt, &settings);
                let Some(at) = first_difference(&cheated, &honest) else {
                    without_effect += 1;
                    continue;
                };
                case = Case::new(model, adapter, &prompt, &settings, &cheated);
                ("another adapter", Some(at))
            }
            7 if adapter.is_some() => {
                let cheated = run(model, None, &prompt, &settings);
                let Some(at) = first_difference(&cheated, &honest) else {
                    without_effect += 1;
                    continue;
                };
                case = Case::new(model, adapter, &prompt, &settings, &cheated);
                ("adapter left out", Some(at))
            }
            8 => {
                let mode = if model.activations == Activations::A8 { Activations::A16 } else { Activations::A8 };
                let other = Arc::new(Model::random(model.shape.clone(), mode, 3));
                case = Case::new(model, adapter, &prompt, &settings, &run(&other, adapter, &prompt, &settings));
                ("another precision", Some(0))
            }
            kind @ (9..=11) if settings.temperature > 0.0 => {
                let used = match kind {
                    9 => Settings { seed: settings.seed ^ 1, ..settings.clone() },
                    10 => Settings { temperature: settings.temperature * 0.7, ..settings.clone() },
                    _ => Settings { top_p: settings.top_p * 0.6, ..settings.clone() },
                };
                let cheated = run(model, adapter, &prompt, &used);
                let Some(at) = cheated.tokens.iter().zip(&honest.tokens).position(|(a, b)| a != b) else {
                    without_effect += 1;
                    continue;
                };
                case = Case::new(model, adapter, &prompt, &settings, &cheated);
                (["another seed", "another temperature", "another top_p"][kind as usize - 9], Some(p + at))
            }
            _ => continue,
        };
        let verdict = replay(&case.sign(), model.clone(), adapter, plain(Isa::best())).unwrap();
        let Verdict::Differs { position, what, .. } = verdict else { panic!("{name}: not caught") };
        assert!(!matches!(what, Difference::Opening { .. } | Difference::Base { .. }), "{name}: {what}");
        assert_eq!(position, expected, "{name}: {what}");
        *caught.entry(name).or_default() += 1;
        done += 1;
    }
    println!(
        "{done} tampered answers, all caught at the first position that differs, {:.0} s",
        started.elapsed().as_secs_f64()
    );
    println!("({without_effect} more gave the true answer, bit for bit, and were left out)");
    caught.iter().for_each(|(name, count)| println!("  {count:6} {name}"));
}

fn products(count: u64) {
    // A map of 96 × 64, as in the tests' model: sums of random rows, each altered in one to three places at random.
    let (outputs, inputs, isa, started) = (96usize, 64usize, Isa::best(), Instant::now());
    let mut numbers = Numbers(3);
    let rows: Vec<Vec<i8>> =
        (0..outputs).map(|_| (0..inputs).map(|_| (numbers.below(255) as i16 - 127) as i8).collect()).collect();
    let elements: Vec<u64> = (0..outputs).map(|_| numbers.below(P)).collect();
    let mut projection = Projection::new(inputs);
    rows.iter().zip(&elements).for_each(|(row, r)| projection.add(isa, *r, row));
    let (r, r_w) = (Vector::new(elements), Vector::new(projection.finish()));
    let (mut rejected, mut altered) = (0u64, 0u64);
    while altered < count {
        let x: Vec<i32> = (0..inputs).map(|_| numbers.below(255) as i32 - 127).collect();
        let honest: Vec<i32> =
            rows.iter().map(|row| row.iter().zip(&x).map(|(w, x)| i32::from(*w) * x).sum()).collect();
        let right = r_w.dot(isa, 0, &x);
        assert_eq!(r.dot(isa, 0, &honest), right, "a true product is rejected");
        for _ in 0..100 {
            let mut sums = honest.clone();
            for _ in 0..=numbers.below(3) {
                let at = numbers.below(outputs as u64) as usize;
                let by = [1, -1, 256, 1 << numbers.below(30)][numbers.below(4) as usize];
                sums[at] = sums[at].wrapping_add(by);
            }
            if sums != honest {
                altered += 1;
                rejected += u64::from(r.dot(isa, 0, &sums) != right);
            }
        }
    }
    assert_eq!(rejected, altered);
    println!("{altered} altered products, {rejected} rejected, {:.1} s", started.elapsed().as_secs_f64());
}

fn large() -> Arc<Model> {
    let started = Instant::now();
    let model = Arc::new(Model::random(Shape::llama_1_24b(), Activations::A8, 1));
    println!("random model of 1.24 billion parameters made in {:.0} s", started.elapsed().as_secs_f64());
    model
}

fn long_settings(tokens_max: u64) -> Settings {
    Settings { tokens_max, temperature: 0.8, ..settings() }
}

fn two_threads() -> How {
    How { threads: 2, chunk: 256, ..How::plain() }
}

fn light(prompt_tokens: u32, answer_tokens: u64) {
    let (model, isa, threads) = (large(), Isa::best(), 2);
    let settings = long_settings(answer_tokens);
    let prompt = prompt(prompt_tokens);
    let answered = answer(&model, None, &prompt, &settings, two_threads());
    let bundle = Case::new(&model, None, &prompt, &settings, &answered).sign();
    let positions = bundle.opening.leaves.len();
    let started = Instant::now();
    let (key, frame) = Key::secret(&model, [9; 32], isa, threads).unwrap();
    let weights = model.weights.bytes() as f64;
    let (key_bytes, frame_bytes) = (key.to_bytes().len() as f64, frame.to_bytes().len() as f64);
    println!("key made in {:.1} s", started.elapsed().as_secs_f64());
    println!(
        "weights {:.0} MB, key {:.2} MB = {:.3} %, frame {:.2} MB = {:.3} %",
        weights / 1e6,
        key_bytes / 1e6,
        100.0 * key_bytes / weights,
        frame_bytes / 1e6,
        100.0 * frame_bytes / weights
    );
    let started = Instant::now();
    let run = Run { model: model.clone(), adapter: None, isa, threads };
    let opening = prove(&run, &bundle, 0..positions).unwrap();
    let (sums, _) = opening.weight_bytes();
    println!(
        "opened {positions} positions in {:.1} s, {:.2} MB each",
        started.elapsed().as_secs_f64(),
        sums as f64 / positions as f64 / 1e6
    );
    let config = || ReplayConfig::new(isa, threads);
    for _ in 0..3 {
        let verdict = replay(&bundle, model.clone(), None, config()).unwrap();
        let Verdict::Equal { seconds: replayed, .. } = verdict else { panic!("{verdict}") };
        let started = Instant::now();
        let verdict = check(&bundle, &opening, &key, &frame, None, LightConfig { isa, threads }).unwrap();
        let checked = started.elapsed().as_secs_f64();
        assert!(verdict.holds(), "{verdict}");
        let each = |seconds: f64| 1e3 * seconds / positions as f64;
        println!(
            "replay {:.2} ms a token, light check {:.2} ms a token: 1/{:.1}",
            each(replayed),
            each(checked),
            replayed / checked
        );
    }
    drop(run);
    drop(model);
    println!("resident without the weights, opening of {:.0} MB included: {:.0} MB", sums as f64 / 1e6, resident_mb());
}

fn replaying(prompt_tokens: u32, answer_tokens: u64) {
    let model = large();
    let settings = long_settings(answer_tokens);
    for companions in [0, 15] {
        let started = Instant::now();
        let how = How { companions, ..two_threads() };
        let answered = answer(&model, None, &prompt(prompt_tokens), &settings, how);
        let generated = started.elapsed().as_secs_f64();
        let bundle = Case::new(&model, None, &prompt(prompt_tokens), &settings, &answered).sign();
        let verdict = replay(&bundle, model.clone(), None, ReplayConfig::new(Isa::best(), 2)).unwrap();
        let Verdict::Equal { positions, seconds } = verdict else { panic!("{verdict}") };
        let tokens = f64::from(prompt_tokens) + answer_tokens as f64;
        let streams = companions as f64 + 1.0;
        println!(
            "batch {streams:2}: generated {:.0} tokens/s of answers in all (prompt included), audited {:.0} positions/s, {positions} positions",
            answer_tokens as f64 * streams / generated,
            tokens / seconds
        );
    }
}

fn resident_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).unwrap_or(0.0) / 1e3
}
