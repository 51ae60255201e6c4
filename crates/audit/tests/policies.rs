//! Auditors who lie, nodes that pay them, and two nodes that work together: what the rules do about each, on real receipts.

#![expect(clippy::unwrap_used, reason = "test support")]

mod support;

use audit::dispute::{Case, Challenger, Party, Prover, Regenerate, play, target};
use audit::policy::{Ballot, Commitment, Deterrence, Opinion, Outcome, Planted, Rate, Reveal, selected};
use audit::trace::{History, Run, regenerate};
use exact::Isa;
use model::{Model, digest};
use receipt::{Bundle, Hash, Settings, SigningKey};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::{Case as Answered, audit, model, prompt, settings};

fn answers(count: u32, cheated: impl Fn(u32) -> bool) -> Vec<Bundle> {
    let (model, short) = (model(), Settings { tokens_max: 5, ..settings() });
    let answered = |i: u32| {
        let mut case = Answered::honest(&model, None, &prompt(5 + i), &short);
        if cheated(i) {
            case.opening.output[2] = (case.opening.output[2] + 1) % 320;
        }
        case.sign()
    };
    (0..count).map(answered).collect()
}

fn opinion(bundle: &Bundle) -> Opinion {
    match audit(bundle, &model(), None).unwrap() {
        audit::Verdict::Equal { .. } => Opinion::Equal,
        audit::Verdict::Differs { position, .. } => Opinion::Differs(position.map(|position| position as u64)),
    }
}

#[test]
fn an_auditor_who_does_not_look_is_caught_by_planted_receipts_and_an_honest_one_is_not() {
    let bundles = answers(12, |i| i % 4 == 0);
    let hash = |bundle: &Bundle| receipt::hash(&bundle.receipt);
    let bad = bundles.iter().enumerate().filter(|(i, _)| i % 4 == 0).map(|(i, b)| (hash(b), 5 + i as u64 + 2));
    let planted = Planted::new([1; 32], bad);
    let position = |bundle: &Bundle| match opinion(bundle) {
        Opinion::Equal => None,
        Opinion::Differs(position) => position,
    };
    let honest: BTreeMap<Hash, Option<u64>> = bundles.iter().map(|b| (hash(b), position(b))).collect();
    assert_eq!(planted.score(&honest).missed, Vec::<Hash>::new());
    let lazy: BTreeMap<Hash, Option<u64>> = bundles.iter().map(|b| (hash(b), None)).collect();
    assert_eq!(planted.score(&lazy).missed.len(), 3);
}

/// Plays the dispute that a disagreement of auditors leads to.
fn dispute(bundle: &Bundle, position: usize) -> Party {
    let model: Arc<Model> = model();
    let mut tokens = [&bundle.opening.prompt[..], &bundle.opening.output[..]].concat();
    tokens.pop();
    let run = Run { model: model.clone(), adapter: None, isa: Isa::best(), threads: 1 };
    let history: History = run.history(&tokens).unwrap();
    let manifest = digest::manifest(&model.shape, &model.plan, &model.weights, model.activations, 1);
    let case = Case::read(bundle, &manifest, None, None).unwrap();
    let regenerated = || -> Regenerate<'_> {
        Box::new(|at, borders| regenerate(&model, None, &history, at, tokens[at], case.draw(at), borders))
    };
    let mut prover = Prover::new(bundle.opening.leaves.clone(), regenerated(), &model, None);
    let mut challenger = Challenger::new(position, regenerated());
    let (node, auditor) = (SigningKey::from_bytes(&[3; 32]), SigningKey::from_bytes(&[4; 32]));
    play(&case, (&mut prover, &node), (&mut challenger, &auditor)).unwrap().0.winner
}

#[test]
fn a_bought_majority_of_auditors_decides_nothing() {
    // Two of three auditors are paid to say "equal" to a lie, and in the second round to say "differs" to the truth.
    for lie in [true, false] {
        let bundle = answers(1, |_| lie).remove(0);
        let receipt = receipt::hash(&bundle.receipt);
        let truth = opinion(&bundle);
        let bought = if lie { Opinion::Equal } else { Opinion::Differs(Some(3)) };
        let mut ballot = Ballot::new(receipt);
        let votes = [truth, bought, bought]
            .into_iter()
            .enumerate()
            .map(|(i, opinion)| (SigningKey::from_bytes(&[10 + i as u8; 32]), Reveal { opinion, salt: [i as u8; 32] }));
        let votes: Vec<_> = votes.collect();
        for (key, reveal) in &votes {
            assert!(ballot.commit(&Commitment::new(key, &receipt, reveal)));
        }
        ballot.start_opening();
        for (key, reveal) in &votes {
            assert!(ballot.open(&key.verifying_key().to_bytes(), reveal));
        }
        assert!(matches!(ballot.outcome(3), Outcome::Dispute(_)));
        let verdict = audit(&bundle, &model(), None).unwrap();
        let doubted = target(&verdict).unwrap_or(3);
        assert_eq!(dispute(&bundle, doubted), if lie { Party::Challenger } else { Party::Prover });
    }
}

#[test]
fn a_node_that_buys_its_auditor_is_caught_at_the_rate_of_those_it_does_not_own() {
    // A node cheats on every answer; of what is selected, one half goes to an auditor it owns. It cannot choose which.
    let policy = Deterrence { rate: Rate::millionths(100_000), finds: 1.0, bought: 0.5 };
    let caught = (0..4000u32).filter(|i| {
        let receipt = *blake3::hash(&i.to_le_bytes()).as_bytes();
        let honest_auditor = selected(b"who", &receipt, Rate::millionths(500_000));
        selected(b"which", &receipt, policy.rate) && honest_auditor
    });
    let share = caught.count() as f64 / 4000.0;
    assert!((share - policy.caught()).abs() < 0.01, "{share} of {}", policy.caught());
    assert!(policy.caught_of(200) > 0.9999);
}

#[test]
fn two_nodes_that_sign_one_answer_leave_two_receipts_that_are_both_true() {
    // Open by design: a receipt proves what was computed, not by whom. It is documented in docs/audits.md.
    let bundle = answers(1, |_| false).remove(0);
    let claims = bundle.check().unwrap().claims;
    let other = receipt::sign(&SigningKey::from_bytes(&[77; 32]), &claims);
    let copied = Bundle { receipt: other, opening: bundle.opening.clone() };
    assert!(audit(&copied, &model(), None).unwrap().is_equal());
    assert_ne!(receipt::hash(&copied.receipt), receipt::hash(&bundle.receipt));
}
