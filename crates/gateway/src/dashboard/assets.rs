//! The style sheet and the script, each under a name that says what is in it: they may be kept for ever.

use crate::error::ApiError;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use std::sync::LazyLock;

const STYLE: &str = include_str!("dashboard.css");
const SCRIPT: &str = include_str!("dashboard.js");

/// Paths of both.
pub(crate) static STYLE_PATH: LazyLock<String> = LazyLock::new(|| path(STYLE, "css"));
pub(crate) static SCRIPT_PATH: LazyLock<String> = LazyLock::new(|| path(SCRIPT, "js"));

fn path(content: &str, kind: &str) -> String {
    format!("/dashboard/assets/{}.{kind}", &blake3::hash(content.as_bytes()).to_hex()[..16])
}

pub(crate) async fn get(Path(name): Path<String>) -> Result<Response, ApiError> {
    let asked = format!("/dashboard/assets/{name}");
    let (content, kind) = if asked == *STYLE_PATH {
        (STYLE, "text/css; charset=utf-8")
    } else if asked == *SCRIPT_PATH {
        (SCRIPT, "text/javascript; charset=utf-8")
    } else {
        return Err(ApiError::not_found("there is no such file: reload the page"));
    };
    let mut response = Response::new(Body::from(content));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let keep = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, keep);
    Ok(response)
}
