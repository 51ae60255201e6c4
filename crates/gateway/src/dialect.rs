//! How a model writes calls of tools, told from its chat template; and the grammars that hold it to that.
//!
//! | dialect | template mentions | one call |
//! |---|---|---|
//! | Hermes, Qwen | `<tool_call>` | `<tool_call>\n{"name": …, "arguments": {…}}\n</tool_call>` |
//! | Mistral | `[TOOL_CALLS]` | `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]` |
//! | Llama 3.1 | `<\|python_tag\|>` or `ipython` | `{"name": …, "parameters": {…}}` |
//! | plain | none of these | `{"tool_calls": [{"name": …, "arguments": {…}}, …]}` |
//!
//! The plain dialect is for templates that know no tools: a message describes them, tool calls and results in the
//! conversation become text, and a grammar separates calls from text even where the model may choose.

use crate::tools::{Choice, Function, Tools};
use grammar::{Kind, Source};
use model::{Message, Text, TokenBytes};
use serde_json::{Value, json};

/// Calls in one answer.
pub(crate) const CALLS_MAX: usize = 16;

/// How calls are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    Hermes,
    Mistral,
    Llama,
    Plain,
}

impl Dialect {
    /// The one a chat template is for.
    pub(crate) fn of(template: &str) -> Dialect {
        let mentions = |mark: &str| template.contains(mark);
        if !mentions("tools") {
            Dialect::Plain
        } else if mentions("<tool_call>") {
            Dialect::Hermes
        } else if mentions("[TOOL_CALLS]") {
            Dialect::Mistral
        } else if mentions("<|python_tag|>") || mentions("ipython") {
            Dialect::Llama
        } else {
            Dialect::Plain
        }
    }

    /// What comes before the first call, where that is a mark of its own.
    pub(crate) fn opening(self) -> &'static str {
        match self {
            Dialect::Hermes => "<tool_call>",
            Dialect::Mistral => "[TOOL_CALLS]",
            Dialect::Llama => "<|python_tag|>",
            Dialect::Plain => "{\"tool_calls\": [",
        }
    }

    /// What the answer is held to: always if it must call, and in the plain dialect also if it may.
    pub(crate) fn form(self, tools: &Tools, text: &Text) -> Option<Source> {
        if tools.choice == Choice::Auto && self != Dialect::Plain {
            return None;
        }
        let several = tools.parallel && !matches!(tools.choice, Choice::Named(_)) && self != Dialect::Llama;
        let more = |separator: &str| match several {
            true => format!("({separator} call){{0,{}}}", CALLS_MAX - 1),
            false => String::new(),
        };
        let arguments = if self == Dialect::Llama { "parameters" } else { "arguments" };
        let calls = match self {
            Dialect::Hermes => format!("one {}", more(&quote("\n")).replace("call", "one")),
            Dialect::Mistral => format!("{} \"[\" call {} \"]\"", self.mark(text), more(&quote(", "))),
            Dialect::Llama => "call".to_owned(),
            Dialect::Plain => format!("{} call {} \"]}}\"", quote(self.opening()), more(&quote(", "))),
        };
        let mut lines = match tools.choice {
            // Text is what does not begin as a call does.
            Choice::Auto => vec!["start: (text | calls)?".to_owned(), r"text: /[^{](.|\n)*/".to_owned()],
            _ => vec!["start: calls".to_owned()],
        };
        lines.push(format!("calls: {calls}"));
        if self == Dialect::Hermes {
            let close = special(text, "</tool_call>").unwrap_or_else(|| quote("</tool_call>"));
            lines.push(format!("one: {} {} call {} {close}", self.mark(text), quote("\n"), quote("\n")));
        }
        let functions: Vec<&Function> = tools.callable().collect();
        let names: Vec<String> = (0..functions.len()).map(|number| format!("call_{number}")).collect();
        lines.push(format!("call: {}", names.join(" | ")));
        for (number, function) in functions.into_iter().enumerate() {
            let head = quote(&format!("{{\"name\": \"{}\", \"{arguments}\": ", function.name));
            lines.push(format!("call_{number}: {head} arguments_{number} \"}}\""));
            lines.push(format!("arguments_{number}: %json {}", grammar::compact(function.parameters.clone())));
        }
        Some(Source { kind: Kind::Lark, text: lines.join("\n") })
    }

    /// The opening mark in a grammar.
    fn mark(self, text: &Text) -> String {
        special(text, self.opening()).unwrap_or_else(|| quote(self.opening()))
    }

    /// The conversation as its template can take it, and the tools the template is given.
    pub(crate) fn conversation(self, messages: Vec<Message>, tools: Option<&Tools>) -> (Vec<Message>, Vec<Value>) {
        if self != Dialect::Plain {
            return (messages, tools.map(|tools| tools.described.clone()).unwrap_or_default());
        }
        let mut plain: Vec<Message> = messages.into_iter().map(in_plain_words).collect();
        if let Some(tools) = tools {
            let described = describe(tools);
            match plain.first_mut() {
                Some(first) if first.role == "system" => first.content += &format!("\n\n{described}"),
                _ => plain.insert(0, Message::new("system", described)),
            }
        }
        (plain, vec![])
    }
}

/// A special token in a grammar, if the tokenizer writes it as one token that is no text.
fn special(text: &Text, name: &str) -> Option<String> {
    let id = text.token(name)?;
    matches!(text.token_bytes(id)?, TokenBytes::Special(_)).then(|| format!("<[{id}]>"))
}

fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

fn describe(tools: &Tools) -> String {
    let mut text = "You can call these tools:\n".to_owned();
    for function in &tools.described {
        text += &format!("{}\n", function["function"]);
    }
    text + "To call tools, answer with nothing but JSON of this form:\n\
            {\"tool_calls\": [{\"name\": \"...\", \"arguments\": {...}}]}"
}

/// Calls and results as text, for templates that know neither.
fn in_plain_words(message: Message) -> Message {
    if !message.tool_calls.is_empty() {
        let calls: Vec<Value> = message
            .tool_calls
            .iter()
            .map(|call| json!({"name": call["function"]["name"], "arguments": call["function"]["arguments"]}))
            .collect();
        let calls = json!({"tool_calls": calls}).to_string();
        let content = if message.content.is_empty() { calls } else { format!("{}\n{calls}", message.content) };
        return Message::new(message.role, content);
    }
    if message.role == "tool" {
        let of = message.name.or(message.tool_call_id).map(|of| format!(" of {of}")).unwrap_or_default();
        return Message::new("user", format!("Result{of}:\n{}", message.content));
    }
    message
}
