//! A bundle opens exactly the receipt it was made for.

mod support;

use proptest::prelude::*;
use receipt::{Bundle, Claims, Form, Malformed, Mismatch, Opening, ReceiptError, Salts, Settings, Shaping, sign};
use support::{bundle, claims_of, key, opening};

#[test]
fn an_honest_bundle_opens_its_receipt() {
    let bytes = bundle().to_bytes();
    let read = Bundle::from_bytes(&bytes).unwrap();
    assert_eq!(read, bundle());
    assert_eq!(read.check().unwrap().claims, claims_of(&opening()));
}

#[test]
fn each_thing_that_was_changed_after_signing_is_named() {
    let check = |change: &dyn Fn(&mut Opening)| {
        let mut bundle = bundle();
        change(&mut bundle.opening);
        match bundle.check() {
            Err(ReceiptError::Opening(what)) => what,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(check(&|o| o.prompt[1] += 1), Mismatch::Prompt);
    assert_eq!(check(&|o| o.prompt.swap(0, 1)), Mismatch::Prompt);
    assert_eq!(check(&|o| o.salts.prompt[0] ^= 1), Mismatch::Prompt);
    assert_eq!(check(&|o| o.output[0] += 1), Mismatch::Output);
    assert_eq!(check(&|o| o.salts.output[0] ^= 1), Mismatch::Output);
    assert_eq!(check(&|o| o.leaves[3][0] ^= 1), Mismatch::Trace);
    assert_eq!(check(&|o| o.leaves.swap(0, 1)), Mismatch::Trace);
    assert_eq!(check(&|o| o.salts.trace[15] ^= 1), Mismatch::Trace);
    assert_eq!(check(&|o| o.prompt.push(0)), Mismatch::PromptTokens { claimed: 3, opened: 4 });
    assert_eq!(check(&|o| o.output.truncate(1)), Mismatch::OutputTokens { claimed: 2, opened: 1 });
    assert_eq!(check(&|o| o.leaves.truncate(3)), Mismatch::Leaves { needed: 4, opened: 3 });
    let seed = opening().settings.seed;
    assert_eq!(check(&|o| o.settings.seed = 1), Mismatch::Seed { claimed: seed, opened: 1 });
    let form = || Form { engine: "e".into(), kind: "regex".into(), source: "a*".into() };
    let settings: [&dyn Fn(&mut Settings); 16] = [
        &|s| s.temperature = 0.8,
        &|s| s.temperature = -0.7,
        &|s| s.top_k = 41,
        &|s| s.top_p = 0.951,
        &|s| s.min_p = f64::MIN_POSITIVE,
        &|s| s.tokens_max = 255,
        &|s| s.stop_tokens.truncate(1),
        &|s| s.stop_tokens.swap(0, 1),
        &|s| s.stop_strings[0].push('\n'),
        &|s| s.stop_strings.truncate(1),
        &|s| s.shaping.repetition = 1.1,
        &|s| s.shaping.frequency = 0.1,
        &|s| s.shaping.presence = 0.1,
        &|s| s.shaping.bias = vec![(3, -1.0)],
        &|s| s.shaping.tokens_min = 1,
        &|s| s.shaping.form = Some(form()),
    ];
    for change in settings {
        assert_eq!(check(&|o| change(&mut o.settings)), Mismatch::Settings);
    }
    assert_eq!(check(&|o| o.salts.settings[7] ^= 1), Mismatch::Settings);
}

#[test]
fn each_claim_that_is_not_of_the_opening_is_named() {
    let check = |change: &dyn Fn(&mut Claims)| {
        let mut claims = claims_of(&opening());
        change(&mut claims);
        let bundle = Bundle { receipt: sign(&key(), &claims), opening: opening() };
        match bundle.check() {
            Err(ReceiptError::Opening(what)) => what,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(check(&|c| c.prompt[0] ^= 1), Mismatch::Prompt);
    assert_eq!(check(&|c| c.settings[0] ^= 1), Mismatch::Settings);
    assert_eq!(check(&|c| c.output[0] ^= 1), Mismatch::Output);
    assert_eq!(check(&|c| c.trace[0] ^= 1), Mismatch::Trace);
    assert_eq!(check(&|c| c.prompt_tokens = 2), Mismatch::PromptTokens { claimed: 2, opened: 3 });
    assert_eq!(check(&|c| c.output_tokens = u64::MAX), Mismatch::OutputTokens { claimed: u64::MAX, opened: 2 });
    // What one hash is of never passes for another, with the same salt and content.
    let mut same = opening();
    same.output = same.prompt.clone();
    same.salts.output = same.salts.prompt;
    assert_ne!(same.prompt_hash(), same.output_hash());
}

#[test]
fn an_altered_receipt_in_a_bundle_is_refused() {
    let mut bundle = bundle();
    *bundle.receipt.last_mut().unwrap() ^= 1;
    assert_eq!(bundle.check(), Err(ReceiptError::Signature));
}

#[test]
fn every_other_length_of_a_bundle_is_refused() {
    let bytes = bundle().to_bytes();
    for length in 0..bytes.len() {
        assert!(Bundle::from_bytes(&bytes[..length]).is_err(), "{length} bytes");
    }
    let longer = [&bytes[..], &[0, 0]].concat();
    assert_eq!(Bundle::from_bytes(&longer), Err(Malformed::Trailing(2).into()));
}

#[test]
fn every_changed_bit_of_a_bundle_is_refused() {
    let bytes = bundle().to_bytes();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let refused = Bundle::from_bytes(&changed).map_or(true, |bundle| bundle.check().is_err());
            assert!(refused, "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn announced_lengths_beyond_the_input_are_refused_at_once() {
    // Version, receipt, then an opening whose prompt, or whose stop strings, are announced to be 2⁶² long.
    let start = [0xa3, 0x01, 0x02, 0x02, 0x40, 0x03];
    let huge = [0x40, 0, 0, 0, 0, 0, 0, 0];
    let prompt = [&start[..], &[0xa8, 0x01, 0x5b], &huge].concat();
    assert_eq!(Bundle::from_bytes(&prompt), Err(Malformed::Truncated.into()));
    let settings = [0xa8, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0x40, 8, 0x9b];
    let strings = [&start[..], &[0xa8, 0x01, 0x40, 0x02, 0x40, 0x03], &settings, &huge].concat();
    assert_eq!(Bundle::from_bytes(&strings), Err(Malformed::Truncated.into()));
    let map = [&start[..], &[0xbb], &huge].concat();
    assert_eq!(Bundle::from_bytes(&map), Err(Malformed::Truncated.into()));
}

fn any_opening() -> impl Strategy<Value = Opening> {
    let tokens = |most| proptest::collection::vec(any::<u32>(), 0..most);
    let floats = any::<[u64; 3]>().prop_map(|bits| bits.map(f64::from_bits));
    let strings = proptest::collection::vec(".{0,30}", 0..4);
    let form = proptest::option::of(any::<[bool; 3]>().prop_map(|text| {
        let [engine, kind, source] = text.map(|long| if long { "ü".repeat(200) } else { String::new() });
        Form { engine, kind, source }
    }));
    let bias = proptest::collection::btree_map(any::<u32>(), any::<u64>().prop_map(f64::from_bits), 0..3);
    let number = || prop_oneof![Just(1.0), Just(0.0), Just(-0.0), any::<u64>().prop_map(f64::from_bits)];
    let shaping = (number(), number(), number(), bias, 0u64..2, form).prop_map(
        |(repetition, frequency, presence, bias, tokens_min, form)| Shaping {
            repetition,
            frequency,
            presence,
            bias: bias.into_iter().collect(),
            tokens_min,
            form,
        },
    );
    let settings = (floats, any::<u32>(), any::<u64>(), any::<u64>(), tokens(5), strings, shaping).prop_map(
        |(floats, top_k, seed, tokens_max, stop_tokens, stop_strings, shaping)| Settings {
            temperature: floats[0],
            top_k,
            top_p: floats[1],
            min_p: floats[2],
            seed,
            tokens_max,
            stop_tokens,
            stop_strings,
            shaping,
        },
    );
    (tokens(200), tokens(100), settings, any::<[[u8; 16]; 4]>(), any::<u8>()).prop_map(
        |(prompt, output, settings, salts, leaf)| Opening {
            leaves: vec![[leaf; 32]; (prompt.len() + output.len()).saturating_sub(1)],
            seed: None,
            prompt,
            output,
            settings,
            salts: Salts { prompt: salts[0], settings: salts[1], output: salts[2], trace: salts[3] },
        },
    )
}

proptest! {
    #[test]
    fn any_bundle_reads_back_and_opens(opening in any_opening()) {
        let bundle = Bundle { receipt: sign(&key(), &claims_of(&opening)), opening };
        let bytes = bundle.to_bytes();
        let read = Bundle::from_bytes(&bytes).unwrap();
        // Compared as bytes: settings may hold NaN, which equals nothing.
        prop_assert_eq!(read.to_bytes(), bytes);
        prop_assert!(read.check().is_ok());
    }

    #[test]
    fn whatever_reads_has_one_encoding(at in 0usize..1200, byte in any::<u8>(), cut in 0usize..3) {
        let mut bytes = bundle().to_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(bytes.len() - cut);
        if let Ok(bundle) = Bundle::from_bytes(&bytes) {
            prop_assert_eq!(bundle.to_bytes(), bytes);
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Bundle::from_bytes(&bytes).map_or(true, |bundle| bundle.check().is_err()));
    }
}
