//! `GET /v1/models`: the base and its adapters, each a model of its own to clients.

use crate::app::App;
use crate::error::ApiError;
use crate::hex;
use crate::routes::json_response;
use axum::extract::{Path, State};
use axum::response::Response;
use engine::AdapterHandle;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) async fn list(State(app): State<Arc<App>>) -> Response {
    let base = std::iter::once(describe(&app, &app.base_name, None));
    let adapters = app.engine.adapters().list();
    let adapters = adapters.iter().map(|adapter| describe(&app, adapter.name(), Some(adapter)));
    json_response(&json!({"object": "list", "data": base.chain(adapters).collect::<Vec<_>>()}))
}

pub(crate) async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let adapter = app.find(&id)?;
    Ok(json_response(&describe(&app, &id, adapter.as_deref())))
}

/// OpenAI's fields, then the base an adapter belongs to, the context, and the digest that receipts name; an adapter that was
/// never asked for has none yet.
pub(crate) fn describe(app: &App, name: &str, adapter: Option<&AdapterHandle>) -> Value {
    let digest = adapter.map_or(Some(app.engine.model().digest), AdapterHandle::digest);
    json!({
        "id": name,
        "object": "model",
        "created": app.created_seconds,
        "owned_by": "lockstep",
        "parent": adapter.map(|_| &app.base_name),
        "max_model_len": app.engine.config().context,
        "digest": digest.map(|digest| hex::encode(&digest)),
    })
}
