//! Spans as OTLP writes them in JSON: ids in hexadecimal, numbers of 64 bits as text, kinds as numbers.

use super::span::{Span, Value as Attribute};
use crate::hex;
use serde_json::{Value, json};

/// Kinds of spans: of a server that was asked, and within it.
const INTERNAL: u32 = 1;
const SERVER: u32 = 2;
/// Status of a span that ended in an error.
const ERROR: u32 = 2;
/// Flags: recorded; it is known whether the parent is remote; it is.
const SAMPLED: u32 = 1;
const KNOWS_REMOTE: u32 = 1 << 8;
const IS_REMOTE: u32 = 1 << 9;

/// The body of `POST /v1/traces`.
pub(super) fn body(resource: &[(&'static str, Attribute)], spans: &[Span]) -> Value {
    let scope = json!({"name": "lockstep", "version": env!("CARGO_PKG_VERSION")});
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes(resource)},
        "scopeSpans": [{"scope": scope, "spans": spans}],
    }]})
}

fn span(span: &Span) -> Value {
    let inner = span.parent.is_some() && !span.remote;
    let remote = if span.remote { IS_REMOTE } else { 0 };
    let mut value = json!({
        "traceId": hex::encode(&span.trace),
        "spanId": hex::encode(&span.id),
        "name": span.name,
        "kind": if inner { INTERNAL } else { SERVER },
        "flags": SAMPLED | KNOWS_REMOTE | remote,
        "startTimeUnixNano": span.start.to_string(),
        "endTimeUnixNano": span.end.to_string(),
        "attributes": attributes(&span.attributes),
    });
    if let Some(parent) = &span.parent {
        value["parentSpanId"] = json!(hex::encode(parent));
    }
    if !span.state.is_empty() {
        value["traceState"] = json!(span.state);
    }
    if span.failed {
        value["status"] = json!({"code": ERROR});
    }
    value
}

fn attributes(attributes: &[(&'static str, Attribute)]) -> Vec<Value> {
    attributes.iter().map(|(name, value)| json!({"key": name, "value": attribute(value)})).collect()
}

fn attribute(value: &Attribute) -> Value {
    match value {
        Attribute::Text(text) => json!({"stringValue": text}),
        Attribute::Integer(integer) => json!({"intValue": integer.to_string()}),
        Attribute::Number(number) => json!({"doubleValue": number}),
        Attribute::Texts(texts) => {
            let values: Vec<Value> = texts.iter().map(|text| json!({"stringValue": text})).collect();
            json!({"arrayValue": {"values": values}})
        }
    }
}
