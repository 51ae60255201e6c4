//! What cannot be replayed is an error, and verdicts are told in plain words and as JSON.

mod support;

use audit::{AuditError, Difference, Digest, FinishFault, Verdict};
use exact::Activations;
use model::{Adapter, Model, Shape};
use receipt::{Mismatch, ReceiptError, Settings};
use std::sync::Arc;
use support::{Case, audit, model, prompt, settings, shape};

#[test]
fn a_bundle_no_model_can_be_run_on_is_an_error() {
    let model = model();
    let honest = Case::honest(&model, None, &prompt(30), &settings());
    let judge = |change: &dyn Fn(&mut Case)| {
        let mut case = honest.clone();
        change(&mut case);
        let needed = (case.opening.prompt.len() + case.opening.output.len()).saturating_sub(1);
        case.opening.leaves.resize(needed, [0; 32]);
        audit(&case.sign(), &model, None).map_err(|error| error.to_string()).unwrap_err()
    };
    assert_eq!(
        judge(&|case| case.opening.prompt[3] = 320),
        "position 3 holds token 320, but the vocabulary has 320 tokens"
    );
    assert_eq!(
        judge(&|case| case.opening.output[69] = u32::MAX),
        "position 99 holds token 4294967295, but the vocabulary has 320 tokens"
    );
    assert!(judge(&|case| case.opening.prompt.clear()).starts_with("the prompt is empty"));
    assert!(judge(&|case| case.opening.output.clear()).starts_with("the answer is empty"));
    assert_eq!(
        judge(&|case| case.opening.prompt.resize(443, 5)),
        "prompt and answer have 513 tokens, but the model's context holds 512"
    );
    for temperature in [-1.0, 0.0009, f64::NAN, f64::INFINITY] {
        assert!(judge(&|case| case.opening.settings.temperature = temperature).contains("temperature"));
    }
    for share in [-0.1, 1.1, f64::NAN] {
        assert!(judge(&|case| case.opening.settings.top_p = share).contains("top_p"));
        assert!(judge(&|case| case.opening.settings.min_p = share).contains("min_p"));
    }
}

#[test]
fn an_altered_receipt_is_an_error() {
    let model = model();
    let mut bundle = Case::honest(&model, None, &prompt(5), &Settings { tokens_max: 3, ..settings() }).sign();
    *bundle.receipt.last_mut().unwrap() ^= 1;
    let error = audit(&bundle, &model, None).unwrap_err();
    assert!(matches!(error, AuditError::Receipt(ReceiptError::Signature)), "{error}");
}

#[test]
fn an_adapter_of_another_base_is_an_error() {
    let model = model();
    for other in [Shape { layers: 1, mlps: shape().mlps[..1].to_vec(), ..shape() }, Shape { hidden: 32, ..shape() }] {
        let other = Model::random(other, Activations::A8, 1);
        let adapter = Adapter::random(&other.plan, 4, 1);
        let mut case = Case::honest(&model, None, &prompt(5), &settings());
        case.claims.adapter = Some(adapter.digest);
        let error = audit(&case.sign(), &Arc::clone(&model), Some(&adapter)).unwrap_err();
        assert!(matches!(error, AuditError::Adapter), "{error}");
    }
}

#[test]
fn verdicts_are_told_in_plain_words() {
    let at = |position, answer_token, what| Verdict::Differs { position, answer_token, what }.to_string();
    assert_eq!(
        Verdict::Equal { positions: 120, seconds: 2.0 }.to_string(),
        "equal: all 120 positions, replayed in 2.0 s"
    );
    assert_eq!(
        at(Some(42), Some(12), Difference::Token { claimed: 5, drawn: 9 }),
        "differs at position 42 (answer token 12, both counted from 0): the receipt claims token 5, replay draws token 9"
    );
    assert_eq!(
        at(Some(4), None, Difference::Trace),
        "differs at position 4 (in the prompt, counted from 0): keys, values or hidden state are not the ones the receipt \
         binds"
    );
    let (claimed, loaded) = (Digest([0xab; 32]), Digest([1; 32]));
    assert_eq!(
        at(None, None, Difference::Base { claimed, loaded }),
        format!("differs: the receipt claims base {}, this is {}", "ab".repeat(32), "01".repeat(32))
    );
    assert_eq!(
        at(None, None, Difference::Adapter { claimed: Some(claimed), loaded: None }),
        format!("differs: the receipt claims adapter {}, none is loaded", "ab".repeat(32))
    );
}

#[test]
fn verdicts_are_told_as_json() {
    let json = |verdict: &Verdict| serde_json::to_value(verdict).unwrap();
    let equal = Verdict::Equal { positions: 120, seconds: 2.5 };
    assert_eq!(json(&equal), serde_json::json!({"verdict": "equal", "positions": 120, "seconds": 2.5}));
    let token = Difference::Token { claimed: 5, drawn: 9 };
    assert_eq!(
        json(&Verdict::Differs { position: Some(42), answer_token: Some(12), what: token }),
        serde_json::json!({
            "verdict": "differs", "position": 42, "answer_token": 12,
            "what": {"kind": "token", "claimed": 5, "drawn": 9},
        })
    );
    let of = |what| json(&Verdict::Differs { position: None, answer_token: None, what })["what"].clone();
    assert_eq!(
        of(Difference::Finish { fault: FinishFault::Long { tokens: 9, tokens_max: 8 } }),
        serde_json::json!({"kind": "finish", "fault": "long", "tokens": 9, "tokens_max": 8})
    );
    assert_eq!(
        of(Difference::Opening { what: Mismatch::Prompt }),
        serde_json::json!({"kind": "opening", "what": "the prompt is not the one the receipt binds"})
    );
    assert_eq!(
        of(Difference::Adapter { claimed: Some(Digest([0xab; 32])), loaded: None }),
        serde_json::json!({"kind": "adapter", "claimed": "ab".repeat(32), "loaded": null})
    );
}
