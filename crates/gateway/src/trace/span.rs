//! A request's spans while it is being answered.

use super::context::Context;
use super::export::Exporter;
use crate::answer::{End, Usage};
use crate::app::random;
use crate::error::ApiError;
use crate::order::{Endpoint, Order};
use grammar::Kind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A span that has ended, or is about to.
pub(super) struct Span {
    pub(super) trace: [u8; 16],
    pub(super) id: [u8; 8],
    pub(super) parent: Option<[u8; 8]>,
    /// Whether the parent is the caller's.
    pub(super) remote: bool,
    /// The caller's `tracestate`.
    pub(super) state: String,
    pub(super) name: String,
    /// Nanoseconds since 1970.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) failed: bool,
}

/// What an attribute says.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Number(f64),
    Texts(Vec<String>),
}

/// The trace of one request; it is sent when it is dropped.
#[derive(Default)]
pub(crate) struct Trace(Option<Box<Open>>);

/// A request's span, and its children so far.
pub(super) struct Open {
    exporter: Arc<Exporter>,
    /// One moment by both clocks.
    now: (Instant, u64),
    span: Span,
    children: Vec<Span>,
    /// Answers that are to come.
    awaited: usize,
    reasons: Vec<String>,
    receipts: Vec<String>,
    usage: Usage,
    error: Option<String>,
}

impl Open {
    /// `ids` are random: a trace's and a span's.
    pub(super) fn new(
        exporter: Arc<Exporter>,
        endpoint: Endpoint,
        context: Option<Context>,
        ids: [u8; 24],
        address: Option<SocketAddr>,
        started: tokio::time::Instant,
    ) -> Open {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = (Instant::now(), u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        let operation = endpoint.operation();
        let mut attributes = vec![
            ("gen_ai.operation.name", Value::Text(operation.to_owned())),
            ("gen_ai.provider.name", Value::Text("lockstep".to_owned())),
        ];
        if let Some(address) = address {
            attributes.push(("server.address", Value::Text(address.ip().to_string())));
            attributes.push(("server.port", Value::Integer(address.port().into())));
        }
        let own = std::array::from_fn(|byte| ids[byte]);
        let span = Span {
            trace: context.as_ref().map_or(own, |context| context.trace),
            id: std::array::from_fn(|byte| ids[16 + byte]),
            parent: context.as_ref().map(|context| context.parent),
            remote: context.is_some(),
            state: context.map(|context| context.state).unwrap_or_default(),
            name: operation.to_owned(),
            start: nanoseconds(now, started.into_std()),
            end: 0,
            attributes,
            failed: false,
        };
        let (children, reasons, receipts) = (vec![], vec![], vec![]);
        let usage = Usage::default();
        // Until its body is read, it is as if an answer were to come.
        Open { exporter, now, span, children, awaited: 1, reasons, receipts, usage, error: None }
    }

    fn child(&mut self, name: &str, from: Instant, to: Instant, choice: usize) {
        let Ok(id) = random() else { return };
        self.children.push(Span {
            trace: self.span.trace,
            id,
            parent: Some(self.span.id),
            remote: false,
            state: self.span.state.clone(),
            name: name.to_owned(),
            start: nanoseconds(self.now, from),
            end: nanoseconds(self.now, to),
            attributes: vec![("lockstep.choice", Value::Integer(choice as i64))],
            failed: false,
        });
    }
}

/// Nanoseconds since 1970 of a moment, told one moment by both clocks.
fn nanoseconds(now: (Instant, u64), at: Instant) -> u64 {
    let until = |span: std::time::Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    match at.checked_duration_since(now.0) {
        Some(after) => now.1.saturating_add(until(after)),
        None => now.1.saturating_sub(until(now.0.duration_since(at))),
    }
}

impl Trace {
    pub(super) fn new(open: Open) -> Trace {
        Trace(Some(Box::new(open)))
    }

    /// What was asked, and the id that its answer will have.
    pub(crate) fn ask(&mut self, order: &Order, id: &str) {
        let (Some(open), Some(first)) = (&mut self.0, order.questions.first()) else { return };
        let (request, shaping) = (&first.request, &first.request.shaping);
        open.awaited = order.questions.len();
        open.span.name = format!("{} {}", open.span.name, order.model);
        let mut add = |name, value| open.span.attributes.push((name, value));
        add("gen_ai.request.model", Value::Text(order.model.clone()));
        add("gen_ai.response.model", Value::Text(order.model.clone()));
        add("gen_ai.response.id", Value::Text(id.to_owned()));
        add("gen_ai.request.max_tokens", Value::Integer(request.tokens_max as i64));
        add("gen_ai.request.temperature", Value::Number(request.sampling.temperature));
        add("gen_ai.request.top_p", Value::Number(request.sampling.top_p));
        if request.sampling.top_k > 0 {
            add("gen_ai.request.top_k", Value::Number(f64::from(request.sampling.top_k)));
        }
        if first.seed_from_client {
            add("gen_ai.request.seed", Value::Integer(request.sampling.seed.cast_signed()));
        }
        for (name, penalty) in [
            ("gen_ai.request.frequency_penalty", shaping.adjust.frequency),
            ("gen_ai.request.presence_penalty", shaping.adjust.presence),
        ] {
            if penalty != 0.0 {
                add(name, Value::Number(penalty));
            }
        }
        if order.questions.len() > 1 {
            add("gen_ai.request.choice.count", Value::Integer(order.questions.len() as i64));
        }
        if shaping.form.as_ref().is_some_and(|form| form.source().kind == Kind::JsonSchema) {
            add("gen_ai.output.type", Value::Text("json".to_owned()));
        }
    }

    /// An answer is complete, for this reason.
    pub(crate) fn answer(&mut self, choice: usize, end: &End, reason: &str) {
        let Some(open) = &mut self.0 else { return };
        let times = end.times;
        open.child("queue", times.queued, times.admitted, choice);
        open.child("prefill", times.admitted, times.first, choice);
        open.child("decode", times.first, times.last, choice);
        open.child("receipt", end.closed.0, end.closed.1, choice);
        open.awaited = open.awaited.saturating_sub(1);
        open.reasons.push(reason.to_owned());
        // Without the key, which would open the prompt to whoever reads traces.
        open.receipts.push(end.ticket.public().id());
        open.usage += end.usage;
    }

    /// There will be no answer.
    pub(crate) fn fail(&mut self, error: &ApiError) {
        if let Some(open) = &mut self.0 {
            open.error = Some(error.name().to_owned());
            open.span.attributes.push(("http.response.status_code", Value::Integer(error.status.as_u16().into())));
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let Some(open) = self.0.take() else { return };
        let Open { exporter, now, mut span, children, awaited, reasons, receipts, usage, error } = *open;
        // Whoever asked went away.
        let error = error.or((awaited > 0).then(|| "cancelled".to_owned()));
        let mut add = |name, value| span.attributes.push((name, value));
        if !reasons.is_empty() {
            add("gen_ai.response.finish_reasons", Value::Texts(reasons));
            add("gen_ai.usage.input_tokens", Value::Integer(usage.prompt as i64));
            add("gen_ai.usage.output_tokens", Value::Integer(usage.completion as i64));
            add("gen_ai.usage.cache_read.input_tokens", Value::Integer(usage.cached as i64));
            add("lockstep.receipt.ids", Value::Texts(receipts));
        }
        if let Some(error) = error {
            add("error.type", Value::Text(error));
            span.failed = true;
        }
        span.end = nanoseconds(now, Instant::now());
        exporter.push(std::iter::once(span).chain(children).collect());
    }
}
