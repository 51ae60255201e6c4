//! The example of docs/receipts.md.
#![expect(clippy::unwrap_used, reason = "test support")]
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses a part")]

use receipt::{
    Aborted, Activations, Bundle, Claims, Finish, Hash, Nonce, Opening, Salts, SeedOrigin, Seeds, Settings, Shaping,
    SigningKey, seed, sign,
};

pub fn key() -> SigningKey {
    SigningKey::from_bytes(&std::array::from_fn(|i| i as u8))
}

pub fn opening() -> Opening {
    Opening {
        prompt: vec![1, 15043, 29892],
        output: vec![3186, 2],
        settings: Settings {
            temperature: 0.7,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.0,
            seed: 0x0123_4567_89ab_cdef,
            tokens_max: 256,
            stop_tokens: vec![2, 128_009],
            stop_strings: vec!["\n\n".to_owned(), "fin é".to_owned()],
            shaping: Shaping::default(),
        },
        salts: Salts::from_random(&std::array::from_fn(|i| 0x40 + i as u8)),
        leaves: (0..4u8).map(|i| [0xa0 + i; 32]).collect(),
        seed: None,
    }
}

/// The same with a seed of the node's: its number is 3.
pub fn opening_of_node_seed() -> Opening {
    let mut opening = opening();
    let origin = SeedOrigin { nonce: Nonce::from_bytes(b"dice").unwrap(), secret: secret(3), entry: 0 };
    let request = seed::request_hash(&[0xb0; 32], Some(&[0xb2; 32]), &opening.settings, &opening.prompt);
    opening.settings.seed = seed::derive(&origin.nonce, &origin.secret, &request);
    opening.seed = Some(origin);
    opening
}

pub fn secret(number: u64) -> Hash {
    [0xc0 + number as u8; 32]
}

/// Commitments to the secrets 0 to 3.
pub fn seeds() -> Seeds {
    let commitments = (0..4).map(|number| seed::commitment(number, &secret(number))).collect();
    Seeds { first: 0, commitments, time_seconds: 1_789_999_999 }
}

pub fn aborted() -> Aborted {
    Aborted { ranges: vec![(0, 2), (4, 1)], time_seconds: 1_790_000_001 }
}

pub fn claims_of(opening: &Opening) -> Claims {
    Claims {
        arithmetic: 1,
        activations: Activations::A8,
        base: [0xb0; 32],
        base_files: Some([0xb1; 32]),
        adapter: Some([0xb2; 32]),
        tokenizer: Some([0xb3; 32]),
        template: None,
        prompt: opening.prompt_hash(),
        settings: opening.settings_hash(),
        output: opening.output_hash(),
        prompt_tokens: opening.prompt.len() as u64,
        output_tokens: opening.output.len() as u64,
        finish: Finish::Stop,
        seed: opening.settings.seed,
        seed_from_client: opening.seed.is_none(),
        seed_number: opening.seed.as_ref().map(|_| 3),
        trace: opening.trace_root(),
        time_seconds: 1_790_000_000,
        price: 0,
        opening_seconds: 2_592_000,
        number: 7,
        previous: Some([0xb5; 32]),
    }
}

/// Every field present and as long as it can be.
pub fn largest_claims() -> Claims {
    let hash: Option<Hash> = Some([0xff; 32]);
    Claims {
        arithmetic: u32::MAX,
        activations: Activations::A16,
        base_files: hash,
        adapter: hash,
        tokenizer: hash,
        template: hash,
        prompt_tokens: u64::MAX,
        output_tokens: u64::MAX,
        seed: u64::MAX,
        seed_from_client: false,
        seed_number: Some(u64::MAX),
        opening_seconds: u32::MAX,
        time_seconds: u64::MAX,
        price: u32::MAX,
        number: u64::MAX,
        previous: hash,
        ..claims_of(&opening())
    }
}

pub fn bundle() -> Bundle {
    Bundle { receipt: sign(&key(), &claims_of(&opening())), opening: opening() }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
