//! What masks cost: `cargo run --release -p lockstep-grammar --example masks`, on the demo's vocabulary and on one of
//! 128,000 tokens of random words. A mask is computed while the model computes, on another thread; a step pays for it only where it takes
//! longer than the step.

use grammar::{Kind, Source, Vocabulary};
use model::{Text, TokenBytes};
use std::path::Path;
use std::time::Instant;

const SOURCES: [(&str, Kind, &str); 5] = [
    (
        "object",
        Kind::JsonSchema,
        r#"{"type": "object", "additionalProperties": false, "required": ["name", "count", "tags"], "properties": {
        "name": {"type": "string", "maxLength": 40}, "count": {"type": "integer", "minimum": 0, "maximum": 5000},
        "tags": {"type": "array", "items": {"enum": ["red", "blue", "green"]}, "maxItems": 5}}}"#,
    ),
    ("any object", Kind::JsonSchema, r#"{"type": "object"}"#),
    ("text in JSON", Kind::JsonSchema, r#"{"type": "string", "minLength": 200}"#),
    ("regex", Kind::Regex, "([A-Z][a-z]{1,9} ){3,20}[0-9]{4}"),
    ("explosion", Kind::Regex, "[a-z]*[^x]{300}[a-z]*"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let demo = Text::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/base"))?;
    measure("demo", &demo)?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("tokenizer.json"), random_words(128_000).to_string())?;
    measure("128,000 tokens", &Text::load(folder.path())?)?;
    Ok(())
}

/// A tokenizer whose tokens are all bytes and many words.
fn random_words(tokens: usize) -> serde_json::Value {
    let mut vocabulary = serde_json::Map::new();
    let printable = ('!'..='~').chain('¡'..='¬').chain('®'..='ÿ').chain('Ā'..='Ń');
    let mut state = 1u64;
    let mut draw = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    let letters: Vec<char> = "etaoinsrhdlucmfygpwbvk".chars().collect();
    for c in printable {
        let id = vocabulary.len();
        vocabulary.insert(c.to_string(), id.into());
    }
    while vocabulary.len() < tokens {
        let mut word: String = (0..2 + draw(7)).map(|_| letters[draw(letters.len())]).collect();
        match draw(8) {
            0..=3 => word.insert(0, 'Ġ'),
            4 => word = word[..1].to_uppercase() + &word[1..],
            5 => word += ["\"", "\",", ":", ".", "Ċ"][draw(5)],
            _ => {}
        }
        let id = vocabulary.len();
        vocabulary.entry(word).or_insert_with(|| id.into());
    }
    let level =
        serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    serde_json::json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": level, "post_processor": null,
        "decoder": level, "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
    })
}

fn measure(name: &str, text: &Text) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let vocabulary = Vocabulary::new(text)?;
    println!("{name}: vocabulary read in {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    for (what, kind, source) in SOURCES {
        let start = Instant::now();
        let compiled = vocabulary.compile(&Source { kind, text: source.to_owned() });
        let compiling = start.elapsed();
        let Ok(compiled) = compiled else {
            println!("  {what:13} refused after {:.1} ms", compiling.as_secs_f64() * 1e3);
            continue;
        };
        let (mut times, mut state) = (vec![], 7u64);
        for _ in 0..20 {
            let mut matcher = compiled.matcher();
            for _ in 0..100 {
                let start = Instant::now();
                let Ok(mask) = matcher.mask() else { break };
                times.push(start.elapsed());
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let first = (state >> 33) as u32 % text.vocabulary() as u32;
                let plain = |id: &u32| mask.holds(*id) && matches!(text.token_bytes(*id), Some(TokenBytes::Text(_)));
                let Some(token) = (first..text.vocabulary() as u32).find(plain).or((0..first).find(plain)) else {
                    break;
                };
                if matcher.accept(token).unwrap_or(true) {
                    break;
                }
            }
        }
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
        println!(
            "  {what:13} compiled in {:5.1} ms; {:4} masks: median {:6.1} µs, p99 {:7.1} µs, largest {:7.1} µs",
            compiling.as_secs_f64() * 1e3,
            times.len(),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    Ok(())
}
