//! Requests to `/v1/completions`.

use crate::error::ApiError;
use crate::fields::{Fields, wrong_type};
use crate::format;
use crate::parameters::Parameters;
use crate::shaping;
use crate::unsupported;
use grammar::Source;
use serde_json::Value;

/// Prompts of one request, each of which becomes a choice.
const PROMPTS_MAX: usize = 128;

/// Texts to continue.
pub(crate) struct CompletionRequest {
    pub(crate) parameters: Parameters,
    pub(crate) prompts: Vec<Prompt>,
    pub(crate) form: Option<Source>,
    /// Whether tokens are told with their likelihood, and how many of the likeliest.
    pub(crate) top_logprobs: Option<usize>,
}

/// One text to continue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

impl CompletionRequest {
    /// Reads a request's body; `seed` is used if the client gave none.
    pub(crate) fn read(body: &[u8], seed: u64) -> Result<CompletionRequest, ApiError> {
        let mut fields = Fields::parse(body)?;
        let parameters = Parameters::read(&mut fields, seed)?;
        let form = format::read(&mut fields)?;
        let top_logprobs = shaping::read_completion_logprobs(&mut fields)?;
        // One of the answers that are all told: what OpenAI does where both numbers are the same.
        if let Some(best_of) = fields.integer("best_of", 1..=128)?
            && best_of != parameters.n as u64
        {
            return Err(ApiError::unsupported("best_of", "it must be the same as 'n'"));
        }
        unsupported::of_completions(&mut fields)?;
        let prompt = fields.take("prompt");
        let prompts = read_prompts(fields.required("prompt", prompt)?)?;
        fields.finish()?;
        Ok(CompletionRequest { parameters, prompts, form, top_logprobs })
    }
}

/// A text, token ids, or an array of either.
fn read_prompts(value: Value) -> Result<Vec<Prompt>, ApiError> {
    match value {
        Value::String(text) => Ok(vec![Prompt::Text(text)]),
        Value::Array(values) if values.is_empty() => {
            Err(ApiError::invalid("prompt", "'prompt' is empty: send at least one token"))
        }
        Value::Array(values) if values.iter().all(Value::is_number) => Ok(vec![Prompt::Tokens(read_tokens(&values)?)]),
        Value::Array(values) if values.len() > PROMPTS_MAX => {
            let message = format!("'prompt' has {} prompts, and a request may have {PROMPTS_MAX}", values.len());
            Err(ApiError::invalid("prompt", message))
        }
        Value::Array(values) => values
            .into_iter()
            .map(|value| match value {
                Value::String(text) => Ok(Prompt::Text(text)),
                Value::Array(ids) => Ok(Prompt::Tokens(read_tokens(&ids)?)),
                other => Err(wrong_type("prompt", "strings, or arrays of token ids", &other)),
            })
            .collect(),
        other => Err(wrong_type("prompt", "a string, token ids, or an array of either", &other)),
    }
}

fn read_tokens(values: &[Value]) -> Result<Vec<u32>, ApiError> {
    let token = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| ApiError::invalid("prompt", format!("'prompt' holds {value}, which is not a token id")))
    };
    values.iter().map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(text: &str) -> Result<Vec<Prompt>, ApiError> {
        let body = format!(r#"{{"model": "m", "prompt": {text}}}"#);
        CompletionRequest::read(body.as_bytes(), 0).map(|request| request.prompts)
    }

    #[test]
    fn prompts_come_in_four_forms() {
        let (text, tokens) = (|text: &str| Prompt::Text(text.into()), |ids: &[u32]| Prompt::Tokens(ids.to_vec()));
        assert_eq!(prompts(r#""a""#), Ok(vec![text("a")]));
        assert_eq!(prompts(r#"["a", "b"]"#), Ok(vec![text("a"), text("b")]));
        assert_eq!(prompts("[1, 2]"), Ok(vec![tokens(&[1, 2])]));
        assert_eq!(prompts("[[1], [2, 3]]"), Ok(vec![tokens(&[1]), tokens(&[2, 3])]));
    }

    #[test]
    fn what_is_no_prompt_is_refused() {
        for text in ["3", "[]", "[-1]", "[4294967296]", "[1.5]", "[true]", "[[\"a\"]]", "{}"] {
            assert_eq!(prompts(text).unwrap_err().param.as_deref(), Some("prompt"), "{text}");
        }
    }
}
