//! What moved the return: the factors that revenue is the product of, and each model's part, against the period before.

use super::table::{Cell, Column, Table};
use returns::{Report, Standing};
use std::collections::BTreeMap;

/// Models in one table.
const MODELS_MAX: usize = 100;

/// A name, and what it was in a period.
type Factor = (&'static str, fn(&Report) -> Cell);

/// What revenue an hour is the product of, in this period and the one before.
pub(crate) fn factors(report: &Report, before: &Report) -> Table {
    let columns = [Column("what", "What"), Column("period", "The period"), Column("before", "The period before")];
    let mut table = Table::new("factors", "Three factors of revenue", &columns, "");
    let known = |report: &Report, cell: Cell| if report.period.paid() > 0 { cell } else { Cell::None };
    let rows: [Factor; 3] = [
        ("share of paid time spent computing", |report| Cell::Share(report.returns().busy_ppm)),
        ("good tokens for an hour of computing", |report| {
            let hours = i128::from(report.time.busy().max(1));
            let tokens = i128::from(report.of(Standing::Good).tokens()) * 3_600_000_000_000 / hours;
            Cell::Count(u64::try_from(tokens).unwrap_or(u64::MAX))
        }),
        ("charged for a million good tokens", |report| {
            let good = report.of(Standing::Good);
            let charged = i128::from(good.amount) * 1_000_000 / i128::from(good.tokens().max(1));
            Cell::Dollars(i64::try_from(charged).unwrap_or(i64::MAX))
        }),
    ];
    for (what, cell) in rows {
        table.row(vec![Cell::text(what), known(report, cell(report)), known(before, cell(before))]);
    }
    table
}

/// What each model brings, the largest change first.
pub(crate) fn models(report: &Report, before: &Report) -> Table {
    let columns = [
        Column("model", "Model"),
        Column("good_answers", "Good answers"),
        Column("good_tokens", "Tokens"),
        Column("charged_micros", "Charged"),
        Column("hourly_micros", "An hour"),
        Column("hourly_before_micros", "An hour, period before"),
        Column("change_micros", "Change"),
        Column("busy_nanoseconds", "Device time"),
    ];
    let empty =
        "Ask a model with a key and a price list: lockstep up --prices FILE --api-keys FILE. The playground asks too.";
    let mut table = Table::new("models", "By model, the largest change first", &columns, empty);
    let names: BTreeMap<&String, ()> =
        report.models.keys().chain(before.models.keys()).map(|name| (name, ())).collect();
    let mut rows: Vec<(i64, Vec<Cell>)> = names
        .into_keys()
        .map(|name| {
            let (now, past) = (hourly(report, name), hourly(before, name));
            let model = report.models.get(name).cloned().unwrap_or_default();
            let good = model.work.get(Standing::Good.name()).copied().unwrap_or_default();
            let past_cell = if before.period.paid() > 0 { Cell::Dollars(past) } else { Cell::None };
            let row = vec![
                Cell::text(name),
                Cell::Count(good.answers),
                Cell::Count(good.tokens()),
                Cell::Dollars(good.amount),
                Cell::Dollars(now),
                past_cell,
                Cell::Dollars(now - past),
                Cell::Nanoseconds(model.used.time.busy()),
            ];
            (now - past, row)
        })
        .collect();
    rows.sort_by_key(|(change, _)| std::cmp::Reverse(change.abs()));
    rows.into_iter().take(MODELS_MAX).for_each(|(_, row)| table.row(row));
    table
}

/// Micro-dollars that good answers of a model brought in a paid hour.
fn hourly(report: &Report, model: &str) -> i64 {
    let good = report.models.get(model).and_then(|model| model.work.get(Standing::Good.name()));
    let amount = i128::from(good.map_or(0, |work| work.amount)) * 3_600_000_000_000;
    i64::try_from(amount / i128::from(report.period.paid().max(1))).unwrap_or(i64::MAX)
}
