//! The form a client wants an answer in: `response_format` as OpenAI has it, and vLLM's `structured_outputs`.

use crate::error::ApiError;
use crate::fields::{Fields, wrong_type};
use grammar::{Kind, Source};
use serde_json::{Value, json};

/// Choices of `structured_outputs.choice`.
const CHOICES_MAX: usize = 1024;

/// Reads both parameters; at most one may hold the answer to a form.
pub(crate) fn read(fields: &mut Fields) -> Result<Option<Source>, ApiError> {
    let format = match fields.take("response_format") {
        None => None,
        Some(value) => read_format(value)?,
    };
    let structured = match fields.take("structured_outputs") {
        None => None,
        Some(value) => read_structured(value)?,
    };
    if format.is_some() && structured.is_some() {
        let message = "'response_format' and 'structured_outputs' both hold the answer to a form: send one of them";
        return Err(ApiError::invalid("structured_outputs", message));
    }
    Ok(format.or(structured))
}

fn schema(value: &Value) -> Source {
    Source { kind: Kind::JsonSchema, text: value.to_string() }
}

fn read_format(value: Value) -> Result<Option<Source>, ApiError> {
    let mut fields = Fields::of(value, "response_format")?;
    let kind = fields.string("type")?;
    let kind = fields.required("type", kind)?;
    let source = match kind.as_str() {
        "text" => None,
        "json_object" => Some(schema(&json!({"type": "object"}))),
        "json_schema" => {
            let value = fields.take("json_schema");
            let mut inner = Fields::of(fields.required("json_schema", value)?, "response_format.json_schema")?;
            // Every schema is kept to, whether `strict` says so or not; names and descriptions change nothing.
            inner.string("name")?;
            inner.string("description")?;
            inner.boolean("strict")?;
            let value = inner.take("schema");
            let value = inner.required("schema", value)?;
            if !value.is_object() && !value.is_boolean() {
                return Err(wrong_type("response_format.json_schema.schema", "a JSON schema", &value));
            }
            inner.finish()?;
            Some(schema(&value))
        }
        "regex" => {
            let pattern = fields.string("pattern")?;
            Some(Source { kind: Kind::Regex, text: fields.required("pattern", pattern)? })
        }
        other => {
            let short: String = other.chars().take(50).collect();
            let message =
                format!("'response_format.type' is {short:?}: it must be text, json_object, json_schema or regex");
            return Err(ApiError::invalid("response_format.type", message));
        }
    };
    fields.finish()?;
    Ok(source)
}

fn read_structured(value: Value) -> Result<Option<Source>, ApiError> {
    let mut fields = Fields::of(value, "structured_outputs")?;
    let mut found = vec![];
    match fields.take("json") {
        None => {}
        Some(Value::String(text)) => found.push(Source { kind: Kind::JsonSchema, text }),
        Some(value) => found.push(schema(&value)),
    }
    found.extend(fields.string("regex")?.map(|text| Source { kind: Kind::Regex, text }));
    found.extend(fields.string("grammar")?.map(|text| Source { kind: Kind::Lark, text }));
    if let Some(value) = fields.take("choice") {
        found.push(read_choices(&value)?);
    }
    fields.finish()?;
    if found.len() > 1 {
        let message = "'structured_outputs' takes one of json, regex, choice and grammar";
        return Err(ApiError::invalid("structured_outputs", message));
    }
    Ok(found.pop())
}

fn read_choices(value: &Value) -> Result<Source, ApiError> {
    let path = "structured_outputs.choice";
    let choices: Option<Vec<&str>> = value.as_array().and_then(|choices| choices.iter().map(Value::as_str).collect());
    let choices = choices.ok_or_else(|| wrong_type(path, "an array of strings", value))?;
    if choices.is_empty() || choices.len() > CHOICES_MAX || choices.iter().any(|choice| choice.is_empty()) {
        return Err(ApiError::invalid(path, format!("'{path}' has 1 to {CHOICES_MAX} strings, none empty")));
    }
    let quoted: Vec<String> = choices.iter().map(|choice| Value::from(*choice).to_string()).collect();
    Ok(Source { kind: Kind::Lark, text: format!("start: {}", quoted.join(" | ")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Result<Option<Source>, ApiError> {
        let mut fields = Fields::parse(text.as_bytes())?;
        let source = read(&mut fields)?;
        fields.finish()?;
        Ok(source)
    }

    #[test]
    fn formats_are_read_and_schemas_keep_their_order() {
        let got = source(
            r#"{"response_format": {"type": "json_schema", "json_schema":
            {"name": "n", "strict": true, "schema": {"type": "object", "properties": {"z": {}, "a": {}}}}}}"#,
        );
        let text = r#"{"type":"object","properties":{"z":{},"a":{}}}"#.to_owned();
        assert_eq!(got, Ok(Some(Source { kind: Kind::JsonSchema, text })));
        assert_eq!(source(r#"{"response_format": {"type": "text"}}"#), Ok(None));
        let regex = Ok(Some(Source { kind: Kind::Regex, text: "a+".into() }));
        assert_eq!(source(r#"{"response_format": {"type": "regex", "pattern": "a+"}}"#), regex);
        assert_eq!(source(r#"{"structured_outputs": {"regex": "a+"}}"#), regex);
        let choice = source(r#"{"structured_outputs": {"choice": ["a", "b\"c"]}}"#).unwrap().unwrap();
        assert_eq!(choice.text, r#"start: "a" | "b\"c""#);
    }

    #[test]
    fn what_is_no_format_is_refused_by_place() {
        for (text, param) in [
            (r#"{"response_format": "json"}"#, "response_format"),
            (r#"{"response_format": {}}"#, "response_format.type"),
            (r#"{"response_format": {"type": "yaml"}}"#, "response_format.type"),
            (r#"{"response_format": {"type": "json_schema"}}"#, "response_format.json_schema"),
            (
                r#"{"response_format": {"type": "json_schema", "json_schema": {}}}"#,
                "response_format.json_schema.schema",
            ),
            (r#"{"response_format": {"type": "text", "more": 1}}"#, "response_format.more"),
            (r#"{"structured_outputs": {"choice": []}}"#, "structured_outputs.choice"),
            (r#"{"structured_outputs": {"regex": "a", "choice": ["a"]}}"#, "structured_outputs"),
        ] {
            assert_eq!(source(text).unwrap_err().param.as_deref(), Some(param), "{text}");
        }
    }
}
