//! `GET /v1/receipts/{id}`: the receipt, and what opens it for whoever has the key.

use crate::app::{App, now_seconds};
use crate::error::ApiError;
use crate::hex;
use crate::ticket::Ticket;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;
use receipt::{Bundle, CONTENT_TYPE, Finish, Opening, Receipt};
use serde_json::{Value, json};
use std::sync::Arc;

/// Where auditors show their token.
const AUDIT_HEADER: &str = "x-lockstep-audit";

/// In which form a receipt is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Cbor,
    Json,
    /// The proof that it is in the log (C2SP `tlog-proof`).
    Proof,
}

/// With the id an answer carries, or the token of auditors: the bundle of receipt, tokens and settings. With the id's part
/// up to the second `-`: the receipt alone. As CBOR, or as JSON if asked for; or the proof that it is in the log.
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let format = wanted(&uri, &headers)?;
    let ticket = Ticket::parse(&id).ok_or_else(nothing)?;
    let found = tokio::task::spawn_blocking(move || find(&app, &ticket, &headers, format)).await;
    let (bytes, kind) = found.map_err(|error| unreadable(&error))??;
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // With the key in its address it is for its owner only.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    Ok(response)
}

pub(crate) fn nothing() -> ApiError {
    ApiError { param: Some("id".to_owned()), ..ApiError::not_found("There is no receipt with this id.") }
}

pub(crate) fn unreadable(error: &impl std::fmt::Display) -> ApiError {
    ApiError::server(format!("the receipt could not be read: {error}"))
}

fn wanted(uri: &Uri, headers: &HeaderMap) -> Result<Format, ApiError> {
    match uri.query() {
        Some("format=json") => return Ok(Format::Json),
        Some("format=cbor") => return Ok(Format::Cbor),
        Some("format=proof") => return Ok(Format::Proof),
        None | Some("") => {}
        Some(_) => return Err(ApiError::invalid("format", "the only parameter is 'format': json, cbor or proof")),
    }
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let json = accept.split(',').any(|kind| kind.trim().starts_with("application/json"));
    Ok(if json { Format::Json } else { Format::Cbor })
}

/// A receipt, its bytes and its place in the log.
fn logged(app: &App, ticket: &Ticket) -> Result<(Receipt, Vec<u8>, u64), ApiError> {
    let found = app.recorder.receipt(&ticket.name).map_err(|error| unreadable(&error))?;
    let (bytes, index) = found.ok_or_else(nothing)?;
    // Other entries of the log have names too, but are no receipts.
    Ok((Receipt::parse(&bytes).map_err(|_| nothing())?, bytes, index))
}

/// Whether who asks may see what is not public: with the id's key, or the token of auditors.
fn may_open(app: &App, receipt: &Receipt, ticket: &Ticket, headers: &HeaderMap) -> Result<bool, ApiError> {
    let token = headers.get(AUDIT_HEADER).and_then(|token| hex::decode(token.to_str().ok()?));
    match (&ticket.key, token) {
        (Some(key), _) if app.recorder.opens(key, &receipt.hash) => Ok(true),
        (Some(_), _) => Err(nothing()),
        (None, Some(token)) => Ok(app.recorder.is_auditor(&token)),
        (None, None) => Ok(false),
    }
}

/// A receipt and its bytes, for those alone who may open it.
pub(crate) fn opened(app: &App, ticket: &Ticket, headers: &HeaderMap) -> Result<(Receipt, Vec<u8>), ApiError> {
    let (receipt, bytes, _) = logged(app, ticket)?;
    if may_open(app, &receipt, ticket, headers)? { Ok((receipt, bytes)) } else { Err(nothing()) }
}

/// Bytes and content type of what ticket and token open.
fn find(app: &App, ticket: &Ticket, headers: &HeaderMap, format: Format) -> Result<(Vec<u8>, &'static str), ApiError> {
    let (receipt, bytes, index) = logged(app, ticket)?;
    if format == Format::Proof {
        let proof = app.recorder.log().prove(index).map_err(|error| unreadable(&error))?;
        return Ok((proof.to_string().into_bytes(), "text/plain; charset=utf-8"));
    }
    let bundle = if may_open(app, &receipt, ticket, headers)? { Some(opening(app, &receipt, ticket)?) } else { None };
    if format == Format::Json {
        let json = to_json(&receipt, &bytes, index, bundle.as_ref());
        return Ok((json.to_string().into_bytes(), "application/json"));
    }
    Ok(match bundle {
        Some(bundle) => (bundle.to_bytes(), "application/cbor"),
        None => (bytes, CONTENT_TYPE),
    })
}

/// The bundle of a receipt, for as long as the node owes it.
pub(crate) fn opening(app: &App, receipt: &Receipt, ticket: &Ticket) -> Result<Bundle, ApiError> {
    let until = receipt.claims.time_seconds.saturating_add(receipt.claims.opening_seconds.into());
    if now_seconds() > until {
        let message =
            "What opens this receipt was deleted after its audit window; the receipt itself stays in the log.";
        return Err(ApiError::gone(message));
    }
    let bytes = app.recorder.bundle(&ticket.name).map_err(|error| unreadable(&error))?;
    let bytes = bytes.ok_or_else(|| unreadable(&"what opens it is missing before its audit window ended"))?;
    Bundle::from_bytes(&bytes).map_err(|error| unreadable(&error))
}

/// Everything readable, bytes in hexadecimal.
fn to_json(receipt: &Receipt, bytes: &[u8], index: u64, bundle: Option<&Bundle>) -> Value {
    let claims = &receipt.claims;
    let optional = |hash: &Option<receipt::Hash>| hash.as_ref().map(|hash| hex::encode(hash));
    let mut json = json!({
        "id": receipt.id(),
        "hash": hex::encode(&receipt.hash),
        "node": hex::encode(&receipt.node),
        "claims": {
            "arithmetic": claims.arithmetic,
            "activations": claims.activations.name(),
            "base": hex::encode(&claims.base),
            "base_files": optional(&claims.base_files),
            "adapter": optional(&claims.adapter),
            "tokenizer": optional(&claims.tokenizer),
            "template": optional(&claims.template),
            "prompt": hex::encode(&claims.prompt),
            "settings": hex::encode(&claims.settings),
            "output": hex::encode(&claims.output),
            "prompt_tokens": claims.prompt_tokens,
            "output_tokens": claims.output_tokens,
            "finish": match claims.finish { Finish::Stop => "stop", Finish::Length => "length" },
            "seed": claims.seed,
            "seed_from_client": claims.seed_from_client,
            "seed_number": claims.seed_number,
            "trace": hex::encode(&claims.trace),
            "time_seconds": claims.time_seconds,
            "price": claims.price,
            "opening_seconds": claims.opening_seconds,
            "number": claims.number,
            "previous": optional(&claims.previous),
        },
        "receipt": hex::encode(bytes),
        "log_index": index,
    });
    if let Some(bundle) = bundle {
        json["opening"] = opening_to_json(&bundle.opening);
    }
    json
}

fn opening_to_json(opening: &Opening) -> Value {
    let settings = &opening.settings;
    json!({
        "prompt": opening.prompt,
        "output": opening.output,
        "settings": {
            "temperature": settings.temperature,
            "top_k": settings.top_k,
            "top_p": settings.top_p,
            "min_p": settings.min_p,
            "seed": settings.seed,
            "tokens_max": settings.tokens_max,
            "stop_tokens": settings.stop_tokens,
            "stop_strings": settings.stop_strings,
            "repetition_penalty": settings.shaping.repetition,
            "frequency_penalty": settings.shaping.frequency,
            "presence_penalty": settings.shaping.presence,
            "logit_bias": settings.shaping.bias,
            "tokens_min": settings.shaping.tokens_min,
            "form": settings.shaping.form.as_ref().map(|form| json!({
                "engine": form.engine, "kind": form.kind, "source": form.source,
            })),
        },
        "salts": {
            "prompt": hex::encode(&opening.salts.prompt),
            "settings": hex::encode(&opening.salts.settings),
            "output": hex::encode(&opening.salts.output),
            "trace": hex::encode(&opening.salts.trace),
        },
        "seed": opening.seed.as_ref().map(|origin| json!({
            "nonce": hex::encode(&origin.nonce),
            "secret": hex::encode(&origin.secret),
            "entry": origin.entry,
        })),
        "leaves": opening.leaves.iter().map(|leaf| hex::encode(leaf)).collect::<Vec<_>>(),
    })
}
