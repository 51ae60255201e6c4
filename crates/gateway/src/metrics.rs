//! What a server measures about itself, in Prometheus' text form, by vLLM's names where vLLM has one.

use crate::app::App;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use engine::{Finish, Times};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const FIRST: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
];
const BETWEEN: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 40.0];
const WHOLE: &[f64] =
    &[0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 240.0, 480.0, 960.0];

/// A histogram of durations.
struct Histogram {
    bounds: &'static [f64],
    /// One more than bounds.
    counts: Vec<AtomicU64>,
    sum_microseconds: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, sum_microseconds: AtomicU64::new(0) }
    }

    fn add(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let place = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[place].fetch_add(1, Relaxed);
        self.sum_microseconds.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str, label: &str) {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        let mut total = 0;
        for (place, count) in self.counts.iter().enumerate() {
            total += count.load(Relaxed);
            let bound = self.bounds.get(place).map_or("+Inf".to_owned(), f64::to_string);
            let _ = writeln!(out, "{name}_bucket{{{label},le=\"{bound}\"}} {total}");
        }
        let sum = self.sum_microseconds.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(out, "{name}_sum{{{label}}} {sum}\n{name}_count{{{label}}} {total}");
    }
}

/// Counts since the server started.
pub(crate) struct Metrics {
    first: Histogram,
    between: Histogram,
    whole: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    prompt_tokens: AtomicU64,
    answer_tokens: AtomicU64,
    stopped: AtomicU64,
    at_length: AtomicU64,
    aborted: AtomicU64,
    /// Answers of 400 to 599, by hundreds and 429 apart.
    refused: AtomicU64,
    busy: AtomicU64,
    failed: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let zero = || AtomicU64::new(0);
        Metrics {
            first: Histogram::new(FIRST),
            between: Histogram::new(BETWEEN),
            whole: Histogram::new(WHOLE),
            queue: Histogram::new(WHOLE),
            prefill: Histogram::new(WHOLE),
            decode: Histogram::new(WHOLE),
            prompt_tokens: zero(),
            answer_tokens: zero(),
            stopped: zero(),
            at_length: zero(),
            aborted: zero(),
            refused: zero(),
            busy: zero(),
            failed: zero(),
        }
    }
}

impl Metrics {
    /// The first piece of an answer came.
    pub(crate) fn first(&self, after: Duration) {
        self.first.add(after);
    }

    /// A further piece came.
    pub(crate) fn further(&self, after: Duration) {
        self.between.add(after);
    }

    /// An answer is complete.
    pub(crate) fn complete(&self, finish: Finish, prompt: usize, answer: usize, after: Duration) {
        self.whole.add(after);
        self.prompt_tokens.fetch_add(prompt as u64, Relaxed);
        self.answer_tokens.fetch_add(answer as u64, Relaxed);
        let counter = match finish {
            Finish::Stop => &self.stopped,
            Finish::Length => &self.at_length,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// How long its parts took.
    pub(crate) fn parts(&self, times: &Times) {
        self.queue.add(times.admitted - times.queued);
        self.prefill.add(times.first - times.admitted);
        self.decode.add(times.last - times.first);
    }

    /// An answer was given up.
    pub(crate) fn aborted(&self) {
        self.aborted.fetch_add(1, Relaxed);
    }

    /// How requests ended, in words.
    pub(crate) fn outcomes(&self) -> [(&'static str, u64); 6] {
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        [
            ("answers that stopped by themselves", count(&self.stopped)),
            ("answers that reached the length asked for", count(&self.at_length)),
            ("answers broken off by their clients", count(&self.aborted)),
            ("requests refused as wrong or not allowed (4xx)", count(&self.refused)),
            ("requests refused because too much was asked for at once (429)", count(&self.busy)),
            ("requests that failed here (5xx)", count(&self.failed)),
        ]
    }

    /// A request was answered with an error.
    pub(crate) fn error(&self, status: u16) {
        let counter = match status {
            429 => &self.busy,
            500.. => &self.failed,
            _ => &self.refused,
        };
        counter.fetch_add(1, Relaxed);
    }
}

pub(crate) async fn get(State(app): State<Arc<App>>) -> Response {
    let mut response = Response::new(Body::from(text(&app)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn text(app: &App) -> String {
    let (load, engine, metrics) = (app.engine.load(), app.engine.counters(), &app.metrics);
    let name = app.base_name.replace('\\', "\\\\").replace('"', "\\\"");
    let label = format!("model_name=\"{name}\"");
    let mut out = String::new();
    let mut one = |name: &str, kind: &str, help: &str, values: &[(&str, f64)]| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (more, value) in values {
            let _ = writeln!(out, "{name}{{{label}{more}}} {value}");
        }
    };
    let count = |counter: &AtomicU64| counter.load(Relaxed) as f64;
    let used = load.pages_used as f64 / load.pages_total.max(1) as f64;
    one("vllm:num_requests_running", "gauge", "Requests being computed.", &[("", load.running as f64)]);
    one("vllm:num_requests_waiting", "gauge", "Requests that wait.", &[("", load.waiting as f64)]);
    one("vllm:kv_cache_usage_perc", "gauge", "Share of the pages of keys and values in use, 0 to 1.", &[("", used)]);
    let tokens = [count(&metrics.prompt_tokens), count(&metrics.answer_tokens)];
    one("vllm:prompt_tokens_total", "counter", "Tokens of prompts of complete answers.", &[("", tokens[0])]);
    one("vllm:generation_tokens_total", "counter", "Tokens of complete answers.", &[("", tokens[1])]);
    let reasons = [
        (",finished_reason=\"stop\"", count(&metrics.stopped)),
        (",finished_reason=\"length\"", count(&metrics.at_length)),
        (",finished_reason=\"abort\"", count(&metrics.aborted)),
    ];
    one("vllm:request_success_total", "counter", "Answers by how they ended.", &reasons);
    let errors = [
        (",kind=\"refused\"", count(&metrics.refused)),
        (",kind=\"queue_full\"", count(&metrics.busy)),
        (",kind=\"failed\"", count(&metrics.failed)),
    ];
    one("lockstep:request_errors_total", "counter", "Requests answered with an error.", &errors);
    one("lockstep:receipts_total", "counter", "Receipts the node has made.", &[("", app.recorder.count() as f64)]);
    for (name, help, value) in [
        ("vllm:num_preemptions_total", "Answers that gave way to others.", engine.preemptions),
        ("vllm:prefix_cache_queries_total", "Tokens of prompts.", engine.cached_tokens + engine.prefill_tokens),
        ("vllm:prefix_cache_hits_total", "Tokens of prompts that were found computed.", engine.cached_tokens),
        (
            "vllm:spec_decode_num_draft_tokens_total",
            "Tokens guessed ahead.",
            engine.drafts_accepted + engine.drafts_rejected,
        ),
        ("vllm:spec_decode_num_accepted_tokens_total", "Guesses that were right.", engine.drafts_accepted),
    ] {
        one(name, "counter", help, &[("", value as f64)]);
    }
    if let Some([taken, dropped]) = app.traces.counts() {
        one("lockstep:spans_exported_total", "counter", "Spans the collector took.", &[("", taken as f64)]);
        let help = "Spans dropped because the collector was down or too slow.";
        one("lockstep:spans_dropped_total", "counter", help, &[("", dropped as f64)]);
    }
    let help = "From the request to the first piece of its answer.";
    metrics.first.write(&mut out, "vllm:time_to_first_token_seconds", help, &label);
    metrics.between.write(&mut out, "vllm:inter_token_latency_seconds", "Between pieces of an answer.", &label);
    let help = "From the request to the end of its answer, its receipt kept.";
    metrics.whole.write(&mut out, "vllm:e2e_request_latency_seconds", help, &label);
    for (part, name, help) in [
        (&metrics.queue, "vllm:request_queue_time_seconds", "In the queue, of complete answers."),
        (&metrics.prefill, "vllm:request_prefill_time_seconds", "From the queue to the first token."),
        (&metrics.decode, "vllm:request_decode_time_seconds", "From the first token to the last."),
    ] {
        part.write(&mut out, name, help, &label);
    }
    out
}
