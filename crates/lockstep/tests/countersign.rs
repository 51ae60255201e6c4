//! `lockstep countersign`, on a receipt of an answer nobody computed.

#![expect(clippy::unwrap_used, reason = "tests")]

use receipt::{Activations, Bundle, Claims, Countersignature, Finish, Opening, Salts, Settings, SigningKey};
use std::path::Path;
use std::process::Command;

/// What the command told, and whether it was content.
fn lockstep(arguments: &[&str]) -> (String, bool) {
    let output = Command::new(env!("CARGO_BIN_EXE_lockstep")).args(arguments).output().unwrap();
    (String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(), output.status.success())
}

fn bundle() -> Bundle {
    let settings = Settings {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: 5,
        tokens_max: 1,
        stop_tokens: vec![],
        stop_strings: vec![],
        shaping: receipt::Shaping::default(),
    };
    let salts = Salts::from_random(&[3; 64]);
    let opening = Opening { prompt: vec![1], output: vec![2], settings, salts, leaves: vec![[1; 32]], seed: None };
    let claims = Claims {
        arithmetic: 1,
        activations: Activations::A8,
        base: [0; 32],
        base_files: None,
        adapter: None,
        tokenizer: None,
        template: None,
        prompt: opening.prompt_hash(),
        settings: opening.settings_hash(),
        output: opening.output_hash(),
        prompt_tokens: 1,
        output_tokens: 1,
        finish: Finish::Length,
        seed: 5,
        seed_from_client: true,
        seed_number: None,
        trace: opening.trace_root(),
        time_seconds: 1000,
        price: 0,
        opening_seconds: 1000,
        number: 0,
        previous: None,
    };
    Bundle { receipt: receipt::sign(&SigningKey::from_bytes(&[7; 32]), &claims), opening }
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_client_signs_with_a_key_of_its_own_and_verify_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let (answer, key) = (path(folder.path(), "answer.receipt"), path(folder.path(), "client.key"));
    let bundle = bundle();
    std::fs::write(&answer, bundle.to_bytes()).unwrap();
    assert!(lockstep(&["countersign", &answer, "--key", &key]).1);
    let beside = answer.clone() + ".countersignature";
    let first = Countersignature::parse(&std::fs::read(&beside).unwrap()).unwrap();
    assert_eq!(first.receipt, receipt::hash(&bundle.receipt));
    // The key stays; a bare receipt will do too.
    let bare = path(folder.path(), "bare.receipt");
    std::fs::write(&bare, &bundle.receipt).unwrap();
    assert!(lockstep(&["countersign", &bare, "--key", &key]).1);
    let again = Countersignature::parse(&std::fs::read(bare + ".countersignature").unwrap()).unwrap();
    assert_eq!(again.client, first.client);
    let client: String = first.client.iter().map(|byte| format!("{byte:02x}")).collect();
    let (told, _) = lockstep(&["verify", &answer]);
    assert!(told.contains(&format!("countersigned: by {client}")), "{told}");
    // One that is for another receipt is called that.
    let other = path(folder.path(), "other.countersignature");
    std::fs::write(&other, Countersignature::sign(&SigningKey::from_bytes(&[9; 32]), &[0; 32], 1)).unwrap();
    let (told, content) = lockstep(&["verify", &answer, "--countersignature", &other]);
    assert!(told.contains("for another receipt") && !content, "{told}");
}

#[test]
fn nobody_is_made_to_sign_for_an_answer_that_is_not_the_receipts() {
    let folder = tempfile::tempdir().unwrap();
    let (answer, key) = (path(folder.path(), "answer.receipt"), path(folder.path(), "client.key"));
    let mut bundle = bundle();
    bundle.opening.output = vec![3];
    std::fs::write(&answer, bundle.to_bytes()).unwrap();
    let (told, content) = lockstep(&["countersign", &answer, "--key", &key]);
    assert!(!content && told.contains("error"), "{told}");
    assert!(!Path::new(&(answer + ".countersignature")).exists());
}
