//! Tokenizer files, and what is beside them.
#![no_main]
mod folder;

use libfuzzer_sys::fuzz_target;
use model::Text;

fuzz_target!(|bytes: &[u8]| {
    // Up to a line of dashes the tokenizer, then its configuration.
    let at = bytes.windows(4).position(|four| four == b"\n--\n");
    let (tokenizer, config) = match at {
        Some(at) => (&bytes[..at], &bytes[at + 4..]),
        None => (bytes, &b"{}"[..]),
    };
    let folder = folder::folder(&[("tokenizer.json", tokenizer), ("tokenizer_config.json", config)]);
    let Ok(text) = Text::load(&folder) else { return };
    let tokens = text.encode("A ü 🙂 <|end|>\n", true).unwrap_or_default();
    let _ = text.decode(&tokens, false);
    let _ = text.vocabulary().min(300);
    for token in 0..text.vocabulary().min(300) as u32 {
        let _ = text.token_bytes(token);
    }
    let mut decoder = text.decoder(true);
    for token in tokens {
        let _ = decoder.push(&text, token);
    }
    let _ = decoder.finish(&text);
});
