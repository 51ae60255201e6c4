//! `lockstep countersign`, on a receipt of an answer nobody computed.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use receipt::{Countersignature, SigningKey};
use std::path::Path;
use support::{bundle, told};

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_client_signs_with_a_key_of_its_own_and_verify_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let (answer, key) = (path(folder.path(), "answer.receipt"), path(folder.path(), "client.key"));
    let bundle = bundle(0, None, 5);
    std::fs::write(&answer, bundle.to_bytes()).unwrap();
    assert!(told(&["countersign", &answer, "--key", &key]).1);
    let beside = answer.clone() + ".countersignature";
    let first = Countersignature::parse(&std::fs::read(&beside).unwrap()).unwrap();
    assert_eq!(first.receipt, receipt::hash(&bundle.receipt));
    // The key stays; a bare receipt will do too.
    let bare = path(folder.path(), "bare.receipt");
    std::fs::write(&bare, &bundle.receipt).unwrap();
    assert!(told(&["countersign", &bare, "--key", &key]).1);
    let again = Countersignature::parse(&std::fs::read(bare + ".countersignature").unwrap()).unwrap();
    assert_eq!(again.client, first.client);
    let client: String = first.client.iter().map(|byte| format!("{byte:02x}")).collect();
    let (text, _) = told(&["verify", &answer]);
    assert!(text.contains(&format!("countersigned: by {client}")), "{text}");
    // One that is for another receipt is called that.
    let other = path(folder.path(), "other.countersignature");
    std::fs::write(&other, Countersignature::sign(&SigningKey::from_bytes(&[9; 32]), &[0; 32], 1)).unwrap();
    let (text, content) = told(&["verify", &answer, "--countersignature", &other]);
    assert!(text.contains("for another receipt") && !content, "{text}");
}

#[test]
fn nobody_is_made_to_sign_for_an_answer_that_is_not_the_receipts() {
    let folder = tempfile::tempdir().unwrap();
    let (answer, key) = (path(folder.path(), "answer.receipt"), path(folder.path(), "client.key"));
    let mut bundle = bundle(0, None, 5);
    bundle.opening.output = vec![3];
    std::fs::write(&answer, bundle.to_bytes()).unwrap();
    let (text, content) = told(&["countersign", &answer, "--key", &key]);
    assert!(!content && text.contains("error"), "{text}");
    assert!(!Path::new(&(answer + ".countersignature")).exists());
}
