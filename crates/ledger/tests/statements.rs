//! Statements of balances: each account can check its own, an auditor all of them, and nobody another's.

#![expect(clippy::unwrap_used, reason = "tests")]

use ledger::{AccountId, BalanceProof, Leaf, Leaves, Micros, Note, SigningKey, Statement, StatementError};
use proptest::prelude::*;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn node(key: &SigningKey) -> [u8; 32] {
    key.verifying_key().to_bytes()
}

fn leaf(name: &str, balance: i64, held: i64) -> Leaf {
    let salt = std::array::from_fn(|index| name.as_bytes()[index % name.len()] ^ index as u8);
    Leaf { account: name.parse().unwrap(), balance: Micros(balance), held: Micros(held), salt }
}

fn leaves() -> Leaves {
    let leaves = vec![
        leaf("author:bo", 5_000_000, 0),
        leaf("customer:ada", 12_345_678, 45),
        leaf("customer:bob", -3, 0),
        leaf("network", 100, 0),
        leaf("outside", -17_345_775, 0),
    ];
    let note = Statement::over(&leaves, 1_790_000_000_000_000, 42, node(&key())).unwrap().sign(&key()).unwrap();
    Leaves { leaves, note }
}

#[test]
fn every_account_can_check_its_own_balance_offline() {
    let leaves = leaves();
    for (proof, leaf) in leaves.proofs().unwrap().iter().zip(&leaves.leaves) {
        let read = BalanceProof::parse(&proof.to_string()).unwrap();
        assert_eq!(read, *proof);
        assert_eq!(leaves.proof(&leaf.account).unwrap().as_ref(), Some(proof));
        let said = read.verify(Some(&leaf.account), Some(&node(&key()))).unwrap();
        assert_eq!((said.sum, said.transactions), (Micros::ZERO, 42));
    }
    assert_eq!(leaves.proof(&"customer:zed".parse().unwrap()).unwrap(), None);
    // What is written is fixed: other programs read it too.
    let text = leaves.proofs().unwrap()[1].to_string();
    assert!(text.starts_with("lockstep balance proof 1\ncustomer:ada 12.345678 0.000045 63747177"), "{text}");
    // Salted hashes of neighbours, and nothing else of them.
    assert!(!text.contains("bob") && !text.contains("5.000000"));
}

#[test]
fn an_auditor_sees_that_all_balances_add_up_to_zero() {
    let leaves = leaves();
    let read = Leaves::parse(&leaves.to_string()).unwrap();
    assert_eq!(read, leaves);
    assert_eq!(read.verify(None).unwrap().sum, Micros::ZERO);
    // A node that signs books that do not add up convicts itself.
    let mut other = leaves.leaves.clone();
    other[3].balance = Micros(101);
    let note = Statement::over(&other, 1, 1, node(&key())).unwrap().sign(&key()).unwrap();
    let error = Leaves { leaves: other, note }.verify(None).unwrap_err();
    assert_eq!(error.to_string(), "the balances add up to 0.000001, not to zero");
    // One account twice, with half of its balance each, is found too.
    let twice = [leaves.leaves[1].clone(), leaves.leaves[1].clone()].to_vec();
    let note = Statement::over(&twice, 1, 1, node(&key())).unwrap().sign(&key()).unwrap();
    assert!(matches!(Leaves { leaves: twice, note }.verify(None), Err(StatementError::OtherLeaves)));
}

#[test]
fn anothers_statement_is_refused_in_words() {
    let proofs = leaves().proofs().unwrap();
    let bob: AccountId = "customer:bob".parse().unwrap();
    let error = proofs[1].verify(Some(&bob), None).unwrap_err().to_string();
    assert_eq!(error, "this is the proof of customer:ada, not of customer:bob");
    // Ada's balance under Bob's name.
    let mut renamed = proofs[1].clone();
    renamed.leaf.account = bob;
    assert!(matches!(renamed.verify(None, None), Err(StatementError::NotIncluded(_))));
    let other = SigningKey::from_bytes(&[8; 32]);
    let error = proofs[1].verify(None, Some(&node(&other))).unwrap_err();
    assert!(matches!(error, StatementError::Node { .. }), "{error}");
    // A statement that names this node, but is signed by another.
    let text = leaves().note.text;
    let origin = text.lines().next().unwrap();
    let signature = tlog::NoteSignature::sign(origin, &other, &text).unwrap();
    let forged = Note { text, signatures: vec![signature] };
    assert!(matches!(Statement::verify(&forged, None), Err(StatementError::Signature(_))));
    // A log head is no statement, whoever signed it.
    let head = tlog::Head { origin: tlog::origin_of(&node(&key())), size: 1, root: [1; 32] }.sign(&key()).unwrap();
    assert!(matches!(Statement::verify(&head, None), Err(StatementError::Shape(_))));
}

#[test]
fn statements_over_one_account_and_none_hold() {
    for count in [0, 1, 2, 3, 64, 65] {
        let leaves: Vec<Leaf> = (0..count).map(|number| leaf(&format!("customer:{number:03}"), 0, 0)).collect();
        let note = Statement::over(&leaves, 1, 1, node(&key())).unwrap().sign(&key()).unwrap();
        let leaves = Leaves { leaves, note };
        if count > 0 {
            assert_eq!(Leaves::parse(&leaves.to_string()).unwrap(), leaves);
        }
        leaves.verify(None).unwrap();
        for proof in leaves.proofs().unwrap() {
            proof.verify(None, None).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn a_proof_with_a_changed_byte_is_refused(at in 0usize..400, to in 1u8..=255) {
        let proof = leaves().proofs().unwrap()[1].to_string();
        let mut bytes = proof.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= to;
        let changed = String::from_utf8(bytes).ok().and_then(|text| BalanceProof::parse(&text).ok());
        let believed = changed.is_some_and(|proof| {
            proof.verify(Some(&"customer:ada".parse().unwrap()), Some(&node(&key()))).is_ok()
        });
        prop_assert!(!believed);
    }

    #[test]
    fn any_text_is_a_proof_or_an_error(text in "(?s).{0,200}") {
        prop_assert!(BalanceProof::parse(&text).is_err());
        prop_assert!(Leaves::parse(&text).is_err());
    }
}
