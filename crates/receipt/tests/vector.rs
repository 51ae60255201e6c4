//! The test vectors of docs/receipts.md are what this program computes.

mod support;

use receipt::{Bundle, Countersignature, Receipt, Statement, seed, sign};
use support::{aborted, bundle, claims_of, hex, key, opening, opening_of_node_seed, secret, seeds};

const DOCUMENT: &str = include_str!("../../../docs/receipts.md");

/// The hexadecimal digits under a name: the lines after it that hold nothing else.
fn written(name: &str) -> String {
    let mut lines = DOCUMENT.lines().skip_while(|line| *line != format!("{name}:"));
    lines.next();
    lines.take_while(|line| !line.is_empty() && line.bytes().all(|digit| digit.is_ascii_hexdigit())).collect()
}

fn numbered() -> Bundle {
    let opening = opening_of_node_seed();
    Bundle { receipt: sign(&key(), &claims_of(&opening)), opening }
}

#[test]
fn the_written_vectors_are_computed() {
    let (bundle, opening, numbered) = (bundle(), opening(), numbered());
    let claims = bundle.check().unwrap().claims;
    numbered.check().unwrap();
    let request = seed::request_hash(&[0xb0; 32], Some(&[0xb2; 32]), &opening.settings, &opening.prompt);
    let computed = [
        ("prompt", hex(&opening.prompt_hash())),
        ("settings", hex(&opening.settings_hash())),
        ("output", hex(&opening.output_hash())),
        ("trace", hex(&opening.trace_root())),
        ("receipt", hex(&bundle.receipt)),
        ("hash", hex(&receipt::hash(&bundle.receipt))),
        ("bundle", hex(&bundle.to_bytes())),
        ("request", hex(&request)),
        ("commitment", hex(&seed::commitment(3, &secret(3)))),
        ("seed", format!("{:016x}", numbered.opening.settings.seed)),
        ("numbered bundle", hex(&numbered.to_bytes())),
        ("seeds", hex(&seeds().sign(&key()))),
        ("aborted", hex(&aborted().sign(&key()))),
        ("countersignature", hex(&Countersignature::sign(&key(), &receipt::hash(&bundle.receipt), 1_790_000_002))),
    ];
    for (name, digits) in &computed {
        println!("\n{name}:");
        digits.as_bytes().chunks(96).for_each(|line| println!("{}", String::from_utf8_lossy(line)));
    }
    for (name, digits) in computed {
        assert_eq!(written(name), digits, "{name}");
    }
    assert_eq!(claims, claims_of(&opening));
}

#[test]
fn the_written_bundles_open_the_written_receipts() {
    let bytes = |name| {
        let digits = written(name);
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect::<Vec<u8>>()
    };
    let bundle = Bundle::from_bytes(&bytes("bundle")).unwrap();
    assert_eq!(bundle.receipt, bytes("receipt"));
    assert_eq!(bundle.check().unwrap(), Receipt::parse(&bytes("receipt")).unwrap());
    assert_eq!(Bundle::from_bytes(&bytes("numbered bundle")).unwrap(), numbered());
    for name in ["seeds", "aborted", "countersignature"] {
        Statement::parse(&bytes(name)).unwrap();
    }
}
