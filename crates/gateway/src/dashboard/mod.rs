//! Pages for people, below `/dashboard`: see it, try it, catch a cheat.
//!
//! Rendered here, with scripts only for what is live. Each file is a page; what they share is in [`page`] (frame, forms,
//! files), [`session`] (who sees what), [`table`], [`chart`] and [`sums`] (figures that do not grow dear with the ledger).

mod adapters;
mod assets;
mod chart;
mod check;
mod dispute;
mod earned;
mod health;
mod hours;
mod ledger;
mod light;
mod live;
mod login;
#[cfg(test)]
mod million_tests;
mod moved;
mod overview;
mod page;
mod playground;
mod proof;
mod receipts;
mod session;
mod statements;
mod statistics;
mod steps;
mod sums;
mod table;
mod verdict;
mod walk;
mod words;

use crate::app::App;
use crate::body::receive_kind;
use crate::error::ApiError;
use crate::start::StartError;
use axum::body::Body;
use axum::extract::State;
use axum::http::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use earned::Earned;
use page::{Reply, Visit};
use returns::Device;
use session::{Sessions, Viewer};
use statements::Statements;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use sums::Sums;
use tokio::sync::{Semaphore, watch};

/// Bytes of a form.
const FORM_BYTES_MAX: usize = 256 << 10;
/// Pages that are told live numbers at once.
const LIVE_MAX: usize = 64;

/// What was checked on these pages since the start.
#[derive(Default)]
pub(crate) struct Audits {
    /// Answers replayed as they are, and how many of them were not equal.
    replayed: AtomicU64,
    differed: AtomicU64,
    /// Lies made here to be caught, and how many were not.
    lies: AtomicU64,
    believed: AtomicU64,
    light: AtomicU64,
    disputes: AtomicU64,
}

impl Audits {
    /// Counts one more.
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}

/// What the pages keep.
pub(crate) struct Dashboard {
    sessions: Sessions,
    pub(crate) sums: Sums,
    earned: Earned,
    statements: Statements,
    /// What the device costs.
    pub(crate) device: Device,
    /// Whether only this machine reaches the server.
    private: AtomicBool,
    live: Arc<Semaphore>,
    /// One permit for a check of an answer.
    checking: Arc<Semaphore>,
    audits: Audits,
    closing: watch::Sender<bool>,
}

impl Dashboard {
    /// `folder` is the server's: records of the device's time are in it, and statements will be.
    pub(crate) fn new(folder: &Path) -> Result<Dashboard, StartError> {
        Ok(Dashboard {
            sessions: Sessions::new().map_err(|_| StartError::Random(getrandom::Error::UNSUPPORTED))?,
            sums: Sums::new(&folder.join("device")),
            earned: Earned::default(),
            statements: Statements::new(folder.join("statements")),
            device: Device::default(),
            private: AtomicBool::new(false),
            live: Arc::new(Semaphore::new(LIVE_MAX)),
            checking: Arc::new(Semaphore::new(1)),
            audits: Audits::default(),
            closing: watch::Sender::new(false),
        })
    }

    /// Says whether only this machine reaches the server.
    pub(crate) fn set_private(&self, private: bool) {
        self.private.store(private, Relaxed);
    }

    fn is_private(&self) -> bool {
        self.private.load(Relaxed)
    }

    /// Ends what would go on for ever: the server is to end.
    pub(crate) fn close(&self) {
        self.closing.send_replace(true);
    }
}

/// What `/` says to browsers: the same as to all others, and a link.
pub(crate) fn welcome(text: &str) -> Response {
    let mut response = page::plain(
        "Lockstep",
        &maud::html! {
            p { a href="/dashboard" { "Open the dashboard" } }
            pre { (text) }
        },
    );
    page::secure(&mut response);
    response
}

/// Who may see a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Anybody,
    /// Whoever has a key.
    Customers,
    Owner,
}

/// All pages.
pub(crate) fn router(app: Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route("/dashboard", shows(For::Owner, overview::show))
        .route(
            "/dashboard/playground",
            shows(For::Customers, playground::show).merge(acts(For::Customers, playground::ask)),
        )
        .route("/dashboard/playground/stream", acts(For::Customers, playground::stream))
        .route("/dashboard/check", acts(For::Customers, verdict::act))
        .route("/dashboard/dispute", acts(For::Owner, walk::dispute))
        .route("/dashboard/light", acts(For::Owner, walk::light_check))
        .route("/dashboard/receipts", shows(For::Customers, receipts::list))
        .route("/dashboard/receipt", shows(For::Customers, receipts::one))
        .route("/dashboard/ledger", shows(For::Customers, ledger::show))
        .route("/dashboard/account", shows(For::Customers, ledger::account))
        .route("/dashboard/transaction", shows(For::Customers, ledger::transaction))
        .route("/dashboard/statement", shows(For::Customers, statements::file))
        .route("/dashboard/statement/make", acts(For::Owner, statements::make))
        .route("/dashboard/adapters", shows(For::Owner, adapters::show))
        .route("/dashboard/adapters/load", acts(For::Owner, adapters::load))
        .route("/dashboard/adapters/unload", acts(For::Owner, adapters::unload))
        .route("/dashboard/adapters/pin", acts(For::Owner, adapters::pin))
        .route("/dashboard/adapters/unpin", acts(For::Owner, adapters::unpin))
        .route("/dashboard/health", shows(For::Owner, health::show))
        .route("/dashboard/statistics", shows(For::Customers, statistics::show))
        .route("/dashboard/live", get(live::events))
        .route("/dashboard/login", shows(For::Anybody, login::show).merge(acts(For::Anybody, login::login)))
        .route("/dashboard/logout", acts(For::Anybody, login::logout))
        .route("/dashboard/assets/{name}", get(assets::get))
        .layer(middleware::from_fn_with_state(app, enter))
}

/// A page.
fn shows<F, Fut, R>(whom: For, make: F) -> MethodRouter<Arc<App>>
where
    F: Fn(Arc<App>, Visit) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<R, ApiError>> + Send,
    R: Into<Reply>,
{
    get(move |State(app): State<Arc<App>>, Extension(visit): Extension<Visit>| async move {
        if let Some(response) = turned_away(&visit, whom) {
            return response;
        }
        page::respond(&visit, make(app, visit.clone()).await.map(Into::into))
    })
}

/// What a form does.
fn acts<F, Fut, R>(whom: For, make: F) -> MethodRouter<Arc<App>>
where
    F: Fn(Arc<App>, Visit) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<R, ApiError>> + Send,
    R: Into<Reply>,
{
    post(
        move |State(app): State<Arc<App>>, Extension(mut visit): Extension<Visit>, request: Request<Body>| async move {
            if let Some(response) = turned_away(&visit, whom) {
                return response;
            }
            let done = async {
                visit.fields = fields(&app, request).await?;
                app.dashboard.sessions.check(&visit.visitor, visit.field("token"))?;
                make(app.clone(), visit.clone()).await.map(Into::into)
            };
            let done = done.await;
            page::respond(&visit, done)
        },
    )
}

/// The fields of a form.
async fn fields(app: &App, request: Request<Body>) -> Result<Vec<(String, String)>, ApiError> {
    let received = receive_kind(app, request, "application/x-www-form-urlencoded", FORM_BYTES_MAX).await?;
    Ok(form_urlencoded::parse(&received.bytes).into_owned().collect())
}

/// Where those go who may not see a page.
fn turned_away(visit: &Visit, whom: For) -> Option<Response> {
    let message = match (whom, &visit.visitor.viewer) {
        (For::Anybody, _) | (_, Viewer::Everything) | (For::Customers, Viewer::Customer(_)) => return None,
        (_, Viewer::Nobody) if visit.inline => "sign in first",
        (_, Viewer::Nobody) => return Some(page::respond(visit, Ok(Reply::Go("/dashboard/login".into(), None)))),
        (For::Owner, Viewer::Customer(_)) => {
            "this page is for the server's administrator: sign in with that key (lockstep up --admin-key KEY)"
        }
    };
    Some(page::respond(visit, Err(ApiError::forbidden(message))))
}

/// Finds out who visits; puts the headers on what is answered.
async fn enter(State(app): State<Arc<App>>, mut request: Request<Body>, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let mut response = match session::visitor(&app, request.headers()) {
        Ok(visitor) => {
            let visit = Visit {
                visitor,
                path: request.uri().path().to_owned(),
                fields: form_urlencoded::parse(query.as_bytes()).into_owned().take(64).collect(),
                inline: request.headers().contains_key("x-inline"),
            };
            request.extensions_mut().insert(visit);
            next.run(request).await
        }
        Err(error) => axum::response::IntoResponse::into_response(error),
    };
    page::secure(&mut response);
    response
}
