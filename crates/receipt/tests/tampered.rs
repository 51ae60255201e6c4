//! Receipts and bundles that were tampered with are refused: a generator changes every field.
//!
//! `cargo test --release -p lockstep-receipt --test tampered -- --ignored --nocapture` does it 20,000 times.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use receipt::{Activations, Bundle, Claims, Finish, Hash, Nonce, Opening, Receipt, SigningKey, sign};
use std::collections::BTreeMap;
use support::{claims_of, key, opening, opening_of_node_seed};

/// A small generator: the same numbers in every run.
struct Chance(u64);

impl Chance {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, end: usize) -> usize {
        self.bits() as usize % end
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        let at = self.below(bytes.len());
        bytes[at] ^= 1 << self.below(8);
    }

    /// Another digest where there may be none.
    fn change(&mut self, digest: &mut Option<Hash>) {
        *digest = match digest {
            Some(_) if self.below(3) == 0 => None,
            Some(hash) => {
                self.flip(hash);
                Some(*hash)
            }
            None => Some([self.bits() as u8; 32]),
        };
    }
}

/// Changes one claim; gives its name.
fn change_claim(claims: &mut Claims, chance: &mut Chance) -> &'static str {
    let by = 1 + chance.bits();
    match chance.below(21) {
        0 => {
            claims.arithmetic ^= by as u32 | 1;
            "arithmetic"
        }
        1 => {
            claims.activations = Activations::A16;
            "activations"
        }
        2 => {
            chance.flip(&mut claims.base);
            "base"
        }
        3 => {
            chance.change(&mut claims.base_files);
            "base files"
        }
        4 => {
            chance.change(&mut claims.adapter);
            "adapter"
        }
        5 => {
            chance.change(&mut claims.tokenizer);
            "tokenizer"
        }
        6 => {
            chance.change(&mut claims.template);
            "template"
        }
        7 => {
            chance.flip(&mut claims.prompt);
            "prompt"
        }
        8 => {
            chance.flip(&mut claims.settings);
            "settings"
        }
        9 => {
            chance.flip(&mut claims.output);
            "output"
        }
        10 => {
            claims.prompt_tokens ^= by;
            "prompt tokens"
        }
        11 => {
            claims.output_tokens ^= by;
            "output tokens"
        }
        12 => {
            claims.finish = Finish::Length;
            "finish"
        }
        13 => {
            claims.seed ^= by;
            "seed"
        }
        14 => {
            claims.seed_from_client ^= true;
            claims.seed_number = if claims.seed_from_client { None } else { Some(by) };
            "who chose the seed"
        }
        15 => {
            claims.seed_number = claims.seed_number.map(|number| number ^ by);
            "seed number"
        }
        16 => {
            chance.flip(&mut claims.trace);
            "trace"
        }
        17 => {
            claims.time_seconds ^= by;
            "time"
        }
        18 => {
            claims.price ^= by as u32 | 1;
            "price"
        }
        19 => {
            claims.number = 1 + (claims.number ^ by);
            "number"
        }
        _ => {
            claims.opening_seconds ^= by as u32 | 1;
            "opening seconds"
        }
    }
}

/// Changes one thing of an opening; gives its name.
fn change_opening(opening: &mut Opening, chance: &mut Chance) -> &'static str {
    let (by, settings) = (1 + chance.bits(), &mut opening.settings);
    match chance.below(19) {
        0 => {
            let at = chance.below(3);
            opening.prompt[at] ^= by as u32 | 1;
            "token of the prompt"
        }
        1 => {
            let at = chance.below(2);
            opening.output[at] ^= by as u32 | 1;
            "token of the answer"
        }
        2 => {
            opening.prompt.push(by as u32);
            "longer prompt"
        }
        3 => {
            opening.output.pop();
            "shorter answer"
        }
        4 => {
            settings.temperature += by as f64;
            "temperature"
        }
        5 => {
            settings.top_k ^= by as u32 | 1;
            "top_k"
        }
        6 => {
            settings.top_p /= 1.0 + by as f64;
            "top_p"
        }
        7 => {
            settings.min_p += by as f64;
            "min_p"
        }
        8 => {
            settings.seed ^= by;
            "seed of the settings"
        }
        9 => {
            settings.tokens_max ^= by;
            "tokens_max"
        }
        10 => {
            settings.stop_tokens[0] ^= by as u32 | 1;
            "stop token"
        }
        11 => {
            settings.stop_strings[1].push('!');
            "stop string"
        }
        12 => {
            chance.flip(&mut opening.salts.prompt);
            "salt of the prompt"
        }
        13 => {
            chance.flip(&mut opening.salts.settings);
            "salt of the settings"
        }
        14 => {
            chance.flip(&mut opening.salts.output);
            "salt of the answer"
        }
        15 => {
            chance.flip(&mut opening.salts.trace);
            "salt of the trace"
        }
        16 => {
            let at = chance.below(4);
            chance.flip(&mut opening.leaves[at]);
            "leaf"
        }
        17 => {
            let at = chance.below(3);
            opening.leaves.swap(at, 3);
            "order of leaves"
        }
        _ => {
            match &mut opening.seed {
                Some(origin) if chance.below(2) == 0 => chance.flip(&mut origin.secret),
                Some(origin) => origin.nonce = Nonce::from_bytes(&by.to_le_bytes()).unwrap(),
                None => opening.seed = opening_of_node_seed().seed,
            }
            "origin of the seed"
        }
    }
}

fn tamper(times: usize) {
    let mut chance = Chance(20_261_120);
    let mut by_kind: BTreeMap<&str, usize> = BTreeMap::new();
    let attacker = SigningKey::from_bytes(&[9; 32]);
    for round in 0..times {
        let opening = if round % 2 == 0 { opening() } else { opening_of_node_seed() };
        let claims = claims_of(&opening);
        let honest = Bundle { receipt: sign(&key(), &claims), opening };
        let mut tampered = honest.clone();
        let kind = match chance.below(6) {
            // One claim changed under the old signature.
            0 | 1 => {
                let mut changed = claims.clone();
                let kind = change_claim(&mut changed, &mut chance);
                let mut forged = sign(&key(), &changed);
                let (at, old) = (forged.len() - 64, honest.receipt.len() - 64);
                forged[at..].copy_from_slice(&honest.receipt[old..]);
                if changed == claims {
                    continue;
                }
                tampered.receipt = forged;
                assert!(Receipt::parse(&tampered.receipt).is_err(), "{kind}");
                kind
            }
            2 | 3 => change_opening(&mut tampered.opening, &mut chance),
            // Any bit, anywhere.
            4 => {
                let mut bytes = honest.to_bytes();
                chance.flip(&mut bytes);
                match Bundle::from_bytes(&bytes) {
                    Err(_) => {
                        *by_kind.entry("a bit that is not read").or_default() += 1;
                        continue;
                    }
                    Ok(read) => tampered = read,
                }
                "a bit"
            }
            // Signed by somebody else in the node's name.
            _ => {
                let mut forged = sign(&attacker, &claims);
                let node = key().verifying_key().to_bytes();
                let at = forged.windows(32).position(|window| window == attacker.verifying_key().as_bytes()).unwrap();
                forged[at..at + 32].copy_from_slice(&node);
                tampered.receipt = forged;
                "signed by another"
            }
        };
        // Entry, the index of the commitment, is a hint: a wrong one leads to another entry, which does not commit.
        let hint = |bundle: &Bundle| bundle.opening.seed.as_ref().map(|origin| origin.entry);
        if hint(&tampered) != hint(&honest) && tampered.opening.seed.is_some() && honest.opening.seed.is_some() {
            continue;
        }
        assert!(tampered.check().is_err(), "{kind}");
        *by_kind.entry(kind).or_default() += 1;
    }
    let refused: usize = by_kind.values().sum();
    println!("{refused} tampered receipts and bundles refused: {by_kind:?}");
    assert!(refused > times * 9 / 10 && by_kind.len() >= 35, "{} kinds", by_kind.len());
}

#[test]
fn tampered_receipts_are_refused() {
    tamper(2000);
}

#[test]
#[ignore = "the whole of it: some seconds"]
fn twenty_thousand_tampered_receipts_are_refused() {
    tamper(20_000);
}
