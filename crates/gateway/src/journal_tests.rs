use super::*;
use receipt::{Activations, Claims, Finish, Opening, Salts, Settings, SigningKey, sign};
use std::fs;

/// A valid receipt of `tokens` tokens.
fn entry(number: u64, tokens: usize) -> Entry {
    let settings = Settings {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed: number,
        tokens_max: 1,
        stop_tokens: vec![],
        stop_strings: vec![],
    };
    let (prompt, leaves) = (vec![number as u32; tokens], vec![[1; 32]; tokens]);
    let opening = Opening { prompt, output: vec![2], settings, salts: Salts::from_random(&[3; 64]), leaves };
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
        prompt_tokens: tokens as u64,
        output_tokens: 1,
        finish: Finish::Length,
        seed: number,
        seed_from_client: false,
        trace: opening.trace_root(),
        time_seconds: 0,
        price: 0,
        number,
        previous: None,
    };
    let receipt = sign(&SigningKey::from_bytes(&[9; 32]), &claims);
    Entry { hash: receipt::hash(&receipt), bundle: Bundle { receipt, opening }.to_bytes() }
}

/// A journal of groups of 1, 2 and 3 receipts, and where each group ends.
fn written(path: &Path) -> (Vec<Entry>, Vec<u64>) {
    let (mut journal, kept) = Journal::open(path).unwrap();
    assert!(kept.last.is_none() && kept.places.is_empty());
    let entries: Vec<Entry> = (0..6).map(|number| entry(number, 1 + number as usize)).collect();
    let mut ends = vec![];
    for group in [0..1, 1..3, 3..6] {
        journal.append(&entries[group]).unwrap();
        ends.push(journal.end);
    }
    (entries, ends)
}

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("receipts.log");
    let (entries, _) = written(&path);
    let (mut journal, kept) = Journal::open(&path).unwrap();
    assert_eq!(kept.last.as_ref().unwrap().claims.number, 5);
    for entry in &entries {
        assert_eq!(read(journal.file(), kept.places[&name_of(&entry.hash)]).unwrap(), entry.bundle);
    }
    journal.append(&[entry(6, 1)]).unwrap();
    assert_eq!(Journal::open(&path).unwrap().1.places.len(), 7);
}

#[test]
fn a_crash_at_any_byte_loses_no_finished_group_and_leaves_a_journal_that_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("receipts.log");
    let (_, ends) = written(&path);
    let whole = fs::read(&path).unwrap();
    let near = |cut: &usize| ends.iter().chain([&0]).any(|end| cut.abs_diff(*end as usize) < 60);
    for cut in (0..whole.len()).filter(|cut| cut % 29 == 0 || near(cut)) {
        let torn = place.path().join("torn.log");
        fs::write(&torn, &whole[..cut]).unwrap();
        let (mut journal, kept) = Journal::open(&torn).unwrap();
        let groups = ends.iter().filter(|end| **end <= cut as u64).count();
        assert_eq!(kept.places.len(), [0, 1, 3, 6][groups], "cut at {cut}");
        assert_eq!(kept.last.map(|last| last.claims.number), [None, Some(0), Some(2), Some(5)][groups]);
        if cut % 5 == 0 {
            journal.append(&[entry(9, 1)]).unwrap();
            let again = Journal::open(&torn).unwrap().1;
            assert_eq!((again.places.len(), again.last.unwrap().claims.number), (kept.places.len() + 1, 9));
        }
    }
}

#[test]
fn an_unfinished_group_of_full_length_is_dropped_too() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("receipts.log");
    let (_, ends) = written(&path);
    let mut bytes = fs::read(&path).unwrap();
    let length = bytes.len();
    bytes[length - 100..].fill(0);
    fs::write(&path, &bytes).unwrap();
    let (journal, kept) = Journal::open(&path).unwrap();
    assert_eq!((journal.end, kept.places.len()), (ends[1], 3));
}

#[test]
fn damage_before_a_sound_group_is_not_mistaken_for_a_crash() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("receipts.log");
    let (_, ends) = written(&path);
    let whole = fs::read(&path).unwrap();
    for at in [16, 20, 30, 60, ends[0] as usize + 50, ends[1] as usize - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(Journal::open(&path), Err(StartError::Damaged { .. })), "byte {at}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "nothing may be thrown away");
    }
}

#[test]
fn a_disk_that_refuses_keeps_nothing_and_says_so() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("receipts.log");
    written(&path);
    let (journal, _) = Journal::open(&path).unwrap();
    let file = Arc::new(File::open(&path).unwrap());
    let mut read_only = Journal { file, path: path.clone(), end: journal.end, broken: false };
    assert!(read_only.append(&[entry(6, 1)]).is_err());
    assert!(read_only.append(&[entry(6, 1)]).is_err());
    assert_eq!(Journal::open(&path).unwrap().1.places.len(), 6);
}
