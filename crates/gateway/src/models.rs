//! `GET /v1/models`: the base and its adapters, each a model of its own to clients.

use crate::app::App;
use crate::error::ApiError;
use crate::hex;
use crate::routes::json_response;
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) async fn list(State(app): State<Arc<App>>) -> Response {
    let base = std::iter::once(describe(&app, &app.base_name, None));
    let adapters = app.adapters.iter().map(|(name, adapter)| describe(&app, name, Some(&adapter.digest)));
    json_response(&json!({"object": "list", "data": base.chain(adapters).collect::<Vec<_>>()}))
}

pub(crate) async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let adapter = app.find(&id)?;
    Ok(json_response(&describe(&app, &id, adapter.as_ref().map(|adapter| &adapter.digest))))
}

/// OpenAI's fields, then the base an adapter belongs to, the context, and the digest that receipts name.
fn describe(app: &App, name: &str, adapter: Option<&[u8; 32]>) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": app.created_seconds,
        "owned_by": "lockstep",
        "parent": adapter.map(|_| &app.base_name),
        "max_model_len": app.engine.config().context,
        "digest": hex::encode(adapter.unwrap_or(&app.engine.model().digest)),
    })
}
