//! What a check found, for people; and the buttons that begin one.

use super::check::{Cheat, Finding, Wrong, check};
use super::page::{Page, Visit, address};
use super::receipts::open;
use crate::app::App;
use crate::error::ApiError;
use maud::{Markup, html};
use receipt::{Bundle, Lie};
use std::sync::Arc;

/// Checks, or cheats and checks.
pub(crate) async fn act(app: Arc<App>, visit: Visit) -> Result<Page, ApiError> {
    let id = visit.required("id")?.to_owned();
    let cheat = match visit.field("how").unwrap_or("check") {
        "check" => Cheat::None,
        "answer" => Cheat::Lie(Lie::Answer),
        "trace" => Cheat::Lie(Lie::Trace),
        "short" => Cheat::Lie(Lie::Short),
        "swap" => Cheat::Swap(visit.required("other")?.to_owned()),
        _ => return Err(ApiError::invalid("how", "it can be check, answer, trace, short or swap")),
    };
    if let Cheat::Swap(name) = &cheat
        && let Some(adapter) = app.find(name)?
    {
        app.identify(&adapter, tokio::time::Instant::now() + app.limits.answer_deadline).await?;
    }
    let opened = open(&app, &visit, &id).await?;
    let bundle = opened.bundle.ok_or_else(|| {
        ApiError::forbidden("to check an answer takes its tokens: give the whole id that its client got, key included")
    })?;
    let (finding, checked) = check(&app, bundle, &cheat).await?;
    let body = html! {
        (verdict(&app, &cheat, &finding, &checked))
        @if !visit.inline {
            (buttons(&app, &visit, &id))
            p { a href=(address("/dashboard/receipt", "id", &id)) { "The receipt, field by field" } }
        }
    };
    let lead = "The answer was computed again, position by position, and compared bit for bit.";
    Ok(Page::new("Check of an answer", lead, body, vec![]))
}

/// Forms that check an answer or cheat; their answers come into the element of class `verdict-here` around them.
pub(crate) fn buttons(app: &App, visit: &Visit, id: &str) -> Markup {
    let button = |how: &str, class: &'static str, words: &str| {
        html! { button type="submit" name="how" value=(how) class=(class) { (words) } }
    };
    let adapters = app.engine.adapters().list();
    html! {
        form.row method="post" action="/dashboard/check" data-inline="verdict-here" {
            (visit.token())
            input type="hidden" name="id" value=(id);
            (button("check", "", "Check"))
            (button("answer", "quiet", "Tamper with the answer, then check"))
            (button("trace", "quiet", "Tamper with the trace"))
            (button("short", "quiet", "Cut the answer short"))
        }
        form.row method="post" action="/dashboard/check" data-inline="verdict-here" {
            (visit.token())
            input type="hidden" name="id" value=(id);
            select name="other" aria-label="Adapter to swap in" {
                option value=(app.base_name) { (app.base_name) " (no adapter)" }
                @for adapter in adapters.iter().take(200) { option value=(adapter.name()) { (adapter.name()) } }
            }
            (button("swap", "quiet", "Swap the adapter, then check"))
        }
        div.verdict-here aria-live="polite" {}
    }
}

fn verdict(app: &App, cheat: &Cheat, finding: &Finding, checked: &Bundle) -> Markup {
    let equal = matches!(finding, Finding::Equal { .. });
    let done = match cheat {
        Cheat::None => None,
        Cheat::Lie(Lie::Answer) => {
            Some("One token in the middle of the answer was exchanged, and the trace computed anew for it.".to_owned())
        }
        Cheat::Lie(Lie::Trace) => Some("One bit of one position's trace was turned.".to_owned()),
        Cheat::Lie(Lie::Short) => Some("The answer was cut in half.".to_owned()),
        Cheat::Lie(Lie::Prompt) => Some("The prompt was changed.".to_owned()),
        Cheat::Swap(name) => {
            Some(format!("The answer was computed with {name}, and signed as if by the adapter that was asked for."))
        }
    };
    html! {
        div class=(if equal { "verdict equal" } else { "verdict differs" }) role="status" {
            @if let Some(done) = done { p { (done) " It was signed, as a cheating node would, with a key made up for this." } }
            @match finding {
                Finding::Equal { positions, took } => {
                    p { strong { "Equal." } " All " (positions) " positions and every token are what the model computes, bit for bit. "
                        "Replayed in " (format!("{:.2} s.", took.as_secs_f64())) }
                }
                Finding::Before(what) => { p { strong { "Not true." } " " (what) "." } }
                Finding::Differs { position, token, took } => {
                    p { strong { "Caught." } " "
                        @match (token, position) {
                            (Some(wrong), _) => { (named(app, wrong)) }
                            (None, _) => { "Every token is what the model draws. " }
                        }
                        @if let Some(position) = position {
                            " From position " (position) " on (" (place(*position, checked.opening.prompt.len()))
                            "), keys, values and hidden states are not the ones that the model named in the receipt computes."
                        }
                    }
                    @if let Some(wrong) = token { (shown(app, wrong, &checked.opening.output)) }
                    p.dim { "Replayed in " (format!("{:.2} s.", took.as_secs_f64())) }
                }
            }
        }
    }
}

fn place(position: usize, prompt: usize) -> String {
    match position.checked_sub(prompt) {
        Some(number) => format!("token {number} of the answer"),
        None => format!("token {position} of the prompt"),
    }
}

pub(crate) fn text(app: &App, tokens: &[u32]) -> String {
    app.engine.text().decode(tokens, false).unwrap_or_default()
}

fn named(app: &App, wrong: &Wrong) -> Markup {
    let one = |token: &Option<u32>, none: &str| match token {
        Some(token) => html! { "token " (token) " (" code { (format!("{:?}", text(app, &[*token]))) } ")" },
        None => html! { (none) },
    };
    html! {
        "The first token that is not true is number " strong { (wrong.number) } " of the answer, counted from 0: the receipt claims "
        (one(&wrong.claimed, "that the answer ended")) ", the model draws " (one(&wrong.drawn, "nothing more")) "."
    }
}

fn shown(app: &App, wrong: &Wrong, output: &[u32]) -> Markup {
    let (before, rest) = output.split_at(wrong.number.min(output.len()));
    let (own, after) = rest.split_at(rest.len().min(1));
    html! { p.answer { (text(app, before)) mark { (text(app, own)) } (text(app, after)) } }
}
