//! The test vector of docs/receipts.md is what this program computes.

mod support;

use receipt::{Bundle, Receipt};
use support::{bundle, hex, opening};

const DOCUMENT: &str = include_str!("../../../docs/receipts.md");

/// The hexadecimal digits under a name: the lines after it that hold nothing else.
fn written(name: &str) -> String {
    let mut lines = DOCUMENT.lines().skip_while(|line| *line != format!("{name}:"));
    lines.next();
    lines.take_while(|line| !line.is_empty() && line.bytes().all(|digit| digit.is_ascii_hexdigit())).collect()
}

#[test]
fn the_written_vector_is_computed() {
    let (bundle, opening) = (bundle(), opening());
    let claims = bundle.check().unwrap().claims;
    let computed = [
        ("prompt", hex(&opening.prompt_hash())),
        ("settings", hex(&opening.settings_hash())),
        ("output", hex(&opening.output_hash())),
        ("trace", hex(&opening.trace_root())),
        ("receipt", hex(&bundle.receipt)),
        ("hash", hex(&receipt::hash(&bundle.receipt))),
        ("bundle", hex(&bundle.to_bytes())),
    ];
    for (name, digits) in &computed {
        println!("{name}:");
        digits.as_bytes().chunks(96).for_each(|line| println!("{}", String::from_utf8_lossy(line)));
    }
    for (name, digits) in computed {
        assert_eq!(written(name), digits, "{name}");
    }
    assert_eq!(claims, support::claims_of(&opening));
}

#[test]
fn the_written_bundle_opens_the_written_receipt() {
    let bytes = |name| {
        let digits = written(name);
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect::<Vec<u8>>()
    };
    let bundle = Bundle::from_bytes(&bytes("bundle")).unwrap();
    assert_eq!(bundle.receipt, bytes("receipt"));
    assert_eq!(bundle.check().unwrap(), Receipt::parse(&bytes("receipt")).unwrap());
}
