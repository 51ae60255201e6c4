//! A folder of answers is replayed once, whatever interrupts it, and its verdicts cannot be altered.

#![expect(clippy::unwrap_used, reason = "test support")]

mod support;

use audit::range::{Produced, RangeError, Tally, Verdicts, read, replay_all};
use model::Adapter;
use receipt::{Bundle, ReceiptError, Settings, SigningKey};
use support::{Case, config, model, prompt, settings};

fn bundles() -> Vec<Bundle> {
    let (model, short) = (model(), Settings { tokens_max: 6, ..settings() });
    let adapter = Adapter::random(&model.plan, 4, 7);
    let mut cases: Vec<Case> =
        (0..6).map(|i| Case::honest(&model, (i % 2 == 0).then_some(&adapter), &prompt(9 + i), &short)).collect();
    cases[3].opening.output[2] ^= 1;
    cases.iter().map(Case::sign).collect()
}

fn run(verdicts: &mut Verdicts, bundles: &[Bundle], most: usize) -> Tally {
    let model = model();
    let adapters = [Adapter::random(&model.plan, 4, 7)];
    let all = bundles.iter().take(most).map(|bundle| Ok::<_, ReceiptError>(bundle.clone()));
    let unreadable = std::iter::once(Bundle::from_bytes(b"nothing"));
    replay_all(all.chain(unreadable).map(Produced::from), &model, &adapters, config, verdicts, |_, _, _| {}).unwrap()
}

#[test]
fn every_answer_gets_one_signed_line_across_interruptions() {
    let (folder, bundles) = (tempfile::tempdir().unwrap(), bundles());
    let path = folder.path().join("verdicts.jsonl");
    let key = || SigningKey::from_bytes(&[8; 32]);
    let first = run(&mut Verdicts::open(&path, key()).unwrap(), &bundles, 4);
    assert_eq!((first.equal, first.differing, first.unreadable, first.skipped), (3, 1, 1, 0));
    // A crash in the middle of a line.
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    let second = run(&mut Verdicts::open(&path, key()).unwrap(), &bundles, 6);
    assert_eq!((second.equal, second.differing, second.skipped), (2, 1, 3));
    let lines = read(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(lines.len(), 6);
    let differing: Vec<_> = lines.iter().filter(|(_, s)| s.verdict["verdict"] == "differs").collect();
    assert_eq!((differing.len(), &differing[0].1.verdict["answer_token"]), (1, &serde_json::json!(2)));
    let mut again = Verdicts::open(&path, key()).unwrap();
    assert_eq!(run(&mut again, &bundles, 6).skipped, 6);
    assert_eq!((again.len(), again.others()), (6, 1));
}

#[test]
fn an_answer_that_was_withheld_is_a_signed_verdict_and_is_asked_for_again() {
    let (folder, bundles, model) = (tempfile::tempdir().unwrap(), bundles(), model());
    let path = folder.path().join("verdicts.jsonl");
    let adapters = [Adapter::random(&model.plan, 4, 7)];
    let hash = receipt::hash(&bundles[1].receipt);
    let run = |answer: Produced| {
        let mut verdicts = Verdicts::open(&path, SigningKey::from_bytes(&[8; 32])).unwrap();
        replay_all([answer].into_iter(), &model, &adapters, config, &mut verdicts, |_, _, _| {}).unwrap()
    };
    assert_eq!(run(Produced::Withheld(hash, "404".to_owned())).withheld, 1);
    assert_eq!(run(Produced::Bundle(Box::new(bundles[1].clone()))).equal, 1);
    assert_eq!(run(Produced::Bundle(Box::new(bundles[1].clone()))).skipped, 1);
    let lines = read(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let said: Vec<_> = lines.iter().map(|(_, statement)| statement.verdict["verdict"].clone()).collect();
    assert_eq!(said, ["withheld", "equal"]);
    // That it was once withheld stays in the account.
    assert_eq!(Verdicts::open(&path, SigningKey::from_bytes(&[8; 32])).unwrap().others(), 1);
}

#[test]
fn a_verdict_file_that_was_altered_is_refused() {
    let (folder, bundles) = (tempfile::tempdir().unwrap(), bundles());
    let path = folder.path().join("verdicts.jsonl");
    run(&mut Verdicts::open(&path, SigningKey::from_bytes(&[8; 32])).unwrap(), &bundles, 4);
    let whole = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let turned = whole.replacen("differs", "equally", 1);
    let dropped = [lines[0], lines[2], lines[3]].concat();
    let swapped = [lines[1], lines[0], lines[2]].concat();
    for (altered, line) in [(turned, 4), (dropped, 2), (swapped, 1)] {
        assert!(matches!(read(&altered), Err(RangeError::Line { line: found }) if found == line), "{line}");
    }
}
