//! Traces: what OpenTelemetry's conventions for generative AI say of a request, sent to a collector as OTLP/HTTP in JSON.
//!
//! A request is a span, of the caller's trace if it named one (`traceparent`), with a child for each part of each answer:
//! *queue*, *prefill* (to the first token), *decode*, *receipt*. Numbers, names and ends are told; prompts, answers and what
//! opens receipts are not. Nothing waits for a collector: spans go into a bounded queue, and what it cannot hold, or what
//! a collector does not take in time, is dropped and counted.

mod context;
mod export;
mod json;
mod span;

pub use export::{Otlp, OtlpError};
pub(crate) use span::Trace;

use crate::app::random;
use crate::order::Endpoint;
use axum::http::HeaderMap;
use context::Context;
use export::Exporter;
use span::Open;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;

/// Where traces go, if anywhere.
#[derive(Default)]
pub(crate) struct Traces {
    exporter: Option<Arc<Exporter>>,
    address: OnceLock<SocketAddr>,
}

impl Traces {
    /// Sends them there; `instance` names this node.
    pub(crate) fn to(otlp: Otlp, instance: &str) -> std::io::Result<Traces> {
        Ok(Traces { exporter: Some(Exporter::start(otlp, instance)?), address: OnceLock::new() })
    }

    /// Where this server listens.
    pub(crate) fn set_address(&self, address: SocketAddr) {
        // A server listens once.
        let _ = self.address.set(address);
    }

    /// The trace of a request that came at `started`. There is none if nobody asked for traces, or if the caller's own is
    /// not recorded.
    pub(crate) fn begin(&self, endpoint: Endpoint, headers: Option<&HeaderMap>, started: Instant) -> Trace {
        let Some(exporter) = &self.exporter else { return Trace::default() };
        let context = headers.and_then(Context::read);
        if context.as_ref().is_some_and(|context| !context.sampled) {
            return Trace::default();
        }
        let Ok(ids) = random::<24>() else { return Trace::default() };
        Trace::new(Open::new(exporter.clone(), endpoint, context, ids, self.address.get().copied(), started))
    }

    /// Spans that a collector took, and spans that were dropped; none without a collector.
    pub(crate) fn counts(&self) -> Option<[u64; 2]> {
        self.exporter.as_ref().map(|exporter| exporter.counts())
    }

    /// Sends what is left, for as long as `patience`. Blocks.
    pub(crate) fn close(&self, patience: Duration) {
        if let Some(exporter) = &self.exporter {
            exporter.close(patience);
        }
    }
}
