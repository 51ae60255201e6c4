//! What several of the command line's tests need.
#![expect(clippy::unwrap_used, reason = "test support")]
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "each test file uses its own part of this")]

use receipt::{Activations, Bundle, Claims, Finish, Hash, Opening, Salts, Settings, SigningKey};
use std::process::{Command, Output};

/// Runs the command.
pub fn lockstep(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lockstep")).args(arguments).output().unwrap()
}

/// What the command told, and whether it was content.
pub fn told(arguments: &[&str]) -> (String, bool) {
    let output = lockstep(arguments);
    (String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap(), output.status.success())
}

/// The key of a node.
pub fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

/// A receipt of an answer nobody computed, the `number`th of that node.
pub fn bundle(number: u64, previous: Option<Hash>, seed: u64) -> Bundle {
    let settings = Settings {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed,
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
        seed,
        seed_from_client: true,
        seed_number: None,
        trace: opening.trace_root(),
        time_seconds: 1_790_000_000,
        price: 0,
        opening_seconds: 0,
        number,
        previous,
    };
    Bundle { receipt: receipt::sign(&key(), &claims), opening }
}
