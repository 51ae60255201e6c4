//! Adapters: what each does and earns, and their coming and going.

use super::overview::{period, periods};
use super::page::{Page, Reply, Visit};
use super::sums::HOUR;
use super::table::{Cell, Column, Table};
use super::words;
use crate::adapters::{load_from, unload_named};
use crate::app::App;
use crate::device_time::now_microseconds;
use crate::error::ApiError;
use crate::hex;
use maud::{Markup, html};
use returns::Standing;
use std::sync::Arc;

/// Adapters of one page.
const ROWS: usize = 100;

/// The page.
pub(crate) async fn show(app: Arc<App>, visit: Visit) -> Result<Page, ApiError> {
    app.dashboard.sums.catch_up(&app).await;
    let (name, _, hours, _) = period(&visit);
    let end = now_microseconds() / HOUR + 1;
    let report = app.dashboard.sums.report(&app.dashboard.device, end - hours..end);
    let speeds = app.dashboard.sums.speeds(end - hours..end);
    let adapters = app.engine.adapters().list();
    let after = visit.field("after").unwrap_or_default();
    let shown: Vec<_> = adapters.iter().filter(|adapter| adapter.name() > after).take(ROWS).collect();
    let columns = [
        Column("model", "Model"),
        Column("answers", "Answers"),
        Column("tokens", "Tokens"),
        Column("charged_micros", "Earned"),
        Column("late_ppm", "Late"),
        Column("first_half_ms", "First token, half within"),
        Column("first_most_ms", "95 of 100 within"),
        Column("busy_nanoseconds", "Device time"),
        Column("bytes", "Size"),
        Column("rank", "Rank"),
        Column("state", "Where it is"),
        Column("digest", "Digest"),
    ];
    let mut table = Table::new("adapters", "The base and its adapters", &columns, "");
    let base = (after.is_empty()).then_some(None);
    for adapter in base.into_iter().chain(shown.iter().map(|adapter| Some(*adapter))) {
        let model = adapter.map_or(app.base_name.as_str(), |adapter| adapter.name());
        let known = report.models.get(model).cloned().unwrap_or_default();
        let all = |count: fn(&returns::Work) -> u64| known.work.values().map(count).sum::<u64>();
        let work = |standing: Standing| known.work.get(standing.name()).copied().unwrap_or_default();
        let charged = known.work.values().map(|work| work.amount).sum();
        let speed = speeds.get(model).copied().unwrap_or_default();
        let within = |hundredths| speed.within(hundredths).map_or(Cell::None, Cell::Milliseconds);
        let (bytes, digest) = match adapter {
            None => (Some(app.engine.model().weights.bytes() as u64), Some(app.engine.model().digest)),
            Some(adapter) => (adapter.bytes(), adapter.digest()),
        };
        let state = match adapter {
            None => "resident",
            Some(adapter) if adapter.is_pinned() => "pinned: stays resident",
            Some(adapter) if adapter.digest().is_none() => "on disk: loaded when asked for",
            Some(_) => "loaded; resident while it is used",
        };
        table.row(vec![
            Cell::text(model),
            Cell::Count(all(|work| work.answers)),
            Cell::Count(all(returns::Work::tokens)),
            Cell::Dollars(charged),
            Cell::Share(words::ppm(work(Standing::Late).answers, all(|work| work.answers))),
            within(50),
            within(95),
            Cell::Nanoseconds(known.used.time.busy()),
            bytes.map_or(Cell::None, Cell::Bytes),
            adapter.and_then(|adapter| adapter.rank()).map_or(Cell::None, |rank| Cell::Count(rank as u64)),
            Cell::text(state),
            digest.map_or(Cell::None, |digest| Cell::code(hex::encode(&digest))),
        ]);
    }
    if let Some(last) = shown.last().filter(|_| shown.len() == ROWS) {
        table.more =
            Some(format!("{}&period={name}", super::page::address("/dashboard/adapters", "after", last.name())));
    }
    let load = app.engine.load();
    let body = html! {
        (periods("/dashboard/adapters", name))
        (table.html())
        p.dim { (words::count(load.adapters_resident as u64)) " adapters are resident in " (words::bytes(load.adapters_resident_bytes))
            ", and " (words::bytes(load.adapters_host_bytes)) " more wait in the host's memory. Times to a first token are told to the next power of two." }
        @if visit.visitor.may_change { (forms(&visit, &shown)) }
        @else { p.dim { "To load and unload adapters, sign in with the administrator's key." } }
    };
    let lead = "Every adapter shares the base's weights and the device. A request holds its adapter by content: what is loaded \
                under its name later has another digest, and answers under way keep theirs.";
    Ok(Page::new("Adapters", lead, body, vec![table]))
}

fn forms(visit: &Visit, shown: &[&Arc<engine::AdapterHandle>]) -> Markup {
    html! {
        h2 { "Load" }
        form.panel method="post" action="/dashboard/adapters/load" {
            (visit.token())
            label for="name" { "Name that clients will ask for" }
            input id="name" name="name" type="text" required maxlength="200" autocomplete="off";
            label for="path" { "Its folder, inside --adapter-root, or digest:HEX" }
            input id="path" name="path" type="text" required maxlength="4096" autocomplete="off";
            label { input type="checkbox" name="replace" value="yes"; " take the place of one of this name (reload)" }
            div.row { button type="submit" { "Load" } }
        }
        h2 { "Unload" }
        @if shown.is_empty() { div.empty { p { "There is no adapter: give some with lockstep up --adapter NAME=DIR." } } }
        @else {
            form.panel method="post" action="/dashboard/adapters/unload" {
                (visit.token())
                label for="unload" { "Adapter to forget; it can be loaded again" }
                select id="unload" name="name" { @for adapter in shown { option value=(adapter.name()) { (adapter.name()) } } }
                div.row { button.quiet type="submit" { "Unload" } }
            }
        }
        p.dim { "An adapter is pinned when the server starts: " code { "lockstep up --adapter NAME=DIR --pin NAME" } "." }
    }
}

fn check_change(visit: &Visit) -> Result<(), ApiError> {
    let wrong = "this changes the server: sign in with the administrator's key";
    if visit.visitor.may_change { Ok(()) } else { Err(ApiError::forbidden(wrong)) }
}

/// Loads one.
pub(crate) async fn load(app: Arc<App>, visit: Visit) -> Result<Reply, ApiError> {
    check_change(&visit)?;
    let (name, path) = (visit.required("name")?.to_owned(), visit.required("path")?.to_owned());
    load_from(&app, name, path, visit.field("replace").is_some()).await?;
    Ok(Reply::Go("/dashboard/adapters".to_owned(), None))
}

/// Forgets one.
pub(crate) async fn unload(app: Arc<App>, visit: Visit) -> Result<Reply, ApiError> {
    check_change(&visit)?;
    unload_named(&app, visit.required("name")?)?;
    Ok(Reply::Go("/dashboard/adapters".to_owned(), None))
}
