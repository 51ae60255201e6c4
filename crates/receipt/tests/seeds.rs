//! Seeds come from both sides, and whoever reads the log sees a node that grinds.

mod support;

use proptest::prelude::*;
use receipt::{
    Aborted, Bundle, Claims, Countersignature, Fault, Hash, Malformed, Mismatch, Monitor, Nonce, OVERDUE_SECONDS,
    ReceiptError, Seeds, SigningKey, Statement, hash, seed, sign,
};
use support::{aborted, claims_of, key, opening, opening_of_node_seed, secret, seeds};

const START: u64 = 1_790_000_000;

/// A node that writes what it likes.
struct Node {
    entries: Vec<Vec<u8>>,
    receipts: u64,
    last: Option<Hash>,
    time_seconds: u64,
}

impl Node {
    fn new() -> Node {
        Node { entries: vec![], receipts: 0, last: None, time_seconds: START }
    }

    fn commit(&mut self, first: u64, count: u64) {
        let commitments = (first..first + count).map(|number| seed::commitment(number, &[number as u8; 32])).collect();
        self.entries.push(Seeds { first, commitments, time_seconds: self.time_seconds }.sign(&key()));
    }

    fn answer(&mut self, seed_number: Option<u64>) {
        self.answer_as(|claims| {
            claims.seed_number = seed_number;
            claims.seed_from_client = seed_number.is_none();
        });
    }

    fn answer_as(&mut self, change: impl FnOnce(&mut Claims)) {
        let mut claims = Claims {
            number: self.receipts,
            previous: self.last,
            time_seconds: self.time_seconds,
            ..claims_of(&opening())
        };
        change(&mut claims);
        let receipt = sign(&key(), &claims);
        self.receipts += 1;
        self.last = Some(hash(&receipt));
        self.entries.push(receipt);
    }

    fn abort(&mut self, ranges: Vec<(u64, u64)>) {
        self.entries.push(Aborted { ranges, time_seconds: self.time_seconds }.sign(&key()));
    }

    /// The first fault and the entry it is in.
    fn fault(&self) -> Option<(usize, Fault)> {
        let mut monitor = Monitor::new(key().verifying_key().to_bytes());
        self.entries.iter().enumerate().find_map(|(at, entry)| Some((at, monitor.read(entry).err()?)))
    }
}

#[test]
fn nonce_secret_and_request_all_decide_the_seed() {
    let opening = opening_of_node_seed();
    let (origin, settings) = (opening.seed.clone().unwrap(), &opening.settings);
    let request =
        |base: u8, adapter: Option<&Hash>, prompt: &[u32]| seed::request_hash(&[base; 32], adapter, settings, prompt);
    let honest = request(0xb0, Some(&[0xb2; 32]), &opening.prompt);
    assert_eq!(seed::derive(&origin.nonce, &origin.secret, &honest), settings.seed);
    assert!(settings.seed < 1 << 53);
    for other in [
        request(0xb1, Some(&[0xb2; 32]), &opening.prompt),
        request(0xb0, None, &opening.prompt),
        request(0xb0, Some(&[0xb2; 32]), &opening.prompt[1..]),
    ] {
        assert_ne!(seed::derive(&origin.nonce, &origin.secret, &other), settings.seed);
    }
    let mut warmer = settings.clone();
    warmer.temperature = 0.8;
    assert_ne!(seed::request_hash(&[0xb0; 32], Some(&[0xb2; 32]), &warmer, &opening.prompt), honest);
    // The request does not hang on the seed that comes out of it.
    warmer = settings.clone();
    warmer.seed = 1;
    assert_eq!(seed::request_hash(&[0xb0; 32], Some(&[0xb2; 32]), &warmer, &opening.prompt), honest);
    assert_ne!(seed::derive(&Nonce::default(), &origin.secret, &honest), settings.seed);
    assert_ne!(seed::derive(&origin.nonce, &secret(2), &honest), settings.seed);
    assert!(seeds().commits(3, &secret(3)) && !seeds().commits(2, &secret(3)) && !seeds().commits(4, &secret(4)));
}

#[test]
fn a_seed_that_was_not_derived_is_refused() {
    let check = |change: &dyn Fn(&mut Claims, &mut receipt::Opening)| {
        let mut opening = opening_of_node_seed();
        let mut claims = claims_of(&opening);
        change(&mut claims, &mut opening);
        claims.settings = opening.settings_hash();
        Bundle { receipt: sign(&key(), &claims), opening }.check().map(|_| ())
    };
    assert_eq!(check(&|_, _| {}), Ok(()));
    let derivation = Err(Mismatch::SeedDerivation.into());
    assert_eq!(
        check(&|claims, opening| {
            opening.settings.seed ^= 1;
            claims.seed ^= 1;
        }),
        derivation
    );
    assert_eq!(check(&|_, opening| opening.seed.as_mut().unwrap().secret[0] ^= 1), derivation);
    assert_eq!(check(&|_, opening| opening.seed.as_mut().unwrap().nonce = Nonce::default()), derivation);
    assert_eq!(check(&|_, opening| opening.seed = None), Err(Mismatch::SeedOrigin.into()));
    assert_eq!(
        check(&|claims, _| {
            claims.seed_from_client = true;
            claims.seed_number = None;
        }),
        Err(Mismatch::SeedOrigin.into())
    );
    let both = Claims { seed_from_client: true, ..claims_of(&opening_of_node_seed()) };
    let refused = receipt::Receipt::parse(&sign(&key(), &both));
    assert!(matches!(refused, Err(ReceiptError::Contradiction(_))), "{refused:?}");
}

#[test]
fn an_honest_node_has_no_faults() {
    let mut node = Node::new();
    node.commit(0, 4);
    node.answer(Some(1));
    node.answer(None);
    node.answer(Some(0));
    node.commit(4, 4);
    node.answer(Some(5));
    node.abort(vec![(2, 1), (4, 1)]);
    node.time_seconds += OVERDUE_SECONDS;
    node.answer(Some(3));
    // A restart, long after: what was open is aborted first.
    node.time_seconds += 10 * OVERDUE_SECONDS;
    node.abort(vec![(6, 2)]);
    node.commit(8, 1);
    node.answer(Some(8));
    assert_eq!(node.fault(), None);
    let mut monitor = Monitor::new(key().verifying_key().to_bytes());
    for entry in &node.entries[..4] {
        monitor.read(entry).unwrap();
    }
    assert_eq!(monitor.unsettled().collect::<Vec<_>>(), [2, 3]);
}

#[test]
fn grinding_by_aborting_leaves_gaps() {
    // Secret 0 gave an answer the node did not like: it takes secret 1 and keeps quiet about 0.
    let mut node = Node::new();
    node.commit(0, 4);
    node.answer(Some(1));
    node.time_seconds += OVERDUE_SECONDS;
    node.answer(Some(2));
    assert_eq!(node.fault(), None, "an answer may take a while");
    node.time_seconds += 1;
    node.answer(Some(3));
    assert_eq!(node.fault(), Some((3, Fault::Missing(0))));
}

#[test]
fn a_number_serves_once() {
    let after = |act: &dyn Fn(&mut Node)| {
        let mut node = Node::new();
        node.commit(0, 3);
        node.answer(Some(0));
        node.abort(vec![(1, 1)]);
        act(&mut node);
        node.fault()
    };
    assert_eq!(after(&|_| {}), None);
    assert_eq!(after(&|node| node.answer(Some(0))), Some((3, Fault::Reused(0))));
    assert_eq!(after(&|node| node.answer(Some(1))), Some((3, Fault::Reused(1))));
    assert_eq!(after(&|node| node.abort(vec![(0, 1)])), Some((3, Fault::Reused(0))));
    assert_eq!(after(&|node| node.abort(vec![(1, 2)])), Some((3, Fault::Reused(1))));
    assert_eq!(after(&|node| node.answer(Some(3))), Some((3, Fault::NotCommitted(3))));
    assert_eq!(after(&|node| node.abort(vec![(2, u64::MAX - 2)])), Some((3, Fault::NotCommitted(3))));
    // A commitment cannot be taken back or made twice, and none may be left out.
    assert_eq!(after(&|node| node.commit(2, 1)), Some((3, Fault::Commitments { expected: 3, found: 2 })));
    assert_eq!(after(&|node| node.commit(4, 1)), Some((3, Fault::Commitments { expected: 3, found: 4 })));
}

#[test]
fn a_spliced_a_replayed_and_a_foreign_receipt_are_seen() {
    let mut node = Node::new();
    for _ in 0..3 {
        node.answer(None);
    }
    let fault = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut entries = node.entries.clone();
        change(&mut entries);
        Node { entries, ..Node::new() }.fault()
    };
    assert_eq!(fault(&|_| {}), None);
    assert_eq!(fault(&|entries| entries.push(entries[2].clone())), Some((3, Fault::Number { expected: 3, found: 2 })));
    assert_eq!(
        fault(&|entries| {
            entries.remove(1);
        }),
        Some((1, Fault::Number { expected: 1, found: 2 }))
    );
    // Another receipt with the right number: what came after names the one that was there.
    let other =
        sign(&key(), &Claims { number: 1, previous: Some(hash(&node.entries[0])), seed: 5, ..claims_of(&opening()) });
    assert_eq!(fault(&|entries| entries[1] = other.clone()), Some((2, Fault::Previous)));
    let foreign =
        sign(&SigningKey::from_bytes(&[9; 32]), &Claims { number: 0, previous: None, ..claims_of(&opening()) });
    assert_eq!(fault(&|entries| entries[0] = foreign.clone()), Some((0, Fault::OtherNode)));
}

#[test]
fn statements_are_told_apart_and_read_back() {
    let node = key().verifying_key().to_bytes();
    assert_eq!(Statement::parse(&seeds().sign(&key())), Ok(Statement::Seeds(seeds(), node)));
    assert_eq!(Statement::parse(&aborted().sign(&key())), Ok(Statement::Aborted(aborted(), node)));
    let receipt = sign(&key(), &claims_of(&opening()));
    assert!(matches!(Statement::parse(&receipt), Ok(Statement::Receipt(_))));
    let countersignature = Countersignature { receipt: hash(&receipt), time_seconds: START, client: node };
    let bytes = Countersignature::sign(&key(), &hash(&receipt), START);
    assert_eq!(Statement::parse(&bytes), Ok(Statement::Countersignature(countersignature)));
    assert!(receipt::Receipt::parse(&bytes).is_err() && Countersignature::parse(&receipt).is_err());
}

#[test]
fn lists_have_one_form() {
    let refused =
        |ranges: Vec<(u64, u64)>| Aborted::parse(&Aborted { ranges, time_seconds: 0 }.sign(&key())).unwrap_err();
    for ranges in
        [vec![], vec![(1, 0)], vec![(2, 1), (1, 1)], vec![(1, 1), (2, 1)], vec![(1, 2), (2, 2)], vec![(u64::MAX, 2)]]
    {
        assert_eq!(refused(ranges), Malformed::Range.into());
    }
    assert_eq!(refused((0..1025).map(|i| (2 * i, 1)).collect()), Malformed::Range.into());
    let seeds =
        |first, count| Seeds::parse(&Seeds { first, commitments: vec![[0; 32]; count], time_seconds: 0 }.sign(&key()));
    for (first, count) in [(0, 0), (0, 1025), (u64::MAX, 1)] {
        assert_eq!(seeds(first, count).unwrap_err(), Malformed::Range.into());
    }
    let longest = Seeds { first: 0, commitments: vec![[0; 32]; 1024], time_seconds: u64::MAX }.sign(&key());
    assert!(longest.len() <= receipt::ENTRY_BYTES_MAX && Statement::parse(&longest).is_ok());
    assert_eq!(Aborted::ranges_of([1, 2, 3, 5, 9, 10]), [(1, 3), (5, 1), (9, 2)]);
}

#[test]
fn every_changed_bit_and_every_other_length_of_a_statement_is_refused() {
    for honest in [seeds().sign(&key()), aborted().sign(&key()), Countersignature::sign(&key(), &[7; 32], START)] {
        for at in 0..honest.len() {
            for bit in 0..8 {
                let mut changed = honest.clone();
                changed[at] ^= 1 << bit;
                assert!(Statement::parse(&changed).is_err(), "byte {at}, bit {bit}");
            }
            assert!(Statement::parse(&honest[..at]).is_err(), "{at} bytes");
        }
        assert!(Statement::parse(&[&honest[..], &[0]].concat()).is_err());
    }
}

proptest! {
    #[test]
    fn arbitrary_entries_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Statement::parse(&bytes).is_err());
        prop_assert!(Monitor::new([0; 32]).read(&bytes).is_err());
    }

    #[test]
    fn entries_with_a_byte_changed_never_panic(at in 0usize..4000, byte in any::<u8>()) {
        let mut bytes = seeds().sign(&key());
        let at = at % bytes.len();
        bytes[at] = byte;
        prop_assert!(Statement::parse(&bytes).is_ok() == (bytes == seeds().sign(&key())));
    }
}
