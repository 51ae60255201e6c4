//! Signing in with a key, and out.

use super::page::{Page, Reply, Visit};
use super::session::{Viewer, viewer_of};
use crate::app::App;
use crate::error::ApiError;
use maud::html;
use std::sync::Arc;

/// The form.
pub(crate) async fn show(app: Arc<App>, visit: Visit) -> Result<Reply, ApiError> {
    Ok(page(&app, &visit, None).into())
}

fn page(app: &App, visit: &Visit, wrong: Option<&str>) -> Page {
    let none = app.keys.is_empty() && app.admin.is_none();
    let body = html! {
        @if let Some(wrong) = wrong { div.verdict.differs role="alert" { p { strong { (wrong) } } } }
        @if none {
            div.empty {
                p { "This server has no keys, and others than this machine may reach it: so it shows nothing here." }
                p { "Give it one with " code { "lockstep up --api-key KEY" } " or " code { "--admin-key KEY" } ", or open "
                    "this page by its address (" code { "http://127.0.0.1:8000/dashboard" } ") on the machine itself, with the "
                    "server listening there only." }
            }
        } @else {
            form.panel method="post" action="/dashboard/login" {
                (visit.token())
                label for="key" { "Key" }
                input id="key" name="key" type="password" autocomplete="current-password" required maxlength="512";
                div.row { button type="submit" { "Sign in" } }
            }
        }
    };
    let lead = "A customer's key shows its own answers and account. The administrator's key shows everything.";
    Page::new("Sign in", lead, body, vec![])
}

/// A key for a session.
pub(crate) async fn login(app: Arc<App>, visit: Visit) -> Result<Reply, ApiError> {
    let key = visit.required("key")?.trim();
    let Some(viewer) = viewer_of(&app, key.as_bytes()) else {
        let page = page(&app, &visit, Some("This is no key of this server."));
        return Ok(Page { status: axum::http::StatusCode::UNAUTHORIZED, ..page }.into());
    };
    let to = if viewer == Viewer::Everything { "/dashboard" } else { "/dashboard/playground" };
    // A new cookie: whoever knew the old one knows nothing.
    app.dashboard.sessions.end(&visit.visitor.cookie.0);
    Ok(Reply::Go(to.to_owned(), Some(app.dashboard.sessions.begin(viewer)?)))
}

/// The end of a session.
pub(crate) async fn logout(app: Arc<App>, visit: Visit) -> Result<Reply, ApiError> {
    app.dashboard.sessions.end(&visit.visitor.cookie.0);
    Ok(Reply::Go("/dashboard/login".to_owned(), None))
}
