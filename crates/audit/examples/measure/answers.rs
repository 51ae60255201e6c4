//! Whole answers on tiny models: honest ones are equal, tampered ones are caught at the first position that differs.

use crate::Numbers;
use crate::support::{self, Case, How, answer, shape};
use audit::{Difference, ReplayConfig, Verdict, replay};
use exact::{Activations, Isa};
use model::{Adapter, Mlp, Model, Shape};
use receipt::Settings;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

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

pub(crate) fn honest(count: u64) {
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

pub(crate) fn tampered(count: u64) {
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
