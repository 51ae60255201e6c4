//! What both completion endpoints are told beside the prompt: the model, how tokens are drawn, when to stop, how to send.

use crate::error::ApiError;
use crate::fields::{Fields, wrong_type};
use crate::shaping;
use exact::adjust::Adjust;
use exact::sample::Sampling;
use receipt::Nonce;
use receipt::seed::NONCE_BYTES_MAX;
use serde_json::Value;

/// Temperatures below this are greedy: the division by them would leave the range of floats.
const TEMPERATURE_MIN: f64 = 0.001;
const TEMPERATURE_MAX: f64 = 100.0;
/// Answers to one request.
pub(crate) const CHOICES_MAX: usize = 128;
const STOPS_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 4096;

/// Parameters of a completion.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Parameters {
    pub(crate) model: String,
    pub(crate) sampling: Sampling,
    /// Whether the client chose the seed.
    pub(crate) seed_from_client: bool,
    /// The client's share of a seed it does not choose.
    pub(crate) nonce: Nonce,
    /// The most tokens to generate, if the client said so.
    pub(crate) tokens_max: Option<usize>,
    pub(crate) stops: Vec<String>,
    /// Tokens that end an answer beside the model's own.
    pub(crate) stop_tokens: Vec<u32>,
    /// Tokens before which nothing ends an answer but a stop string.
    pub(crate) tokens_min: usize,
    pub(crate) adjust: Adjust,
    /// Answers to each prompt.
    pub(crate) n: usize,
    /// Whether the model's own end of an answer is passed over.
    pub(crate) ignore_end: bool,
    pub(crate) stream: bool,
    /// Whether a stream tells its usage.
    pub(crate) include_usage: bool,
    /// OpenAI's classes of service, if the client named one.
    pub(crate) tier: Option<Tier>,
}

/// How soon an answer is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tier {
    Default,
    /// Whenever there is nothing else to do.
    Flex,
}

impl Tier {
    /// Reads `service_tier`. Whoever asks for priority is served as all others are, and told so: nobody may put himself
    /// before them.
    pub(crate) fn read(fields: &mut Fields) -> Result<Option<Tier>, ApiError> {
        Ok(match fields.string("service_tier")?.as_deref() {
            None => None,
            Some("auto" | "default" | "priority") => Some(Tier::Default),
            Some("flex") => Some(Tier::Flex),
            Some(other) => {
                let message = format!("'service_tier' is {other:?}: it must be auto, default, flex or priority");
                return Err(ApiError::invalid("service_tier", message));
            }
        })
    }

    /// What an answer says of itself.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Tier::Default => "default",
            Tier::Flex => "flex",
        }
    }
}

impl Parameters {
    /// Reads them out of a request; `seed` is used if the client gave none.
    pub(crate) fn read(fields: &mut Fields, seed: u64) -> Result<Parameters, ApiError> {
        let model = fields.string("model")?;
        let model = fields.required("model", model)?;
        let client_seed = read_seed(fields)?;
        let stream = fields.boolean("stream")?;
        Ok(Parameters {
            model,
            sampling: read_sampling(fields, client_seed.unwrap_or(seed))?,
            seed_from_client: client_seed.is_some(),
            nonce: read_nonce(fields, client_seed.is_some())?,
            tokens_max: read_tokens_max(fields)?,
            stops: read_stops(fields)?,
            stop_tokens: read_stop_tokens(fields)?,
            tokens_min: fields.integer("min_tokens", 0..=u64::from(u32::MAX))?.unwrap_or(0) as usize,
            adjust: shaping::read_adjust(fields)?,
            n: fields.integer("n", 1..=CHOICES_MAX as u64)?.unwrap_or(1) as usize,
            ignore_end: fields.boolean("ignore_eos")?,
            stream,
            include_usage: read_stream_options(fields, stream)?,
            tier: None,
        })
    }
}

fn read_sampling(fields: &mut Fields, seed: u64) -> Result<Sampling, ApiError> {
    let temperature = fields.number("temperature", 0.0..=TEMPERATURE_MAX)?.unwrap_or(1.0);
    // Minus zero and what is below the least temperature become the one greedy setting.
    let temperature = if temperature < TEMPERATURE_MIN { 0.0 } else { temperature };
    Ok(Sampling {
        temperature,
        top_k: read_top_k(fields)?,
        top_p: fields.number("top_p", 0.0..=1.0)?.unwrap_or(1.0) + 0.0,
        min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(0.0) + 0.0,
        seed,
    })
}

/// 0 and −1 keep all, as in vLLM.
fn read_top_k(fields: &mut Fields) -> Result<u32, ApiError> {
    match fields.take("top_k") {
        None => Ok(0),
        Some(value) if value == -1 => Ok(0),
        Some(value) => {
            let top_k = value.as_u64().and_then(|top_k| u32::try_from(top_k).ok());
            let message = format!("'top_k' must be a whole number from 0 (all) to {}, not {value}", u32::MAX);
            top_k.ok_or_else(|| ApiError::invalid("top_k", message))
        }
    }
}

/// Any 64 bits, with or without sign.
fn read_seed(fields: &mut Fields) -> Result<Option<u64>, ApiError> {
    let Some(value) = fields.take("seed") else { return Ok(None) };
    let seed = value.as_u64().or(value.as_i64().map(i64::cast_unsigned));
    let message = format!("'seed' must be a whole number of 64 bits, not {value}");
    seed.map(Some).ok_or_else(|| ApiError::invalid("seed", message))
}

/// Text of at most 64 bytes, which makes a seed that neither side chose.
fn read_nonce(fields: &mut Fields, has_seed: bool) -> Result<Nonce, ApiError> {
    let Some(text) = fields.string("nonce")? else { return Ok(Nonce::default()) };
    if has_seed {
        return Err(ApiError::invalid("nonce", "'nonce' makes a seed: send it or 'seed', not both"));
    }
    let message = format!("'nonce' has at most {NONCE_BYTES_MAX} bytes, not {}", text.len());
    Nonce::from_bytes(text.as_bytes()).ok_or_else(|| ApiError::invalid("nonce", message))
}

/// `max_tokens` and its newer name.
fn read_tokens_max(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let range = 1..=u64::from(u32::MAX);
    let old = fields.integer("max_tokens", range.clone())?;
    let new = fields.integer("max_completion_tokens", range)?;
    if let (Some(old), Some(new)) = (old, new)
        && old != new
    {
        let message = format!("'max_tokens' is {old} and 'max_completion_tokens' is {new}: send one of them");
        return Err(ApiError::invalid("max_tokens", message));
    }
    Ok(new.or(old).map(|tokens| tokens as usize))
}

fn read_stops(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let stops = match fields.take("stop") {
        None => return Ok(vec![]),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(values)) => values
            .into_iter()
            .map(|value| match value {
                Value::String(stop) => Ok(stop),
                other => Err(wrong_type("stop", "strings", &other)),
            })
            .collect::<Result<_, _>>()?,
        Some(other) => return Err(wrong_type("stop", "a string or an array of strings", &other)),
    };
    if stops.len() > STOPS_MAX {
        return Err(ApiError::invalid("stop", format!("'stop' may have {STOPS_MAX} strings, not {}", stops.len())));
    }
    if stops.iter().any(|stop| stop.is_empty() || stop.len() > STOP_BYTES_MAX) {
        let message = format!("each string of 'stop' must have 1 to {STOP_BYTES_MAX} bytes");
        return Err(ApiError::invalid("stop", message));
    }
    Ok(stops)
}

/// vLLM's `stop_token_ids`.
fn read_stop_tokens(fields: &mut Fields) -> Result<Vec<u32>, ApiError> {
    let name = "stop_token_ids";
    let values = match fields.take(name) {
        None => return Ok(vec![]),
        Some(Value::Array(values)) if values.len() <= STOPS_MAX => values,
        Some(other) => return Err(wrong_type(name, &format!("an array of at most {STOPS_MAX} token ids"), &other)),
    };
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| wrong_type(name, "token ids", value))
    };
    values.iter().map(id).collect()
}

fn read_stream_options(fields: &mut Fields, stream: bool) -> Result<bool, ApiError> {
    let Some(value) = fields.take("stream_options") else { return Ok(false) };
    if !stream {
        let message = "'stream_options' is only allowed when 'stream' is true";
        return Err(ApiError::invalid("stream_options", message));
    }
    let mut options = Fields::of(value, "stream_options")?;
    let include_usage = options.boolean("include_usage")?;
    // Padding against eavesdroppers: nothing is padded here, and saying so either way changes no answer.
    options.boolean("include_obfuscation")?;
    options.finish()?;
    Ok(include_usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Parameters, ApiError> {
        let mut fields = Fields::parse(text.as_bytes())?;
        let parameters = Parameters::read(&mut fields, 7)?;
        fields.finish()?;
        Ok(parameters)
    }

    #[test]
    fn defaults_are_openais() {
        let got = read(r#"{"model": "m"}"#).unwrap();
        assert_eq!(got.sampling, Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 7 });
        assert!(!got.seed_from_client && !got.stream && got.tokens_max.is_none() && got.stops.is_empty());
    }

    #[test]
    fn tiny_temperatures_are_greedy() {
        for temperature in ["0", "-0.0", "1e-300", "0.0009"] {
            let got = read(&format!(r#"{{"model": "m", "temperature": {temperature}}}"#)).unwrap();
            assert_eq!(got.sampling.temperature.to_bits(), 0, "{temperature}");
        }
        assert_eq!(read(r#"{"model": "m", "temperature": 0.001}"#).unwrap().sampling.temperature, 0.001);
    }

    #[test]
    fn seeds_of_either_sign_are_taken() {
        assert_eq!(read(r#"{"model": "m", "seed": -1}"#).unwrap().sampling.seed, u64::MAX);
        assert_eq!(read(r#"{"model": "m", "seed": 18446744073709551615}"#).unwrap().sampling.seed, u64::MAX);
        assert_eq!(read(r#"{"model": "m", "seed": 18446744073709551616}"#).unwrap_err().param.as_deref(), Some("seed"));
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let cases = [
            ("temperature", "-0.1"),
            ("temperature", "101"),
            ("temperature", "\"hot\""),
            ("top_p", "1.01"),
            ("min_p", "-1"),
            ("top_k", "-2"),
            ("top_k", "1.5"),
            ("max_tokens", "0"),
            ("max_tokens", "-5"),
            ("max_completion_tokens", "1e3"),
            ("stop", "[1]"),
            ("stop", "\"\""),
            ("stop", r#"["","","","","","","","","","","","","","","","",""]"#),
            ("nonce", "3"),
            ("nonce", r#""a nonce with a good many more than the sixty-four bytes that it may have""#),
            ("n", "0"),
            ("n", "129"),
            ("min_tokens", "-1"),
            ("stop_token_ids", "[-1]"),
            ("stop_token_ids", "3"),
            ("stream", "1"),
            ("stream_options", "{}"),
            ("model", "3"),
        ];
        for (name, value) in cases {
            let rest = if name == "model" { "" } else { r#""model": "m", "# };
            let error = read(&format!(r#"{{{rest}"{name}": {value}}}"#)).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(name), "{name}: {value}");
        }
        assert_eq!(read("{}").unwrap_err().param.as_deref(), Some("model"));
    }
}
