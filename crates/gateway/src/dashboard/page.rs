//! What every page has: head, navigation, and headers that keep foreign content out. And every page in other forms: its
//! tables as CSV or JSON.

use super::assets::{SCRIPT_PATH, STYLE_PATH};
use super::session::{Viewer, Visitor, set};
use super::table::Table;
use crate::error::ApiError;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use maud::{DOCTYPE, Markup, html};
use serde_json::{Map, Value};

/// Pages by their place: path, name, and whether customers see them.
const PLACES: [(&str, &str, bool); 7] = [
    ("/dashboard", "Overview", false),
    ("/dashboard/playground", "Playground", true),
    ("/dashboard/receipts", "Receipts", true),
    ("/dashboard/ledger", "Ledger", true),
    ("/dashboard/adapters", "Adapters", false),
    ("/dashboard/health", "Health", false),
    ("/dashboard/statistics", "Statistics", true),
];

/// Nothing from elsewhere, nothing inline, framed by nobody.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// A request to a page.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    pub(crate) visitor: Visitor,
    pub(crate) path: String,
    /// Parameters of the address, or fields of a form.
    pub(crate) fields: Vec<(String, String)>,
    /// Whether a script asks for the part that answers a form.
    pub(crate) inline: bool,
}

impl Visit {
    /// The first field of this name that is not empty.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(known, value)| known == name && !value.is_empty());
        found.next().map(|(_, value)| value.as_str())
    }

    /// A number in a field.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        let parse = |text: &str| text.parse().map_err(|_| ApiError::invalid(name, format!("'{name}' is no number")));
        self.field(name).map(parse).transpose()
    }

    /// A field that must be there.
    pub(crate) fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.field(name).ok_or_else(|| ApiError::invalid(name, format!("'{name}' is missing: fill it in")))
    }

    pub(crate) fn sees_everything(&self) -> bool {
        self.visitor.viewer == Viewer::Everything
    }

    /// What every form carries.
    pub(crate) fn token(&self) -> Markup {
        html! { @if let Some(token) = &self.visitor.token { input type="hidden" name="token" value=(token); } }
    }
}

/// A page's content.
pub(crate) struct Page {
    pub(crate) title: String,
    /// What one sees here, in a sentence or two.
    pub(crate) lead: String,
    pub(crate) body: Markup,
    /// Tables in the order of files; the body shows them where it wants.
    pub(crate) tables: Vec<Table>,
    pub(crate) status: StatusCode,
}

impl Page {
    pub(crate) fn new(title: impl Into<String>, lead: impl Into<String>, body: Markup, tables: Vec<Table>) -> Page {
        Page { title: title.into(), lead: lead.into(), body, tables, status: StatusCode::OK }
    }
}

/// What a handler gives.
pub(crate) enum Reply {
    Page(Page),
    /// Somewhere else, with a new cookie perhaps.
    Go(String, Option<String>),
    Raw(Response),
}

impl From<Page> for Reply {
    fn from(page: Page) -> Reply {
        Reply::Page(page)
    }
}

/// The response to a visit.
pub(crate) fn respond(visit: &Visit, reply: Result<Reply, ApiError>) -> Response {
    let mut response = match reply {
        Ok(Reply::Page(page)) => shown(visit, &page),
        Ok(Reply::Raw(response)) => response,
        Ok(Reply::Go(to, cookie)) => {
            let mut response = empty(StatusCode::SEE_OTHER);
            insert(&mut response, header::LOCATION, &to);
            if let Some(cookie) = cookie {
                insert(&mut response, header::SET_COOKIE, &set(&cookie));
            }
            response
        }
        Err(error) => trouble(visit, &error),
    };
    if visit.visitor.cookie.1 && visit.visitor.token.is_some() && !response.headers().contains_key(header::SET_COOKIE) {
        insert(&mut response, header::SET_COOKIE, &set(&visit.visitor.cookie.0));
    }
    response
}

/// Headers of every response below `/dashboard`.
pub(crate) fn secure(response: &mut Response) {
    insert(response, header::CONTENT_SECURITY_POLICY, POLICY);
    insert(response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    insert(response, header::REFERRER_POLICY, "no-referrer");
    insert(response, header::X_FRAME_OPTIONS, "DENY");
    insert(response, HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    insert(response, HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if !response.headers().contains_key(header::CACHE_CONTROL) {
        insert(response, header::CACHE_CONTROL, "no-store");
    }
}

fn trouble(visit: &Visit, error: &ApiError) -> Response {
    if visit.inline {
        return typed(error.status, "text/plain; charset=utf-8", error.message.clone());
    }
    let body = html! { div.verdict.differs { p { strong { "That did not work. " } (error.message) } } };
    let page = Page { status: error.status, ..Page::new("Not here", "", body, vec![]) };
    shown(visit, &page)
}

fn shown(visit: &Visit, page: &Page) -> Response {
    match visit.field("format") {
        Some("json") => {
            let tables = page.tables.iter().map(|table| (table.name.to_owned(), table.json()));
            let value = Value::Object(tables.collect::<Map<_, _>>());
            typed(page.status, "application/json", value.to_string())
        }
        Some("csv") => {
            let wanted = visit.field("table");
            let table = page.tables.iter().find(|table| wanted.is_none_or(|name| name == table.name));
            match table {
                Some(table) => typed(page.status, "text/csv; charset=utf-8", table.csv()),
                None => {
                    let names: Vec<&str> = page.tables.iter().map(|table| table.name).collect();
                    let message = format!("there is no such table here; there are: {}\n", names.join(", "));
                    typed(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", message)
                }
            }
        }
        _ if visit.inline => typed(page.status, "text/html; charset=utf-8", page.body.clone().into_string()),
        _ => typed(page.status, "text/html; charset=utf-8", whole(visit, page).into_string()),
    }
}

fn whole(visit: &Visit, page: &Page) -> Markup {
    let visitor = &visit.visitor;
    let here =
        |path: &str| path == visit.path || (path != "/dashboard" && visit.path.starts_with(path.trim_end_matches('s')));
    let seen = |customers: bool| visit.sees_everything() || (customers && visitor.viewer != Viewer::Nobody);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (page.title) " · Lockstep" }
                link rel="stylesheet" href=(*STYLE_PATH);
                link rel="icon" href="data:,";
                script src=(*SCRIPT_PATH) defer {}
            }
            body {
                a.skip href="#main" { "To the content" }
                header.top {
                    a.name href="/dashboard" { "Lockstep" }
                    nav aria-label="Pages" { ul {
                        @for (path, name, customers) in PLACES {
                            @if seen(customers) { li { a href=(path) aria-current=[here(path).then_some("page")] { (name) } } }
                        }
                    } }
                    div.who { (who(visit)) }
                }
                main id="main" {
                    h1 { (page.title) }
                    @if !page.lead.is_empty() { p.lead { (page.lead) } }
                    (page.body)
                }
                footer {
                    @if !page.tables.is_empty() { p { "These numbers as a file: " (files(visit, page)) } }
                    p { "Amounts are in dollars, times in UTC. What each number means is written beside it." }
                }
            }
        }
    }
}

/// A page without navigation, for nobody in particular.
pub(crate) fn plain(title: &str, body: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                link rel="stylesheet" href=(*STYLE_PATH);
                link rel="icon" href="data:,";
            }
            body { main { h1 { (title) } (body) } }
        }
    };
    typed(StatusCode::OK, "text/html; charset=utf-8", page.into_string())
}

fn who(visit: &Visit) -> Markup {
    let visitor = &visit.visitor;
    html! {
        @match &visitor.viewer {
            Viewer::Customer(name) => { span { (name) } }
            Viewer::Everything if visitor.signed_in => { span { "administrator" } }
            Viewer::Everything if visitor.may_change => { span { "open: this machine only" } }
            Viewer::Everything => { span { "reading" } a href="/dashboard/login" { "Sign in to change things" } }
            Viewer::Nobody => {}
        }
        @if visitor.signed_in {
            form method="post" action="/dashboard/logout" { (visit.token()) button.quiet type="submit" { "Sign out" } }
        }
    }
}

fn files(visit: &Visit, page: &Page) -> Markup {
    let parameters: Vec<&(String, String)> =
        visit.fields.iter().filter(|(name, _)| !matches!(name.as_str(), "format" | "table" | "token")).collect();
    let address = |more: &[(&str, &str)]| {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(parameters.iter().map(|pair| (&pair.0, &pair.1))).extend_pairs(more);
        format!("{}?{}", visit.path, query.finish())
    };
    html! {
        a href=(address(&[("format", "json")])) { "JSON" }
        @for table in &page.tables { ", " a href=(address(&[("format", "csv"), ("table", table.name)])) { "CSV: " (table.name) } }
        "."
    }
}

fn typed(status: StatusCode, kind: &'static str, content: String) -> Response {
    let mut response = Response::new(Body::from(content));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn insert(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// An address with one parameter, encoded.
pub(crate) fn address(path: &str, name: &str, value: &str) -> String {
    let value: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
    format!("{path}?{name}={value}")
}
