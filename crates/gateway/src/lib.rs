//! The face: an OpenAI-compatible API over an engine, where every answer carries a signed receipt.
//!
//! A [`Server`] takes an [`engine::Engine`] and a [`Config`]: the base's name, the adapters by name, and a data folder.
//! The base and each adapter are models to clients.
//!
//! | route | what it does |
//! |---|---|
//! | `POST /v1/chat/completions` | continues a conversation, whole or streamed |
//! | `POST /v1/completions` | continues text or tokens, whole or streamed |
//! | `GET /v1/models`, `/v1/models/{id}` | the base and the adapters |
//! | `GET /v1/receipts/{id}` | the bundle of an answer: receipt, tokens, settings |
//! | `GET /v1/log/checkpoint`, `/v1/log/tile/…` | the log of receipts, for anybody |
//! | `POST /v1/load_lora_adapter`, `/v1/unload_lora_adapter` | adapters come and go while the server runs |
//! | `POST /v1/pin_lora_adapter`, `/v1/unpin_lora_adapter` | adapters stay resident, or no longer |
//! | `GET /v1/prices` | what requests cost, and who earns what of it |
//! | `GET /metrics` | what is measured, for Prometheus |
//! | `GET /health` | whether the server is well, and how full |
//! | `GET /` | this, for people |
//! | `GET /dashboard` | pages to see it, try it, and catch a cheat |
//!
//! # Receipts
//! An answer's receipt is numbered, chained to the one before, signed, and durable in the log before the client gets the
//! end of the answer. A server that is killed at any moment has lost no receipt that a client knows of, and continues the
//! chain. If the disk refuses, so does the server. What opens receipts is kept apart, encrypted, and deleted after the audit
//! window ([`Limits::audit_window`]).
//!
//! The answer's `receipt.id` is `rcpt-NAME-KEY`. `NAME` is the first half of the receipt's hash, which the node's next
//! receipt tells to whoever gets that; alone it opens the receipt, which holds salted hashes only. The tokens behind them
//! are opened by `KEY`, which nobody but the client is told, or by the token of auditors (`audit.token` in the data folder)
//! in the header `x-lockstep-audit`.
//!
//! # What it refuses
//! Errors have OpenAI's shape and name the parameter to fix. A parameter this server does not do is refused unless its
//! value changes nothing; a parameter nobody knows is refused.

mod adapters;
mod answer;
mod app;
mod billing;
mod body;
mod calls;
mod charge;
mod chat;
mod completions;
mod connections;
mod countersigned;
mod dashboard;
mod device_time;
mod dialect;
mod draft;
mod error;
mod fields;
mod folder;
mod format;
#[cfg(fuzzing)]
pub mod fuzzing;
mod hex;
mod identity;
mod keys;
mod likelihood;
mod log;
mod metrics;
mod models;
mod numbers;
mod object;
mod openings;
mod order;
mod pace;
mod parameters;
mod receipts;
mod recorder;
mod report;
mod resume;
mod routes;
mod server;
mod shape;
mod shaping;
mod start;
mod stream;
mod ticket;
mod tools;
mod trace;
mod unsupported;

// What tests outside share names this crate.
#[cfg(test)]
extern crate self as gateway;

#[cfg(test)]
mod calls_tests;
#[cfg(test)]
mod cost_tests;

pub use billing::{Billing, Target};
pub use connections::serve;
pub use keys::Keys;
pub use report::{Node, ReportError, operator, report};
pub use server::{Config, Limits, Server};
pub use start::StartError;
pub use trace::{Otlp, OtlpError};
