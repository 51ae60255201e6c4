//! Tokenizer files, and what is beside them.
#![no_main]
mod folder;

use libfuzzer_sys::fuzz_target;
use model::Text;

static HOOK: std::sync::Once = std::sync::Once::new();

fuzz_target!(|bytes: &[u8]| {
    // The tokenizers library panics on some damaged files. Text catches that; what it does not catch still ends the run.
    HOOK.call_once(|| std::panic::set_hook(Box::new(|_| {})));
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
