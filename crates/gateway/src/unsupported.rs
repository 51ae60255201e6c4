//! Parameters of OpenAI's API that this server does not do yet. They are accepted where they change nothing, and
//! refused by name where they would: silence would be a wrong answer.

use crate::error::ApiError;
use crate::fields::Fields;
use serde_json::Value;

/// Values that change nothing.
type Harmless = fn(&Value) -> bool;

fn no(value: &Value) -> bool {
    value == false
}
fn empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}
fn only_text(value: &Value) -> bool {
    value.as_array().is_some_and(|kinds| kinds.len() == 1) && value[0] == "text"
}
fn no_tool(value: &Value) -> bool {
    value == "none" || value == "auto"
}
fn no_text(value: &Value) -> bool {
    value == ""
}
fn any_text(value: &Value) -> bool {
    value.is_string()
}
fn nothing(_: &Value) -> bool {
    false
}

/// Name, harmless values, and what to do about others.
type Rule = (&'static str, Harmless, &'static str);

/// Of both endpoints.
const COMMON: &[Rule] = &[("user", any_text, "send a string")];

/// Of chat completions only.
const CHAT: &[Rule] = &[
    ("functions", empty, "send them as 'tools'"),
    ("function_call", no_tool, "send 'tool_choice'"),
    ("modalities", only_text, "answers are text"),
    ("audio", nothing, "answers are text"),
    ("reasoning_effort", nothing, "leave it out"),
    ("verbosity", nothing, "leave it out"),
    ("web_search_options", nothing, "leave it out"),
    ("store", no, "leave it out or send false"),
    ("metadata", empty, "leave it out"),
    ("safety_identifier", any_text, "send a string"),
    ("prompt_cache_key", any_text, "send a string"),
    ("prompt_cache_retention", any_text, "send a string"),
];

/// Of text completions only.
const COMPLETIONS: &[Rule] = &[("echo", no, "leave it out or send false"), ("suffix", no_text, "leave it out")];

/// Takes a chat completion's unsupported parameters; refuses those that would change something.
pub(crate) fn of_chat(fields: &mut Fields) -> Result<(), ApiError> {
    check(fields, COMMON)?;
    check(fields, CHAT)
}

/// As [`of_chat`], for text completions.
pub(crate) fn of_completions(fields: &mut Fields) -> Result<(), ApiError> {
    check(fields, COMMON)?;
    check(fields, COMPLETIONS)
}

fn check(fields: &mut Fields, rules: &[Rule]) -> Result<(), ApiError> {
    for (name, harmless, advice) in rules {
        if fields.take(name).is_some_and(|value| !harmless(&value)) {
            return Err(ApiError::unsupported(*name, advice));
        }
    }
    Ok(())
}
