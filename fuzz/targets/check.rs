//! What disputes and light checks hand out: messages, transcripts, openings, keys, frames, manifests.
#![no_main]

use audit::dispute::{Message, Transcript};
use audit::light::{Frame, Key, LightOpening};
use libfuzzer_sys::fuzz_target;
use model::{AdapterManifest, Manifest};

fuzz_target!(|bytes: &[u8]| {
    // There is one encoding of each.
    if let Ok(message) = Message::from_bytes(bytes) {
        assert_eq!(message.to_bytes(), bytes);
    }
    if let Ok(transcript) = Transcript::from_bytes(bytes) {
        assert_eq!(transcript.to_bytes(), bytes);
    }
    if let Ok(opening) = LightOpening::from_bytes(bytes) {
        assert_eq!(opening.to_bytes(), bytes);
        let _ = opening.sums_count();
    }
    if let Ok(key) = Key::from_bytes(bytes) {
        assert_eq!(key.to_bytes(), bytes);
    }
    if let Ok(frame) = Frame::from_bytes(bytes) {
        assert_eq!(frame.to_bytes(), bytes);
    }
    let _ = Manifest::read(bytes);
    let _ = AdapterManifest::read(bytes);
});
