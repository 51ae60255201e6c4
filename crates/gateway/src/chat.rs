//! Requests to `/v1/chat/completions`.

use crate::error::ApiError;
use crate::fields::{Fields, wrong_type};
use crate::format;
use crate::parameters::{Parameters, Tier};
use crate::shaping;
use crate::tools::Tools;
use crate::unsupported;
use grammar::Source;
use model::Message;
use serde_json::{Value, json};

/// A conversation to continue.
pub(crate) struct ChatRequest {
    pub(crate) parameters: Parameters,
    pub(crate) messages: Vec<Message>,
    /// What the client thinks the answer will be; empty if it did not say.
    pub(crate) prediction: String,
    pub(crate) tools: Option<Tools>,
    pub(crate) form: Option<Source>,
    /// Whether tokens are told with their likelihood, and how many of the likeliest.
    pub(crate) top_logprobs: Option<usize>,
}

impl ChatRequest {
    /// Reads a request's body; `seed` is used if the client gave none.
    pub(crate) fn read(body: &[u8], seed: u64) -> Result<ChatRequest, ApiError> {
        let mut fields = Fields::parse(body)?;
        let mut parameters = Parameters::read(&mut fields, seed)?;
        parameters.tier = Tier::read(&mut fields)?;
        let prediction = fields.take("prediction").map(read_prediction).transpose()?.unwrap_or_default();
        let tools = Tools::read(&mut fields)?;
        let form = format::read(&mut fields)?;
        let top_logprobs = shaping::read_chat_logprobs(&mut fields)?;
        unsupported::of_chat(&mut fields)?;
        let messages = fields.take("messages");
        let messages = match fields.required("messages", messages)? {
            Value::Array(messages) => messages,
            other => return Err(wrong_type("messages", "an array of messages", &other)),
        };
        fields.finish()?;
        if messages.is_empty() {
            return Err(ApiError::invalid("messages", "'messages' is empty: send at least one message"));
        }
        let messages = messages.into_iter().enumerate().map(|(number, message)| read_message(message, number));
        let messages = messages.collect::<Result<_, _>>()?;
        Ok(ChatRequest { parameters, messages, prediction, tools, form, top_logprobs })
    }
}

fn read_message(message: Value, number: usize) -> Result<Message, ApiError> {
    let mut fields = Fields::of(message, format!("messages[{number}]"))?;
    let role = fields.string("role")?;
    let role = fields.required("role", role)?;
    let role = match role.as_str() {
        // The newer name of the same thing; chat templates know the older.
        "developer" => "system",
        "system" | "user" | "assistant" | "tool" => &role,
        _ => {
            let path = fields.path("role");
            let message = format!("'{path}' is {role:?}: it must be system, developer, user, assistant or tool");
            return Err(ApiError::invalid(path, message));
        }
    };
    for name in ["function_call", "audio"] {
        if fields.take(name).is_some() {
            return Err(ApiError::unsupported(fields.path(name), "send what was said as text in 'content'"));
        }
    }
    // Part of what this server answers, and so of what clients send back; no chat template sees them.
    for name in ["refusal", "annotations"] {
        fields.take(name);
    }
    let tool_calls = match fields.take("tool_calls") {
        None => vec![],
        Some(Value::Array(calls)) => {
            let path = fields.path("tool_calls");
            let calls =
                calls.into_iter().enumerate().map(|(number, call)| read_call(call, format!("{path}[{number}]")));
            calls.collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong_type(&fields.path("tool_calls"), "an array of calls", &other)),
    };
    let (tool_call_id, name) = (fields.string("tool_call_id")?, fields.string("name")?);
    let content = match fields.take("content") {
        None if !tool_calls.is_empty() => String::new(),
        content => read_content(fields.required("content", content)?, &fields.path("content"))?,
    };
    fields.finish()?;
    Ok(Message { tool_calls, tool_call_id, name, ..Message::new(role, content) })
}

/// A call the assistant made. Chat templates want its arguments as an object.
fn read_call(call: Value, path: String) -> Result<Value, ApiError> {
    let mut fields = Fields::of(call, path)?;
    let id = fields.string("id")?;
    fields.string("type")?;
    fields.take("index");
    let function = fields.take("function");
    let mut inner = Fields::of(fields.required("function", function)?, fields.path("function"))?;
    fields.finish()?;
    let name = inner.string("name")?;
    let name = inner.required("name", name)?;
    let arguments = inner.string("arguments")?.unwrap_or_default();
    inner.finish()?;
    let arguments: Value = serde_json::from_str(&arguments).unwrap_or(Value::String(arguments));
    Ok(json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}))
}

/// `{"type": "content", "content": …}`; parts follow each other as they are.
fn read_prediction(value: Value) -> Result<String, ApiError> {
    let mut fields = Fields::of(value, "prediction")?;
    let kind = fields.string("type")?;
    let kind = fields.required("type", kind)?;
    if kind != "content" {
        let message = format!("'prediction.type' is {kind:?}: it must be \"content\"");
        return Err(ApiError::invalid("prediction.type", message));
    }
    let content = fields.take("content");
    let content = match fields.required("content", content)? {
        Value::Array(parts) => {
            let path = |number| format!("prediction.content[{number}]");
            let parts = parts.into_iter().enumerate().map(|(number, part)| read_part(part, path(number)));
            parts.collect::<Result<String, _>>()?
        }
        other => read_content(other, "prediction.content")?,
    };
    fields.finish()?;
    Ok(content)
}

/// A string, or parts of text, which become lines.
fn read_content(content: Value, path: &str) -> Result<String, ApiError> {
    match content {
        Value::String(text) => Ok(text),
        Value::Array(parts) => {
            let parts =
                parts.into_iter().enumerate().map(|(number, part)| read_part(part, format!("{path}[{number}]")));
            Ok(parts.collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        other => Err(wrong_type(path, "a string or an array of parts", &other)),
    }
}

fn read_part(part: Value, path: String) -> Result<String, ApiError> {
    let mut fields = Fields::of(part, &path)?;
    let kind = fields.string("type")?;
    let kind = fields.required("type", kind)?;
    if kind != "text" {
        return Err(ApiError::unsupported(path, &format!("it is of type {kind:?}, and this server reads only text")));
    }
    let text = fields.string("text")?;
    let text = fields.required("text", text)?;
    fields.finish()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Result<Vec<Message>, ApiError> {
        let body = format!(r#"{{"model": "m", "messages": {text}}}"#);
        ChatRequest::read(body.as_bytes(), 0).map(|request| request.messages)
    }

    #[test]
    fn text_and_parts_of_text_are_read() {
        let got = messages(
            r#"[{"role": "developer", "content": "a"},
                {"role": "user", "name": "ada", "content": [{"type": "text", "text": "b"}, {"type": "text", "text": "c"}]},
                {"role": "assistant", "content": "d", "refusal": null, "tool_calls": null, "annotations": []}]"#,
        );
        let user = Message { name: Some("ada".into()), ..Message::new("user", "b\nc") };
        assert_eq!(got.unwrap(), [Message::new("system", "a"), user, Message::new("assistant", "d")]);
        let got = messages(
            r#"[{"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function",
                "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": 2}"}}]},
                {"role": "tool", "tool_call_id": "c1", "content": "x"}]"#,
        );
        let got = got.unwrap();
        assert_eq!(got[0].tool_calls[0]["function"]["arguments"].to_string(), r#"{"b":1,"a":2}"#);
        assert_eq!((got[0].content.as_str(), got[1].tool_call_id.as_deref()), ("", Some("c1")));
    }

    #[test]
    fn a_prediction_is_text_or_parts_of_text() {
        let read = |prediction: &str| {
            let body = format!(
                r#"{{"model": "m", "messages": [{{"role": "user", "content": "a"}}], "prediction": {prediction}}}"#
            );
            ChatRequest::read(body.as_bytes(), 0).map(|request| request.prediction)
        };
        assert_eq!(read("null").unwrap(), "");
        assert_eq!(read(r#"{"type": "content", "content": "a b"}"#).unwrap(), "a b");
        let parts = r#"{"type": "content", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}"#;
        assert_eq!(read(parts).unwrap(), "ab");
        for (wrong, param) in [
            ("3", "prediction"),
            (r#"{"content": "a"}"#, "prediction.type"),
            (r#"{"type": "image", "content": "a"}"#, "prediction.type"),
            (r#"{"type": "content"}"#, "prediction.content"),
            (r#"{"type": "content", "content": "a", "more": 1}"#, "prediction.more"),
        ] {
            assert_eq!(read(wrong).unwrap_err().param.as_deref(), Some(param), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_a_conversation_is_refused_by_place() {
        let cases = [
            ("[]", "messages"),
            ("\"hello\"", "messages"),
            ("[1]", "messages[0]"),
            (r#"[{"content": "a"}]"#, "messages[0].role"),
            (r#"[{"role": "king", "content": "a"}]"#, "messages[0].role"),
            (r#"[{"role": "user"}]"#, "messages[0].content"),
            (r#"[{"role": "user", "content": 3}]"#, "messages[0].content"),
            (r#"[{"role": "user", "content": "a", "mood": "good"}]"#, "messages[0].mood"),
            (r#"[{"role": "assistant", "content": "a", "tool_calls": [{}]}]"#, "messages[0].tool_calls[0].function"),
            (r#"[{"role": "assistant", "content": "a", "function_call": {}}]"#, "messages[0].function_call"),
            (
                r#"[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]"#,
                "messages[0].content[0]",
            ),
        ];
        for (text, param) in cases {
            assert_eq!(messages(text).unwrap_err().param.as_deref(), Some(param), "{text}");
        }
    }

    #[test]
    fn parameters_that_would_change_something_are_refused_and_their_defaults_are_not() {
        let read = |rest: &str| {
            let body = format!(r#"{{"model": "m", "messages": [{{"role": "user", "content": "a"}}], {rest}}}"#);
            ChatRequest::read(body.as_bytes(), 0).map(|_| ())
        };
        let harmless = r#""n": 1, "logprobs": false, "tools": [], "logit_bias": {}, "presence_penalty": 0.0,
            "response_format": {"type": "text"}, "tool_choice": "none", "user": "u", "store": null"#;
        assert_eq!(read(harmless), Ok(()));
        for (name, value) in [("functions", r#"[{"name": "f"}]"#), ("modalities", r#"["audio"]"#), ("store", "true")] {
            let error = read(&format!(r#""{name}": {value}"#)).unwrap_err();
            assert_eq!((error.param.as_deref(), error.code), (Some(name), Some("unsupported_parameter")));
        }
        let error = read(r#""service_tier": "express""#).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("service_tier"));
    }
}
