//! Adapters that come and go while the server runs, under vLLM's names.
//!
//! `POST /v1/load_lora_adapter` with `lora_name`, `lora_path` and perhaps `load_inplace`; the path lies inside a folder the
//! server was started with, or is `digest:HEX`, the folder of that name there, whose contents must have that digest.
//! `POST /v1/unload_lora_adapter` with `lora_name`. Answers under way keep the adapter they were asked of.
//! `POST /v1/pin_lora_adapter` and `/v1/unpin_lora_adapter` with `lora_name` keep one resident, or no longer.

use crate::app::App;
use crate::body;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::models::describe;
use crate::routes::json_response;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, header};
use axum::response::Response;
use engine::{AdapterError, AdapterHandle};
use serde_json::json;
use std::sync::Arc;
use tokio::time::timeout;

pub(crate) async fn load(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, ApiError> {
    check_key(&app, request.headers())?;
    let received = body::receive(&app, request).await?;
    let mut fields = Fields::parse(&received.bytes)?;
    let name = fields.string("lora_name")?;
    let name = fields.required("lora_name", name)?;
    let path = fields.string("lora_path")?;
    let path = fields.required("lora_path", path)?;
    let replace = fields.boolean("load_inplace")?;
    fields.finish()?;
    let handle = load_from(&app, name, path, replace).await?;
    Ok(json_response(&describe(&app, handle.name(), Some(&handle))))
}

/// Loads an adapter from inside the folders that are allowed, one at a time.
pub(crate) async fn load_from(
    app: &App,
    name: String,
    path: String,
    replace: bool,
) -> Result<Arc<AdapterHandle>, ApiError> {
    if name == app.base_name {
        return Err(ApiError::invalid("lora_name", "the base model has this name: choose another"));
    }
    let engine = app.engine.clone();
    in_turn(app, move || engine.load_adapter(&name, &path, replace)).await
}

pub(crate) async fn unload(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, ApiError> {
    check_key(&app, request.headers())?;
    let received = body::receive(&app, request).await?;
    let mut fields = Fields::parse(&received.bytes)?;
    let name = named(&mut fields)?;
    fields.finish()?;
    unload_named(&app, &name)?;
    Ok(json_response(&json!({"id": name, "object": "model", "deleted": true})))
}

/// The adapter that a request is about.
fn named(fields: &mut Fields) -> Result<String, ApiError> {
    let name = fields.string("lora_name")?;
    // vLLM's other way to say which; names are enough.
    fields.take("lora_int_id");
    fields.required("lora_name", name)
}

pub(crate) async fn pin(app: State<Arc<App>>, request: Request<Body>) -> Result<Response, ApiError> {
    change_pin(app, request, true).await
}

pub(crate) async fn unpin(app: State<Arc<App>>, request: Request<Body>) -> Result<Response, ApiError> {
    change_pin(app, request, false).await
}

async fn change_pin(State(app): State<Arc<App>>, request: Request<Body>, pinned: bool) -> Result<Response, ApiError> {
    check_key(&app, request.headers())?;
    let received = body::receive(&app, request).await?;
    let mut fields = Fields::parse(&received.bytes)?;
    let name = named(&mut fields)?;
    fields.finish()?;
    let handle = pin_named(&app, name, pinned).await?;
    let mut model = describe(&app, handle.name(), Some(&handle));
    model["pinned"] = json!(pinned);
    Ok(json_response(&model))
}

/// Keeps an adapter resident, or no longer; loads it first if nobody has asked for it yet.
pub(crate) async fn pin_named(app: &App, name: String, pinned: bool) -> Result<Arc<AdapterHandle>, ApiError> {
    let engine = app.engine.clone();
    in_turn(app, move || engine.pin_adapter(&name, pinned)).await
}

/// Does what may take as long as loading does, one at a time.
async fn in_turn(
    app: &App,
    work: impl FnOnce() -> Result<Arc<AdapterHandle>, AdapterError> + Send + 'static,
) -> Result<Arc<AdapterHandle>, ApiError> {
    let turn = timeout(app.limits.answer_deadline, Arc::clone(&app.loading).acquire_owned()).await;
    let permit = turn.map_err(|_| ApiError::busy())?.map_err(|_| ApiError::shutting_down())?;
    let done = tokio::task::spawn_blocking(move || {
        let done = work();
        drop(permit);
        done
    });
    let done = done.await.map_err(|error| ApiError::server(format!("loading broke off: {error}")))?;
    done.map_err(|error| ApiError::adapter(&error))
}

/// Forgets an adapter.
pub(crate) fn unload_named(app: &App, name: &str) -> Result<(), ApiError> {
    app.engine.unload_adapter(name).map_err(|error| ApiError::adapter(&error))
}

fn check_key(app: &App, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(admin) = &app.admin else { return Ok(()) };
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    // Hashes compare in constant time.
    if sent.is_some_and(|sent| blake3::hash(sent) == *admin) { Ok(()) } else { Err(ApiError::not_admin()) }
}
