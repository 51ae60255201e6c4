//! The playground: one question to several models side by side, and under each answer its receipt.

use super::page::{Page, Reply, Visit, address};
use super::session::Viewer;
use super::verdict::buttons;
use crate::app::App;
use crate::body::Received;
use crate::error::ApiError;
use crate::keys::Caller;
use crate::order::Endpoint;
use crate::routes::answer;
use axum::response::Response;
use http_body_util::BodyExt;
use maud::{Markup, html};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::time::Instant;

/// Models asked at once.
const ASKED_MAX: usize = 6;
/// Models to choose from.
const SHOWN_MAX: usize = 60;
/// Tokens of an answer, where the form does not say.
const TOKENS: u64 = 160;
/// Bytes of an answer's JSON.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// The form.
pub(crate) async fn show(app: Arc<App>, visit: Visit) -> Result<Page, ApiError> {
    Ok(page(&app, &visit, html! {}))
}

fn page(app: &App, visit: &Visit, answers: Markup) -> Page {
    let adapters = app.engine.adapters().list();
    let chosen: Vec<&str> =
        visit.fields.iter().filter(|(name, _)| name == "model").map(|(_, value)| &**value).collect();
    let first = adapters.first().map(|adapter| adapter.name().to_owned());
    let is_chosen = |name: &str| match chosen[..] {
        [] => name == app.base_name || first.as_deref() == Some(name),
        _ => chosen.contains(&name),
    };
    let names = std::iter::once(app.base_name.as_str()).chain(adapters.iter().map(|adapter| adapter.name()));
    let prompt =
        visit.field("prompt").unwrap_or("Hello, my red kettle from order 40231 arrived broken. I want my money back.");
    let body = html! {
        form.panel method="post" action="/dashboard/playground" data-stream="yes" {
            (visit.token())
            fieldset {
                legend { "Ask these models" }
                @for name in names.take(SHOWN_MAX) {
                    label { input type="checkbox" name="model" value=(name) checked[is_chosen(name)]; (name) }
                }
                @if adapters.len() >= SHOWN_MAX {
                    label { "another: " input type="text" name="model" aria-label="Name of another model"; }
                }
            }
            label for="prompt" { "Message" }
            textarea id="prompt" name="prompt" required maxlength="100000" { (prompt) }
            div.row {
                div { label for="tokens" { "At most so many tokens" }
                    input id="tokens" name="tokens" type="number" min="1" max="100000" value=(visit.field("tokens").unwrap_or("160")); }
                div { label for="temperature" { "Temperature (0 is the likeliest answer)" }
                    input id="temperature" name="temperature" type="number" min="0" max="2" step="0.1" value=(visit.field("temperature").unwrap_or("0")); }
                button type="submit" { "Ask" }
            }
        }
        div.two #answers { (answers) }
        template #answer { (answer_panel(app, visit, "", html! {}, None)) }
    };
    let lead = "One question to several models side by side: they share one base and one batch. Under each answer, check its \
                receipt, or cheat and see it caught.";
    Page::new("Playground", lead, body, vec![])
}

/// An answer and what can be done with it; without an id a script fills it in.
fn answer_panel(app: &App, visit: &Visit, model: &str, said: Markup, id: Option<&str>) -> Markup {
    html! {
        section.panel data-around="yes" {
            h3 { (model) }
            p.answer { (said) }
            div data-receipt="yes" hidden[id.is_none()] {
                p { a data-receipt-link="yes" href=(address("/dashboard/receipt", "id", id.unwrap_or_default())) { "Its receipt, field by field" } }
                (buttons(app, visit, id.unwrap_or_default()))
            }
        }
    }
}

/// Answers the form without scripts: all answers, whole.
pub(crate) async fn ask(app: Arc<App>, visit: Visit) -> Result<Page, ApiError> {
    let models: Vec<String> = visit
        .fields
        .iter()
        .filter(|(name, value)| name == "model" && !value.is_empty())
        .map(|(_, value)| value.clone())
        .collect();
    if models.is_empty() || models.len() > ASKED_MAX {
        return Err(ApiError::invalid("model", format!("choose one to {ASKED_MAX} models")));
    }
    let asked = models.iter().map(|model| async {
        let response = send(&app, &visit, model, false).await?;
        let bytes = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = bytes.map_err(|error| ApiError::server(error.to_string()))?.to_bytes();
        serde_json::from_slice::<Value>(&bytes).map_err(|error| ApiError::server(error.to_string()))
    });
    let answers = futures_util::future::join_all(asked).await;
    let panels = html! {
        @for (model, answer) in models.iter().zip(&answers) {
            @match answer {
                Ok(answer) => {
                    @let said = answer["choices"][0]["message"]["content"].as_str().unwrap_or_default();
                    (answer_panel(&app, &visit, model, html! { (said) }, answer["receipt"]["id"].as_str()))
                }
                Err(error) => { section.panel { h3 { (model) } div.verdict.differs { p { (error.message) } } } }
            }
        }
    };
    Ok(page(&app, &visit, panels))
}

/// Answers the form with scripts: one answer, as it comes.
pub(crate) async fn stream(app: Arc<App>, visit: Visit) -> Result<Reply, ApiError> {
    let model = visit.required("model")?.to_owned();
    send(&app, &visit, &model, true).await.map(Reply::Raw)
}

/// Asks as the API would be asked, by whoever is signed in.
async fn send(app: &Arc<App>, visit: &Visit, model: &str, stream: bool) -> Result<Response, ApiError> {
    let started = Instant::now();
    let tokens = visit.number::<u64>("tokens")?.unwrap_or(TOKENS);
    let temperature = visit.number::<f64>("temperature")?.unwrap_or(0.0);
    let body = json!({
        "model": model,
        "messages": [{"role": "user", "content": visit.required("prompt")?}],
        "max_tokens": tokens,
        "temperature": temperature,
        "stream": stream,
    });
    let caller = match &visit.visitor.viewer {
        Viewer::Customer(name) => Caller(Some(name.clone())),
        _ => Caller(None),
    };
    let received = Received::made(app, body.to_string().into_bytes()).await?;
    answer(app.clone(), Endpoint::Chat, caller, received, started).await
}
