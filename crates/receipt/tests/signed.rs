//! A receipt has one encoding, every bit of which is signed.

#![expect(clippy::unwrap_used, reason = "test support")]

mod support;

use proptest::prelude::*;
use receipt::{
    Activations, Claims, Finish, Hash, Malformed, RECEIPT_BYTES_MAX, Receipt, ReceiptError, SigningKey, sign,
};
use support::{claims_of, key, largest_claims, opening};

fn honest() -> Vec<u8> {
    sign(&key(), &claims_of(&opening()))
}

#[test]
fn a_receipt_reads_back_with_its_node_hash_and_name() {
    let bytes = honest();
    let receipt = Receipt::parse(&bytes).unwrap();
    assert_eq!(receipt.claims, claims_of(&opening()));
    assert_eq!(receipt.node, key().verifying_key().to_bytes());
    assert_eq!(receipt.hash, receipt::hash(&bytes));
    assert_eq!(receipt.id(), format!("rcpt-{}", &support::hex(&receipt.hash)[..32]));
}

#[test]
fn the_largest_receipt_is_within_one_kilobyte() {
    let (usual, largest) = (honest().len(), sign(&key(), &largest_claims()).len());
    println!("usual {usual} bytes, largest {largest} bytes");
    assert!(usual < largest && largest <= RECEIPT_BYTES_MAX);
    assert!(Receipt::parse(&sign(&key(), &largest_claims())).is_ok());
    assert_eq!(Receipt::parse(&[0; 1025]), Err(ReceiptError::TooLarge(1025)));
}

#[test]
fn every_changed_bit_is_refused() {
    let honest = honest();
    for at in 0..honest.len() {
        for bit in 0..8 {
            let mut changed = honest.clone();
            changed[at] ^= 1 << bit;
            assert!(Receipt::parse(&changed).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn every_other_length_is_refused() {
    let honest = honest();
    for length in 0..honest.len() {
        assert!(Receipt::parse(&honest[..length]).is_err(), "{length} bytes");
    }
    let mut longer = honest;
    longer.push(0);
    assert_eq!(Receipt::parse(&longer), Err(Malformed::Trailing(1).into()));
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let other = SigningKey::from_bytes(&[9; 32]);
    let mut bytes = honest();
    let forged = sign(&other, &claims_of(&opening()));
    let at = bytes.len() - 64;
    bytes[at..].copy_from_slice(&forged[at..]);
    assert_eq!(Receipt::parse(&bytes), Err(ReceiptError::Signature));
    // With the other key's signature and the other key it is a receipt of the other node.
    assert_eq!(Receipt::parse(&forged).unwrap().node, other.verifying_key().to_bytes());
}

/// Content that is signed well but encoded badly: what a careless or malicious node could make.
mod badly_encoded {
    use super::*;
    use coset::cbor::Value;
    use coset::{CborSerializable, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable, iana};
    use ed25519_dalek::Signer;

    fn payload() -> Vec<(Value, Value)> {
        let sign1 = coset::CoseSign1::from_tagged_slice(&honest()).unwrap();
        Value::from_slice(&sign1.payload.unwrap()).unwrap().into_map().unwrap()
    }

    fn signed(payload: Vec<u8>) -> Vec<u8> {
        let protected = HeaderBuilder::new()
            .algorithm(iana::Algorithm::Ed25519)
            .content_type(receipt::CONTENT_TYPE.to_owned())
            .key_id(key().verifying_key().to_bytes().to_vec())
            .build();
        CoseSign1Builder::new()
            .protected(protected)
            .payload(payload)
            .create_signature(b"", |content| key().sign(content).to_bytes().to_vec())
            .build()
            .to_tagged_vec()
            .unwrap()
    }

    fn signed_map(entries: Vec<(Value, Value)>) -> Result<Receipt, ReceiptError> {
        Receipt::parse(&signed(Value::Map(entries).to_vec().unwrap()))
    }

    #[test]
    fn an_independent_implementation_of_cose_makes_the_same_bytes_and_verifies_ours() {
        assert_eq!(signed(Value::Map(payload()).to_vec().unwrap()), honest());
        let sign1 = coset::CoseSign1::from_tagged_slice(&honest()).unwrap();
        let signature = |signature: &[u8], content: &[u8]| {
            let signature = ed25519_dalek::Signature::from_slice(signature).unwrap();
            key().verifying_key().verify_strict(content, &signature)
        };
        sign1.verify_signature(b"", signature).unwrap();
        assert_eq!(sign1.protected.header.key_id, key().verifying_key().to_bytes());
    }

    #[test]
    fn an_unknown_field_is_refused() {
        for key in [0, 24, 25, 1000] {
            let mut entries = payload();
            let at = entries.iter().position(|(k, _)| k.as_integer().unwrap() > key.into()).unwrap_or(entries.len());
            entries.insert(at, (key.into(), 1.into()));
            assert_eq!(signed_map(entries), Err(Malformed::Field(key).into()));
        }
    }

    #[test]
    fn a_missing_a_repeated_and_a_misplaced_field_are_refused() {
        for at in 0..payload().len() {
            let mut missing = payload();
            let (key, value) = missing.remove(at);
            let optional = [5, 6, 7].map(Value::from).contains(&key);
            assert_eq!(signed_map(missing).is_ok(), optional, "without field {key:?}");
            let mut repeated = payload();
            repeated.insert(at, (key, value));
            assert!(signed_map(repeated).is_err());
            let mut swapped = payload();
            if at > 0 {
                swapped.swap(at - 1, at);
                assert!(signed_map(swapped).is_err());
            }
        }
    }

    #[test]
    fn a_value_of_another_kind_or_out_of_range_is_refused() {
        let wrong: [(u64, Value); 10] = [
            (1, Value::Text("1".into())),
            (2, (1u64 << 32).into()),
            (3, "a4".into()),
            (4, Value::Bytes(vec![0; 31])),
            (4, Value::Text("0".repeat(32))),
            (5, Value::Null),
            (13, Value::Integer((-1).into())),
            (13, 0.5.into()),
            (14, 2.into()),
            (16, 1.into()),
        ];
        for (key, value) in wrong {
            let mut entries = payload();
            let entry = entries.iter_mut().find(|(k, _)| *k == key.into()).unwrap();
            entry.1 = value.clone();
            assert!(signed_map(entries).is_err(), "field {key} as {value:?}");
        }
        let mut entries = payload();
        entries[0].1 = 1.into();
        assert_eq!(signed_map(entries), Err(ReceiptError::Version(1)));
    }

    #[test]
    fn other_encodings_of_the_same_content_are_refused() {
        let canonical = Value::Map(payload()).to_vec().unwrap();
        // The map's length and the first key in more bytes than needed, and without a length.
        assert_eq!((canonical[0], canonical[1]), (0xb5, 0x01));
        let longer_head = [&[0xb8, 21], &canonical[1..]].concat();
        let longer_key = [&canonical[..1], &[0x18, 0x01], &canonical[2..]].concat();
        let indefinite = [&[0xbf], &canonical[1..], &[0xff]].concat();
        let trailing = [&canonical[..], &[0]].concat();
        for payload in [longer_head, longer_key, indefinite] {
            assert!(Receipt::parse(&signed(payload)).is_err());
        }
        assert_eq!(Receipt::parse(&signed(trailing)), Err(Malformed::Trailing(1).into()));
    }

    #[test]
    fn another_envelope_is_refused() {
        let build = |protected: HeaderBuilder, unprotected: HeaderBuilder| {
            CoseSign1Builder::new()
                .protected(protected.build())
                .unprotected(unprotected.build())
                .payload(Value::Map(payload()).to_vec().unwrap())
                .create_signature(b"", |content| key().sign(content).to_bytes().to_vec())
                .build()
        };
        let node = key().verifying_key().to_bytes().to_vec();
        let header = || {
            HeaderBuilder::new()
                .algorithm(iana::Algorithm::Ed25519)
                .content_type(receipt::CONTENT_TYPE.to_owned())
                .key_id(node.clone())
        };
        let empty = HeaderBuilder::new;
        let parse = |sign1: coset::CoseSign1| Receipt::parse(&sign1.to_tagged_vec().unwrap());
        assert!(parse(build(header(), empty())).is_ok());
        assert!(Receipt::parse(&build(header(), empty()).to_vec().unwrap()).is_err(), "without a tag");
        assert!(parse(build(header(), empty().iv(vec![1]))).is_err(), "something unsigned beside it");
        assert!(parse(build(header().iv(vec![1]), empty())).is_err(), "more in the header");
        assert!(parse(build(header().algorithm(iana::Algorithm::EdDSA), empty())).is_err(), "another algorithm");
        assert!(parse(build(header().content_type("text/plain".into()), empty())).is_err(), "another content");
        assert!(parse(build(header().key_id(node[1..].to_vec()), empty())).is_err(), "a short key");
        let mut detached = build(header(), empty());
        detached.payload = None;
        assert!(parse(detached).is_err(), "without content");
    }
}

fn any_claims() -> impl Strategy<Value = Claims> {
    let hash = any::<Hash>;
    let optional = || proptest::option::of(any::<Hash>());
    let digests = (hash(), optional(), optional(), optional(), optional());
    let hashes = (hash(), hash(), hash(), hash(), optional());
    let numbers = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>(), any::<u64>());
    (digests, hashes, numbers, any::<[bool; 3]>()).prop_map(|(digests, hashes, numbers, flags)| Claims {
        arithmetic: numbers.0,
        activations: if flags[0] { Activations::A8 } else { Activations::A16 },
        base: digests.0,
        base_files: digests.1,
        adapter: digests.2,
        tokenizer: digests.3,
        template: digests.4,
        prompt: hashes.0,
        settings: hashes.1,
        output: hashes.2,
        prompt_tokens: numbers.1,
        output_tokens: numbers.2 >> 50,
        finish: if flags[1] { Finish::Stop } else { Finish::Length },
        seed: numbers.3,
        seed_from_client: flags[2],
        seed_number: (!flags[2]).then_some(numbers.2),
        trace: hashes.3,
        time_seconds: numbers.4 >> 30,
        price: numbers.5 >> 28,
        opening_seconds: numbers.5,
        number: if hashes.4.is_some() { numbers.6.max(1) } else { 0 },
        previous: hashes.4,
    })
}

proptest! {
    #[test]
    fn any_claims_read_back(claims in any_claims(), secret in any::<[u8; 32]>()) {
        let key = SigningKey::from_bytes(&secret);
        let bytes = sign(&key, &claims);
        prop_assert!(bytes.len() <= RECEIPT_BYTES_MAX);
        let receipt = Receipt::parse(&bytes).unwrap();
        prop_assert_eq!(&receipt.claims, &claims);
        prop_assert_eq!(sign(&key, &receipt.claims), bytes);
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..1100)) {
        prop_assert!(Receipt::parse(&bytes).is_err());
    }
}
