//! Small servers: a log's folder, and a witness.

use crate::failure::Failure;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::{get, post};
use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tlog::{Folder, Refusal, Source, Tile, Witness};
use tokio::net::TcpListener;

/// Serves a log's folder until interrupted.
pub(crate) fn folder(path: &FilePath, listen: SocketAddr) -> Result<(), Failure> {
    let source = Folder(path.to_owned());
    let origin = source.get("checkpoint", tlog::HEAD_BYTES_MAX)?;
    let origin = String::from_utf8_lossy(&origin).lines().next().unwrap_or_default().to_owned();
    let router = Router::new().route("/{*path}", get(resource)).with_state(Arc::new(source));
    run(router, listen, &format!("the log {origin}"))
}

async fn resource(State(folder): State<Arc<Folder>>, Path(path): Path<String>) -> Response {
    // Only what a log has: no other path reaches the disk.
    let tile = Tile::parse(&path);
    if path != "checkpoint" && tile.is_none() {
        return answer(StatusCode::NOT_FOUND, "text/plain", b"there is no such resource\n".to_vec());
    }
    let bytes_max = 256 * (tlog::ENTRY_BYTES_MAX + 2);
    match tokio::task::spawn_blocking(move || folder.get(&path, bytes_max)).await {
        Ok(Ok(bytes)) if tile.is_some() => answer(StatusCode::OK, "application/octet-stream", bytes),
        Ok(Ok(bytes)) => answer(StatusCode::OK, "text/plain; charset=utf-8", bytes),
        _ => answer(StatusCode::NOT_FOUND, "text/plain", b"there is no such resource\n".to_vec()),
    }
}

/// Serves a witness until interrupted.
pub(crate) fn witness(witness: Witness, listen: SocketAddr, name: &str) -> Result<(), Failure> {
    let router = Router::new().route("/add-checkpoint", post(add_checkpoint)).with_state(Arc::new(witness));
    run(router, listen, &format!("the witness {name}"))
}

async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: axum::body::Bytes) -> Response {
    let time_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let answered = tokio::task::spawn_blocking(move || witness.add_checkpoint(&body, time_seconds)).await;
    match answered {
        Ok(Ok(line)) => answer(StatusCode::OK, "text/plain; charset=utf-8", line.into_bytes()),
        Ok(Err(Refusal::Conflict { size })) => {
            answer(StatusCode::CONFLICT, "text/x.tlog.size", format!("{size}\n").into_bytes())
        }
        Ok(Err(refusal)) => {
            let status = StatusCode::from_u16(refusal.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            answer(status, "text/plain; charset=utf-8", format!("{refusal}\n").into_bytes())
        }
        Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", b"the witness failed\n".to_vec()),
    }
}

fn answer(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn run(router: Router, listen: SocketAddr, what: &str) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure(format!("starting threads: {error}")))?;
    runtime.block_on(async {
        let listener = TcpListener::bind(listen).await.map_err(|error| {
            Failure(format!("cannot listen on {listen}: {error}; choose another address with --listen"))
        })?;
        let address = listener.local_addr().map_err(|error| Failure(error.to_string()))?;
        println!("Serving {what} at http://{address}");
        gateway::serve(listener, router, &gateway::Limits::default(), crate::up::interrupted()).await;
        Ok(())
    })
}
