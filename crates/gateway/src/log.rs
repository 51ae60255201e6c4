//! `GET /v1/log/…`: the log of receipts as C2SP's `tlog-tiles` lays it out, for anybody.

use crate::app::App;
use crate::error::ApiError;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use std::sync::Arc;
use tlog::{LogError, Tile};

/// Tiles never change.
const FOR_EVER: &str = "public, max-age=31536000, immutable";

/// `checkpoint` is the newest head; `cosigned` the newest that witnesses signed; all else are tiles.
pub(crate) async fn get(State(app): State<Arc<App>>, Path(path): Path<String>) -> Result<Response, ApiError> {
    let found = tokio::task::spawn_blocking(move || find(&app, &path)).await;
    let found = found.map_err(|error| ApiError::server(format!("the log could not be read: {error}")))?;
    let found = found.map_err(|error| ApiError::server(format!("the log could not be read: {error}")))?;
    let (bytes, kind, caching) = found.ok_or_else(|| ApiError::not_found("The log has no such resource."))?;
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    // Pages of others may show what anybody may know.
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    Ok(response)
}

type Found = (Vec<u8>, &'static str, &'static str);

fn find(app: &App, path: &str) -> Result<Option<Found>, LogError> {
    let log = app.recorder.log();
    let note = |note: tlog::Note| (note.to_string().into_bytes(), "text/plain; charset=utf-8", "no-cache");
    if path == "checkpoint" {
        return log.head().map(|(_, head)| Some(note(head)));
    }
    if path == "cosigned" {
        return Ok(log.cosigned().map(note));
    }
    let Some(tile) = Tile::parse(path) else { return Ok(None) };
    Ok(log.tile(&tile)?.map(|bytes| (bytes, "application/octet-stream", FOR_EVER)))
}
