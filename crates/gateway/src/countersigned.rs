//! Countersignatures: a client's word that it got an answer, beside the receipt it is for.
//!
//! `POST /v1/receipts/{id}/countersignature` takes one, `GET` gives it back; both want the id with its key, which only the
//! client has, or the token of auditors. A receipt has one countersignature at most, and it is never replaced: each is a
//! file of its own, complete or not there. They are not in the public log, where a client's key would show what it asks.

use crate::app::App;
use crate::body::receive_kind;
use crate::error::ApiError;
use crate::folder::Folder;
use crate::hex;
use crate::receipts::{self, unreadable};
use crate::start::StartError;
use crate::ticket::Ticket;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use axum::response::Response;
use receipt::{COUNTERSIGNATURE_CONTENT_TYPE, Countersignature};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use tlog::Name;

/// The most bytes of a countersignature.
const BYTES_MAX: usize = 512;

/// The countersignatures of a node's receipts.
pub(crate) struct Countersigned {
    folder: PathBuf,
}

impl Countersigned {
    /// In a data folder.
    pub(crate) fn open(folder: &Folder) -> Countersigned {
        Countersigned { folder: folder.file("countersigned") }
    }

    /// By the first byte, so that no folder gets too many names.
    fn path(&self, name: &Name) -> (PathBuf, PathBuf) {
        let digits = hex::encode(name);
        let folder = self.folder.join(&digits[..2]);
        let path = folder.join(digits);
        (folder, path)
    }

    /// The countersignature of the receipt of this name, if there is one.
    pub(crate) fn find(&self, name: &Name) -> Result<Option<Vec<u8>>, StartError> {
        let (_, path) = self.path(name);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StartError::file(&path)(error)),
        }
    }

    /// Keeps the first countersignature of a receipt; it is durable when this returns. Gives the one that is kept, which may
    /// be one that came before.
    pub(crate) fn keep(&self, name: &Name, bytes: &[u8]) -> Result<Vec<u8>, StartError> {
        let (folder, path) = self.path(name);
        let failed = StartError::file(&path);
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(StartError::Random)?;
        let new_path = folder.join(format!("new-{}", hex::encode(&random)));
        let keep = || {
            std::fs::create_dir_all(&folder)?;
            let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new_path)?;
            file.write_all(bytes).and_then(|()| file.sync_all())?;
            // Unlike a renaming, this fails if there is one.
            let linked = match std::fs::hard_link(&new_path, &path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                other => other,
            };
            std::fs::remove_file(&new_path)?;
            linked?;
            let parents = [Some(folder.as_path()), Some(&self.folder), self.folder.parent()];
            parents.into_iter().flatten().try_for_each(|folder| File::open(folder)?.sync_all())
        };
        keep().map_err(failed)?;
        self.find(name)?.ok_or_else(|| StartError::file(&path)(ErrorKind::NotFound.into()))
    }
}

/// Takes a countersignature.
pub(crate) async fn post(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    request: Request<Body>,
) -> Result<Response, ApiError> {
    let ticket = Ticket::parse(&id).ok_or_else(receipts::nothing)?;
    let headers = request.headers().clone();
    let received = receive_kind(&app, request, COUNTERSIGNATURE_CONTENT_TYPE, BYTES_MAX).await?;
    let kept = tokio::task::spawn_blocking(move || keep(&app, &ticket, &headers, &received.bytes)).await;
    let (status, client) = kept.map_err(|error| unreadable(&error))??;
    let mut response = crate::routes::json_response(&json!({"receipt": ticket.public().id(), "client": client}));
    *response.status_mut() = status;
    Ok(response)
}

fn keep(app: &App, ticket: &Ticket, headers: &HeaderMap, bytes: &[u8]) -> Result<(StatusCode, String), ApiError> {
    let (receipt, _) = receipts::opened(app, ticket, headers)?;
    let wrong = |why: String| ApiError { code: Some("invalid_countersignature"), ..ApiError::unreadable(why) };
    let parsed = Countersignature::parse(bytes);
    let given = parsed.map_err(|error| wrong(format!("this is no countersignature: {error}")))?;
    if given.receipt != receipt.hash {
        return Err(wrong("this countersignature is for another receipt: sign this one's hash".to_owned()));
    }
    if let Some(before) = app.recorder.countersigned().find(&ticket.name).map_err(|error| unreadable(&error))? {
        return same_client(&before, &given).map(|client| (StatusCode::OK, client));
    }
    let kept = app.recorder.countersigned().keep(&ticket.name, bytes).map_err(|error| unreadable(&error))?;
    same_client(&kept, &given).map(|client| (StatusCode::CREATED, client))
}

/// The client that countersigned, if it is the one that does now.
fn same_client(kept: &[u8], given: &Countersignature) -> Result<String, ApiError> {
    let kept = Countersignature::parse(kept).map_err(|error| unreadable(&error))?;
    if kept.client == given.client {
        return Ok(hex::encode(&kept.client));
    }
    let message = format!("this receipt was countersigned before, by the key {}", hex::encode(&kept.client));
    Err(ApiError { code: Some("countersigned_before"), ..ApiError::conflict(message) })
}

/// Gives a countersignature.
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let ticket = Ticket::parse(&id).ok_or_else(receipts::nothing)?;
    let found = tokio::task::spawn_blocking(move || {
        receipts::opened(&app, &ticket, &headers)?;
        app.recorder.countersigned().find(&ticket.name).map_err(|error| unreadable(&error))
    });
    let found = found.await.map_err(|error| unreadable(&error))??;
    let bytes = found.ok_or_else(|| ApiError::not_found("This receipt has no countersignature."))?;
    let mut response = Response::new(Body::from(bytes));
    let kind = HeaderValue::from_static(COUNTERSIGNATURE_CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    Ok(response)
}
