//! A checkpoint's chat template: a conversation becomes the text the model was trained on. Rendered as transformers
//! does, with bounds on how long a template may run and how much it may print.

use crate::clock;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, context};
use regex::Regex;
use std::io;

/// Instructions one rendering may take.
const FUEL: u64 = 20_000_000;
/// Macros and includes inside each other.
const RECURSION_MAX: usize = 100;
/// Bytes one rendering may print.
const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// Bytes a template may have.
const TEMPLATE_BYTES_MAX: usize = 1 << 20;
const NAME: &str = "chat_template";

/// One message of a conversation.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant` or what else the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
    /// Calls of tools the assistant made: objects of OpenAI's form, but with arguments as objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<serde_json::Value>,
    /// Which call this is the result of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Who speaks, or which tool's result this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Message {
        Message { role: role.into(), content: content.into(), tool_calls: vec![], tool_call_id: None, name: None }
    }
}

/// Special tokens a template may print, by their names in tokenizer_config.json (`bos_token` and so on).
pub(crate) type Specials = Vec<(String, String)>;

/// A template ready to render.
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    specials: Specials,
    source: String,
}

impl ChatTemplate {
    /// Compiles a template.
    pub(crate) fn new(source: &str, specials: Specials) -> Result<ChatTemplate, String> {
        if source.len() > TEMPLATE_BYTES_MAX {
            return Err(format!("the chat template has more than {TEMPLATE_BYTES_MAX} bytes"));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| describe(&error))?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_formatter(print);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION_MAX);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson);
        // As in Python, where nothing is not an empty list, and text and tables have a length and elements.
        environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
        environment.add_test("sequence", |value: &Value| {
            matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map | ValueKind::Undefined)
                || value.kind() == ValueKind::Iterable && value.len().is_some()
        });
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", |format: &str| clock::format_now(format));
        environment
            .add_template_owned(NAME, without_generation_marks(source))
            .map_err(|error| format!("the chat template cannot be read: {}", describe(&error)))?;
        Ok(ChatTemplate { environment, specials, source: source.to_owned() })
    }

    /// The template as the checkpoint has it.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// The text of a conversation, ending where the assistant's answer starts if `add_generation_prompt`.
    /// `messages` and `tools` are arrays.
    pub(crate) fn render(
        &self,
        messages: &serde_json::Value,
        tools: &serde_json::Value,
        add_generation_prompt: bool,
    ) -> Result<String, String> {
        let specials = self.specials.iter().map(|(name, token)| (name.as_str(), token.as_str()));
        let values = context! {
            messages => Value::from(Serde(messages)),
            add_generation_prompt,
            tools => if tools.as_array().is_none_or(Vec::is_empty) { Value::from(()) } else { Value::from(Serde(tools)) },
            documents => Value::from(()),
            ..Value::from_pairs(specials)
        };
        let mut out = Bounded(vec![]);
        let template = self.environment.get_template(NAME).map_err(|error| describe(&error))?;
        template
            .render_captured_to(values, &mut out)
            .map_err(|error| format!("the chat template refuses this conversation: {}", describe(&error)))?;
        String::from_utf8(out.0).map_err(|_| "the chat template printed what is not text".to_owned())
    }
}

/// Transformers marks assistant text with `{% generation %}` for training; here the marks mean nothing.
fn without_generation_marks(source: &str) -> String {
    let mut source = source.to_owned();
    for (mark, meaning) in [("generation", "if true"), ("endgeneration", "endif")] {
        if let Ok(tag) = Regex::new(&format!(r"\{{%([-+]?)\s*{mark}\s*([-+]?)%\}}")) {
            source = tag.replace_all(&source, format!("{{%$1 {meaning} $2%}}")).into_owned();
        }
    }
    source
}

fn describe(error: &Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("{detail} (line {line})"),
        None => detail,
    }
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Prints as Python does where that differs.
fn print(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let text = match value.kind() {
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        ValueKind::None => "None",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    out.write_str(text).map_err(Error::from)
}

/// JSON as Python's `json.dumps` writes it; characters stay as they are unless `ensure_ascii` is true.
fn tojson(value: &Value, ensure_ascii: Option<bool>, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let escaped = options.get::<Option<bool>>("ensure_ascii")?.or(ensure_ascii) == Some(true);
    let mut out = vec![];
    let written = match indent {
        None => serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut out, OneLine)),
        Some(indent) => {
            let spaces = vec![b' '; indent.min(16)];
            let pretty = serde_json::ser::PrettyFormatter::with_indent(&spaces);
            serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut out, pretty))
        }
    };
    let wrong = |error: String| Error::new(ErrorKind::BadSerialization, error);
    written.map_err(|error| wrong(error.to_string()))?;
    let text = String::from_utf8(out).map_err(|error| wrong(error.to_string()))?;
    Ok(if escaped { in_ascii(&text) } else { text })
}

/// JSON whose strings spell what is not ASCII as UTF-16 units; outside of strings everything is.
fn in_ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() && character != '\x7f' {
            out.push(character);
        } else {
            let units =
                character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            out.push_str(&units);
        }
    }
    out
}

/// `", "` and `": "` between values.
struct OneLine;

impl serde_json::ser::Formatter for OneLine {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// A buffer that does not grow without end.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::Error::other(format!("it prints more than {OUTPUT_BYTES_MAX} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
