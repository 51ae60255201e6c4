//! A dispute and a light check, for people: the buttons that begin one, and what came of it.

use super::Audits;
use super::check::turn;
use super::dispute::{Dot, Judged, Liar, Walked, token_at, walk};
use super::light::{Light, Trick, light};
use super::page::{Page, Visit, address};
use super::receipts::{Opened, open};
use super::steps::numbers;
use super::table::{Cell, Column, Table};
use super::verdict::text;
use super::words;
use crate::app::App;
use crate::error::ApiError;
use crate::hex;
use audit::dispute::{Party, Why};
use maud::{Markup, html};
use receipt::Bundle;
use std::sync::Arc;

/// Products of a dot product that are written out.
const PRODUCTS: usize = 8;

/// Forms that begin a light check or a dispute; what comes of it goes into the element of class `walk-here` around them.
pub(crate) fn buttons(app: &App, visit: &Visit, id: &str) -> Markup {
    let form = |path: &str, inner: Markup| {
        html! {
            form.row method="post" action=(path) data-inline="walk-here" {
                (visit.token())
                input type="hidden" name="id" value=(id);
                (inner)
            }
        }
    };
    let button = |how: &str, class: &'static str, words: &str| {
        html! { button type="submit" name="how" value=(how) class=(class) { (words) } }
    };
    let adapters = app.engine.adapters().list();
    html! {
        h3 { "Check it without the weights" }
        p.dim { "The node hands out the exact sums of every linear map. The verifier recomputes everything else and checks the sums with one secret random combination of "
            "each map's rows, which is all that it kept of the model." }
        (form("/dashboard/light", html! {
            (button("light", "", "Light check"))
            (button("sum", "quiet", "Falsify one sum, then check"))
            (button("answer", "quiet", "Tamper with the answer, then check"))
        }))
        h3 { "Take it before a referee" }
        p.dim { "A node that lies and a doubter halve what they disagree about until one row is left. A referee without the model computes that row alone." }
        (form("/dashboard/dispute", html! {
            (button("sum", "", "The node gets one dot product wrong"))
            (button("answer", "quiet", "The node exchanges a token"))
            (button("nobody", "quiet", "The node is honest, the doubt is false"))
        }))
        (form("/dashboard/dispute", html! {
            select name="other" aria-label="Adapter that the node computes with instead" {
                option value=(app.base_name) { (app.base_name) " (no adapter)" }
                @for adapter in adapters.iter().take(200) { option value=(adapter.name()) { (adapter.name()) } }
            }
            (button("swap", "quiet", "The node computes with this adapter instead"))
        }))
        div.walk-here aria-live="polite" {}
    }
}

fn opened(opened: Opened) -> Result<Bundle, ApiError> {
    opened.bundle.ok_or_else(|| ApiError::forbidden(opened.closed))
}

fn page(app: &App, visit: &Visit, id: &str, title: &str, lead: &str, shown: Markup) -> Page {
    let body = html! {
        (shown)
        @if !visit.inline {
            section.panel data-around="yes" { (buttons(app, visit, id)) }
            p { a href=(address("/dashboard/receipt", "id", id)) { "The receipt, field by field" } }
        }
    };
    Page::new(title, lead, body, vec![])
}

/// Walks a dispute.
pub(crate) async fn dispute(app: Arc<App>, visit: Visit) -> Result<Page, ApiError> {
    let id = visit.required("id")?.to_owned();
    let liar = match visit.field("how").unwrap_or("sum") {
        "nobody" => Liar::Nobody,
        "answer" => Liar::Token,
        "sum" => Liar::Sum,
        "swap" => Liar::Swap(visit.required("other")?.to_owned()),
        _ => return Err(ApiError::invalid("how", "it can be sum, answer, swap or nobody")),
    };
    if let Liar::Swap(name) = &liar
        && let Some(adapter) = app.find(name)?
    {
        app.identify(&adapter, tokio::time::Instant::now() + app.limits.answer_deadline).await?;
    }
    let bundle = opened(open(&app, &visit, &id).await?)?;
    let (walked, disputed) = walk(&app, bundle, liar.clone(), turn(&app).await?).await?;
    Audits::count(&app.dashboard.audits.disputes);
    let lead = "A node that lies, a doubter and a referee without the model, message by message.";
    Ok(page(&app, &visit, &id, "A dispute", lead, shown(&app, &liar, &walked, &disputed)))
}

fn story(liar: &Liar) -> String {
    match liar {
        Liar::Nobody => "The node is honest and the receipt its own. The doubter says that one position of it is not what the model computes.".to_owned(),
        Liar::Token => "The node exchanged one token of the answer, computed the trace anew for it and signed that, with a key made up for this.".to_owned(),
        Liar::Sum => "The node got one dot product in the middle of the model wrong by one, and signed what came of it, with a key made up for this.".to_owned(),
        Liar::Swap(name) => format!("The node computed with {name}, and signed as if with the adapter that was asked for, with a key made up for this."),
    }
}

fn shown(app: &App, liar: &Liar, walked: &Walked, disputed: &Bundle) -> Markup {
    let right = walked.ruling.winner == Party::Prover;
    let (opening, position) = (&disputed.opening, walked.position);
    let columns = [
        Column("message", "Round"),
        Column("looks_at", "They look at"),
        Column("node", "The node: its left half is"),
        Column("doubter", "The doubter has there"),
        Column("then", "So"),
        Column("bytes", "Said"),
    ];
    let mut table =
        Table::new("walk", "Round by round", &columns, "Tokens and settings alone show it: nothing need be said.");
    for (number, round) in (1..).zip(&walked.rounds) {
        let doubter = round.doubter.map_or(Cell::None, |hash| Cell::code(hex::encode(&hash)));
        table.row(vec![
            Cell::Count(number),
            Cell::text(&*round.looks_at),
            Cell::code(hex::encode(&round.node)),
            doubter,
            Cell::text(&*round.then),
            Cell::Bytes(round.bytes as u64),
        ]);
    }
    html! {
        div class=(if right { "verdict equal" } else { "verdict differs" }) role="status" {
            p { (story(liar)) }
            p { strong { @if right { "The node is right." } @else { "The node lied." } } " " (why(walked)) }
            p.dim { (walked.messages) " messages of " (words::bytes(walked.bytes as u64)) " in all; played through in "
                (format!("{:.2} s", walked.took.as_secs_f64())) ", most of it to compute the position again." }
        }
        @if let Some(judged) = &walked.judged { (referee(app, judged, position, token_at(opening, position))) }
        (table.html())
    }
}

fn why(walked: &Walked) -> Markup {
    match &walked.ruling.why {
        Why::Computed { position, row, .. } => html! {
            "Position " (position) ", " @if let Some(judged) = &walked.judged { (judged.part) ", " (judged.what) }
            ", row " (row) ": the referee computed it."
        },
        Why::Plain(what) => html! { (what) ": tokens and settings alone show it." },
        Why::Foul(foul) => html! { "A message broke the rules: " (foul) "." },
        Why::Silence => html! { "The other side said nothing in time." },
    }
}

fn referee(app: &App, judged: &Judged, position: usize, token: Option<u32>) -> Markup {
    let word = |token: u32| format!("token {token} ({:?})", text(app, &[token]));
    let row = |row: &[u8]| numbers(judged.operation, row, judged.wide, word);
    html! {
        section.panel aria-label="The referee" {
            h3 { "What the referee computes" }
            dl.fields {
                dt { "Position" } dd { (position) @if let Some(token) = token { small { (word(token)) } } }
                dt { "Where" } dd { (judged.part) }
                dt { "Operation" } dd { (judged.what) small { "row " (judged.row) " of it" } }
                @if let Some(dot) = &judged.dot { dt { "One dot product" } dd { (product(dot)) } }
                dt { "The node says" } dd { code { (row(&judged.claimed)) } }
                dt { "The doubter has" } dd { code { (row(&judged.doubted)) } }
                dt { "The referee gets" } dd {
                    @match &judged.computed {
                        Ok(computed) => { code { (row(computed)) } }
                        Err(foul) => { (foul) }
                    }
                    small { "from " (words::bytes(judged.bytes as u64)) " of evidence, every byte of it opened against what both had agreed on or the model's digest; in "
                        (words::duration(judged.took.as_nanos() as u64)) ", without the model" }
                }
            }
        }
    }
}

fn product(dot: &Dot) -> Markup {
    let pairs = || dot.levels.iter().zip(&dot.weights);
    let sum: i64 = pairs().map(|(level, weight)| i64::from(*level) * i64::from(*weight)).sum();
    let bracketed =
        |number: i32| if number < 0 { format!("(−{})", number.unsigned_abs()) } else { number.to_string() };
    let written: Vec<String> =
        pairs().take(PRODUCTS).map(|(level, weight)| format!("{}·{}", bracketed(*level), bracketed(*weight))).collect();
    html! {
        code { (written.join(" + ")) @if dot.levels.len() > PRODUCTS { " + …" } " = " strong { (sum) } }
        small { (words::count(dot.levels.len() as u64)) " levels of the input, times as many weights of one row" }
    }
}

/// Checks without the weights.
pub(crate) async fn light_check(app: Arc<App>, visit: Visit) -> Result<Page, ApiError> {
    let id = visit.required("id")?.to_owned();
    let trick = match visit.field("how").unwrap_or("light") {
        "light" => Trick::None,
        "sum" => Trick::Sum,
        "answer" => Trick::Answer,
        _ => return Err(ApiError::invalid("how", "it can be light, sum or answer")),
    };
    let bundle = opened(open(&app, &visit, &id).await?)?;
    let found = light(&app, bundle, trick, turn(&app).await?).await?;
    Audits::count(&app.dashboard.audits.light);
    let lead = "The answer was checked from the sums of its linear maps, with a secret of the verifier's.";
    Ok(page(&app, &visit, &id, "A light check", lead, told(trick, &found)))
}

fn told(trick: Trick, found: &Light) -> Markup {
    let holds = found.verdict.holds();
    html! {
        div class=(if holds { "verdict equal" } else { "verdict differs" }) role="status" {
            @match trick {
                Trick::None => {}
                Trick::Sum => { p { "One of the " (words::count(found.sums)) " sums that the node handed out was made larger by one." } }
                Trick::Answer => { p { "One token in the middle of the answer was exchanged, and the trace computed anew for it." } }
            }
            p { strong { @if holds { "Holds." } @else { "Caught." } } " " (found.verdict) "." }
            @if let Some(place) = &found.place { p { "The sums are of " (place) "." } }
        }
        dl.fields {
            dt { "Positions" } dd { (words::count(found.checked)) " of " (words::count(found.positions))
                small { "as many as fit into what may be handed out here at once" } }
            dt { "The node hands out" } dd { (words::bytes(found.opening_bytes)) small { (words::count(found.sums)) " sums, computed in " (words::duration(found.proving.as_nanos() as u64)) } }
            dt { "The verifier keeps" } dd { (words::bytes(found.key_bytes)) small { "its secret combination of every map's rows, instead of "
                (words::bytes(found.weights_bytes)) " of weights; made in " (words::duration(found.keying.as_nanos() as u64)) ", once for all answers" } }
            dt { "Checked in" } dd { (words::duration(found.checking.as_nanos() as u64)) small { "on one thread" } }
            dt { "A false sum passes" } dd { "once in 2⁶¹ tries" small { "as long as nobody else knows the secret" } }
        }
    }
}
