//! The vectors that the oracle, a second implementation of the specification, wrote down.
#![expect(clippy::unwrap_used, reason = "what a test builds must succeed")]

mod oracle {
    mod heads;
    mod maps;
    pub(crate) mod read;
}
mod reference {
    pub(crate) mod difference;
}

use exact::adjust::{Adjust, Choice, Mask, sample_under};
use exact::logprob::logprobs;
use exact::quantise::{quantise_i8, quantise_i16, quantise_weights};
use exact::sample::{Sampling, sample};
use exact::spread::{spread, spread_head};
use exact::{Activations, Isa, NotFinite, generator, norm, rotary};
use oracle::read::{assert_same, each, float, floats, integers, long, quantised, small, vectors, words};
use serde_json::Value;

#[test]
fn elementary_functions_have_the_oracles_bits() {
    each("exp2", |isa, v| assert_same(&[exact::exp2(float(&v["x"]))], &v["y"], isa));
    each("log2", |isa, v| assert_same(&[exact::log2(float(&v["x"]))], &v["y"], isa));
    each("silu", |isa, v| {
        assert_same(&[exact::silu(float(&v["x"]))], &v["y"], isa);
        let mut y = [0.0];
        norm::gated(isa, &floats(&v["x"]), &[1.0], &mut y);
        assert_same(&y, &v["y"], isa);
    });
}

#[test]
fn rows_quantise_to_the_oracles_levels() {
    each("quantise", |isa, v| {
        let x = floats(&v["x"]);
        let (mut q8, mut q16) = (vec![0; x.len()], vec![0; x.len()]);
        let (s8, s16) = (quantise_i8(isa, &x, &mut q8), quantise_i16(isa, &x, &mut q16));
        let rows = [x.clone()];
        if v["fails"] == true {
            assert!(s8.is_err() && s16.is_err() && quantised(isa, &rows, Activations::A16).is_err(), "{isa}");
            return;
        }
        assert_same(&[s8.unwrap()], &v["a8"]["s"], isa);
        assert_same(&[s16.unwrap()], &v["a16"]["s"], isa);
        assert_eq!(q8.into_iter().map(i32::from).collect::<Vec<_>>(), integers(&v["a8"]["q"]), "{isa}");
        assert_eq!(q16.into_iter().map(i32::from).collect::<Vec<_>>(), integers(&v["a16"]["q"]), "{isa}");
        for (mode, part) in [(Activations::A8, &v["a8"]), (Activations::A16, &v["a16"])] {
            let row = quantised(isa, &rows, mode).unwrap();
            assert_eq!((0..x.len()).map(|i| row.level(0, i)).collect::<Vec<_>>(), integers(&part["q"]), "{isa}");
            assert_same(row.scales(), &part["s"], isa);
        }
        let digits = integers(&v["a16"]["hi"]).into_iter().zip(integers(&v["a16"]["lo"]));
        assert_eq!(digits.map(|(hi, lo)| 256 * hi + lo).collect::<Vec<_>>(), integers(&v["a16"]["q"]));
    });
}

#[test]
fn weight_rows_take_the_oracles_scale() {
    each("weight_rows", |isa, v| {
        let x = floats(&v["x"]);
        let mut q = vec![0; x.len()];
        let scale = quantise_weights(isa, &x, &mut q);
        if v["fails"] == true {
            assert_eq!(scale, Err(NotFinite), "{isa}");
            return;
        }
        assert_same(&[scale.unwrap()], &v["s"], isa);
        assert_eq!(q.into_iter().map(i32::from).collect::<Vec<_>>(), integers(&v["q"]), "{isa}");
    });
}

#[test]
fn norms_transforms_and_rotations_have_the_oracles_bits() {
    each("rmsnorm", |isa, v| {
        let x = floats(&v["x"]);
        let mut y = vec![0.0; x.len()];
        norm::rms_norm(isa, &x, &floats(&v["w"]), float(&v["eps"]), &mut y);
        assert_same(&y, &v["y"], isa);
    });
    each("spread", |isa, v| {
        let mut row = floats(&v["x"]);
        spread(isa, &mut row);
        assert_same(&row, &v["y"], isa);
    });
    each("hadamard", |isa, v| {
        let mut head = floats(&v["v"]);
        spread_head(isa, &mut head);
        assert_same(&head, &v["y"], isa);
    });
    each("rotate", |isa, v| {
        let mut head = floats(&v["v"]);
        rotary::rotate(isa, &mut head, &floats(&v["c"]), &floats(&v["s"]));
        assert_same(&head, &v["y"], isa);
    });
}

#[test]
fn the_generator_has_the_oracles_words() {
    for v in vectors("philox") {
        let (key, counter) = (words(&v["key"]), words(&v["counter"]));
        let output = generator::philox(key.try_into().unwrap(), counter.try_into().unwrap());
        assert_eq!(output[..], words(&v["output"]));
    }
    for v in vectors("uniform") {
        let (seed, position) = (long(&v["seed"]), long(&v["position"]));
        for (i, u) in (small(&v["first"]) as u32..).zip(floats(&v["u"])) {
            let counter = [i / 4, position as u32, (position >> 32) as u32, 0];
            let word = generator::philox([seed as u32, (seed >> 32) as u32], counter)[i as usize % 4];
            assert_eq!(((word >> 9) * 2 + 1) as f32 * 2f32.powi(-24), u);
        }
    }
}

#[test]
fn tokens_drawn_are_the_oracles() {
    let rows: Vec<Vec<f32>> = vectors("sampling_rows").iter().map(floats).collect();
    each("sampling", |isa, v| {
        let sampling = Sampling {
            temperature: v["T"].as_f64().unwrap(),
            top_k: small(&v["top_k"]) as u32,
            top_p: v["top_p"].as_f64().unwrap(),
            min_p: v["min_p"].as_f64().unwrap(),
            seed: long(&v["seed"]),
        };
        let token = sample(isa, &rows[small(&v["row"])], &sampling, long(&v["position"]));
        assert_eq!(token.map(|token| token as usize), Ok(small(&v["token"])), "{isa}, {sampling:?}");
    });
}

#[test]
fn adjusted_and_masked_draws_are_the_oracles() {
    each("adjusted", |isa, v| {
        let ids = |v: &Value| v.as_array().unwrap().iter().map(|id| small(id) as u32).collect::<Vec<_>>();
        let pair = |v: &Value| (small(&v[0]) as u32, v[1].as_f64().unwrap());
        let adjust = Adjust {
            repetition: v["repetition"].as_f64().unwrap(),
            frequency: v["frequency"].as_f64().unwrap(),
            presence: v["presence"].as_f64().unwrap(),
            bias: v["bias"].as_array().unwrap().iter().map(pair).collect(),
        };
        let (logits, prompt, answer) = (floats(&v["logits"]), ids(&v["prompt"]), ids(&v["answer"]));
        let mut adjusted = logits.clone();
        adjust.apply(&mut adjusted, &prompt, &answer);
        assert_same(&adjusted, &v["adjusted"], isa);
        let mask = (!v["mask"].is_null()).then(|| {
            let mut mask = Mask::none(logits.len());
            ids(&v["mask"]).into_iter().for_each(|id| mask.add(id));
            mask
        });
        let sampling = Sampling {
            temperature: v["T"].as_f64().unwrap(),
            top_k: small(&v["top_k"]) as u32,
            top_p: v["top_p"].as_f64().unwrap(),
            min_p: v["min_p"].as_f64().unwrap(),
            seed: long(&v["seed"]),
        };
        // What is banned is what is not allowed.
        let banned: Vec<u32> = match &mask {
            Some(mask) => (0..logits.len() as u32).filter(|id| !mask.holds(*id)).collect(),
            None => vec![],
        };
        for (allowed, banned) in [(mask.as_ref(), &[][..]), (None, &banned[..])] {
            let choice = Choice { adjust: Some(&adjust), prompt: &prompt, answer: &answer, allowed, banned };
            let token = sample_under(isa, &logits, &sampling, &choice, long(&v["position"]));
            assert_eq!(token, Ok(small(&v["token"]) as u32), "{isa}, {v}");
        }
    });
}

#[test]
fn a_draw_from_nothing_fails() {
    let nothing = Mask::none(3);
    for temperature in [0.0, 1.0] {
        let sampling = Sampling { temperature, ..Sampling::GREEDY };
        let choice = Choice { allowed: Some(&nothing), ..Choice::default() };
        assert!(sample_under(Isa::best(), &[1.0, 2.0, 3.0], &sampling, &choice, 5).is_err());
    }
}

#[test]
fn logarithms_of_probabilities_are_the_oracles() {
    each("logprobs", |isa, v| {
        let (logits, want) = (floats(&v["logits"]), floats(&v["logprobs"]));
        let got: Vec<f32> =
            (0..logits.len() as u32).map(|id| logprobs(isa, &logits, id, 0).unwrap().of_token).collect();
        assert_same(&got, &v["logprobs"], isa);
        let top = logprobs(isa, &logits, 0, 5).unwrap().top;
        assert_eq!(top.len(), logits.len().min(5));
        let likelier = |a: &(u32, f32), b: &(u32, f32)| {
            let (x, y) = (logits[a.0 as usize], logits[b.0 as usize]);
            x > y || (x == y && a.0 < b.0)
        };
        assert!(top.windows(2).all(|pair| likelier(&pair[0], &pair[1])));
        assert!(top.iter().all(|(id, logprob)| logprob.to_bits() == want[*id as usize].to_bits()));
        let least = top.last().map_or(0.0, |last| logits[last.0 as usize]);
        assert!((0..logits.len() as u32).all(|id| top.iter().any(|x| x.0 == id) || logits[id as usize] <= least));
    });
}
