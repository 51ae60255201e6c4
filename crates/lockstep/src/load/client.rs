//! One request to an OpenAI-compatible server, and when its parts came.

use super::arrivals::{Arrival, Dice};
use crate::failure::Failure;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

/// A line of a stream may have so many bytes.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Words that prompts are made of: most tokenizers make one or two tokens of each.
const WORDS: &[&str] = &[
    "the", "lamp", "red", "order", "when", "city", "blue", "ship", "day", "late", "how", "many", "box", "who", "sent",
    "and", "price", "old", "new", "tea",
];

/// Where to ask, and how.
pub(crate) struct Client {
    pub(crate) agent: ureq::Agent,
    /// Ends with /v1.
    pub(crate) url: String,
    /// Servers that some models are asked for at instead.
    pub(crate) routes: BTreeMap<String, String>,
    pub(crate) key: Option<String>,
    pub(crate) ignore_end: bool,
}

/// What came of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered {
    pub(crate) model: String,
    /// Why there was no answer; none if there was.
    pub(crate) error: Option<String>,
    /// From when it was due to its first token, and to its end.
    pub(crate) first: Duration,
    pub(crate) total: Duration,
    /// Between pieces after the first.
    pub(crate) gaps: Vec<Duration>,
    pub(crate) prompt_tokens: u64,
    pub(crate) cached_tokens: u64,
    pub(crate) output_tokens: u64,
}

impl Client {
    /// Names of all models.
    pub(crate) fn models(&self) -> Result<Vec<String>, Failure> {
        let asked = self.get("models").call().map_err(|error| Failure(format!("{}: {error}", self.url)))?;
        if !asked.status().is_success() {
            return Err(Failure(format!("{}/models answered {}", self.url, asked.status())));
        }
        let mut asked = asked;
        let bytes = crate::remote::body(&mut asked, 64 << 20)?;
        let list: Value = serde_json::from_slice(&bytes)?;
        let names = list["data"].as_array().into_iter().flatten().filter_map(|model| model["id"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    fn get(&self, path: &str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
        let request = self.agent.get(format!("{}/{path}", self.url));
        match &self.key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        }
    }

    /// Asks; times count from `due`, so that a client that falls behind does not flatter the server.
    pub(crate) fn ask(&self, number: u64, arrival: &Arrival, due: Instant) -> Answered {
        let model = arrival.model.clone();
        match self.stream(number, arrival, due) {
            Ok(answered) => Answered { model, ..answered },
            Err(error) => Answered { model, error: Some(error), total: due.elapsed(), ..Answered::default() },
        }
    }

    fn stream(&self, number: u64, arrival: &Arrival, due: Instant) -> Result<Answered, String> {
        let mut body = json!({
            "model": arrival.model,
            "messages": [{"role": "user", "content": prompt(number, arrival)}],
            "max_tokens": arrival.output_tokens,
            "temperature": 0,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        if self.ignore_end {
            body["ignore_eos"] = json!(true);
        }
        let url = self.routes.get(&arrival.model).unwrap_or(&self.url);
        let request = self.agent.post(format!("{url}/chat/completions"));
        let request = match &self.key {
            Some(key) => request.header("authorization", format!("Bearer {key}")),
            None => request,
        };
        let sent = request.header("content-type", "application/json").send(body.to_string());
        let mut answer = sent.map_err(|error| kind(&error))?;
        if !answer.status().is_success() {
            return Err(answer.status().as_u16().to_string());
        }
        let mut answered = Answered::default();
        let (mut first, mut latest) = (None, due);
        let mut reader = BufReader::new(answer.body_mut().as_reader());
        let mut line = Vec::new();
        loop {
            line.clear();
            let count = (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            if count.map_err(|error| format!("broke off: {error}"))? == 0 {
                return Err("broke off".to_owned());
            }
            let Some(data) = line.strip_prefix(b"data: ") else { continue };
            if data.trim_ascii() == b"[DONE]" {
                break;
            }
            let now = Instant::now();
            let event: Value = serde_json::from_slice(data).map_err(|_| "not JSON".to_owned())?;
            if let Some(error) = event.get("error") {
                return Err(error["code"].as_str().unwrap_or("error in the stream").to_owned());
            }
            let said = event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty());
            if said {
                match first {
                    None => first = Some(now - due),
                    Some(_) => answered.gaps.push(now - latest),
                }
                latest = now;
            }
            let usage = &event["usage"];
            if usage.is_object() {
                answered.prompt_tokens = usage["prompt_tokens"].as_u64().unwrap_or(0);
                answered.output_tokens = usage["completion_tokens"].as_u64().unwrap_or(0);
                answered.cached_tokens = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0);
            }
        }
        answered.total = due.elapsed();
        answered.first = first.unwrap_or(answered.total);
        Ok(answered)
    }
}

fn kind(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "timeout".to_owned(),
        ureq::Error::Io(error) => format!("{}", error.kind()),
        _ => "connection".to_owned(),
    }
}

/// A prompt of about so many tokens: its shared beginning first, then words of its own.
fn prompt(number: u64, arrival: &Arrival) -> String {
    let shared = arrival.shared_tokens.min(arrival.prompt_tokens);
    let mut words = Vec::new();
    let mut say = |mut dice: Dice, count: u64| {
        words.extend((0..count).map(|_| WORDS[dice.next() as usize % WORDS.len()]));
    };
    if let Some(prefix) = arrival.prefix {
        say(Dice { key: prefix, count: 1 << 40 }, shared);
    }
    say(Dice { key: number, count: 1 << 50 }, arrival.prompt_tokens - shared);
    words.join(" ")
}
