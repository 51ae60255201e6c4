//! A JSON object read field by field: every field has one type and one range, a field nobody asked for is an error, and
//! each complaint names the field. `null` is the same as absent, as in OpenAI's API.

use crate::error::ApiError;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// The fields that have not been read yet.
pub(crate) struct Fields {
    map: Map<String, Value>,
    /// Where the object stands in the request; empty for the request itself.
    path: String,
}

impl Fields {
    /// The object a request's body holds.
    pub(crate) fn parse(body: &[u8]) -> Result<Fields, ApiError> {
        let text = std::str::from_utf8(body)
            .map_err(|error| ApiError::unreadable(format!("the body is not UTF-8 (byte {})", error.valid_up_to())))?;
        let value = serde_json::from_str(text)
            .map_err(|error| ApiError::unreadable(format!("the body cannot be read as JSON: {error}")))?;
        match value {
            Value::Object(map) => Ok(Fields { map, path: String::new() }),
            other => Err(ApiError::unreadable(format!("the body must be a JSON object, not {}", kind(&other)))),
        }
    }

    /// An object inside the request.
    pub(crate) fn of(value: Value, path: impl Into<String>) -> Result<Fields, ApiError> {
        let path = path.into();
        match value {
            Value::Object(map) => Ok(Fields { map, path }),
            other => Err(wrong_type(&path, "an object", &other)),
        }
    }

    /// The field's name as the client knows it.
    pub(crate) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Any value but `null`.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Fails if the field is missing.
    pub(crate) fn required<T>(&self, name: &str, value: Option<T>) -> Result<T, ApiError> {
        let path = self.path(name);
        value.ok_or_else(|| ApiError::invalid(&path, format!("Missing required parameter: '{path}'.")))
    }

    pub(crate) fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong_type(&self.path(name), "a string", &other)),
        }
    }

    pub(crate) fn boolean(&mut self, name: &str) -> Result<bool, ApiError> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(value),
            Some(other) => Err(wrong_type(&self.path(name), "true or false", &other)),
        }
    }

    pub(crate) fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let path = self.path(name);
        let number = value.as_f64().ok_or_else(|| wrong_type(&path, "a number", &value))?;
        if !range.contains(&number) {
            let message = format!("'{path}' must be between {} and {}, not {value}", range.start(), range.end());
            return Err(ApiError::invalid(path, message));
        }
        Ok(Some(number))
    }

    pub(crate) fn integer(&mut self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let path = self.path(name);
        match (value.as_u64(), &value) {
            (Some(number), _) if range.contains(&number) => Ok(Some(number)),
            (_, Value::Number(number)) if number.is_u64() || number.is_i64() => {
                let message = format!("'{path}' must be between {} and {}, not {number}", range.start(), range.end());
                Err(ApiError::invalid(path, message))
            }
            _ => Err(wrong_type(&path, "an integer", &value)),
        }
    }

    /// Fails if a field is left that nobody read.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(name) => {
                let path = self.path(name);
                Err(ApiError::invalid(&path, format!("Unrecognized request argument supplied: {path}")))
            }
        }
    }
}

/// A complaint about a value's type.
pub(crate) fn wrong_type(path: &str, wanted: &str, got: &Value) -> ApiError {
    let got = match got {
        Value::Number(number) => number.to_string(),
        other => kind(other).to_owned(),
    };
    let message = format!("Invalid type for '{path}': expected {wanted}, but got {got} instead.");
    ApiError { code: Some("invalid_type"), ..ApiError::invalid(path, message) }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        Fields::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn null_is_the_same_as_absent() {
        let mut fields = fields(r#"{"a": null}"#);
        assert_eq!(fields.string("a"), Ok(None));
        assert_eq!(fields.finish(), Ok(()));
    }

    #[test]
    fn numbers_out_of_range_and_of_other_types_are_refused_by_name() {
        for text in [r#"{"k": -1}"#, r#"{"k": 1.5}"#, r#"{"k": "1"}"#, r#"{"k": 99999999999999999999}"#, r#"{"k": 11}"#]
        {
            let error = fields(text).integer("k", 0..=10).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("k"), "{text}");
        }
        assert_eq!(fields(r#"{"k": 2.5}"#).number("k", 0.0..=2.0).unwrap_err().param.as_deref(), Some("k"));
        assert_eq!(fields(r#"{"k": 2}"#).number("k", 0.0..=2.0), Ok(Some(2.0)));
    }

    #[test]
    fn what_nobody_reads_is_named() {
        let error = fields(r#"{"x": 1}"#).finish().unwrap_err();
        assert_eq!(error.message, "Unrecognized request argument supplied: x");
    }
}
