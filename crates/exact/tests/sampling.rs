//! Drawing a token against a full sort and the text (specification, section 12).
#![expect(clippy::unwrap_used, reason = "what a test builds must succeed")]

mod reference {
    pub(crate) mod exp2;
    pub(crate) mod log2;
    pub(crate) mod random;
    pub(crate) mod sampling;
}

use exact::sample::{Sampling, sample};
use exact::{Isa, NotFinite};
use proptest::prelude::*;
use reference::exp2::exp2;
use reference::log2::log2;
use reference::random::Random;
use reference::sampling::{naive, uniform};

fn logits(kind: usize, n: usize, random: &mut Random) -> Vec<f32> {
    let spread = [0.1, 1.0, 5.0, 30.0][random.below(4)];
    let mut logit = |i: usize| match kind {
        0 => random.float() * spread,
        1 => [-1.0, -0.0, 0.0, 1.0, 1.0, 2.0][random.below(6)] * spread,
        2 => [0.0, -0.0][random.below(2)],
        3 => random.float() * 1e30,
        4 => [-1e30, 1e30, 5.0, -3.0][random.below(4)],
        // A staircase whose counts of 2⁻²⁴ fade out, with equals at every step.
        5 => (random.below(60) as f32 - 30.0) * 0.5,
        6 => random.float() * 1e-40,
        7 => [3e35, -3e35, 3e38, 0.0, -1e38][random.below(2 + i % 4)],
        // Large and close together: z and its distance from the maximum round.
        _ => 1e5 + random.float() * (i % 7) as f32,
    };
    (0..n).map(&mut logit).collect()
}

const KINDS: usize = 9;

fn settings() -> impl Strategy<Value = Sampling> {
    let temperature = prop_oneof![
        Just(0.0),
        prop::sample::select(vec![0.001, 0.01, 0.3, 0.7, 1.0, 1.3, 2.5, 100.0, 1e6, 1e300]),
        0.05f64..3.0
    ];
    let top_k = prop_oneof![Just(0u32), Just(1), 1u32..20, 1u32..2500, Just(u32::MAX)];
    let edges =
        vec![0.0, 1e-9, 1e-7, 0.5, 0.999_999, 1.0 - 1e-12, 1.0, 0.5 + 2f64.powi(-25), 0.5 + 3.0 * 2f64.powi(-25)];
    let top_p = prop_oneof![Just(1.0), prop::sample::select(edges.clone()), 0.0f64..1.0];
    let min_p = prop_oneof![Just(0.0), Just(1.5), prop::sample::select(edges), 0.0f64..0.2];
    (temperature, top_k, top_p, min_p, any::<u64>()).prop_map(|(temperature, top_k, top_p, min_p, seed)| Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        seed,
    })
}

fn same_everywhere(logits: &[f32], sampling: &Sampling, position: u64) {
    let want = naive(logits, sampling, position);
    for isa in Isa::available() {
        assert_eq!(
            sample(isa, logits, sampling, position),
            want.ok_or(NotFinite),
            "{isa}, {sampling:?}, position {position}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_drawn_token_is_the_one_a_full_sort_finds_under_all_settings(
        kind in 0..KINDS,
        n in prop_oneof![1usize..2000, 1usize..12],
        data: u64,
        sampling in settings(),
        position in prop_oneof![any::<u64>(), 0u64..5000],
    ) {
        same_everywhere(&logits(kind, n, &mut Random::new(data)), &sampling, position);
    }
}

#[test]
fn every_combination_of_settings_draws_the_written_token() {
    for kind in 0..KINDS {
        for n in [1, 2, 3, 17, 300] {
            let mut random = Random::new((kind * 1000 + n) as u64);
            let logits = logits(kind, n, &mut random);
            for temperature in [0.0, 0.02, 0.8, 1.0, 5.0] {
                for top_k in [0, 1, 2, n as u32 - 1, n as u32, n as u32 + 1] {
                    for top_p in [0.0, 0.1, 0.5, 0.9, 0.999_999_99, 1.0] {
                        for min_p in [0.0, 1e-8, 0.05, 1.0] {
                            let sampling = Sampling { temperature, top_k, top_p, min_p, seed: random.word() };
                            same_everywhere(&logits, &sampling, random.word());
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_draw_turns_exactly_where_two_scores_meet() {
    let mut random = Random::new(9);
    for position in 0..4000 {
        let temperature = if position % 5 == 0 { 1.0 } else { 0.05 + f64::from(random.float()).abs() };
        let sampling = Sampling { temperature, seed: random.word(), ..Sampling::GREEDY };
        let tau = (std::f64::consts::LOG2_E / temperature) as f32;
        let [a, b] = [0, 1].map(|i| log2(-log2(uniform(i, position as u64, sampling.seed))));
        let logit = random.float() + 30.0;
        // The second token's logit at which both scores are about the same, and its neighbours.
        let meeting = ((logit * tau - a + b) / tau).to_bits();
        for bits in meeting - 6..=meeting + 6 {
            let logits = [logit, f32::from_bits(bits)];
            same_everywhere(&logits, &sampling, position as u64);
            same_everywhere(&logits, &Sampling { top_p: 0.9999, ..sampling }, position as u64);
        }
    }
}

#[test]
fn truncations_turn_exactly_at_the_written_count() {
    let mut random = Random::new(10);
    let unit = 2f64.powi(-24);
    let plain = Sampling { temperature: std::f64::consts::LOG2_E, ..Sampling::GREEDY };
    for _ in 0..300 {
        // Three tokens of about the same count, so that each that stays is drawn every so often.
        let logits: Vec<f32> = (0..3).map(|_| -random.float().abs()).collect();
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let counts: Vec<f64> =
            logits.iter().map(|x| f64::from((exp2(x - max) / unit as f32).round_ties_even())).collect();
        for off in [-1.0, -0.6, -0.5, -0.4, 0.0, 0.4, 0.5, 0.6, 1.0] {
            for count in &counts {
                let min_p = Sampling { min_p: (count + off) * unit, seed: random.word(), ..plain };
                let top_p = Sampling { top_p: (count / counts.iter().sum::<f64>() / unit + off) * unit, ..min_p };
                (0..6).for_each(|position| same_everywhere(&logits, &min_p, position));
                (0..6).for_each(|position| same_everywhere(&logits, &Sampling { min_p: 0.0, ..top_p }, position));
            }
        }
    }
}

/// With seed 0 at position 12,985, token 2,987 has the largest u there is and token 0 a small one: as nowhere else, a
/// token whose count is near nothing would be drawn if it stayed.
#[test]
fn tokens_whose_count_rounds_to_zero_leave_with_any_truncation() {
    let (position, rare) = (12_985, 2987);
    assert_eq!(uniform(rare, position, 0), 1.0 - 2f32.powi(-24));
    let unit = 2f64.powi(-24);
    let plain = Sampling { temperature: std::f64::consts::LOG2_E, ..Sampling::GREEDY };
    let nearly_all = Sampling { top_p: 1.0 - 1e-12, ..plain };
    let min_p = |count: f64| Sampling { min_p: count * unit, ..plain };
    for (z, sampling, stays) in [
        (-25.3, plain, true),
        (-25.5, plain, false),
        (-25.0, nearly_all, false),
        (-24.99, nearly_all, true),
        (-25.0, min_p(1.0), false),
        (-24.99, min_p(1.0), true),
        (-24.0, min_p(1.4), true),
        (-24.0, min_p(1.6), false),
        (-23.0, min_p(2.5), true),
        (-23.0, min_p(1.5), true),
        (-24.0, min_p(1.5), false),
    ] {
        let mut logits = vec![-1000.0; 3000];
        (logits[0], logits[rare as usize]) = (0.0, z);
        same_everywhere(&logits, &sampling, position);
        let drawn = sample(Isa::best(), &logits, &sampling, position).unwrap();
        assert_eq!(drawn, if stays { rare as u32 } else { 0 }, "{z}, {sampling:?}");
    }
}

/// Eight tokens whose probabilities are a half, a quarter, …: what each truncation keeps can be told by hand.
fn halves() -> Vec<f32> {
    (0..8).map(|i| -(i as f32) * std::f32::consts::LN_2).collect()
}

fn drawn(sampling: Sampling) -> Vec<u32> {
    let ids = (0..4000).map(|position| sample(Isa::best(), &halves(), &sampling, position).unwrap());
    let mut ids: Vec<u32> = ids.collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[test]
fn truncations_keep_the_tokens_they_promise() {
    let plain = Sampling { temperature: 1.0, ..Sampling::GREEDY };
    assert_eq!(drawn(plain), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(drawn(Sampling { top_k: 3, ..plain }), [0, 1, 2]);
    assert_eq!(drawn(Sampling { top_p: 0.6, ..plain }), [0, 1]);
    assert_eq!(drawn(Sampling { top_p: 0.0, ..plain }), [0]);
    assert_eq!(drawn(Sampling { min_p: 0.2, ..plain }), [0, 1, 2]);
    assert_eq!(drawn(Sampling { min_p: 1.0, ..plain }), [0]);
    assert_eq!(drawn(Sampling { top_k: 3, top_p: 0.8, ..plain }), [0, 1]);
}

#[test]
fn tokens_at_temperature_one_come_as_often_as_softmax_says() {
    let draws = 40_000;
    let logits: Vec<f32> = (0..50).map(|i| ((i * 37 % 50) as f32 * 0.11) - 2.0).collect();
    let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
    for (round, top_p) in [1.0, 1.0 - 1e-9].into_iter().enumerate() {
        let sampling = Sampling { temperature: 1.0, top_p, seed: 99 + round as u64, ..Sampling::GREEDY };
        let mut counts = vec![0u32; logits.len()];
        for position in 0..draws {
            counts[sample(Isa::best(), &logits, &sampling, position).unwrap() as usize] += 1;
        }
        let chi: f64 = counts.iter().zip(&logits).fold(0.0, |chi, (count, logit)| {
            let expected = f64::from(*logit).exp() / total * draws as f64;
            assert!((f64::from(*count) - expected).abs() < 5.0 * expected.sqrt(), "{count} for {expected}");
            chi + (f64::from(*count) - expected).powi(2) / expected
        });
        assert!(chi < 49.0 + 5.0 * 98f64.sqrt(), "chi square {chi} with 49 degrees of freedom");
    }
}

#[test]
fn a_logit_that_is_not_finite_fails_under_every_setting() {
    let bad = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::from_bits(0xff80_0001)];
    let plain = Sampling { temperature: 1.0, ..Sampling::GREEDY };
    let settings =
        [Sampling::GREEDY, plain, Sampling { top_k: 1, ..plain }, Sampling { top_p: 0.5, min_p: 0.1, ..plain }];
    for isa in Isa::available() {
        for n in [1, 8, 33, 200] {
            for at in 0..n {
                let mut logits = logits(0, n, &mut Random::new(at as u64));
                logits[at] = bad[at % bad.len()];
                for sampling in &settings {
                    assert_eq!(sample(isa, &logits, sampling, 3), Err(NotFinite), "{isa}, {at} of {n}");
                }
            }
        }
    }
}

#[test]
fn a_score_that_overflows_at_a_low_temperature_fails_under_every_setting_but_greedy() {
    let plain = Sampling { temperature: 0.001, ..Sampling::GREEDY };
    let settings = [plain, Sampling { top_k: 1, ..plain }, Sampling { top_p: 0.5, min_p: 0.1, ..plain }];
    for isa in Isa::available() {
        for (logits, fails) in [([2e35, 1.0, 5.0], false), ([2.4e35, 1.0, 5.0], true), ([1.0, -2.4e35, 5.0], true)] {
            for sampling in &settings {
                assert_eq!(sample(isa, &logits, sampling, 3).is_err(), fails, "{isa}, {logits:?}, {sampling:?}");
            }
            assert!(sample(isa, &logits, &Sampling::GREEDY, 3).is_ok());
        }
    }
}
