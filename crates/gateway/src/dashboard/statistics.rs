//! Published statistics: what an auditor, a lender or a researcher needs, to be computed again from the ledger and the
//! records.

use super::overview::{period, periods};
use super::page::{Page, Visit};
use super::sums::HOUR;
use super::table::{Cell, Column, Table};
use super::words;
use crate::app::App;
use crate::device_time::now_microseconds;
use crate::error::ApiError;
use ledger::Earnings;
use maud::{Markup, html};
use returns::Standing;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows of a table.
const ROWS: usize = 100;

/// How concentrated what earners of one kind got is.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Concentration {
    earners: u64,
    earned: i64,
    /// The fewest who together have more than half.
    nakamoto: u64,
    /// Herfindahl and Hirschman: the sum of squared shares, 10,000 if one has all.
    hhi: u64,
}

fn concentration(amounts: &[i64]) -> Concentration {
    let mut amounts: Vec<i128> =
        amounts.iter().filter(|amount| **amount > 0).map(|amount| i128::from(*amount)).collect();
    amounts.sort_unstable_by(|a, b| b.cmp(a));
    let all: i128 = amounts.iter().sum();
    let mut sum = 0;
    let half = amounts.iter().position(|amount| {
        sum += amount;
        2 * sum > all
    });
    // Shares in parts per million, so that the squares fit.
    let share = |amount: &i128| amount * 1_000_000 / all.max(1);
    let squares: i128 = amounts.iter().map(|amount| share(amount) * share(amount)).sum();
    Concentration {
        earners: amounts.len() as u64,
        earned: i64::try_from(all).unwrap_or(i64::MAX),
        nakamoto: half.map_or(0, |place| place as u64 + 1),
        hhi: u64::try_from((squares + 50_000_000) / 100_000_000).unwrap_or(10_000),
    }
}

/// The page.
pub(crate) async fn show(app: Arc<App>, visit: Visit) -> Result<Page, ApiError> {
    app.dashboard.sums.catch_up(&app).await;
    let (name, words, hours, _) = period(&visit);
    let end = now_microseconds() / HOUR + 1;
    let report = app.dashboard.sums.report(&app.dashboard.device, end - hours..end);
    let earnings = app.dashboard.earned.of(&app, end - hours..end).await?;

    let mut totals = Table::new(
        "totals",
        "The whole",
        &[
            Column("what", "What"),
            Column("value", "Value"),
            Column("means", "What it means"),
            Column("name", "Name and unit in files"),
        ],
        "",
    );
    let answers: u64 = report.work.values().map(|work| work.answers).sum();
    let part = |standing: Standing| words::ppm(report.of(standing).answers, answers);
    let returns = report.returns();
    for (name, what, value, means) in [
        ("utilization_ppm", "Utilization", Cell::Share(returns.busy_ppm), "of paid time was spent computing"),
        (
            "paid_nanoseconds",
            "Paid time",
            Cell::Nanoseconds(report.period.paid()),
            "device time paid for, idle included",
        ),
        ("answers", "Answers", Cell::Count(answers), "of every standing"),
        ("failed_ppm", "Failed", Cell::Share(part(Standing::Failed)), "of answers failed by the server's fault"),
        ("late_ppm", "Late", Cell::Share(part(Standing::Late)), "of answers were slower than their target"),
        (
            "cancelled_ppm",
            "Broken off",
            Cell::Share(part(Standing::Cancelled)),
            "of answers were broken off by their clients",
        ),
        (
            "good_tokens",
            "Good tokens",
            Cell::Count(report.of(Standing::Good).tokens()),
            "of answers that were paid, in time, with a receipt",
        ),
        ("revenue_micros", "Revenue", Cell::Dollars(returns.revenue), "a paid device-hour, from good answers"),
        (
            "spared_tokens",
            "Spared tokens",
            Cell::Count(report.spared_tokens),
            "need not be computed: shared prompts and right guesses",
        ),
    ] {
        totals.row(vec![Cell::text(what), value, Cell::text(means), Cell::code(name)]);
    }

    let workload = workload(&report);
    let columns = [
        Column("kind", "Earners"),
        Column("earners", "How many"),
        Column("earned_micros", "Earned"),
        Column("nakamoto", "Nakamoto coefficient"),
        Column("hhi", "HHI (10,000 is one alone)"),
    ];
    let empty = "Nobody has earned anything yet: give a price list (lockstep up --prices FILE) and ask with a key.";
    let mut concentrated = Table::new("concentration", "How concentrated earnings are", &columns, empty);
    let net = |one: &Earnings| one.earned.0 - one.refunded.0;
    let mut kinds: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for one in earnings.iter().filter(|one| net(one) > 0) {
        kinds.entry(one.account.kind()).or_default().push(net(one));
    }
    for (kind, amounts) in &kinds {
        let found = concentration(amounts);
        concentrated.row(vec![
            Cell::text(*kind),
            Cell::Count(found.earners),
            Cell::Dollars(found.earned),
            Cell::Count(found.nakamoto),
            Cell::Count(found.hhi),
        ]);
    }
    let body = html! {
        (periods("/dashboard/statistics", name))
        (cards(&returns, part(Standing::Failed), part(Standing::Late)))
        (totals.html())
        h2 { "Revenue by workload" }
        (workload.html())
        h2 { "Concentration" }
        p.lead { "Of all who earn by this ledger, whichever node served. The Nakamoto coefficient is the fewest earners who together have more than half; the Herfindahl–Hirschman index is "
            "the sum of squared shares in per cent. Of a ledger with a single node the operator is one alone, by nature." }
        (concentrated.html())
    };
    let lead = format!(
        "Of the last {words}, from the ledger and the records of the device's time alone: whoever has both gets the same."
    );
    Ok(Page::new("Published statistics", lead, body, vec![totals, workload, concentrated]))
}

fn cards(returns: &returns::Returns, failed: u64, late: u64) -> Markup {
    html! {
        ul.cards {
            li.card { p { "Utilization" } p.figure { (words::share(returns.busy_ppm)) } small { "of paid time computing" } }
            li.card { p { "Failed" } p.figure { (words::share(failed)) } small { "of answers, by the server's fault" } }
            li.card { p { "Late" } p.figure { (words::share(late)) } small { "of answers, slower than their target" } }
            li.card { p { "Revenue" } p.figure { (words::dollars(returns.revenue)) } small { "a paid device-hour" } }
        }
    }
}

fn workload(report: &returns::Report) -> Table {
    let columns = [
        Column("model", "Model"),
        Column("answers", "Answers"),
        Column("prompt_tokens", "Prompt tokens"),
        Column("answer_tokens", "Answer tokens"),
        Column("charged_micros", "Revenue"),
        Column("share_ppm", "Of all revenue"),
    ];
    let mut table = Table::new("workload", "By model", &columns, "Ask something, in the playground or at /v1.");
    let all: i64 = report.work.values().map(|work| work.amount).sum();
    let mut rows: Vec<(i64, Vec<Cell>)> = report
        .models
        .iter()
        .map(|(name, model)| {
            let sum = |count: fn(&returns::Work) -> u64| model.work.values().map(count).sum::<u64>();
            let amount: i64 = model.work.values().map(|work| work.amount).sum();
            let share = words::ppm(u64::try_from(amount).unwrap_or(0), u64::try_from(all).unwrap_or(0));
            let row = vec![
                Cell::text(name),
                Cell::Count(sum(|work| work.answers)),
                Cell::Count(sum(|work| work.prompt_tokens)),
                Cell::Count(sum(|work| work.answer_tokens)),
                Cell::Dollars(amount),
                Cell::Share(share),
            ];
            (amount, row)
        })
        .collect();
    rows.sort_by_key(|(amount, _)| std::cmp::Reverse(*amount));
    rows.into_iter().take(ROWS).for_each(|(_, row)| table.row(row));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concentration_by_hand() {
        let found = concentration(&[50, 30, 20]);
        assert_eq!((found.nakamoto, found.hhi), (2, 3800));
        assert_eq!((concentration(&[7]).nakamoto, concentration(&[7]).hhi), (1, 10_000));
        let alike = concentration(&[1; 100]);
        assert_eq!((alike.nakamoto, alike.hhi, alike.earners), (51, 100, 100));
        assert_eq!(concentration(&[0, -5]), Concentration::default());
    }
}
