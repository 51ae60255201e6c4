//! However the work is divided, the bits are the same: instruction sets, threads, batches, chunks of the prompt, page
//! layouts, company of other adapters.

#![expect(clippy::unwrap_used, reason = "what a test builds must succeed")]

use cpu::{Config, Executor, Hash, Pages, Segment, Wanted};
use exact::generator::philox;
use exact::{Activations, Isa};
use model::{Adapter, Mlp, Model, Rotary, Shape};
use std::sync::Arc;

/// Small, with every odd thing a model may have.
fn shape(mixture: bool, window: Option<usize>, head_norms: bool) -> Shape {
    let gated = Mlp::Gated { width: 96 };
    let experts = Mlp::Experts { experts: 6, chosen: 2, width: 40, renormalise: true };
    Shape {
        hidden: 80,
        layers: 2,
        heads: 6,
        key_heads: 2,
        head_dim: 20,
        mlps: if mixture { vec![experts, gated] } else { vec![gated; 2] },
        vocabulary: 131,
        context: 4096,
        norm_eps: 1e-5,
        rotary: Rotary::plain(10_000.0, 16),
        window,
        head_norms,
        tied: false,
        spread: true,
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 += 1;
        philox([7, 7], [self.0 as u32, (self.0 >> 32) as u32, 0, 0])[0] as usize % n
    }
}

struct Sequence {
    tokens: Vec<u32>,
    adapter: Option<usize>,
}

/// Logits and leaves of every position.
type Run = Vec<(Vec<Vec<f32>>, Vec<Hash>)>;

/// One sequence at a time, one token at a time, scalar, one thread: the plainest way.
fn plain(model: &Arc<Model>, adapters: &[Adapter], sequences: &[Sequence]) -> Run {
    let mut executor = Executor::new(model.clone(), Config { threads: 1, isa: Isa::SCALAR, trace: true }).unwrap();
    let mut pages = Pages::new(&model.shape, 16);
    let ids: Vec<u32> = (0..16).collect();
    let mut runs = Vec::new();
    for sequence in sequences {
        let (mut logits, mut leaves) = (Vec::new(), Vec::new());
        for start in 0..sequence.tokens.len() {
            let segment = Segment {
                tokens: &sequence.tokens[start..=start],
                start,
                pages: &ids,
                adapter: sequence.adapter.map(|a| &adapters[a]),
                wanted: Wanted::All,
            };
            let outcome = executor.step(&mut pages, &[segment]);
            assert!(!outcome.failed[0]);
            logits.extend(outcome.logits(0).map(<[f32]>::to_vec));
            leaves.extend_from_slice(&outcome.leaves[0]);
        }
        runs.push((logits, leaves));
    }
    runs
}

/// All sequences together, in random chunks, with random company in every step and scattered pages.
fn shuffled(
    model: &Arc<Model>,
    adapters: &[Adapter],
    sequences: &[Sequence],
    isa: Isa,
    threads: usize,
    dice: &mut Dice,
) -> Run {
    let mut executor = Executor::new(model.clone(), Config { threads, isa, trace: true }).unwrap();
    let mut pages = Pages::new(&model.shape, 400);
    let mut free: Vec<u32> = (0..400).collect();
    let tables: Vec<Vec<u32>> = sequences
        .iter()
        .map(|s| (0..s.tokens.len().div_ceil(64)).map(|_| free.swap_remove(dice.below(free.len()))).collect())
        .collect();
    let mut done = vec![0; sequences.len()];
    let mut runs: Run = sequences.iter().map(|_| (vec![], vec![])).collect();
    while let Some(first) = (0..sequences.len()).find(|s| done[*s] < sequences[*s].tokens.len()) {
        let mut shares = Vec::new();
        for s in 0..sequences.len() {
            let left = sequences[s].tokens.len() - done[s];
            if left > 0 && (s == first || dice.below(3) > 0) {
                let most = [1, 2, 40, 200][dice.below(4)];
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
        let outcome = executor.step(&mut pages, &segments);
        for (i, (s, count)) in shares.iter().enumerate() {
            assert!(!outcome.failed[i]);
            runs[*s].0.extend(outcome.logits(i).map(<[f32]>::to_vec));
            runs[*s].1.extend_from_slice(&outcome.leaves[i]);
            done[*s] += count;
        }
    }
    runs
}

fn compare(shape: Shape, activations: Activations, seed: u64) {
    let model = Arc::new(Model::random(shape, activations, seed));
    let adapters: Vec<Adapter> =
        [1, 3, 8, 16, 40].into_iter().map(|rank| Adapter::random(&model.plan, rank, seed + rank as u64)).collect();
    let mut dice = Dice(seed << 32);
    let sequences: Vec<Sequence> = (0..7)
        .map(|i| Sequence {
            tokens: (0..[1, 5, 63, 64, 65, 130, 200][i]).map(|_| dice.below(131) as u32).collect(),
            adapter: dice.below(6).checked_sub(1),
        })
        .collect();
    let want = plain(&model, &adapters, &sequences);
    for isa in Isa::available() {
        for threads in [1, 2, 3] {
            if threads > 1 && isa == Isa::SCALAR {
                continue;
            }
            let got = shuffled(&model, &adapters, &sequences, isa, threads, &mut dice);
            for (s, (want, got)) in want.iter().zip(&got).enumerate() {
                for (position, (want, got)) in want.0.iter().zip(&got.0).enumerate() {
                    let same = want.iter().zip(got).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "logits of sequence {s} at {position} differ: {isa}, {threads} threads");
                }
                assert_eq!(want.1, got.1, "leaves of sequence {s} differ: {isa}, {threads} threads");
            }
        }
    }
}

#[test]
fn a_dense_model_gives_the_same_bits_however_it_is_run() {
    compare(shape(false, None, false), Activations::A8, 1);
    compare(shape(false, Some(70), true), Activations::A16, 2);
}

#[test]
fn a_mixture_of_experts_gives_the_same_bits_however_it_is_run() {
    compare(shape(true, None, true), Activations::A8, 3);
    compare(shape(true, None, false), Activations::A16, 4);
}

#[test]
fn a_model_with_wide_tiles_gives_the_same_bits_however_it_is_run() {
    let mut shape = shape(false, None, false);
    (shape.hidden, shape.head_dim, shape.heads, shape.key_heads) = (128, 64, 4, 1);
    shape.mlps = vec![Mlp::Gated { width: 192 }; 2];
    shape.rotary = Rotary::plain(10_000.0, 64);
    compare(shape.clone(), Activations::A8, 5);
    compare(shape, Activations::A16, 6);
}

#[test]
fn a_sequence_with_a_damaged_adapter_fails_alone() {
    let model = Arc::new(Model::random(shape(false, None, false), Activations::A8, 9));
    let mut damaged = Adapter::random(&model.plan, 4, 1);
    if let Some(low_rank) = &mut damaged.sites[0] {
        low_rank.gain = f32::INFINITY;
    }
    let good = Adapter::random(&model.plan, 4, 2);
    let run = |company: bool| {
        let mut executor = Executor::new(model.clone(), Config { threads: 2, isa: Isa::best(), trace: false }).unwrap();
        let mut pages = Pages::new(&model.shape, 8);
        let segment = |pages, adapter| Segment { tokens: &[3, 4, 5], start: 0, pages, adapter, wanted: Wanted::Last };
        let mut segments = vec![segment(&[1u32][..], Some(&good)), segment(&[2][..], None)];
        if company {
            segments.push(segment(&[3][..], Some(&damaged)));
        }
        let outcome = executor.step(&mut pages, &segments);
        assert_eq!(outcome.failed, if company { vec![false, false, true] } else { vec![false, false] });
        [0, 1].map(|s| outcome.logits(s).next().unwrap().to_vec())
    };
    assert_eq!(run(true), run(false));
}
