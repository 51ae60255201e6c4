//! JSON schemas, regular expressions and grammars: compiled, then followed for some tokens.
#![no_main]

use grammar::{Kind, Source, Vocabulary};
use libfuzzer_sys::fuzz_target;
use model::Text;
use std::path::Path;
use std::sync::{Arc, OnceLock};

fn vocabulary() -> &'static (Arc<Vocabulary>, usize) {
    static VOCABULARY: OnceLock<(Arc<Vocabulary>, usize)> = OnceLock::new();
    VOCABULARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo/base");
        let text = Text::load(&folder).expect("the demo's tokenizer");
        (Vocabulary::new(&text).expect("the demo's tokens are bytes"), text.vocabulary())
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let kind = [Kind::JsonSchema, Kind::Regex, Kind::Lark][usize::from(first % 3)];
    let (vocabulary, tokens) = vocabulary();
    let Ok(compiled) = vocabulary.compile(&Source { kind, text: text.to_owned() }) else { return };
    let mut matcher = compiled.matcher();
    let mut state = u32::from(*first) + 1;
    for _ in 0..24 {
        let Ok(mask) = matcher.mask() else { return };
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let start = (state >> 8) as usize % tokens;
        let allowed = |id: &usize| mask.holds(*id as u32);
        let token = (start..*tokens).find(allowed).or((0..start).find(allowed)).expect("a mask is never empty");
        // The end of a sequence is no token of the form.
        if token == 1 || matcher.accept(token as u32).unwrap_or(true) {
            return;
        }
    }
});
