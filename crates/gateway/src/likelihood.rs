//! How likely an answer's tokens were, as OpenAI's API tells it.

use exact::logprob::Logprobs;
use model::{Text, TokenBytes};
use serde_json::{Map, Value, json};

/// What OpenAI's API says in place of a logarithm too small to be told.
const LEAST: f32 = -9999.0;

/// A token by its bytes, and the logarithm of its probability.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Named {
    bytes: Vec<u8>,
    logprob: f32,
}

impl Named {
    fn new(text: &Text, token: u32, logprob: f32) -> Named {
        let bytes = match text.token_bytes(token) {
            Some(TokenBytes::Text(bytes)) => bytes,
            Some(TokenBytes::Special(name)) => name.into_bytes(),
            None => vec![],
        };
        Named { bytes, logprob: logprob.max(LEAST) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn json(&self) -> Value {
        json!({"token": self.text(), "logprob": self.logprob, "bytes": self.bytes})
    }
}

/// A token of an answer, and the likeliest at its place.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Likelihood {
    token: Named,
    top: Vec<Named>,
}

impl Likelihood {
    pub(crate) fn new(text: &Text, token: u32, logprobs: &Logprobs) -> Likelihood {
        let top = logprobs.top.iter().map(|(id, logprob)| Named::new(text, *id, *logprob)).collect();
        Likelihood { token: Named::new(text, token, logprobs.of_token), top }
    }
}

/// The form of chat completions.
pub(crate) fn of_chat(tokens: &[Likelihood]) -> Value {
    let content = tokens.iter().map(|likelihood| {
        let mut entry = likelihood.token.json();
        entry["top_logprobs"] = likelihood.top.iter().map(Named::json).collect();
        entry
    });
    json!({"content": content.collect::<Vec<_>>(), "refusal": null})
}

/// The form of text completions; `offset` characters of the answer came before.
pub(crate) fn of_completion(tokens: &[Likelihood], offset: &mut usize) -> Value {
    let mut offsets = vec![];
    for likelihood in tokens {
        offsets.push(*offset);
        *offset += likelihood.token.text().chars().count();
    }
    let top = tokens.iter().map(|likelihood| {
        let pairs = likelihood.top.iter().map(|named| (named.text(), Value::from(named.logprob)));
        pairs.collect::<Map<String, Value>>()
    });
    json!({
        "tokens": tokens.iter().map(|likelihood| likelihood.token.text()).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|likelihood| likelihood.token.logprob).collect::<Vec<_>>(),
        "top_logprobs": top.collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}
