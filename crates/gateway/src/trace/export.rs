//! The thread that hands spans to a collector, and the bounded queue before it.

use super::json;
use super::span::{Span, Value};
use axum::http::{HeaderName, HeaderValue, Uri};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Spans that may wait; those that come then are dropped.
const WAITING_MAX: usize = 8192;
/// Spans of one request to the collector.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long a collector may take for a batch.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pauses before a batch is sent again; then it is dropped.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// A collector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Otlp {
    url: String,
    headers: Vec<(String, String)>,
    service: String,
}

/// Why traces cannot be sent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// The collector's address.
    #[error("traces cannot be sent to {0:?}: give an address like http://localhost:4318 (OTLP over HTTP, in JSON)")]
    Address(String),
    /// The headers to send along. Not told, since they may be secret.
    #[error("headers for the collector are written NAME=VALUE,NAME=VALUE, values percent-encoded")]
    Headers,
}

impl Otlp {
    /// The collector at `base`, to which `/v1/traces` is added unless it ends so; headers are as `OTEL_EXPORTER_OTLP_HEADERS`
    /// has them, `NAME=VALUE,…`, percent-encoded; `service` is this server's name.
    ///
    /// # Errors
    /// No address over HTTP, or no headers.
    pub fn new(base: &str, headers: &str, service: &str) -> Result<Otlp, OtlpError> {
        let base = base.trim().trim_end_matches('/');
        let wrong = || OtlpError::Address(base.to_owned());
        let uri: Uri = base.parse().map_err(|_| wrong())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.query().is_some() {
            return Err(wrong());
        }
        let url = if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") };
        let headers = headers.split(',').filter(|header| !header.trim().is_empty()).map(header);
        let headers = headers.collect::<Option<Vec<_>>>().ok_or(OtlpError::Headers)?;
        Ok(Otlp { url, headers, service: service.to_owned() })
    }
}

fn header(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    // A plus is a plus here, not a space as in forms.
    let value = value.trim().replace('+', "%2B");
    let value = form_urlencoded::parse(value.as_bytes()).next().map_or(String::new(), |(value, _)| value.into_owned());
    let name = HeaderName::try_from(name.trim()).ok()?.to_string();
    HeaderValue::try_from(&value).ok()?;
    Some((name, value))
}

/// The queue, and what became of spans.
pub(super) struct Exporter {
    queue: Mutex<Queue>,
    changed: Condvar,
    taken: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Queue {
    spans: VecDeque<Span>,
    /// Whether no more come.
    closed: bool,
    /// Whether the thread has ended.
    ended: bool,
}

impl Exporter {
    pub(super) fn start(otlp: Otlp, instance: &str) -> io::Result<Arc<Exporter>> {
        let (taken, dropped) = (AtomicU64::new(0), AtomicU64::new(0));
        let exporter = Arc::new(Exporter { queue: Mutex::default(), changed: Condvar::new(), taken, dropped });
        let resource = vec![
            ("service.name", Value::Text(otlp.service.clone())),
            ("service.version", Value::Text(env!("CARGO_PKG_VERSION").to_owned())),
            ("service.instance.id", Value::Text(instance.to_owned())),
        ];
        let own = exporter.clone();
        let run = move || own.run(&otlp, &resource);
        std::thread::Builder::new().name("lockstep-traces".to_owned()).spawn(run)?;
        Ok(exporter)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes spans that belong together, if there is room.
    pub(super) fn push(&self, spans: Vec<Span>) {
        let mut queue = self.lock();
        if queue.closed || queue.spans.len() + spans.len() > WAITING_MAX {
            self.dropped.fetch_add(spans.len() as u64, Relaxed);
            return;
        }
        // The thread sleeps while there are none, and until there is a batch.
        let wake = queue.spans.is_empty() || queue.spans.len() + spans.len() >= BATCH;
        queue.spans.extend(spans);
        if wake {
            self.changed.notify_all();
        }
    }

    /// Spans that a collector took, and spans that were dropped.
    pub(super) fn counts(&self) -> [u64; 2] {
        [&self.taken, &self.dropped].map(|count| count.load(Relaxed))
    }

    /// Takes no more, and waits until those here are sent, or `patience` is over.
    pub(super) fn close(&self, patience: Duration) {
        let mut queue = self.lock();
        queue.closed = true;
        self.changed.notify_all();
        let waited = self.changed.wait_timeout_while(queue, patience, |queue| !queue.ended);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn run(&self, otlp: &Otlp, resource: &[(&'static str, Value)]) {
        let config = ureq::Agent::config_builder().timeout_global(Some(DEADLINE)).http_status_as_error(false);
        let agent: ureq::Agent = config.user_agent(concat!("lockstep/", env!("CARGO_PKG_VERSION"))).build().into();
        let mut well = true;
        while let Some(batch) = self.next() {
            let body = json::body(resource, &batch).to_string();
            let sent = self.send(&agent, otlp, &body);
            let count = if sent.is_ok() { &self.taken } else { &self.dropped };
            count.fetch_add(batch.len() as u64, Relaxed);
            match &sent {
                Err(what) if well => tracing::warn!("the collector of traces does not take them: {what}"),
                Ok(()) if !well => tracing::info!("the collector of traces takes them again"),
                _ => {}
            }
            well = sent.is_ok();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }

    /// The next batch; none at the end.
    fn next(&self) -> Option<Vec<Span>> {
        let mut queue = self.lock();
        let mut until = None;
        loop {
            let now = Instant::now();
            let count = queue.spans.len().min(BATCH);
            if count > 0 && (queue.closed || count == BATCH || until.is_some_and(|until| until <= now)) {
                return Some(queue.spans.drain(..count).collect());
            }
            if queue.closed {
                return None;
            }
            let until = if count == 0 { None } else { Some(*until.get_or_insert(now + GATHER)) };
            // While there are none, it is woken by the first.
            let patience = until.map_or(Duration::from_secs(3600), |until| until.saturating_duration_since(now));
            queue = self.changed.wait_timeout(queue, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn send(&self, agent: &ureq::Agent, otlp: &Otlp, body: &str) -> Result<(), String> {
        let mut pauses = PAUSES.iter();
        loop {
            let mut request = agent.post(&otlp.url).header("content-type", "application/json");
            for (name, value) in &otlp.headers {
                request = request.header(name, value);
            }
            let (what, again) = match request.send(body) {
                Ok(response) if response.status().is_success() => return Ok(()),
                Ok(response) => {
                    let status = response.status();
                    (format!("it answers {status}"), matches!(status.as_u16(), 429 | 502..=504))
                }
                Err(error) => (error.to_string(), true),
            };
            let Some(pause) = pauses.next().filter(|_| again) else { return Err(what) };
            let closed = self.changed.wait_timeout_while(self.lock(), *pause, |queue| !queue.closed);
            if closed.unwrap_or_else(PoisonError::into_inner).0.closed {
                return Err(what);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_an_address_over_http_and_perhaps_headers() {
        let otlp = |base: &str| Otlp::new(base, "", "x").map(|otlp| otlp.url);
        assert_eq!(otlp("http://localhost:4318").unwrap(), "http://localhost:4318/v1/traces");
        assert_eq!(otlp("https://h/otlp/ ").unwrap(), "https://h/otlp/v1/traces");
        assert_eq!(otlp("http://h/v1/traces").unwrap(), "http://h/v1/traces");
        for wrong in ["", "localhost:4318", "grpc://h:4317", "http://h/?a=b", "http://"] {
            assert!(matches!(otlp(wrong), Err(OtlpError::Address(_))), "{wrong}");
        }
        let headers = |text: &str| Otlp::new("http://h", text, "x").map(|otlp| otlp.headers);
        let own = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(
            headers("Authorization=Bearer%20a+b, x-a=1").unwrap(),
            own(&[("authorization", "Bearer a+b"), ("x-a", "1")])
        );
        for wrong in ["a", "a b=1", "a=%0A"] {
            assert_eq!(headers(wrong), Err(OtlpError::Headers), "{wrong}");
        }
    }
}
