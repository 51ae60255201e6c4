//! Whole small models, the kernels running on the processor, give the CPU executor's bits: dense and mixtures, adapters
//! of several ranks, both activation modes, ragged batches, windows, recorded steps, traces and draws.

#![expect(clippy::unwrap_used, reason = "what a test builds must succeed")]

mod support;

use cpu::{Draw, Hash, Pages, Segment, Wanted};
use cuda::{Config, DeviceError, Executor};
use exact::sample::Sampling;
use exact::{Activations, Isa};
use model::{Adapter, Mlp, Model, Rotary, Shape};
use std::sync::Arc;
use support::{Dice, Shim};

/// Pages of every executor here.
const PAGES: usize = 80;

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

struct Sequence {
    tokens: Vec<u32>,
    adapter: Option<usize>,
}

/// Logits and leaves of every position.
type Run = Vec<(Vec<Vec<f32>>, Vec<Hash>)>;

fn config() -> Config {
    Config { rows: 256, logit_rows: 256, positions: 4096, pages: Some(PAGES), ..Config::default() }
}

fn on_cpu(model: &Arc<Model>, adapters: &[Adapter], sequences: &[Sequence]) -> Run {
    let cpu_config = cpu::Config { threads: 1, isa: Isa::best(), trace: true };
    let mut executor = cpu::Executor::new(model.clone(), cpu_config).unwrap();
    let mut pages = Pages::new(&model.shape, PAGES);
    let ids: Vec<u32> = (0..PAGES as u32).collect();
    let run = |sequence: &Sequence| {
        let adapter = sequence.adapter.map(|a| &adapters[a]);
        let segment = Segment { tokens: &sequence.tokens, start: 0, pages: &ids, adapter, wanted: Wanted::All };
        let outcome = executor.step(&mut pages, &[segment]);
        assert!(!outcome.failed[0]);
        (outcome.logits(0).map(<[f32]>::to_vec).collect(), outcome.leaves[0].clone())
    };
    sequences.iter().map(run).collect()
}

/// All sequences together, in random chunks, with random company in every step and scattered pages.
fn on_shim(executor: &mut Executor<Shim>, adapters: &[Adapter], sequences: &[Sequence], dice: &mut Dice) -> Run {
    let mut free: Vec<u32> = (0..PAGES as u32).collect();
    let tables: Vec<Vec<u32>> = sequences
        .iter()
        .map(|s| (0..s.tokens.len().div_ceil(64)).map(|_| free.swap_remove(dice.below(free.len()))).collect())
        .collect();
    let mut done = vec![0; sequences.len()];
    let mut runs: Run = sequences.iter().map(|_| (vec![], vec![])).collect();
    let mut steps = 0;
    while let Some(first) = (0..sequences.len()).find(|s| done[*s] < sequences[*s].tokens.len()) {
        let mut shares = Vec::new();
        // Every third step only decodes.
        steps += 1;
        for s in 0..sequences.len() {
            let left = sequences[s].tokens.len() - done[s];
            if left > 0 && (s == first || dice.below(3) > 0) {
                let most = if steps % 3 == 0 { 1 } else { [1, 2, 40, 200][dice.below(4)] };
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
        let mut outcome = executor.step(&segments).unwrap();
        for (i, (s, count)) in shares.iter().enumerate() {
            assert!(!outcome.failed[i]);
            runs[*s].0.extend(outcome.logits(i).unwrap());
            runs[*s].1.extend_from_slice(&outcome.leaves[i]);
            done[*s] += count;
        }
    }
    runs
}

fn assert_same(want: &Run, got: &Run) {
    for (s, (want, got)) in want.iter().zip(got).enumerate() {
        assert_eq!((want.0.len(), want.1.len()), (got.0.len(), got.1.len()));
        for (position, (want, got)) in want.0.iter().zip(&got.0).enumerate() {
            let wrong = want.iter().zip(got).position(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!(wrong, None, "logits of sequence {s} at {position} differ");
        }
        for (position, (want, got)) in want.1.iter().zip(&got.1).enumerate() {
            assert_eq!(want, got, "leaf of sequence {s} at {position} differs");
        }
    }
}

fn compare_with(
    shape: Shape,
    activations: Activations,
    seed: u64,
    lengths: &[usize],
    shim: Shim,
    config: Config,
) -> Executor<Shim> {
    let model = Arc::new(Model::random(shape, activations, seed));
    let adapters: Vec<Adapter> =
        [1, 3, 8, 16, 40].into_iter().map(|rank| Adapter::random(&model.plan, rank, seed + rank as u64)).collect();
    let mut dice = Dice(seed << 32);
    let vocabulary = model.shape.vocabulary;
    let sequences: Vec<Sequence> = lengths
        .iter()
        .map(|length| Sequence {
            tokens: (0..*length).map(|_| dice.below(vocabulary) as u32).collect(),
            adapter: dice.below(6).checked_sub(1),
        })
        .collect();
    let mut executor = Executor::new(shim, &model, config).unwrap();
    let got = on_shim(&mut executor, &adapters, &sequences, &mut dice);
    assert_same(&on_cpu(&model, &adapters, &sequences), &got);
    executor
}

fn compare(shape: Shape, activations: Activations, seed: u64) {
    let mut executor = compare_with(shape, activations, seed, &[1, 5, 64, 65, 80], Shim::default(), config());
    assert!(executor.launcher().replays > 0, "no step was recorded");
}

#[test]
fn a_dense_model_gives_the_processors_bits() {
    compare(shape(false, None, false), Activations::A8, 1);
}

#[test]
fn a_dense_model_at_16_bits_with_a_window_and_head_norms_gives_the_processors_bits() {
    compare(shape(false, Some(70), true), Activations::A16, 2);
}

#[test]
fn a_mixture_of_experts_gives_the_processors_bits() {
    compare(shape(true, None, true), Activations::A8, 3);
}

#[test]
fn a_mixture_of_experts_at_16_bits_gives_the_processors_bits() {
    compare(shape(true, None, false), Activations::A16, 4);
}

#[test]
fn wide_groups_of_query_heads_give_the_processors_bits() {
    let mut shape = shape(false, None, false);
    (shape.hidden, shape.head_dim, shape.heads, shape.key_heads) = (128, 64, 11, 1);
    shape.rotary = Rotary::plain(10_000.0, 64);
    compare(shape, Activations::A8, 5);
}

#[test]
fn heads_of_every_kernel_give_the_processors_bits() {
    for (seed, head_dim) in [(6, 72), (7, 132), (8, 272)] {
        let mut shape = shape(false, None, true);
        (shape.layers, shape.mlps) = (1, vec![Mlp::Gated { width: 32 }]);
        (shape.head_dim, shape.heads, shape.key_heads) = (head_dim, 2, 1);
        shape.rotary = Rotary::plain(10_000.0, head_dim / 2);
        compare_with(shape, Activations::A8, seed, &[3, 66], Shim::default(), config());
    }
}

#[test]
fn sequences_of_several_spans_give_the_processors_bits() {
    let mut shape = shape(false, None, false);
    (shape.layers, shape.mlps, shape.hidden) = (1, vec![Mlp::Gated { width: 32 }], 32);
    (shape.heads, shape.key_heads, shape.head_dim) = (2, 1, 16);
    compare_with(shape.clone(), Activations::A8, 9, &[2053, 7], Shim::default(), config());
    shape.window = Some(1010);
    compare_with(shape, Activations::A8, 10, &[1030], Shim::default(), config());
}

#[test]
fn rows_that_do_not_fit_shared_memory_give_the_same_bits() {
    let shim = Shim { shared: 90 << 10, ..Shim::default() };
    let mut shape = shape(true, None, false);
    (shape.layers, shape.mlps) =
        (2, vec![Mlp::Experts { experts: 5, chosen: 2, width: 48, renormalise: false }, Mlp::Gated { width: 24_064 }]);
    compare_with(shape, Activations::A8, 11, &[2, 9], shim, config());
}

#[test]
fn a_checkpoint_that_is_not_spread_gives_the_processors_bits() {
    let mut shape = shape(false, None, false);
    shape.spread = false;
    compare_with(shape, Activations::A8, 12, &[3, 40], Shim::default(), config());
}

#[test]
fn steps_larger_than_a_pass_give_the_same_bits() {
    let small = Config { rows: 24, logit_rows: 5, ..config() };
    compare_with(shape(true, None, false), Activations::A8, 13, &[1, 70, 30], Shim::default(), small);
}

#[test]
fn adapters_come_and_go_when_memory_is_short() {
    let model = Arc::new(Model::random(shape(false, None, false), Activations::A8, 14));
    let adapters: Vec<Adapter> = (0..6).map(|i| Adapter::random(&model.plan, 8, i)).collect();
    // The noughth adapter's bytes tell how many fit: two.
    let mut executor = Executor::new(Shim::default(), &model, config()).unwrap();
    executor.prefetch(&adapters[0]).unwrap();
    let each = executor.adapters().1;
    let two = Config { adapter_bytes: Some(2 * each + each / 2), ..config() };
    let mut executor = Executor::new(Shim::default(), &model, two).unwrap();
    let sequences: Vec<Sequence> =
        (0..6).map(|i| Sequence { tokens: vec![3, 1, i as u32], adapter: Some(i) }).collect();
    let want = on_cpu(&model, &adapters, &sequences);
    for round in 0..2 {
        for (sequence, want) in sequences.iter().zip(&want) {
            let adapter = sequence.adapter.map(|a| &adapters[a]);
            let segment = Segment { tokens: &sequence.tokens, start: 0, pages: &[5], adapter, wanted: Wanted::All };
            let mut outcome = executor.step(&[segment]).unwrap();
            let got = (outcome.logits(0).unwrap(), outcome.leaves[0].clone());
            assert_same(&vec![want.clone()], &vec![got]);
            assert!(executor.adapters().0 <= 2, "round {round}");
        }
    }
    let three: Vec<Segment<'_>> = [0u32, 1, 2]
        .iter()
        .zip([[0u32], [1], [2]].iter())
        .map(|(a, pages)| Segment {
            tokens: &[1],
            start: 0,
            pages,
            adapter: Some(&adapters[*a as usize]),
            wanted: Wanted::Last,
        })
        .collect();
    let want: Vec<_> = three.iter().map(|segment| executor.step(&[*segment]).unwrap().logits(0).unwrap()).collect();
    let mut outcome = executor.step(&three).unwrap();
    let got: Vec<_> = (0..3).map(|s| outcome.logits(s).unwrap()).collect();
    assert_eq!(want, got, "three cannot be there at once: two passes");
    let none = Config { adapter_bytes: Some(each / 2), ..config() };
    let mut executor = Executor::new(Shim::default(), &model, none).unwrap();
    assert!(matches!(executor.step(&three[..1]), Err(DeviceError::Memory(_))));
    assert!(executor.step(&[Segment { adapter: None, ..three[0] }]).is_ok(), "and the device works on");
}

#[test]
fn what_cannot_be_recorded_is_launched_and_gives_the_same_bits() {
    let shim = Shim { forgetful: true, ..Shim::default() };
    let mut executor = compare_with(shape(false, None, false), Activations::A8, 19, &[5, 3], shim, config());
    assert_eq!((executor.launcher().replays, executor.records()), (0, false));
    assert!(executor.unrecorded().unwrap().to_string().contains("no room"), "and the reason is kept");
}

#[test]
fn an_adapter_takes_the_bytes_that_are_foretold_and_can_be_given_up() {
    let model = Model::random(shape(true, None, false), Activations::A8, 20);
    let mut executor = Executor::new(Shim::default(), &model, config()).unwrap();
    for rank in [1, 5, 16, 33] {
        let adapter = Adapter::random(&model.plan, rank, 1);
        executor.prefetch(&adapter).unwrap();
        assert_eq!(executor.adapters(), (1, cuda::adapter_bytes(&adapter).unwrap()));
        executor.evict(&adapter.digest);
        executor.evict(&adapter.digest);
        assert_eq!(executor.adapters(), (0, 0));
    }
    let refused = Adapter::random(&model.plan, cuda::RANK_MAX + 1, 1);
    assert!(matches!(cuda::adapter_bytes(&refused), Err(DeviceError::Unsupported(_))));
}

#[test]
fn a_sequence_with_a_damaged_adapter_fails_alone() {
    let model = Arc::new(Model::random(shape(true, None, false), Activations::A8, 15));
    let mut damaged = Adapter::random(&model.plan, 4, 1);
    damaged.sites[0].as_mut().unwrap().gain = f32::INFINITY;
    let good = Adapter::random(&model.plan, 4, 2);
    let run = |company: bool| {
        let mut executor = Executor::new(Shim::default(), &model, config()).unwrap();
        let segment = |pages, adapter| Segment { tokens: &[3, 4, 5], start: 0, pages, adapter, wanted: Wanted::Last };
        let mut segments = vec![segment(&[1u32][..], Some(&good)), segment(&[2][..], None)];
        if company {
            segments.push(segment(&[3][..], Some(&damaged)));
        }
        let mut outcome = executor.step(&segments).unwrap();
        assert_eq!(outcome.failed, if company { vec![false, false, true] } else { vec![false, false] });
        let draws: Vec<Draw> = (0..segments.len())
            .map(|segment| Draw { segment, sampling: Sampling::GREEDY, choice: Default::default(), position: 3 })
            .collect();
        let drawn = outcome.draw(&draws).unwrap();
        assert!(drawn[..2].iter().all(Result::is_ok));
        [0, 1].map(|s| outcome.logits(s).unwrap())
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn little_memory_becomes_smaller_batches() {
    let model = Model::random(shape(false, None, false), Activations::A8, 16);
    let wide = Config { rows: 4096, logit_rows: 256, pages: None, ..config() };
    let large = Executor::new(Shim::default(), &model, wide).unwrap();
    let shim = Shim { capacity: 320 << 20, ..Shim::default() };
    let small = Executor::new(shim, &model, wide).unwrap();
    assert!(small.memory().limits.rows < large.memory().limits.rows);
    assert!(small.memory().pages > 0 && small.memory().pages < large.memory().pages);
    let shim = Shim { capacity: 1 << 20, ..Shim::default() };
    assert!(matches!(Executor::new(shim, &model, wide), Err(DeviceError::Memory(_))));
}

#[test]
fn a_page_that_is_taken_away_and_brought_back_elsewhere_serves_on() {
    let model = Arc::new(Model::random(shape(false, None, false), Activations::A8, 17));
    let mut executor = Executor::new(Shim::default(), &model, config()).unwrap();
    let prompt: Vec<u32> = (0..64).collect();
    let part = |pages, tokens, start| Segment { tokens, start, pages, adapter: None, wanted: Wanted::All };
    executor.step(&[part(&[9], &prompt, 0)]).unwrap();
    let want = executor.step(&[part(&[9, 10], &[7], 64)]).unwrap().logits(0).unwrap();
    let bytes = executor.read_page(9).unwrap();
    executor.step(&[part(&[9], &[1, 2, 3], 0)]).unwrap();
    executor.write_page(33, &bytes).unwrap();
    assert_eq!(executor.step(&[part(&[33, 11], &[7], 64)]).unwrap().logits(0).unwrap(), want);
    assert!(executor.write_page(PAGES as u32, &bytes).is_err() && executor.write_page(3, &bytes[1..]).is_err());
}

#[test]
fn pages_beyond_four_gigabytes_serve_as_well() {
    let model = Arc::new(Model::random(shape(false, None, false), Activations::A8, 21));
    let count = (5usize << 30) / cuda::page_bytes(&model.shape);
    let mut executor = Executor::new(Shim::default(), &model, Config { pages: Some(count), ..config() }).unwrap();
    assert_eq!(executor.memory().pages, count);
    let tokens: Vec<u32> = (0..66).collect();
    let mut run = |pages: [u32; 2]| {
        let part = |tokens, start| Segment { tokens, start, pages: &pages, adapter: None, wanted: Wanted::Last };
        executor.step(&[part(&tokens, 0)]).unwrap();
        executor.step(&[part(&[7], 66)]).unwrap().logits(0).unwrap()
    };
    assert_eq!(run([count as u32 - 1, count as u32 - 2]), run([0, 1]));
}

#[test]
fn segments_that_are_not_as_said_are_refused() {
    let model = Model::random(shape(false, None, false), Activations::A8, 18);
    let mut executor = Executor::new(Shim::default(), &model, config()).unwrap();
    let good = Segment { tokens: &[1], start: 0, pages: &[0], adapter: None, wanted: Wanted::Last };
    for bad in [
        Segment { tokens: &[], ..good },
        Segment { tokens: &[131], ..good },
        Segment { start: 64, ..good },
        Segment { pages: &[PAGES as u32], ..good },
        Segment { start: 5000, ..good },
    ] {
        assert!(matches!(executor.step(&[good, bad]), Err(DeviceError::Unsupported(_))));
    }
    assert!(executor.step(&[good]).is_ok());
}
