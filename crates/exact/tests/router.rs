//! Routing to experts against the text (specification, section 10).
#![expect(clippy::unwrap_used, reason = "what a test builds must succeed")]

mod reference {
    pub(crate) mod exp2;
    pub(crate) mod quantise;
    pub(crate) mod random;
}

use exact::mixture::{Choice, Router};
use exact::{Isa, NotFinite};
use proptest::prelude::*;
use reference::exp2::exp2;
use reference::quantise::quantise;
use reference::random::Random;

type Weights = Vec<(Vec<i32>, f32)>;

fn naive(x: &[f32], w: &Weights, chosen: usize, renormalise: bool) -> Vec<(u32, u32)> {
    let (q_x, s_x) = quantise(x, 32_639.0).unwrap();
    let score = |(q_w, s_w): &(Vec<i32>, f32)| {
        let sum: i128 = q_x.iter().zip(q_w).map(|(x, w)| i128::from(*x) * i128::from(*w)).sum();
        sum as f32 * (s_x * s_w)
    };
    let z: Vec<f32> = w.iter().map(score).collect();
    let mut rank: Vec<usize> = (0..z.len()).collect();
    rank.sort_by(|a, b| z[*b].partial_cmp(&z[*a]).unwrap());
    let n = |e: usize| {
        let exponent = (z[e] - z[rank[0]]) * f32::from_bits(0x3fb8_aa3b);
        (exp2(exponent) * 16_777_216.0).round_ties_even() as u64
    };
    let mut ids = rank[..chosen].to_vec();
    ids.sort_unstable();
    let s: u64 = if renormalise { ids.iter().map(|e| n(*e)).sum() } else { (0..z.len()).map(n).sum() };
    ids.iter().map(|e| (*e as u32, (n(*e) as f32 / s as f32).to_bits())).collect()
}

fn same_everywhere(x: &[f32], w: &Weights, chosen: usize) {
    let mut router = Router::zeroed(w.len(), x.len());
    for (expert, (levels, scale)) in w.iter().enumerate() {
        let levels: Vec<i16> = levels.iter().map(|q| *q as i16).collect();
        router.set_row(expert, &levels, *scale);
        assert_eq!(router.row(expert), (&levels[..], *scale));
    }
    for renormalise in [true, false] {
        let want = naive(x, w, chosen, renormalise);
        for isa in Isa::available() {
            let got = router.route(isa, x, chosen, renormalise).unwrap();
            let bits: Vec<_> = got.iter().map(|choice| (choice.expert, choice.weight.to_bits())).collect();
            assert_eq!(bits, want, "{isa}, {chosen} of {}, renormalise {renormalise}", w.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_chosen_experts_and_their_weights_are_the_written_ones(
        experts in 1usize..140,
        inputs in prop_oneof![1usize..300, Just(64), Just(2048)],
        seed: u64,
        spread in prop::sample::select(vec![0.01f32, 0.3, 3.0, 100.0]),
        copies in prop::sample::select(vec![1usize, 2, 1000]),
    ) {
        let mut random = Random::new(seed);
        let x: Vec<f32> = (0..inputs).map(|_| random.float()).collect();
        let unit = spread / (inputs as f32).sqrt();
        // Several experts with the same row tie; with `copies` above their number, all do.
        let rows: Vec<Vec<f32>> = (0..experts.div_ceil(copies))
            .map(|_| (0..inputs).map(|_| random.float() * unit).collect())
            .collect();
        let w = (0..experts).map(|e| quantise(&rows[e % rows.len()], 32_639.0).unwrap()).collect();
        same_everywhere(&x, &w, 1 + random.below(experts));
    }
}

#[test]
fn sums_past_32_bits_and_past_24_bits_of_mantissa_stay_exact() {
    const K: usize = exact::INPUTS_MAX;
    let full = |level: i32| vec![level; K];
    let mut uneven = full(32_639);
    uneven[K - 1] = 32_638;
    let alternating = (0..K as i32).map(|i| if i % 2 == 0 { 32_639 } else { -32_639 }).collect();
    let w = [full(32_639), full(-32_639), uneven, full(-32_768), full(1), alternating, full(0)];
    let w: Weights = w.into_iter().map(|levels| (levels, 1e-12)).collect();
    let mut x = vec![1.0; K];
    same_everywhere(&x, &w, 3);
    x[K - 1] = -1.0;
    same_everywhere(&x, &w, 7);
}

#[test]
fn router_rows_quantise_to_16_bits_on_every_instruction_set() {
    for inputs in [1, 15, 64, 130] {
        let mut random = Random::new(inputs as u64);
        let weights: Vec<f32> = (0..inputs).map(|_| random.float()).collect();
        let (q, scale) = quantise(&weights, 32_639.0).unwrap();
        for isa in Isa::available() {
            let mut router = Router::zeroed(2, inputs);
            router.quantise_row(isa, 1, &weights).unwrap();
            let (levels, s) = router.row(1);
            assert_eq!((levels.iter().map(|q| i32::from(*q)).collect::<Vec<_>>(), s), (q.clone(), scale), "{isa}");
            assert!(router.row(0).0.iter().all(|q| *q == 0));
            assert_eq!(router.quantise_row(isa, 0, &vec![f32::NAN; inputs]), Err(NotFinite));
        }
    }
}

#[test]
fn a_row_of_zeros_chooses_the_lowest_ids_with_equal_weights() {
    let mut router = Router::zeroed(6, 4);
    (0..6).for_each(|e| router.set_row(e, &[e as i16 - 3, 1, -7, 2], 1.0));
    for isa in Isa::available() {
        let want = |weight| [0, 1, 2, 3].map(|expert| Choice { expert, weight });
        assert_eq!(router.route(isa, &[0.0, -0.0, 1e-35, 0.0], 4, true).unwrap(), want(0.25));
        assert_eq!(router.route(isa, &[0.0; 4], 4, false).unwrap(), want(1.0 / 6.0));
    }
}

#[test]
fn an_input_that_is_not_finite_fails() {
    let router = Router::zeroed(3, 5);
    for isa in Isa::available() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in 0..5 {
                let mut x = [1.0; 5];
                x[at] = bad;
                assert_eq!(router.route(isa, &x, 2, true), Err(NotFinite));
            }
        }
    }
}

#[test]
fn a_score_that_overflows_fails() {
    let mut router = Router::zeroed(3, 4);
    router.set_row(1, &[32_639; 4], 1e-3);
    router.set_row(2, &[32_639; 4], 1e2);
    for isa in Isa::available() {
        assert_eq!(router.route(isa, &[3e29; 4], 1, true).unwrap()[0].expert, 2);
        assert_eq!(router.route(isa, &[3e34; 4], 1, true), Err(NotFinite));
        assert_eq!(router.route(isa, &[-3e34; 4], 1, true), Err(NotFinite));
    }
}
