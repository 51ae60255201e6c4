//! What auditing costs beside generating, at 1.24 billion parameters.

use crate::support::{self, Case, prompt};
use crate::{large, long_settings};
use audit::{ReplayConfig, Verdict, replay};
use cpu::{Config, Draw, Executor, PAGE, Pages, Segment, Wanted};
use exact::Isa;
use exact::adjust::Choice;
use model::Model;
use receipt::{Finish, Hash, Settings};
use std::sync::Arc;
use std::time::Instant;

/// Auditing beside generating, the same answers: one stream, then sixteen that share every step.
pub(crate) fn replaying(prompt_tokens: u32, answer_tokens: u64) {
    let model = large();
    let settings = long_settings(answer_tokens);
    for streams in [1, 16] {
        let prompts: Vec<Vec<u32>> = (0..streams).map(|n| prompt(prompt_tokens + n)[n as usize..].to_vec()).collect();
        let started = Instant::now();
        let answers = together(&model, &prompts, &settings);
        let generating = started.elapsed().as_secs_f64();
        let (mut auditing, mut positions_all) = (0.0, 0);
        for (prompt, answered) in prompts.iter().zip(&answers) {
            let bundle = Case::new(&model, None, prompt, &settings, answered).sign();
            let verdict = replay(&bundle, model.clone(), None, ReplayConfig::new(Isa::best(), 2)).unwrap();
            let Verdict::Equal { positions, seconds } = verdict else { panic!("{verdict}") };
            auditing += seconds;
            positions_all += positions;
        }
        let tokens = (answer_tokens * u64::from(streams)) as f64;
        println!(
            "batch {streams:2}, {prompt_tokens} + {answer_tokens} tokens each: generated {:.0} tokens/s, audited {:.0} tokens/s \
             ({:.0} positions/s): {:.2} times as fast",
            tokens / generating,
            tokens / auditing,
            f64::from(positions_all as u32) / auditing,
            generating / auditing
        );
    }
}

/// Some tokens of a sequence, whose last logits are wanted.
fn segment<'a>(tokens: &'a [u32], start: usize, pages: &'a [u32]) -> Segment<'a> {
    Segment { tokens, start, pages, adapter: None, wanted: Wanted::Last }
}

/// Answers to several prompts, which share every step once they decode.
fn together(model: &Arc<Model>, prompts: &[Vec<u32>], settings: &Settings) -> Vec<support::Answer> {
    let mut executor = Executor::new(model.clone(), Config { threads: 2, isa: Isa::best(), trace: true }).unwrap();
    let pages_each = (prompts[0].len() + settings.tokens_max as usize).div_ceil(PAGE);
    let mut pages = Pages::new(&model.shape, pages_each * prompts.len());
    let ids: Vec<u32> = (0..pages.count() as u32).collect();
    let own = |number: usize| &ids[pages_each * number..][..pages_each];
    let mut all: Vec<Vec<u32>> = prompts.to_vec();
    let mut leaves = vec![vec![]; prompts.len()];
    let draw = |segment, number: usize, tokens: &[u32]| {
        let (prompt, answer) = (&prompts[number][..], &[][..]);
        let choice = Choice { adjust: None, prompt, answer, allowed: None, banned: &[] };
        Draw { segment, sampling: support::sampling(settings), choice, position: tokens.len() as u64 }
    };
    for number in 0..prompts.len() {
        for (chunk, tokens) in prompts[number].chunks(256).enumerate() {
            let mut outcome = executor.step(&mut pages, &[segment(tokens, 256 * chunk, own(number))]);
            leaves[number].append(&mut outcome.leaves[0]);
            if 256 * chunk + tokens.len() == prompts[number].len() {
                let token = outcome.draw(&[draw(0, number, &prompts[number])])[0].unwrap();
                all[number].push(token);
            }
        }
    }
    for _ in 1..settings.tokens_max {
        let last = |number: usize| segment(&all[number][all[number].len() - 1..], all[number].len() - 1, own(number));
        let segments: Vec<Segment<'_>> = (0..prompts.len()).map(last).collect();
        let mut outcome = executor.step(&mut pages, &segments);
        let draws: Vec<Draw<'_>> = (0..prompts.len()).map(|number| draw(number, number, &all[number])).collect();
        let drawn = outcome.draw(&draws);
        leaves.iter_mut().zip(&mut outcome.leaves).for_each(|(all, new)| all.append(new));
        all.iter_mut().zip(drawn).for_each(|(all, token)| all.push(token.unwrap()));
    }
    let answers = all.iter().zip(prompts).zip(leaves);
    let answer = |((all, prompt), leaves): ((&Vec<u32>, &Vec<u32>), Vec<Hash>)| support::Answer {
        tokens: all[prompt.len()..].to_vec(),
        leaves,
        finish: Finish::Length,
    };
    answers.map(answer).collect()
}
