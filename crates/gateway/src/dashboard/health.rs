//! Whether the server is well: queue, errors, books, log.

use super::live::queue;
use super::page::{Page, Visit};
use super::table::{Cell, Column, Table};
use super::words;
use crate::app::App;
use crate::error::ApiError;
use maud::html;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tlog::Head;

/// The page.
pub(crate) async fn show(app: Arc<App>, _visit: Visit) -> Result<Page, ApiError> {
    let columns = [
        Column("what", "What"),
        Column("state", "How it is"),
        Column("is_well", "Well"),
        Column("means", "What it means"),
    ];
    let mut table = Table::new("health", "How things are", &columns, "");
    let mut all_well = true;
    let mut one = |what: &str, state: String, well: bool, means: &str| {
        all_well &= well;
        let word = if well { "yes" } else { "no" };
        let state = if what == "queue" { Cell::Live("queue", state) } else { Cell::Text(state) };
        table.row(vec![Cell::text(what), state, Cell::text(word), Cell::text(means)]);
    };
    let is_full = app.engine.load().waiting >= app.engine.config().queue_max;
    one("queue", queue(&app), !is_full, "requests beyond the most are refused with 429");
    let kept = app.recorder.is_well();
    one(
        "receipts",
        if kept { "kept" } else { "cannot be kept" }.into(),
        kept,
        "without a receipt no answer is given: the disk",
    );
    match &app.billing {
        None => one("ledger", "none".into(), true, "this server charges nobody"),
        Some(billing) => {
            let health = billing.ledger.health().await;
            let away = health.away.as_ref().map_or("answers".to_owned(), |why| format!("away: {why}"));
            one("ledger's database", away, health.away.is_none(), "while it is away, settlements wait in a file");
            one(
                "settlements that wait",
                health.waiting.to_string(),
                health.waiting == 0,
                "for the database to come back",
            );
            one(
                "settlements set aside",
                health.set_aside.to_string(),
                health.set_aside == 0,
                "refused in the end: people must look at them",
            );
            let books = health.violation.clone().unwrap_or_else(|| match health.checked_at {
                0 => "not checked yet: every minute".to_owned(),
                at => format!("sound up to transaction {} at {}", health.checked, words::moment(at)),
            });
            one(
                "conservation of money",
                books,
                health.violation.is_none(),
                "every account's postings add up to its balance, and all to zero; payouts stop otherwise",
            );
        }
    }
    let audits = &app.dashboard.audits;
    let differed = audits.differed.load(Relaxed);
    one(
        "audits",
        format!("{differed} of {} answers replayed here differed", audits.replayed.load(Relaxed)),
        differed == 0 && audits.believed.load(Relaxed) == 0,
        "an answer of this node's that is not what the model computes: its memory or processor is faulty",
    );
    let log = app.recorder.log().clone();
    let head = tokio::task::spawn_blocking(move || (log.head().map(|(head, _)| head), log.cosigned()));
    let (head, cosigned) = head.await.map_err(|error| ApiError::server(error.to_string()))?;
    match &head {
        Ok(head) => {
            one("log head", format!("{} entries", head.size), true, "signed by the node; anybody may read the log")
        }
        Err(error) => one("log head", error.to_string(), false, "the log's files need attention"),
    }
    let witnesses = match &cosigned {
        Some(note) => {
            let size = Head::of(note).map_or(0, |head| head.size);
            let names: Vec<&str> = note.signatures.iter().skip(1).map(|signature| signature.name()).collect();
            format!("{} signed at {size} entries", names.join(", "))
        }
        None => "none: lockstep up --witness KEY=URL".to_owned(),
    };
    one(
        "witnesses",
        witnesses,
        true,
        "they sign only heads that continue the last, so that two histories cannot be shown",
    );

    let mut errors =
        Table::new("errors", "Requests since the start", &[Column("what", "What"), Column("count", "How many")], "");
    for (what, count) in app.metrics.outcomes() {
        errors.row(vec![Cell::text(what), Cell::Count(count)]);
    }
    let counters = app.engine.counters();
    let mut engine =
        Table::new("engine", "The engine since the start", &[Column("what", "What"), Column("count", "How many")], "");
    for (what, count) in [
        ("steps computed", counters.steps),
        ("prompt tokens computed", counters.prefill_tokens),
        ("prompt tokens found computed", counters.cached_tokens),
        ("answer tokens drawn", counters.answer_tokens),
        ("tokens computed again after giving way", counters.recomputed_tokens),
        ("sequences that gave way", counters.preemptions),
        ("adapters loaded", counters.adapters_loaded),
    ] {
        engine.row(vec![Cell::text(what), Cell::Count(count)]);
    }
    let mut checks = Table::new("audits", "Audits", &[Column("what", "What"), Column("value", "Since the start")], "");
    let count = |counter: &AtomicU64| Cell::Count(counter.load(Relaxed));
    for (what, value) in [
        ("answers replayed on these pages", count(&audits.replayed)),
        ("of these not equal", count(&audits.differed)),
        ("lies made on these pages to be caught", count(&audits.lies)),
        ("of these not caught", count(&audits.believed)),
        ("light checks", count(&audits.light)),
        ("disputes walked", count(&audits.disputes)),
        ("device time of replays", Cell::Nanoseconds(counters.time.audit)),
        (
            "days that what opens an answer is kept for auditors",
            Cell::Count(u64::from(app.limits.window_seconds() / 86_400)),
        ),
    ] {
        checks.row(vec![Cell::text(what), value]);
    }
    let body = html! {
        p { @if all_well { span.well { "All is well." } } @else { span.unwell { "Something needs attention: see below." } } }
        (table.html())
        div.two { div { (errors.html()) } div { (engine.html()) } div { (checks.html()) } }
    };
    Ok(Page::new("Health", "What could go wrong here, and whether it has.", body, vec![table, errors, engine, checks]))
}
