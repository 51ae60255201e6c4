//! Whoever checks an answer without replaying it follows its form too.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use audit::dispute::{Case, Challenger, Party, Prover, Regenerate, play};
use audit::light::{Key, LightConfig, check, prove};
use audit::trace::{Run, Shaping, regenerate};
use exact::Isa;
use model::{Text, digest};
use receipt::{Bundle, Claims, SigningKey, sign};
use serde_json::json;
use std::sync::Arc;
use support::{BASE, Served, ask, demo, with};

/// An answer that was held to a form, and the key of the node that signed it.
fn formed() -> (Bundle, SigningKey) {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path());
    let asked = json!({"temperature": 0.8, "top_p": 0.9, "max_tokens": 24, "presence_penalty": 0.5,
        "response_format": {"type": "regex", "pattern": "(red|blue|green) (lamp|kettle)!"}});
    let answer = served.post("/v1/chat/completions", &with(ask(BASE, "What do you have?"), asked)).ok();
    let bundle = Bundle::from_bytes(&served.get(answer["receipt"]["url"].as_str().unwrap()).body).unwrap();
    assert!(bundle.opening.settings.shaping.form.is_some());
    let digits = std::fs::read_to_string(folder.path().join("node.key")).unwrap();
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap();
    (bundle, SigningKey::from_bytes(&std::array::from_fn(byte)))
}

#[test]
fn light_checks_and_referees_follow_a_form_and_need_the_tokenizer_for_it() {
    let ((bundle, node), demo, isa) = (formed(), demo(), Isa::best());
    let model = &demo.model;
    let (key, frame) = Key::secret(model, [3; 32], isa, 2).unwrap();
    let run = Run { model: model.clone(), adapter: None, isa, threads: 2 };
    let opening = prove(&run, &bundle, 0..bundle.opening.leaves.len()).unwrap();
    let checked = |bundle: &Bundle, text: Option<&Text>| {
        check(bundle, &opening, &key, &frame, None, LightConfig { isa, threads: 2, text })
    };
    let verdict = checked(&bundle, Some(&demo.text)).unwrap();
    assert!(verdict.holds(), "{verdict}");
    assert!(checked(&bundle, None).is_err());

    let manifest = digest::manifest(&model.shape, &model.plan, &model.weights, model.activations, 2);
    assert!(Case::read(&bundle, &manifest, None, None).is_err());
    let case = Case::read(&bundle, &manifest, None, Some(&demo.text)).unwrap();
    let (case, tokens) = (&case, &case.tokens[..case.positions()]);
    let history = &run.history(tokens).unwrap();
    let regenerated = |with_form: bool| -> Regenerate<'_> {
        Box::new(move |at, borders| {
            let mut draw = case.draw(at);
            if let Some(shaping) = draw.as_mut().filter(|_| !with_form).and_then(|draw| draw.shaping.as_mut()) {
                *shaping = Arc::new(Shaping { allowed: None, ..(**shaping).clone() });
            }
            regenerate(&demo.model, None, history, at, tokens[at], draw, borders)
        })
    };
    // Who leaves the form out draws something else, and is wrong; the program that the referee follows says how.
    let position = bundle.opening.prompt.len();
    let mut prover = Prover::new(bundle.opening.leaves.clone(), regenerated(true), model, None);
    let mut challenger = Challenger::new(position, regenerated(false));
    let auditor = SigningKey::from_bytes(&[4; 32]);
    let (ruling, transcript) = play(case, (&mut prover, &node), (&mut challenger, &auditor)).unwrap();
    assert_eq!(ruling.winner, Party::Prover, "{ruling:?}");
    assert_eq!(transcript.judge(case).unwrap(), ruling);

    // A token that the form does not allow shows by itself.
    let mut other = bundle.clone();
    let last = other.opening.output.len() - 1;
    other.opening.output[last] = other.opening.output[0];
    let claims = bundle.check().unwrap().claims;
    other.receipt = sign(&node, &Claims { output: other.opening.output_hash(), ..claims });
    let case = Case::read(&other, &manifest, None, Some(&demo.text)).unwrap();
    assert!(case.plain_fault().unwrap().to_string().contains("form"), "{:?}", case.plain_fault());
    let verdict = checked(&other, Some(&demo.text)).unwrap();
    assert!(!verdict.holds() && verdict.to_string().contains("form"), "{verdict}");
}
