//! Whole models: logits, leaves and draws of random models, batches and adapters against the CPU executor.

use super::{Dice, Tally};
use crate::adapters::RANK_MAX;
use crate::executor::{Config, Executor};
use crate::launcher::{DeviceError, Launcher};
use cpu::{Draw, Hash, PAGE, Pages, Segment, Wanted};
use exact::sample::Sampling;
use exact::{Activations, Isa};
use model::{Adapter, Mlp, Model, Rotary, Shape};
use std::sync::Arc;

/// Dimensions of heads: every attention kernel takes some of these, full and in part.
const HEAD_DIMS: [usize; 9] = [256, 16, 64, 128, 20, 512, 80, 300, 132];

fn shape(dice: &mut Dice, head_dim: usize) -> Shape {
    let key_heads = 1 + dice.below(3);
    // Fewer of the widest, which the processor's tests take long for.
    let heads = key_heads * (1 + dice.below(if head_dim > 256 { 2 } else { 9 }));
    let width = 16 + 16 * dice.below(20);
    let chosen = 1 + dice.below(3);
    let mixture = Mlp::Experts {
        experts: chosen + dice.below(8),
        chosen,
        width: 8 + 8 * dice.below(8),
        renormalise: dice.below(2) == 0,
    };
    let layers = 1 + dice.below(3);
    Shape {
        hidden: 16 + 16 * dice.below(16),
        layers,
        heads,
        key_heads,
        head_dim,
        mlps: (0..layers).map(|_| if dice.below(2) == 0 { mixture } else { Mlp::Gated { width } }).collect(),
        vocabulary: 50 + dice.below(2000),
        context: 4096,
        norm_eps: 1e-5,
        rotary: Rotary::plain(10_000.0, head_dim / [1, 2][dice.below(2)]),
        window: [None, None, Some(1 + dice.below(300))][dice.below(3)],
        head_norms: dice.below(2) == 0,
        tied: false,
        spread: dice.below(4) > 0,
    }
}

/// A sequence, and what the CPU makes of it.
struct Sequence {
    tokens: Vec<u32>,
    adapter: Option<usize>,
    logits: Vec<Vec<f32>>,
    leaves: Vec<Hash>,
}

/// Checks `count` random models, each on several sequences of up to `tokens` tokens in random chunks and company. Nine
/// have heads of every kind.
pub fn models<L: Launcher>(
    launcher: &mut L,
    dice: &mut Dice,
    count: usize,
    tokens: usize,
) -> Result<Tally, DeviceError> {
    let (mut tally, first) = (Tally::default(), dice.below(HEAD_DIMS.len()));
    for number in 0..count {
        let activations = [Activations::A8, Activations::A16][dice.below(2)];
        let shape = shape(dice, HEAD_DIMS[(first + number) % HEAD_DIMS.len()]);
        let model = Arc::new(Model::random(shape, activations, u64::from(dice.word())));
        // The last now and then large: as many as the kernels take.
        let ranks = [70, 70, [70, 70, 70, 70, 300, RANK_MAX][dice.below(6)]].map(|most| dice.length(most));
        let adapters: Vec<Adapter> =
            ranks.iter().map(|rank| Adapter::random(&model.plan, *rank, u64::from(dice.word()))).collect();
        one(launcher, dice, &model, &adapters, tokens, &mut tally)?;
    }
    Ok(tally)
}

/// The same for one given model and its adapters, `rounds` times.
pub fn given<L: Launcher>(
    launcher: &mut L,
    dice: &mut Dice,
    model: &Arc<Model>,
    adapters: &[Adapter],
    rounds: usize,
    tokens: usize,
) -> Result<Tally, DeviceError> {
    let mut tally = Tally::default();
    for _ in 0..rounds {
        one(launcher, dice, model, adapters, tokens, &mut tally)?;
    }
    Ok(tally)
}

fn one<L: Launcher>(
    launcher: &mut L,
    dice: &mut Dice,
    model: &Arc<Model>,
    adapters: &[Adapter],
    tokens: usize,
    tally: &mut Tally,
) -> Result<(), DeviceError> {
    let sequences = sequences(model, adapters, dice, tokens)?;
    let pages = sequences.iter().map(|s| s.tokens.len().div_ceil(PAGE)).sum();
    let config = Config { rows: 512, positions: 4096, pages: Some(pages), ..Config::default() };
    let mut executor = Executor::new(&mut *launcher, model, config)?;
    shuffled(&mut executor, adapters, &sequences, dice, tally)
}

fn sequences(
    model: &Arc<Model>,
    adapters: &[Adapter],
    dice: &mut Dice,
    tokens: usize,
) -> Result<Vec<Sequence>, DeviceError> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let config = cpu::Config { threads, isa: Isa::best(), trace: true };
    let mut executor = cpu::Executor::new(model.clone(), config)
        .map_err(|error| DeviceError::Unsupported(format!("starting threads for the reference: {error}")))?;
    let mut pages = Pages::new(&model.shape, tokens.div_ceil(PAGE));
    let ids: Vec<u32> = (0..pages.count() as u32).collect();
    let made = (0..1 + dice.below(6)).map(|_| {
        let tokens: Vec<u32> = (0..dice.length(tokens)).map(|_| dice.below(model.shape.vocabulary) as u32).collect();
        let adapter = dice.below(adapters.len() + 1).checked_sub(1);
        let segment = Segment {
            tokens: &tokens,
            start: 0,
            pages: &ids,
            adapter: adapter.map(|a| &adapters[a]),
            wanted: Wanted::All,
        };
        let outcome = executor.step(&mut pages, &[segment]);
        let (logits, leaves) = (outcome.logits(0).map(<[f32]>::to_vec).collect(), outcome.leaves[0].clone());
        drop(outcome);
        Sequence { tokens, adapter, logits, leaves }
    });
    Ok(made.collect())
}

fn shuffled<L: Launcher>(
    executor: &mut Executor<L>,
    adapters: &[Adapter],
    sequences: &[Sequence],
    dice: &mut Dice,
    tally: &mut Tally,
) -> Result<(), DeviceError> {
    let needed: usize = sequences.iter().map(|s| s.tokens.len().div_ceil(PAGE)).sum();
    let mut free: Vec<u32> = (0..needed as u32).collect();
    let tables: Vec<Vec<u32>> = sequences
        .iter()
        .map(|s| (0..s.tokens.len().div_ceil(PAGE)).map(|_| free.swap_remove(dice.below(free.len()))).collect())
        .collect();
    let mut done = vec![0; sequences.len()];
    while let Some(first) = (0..sequences.len()).find(|s| done[*s] < sequences[*s].tokens.len()) {
        let decode = dice.below(3) == 0;
        let mut shares = Vec::new();
        for (s, sequence) in sequences.iter().enumerate() {
            let left = sequence.tokens.len() - done[s];
            if left > 0 && (s == first || dice.below(3) > 0) {
                let most = if decode { 1 } else { [1, 3, 40, 300][dice.below(4)] };
                shares.push((s, 1 + dice.below(left.min(most))));
            }
        }
        let segments: Vec<Segment<'_>> = shares
            .iter()
            .map(|(s, count)| Segment {
                tokens: &sequences[*s].tokens[done[*s]..done[*s] + count],
                start: done[*s],
                pages: &tables[*s],
                adapter: sequences[*s].adapter.map(|a| &adapters[a]),
                wanted: Wanted::All,
            })
            .collect();
        let mut outcome = executor.step(&segments)?;
        let draw = |segment: usize| {
            let (s, count) = shares[segment];
            let sampling = Sampling { temperature: 0.8, top_k: 50, top_p: 0.9, min_p: 0.0, seed: 7 };
            Draw { segment, sampling, choice: Default::default(), position: (done[s] + count) as u64 }
        };
        let draws: Vec<Draw> = (0..shares.len()).map(draw).collect();
        let drawn = outcome.draw(&draws)?;
        for (i, (s, count)) in shares.iter().enumerate() {
            let range = done[*s]..done[*s] + count;
            let (want, leaves) = (&sequences[*s].logits[range.clone()], &sequences[*s].leaves[range]);
            for ((want, got), (leaf, made)) in
                want.iter().zip(outcome.logits(i)?).zip(leaves.iter().zip(&outcome.leaves[i]))
            {
                let equal = want.iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits());
                tally.count(equal && leaf == made && !outcome.failed[i]);
            }
            if let Some(last) = want.last() {
                tally
                    .count(exact::sample::sample(Isa::best(), last, &draws[i].sampling, draws[i].position) == drawn[i]);
            }
            done[*s] += count;
        }
    }
    Ok(())
}
