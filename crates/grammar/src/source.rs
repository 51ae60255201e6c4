//! What an answer is held to.

use crate::GrammarError;
use llguidance::api::TopLevelGrammar;
use serde_json::{Map, Value, json};

/// Bytes a source may have.
const SOURCE_BYTES_MAX: usize = 256 << 10;
/// JSON values inside each other.
const DEPTH_MAX: usize = 64;

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
                    return Err(GrammarError::Source(format!("it is nested more than {DEPTH_MAX} deep")));
                }
                Ok(TopLevelGrammar::from_json_schema(compact(schema)))
            }
            Kind::Regex => Ok(TopLevelGrammar::from_regex(&self.text)),
            Kind::Lark => Ok(TopLevelGrammar::from_lark(self.text.clone())),
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

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
