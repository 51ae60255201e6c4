//! Reading a request's body: JSON, not too large, not too slow, and not too many at once.

use crate::app::App;
use crate::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderMap, Request, header};
use http_body_util::BodyExt;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// A body, and its share of the memory all bodies may take.
pub(crate) struct Received {
    pub(crate) bytes: Vec<u8>,
    _share: OwnedSemaphorePermit,
}

impl Received {
    /// A body that was made here.
    pub(crate) async fn made(app: &App, bytes: Vec<u8>) -> Result<Received, ApiError> {
        let share = share(app, bytes.len()).await?;
        Ok(Received { bytes, _share: share })
    }
}

/// Reads the body of a request, JSON.
pub(crate) async fn receive(app: &App, request: Request<Body>) -> Result<Received, ApiError> {
    receive_kind(app, request, "application/json", app.limits.body_bytes_max).await
}

/// Reads a body of this content type.
pub(crate) async fn receive_kind(
    app: &App,
    request: Request<Body>,
    kind: &str,
    bytes_max: usize,
) -> Result<Received, ApiError> {
    if !is_of(request.headers(), kind) {
        return Err(ApiError::other_kind(kind));
    }
    let announced = announced_bytes(request.headers());
    let receive = async {
        let share = share(app, announced.unwrap_or(bytes_max).min(bytes_max)).await?;
        let bytes = read(request.into_body(), bytes_max, announced).await?;
        Ok(Received { bytes, _share: share })
    };
    timeout(app.limits.body_deadline, receive).await.unwrap_or_else(|_| Err(ApiError::slow_body()))
}

/// Web pages of others may send forms and plain text to any server, but not JSON or our own kinds without being asked.
fn is_of(headers: &HeaderMap, kind: &str) -> bool {
    let found = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    found.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(kind)
}

fn announced_bytes(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn share(app: &App, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(app.limits.bodies_kib());
    Arc::clone(&app.bodies).acquire_many_owned(kib).await.map_err(|_| ApiError::shutting_down())
}

/// A body somewhat too large is read to its end, because many clients listen only once they have said everything.
async fn read(mut body: Body, bytes_max: usize, announced: Option<usize>) -> Result<Vec<u8>, ApiError> {
    let patience = bytes_max.saturating_mul(4);
    if announced.is_some_and(|announced| announced > patience) {
        return Err(ApiError::body_too_large(bytes_max));
    }
    let mut bytes = Vec::with_capacity(announced.unwrap_or(0).min(bytes_max));
    let mut total = 0usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::unreadable(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        total = total.saturating_add(data.len());
        if total > patience {
            break;
        }
        if total <= bytes_max {
            bytes.extend_from_slice(&data);
        }
    }
    if total > bytes_max { Err(ApiError::body_too_large(bytes_max)) } else { Ok(bytes) }
}
