//! What an answer is held to.

use crate::GrammarError;
use llguidance::api::TopLevelGrammar;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Bytes a source may have.
const SOURCE_BYTES_MAX: usize = 256 << 10;
/// Bytes an expression may have, or a text in a schema: time to compile them grows with the square.
const TEXT_BYTES_MAX: usize = 32 << 10;
/// JSON values inside each other, and brackets of a grammar.
const DEPTH_MAX: usize = 64;
/// Levels a source may have when it is compiled, those behind its references and rules counted: compiling goes down all
/// of them, and each takes room on the stack.
const LEVELS_MAX: usize = 4096;

/// In what language a source is written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// A JSON schema, as JSON. Objects have their properties in the order of the schema.
    JsonSchema,
    /// A regular expression that the whole answer matches.
    Regex,
    /// A grammar in llguidance's form of Lark.
    Lark,
}

impl Kind {
    /// The name receipts use.
    pub fn name(self) -> &'static str {
        match self {
            Kind::JsonSchema => "json_schema",
            Kind::Regex => "regex",
            Kind::Lark => "lark",
        }
    }

    /// The kind of this name.
    pub fn from_name(name: &str) -> Option<Kind> {
        [Kind::JsonSchema, Kind::Regex, Kind::Lark].into_iter().find(|kind| kind.name() == name)
    }
}

/// A form, as it was asked for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Source {
    /// Its language.
    pub kind: Kind,
    /// Its text.
    pub text: String,
}

impl Source {
    /// Reads it; what it means is seen when it is compiled.
    pub(crate) fn read(&self) -> Result<TopLevelGrammar, GrammarError> {
        if self.text.len() > SOURCE_BYTES_MAX {
            let message = format!("it has {} bytes, more than {SOURCE_BYTES_MAX}", self.text.len());
            return Err(GrammarError::Source(message));
        }
        match self.kind {
            Kind::JsonSchema => {
                let schema =
                    serde_json::from_str(&self.text).map_err(|error| GrammarError::Source(error.to_string()))?;
                if depth(&schema) > DEPTH_MAX {
                    return Err(too_deep());
                }
                if longest(&schema) > TEXT_BYTES_MAX {
                    return Err(too_long());
                }
                if levels(&schema) > LEVELS_MAX {
                    let message = format!("its references lead more than {LEVELS_MAX} levels deep");
                    return Err(GrammarError::Source(message));
                }
                Ok(TopLevelGrammar::from_json_schema(compact(schema)))
            }
            Kind::Regex if self.text.len() > TEXT_BYTES_MAX => Err(too_long()),
            Kind::Regex => Ok(TopLevelGrammar::from_regex(&self.text)),
            Kind::Lark => {
                if nesting(&self.text) > DEPTH_MAX {
                    return Err(too_deep());
                }
                if rule_levels(&self.text) > LEVELS_MAX {
                    let message = format!("its rules and references lead more than {LEVELS_MAX} levels deep");
                    return Err(GrammarError::Source(message));
                }
                Ok(TopLevelGrammar::from_lark(self.text.clone()))
            }
        }
    }
}

/// A schema whose JSON has `", "` and `": "` between values and no other white space: a model that likes it could
/// otherwise go on with white space for ever.
pub fn compact(schema: Value) -> Value {
    let mut map = match schema {
        Value::Object(map) => map,
        Value::Bool(true) => Map::new(),
        other => return other,
    };
    let options = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
    map.insert("x-guidance".to_owned(), options);
    Value::Object(map)
}

fn too_long() -> GrammarError {
    GrammarError::Source(format!("a text or expression in it has more than {TEXT_BYTES_MAX} bytes"))
}

/// Bytes of the longest text.
fn longest(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(longest).max().unwrap_or(0),
        Value::Object(map) => map.iter().map(|(name, value)| name.len().max(longest(value))).max().unwrap_or(0),
        _ => 0,
    }
}

fn too_deep() -> GrammarError {
    GrammarError::Source(format!("it is nested more than {DEPTH_MAX} deep"))
}

/// The most levels that following every reference once can lead down.
fn levels(schema: &Value) -> usize {
    let mut found = BTreeSet::new();
    references(schema, &mut found);
    let target = |reference: &&str| schema.pointer(reference.trim_start_matches('#'));
    depth(schema) + found.iter().map(|reference| 1 + target(reference).map_or(DEPTH_MAX, depth)).sum::<usize>()
}

/// All that is referred to, each once.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, found));
        }
        _ => {}
    }
}

/// How deep brackets stand in each other; those in texts and expressions count too.
fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// The most levels that following every rule of a grammar, and every reference of schemas in it, can lead down.
fn rule_levels(text: &str) -> usize {
    let rules: usize = text.lines().map(|line| 1 + nesting(line)).sum();
    rules + text.matches("$ref").count() * (1 + nesting(text))
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
