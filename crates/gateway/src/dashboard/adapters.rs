//! Adapters: what each does and earns, and their coming and going.

use super::overview::{period, periods};
use super::page::{Page, Reply, Visit};
use super::sums::HOUR;
use super::table::{Cell, Column, Table};
use super::words;
use crate::adapters::{load_from, pin_named, unload_named};
use crate::app::App;
use crate::device_time::now_microseconds;
use crate::error::ApiError;
use crate::hex;
use engine::{AdapterHandle, Whereabouts};
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
        Column("first_half_ms", "First token: half within"),
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
            Cell::text(adapter.map_or_else(|| "resident".to_owned(), |adapter| state(adapter))),
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
        p.dim { span data-live="resident" { (words::count(load.adapters_resident as u64)) } " adapters are resident in " (words::bytes(load.adapters_resident_bytes))
            ", and " (words::bytes(load.adapters_host_bytes)) " more wait in the host's memory. Times to a first token are told to the next power of two." }
        @if visit.visitor.may_change { (forms(&visit, &shown)) }
        @else { p.dim { "To load, pin and unload adapters, sign in with the administrator's key." } }
    };
    let lead = "Every adapter shares the base's weights and the device. A request holds its adapter by content: what is loaded \
                under its name later has another digest, and answers under way keep theirs.";
    Ok(Page::new("Adapters", lead, body, vec![table]))
}

/// Where an adapter is, and whether it stays there.
fn state(adapter: &AdapterHandle) -> String {
    let place = match adapter.whereabouts() {
        Whereabouts::Resident => "resident",
        Whereabouts::Host => "in the host's memory",
        Whereabouts::Loading => "on its way",
        Whereabouts::Disk if adapter.folder().is_none() => "in the server's memory until asked for",
        Whereabouts::Disk => "on disk until asked for",
    };
    if adapter.is_pinned() { format!("pinned, {place}") } else { place.to_owned() }
}

fn forms(visit: &Visit, shown: &[&Arc<AdapterHandle>]) -> Markup {
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
        h2 { "Pin and unload" }
        @if shown.is_empty() { div.empty { p { "There is no adapter: give some with lockstep up --adapter NAME=DIR." } } }
        @else {
            form.panel method="post" action="/dashboard/adapters/unload" {
                (visit.token())
                label for="chosen" { "Adapter" }
                select id="chosen" name="name" {
                    @for adapter in shown {
                        option value=(adapter.name()) { (adapter.name()) @if adapter.is_pinned() { " (pinned)" } }
                    }
                }
                div.row {
                    button.quiet type="submit" formaction="/dashboard/adapters/pin" { "Pin" }
                    button.quiet type="submit" formaction="/dashboard/adapters/unpin" { "Unpin" }
                    button.quiet type="submit" { "Unload" }
                }
            }
        }
        p.dim { "A pinned adapter stays in the device's memory whoever else wants room: nobody waits for it to be loaded, and others have less room. All that "
            "are pinned leave half of it. An adapter that is unloaded is forgotten; it can be loaded again." }
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

/// Keeps one resident.
pub(crate) async fn pin(app: Arc<App>, visit: Visit) -> Result<Reply, ApiError> {
    change_pin(&app, &visit, true).await
}

/// Lets one go again when others need its place.
pub(crate) async fn unpin(app: Arc<App>, visit: Visit) -> Result<Reply, ApiError> {
    change_pin(&app, &visit, false).await
}

async fn change_pin(app: &App, visit: &Visit, pinned: bool) -> Result<Reply, ApiError> {
    check_change(visit)?;
    pin_named(app, visit.required("name")?.to_owned(), pinned).await?;
    Ok(Reply::Go("/dashboard/adapters".to_owned(), None))
}

/// Forgets one.
pub(crate) async fn unload(app: Arc<App>, visit: Visit) -> Result<Reply, ApiError> {
    check_change(&visit)?;
    unload_named(&app, visit.required("name")?)?;
    Ok(Reply::Go("/dashboard/adapters".to_owned(), None))
}
