//! Tools a client offers to the model, and whether it must, may or may not call them.

use crate::error::ApiError;
use crate::fields::{Fields, wrong_type};
use serde_json::{Value, json};

const TOOLS_MAX: usize = 128;
const NAME_BYTES_MAX: usize = 64;

/// Whether tools are called.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    /// The model decides.
    Auto,
    /// One at least.
    Required,
    /// This one.
    Named(String),
}

/// A function that can be called.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The JSON schema of its arguments.
    pub(crate) parameters: Value,
}

/// What can be called.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Tools {
    /// As the client described them.
    pub(crate) described: Vec<Value>,
    pub(crate) functions: Vec<Function>,
    pub(crate) choice: Choice,
    /// Whether one answer may make several calls.
    pub(crate) parallel: bool,
}

impl Tools {
    /// Reads `tools`, `tool_choice` and `parallel_tool_calls`; nothing if no tool may be called.
    pub(crate) fn read(fields: &mut Fields) -> Result<Option<Tools>, ApiError> {
        let described = match fields.take("tools") {
            None => vec![],
            Some(Value::Array(tools)) => tools,
            Some(other) => return Err(wrong_type("tools", "an array of tools", &other)),
        };
        if described.len() > TOOLS_MAX {
            return Err(ApiError::invalid("tools", format!("'tools' may have {TOOLS_MAX}, not {}", described.len())));
        }
        let mut functions: Vec<Function> = vec![];
        for (number, tool) in described.iter().enumerate() {
            let function = read_tool(tool.clone(), format!("tools[{number}]"))?;
            if functions.iter().any(|other| other.name == function.name) {
                let message = format!("'tools' has two functions called {:?}", function.name);
                return Err(ApiError::invalid("tools", message));
            }
            functions.push(function);
        }
        let parallel = match fields.take("parallel_tool_calls") {
            None => true,
            Some(Value::Bool(parallel)) => parallel,
            Some(other) => return Err(wrong_type("parallel_tool_calls", "true or false", &other)),
        };
        let choice = read_choice(fields)?;
        match choice {
            Some(None) => Ok(None),
            Some(Some(Choice::Auto)) | None if functions.is_empty() => Ok(None),
            Some(Some(_)) if functions.is_empty() => {
                Err(ApiError::invalid("tool_choice", "'tool_choice' is only allowed when 'tools' are specified"))
            }
            Some(Some(Choice::Named(name))) if functions.iter().all(|function| function.name != name) => {
                let message = format!("'tool_choice' names {name:?}, which is not one of 'tools'");
                Err(ApiError::invalid("tool_choice", message))
            }
            Some(Some(choice)) => Ok(Some(Tools { described, functions, choice, parallel })),
            None => Ok(Some(Tools { described, functions, choice: Choice::Auto, parallel })),
        }
    }

    /// The functions the model may call now.
    pub(crate) fn callable(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(|function| match &self.choice {
            Choice::Named(name) => function.name == *name,
            _ => true,
        })
    }
}

fn read_tool(tool: Value, path: String) -> Result<Function, ApiError> {
    let mut fields = Fields::of(tool, &path)?;
    let kind = fields.string("type")?;
    if fields.required("type", kind)? != "function" {
        let path = fields.path("type");
        return Err(ApiError::invalid(&path, format!("'{path}' must be \"function\"")));
    }
    let function = fields.take("function");
    let mut inner = Fields::of(fields.required("function", function)?, fields.path("function"))?;
    fields.finish()?;
    let name = inner.string("name")?;
    let name = inner.required("name", name)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(fits) {
        let path = inner.path("name");
        let message = format!("'{path}' must have 1 to {NAME_BYTES_MAX} letters, digits, '_' and '-'");
        return Err(ApiError::invalid(path, message));
    }
    inner.string("description")?;
    inner.boolean("strict")?;
    let parameters = match inner.take("parameters") {
        None => json!({"type": "object", "properties": {}, "additionalProperties": false}),
        Some(Value::Object(mut map)) => {
            // Arguments are an object whatever the schema leaves open.
            map.entry("type").or_insert_with(|| "object".into());
            Value::Object(map)
        }
        Some(other) => return Err(wrong_type(&inner.path("parameters"), "a JSON schema", &other)),
    };
    inner.finish()?;
    Ok(Function { name, parameters })
}

/// None: not said. Some(None): no calls.
fn read_choice(fields: &mut Fields) -> Result<Option<Option<Choice>>, ApiError> {
    let value = match fields.take("tool_choice") {
        None => return Ok(None),
        Some(Value::String(text)) => text,
        Some(value @ Value::Object(_)) => {
            let mut outer = Fields::of(value, "tool_choice")?;
            outer.string("type")?;
            let function = outer.take("function");
            let mut inner = Fields::of(outer.required("function", function)?, "tool_choice.function")?;
            outer.finish()?;
            let name = inner.string("name")?;
            let name = inner.required("name", name)?;
            inner.finish()?;
            return Ok(Some(Some(Choice::Named(name))));
        }
        Some(other) => return Err(wrong_type("tool_choice", "a string or an object", &other)),
    };
    match value.as_str() {
        "none" => Ok(Some(None)),
        "auto" => Ok(Some(Some(Choice::Auto))),
        "required" => Ok(Some(Some(Choice::Required))),
        _ => Err(ApiError::invalid("tool_choice", "'tool_choice' must be none, auto, required or a function")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOLS: &str = r#""tools": [{"type": "function", "function": {"name": "a", "parameters": {"properties": {}}}},
        {"type": "function", "function": {"name": "b"}}]"#;

    fn read(text: &str) -> Result<Option<Tools>, ApiError> {
        let mut fields = Fields::parse(format!("{{{text}}}").as_bytes())?;
        let tools = Tools::read(&mut fields)?;
        fields.finish()?;
        Ok(tools)
    }

    #[test]
    fn tools_and_their_choice_are_read() {
        let choice = |text: &str| read(&format!("{TOOLS}{text}")).unwrap().map(|tools| tools.choice);
        assert_eq!(choice(""), Some(Choice::Auto));
        assert_eq!(choice(r#", "tool_choice": "auto""#), Some(Choice::Auto));
        assert_eq!(choice(r#", "tool_choice": "none""#), None);
        assert_eq!(choice(r#", "tool_choice": "required""#), Some(Choice::Required));
        let named = r#", "tool_choice": {"type": "function", "function": {"name": "b"}}"#;
        assert_eq!(choice(named), Some(Choice::Named("b".into())));
        let tools = read(&format!("{TOOLS}{named}, \"parallel_tool_calls\": false")).unwrap().unwrap();
        assert_eq!(tools.callable().map(|function| function.name.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(!tools.parallel && tools.functions[0].parameters["type"] == "object");
        assert_eq!(read(r#""tools": [], "tool_choice": "auto""#), Ok(None));
    }

    #[test]
    fn what_is_no_tool_is_refused_by_place() {
        for (text, param) in [
            (r#""tools": {}"#, "tools"),
            (r#""tools": [{"type": "function"}]"#, "tools[0].function"),
            (r#""tools": [{"type": "web", "function": {"name": "a"}}]"#, "tools[0].type"),
            (r#""tools": [{"type": "function", "function": {"name": "a b"}}]"#, "tools[0].function.name"),
            (r#""tools": [{"type": "function", "function": {"name": "a", "x": 1}}]"#, "tools[0].function.x"),
            (r#""tool_choice": "required""#, "tool_choice"),
            (r#""tool_choice": "maybe""#, "tool_choice"),
        ] {
            assert_eq!(read(text).unwrap_err().param.as_deref(), Some(param), "{text}");
        }
        let unknown = format!(r#"{TOOLS}, "tool_choice": {{"type": "function", "function": {{"name": "c"}}}}"#);
        assert_eq!(read(&unknown).unwrap_err().param.as_deref(), Some("tool_choice"));
    }
}
