//! OpenAI's JSON for answers: whole, or chunk by chunk.

use crate::answer::{End, Usage};
use crate::order::Endpoint;
use crate::ticket::Ticket;
use engine::Finish;
use serde_json::{Value, json};

/// What all chunks of an answer repeat.
pub(crate) struct Shape {
    pub(crate) endpoint: Endpoint,
    pub(crate) id: String,
    pub(crate) created_seconds: u64,
    pub(crate) model: String,
    pub(crate) fingerprint: String,
    /// Whether a stream ends with its usage; the chunks before then say `"usage": null`.
    pub(crate) include_usage: bool,
}

/// Where a receipt is.
pub(crate) fn receipt(ticket: &Ticket) -> Value {
    let id = ticket.id();
    json!({"id": id, "url": format!("/v1/receipts/{id}")})
}

fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {
            "accepted_prediction_tokens": usage.accepted,
            "rejected_prediction_tokens": usage.rejected,
        },
    })
}

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

impl Shape {
    fn around(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created_seconds,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        })
    }

    /// The whole response. With several choices each has its own receipt, otherwise it stands beside `usage`.
    pub(crate) fn whole(&self, answers: &[(String, End)]) -> Value {
        let (object, several) = match self.endpoint {
            Endpoint::Chat => ("chat.completion", answers.len() > 1),
            Endpoint::Completions => ("text_completion", answers.len() > 1),
        };
        let mut total = Usage::default();
        let choices = answers.iter().enumerate().map(|(index, (text, end))| {
            total += end.usage;
            let mut choice = json!({"index": index, "logprobs": null, "finish_reason": finish_reason(end.finish)});
            match self.endpoint {
                Endpoint::Chat => choice["message"] = json!({"role": "assistant", "content": text, "refusal": null}),
                Endpoint::Completions => choice["text"] = json!(text),
            }
            if several {
                choice["receipt"] = receipt(&end.ticket);
            }
            choice
        });
        let mut whole = self.around(object, choices.collect());
        whole["usage"] = usage(total);
        if let [(_, end)] = answers {
            whole["receipt"] = receipt(&end.ticket);
        }
        whole
    }

    fn chunk(&self, choices: Vec<Value>) -> Value {
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion.chunk",
            Endpoint::Completions => "text_completion",
        };
        let mut chunk = self.around(object, choices);
        if self.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn choice_chunk(&self, index: usize, delta: Value, text: &str, finish: Option<Finish>) -> Value {
        let mut choice = json!({"index": index, "logprobs": null, "finish_reason": finish.map(finish_reason)});
        match self.endpoint {
            Endpoint::Chat => choice["delta"] = delta,
            Endpoint::Completions => choice["text"] = json!(text),
        }
        self.chunk(vec![choice])
    }

    /// The chunk before a choice's text, where there is one.
    pub(crate) fn first_chunk(&self, index: usize) -> Option<Value> {
        let delta = json!({"role": "assistant", "content": "", "refusal": null});
        (self.endpoint == Endpoint::Chat).then(|| self.choice_chunk(index, delta, "", None))
    }

    /// A chunk of a choice's text.
    pub(crate) fn text_chunk(&self, index: usize, text: &str) -> Value {
        self.choice_chunk(index, json!({"content": text}), text, None)
    }

    /// The chunk that ends a choice; it carries the choice's receipt.
    pub(crate) fn last_chunk(&self, index: usize, end: &End) -> Value {
        let mut chunk = self.choice_chunk(index, json!({}), "", Some(end.finish));
        chunk["receipt"] = receipt(&end.ticket);
        chunk
    }

    /// The chunk that tells the usage of all choices.
    pub(crate) fn usage_chunk(&self, total: Usage) -> Value {
        let mut chunk = self.chunk(vec![]);
        chunk["usage"] = usage(total);
        chunk
    }
}
