//! `GET /v1/receipts/{id}`: the receipt, and what opens it for whoever has the key.

use crate::app::App;
use crate::error::ApiError;
use crate::hex;
use crate::recorder::Ticket;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;
use receipt::{Bundle, CONTENT_TYPE, Finish, Opening, Receipt};
use serde_json::{Value, json};
use std::sync::Arc;

/// With the id an answer carries: the bundle of receipt, tokens and settings. With the id's part up to the second `-`:
/// the receipt alone. As CBOR, or as JSON if asked for.
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let readable = wants_json(&uri, &headers)?;
    let nothing =
        || ApiError { param: Some("id".to_owned()), ..ApiError::not_found("There is no receipt with this id.") };
    let ticket = Ticket::parse(&id).ok_or_else(nothing)?;
    let found = tokio::task::spawn_blocking(move || find(&app, &ticket, readable)).await;
    let found = found.map_err(|error| ApiError::server(format!("the receipt could not be read: {error}")))?;
    let (bytes, kind) = found?.ok_or_else(nothing)?;
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    // With the key in its address it is for its owner only.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    Ok(response)
}

fn wants_json(uri: &Uri, headers: &HeaderMap) -> Result<bool, ApiError> {
    match uri.query() {
        Some("format=json") => return Ok(true),
        Some("format=cbor") => return Ok(false),
        None | Some("") => {}
        Some(_) => return Err(ApiError::invalid("format", "the only parameter is 'format', either json or cbor")),
    }
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    Ok(accept.split(',').any(|kind| kind.trim().starts_with("application/json")))
}

/// Bytes and content type of what the ticket opens; nothing if the key is wrong.
fn find(app: &App, ticket: &Ticket, readable: bool) -> Result<Option<(Vec<u8>, &'static str)>, ApiError> {
    let failed = |error: String| ApiError::server(format!("the receipt could not be read: {error}"));
    let Some(bytes) = app.recorder.bundle(&ticket.name).map_err(|error| failed(error.to_string()))? else {
        return Ok(None);
    };
    let bundle = Bundle::from_bytes(&bytes).map_err(|error| failed(error.to_string()))?;
    let hash = receipt::hash(&bundle.receipt);
    let opened = match &ticket.key {
        None => false,
        Some(key) if app.recorder.opens(key, &hash) => true,
        Some(_) => return Ok(None),
    };
    if readable {
        let receipt = Receipt::parse(&bundle.receipt).map_err(|error| failed(error.to_string()))?;
        let json = to_json(&receipt, &bundle, opened);
        return Ok(Some((json.to_string().into_bytes(), "application/json")));
    }
    Ok(Some(if opened { (bytes, "application/cbor") } else { (bundle.receipt, CONTENT_TYPE) }))
}

/// Everything readable, bytes in hexadecimal.
fn to_json(receipt: &Receipt, bundle: &Bundle, opened: bool) -> Value {
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
            "trace": hex::encode(&claims.trace),
            "time_seconds": claims.time_seconds,
            "price": claims.price,
            "number": claims.number,
            "previous": optional(&claims.previous),
        },
        "receipt": hex::encode(&bundle.receipt),
    });
    if opened {
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
        },
        "salts": {
            "prompt": hex::encode(&opening.salts.prompt),
            "settings": hex::encode(&opening.salts.settings),
            "output": hex::encode(&opening.salts.output),
            "trace": hex::encode(&opening.salts.trace),
        },
        "leaves": opening.leaves.iter().map(|leaf| hex::encode(leaf)).collect::<Vec<_>>(),
    })
}
