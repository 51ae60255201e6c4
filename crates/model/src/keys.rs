//! Reading numbers, flags and names out of a JSON object, with errors that name the key.

use crate::ModelError;
use serde_json::{Map, Value};
use std::ops::RangeInclusive;
use std::path::Path;

/// One JSON object of a file. A key whose value is null counts as absent.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub(crate) path: &'a Path,
    map: &'a Map<String, Value>,
    prefix: &'a str,
}

/// Reads a JSON file.
pub(crate) fn read_json(path: &Path) -> Result<Value, ModelError> {
    let text = std::fs::read(path).map_err(ModelError::read(path))?;
    serde_json::from_slice(&text).map_err(|source| ModelError::Json { path: path.to_owned(), source })
}

/// Reads a JSON file that may be absent.
pub(crate) fn read_json_if_there(path: &Path) -> Result<Option<Value>, ModelError> {
    if path.is_file() { read_json(path).map(Some) } else { Ok(None) }
}

impl<'a> Keys<'a> {
    /// The object a file holds.
    pub(crate) fn new(path: &'a Path, value: &'a Value) -> Result<Keys<'a>, ModelError> {
        let map = value.as_object().ok_or_else(|| ModelError::damaged(path, "it is not a JSON object"))?;
        Ok(Keys { path, map, prefix: "" })
    }

    /// An error about a key.
    pub(crate) fn error(&self, key: &str, what: impl Into<String>) -> ModelError {
        ModelError::setting(self.path, &format!("{}{key}", self.prefix), what)
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Whether a key is there, be its value null.
    pub(crate) fn mentions(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// All keys whose value is not null.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.map.iter().filter(|entry| !entry.1.is_null()).map(|(key, value)| (key.as_str(), value))
    }

    /// The object under a key; errors inside it are shown with `prefix`.
    pub(crate) fn object(&self, key: &str, prefix: &'a str) -> Result<Option<Keys<'a>>, ModelError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.error(key, "it is not an object"))?;
        Ok(Some(Keys { path: self.path, map, prefix }))
    }

    pub(crate) fn integer_if_there(
        &self,
        key: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, ModelError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
        match number.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let what = format!("{value} is not a whole number from {} to {}", range.start(), range.end());
                Err(self.error(key, what))
            }
        }
    }

    pub(crate) fn integer(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize, ModelError> {
        self.integer_if_there(key, range)?.ok_or_else(|| self.error(key, "it is missing"))
    }

    /// A finite number within a range.
    pub(crate) fn float_if_there(&self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, ModelError> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match value.as_f64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let what = format!("{value} is not a number from {} to {}", range.start(), range.end());
                Err(self.error(key, what))
            }
        }
    }

    pub(crate) fn float(&self, key: &str, range: RangeInclusive<f64>) -> Result<f64, ModelError> {
        self.float_if_there(key, range)?.ok_or_else(|| self.error(key, "it is missing"))
    }

    /// A flag; absent is false.
    pub(crate) fn flag(&self, key: &str) -> Result<bool, ModelError> {
        match self.value(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(self.error(key, format!("{value} is neither true nor false"))),
        }
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>, ModelError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(self.error(key, format!("{value} is not text"))),
        }
    }

    pub(crate) fn list(&self, key: &str) -> Result<Option<&'a [Value]>, ModelError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(value) => Err(self.error(key, format!("{value} is not a list"))),
        }
    }
}
