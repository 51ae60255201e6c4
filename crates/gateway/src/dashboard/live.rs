//! Numbers that change while one looks, as server-sent events.

use super::page::Visit;
use super::session::Viewer;
use super::sums::HOUR;
use super::words;
use crate::app::App;
use crate::device_time::now_microseconds;
use crate::error::ApiError;
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Between two events.
const EVERY: Duration = Duration::from_secs(2);
/// After this the browser asks again, if somebody still looks.
const LASTS: Duration = Duration::from_secs(600);

/// Every live number by its name.
pub(crate) fn numbers(app: &App) -> Value {
    let load = app.engine.load();
    let hour = now_microseconds() / HOUR;
    let returns = app.dashboard.sums.report(&app.dashboard.device, hour..hour + 1).returns();
    json!({
        "revenue": words::dollars(returns.revenue),
        "cash_margin": words::dollars(returns.cash_margin),
        "economic_profit": words::dollars(returns.economic_profit),
        "goodput": returns.goodput_per_dollar.map_or("–".to_owned(), words::count),
        "queue": queue(app),
        "running": words::count(load.running as u64),
        "waiting": words::count(load.waiting as u64),
        "pages": format!("{} of {}", words::count(load.pages_used as u64), words::count(load.pages_total as u64)),
        "resident": words::count(load.adapters_resident as u64),
        "receipts": words::count(app.recorder.count()),
        "entries": words::count(app.recorder.log().size()),
    })
}

/// How full the queue is.
pub(crate) fn queue(app: &App) -> String {
    format!("{} waiting of at most {}", words::count(app.engine.load().waiting as u64), app.engine.config().queue_max)
}

pub(crate) async fn events(
    State(app): State<Arc<App>>,
    Extension(visit): Extension<Visit>,
) -> Result<Response, ApiError> {
    if visit.visitor.viewer != Viewer::Everything {
        return Err(ApiError::forbidden("these numbers are for the server's administrator"));
    }
    let permit = app.dashboard.live.clone().try_acquire_owned().map_err(|_| ApiError::busy())?;
    let closing = app.dashboard.closing.subscribe();
    let state = (app, permit, closing, Instant::now() + LASTS, true);
    let events = futures_util::stream::unfold(state, |(app, permit, mut closing, until, first)| async move {
        if !first {
            tokio::select! {
                _ = closing.wait_for(|closing| *closing) => return None,
                () = sleep(EVERY) => {}
            }
        }
        if Instant::now() > until || *closing.borrow() {
            return None;
        }
        let event = Bytes::from(format!("data: {}\n\n", numbers(&app)));
        Some((Ok::<_, Infallible>(event), (app, permit, closing, until, false)))
    });
    let mut response = Response::new(Body::from_stream(events));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
