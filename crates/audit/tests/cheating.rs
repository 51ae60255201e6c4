//! Whatever a node changes is caught and named: before signing, where the receipt is consistent and only replay can
//! tell, and after, where the receipt itself tells.

#![expect(clippy::panic, clippy::unwrap_used, reason = "test support")]

mod support;

use audit::{Difference, FinishFault, Verdict, replay};
use exact::Activations;
use model::{Adapter, Model};
use receipt::{Finish, Mismatch, Settings};
use std::sync::Arc;
use support::{Answer, Case, How, answer, audit, config, model, prompt, settings, shape};

fn difference(verdict: Verdict) -> (Option<usize>, Difference) {
    match verdict {
        Verdict::Differs { position, what, .. } => (position, what),
        Verdict::Equal { .. } => panic!("the cheat was not seen"),
    }
}

/// The verdict on a bundle that the node signed as it stands.
fn judge(case: &Case, model: &Arc<Model>, adapter: Option<&Adapter>) -> (Option<usize>, Difference) {
    difference(audit(&case.sign(), model, adapter).unwrap())
}

/// A node that claims `model`, `adapter`, `settings` and prompt, but hands out `answer`.
fn claim(model: &Arc<Model>, adapter: Option<&Adapter>, settings: &Settings, answer: &Answer) -> Case {
    Case::new(model, adapter, &prompt(30), settings, answer)
}

#[test]
fn a_token_changed_before_signing_is_named() {
    let model = model();
    let honest = Case::honest(&model, None, &prompt(30), &settings());
    for i in [0, 1, 33, 34, 35, 68, 69] {
        let mut case = honest.clone();
        let drawn = case.opening.output[i];
        let claimed = (drawn + 1) % 320;
        case.opening.output[i] = claimed;
        assert_eq!(judge(&case, &model, None), (Some(30 + i), Difference::Token { claimed, drawn }));
    }
}

#[test]
fn a_token_changed_before_signing_and_the_trace_recomputed_for_it_is_named() {
    // A cheaper decoder behind an honest prefill: the leaves are those of the changed tokens.
    let model = model();
    let honest = Case::honest(&model, None, &prompt(30), &settings());
    let drawn = honest.opening.output[12];
    let claimed = (drawn + 1) % 320;
    let mut all = [&honest.opening.prompt[..], &honest.opening.output[..]].concat();
    all[42] = claimed;
    let forced = answer(&model, None, &all, &Settings { tokens_max: 1, ..settings() }, How::plain());
    let mut case = honest;
    case.opening.output[12] = claimed;
    case.opening.leaves = forced.leaves[..99].to_vec();
    assert_eq!(judge(&case, &model, None), (Some(42), Difference::Token { claimed, drawn }));
}

#[test]
fn what_is_changed_after_signing_no_longer_opens_the_receipt() {
    let model = model();
    let honest = Case::honest(&model, None, &prompt(30), &settings()).sign();
    let judge = |change: &dyn Fn(&mut receipt::Opening)| {
        let mut bundle = honest.clone();
        change(&mut bundle.opening);
        difference(audit(&bundle, &model, None).unwrap())
    };
    let named = |what| (None, Difference::Opening { what });
    assert_eq!(judge(&|o| o.output[5] ^= 1), named(Mismatch::Output));
    assert_eq!(judge(&|o| o.prompt[5] ^= 1), named(Mismatch::Prompt));
    assert_eq!(judge(&|o| o.leaves[5][0] ^= 1), named(Mismatch::Trace));
    assert_eq!(judge(&|o| o.settings.temperature = 0.8), named(Mismatch::Settings));
    assert_eq!(judge(&|o| o.settings.top_p = 0.9), named(Mismatch::Settings));
    assert_eq!(judge(&|o| o.settings.seed = 43), named(Mismatch::Seed { claimed: 42, opened: 43 }));
    assert_eq!(judge(&|o| o.output.truncate(69)), named(Mismatch::OutputTokens { claimed: 70, opened: 69 }));
    assert_eq!(judge(&|o| o.leaves.truncate(98)), named(Mismatch::Leaves { needed: 99, opened: 98 }));
}

#[test]
fn a_receipt_spliced_onto_another_answer_is_named() {
    let model = model();
    let one = Case::honest(&model, None, &prompt(30), &settings()).sign();
    let mut two = Case::honest(&model, None, &prompt(30), &Settings { seed: 7, ..settings() }).sign();
    two.receipt = one.receipt;
    let (_, what) = difference(audit(&two, &model, None).unwrap());
    assert_eq!(what, Difference::Opening { what: Mismatch::Seed { claimed: 42, opened: 7 } });
}

#[test]
fn another_adapter_none_and_one_too_many_are_named() {
    let model = model();
    let (good, bad) = (Adapter::random(&model.plan, 8, 5), Adapter::random(&model.plan, 8, 6));
    let ran = |adapter: Option<&Adapter>| answer(&model, adapter, &prompt(30), &settings(), How::plain());
    let cheats = [(Some(&bad), Some(&good)), (None, Some(&good)), (Some(&good), None)];
    for (used, claimed) in cheats {
        let case = claim(&model, claimed, &settings(), &ran(used));
        assert_eq!(judge(&case, &model, claimed), (Some(0), Difference::Trace));
        // The auditor has loaded what ran, not what is claimed.
        let (position, what) = judge(&case, &model, used);
        assert!(position.is_none() && matches!(what, Difference::Adapter { .. }), "{what}");
    }
}

#[test]
fn one_changed_weight_is_named() {
    let honest = model();
    for (site, column) in [(0, 3), (2, 63), (4, 0), (8, 17), (13, 5)] {
        let mut cheat = Model::random(shape(), Activations::A8, 1);
        let matrix = &mut cheat.weights.linears[site].matrix;
        let mut row = vec![0; matrix.inputs()];
        matrix.row(7, &mut row);
        row[column] = if row[column] < 0 { 127 } else { -127 };
        let scale = matrix.scales()[7];
        matrix.set_row(7, &row, scale);
        let cheated = answer(&Arc::new(cheat), None, &prompt(30), &settings(), How::plain());
        let (position, what) = judge(&claim(&honest, None, &settings(), &cheated), &honest, None);
        assert!(position.is_some() && what == Difference::Trace, "site {site}: {position:?} {what}");
    }
}

#[test]
fn other_weights_are_named() {
    let honest = model();
    let other = Arc::new(Model::random(shape(), Activations::A8, 2));
    let cheated = answer(&other, None, &prompt(30), &settings(), How::plain());
    assert_eq!(judge(&claim(&honest, None, &settings(), &cheated), &honest, None), (Some(0), Difference::Trace));
    let (position, what) = judge(&claim(&other, None, &settings(), &cheated), &honest, None);
    assert!(position.is_none() && matches!(what, Difference::Base { .. }), "{what}");
}

#[test]
fn other_precision_and_other_arithmetic_are_named() {
    let honest = model();
    let other = Arc::new(Model::random(shape(), Activations::A16, 1));
    let cheated = answer(&other, None, &prompt(30), &settings(), How::plain());
    assert_eq!(judge(&claim(&honest, None, &settings(), &cheated), &honest, None), (Some(0), Difference::Trace));
    let mut case = Case::honest(&honest, None, &prompt(30), &settings());
    case.claims.activations = receipt::Activations::A16;
    assert_eq!(judge(&case, &honest, None), (None, Difference::Activations { claimed: "a16", loaded: "a8" }));
    case.claims.arithmetic = exact::VERSION + 1;
    assert_eq!(
        judge(&case, &honest, None),
        (None, Difference::Arithmetic { claimed: exact::VERSION + 1, loaded: exact::VERSION })
    );
}

#[test]
fn other_seed_temperature_and_filters_are_named() {
    let model = model();
    let claimed = Settings { top_p: 0.9, ..settings() };
    let cheats = [
        Settings { seed: 43, ..claimed.clone() },
        Settings { temperature: 0.6, ..claimed.clone() },
        Settings { temperature: 0.0, ..claimed.clone() },
        Settings { top_p: 0.5, ..claimed.clone() },
        Settings { top_p: 1.0, ..claimed.clone() },
        Settings { top_k: 20, ..claimed.clone() },
        Settings { min_p: 0.4, ..claimed.clone() },
    ];
    for used in cheats {
        let cheated = answer(&model, None, &prompt(30), &used, How::plain());
        let (position, what) = judge(&claim(&model, None, &claimed, &cheated), &model, None);
        let position = position.unwrap();
        let i = position - 30;
        let Difference::Token { claimed, drawn } = what else { panic!("{used:?}: {what}") };
        assert!(claimed == cheated.tokens[i] && claimed != drawn);
    }
}

#[test]
fn an_edited_prompt_is_named() {
    let model = model();
    let mut edited = prompt(30);
    edited[11] += 1;
    let cheated = answer(&model, None, &edited, &settings(), How::plain());
    let case = claim(&model, None, &settings(), &cheated);
    assert_eq!(judge(&case, &model, None), (Some(11), Difference::Trace));
}

#[test]
fn a_changed_leaf_is_named_by_its_position() {
    let model = model();
    let honest = Case::honest(&model, None, &prompt(30), &settings());
    for position in [0, 28, 29, 30, 31, 32, 61, 98] {
        let mut case = honest.clone();
        case.opening.leaves[position][31] ^= 1;
        assert_eq!(judge(&case, &model, None), (Some(position), Difference::Trace));
    }
}

#[test]
fn penalties_biases_and_a_least_length_that_were_not_used_are_named() {
    let model = model();
    let honest = Case::honest(&model, None, &prompt(30), &Settings { temperature: 0.0, ..settings() });
    let changes: [fn(&mut receipt::Shaping); 4] = [
        |shaping| shaping.repetition = 3.0,
        |shaping| shaping.frequency = 9.0,
        |shaping| shaping.presence = 9.0,
        |shaping| shaping.bias = vec![(5, 1000.0)],
    ];
    for change in changes {
        let mut case = honest.clone();
        change(&mut case.opening.settings.shaping);
        let (position, what) = judge(&case, &model, None);
        assert!(position >= Some(30) && matches!(what, Difference::Token { .. }), "{position:?} {what:?}");
    }
    // A stop token before the least length.
    let mut case = honest.clone();
    let last = case.opening.output.len() - 1;
    case.opening.settings.stop_tokens = vec![case.opening.output[last]];
    case.opening
        .output
        .truncate(case.opening.output.iter().position(|id| *id == honest.opening.output[last]).unwrap() + 1);
    case.opening.leaves.truncate(29 + case.opening.output.len());
    case.claims.finish = Finish::Stop;
    assert!(audit(&case.sign(), &model, None).unwrap().is_equal());
    case.opening.settings.shaping.tokens_min = 70;
    assert!(matches!(judge(&case, &model, None).1, Difference::Token { .. }));
}

#[test]
fn an_answer_cut_short_is_named() {
    let model = model();
    let mut case = Case::honest(&model, None, &prompt(30), &settings());
    case.opening.output.truncate(10);
    case.opening.leaves.truncate(39);
    let finish = |fault| (Some(39), Difference::Finish { fault });
    assert_eq!(judge(&case, &model, None), finish(FinishFault::Short { tokens: 10, tokens_max: 70 }));
    case.claims.finish = Finish::Stop;
    assert_eq!(judge(&case, &model, None), finish(FinishFault::NoStop));
    case.opening.settings.stop_strings = vec![String::new()];
    assert_eq!(judge(&case, &model, None), finish(FinishFault::NoStop));
    // Whether a stop string appeared is for whoever can read the text.
    case.opening.settings.stop_strings = vec!["END".to_owned()];
    assert!(audit(&case.sign(), &model, None).unwrap().is_equal());
}

#[test]
fn an_answer_that_goes_on_after_its_end_is_named() {
    let model = model();
    let mut case = Case::honest(&model, None, &prompt(30), &settings());
    let at = (10..70).find(|i| !case.opening.output[..*i].contains(&case.opening.output[*i])).unwrap();
    let token = case.opening.output[at];
    case.opening.settings.stop_tokens = vec![token];
    let ignored = (Some(30 + at), Difference::Finish { fault: FinishFault::StopIgnored { token } });
    assert_eq!(judge(&case, &model, None), ignored);
    case.claims.finish = Finish::Stop;
    assert_eq!(judge(&case, &model, None), ignored);
    case.opening.settings.stop_tokens = vec![];
    case.opening.settings.tokens_max = 50;
    let long = FinishFault::Long { tokens: 70, tokens_max: 50 };
    assert_eq!(judge(&case, &model, None), (Some(80), Difference::Finish { fault: long }));
}

#[test]
fn an_answer_from_values_that_are_not_finite_is_named() {
    let honest = model();
    let case = Case::honest(&honest, None, &prompt(30), &settings());
    let mut damaged = Model::random(shape(), Activations::A8, 1);
    // Infinity in the embedding of the token at position 17.
    let token = prompt(30)[17] as usize;
    damaged.weights.embedding.bits[token * 64 + 5] = 0x7f80;
    assert_eq!(judge(&case, &Arc::new(damaged), None), (Some(17), Difference::NotFinite));
}

#[test]
fn the_first_difference_is_the_same_whatever_the_chunks() {
    let model = model();
    let mut case = Case::honest(&model, None, &prompt(30), &settings());
    case.opening.leaves[40][0] ^= 1;
    case.opening.output[8] ^= 1;
    let bundle = case.sign();
    let verdicts: Vec<_> = [1, 3, 10, 64, 500]
        .map(|chunk_tokens| {
            let config = audit::ReplayConfig { chunk_tokens, ..config() };
            difference(replay(&bundle, model.clone(), None, config).unwrap())
        })
        .into();
    assert!(verdicts.iter().all(|verdict| *verdict == verdicts[0]));
    assert_eq!(verdicts[0].0, Some(38));
}
