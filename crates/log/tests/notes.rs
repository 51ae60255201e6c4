//! Signed notes, log heads, proofs and witnesses: what others make is read, and nothing forged is believed.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use proptest::prelude::*;
use std::path::Path;
use support::{ORIGIN, entry, key, signed, tree, verifier};
use tlog::{
    Hash, Head, Kind, LogError, Memory, Note, NoteSignature, Proof, Refusal, SigningKey, VerifierKey, Witness,
    add_checkpoint_body, consistency_proof, inclusion_proof, leaf_hash, root,
};

/// The example of C2SP's `signed-note`, and its key.
const EXAMPLE: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\
    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const EXAMPLE_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";

#[test]
fn a_note_that_others_signed_is_believed_and_written_as_it_was() {
    let (note, key) = (Note::parse(EXAMPLE.as_bytes()).unwrap(), EXAMPLE_KEY.parse::<VerifierKey>().unwrap());
    note.verify(&key).unwrap();
    assert_eq!((note.to_string(), key.to_string()), (EXAMPLE.to_owned(), EXAMPLE_KEY.to_owned()));
    let changed = EXAMPLE.replace("answer", "Answer");
    assert!(matches!(Note::parse(changed.as_bytes()).unwrap().verify(&key), Err(LogError::Signature(_))));
}

#[test]
fn another_implementation_believes_our_notes() {
    let note = signed(5, &tree(5));
    let known: Box<dyn signed_note::Verifier> =
        Box::new(signed_note::StandardVerifier::new(&verifier().to_string()).unwrap());
    let theirs = signed_note::Note::from_bytes(note.to_string().as_bytes()).unwrap();
    let (verified, _) = theirs.verify(&signed_note::VerifierList::new(vec![known])).unwrap();
    assert_eq!(verified.len(), 1);
    let checkpoint = tlog_tiles::Checkpoint::from_bytes(theirs.text()).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.size()), (ORIGIN, 5));
    assert_eq!(checkpoint.hash().0, root(&tree(5), 5).unwrap());
}

#[test]
fn a_log_head_is_believed_of_its_log_only() {
    let bytes = signed(5, &tree(5)).to_string();
    assert_eq!(Head::verify(bytes.as_bytes(), &verifier()).unwrap().size, 5);
    let other = SigningKey::from_bytes(&[8; 32]);
    let stranger = VerifierKey::new(ORIGIN, Kind::Plain, other.verifying_key().as_bytes()).unwrap();
    assert!(matches!(Head::verify(bytes.as_bytes(), &stranger), Err(LogError::Signature(_))));
    // The right key, but a head of another log.
    let head = Head { origin: "example.com/other".to_owned(), size: 5, root: [0; 32] };
    let signature = NoteSignature::sign(ORIGIN, &key(), &head.text()).unwrap();
    let note = Note { text: head.text(), signatures: vec![signature] };
    assert!(matches!(Head::verify(note.to_string().as_bytes(), &verifier()), Err(LogError::Signature(_))));
    // A valid signature beside a forged one of the same key.
    let mut note = Note::parse(bytes.as_bytes()).unwrap();
    note.signatures.push(NoteSignature::sign(ORIGIN, &key(), "other\n").unwrap());
    assert!(Head::verify(note.to_string().as_bytes(), &verifier()).is_err());
}

#[test]
fn what_is_no_note_head_or_key_is_refused() {
    let good = signed(5, &tree(5)).to_string();
    for bad in [
        "",
        "\n\n",
        "a\n\n",
        "a\n\n\n",
        &good[..good.len() - 1],
        &good.replace("— ", "- "),
        &good.replace("\n\n", "\n"),
        &good.replace("example", "exam\tple"),
        &format!("{good}\n"),
        &good.replace(" e", "  e"),
    ] {
        assert!(Note::parse(bad.as_bytes()).is_err(), "{bad:?}");
    }
    assert!(Note::parse(&[good.as_bytes(), &[0xff]].concat()).is_err());
    let many = format!("a\n\n{}", "— a AAAAAAA=\n".repeat(65));
    assert!(Note::parse(many.as_bytes()).is_err() && Note::parse(&many.as_bytes()[..many.len() - 15]).is_ok());
    assert!(Note::parse(&vec![b'a'; 1 << 20]).is_err());
    let root = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    for bad in [
        "o\n",
        "o\n1\n",
        "\n1\nR\n",
        "o\n01\nR\n",
        "o\n-1\nR\n",
        "o\n+1\nR\n",
        "o\n\nR\n",
        "o\n18446744073709551616\nR\n",
        "o\n1\nR=\n",
        "o\n1\nAAAA\n",
        "o\n1\nR\n\nx\n",
    ] {
        let note = Note { text: bad.replace('R', root), signatures: vec![] };
        assert!(Head::of(&note).is_err(), "{bad:?}");
    }
    for bad in [
        "",
        "a",
        "a+b",
        &EXAMPLE_KEY[1..],
        &format!("{EXAMPLE_KEY} "),
        &EXAMPLE_KEY.replace("c7", "C7"),
        "a+00000000+AQ==",
    ] {
        assert!(bad.parse::<VerifierKey>().is_err(), "{bad:?}");
    }
    assert!(VerifierKey::new("a b", Kind::Plain, &[1; 32]).is_err());
}

#[test]
fn a_proof_of_inclusion_is_whole_in_itself() {
    let tree = tree(10);
    let proof = Proof { index: 3, hashes: inclusion_proof(&tree, 3, 10).unwrap(), head: signed(10, &tree) };
    let text = proof.to_string();
    assert!(text.starts_with("c2sp.org/tlog-proof@v1\nindex 3\n"));
    let read = Proof::parse(text.as_bytes()).unwrap();
    assert_eq!(read, proof);
    assert_eq!(read.verify(&entry(3), &verifier()).unwrap().size, 10);
    assert!(matches!(read.verify(&entry(4), &verifier()), Err(LogError::Contradiction(_))));
    let moved = Proof { index: 4, ..proof.clone() };
    assert!(matches!(moved.verify(&entry(3), &verifier()), Err(LogError::Contradiction(_))));
    for bad in [
        text.replace("@v1", "@v2"),
        text.replace("index 3", "index 03"),
        text.replace("index 3", "Index 3"),
        text.replacen("\n\n", "\n", 1),
        text.replacen("=\n", "\n", 1),
    ] {
        assert!(Proof::parse(bad.as_bytes()).is_err(), "{bad}");
    }
}

const WITNESS: &str = "witness.example.com/w";

fn witness(folder: &Path) -> Witness {
    let known = |origin: &str| (origin == ORIGIN).then(verifier);
    Witness::open(folder, WITNESS, SigningKey::from_bytes(&[3; 32]), Box::new(known)).unwrap()
}

/// What a log sends to have its head of `size` witnessed after the one of `old`.
fn submission(tree: &Memory, old: u64, size: u64) -> Vec<u8> {
    add_checkpoint_body(old, &consistency_proof(tree, old, size).unwrap(), &signed(size, tree)).into_bytes()
}

#[test]
fn a_witness_signs_heads_that_continue_each_other_and_remembers_them() {
    let folder = tempfile::tempdir().unwrap();
    let tree = tree(50);
    for (old, size) in [(0, 3), (3, 3), (3, 20), (20, 50)] {
        // A restart between any two.
        let witness = witness(folder.path());
        let line = witness.add_checkpoint(&submission(&tree, old, size), 1_790_000_000).unwrap();
        let mut note = signed(size, &tree);
        note.signatures.push(NoteSignature::parse(line.trim_end()).unwrap());
        let read = Note::parse(note.to_string().as_bytes()).unwrap();
        read.verify(&witness.verifier().unwrap()).unwrap();
        read.verify(&verifier()).unwrap();
    }
}

/// A tree that shares `same` entries with the honest one.
fn forked(same: u64, size: u64) -> Memory {
    let mut tree = tree(same);
    (same..size).for_each(|index| tree.push(leaf_hash(&[b"forged ".to_vec(), entry(index)].concat())));
    tree
}

#[test]
fn a_split_view_is_not_witnessed_twice() {
    let folder = tempfile::tempdir().unwrap();
    let witness = witness(folder.path());
    let (tree, fork) = (tree(50), forked(20, 60));
    witness.add_checkpoint(&submission(&tree, 0, 30), 0).unwrap();
    let refuse = |body: &[u8]| witness.add_checkpoint(body, 0).unwrap_err();
    // Another history of the same length, a longer one, a shorter one, and one from the beginning.
    assert!(matches!(refuse(&submission(&fork, 30, 30)), Refusal::Conflict { size: 30 }));
    assert!(matches!(refuse(&submission(&fork, 30, 60)), Refusal::Inconsistent));
    assert!(matches!(refuse(&submission(&fork, 20, 60)), Refusal::Conflict { size: 30 }));
    assert!(matches!(refuse(&submission(&fork, 0, 60)), Refusal::Conflict { size: 30 }));
    // The honest history goes on.
    witness.add_checkpoint(&submission(&tree, 30, 50), 0).unwrap();
}

#[test]
fn a_log_that_was_rolled_back_is_not_witnessed() {
    let folder = tempfile::tempdir().unwrap();
    let witness = witness(folder.path());
    let tree = tree(50);
    witness.add_checkpoint(&submission(&tree, 0, 50), 0).unwrap();
    let refuse = |body: &[u8]| witness.add_checkpoint(body, 0).unwrap_err();
    assert!(matches!(refuse(&submission(&tree, 0, 30)), Refusal::Conflict { size: 50 }));
    assert!(matches!(refuse(&submission(&tree, 30, 30)), Refusal::Conflict { size: 50 }));
    let backwards = add_checkpoint_body(50, &[], &signed(30, &tree));
    assert!(matches!(refuse(backwards.as_bytes()), Refusal::Malformed(_)));
}

#[test]
fn a_witness_says_why_it_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let witness = witness(folder.path());
    let tree = tree(5);
    let status = |body: &[u8]| witness.add_checkpoint(body, 0).unwrap_err().status();
    let body = String::from_utf8(submission(&tree, 0, 5)).unwrap();
    for bad in ["", "old 0\n", &body.replace("old 0", "old 00"), &body[4..], &body.replacen("\n\n", "\nAA==\n\n", 1)] {
        assert_eq!(status(bad.as_bytes()), 400, "{bad:?}");
    }
    assert_eq!(status(&[0xff; 100_000]), 400);
    assert_eq!(status(body.replace(ORIGIN, "example.com/unknown").as_bytes()), 404);
    let unsigned = body.replace("\n5\n", "\n6\n");
    assert_eq!(status(unsigned.as_bytes()), 403);
    assert_eq!(status(&submission(&tree, 3, 5)), 409);
    let proof = [[0u8; 32] as Hash];
    assert_eq!(status(add_checkpoint_body(0, &proof, &signed(5, &tree)).as_bytes()), 422);
    assert!(Witness::open(folder.path(), WITNESS, key(), Box::new(|_| None)).is_err(), "two in one folder");
}

#[test]
fn a_cosignature_of_another_text_time_or_witness_is_not_believed() {
    let key = SigningKey::from_bytes(&[3; 32]);
    let verifier = VerifierKey::new(WITNESS, Kind::Cosignature, key.verifying_key().as_bytes()).unwrap();
    assert_eq!(verifier.to_string().parse::<VerifierKey>().unwrap(), verifier);
    let text = signed(5, &tree(5)).text;
    let note = |text: &str, signature| Note { text: text.to_owned(), signatures: vec![signature] };
    note(&text, NoteSignature::cosign(WITNESS, &key, &text, 7).unwrap()).verify(&verifier).unwrap();
    let cosigned = |time| NoteSignature::cosign(WITNESS, &key, &text, time).unwrap();
    assert!(note(&text.replace('5', "6"), cosigned(7)).verify(&verifier).is_err());
    // The bytes before the signature are the time.
    let line = cosigned(7).to_string();
    let earlier = line.replacen("AAAAAAAAAAc", "AAAAAAAAAAY", 1);
    if earlier != line {
        assert!(note(&text, NoteSignature::parse(&earlier).unwrap()).verify(&verifier).is_err());
    }
    assert!(note(&text, cosigned(u64::MAX)).verify(&verifier).is_err(), "beyond 2⁶³ seconds");
    let stranger = NoteSignature::cosign(WITNESS, &SigningKey::from_bytes(&[4; 32]), &text, 7).unwrap();
    assert!(note(&text, stranger).verify(&verifier).is_err());
    // A plain signature is no cosignature, whoever made it.
    assert!(note(&text, NoteSignature::sign(WITNESS, &key, &text).unwrap()).verify(&verifier).is_err());
}

proptest! {
    #[test]
    fn arbitrary_notes_proofs_and_bodies_never_panic(text in "(old [0-9]\n)?([a-z—= +\n]{0,40}\n){0,4}(— a [A-Za-z0-9+/]{0,12}=?\n)?") {
        if let Ok(note) = Note::parse(text.as_bytes()) {
            prop_assert_eq!(note.to_string(), text.clone());
            prop_assert!(note.verify(&verifier()).is_err());
            let _ = Head::of(&note);
        }
        prop_assert!(Proof::parse(text.as_bytes()).is_err());
        let _ = text.parse::<VerifierKey>();
    }

    #[test]
    fn a_byte_changed_in_a_proof_is_noticed(at in 0usize..2000, byte in any::<u8>()) {
        let tree = tree(10);
        let proof = Proof { index: 3, hashes: inclusion_proof(&tree, 3, 10).unwrap(), head: signed(10, &tree) };
        let honest = proof.to_string().into_bytes();
        let mut changed = honest.clone();
        let at = at % changed.len();
        changed[at] = byte;
        let believed = Proof::parse(&changed).is_ok_and(|proof| proof.verify(&entry(3), &verifier()).is_ok());
        prop_assert_eq!(believed, changed == honest);
    }
}
