//! OpenAI's JSON for answers: whole, or chunk by chunk.

use crate::answer::{End, Usage, Whole};
use crate::calls::Said;
use crate::likelihood::{self, Likelihood};
use crate::order::Endpoint;
use crate::parameters::Tier;
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
    /// Whether the client named the function to call.
    pub(crate) named: bool,
    /// The class of service that is told.
    pub(crate) tier: Option<Tier>,
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

impl Shape {
    /// Why an answer ended, in OpenAI's word.
    pub(crate) fn finish_reason(&self, end: &End) -> &'static str {
        match end.finish {
            Finish::Stop if end.called && !self.named => "tool_calls",
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }

    fn around(&self, object: &str, choices: Vec<Value>) -> Value {
        let mut around = json!({
            "id": self.id,
            "object": object,
            "created": self.created_seconds,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        });
        if let Some(tier) = self.tier {
            around["service_tier"] = json!(tier.name());
        }
        around
    }

    /// The id of a call: of one answer each has its own.
    fn call_id(&self, index: usize, number: usize) -> String {
        let random = self.id.rsplit('-').next().unwrap_or_default();
        format!("call_{}{index:02x}{number:02x}", &random[..random.len().min(20)])
    }

    fn likelihoods(&self, likelihoods: &[Likelihood], offset: &mut usize) -> Value {
        match self.endpoint {
            Endpoint::Chat => likelihood::of_chat(likelihoods),
            Endpoint::Completions => likelihood::of_completion(likelihoods, offset),
        }
    }

    /// The whole response. With several choices each has its own receipt, otherwise it stands beside `usage`.
    pub(crate) fn whole(&self, answers: &[Whole]) -> Value {
        let several = answers.len() > 1;
        let object = match self.endpoint {
            Endpoint::Chat => "chat.completion",
            Endpoint::Completions => "text_completion",
        };
        let mut total = Usage::default();
        let choices = answers.iter().enumerate().map(|(index, answer)| {
            total += answer.end.usage;
            let logprobs = answer.likelihoods.as_ref().map(|all| self.likelihoods(all, &mut 0));
            let reason = self.finish_reason(&answer.end);
            let mut choice = json!({"index": index, "logprobs": logprobs, "finish_reason": reason});
            match self.endpoint {
                Endpoint::Chat => choice["message"] = self.message(index, answer),
                Endpoint::Completions => choice["text"] = json!(answer.text),
            }
            if several {
                choice["receipt"] = receipt(&answer.end.ticket);
            }
            choice
        });
        let mut whole = self.around(object, choices.collect());
        whole["usage"] = usage(total);
        if let [answer] = answers {
            whole["receipt"] = receipt(&answer.end.ticket);
        }
        whole
    }

    fn message(&self, index: usize, answer: &Whole) -> Value {
        let mut message = json!({"role": "assistant", "content": answer.text, "refusal": null});
        if answer.calls.is_empty() {
            return message;
        }
        if answer.text.is_empty() {
            message["content"] = Value::Null;
        }
        let calls = answer.calls.iter().enumerate().map(|(number, (name, arguments))| {
            let function = json!({"name": name, "arguments": arguments});
            json!({"id": self.call_id(index, number), "type": "function", "function": function})
        });
        message["tool_calls"] = calls.collect();
        message
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

    fn choice_chunk(&self, index: usize, delta: Value, text: &str, logprobs: Value) -> Value {
        let mut choice = json!({"index": index, "logprobs": logprobs, "finish_reason": null});
        match self.endpoint {
            Endpoint::Chat => choice["delta"] = delta,
            Endpoint::Completions => choice["text"] = json!(text),
        }
        self.chunk(vec![choice])
    }

    /// The chunk before a choice's text, where there is one.
    pub(crate) fn first_chunk(&self, index: usize) -> Option<Value> {
        let delta = json!({"role": "assistant", "content": "", "refusal": null});
        (self.endpoint == Endpoint::Chat).then(|| self.choice_chunk(index, delta, "", Value::Null))
    }

    /// A chunk of what a choice says, with the likelihoods of the tokens since the last.
    pub(crate) fn said_chunk(&self, index: usize, said: &Said, tokens: &[Likelihood], offset: &mut usize) -> Value {
        let logprobs = if tokens.is_empty() { Value::Null } else { self.likelihoods(tokens, offset) };
        let (delta, text) = match said {
            Said::Text(text) => (json!({"content": text}), text.as_str()),
            Said::Call(number, name) => {
                let function = json!({"name": name, "arguments": ""});
                let id = self.call_id(index, *number);
                (json!({"tool_calls": [{"index": number, "id": id, "type": "function", "function": function}]}), "")
            }
            Said::Arguments(number, arguments) => {
                (json!({"tool_calls": [{"index": number, "function": {"arguments": arguments}}]}), "")
            }
        };
        self.choice_chunk(index, delta, text, logprobs)
    }

    /// The chunk that ends a choice; it carries the choice's receipt.
    pub(crate) fn last_chunk(&self, index: usize, end: &End, tokens: &[Likelihood], offset: &mut usize) -> Value {
        let logprobs = if tokens.is_empty() { Value::Null } else { self.likelihoods(tokens, offset) };
        let mut chunk = self.choice_chunk(index, json!({}), "", logprobs);
        chunk["choices"][0]["finish_reason"] = json!(self.finish_reason(end));
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
