//! What people say is never taken for the marks of a conversation.
//!
//! A chat template writes special tokens between turns as text, and a tokenizer turns that text into those tokens. A
//! message that spells one would forge a turn. So before a conversation is rendered, each special token that a message
//! spells is broken by a character that occurs nowhere in it; after tokenisation, the stretches between real special
//! tokens that hold this character are taken once more, without it and without special tokens. A conversation that
//! spells none takes its usual way, and templates may trim, test and cut messages as they like.

use serde_json::Value;

/// Breaks special tokens in what was said.
pub(crate) struct Guard {
    mark: char,
    specials: Vec<String>,
}

impl Guard {
    /// A guard for values to be rendered; none if no special token is spelt in them.
    pub(crate) fn needed<'a>(specials: &[String], values: impl Iterator<Item = &'a Value> + Clone) -> Option<Guard> {
        let spelt = |special: &&String| values.clone().any(|value| any_text(value, &|text| text.contains(*special)));
        let spelt: Vec<String> = specials.iter().filter(|special| !special.is_empty()).filter(spelt).cloned().collect();
        if spelt.is_empty() {
            return None;
        }
        let free = |mark: &char| !values.clone().any(|value| any_text(value, &|text| text.contains(*mark)));
        // A private character that nobody has used: there are more than any conversation can hold.
        let mark = ('\u{f0000}'..='\u{ffffd}').chain('\u{e000}'..='\u{f8ff}').find(free)?;
        Some(Guard { mark, specials: spelt })
    }

    /// The character that breaks.
    pub(crate) fn mark(&self) -> char {
        self.mark
    }

    /// Breaks what the texts of a value spell.
    pub(crate) fn break_in(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.break_text(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.break_in(value)),
            Value::Object(map) => {
                let entries = std::mem::take(map).into_iter();
                *map = entries
                    .map(|(mut name, mut value)| {
                        self.break_text(&mut name);
                        self.break_in(&mut value);
                        (name, value)
                    })
                    .collect();
            }
            _ => {}
        }
    }

    fn break_text(&self, text: &mut String) {
        // One break may uncover no other: each leaves the mark inside what was spelt.
        for special in &self.specials {
            let first = special.chars().next().map_or(0, char::len_utf8);
            let broken = format!("{}{}{}", &special[..first], self.mark, &special[first..]);
            *text = text.replace(special.as_str(), &broken);
        }
    }
}

fn any_text(value: &Value, is: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) => is(text),
        Value::Array(values) => values.iter().any(|value| any_text(value, is)),
        Value::Object(map) => map.iter().any(|(name, value)| is(name) || any_text(value, is)),
        _ => false,
    }
}
