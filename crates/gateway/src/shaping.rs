//! Parameters that change which tokens are drawn, beside the sampler's own: penalties, biases, a least length; and what
//! is told about tokens.

use crate::error::ApiError;
use crate::fields::{Fields, wrong_type};
use exact::adjust::Adjust;
use serde_json::Value;

/// Biases of one request.
const BIASES_MAX: usize = 1024;
/// Likely tokens told beside each token.
const TOP_MAX: u64 = 20;

/// Reads penalties and biases.
pub(crate) fn read_adjust(fields: &mut Fields) -> Result<Adjust, ApiError> {
    Ok(Adjust {
        repetition: fields.number("repetition_penalty", 0.01..=100.0)?.unwrap_or(1.0),
        frequency: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0) + 0.0,
        presence: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0) + 0.0,
        bias: read_bias(fields)?,
    })
}

/// An object of token ids and numbers.
fn read_bias(fields: &mut Fields) -> Result<Vec<(u32, f64)>, ApiError> {
    let map = match fields.take("logit_bias") {
        None => return Ok(vec![]),
        Some(Value::Object(map)) => map,
        Some(other) => return Err(wrong_type("logit_bias", "an object of token ids and numbers", &other)),
    };
    if map.len() > BIASES_MAX {
        let message = format!("'logit_bias' may name {BIASES_MAX} tokens, not {}", map.len());
        return Err(ApiError::invalid("logit_bias", message));
    }
    let mut biases = Vec::with_capacity(map.len());
    for (token, bias) in map {
        let id: Option<u32> = token.parse().ok();
        let id = id.ok_or_else(|| {
            let short: String = token.chars().take(50).collect();
            ApiError::invalid("logit_bias", format!("'logit_bias' names {short:?}, which is not a token id"))
        })?;
        let number = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias));
        let message = format!("'logit_bias.{id}' must be a number between -100 and 100, not {bias}");
        biases.push((id, number.ok_or_else(|| ApiError::invalid("logit_bias", message))? + 0.0));
    }
    biases.sort_unstable_by_key(|(id, _)| *id);
    if biases.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(ApiError::invalid("logit_bias", "'logit_bias' names a token twice"));
    }
    Ok(biases)
}

/// Chat: `logprobs` is a flag and `top_logprobs` a number.
pub(crate) fn read_chat_logprobs(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let wanted = fields.boolean("logprobs")?;
    let top = fields.integer("top_logprobs", 0..=TOP_MAX)?;
    match (wanted, top) {
        (false, Some(1..)) => {
            Err(ApiError::invalid("top_logprobs", "'top_logprobs' is only allowed when 'logprobs' is true"))
        }
        (false, _) => Ok(None),
        (true, top) => Ok(Some(top.unwrap_or(0) as usize)),
    }
}

/// Text completions: `logprobs` is the number.
pub(crate) fn read_completion_logprobs(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    Ok(fields.integer("logprobs", 0..=TOP_MAX)?.map(|top| top as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adjust(text: &str) -> Result<Adjust, ApiError> {
        read_adjust(&mut Fields::parse(text.as_bytes())?)
    }

    #[test]
    fn penalties_and_biases_are_read() {
        let got = adjust(
            r#"{"presence_penalty": 0.5, "frequency_penalty": -0.0, "repetition_penalty": 1.2,
            "logit_bias": {"7": -100, "3": 1.5}}"#,
        );
        let want = Adjust { repetition: 1.2, frequency: 0.0, presence: 0.5, bias: vec![(3, 1.5), (7, -100.0)] };
        assert_eq!(got, Ok(want.clone()));
        assert_eq!(got.unwrap().frequency.to_bits(), 0);
        assert_eq!(adjust("{}"), Ok(Adjust::default()));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (name, value) in [
            ("presence_penalty", "2.1"),
            ("frequency_penalty", "\"a\""),
            ("repetition_penalty", "0"),
            ("logit_bias", "[1]"),
            ("logit_bias", r#"{"a": 1}"#),
            ("logit_bias", r#"{"-1": 1}"#),
            ("logit_bias", r#"{"1": 101}"#),
            ("logit_bias", r#"{"1": null}"#),
            ("logit_bias", r#"{"1": 1, "01": 1}"#),
        ] {
            let error = adjust(&format!(r#"{{"{name}": {value}}}"#)).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name), "{value}");
        }
        let mut fields = Fields::parse(br#"{"top_logprobs": 3}"#).unwrap();
        assert_eq!(read_chat_logprobs(&mut fields).unwrap_err().param.as_deref(), Some("top_logprobs"));
    }
}
