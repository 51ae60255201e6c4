//! Receipts and bundles.
#![no_main]

use libfuzzer_sys::fuzz_target;
use receipt::{Bundle, Receipt};

fuzz_target!(|bytes: &[u8]| {
    let _ = Receipt::parse(bytes);
    if let Ok(bundle) = Bundle::from_bytes(bytes) {
        // There is one encoding.
        assert_eq!(bundle.to_bytes(), bytes);
        let _ = bundle.check();
    }
});
