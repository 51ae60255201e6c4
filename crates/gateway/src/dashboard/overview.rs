//! Return on GPU: what paid hours brought, where the device's time and memory went, and what moved it.

use super::chart::{self, Around, Series};
use super::moved::{factors, models};
use super::page::{Page, Visit};
use super::sums::HOUR;
use super::table::{Cell, Column, Table};
use super::words;
use crate::app::App;
use crate::device_time::now_microseconds;
use crate::error::ApiError;
use maud::{Markup, html};
use returns::{Report, Returns, Standing};
use std::sync::Arc;

/// Periods: name in addresses, name for people, hours, hours of one bar.
const PERIODS: [(&str, &str, u64, u64); 3] =
    [("day", "24 hours", 24, 1), ("week", "7 days", 168, 6), ("month", "30 days", 720, 24)];

/// The period that is asked for.
pub(crate) fn period(visit: &Visit) -> (&'static str, &'static str, u64, u64) {
    let asked = visit.field("period").unwrap_or("day");
    PERIODS.into_iter().find(|(name, ..)| *name == asked).unwrap_or(PERIODS[0])
}

/// Links to all periods.
pub(crate) fn periods(path: &str, chosen: &str) -> Markup {
    html! {
        ul.tabs aria-label="Period" {
            @for (name, words, ..) in PERIODS {
                li { a href={ (path) "?period=" (name) } aria-current=[(name == chosen).then_some("true")] { "last " (words) } }
            }
        }
    }
}

/// The page.
pub(crate) async fn show(app: Arc<App>, visit: Visit) -> Result<Page, ApiError> {
    let sums = &app.dashboard.sums;
    sums.catch_up(&app).await;
    let (name, words, hours, step) = period(&visit);
    let end = now_microseconds() / HOUR + 1;
    let (start, device) = (end - hours, &app.dashboard.device);
    let report = sums.report(device, start..end);
    let before = sums.report(device, start.saturating_sub(hours)..start);
    let steps: Vec<(u64, Report)> = (start..end)
        .step_by(step as usize)
        .map(|hour| (hour, sums.report(device, hour..(hour + step).min(end))))
        .collect();
    let hour = sums.report(device, end - 1..end);

    let tables = vec![
        lines(&report, &hour),
        models(&report, &before),
        answers(&report),
        time(&report),
        over_time(&steps),
        factors(&report, &before),
    ];
    let body = html! {
        (periods("/dashboard", name))
        @if let Some(hour) = sums.reading() {
            p.verdict role="status" { "The ledger is being summed up, newest first; it has come back to "
                (words::moment(hour.saturating_mul(HOUR) as i64)) ". What is older is missing here for now." }
        }
        (cards(&report, &hour))
        @if report.period.from == report.period.to {
            div.empty { p { "No record of the device's time yet: one is written every ten seconds." } }
        }
        div.two { (money(&steps)) (goodput(&steps)) }
        h2 { "What moved it" }
        p.lead { "Revenue an hour is the share of time spent computing, times good tokens for each hour of computing, times what a token brings: one of the three moved. Below, by model." }
        (tables[5].html())
        (tables[1].html())
        h2 { "Where the device's time went" }
        p.lead { "All paid time, by what it was spent on: " (words::share(report.returns().busy_ppm)) " of it computing." }
        (stacked(&steps))
        (tables[3].html())
        div.two { (memory(&report)) (now(&app)) }
        h2 { "Answers" }
        (tables[2].html())
        details { summary { "Everything over time, as a table" } (tables[4].html()) (tables[0].html()) }
    };
    let lead = format!(
        "What a paid hour of this device brought in the last {words}, idle time included. Only answers that were paid for, in \
         time, with a receipt that stands, count."
    );
    Ok(Page::new("Return on GPU", lead, body, tables))
}

fn cards(report: &Report, hour: &Report) -> Markup {
    let (all, now) = (report.returns(), hour.returns());
    let known = !report.device.name.is_empty();
    let card = |name: &str, live: &str, figure: String, (unit, means): (&str, &str), now: String| {
        html! { li.card { p { (name) } p.figure { (figure) } small { (unit) ". " (means) }
        small { "This hour so far: " span data-live=(live) { (now) } } } }
    };
    let goodput = |returns: &Returns| returns.goodput_per_dollar.map_or("–".to_owned(), words::count);
    html! {
        ul.cards {
            (card("Revenue", "revenue", words::dollars(all.revenue), ("an hour", "Charged for good answers"), words::dollars(now.revenue)))
            (card("Cash margin", "cash_margin", words::dollars(all.cash_margin), ("an hour", "After energy and place"), words::dollars(now.cash_margin)))
            (card("Economic profit", "economic_profit", words::dollars(all.economic_profit), ("an hour", "After wear and interest too"), words::dollars(now.economic_profit)))
            (card("Goodput per dollar", "goodput", goodput(&all), ("tokens", "Tokens of good answers for a dollar of cost"), goodput(&now)))
        }
        @if known { p.dim { "Costs are those of " (report.device.name) ". " (report.device.source) } }
        @else {
            div.empty { p { "What this device costs is not known, so nothing costs anything here. Say it with "
                code { "lockstep up --costs NAME" } " (or a file), and margins and goodput for each dollar appear." } }
        }
    }
}

fn ends(steps: &[(u64, Report)]) -> (String, String) {
    let name = |hour: u64| words::moment(hour.saturating_mul(HOUR) as i64).chars().take(16).collect();
    (steps.first().map(|(hour, _)| name(*hour)).unwrap_or_default(), "now (UTC)".to_owned())
}

fn series(name: &str, colour: usize, steps: &[(u64, Report)], value: impl Fn(&Report) -> f64) -> Series {
    Series { name: name.to_owned(), colour, values: steps.iter().map(|(_, report)| value(report)).collect() }
}

fn money(steps: &[(u64, Report)]) -> Markup {
    let series = [
        series("revenue", 0, steps, |report| report.returns().revenue as f64),
        series("cash margin", 1, steps, |report| report.returns().cash_margin as f64),
        series("economic profit", 4, steps, |report| report.returns().economic_profit as f64),
    ];
    let around = Around {
        title: "Dollars for a paid hour",
        says: "Revenue, cash margin and economic profit over time, in dollars for a paid hour; the numbers are in the table \
               below."
            .to_owned(),
        ends: ends(steps),
        write: |micros| words::dollars(micros as i64),
    };
    chart::lines(&around, &series)
}

fn goodput(steps: &[(u64, Report)]) -> Markup {
    let tokens = |report: &Report| report.of(Standing::Good).tokens() as f64;
    let all = |report: &Report| report.work.values().map(|work| work.tokens()).sum::<u64>() as f64;
    let series = [
        series("good", 2, steps, tokens),
        series("late, free, failed and the rest", 7, steps, |report| all(report) - tokens(report)),
    ];
    let around = Around {
        title: "Tokens of prompts and answers",
        says: "Tokens of good answers and of all others over time; the numbers are in the table below.".to_owned(),
        ends: ends(steps),
        write: |tokens| words::count(tokens as u64),
    };
    chart::stacked(&around, &names(steps), &series)
}

fn names(steps: &[(u64, Report)]) -> Vec<String> {
    steps.iter().map(|(hour, _)| words::moment(hour.saturating_mul(HOUR) as i64).chars().take(16).collect()).collect()
}

/// Every kind of time and what it is.
const KINDS: [(&str, &str); 10] = [
    ("prefill", "computing prompts"),
    ("decode", "computing answers"),
    ("accepted", "right guesses ahead"),
    ("rejected", "wrong guesses ahead"),
    ("recomputed", "computing again what gave way"),
    ("audit", "computing again to check"),
    ("loading", "waiting for adapters"),
    ("held", "not computing although somebody waits"),
    ("idle", "nobody waits"),
    ("no record", "server off, but paid for"),
];

fn kinds(report: &Report) -> Vec<(&'static str, u64)> {
    report.time.kinds().into_iter().chain([("no record", report.unrecorded)]).collect()
}

fn stacked(steps: &[(u64, Report)]) -> Markup {
    let all: Vec<Series> = KINDS
        .iter()
        .enumerate()
        .map(|(place, (name, _))| series(name, place, steps, |report| kinds(report)[place].1 as f64))
        .filter(|one| one.values.iter().any(|value| *value > 0.0))
        .collect();
    let around = Around {
        title: "Device time by kind",
        says: "The device's paid time over time, by what it was spent on; the numbers are in the table below."
            .to_owned(),
        ends: ends(steps),
        write: |nanoseconds| words::duration(nanoseconds as u64),
    };
    chart::stacked(&around, &names(steps), &all)
}

fn time(report: &Report) -> Table {
    let columns = [
        Column("kind", "Kind"),
        Column("means", "What it is"),
        Column("nanoseconds", "Time"),
        Column("share_ppm", "Of paid time"),
    ];
    let mut table =
        Table::new("time", "Time of the device", &columns, "It appears once the server has run for ten seconds.");
    for ((name, nanoseconds), (_, means)) in kinds(report).into_iter().zip(KINDS) {
        let share = words::ppm(nanoseconds, report.period.paid());
        table.row(vec![Cell::text(name), Cell::text(means), Cell::Nanoseconds(nanoseconds), Cell::Share(share)]);
    }
    table
}

fn lines(report: &Report, hour: &Report) -> Table {
    let columns = [Column("line", "Line"), Column("period", "The period"), Column("hour", "This hour")];
    let mut table = Table::new("returns", "For each paid device-hour", &columns, "");
    let (all, now) = (report.returns(), hour.returns());
    for (name, all, now) in [
        ("revenue_micros", all.revenue, now.revenue),
        ("cash_margin_micros", all.cash_margin, now.cash_margin),
        ("economic_profit_micros", all.economic_profit, now.economic_profit),
        ("operator_revenue_micros", all.operator_revenue, now.operator_revenue),
    ] {
        table.row(vec![Cell::text(name), Cell::Dollars(all), Cell::Dollars(now)]);
    }
    let goodput = |returns: &Returns| returns.goodput_per_dollar.map_or(Cell::None, Cell::Count);
    table.row(vec![Cell::text("goodput_per_dollar"), goodput(&all), goodput(&now)]);
    let moment = |time: u64| Cell::Moment(i64::try_from(time).unwrap_or(0));
    table.row(vec![Cell::text("from"), moment(report.period.from), moment(hour.period.from)]);
    table.row(vec![Cell::text("to"), moment(report.period.to), moment(hour.period.to)]);
    table
}

fn answers(report: &Report) -> Table {
    let columns = [
        Column("standing", "What came of them"),
        Column("answers", "Answers"),
        Column("prompt_tokens", "Prompt tokens"),
        Column("cached_tokens", "Of these found computed"),
        Column("answer_tokens", "Answer tokens"),
        Column("charged_micros", "Charged"),
    ];
    let empty = "No answers in this period: ask something in the playground.";
    let mut table = Table::new("answers", "Answers by what came of them", &columns, empty);
    for standing in Standing::ALL.into_iter().filter(|_| !report.work.is_empty()) {
        let (work, means) = (report.of(standing), meaning(standing));
        table.row(vec![
            Cell::text(format!("{}: {means}", standing.name())),
            Cell::Count(work.answers),
            Cell::Count(work.prompt_tokens),
            Cell::Count(work.cached_tokens),
            Cell::Count(work.answer_tokens),
            Cell::Dollars(work.amount),
        ]);
    }
    table
}

fn meaning(standing: Standing) -> &'static str {
    match standing {
        Standing::Good => "paid, in time, with a receipt",
        Standing::Late => "slower than the model's target",
        Standing::Unverified => "without a standing receipt",
        Standing::Cancelled => "broken off by the client",
        Standing::Free => "nobody pays for them",
        Standing::Failed => "the server's fault",
    }
}

fn over_time(steps: &[(u64, Report)]) -> Table {
    let columns = [
        Column("from", "From"),
        Column("revenue_micros", "Revenue an hour"),
        Column("cash_margin_micros", "Cash margin an hour"),
        Column("economic_profit_micros", "Economic profit an hour"),
        Column("goodput_per_dollar", "Tokens a dollar"),
        Column("good_tokens", "Good tokens"),
        Column("answers", "Answers"),
        Column("busy_ppm", "Computing"),
        Column("busy_nanoseconds", "Time computing"),
    ];
    let mut table = Table::new("over_time", "Over time", &columns, "");
    for (hour, report) in steps {
        let returns = report.returns();
        table.row(vec![
            Cell::Moment(hour.saturating_mul(HOUR) as i64),
            Cell::Dollars(returns.revenue),
            Cell::Dollars(returns.cash_margin),
            Cell::Dollars(returns.economic_profit),
            returns.goodput_per_dollar.map_or(Cell::None, Cell::Count),
            Cell::Count(report.of(Standing::Good).tokens()),
            Cell::Count(report.work.values().map(|work| work.answers).sum()),
            Cell::Share(returns.busy_ppm),
            Cell::Nanoseconds(report.time.busy()),
        ]);
    }
    table
}

fn memory(report: &Report) -> Markup {
    let bytes = report.bytes;
    let separate = format!("{} separate deployments", bytes.models);
    let here = vec![
        ("base", 0, bytes.base),
        ("resident adapters", 1, bytes.adapters),
        ("pages of keys and values", 3, bytes.pages),
    ];
    let bars = [("Here", here), (separate.as_str(), vec![("weights alone", 7, bytes.separate)])];
    chart::compared("Memory against separate deployments", &bars, words::bytes)
}

fn now(app: &App) -> Markup {
    let numbers = super::live::numbers(app);
    let number = |name: &str| numbers[name].as_str().unwrap_or_default().to_owned();
    html! {
        section.panel aria-label="Now" {
            h3 { "Now" }
            dl.fields {
                @for (name, words, means) in [
                    ("running", "Being computed", "requests in the current batch"),
                    ("waiting", "Waiting", "requests in the queue"),
                    ("pages", "Pages in use", "64 tokens of keys and values each"),
                    ("resident", "Adapters resident", "ready in the device's memory"),
                    ("receipts", "Receipts", "ever made by this node"),
                ] {
                    dt { (words) }
                    dd { span data-live=(name) { (number(name)) } small { (means) } }
                }
            }
        }
    }
}
