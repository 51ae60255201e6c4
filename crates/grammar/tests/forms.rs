//! Masks lead to what was asked for, the same way each time, and never run wild.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use exact::adjust::Mask;
use grammar::{Grammar, GrammarError, Guides, Kind, Matcher, Source, Vocabulary};
use model::{Text, TokenBytes};
use serde_json::Value;
use std::path::Path;
use std::sync::{Arc, OnceLock};

struct Demo {
    text: Text,
    vocabulary: Arc<Vocabulary>,
}

fn demo() -> &'static Demo {
    static DEMO: OnceLock<Demo> = OnceLock::new();
    DEMO.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo/base");
        let text = Text::load(&folder).unwrap();
        Demo { vocabulary: Vocabulary::new(&text).unwrap(), text }
    })
}

fn compile(kind: Kind, text: &str) -> Result<Arc<Grammar>, GrammarError> {
    demo().vocabulary.compile(&Source { kind, text: text.to_owned() })
}

/// Any allowed token, by a generator; ends of sequences as rarely as possible.
fn pick(mask: &Mask, state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    let allowed: Vec<u32> = (0..demo().text.vocabulary() as u32).filter(|id| mask.holds(*id)).collect();
    allowed[(*state >> 33) as usize % allowed.len()]
}

/// A random walk to the form's end, or through `most` tokens.
fn walk(matcher: &mut Matcher, seed: u64, most: usize) -> Result<(String, bool), GrammarError> {
    let (mut state, mut bytes) = (seed, vec![]);
    for _ in 0..most {
        let token = pick(&matcher.mask()?, &mut state);
        if demo().text.end_tokens().contains(&token) {
            return Ok((String::from_utf8(bytes).unwrap(), true));
        }
        match demo().text.token_bytes(token).unwrap() {
            TokenBytes::Text(more) => bytes.extend(more),
            TokenBytes::Special(name) => panic!("{name} in the middle of a form"),
        }
        if matcher.accept(token)? {
            return Ok((String::from_utf8(bytes).unwrap(), true));
        }
    }
    Ok((String::from_utf8_lossy(&bytes).into_owned(), false))
}

#[test]
fn random_walks_end_in_json_of_the_schema() {
    let schema = r##"{"type": "object", "additionalProperties": false, "required": ["z", "a"], "properties": {
        "z": {"enum": ["größe", 3, null]}, "a": {"type": "array", "items": {"$ref": "#/$defs/x"}, "minItems": 1, "maxItems": 3}},
        "$defs": {"x": {"anyOf": [{"type": "integer", "minimum": 7, "maximum": 12}, {"type": "string", "maxLength": 3}]}}}"##;
    let compiled = compile(Kind::JsonSchema, schema).unwrap();
    let mut complete = 0;
    for seed in 0..200 {
        let (text, ended) = walk(&mut compiled.matcher(), seed, 200).unwrap();
        if !ended {
            continue;
        }
        complete += 1;
        assert!(text.starts_with("{\"z\": "), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!([Value::from("größe"), 3.into(), Value::Null].contains(&value["z"]), "{text}");
        let items = value["a"].as_array().unwrap();
        assert!((1..=3).contains(&items.len()), "{text}");
        let fits = |item: &Value| match item {
            Value::String(text) => text.chars().count() <= 3,
            item => (7..=12).contains(&item.as_i64().unwrap()),
        };
        assert!(items.iter().all(fits), "{text}");
    }
    assert!(complete > 150, "{complete}");
}

#[test]
fn a_form_that_nothing_can_follow_is_complete_without_an_end() {
    let compiled = compile(Kind::Regex, "[0-9]{3}x").unwrap();
    let mut matcher = compiled.matcher();
    let (text, ended) = walk(&mut matcher, 5, 10).unwrap();
    assert!(ended && text.len() == 4 && text.ends_with('x'), "{text}");
    let open = compile(Kind::Regex, "[0-9]{2,}").unwrap();
    let mut matcher = open.matcher();
    let end = demo().text.end_tokens()[0];
    assert!(!matcher.mask().unwrap().holds(end));
    for digit in ["4", "2"] {
        let token = demo().text.encode(digit, false).unwrap();
        assert!(!matcher.accept(token[0]).unwrap());
    }
    assert!(matcher.mask().unwrap().holds(end));
    assert!(matches!(matcher.accept(end + 1), Err(GrammarError::Token(_))));
}

#[test]
fn what_means_nothing_is_refused() {
    for (kind, text) in [
        (Kind::JsonSchema, "{"),
        (Kind::JsonSchema, r#"{"type": "strin"}"#),
        (Kind::JsonSchema, "false"),
        (Kind::JsonSchema, r##"{"$ref": "#/$defs/none"}"##),
        (Kind::Regex, "(("),
        (Kind::Lark, "start: nothing"),
        (Kind::Regex, &"a".repeat(300_000)),
    ] {
        assert!(matches!(compile(kind, text), Err(GrammarError::Source(_))), "{text:.40}");
    }
}

/// Definitions that refer to the next, as deep as this.
fn chain(count: usize, link: &dyn Fn(String) -> String) -> String {
    let links: Vec<String> =
        (0..count).map(|i| format!(r#""a{i}": {}"#, link(format!("#/$defs/a{}", i + 1)))).collect();
    let last = format!(r#""a{count}": {{"type": "boolean"}}"#);
    format!(r##"{{"$ref": "#/$defs/a0", "$defs": {{{}, {last}}}}}"##, links.join(", "))
}

#[test]
fn sources_that_lead_deep_are_compiled_or_refused_and_no_stack_overflows() {
    let plain = |target: String| format!(r#"{{"$ref": "{target}"}}"#);
    let inner = |target: String| format!(r#"{{"type": "array", "items": {{"$ref": "{target}"}}, "maxItems": 1}}"#);
    let inside =
        |target: String| format!(r#"{{"anyOf": [{{"anyOf": [{{"$ref": "{target}"}}]}}, {{"type": "null"}}]}}"#);
    // As deep as may be, each level as dear as can be.
    for (count, link) in [(1300, &plain as &dyn Fn(String) -> String), (800, &inner), (500, &inside)] {
        let _ = compile(Kind::JsonSchema, &chain(count, link)).map(|grammar| grammar.matcher().mask());
    }
    for schema in [chain(5000, &plain), chain(3000, &inner), chain(2000, &inside)] {
        let error = compile(Kind::JsonSchema, &schema).err().unwrap().to_string();
        assert!(error.contains("levels deep"), "{error}");
    }
    let rules = |count: usize| {
        let rules: Vec<String> = (0..count).map(|i| format!("a{i}: a{} | \"x\"", i + 1)).collect();
        format!("start: a0\n{}\na{count}: \"y\"\n", rules.join("\n"))
    };
    let tokens = |count: usize| {
        let rules: Vec<String> = (0..count).map(|i| format!("A{i}: \"x\" A{}", i + 1)).collect();
        format!("start: A0\n{}\nA{count}: \"y\"\n", rules.join("\n"))
    };
    let nested = |count: usize| format!("start: {}\"x\"{}\n", "(".repeat(count), ")".repeat(count));
    for text in [rules(4000), tokens(4000), nested(60)] {
        let _ = compile(Kind::Lark, &text).map(|grammar| grammar.matcher().mask());
    }
    for text in [rules(9000), tokens(9000), nested(10_000)] {
        assert!(matches!(compile(Kind::Lark, &text), Err(GrammarError::Source(_))));
    }
    // As long as may be; longer ones are refused.
    let long = "ab".repeat(10_000);
    for (kind, text) in [
        (Kind::Regex, long.clone()),
        (Kind::Regex, format!("({long})|c")),
        (Kind::Regex, "(".repeat(10_000) + &")".repeat(10_000)),
        (Kind::Regex, "a|".repeat(10_000)),
        (Kind::Regex, "[ab]?".repeat(4_000)),
        (Kind::JsonSchema, format!(r#"{{"const": "{long}"}}"#)),
        (Kind::Lark, format!("start: \"{long}\"\n")),
        (Kind::Lark, format!("start: {}\n", "\"a\" ".repeat(6_000))),
    ] {
        let Ok(grammar) = compile(kind, &text) else { continue };
        let _ = walk(&mut grammar.matcher(), 1, 50);
    }
    let long = "ab".repeat(20_000);
    for (kind, text) in [(Kind::Regex, long.clone()), (Kind::JsonSchema, format!(r#"{{"enum": [1, "{long}"]}}"#))] {
        let error = compile(kind, &text).err().unwrap().to_string();
        assert!(error.contains("bytes"), "{error}");
    }
}

/// Where a limit falls must not hang on what other answers did.
#[test]
fn what_others_do_changes_no_mask_and_no_limit() {
    for pattern in ["(.*a){30}", "((a|b)*c(a|b)*d){100}", "[a-z]*[^x]{300}[a-z]*"] {
        let Ok(compiled) = compile(Kind::Regex, pattern) else { continue };
        let follow = |matcher: &mut Matcher, seed| {
            let (mut state, mut masks) = (seed, vec![]);
            for _ in 0..40 {
                let mask = match matcher.mask() {
                    Ok(mask) => mask,
                    Err(error) => return (masks, Some(error)),
                };
                let token = pick(&mask, &mut state);
                masks.push((mask, token));
                match matcher.accept(token) {
                    Ok(false) => {}
                    other => return (masks, other.err()),
                }
            }
            (masks, None)
        };
        let alone = follow(&mut compiled.matcher(), 3);
        for other in 10..14 {
            follow(&mut compiled.matcher(), other);
        }
        assert_eq!(follow(&mut compiled.matcher(), 3), alone, "{pattern}");
    }
}

#[test]
fn guides_give_what_a_matcher_gives() {
    let compiled =
        compile(Kind::JsonSchema, r#"{"type": "array", "items": {"type": "boolean"}, "maxItems": 9}"#).unwrap();
    let guides = Guides::start(2).unwrap();
    let mut all: Vec<_> = (0..8).map(|_| guides.guide(&compiled)).collect();
    let mut matchers: Vec<_> = (0..8).map(|_| compiled.matcher()).collect();
    let mut states: Vec<u64> = (0..8).collect();
    for _ in 0..6 {
        for ((guide, matcher), state) in all.iter_mut().zip(&mut matchers).zip(&mut states) {
            let mask = matcher.mask().unwrap();
            assert_eq!(*guide.mask().unwrap(), mask);
            let token = (0..4).map(|_| pick(&mask, state)).find(|token| *token != 1);
            let Some(token) = token else { continue };
            let complete = matcher.accept(token);
            assert_eq!(guide.accept(token), complete);
            if complete == Ok(true) {
                assert!(guide.mask().is_err());
                // Once more from the start.
                (*guide, *matcher) = (guides.guide(&compiled), compiled.matcher());
            }
        }
    }
    let guide = guides.guide(&compiled);
    assert!(guide.accept(demo().text.encode("x", false).unwrap()[0]).is_err());
    assert!(guide.mask().is_err(), "an answer that left its form has no further mask");
}
