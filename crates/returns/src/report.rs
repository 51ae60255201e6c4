//! Return on GPU: what a paid hour of a device brought. The definitions are in docs/return-on-gpu.md.
//!
//! Everything is a sum over settled answers and over records of the device's time, so whoever has both gets the same
//! figures. Whole numbers are summed; only what is told as a rate is divided, last.

use crate::device::{Cost, Device};
use crate::record::{Bytes, Record, Time, Use};
use serde::Serialize;
use std::collections::BTreeMap;

/// Nanoseconds of an hour.
const HOUR: u128 = 3_600_000_000_000;

/// What became of an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Paid for, in time, with a receipt that stands: this alone earns.
    Good,
    /// Paid for, but slower than its target.
    Late,
    /// Paid for, but its receipt is not in the log or an audit refuted it.
    Unverified,
    /// Broken off by its client, paid as far as it came; it has no receipt.
    Cancelled,
    /// Nobody pays for it.
    Free,
    /// It came to no end.
    Failed,
}

impl Standing {
    /// Every one, in the order of a report.
    pub const ALL: [Standing; 6] =
        [Standing::Good, Standing::Late, Standing::Unverified, Standing::Cancelled, Standing::Free, Standing::Failed];

    /// Its name in tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Standing::Good => "good",
            Standing::Late => "late",
            Standing::Unverified => "unverified",
            Standing::Cancelled => "cancelled",
            Standing::Free => "free",
            Standing::Failed => "failed",
        }
    }
}

/// Answers of one model and one standing.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Work {
    /// How many.
    pub answers: u64,
    /// Tokens of their prompts, found computed or not.
    pub prompt_tokens: u64,
    /// Of these, found computed.
    pub cached_tokens: u64,
    /// Tokens of answers.
    pub answer_tokens: u64,
    /// Of these, right guesses of the client's prediction.
    pub accepted_tokens: u64,
    /// Micro-dollars charged.
    pub amount: i64,
    /// Of these, the operator's part.
    pub operator: i64,
}

impl Work {
    /// Adds more of it.
    pub fn add(&mut self, more: &Work) {
        self.answers += more.answers;
        self.prompt_tokens += more.prompt_tokens;
        self.cached_tokens += more.cached_tokens;
        self.answer_tokens += more.answer_tokens;
        self.accepted_tokens += more.accepted_tokens;
        self.amount = self.amount.saturating_add(more.amount);
        self.operator = self.operator.saturating_add(more.operator);
    }

    /// Tokens of prompts and answers.
    pub fn tokens(&self) -> u64 {
        self.prompt_tokens + self.answer_tokens
    }
}

/// What a report is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Period {
    /// Microseconds since 1970.
    pub from: u64,
    /// Microseconds since 1970; not in it.
    pub to: u64,
    /// Devices paid for all that time.
    pub devices: u64,
}

impl Period {
    /// Nanoseconds paid for.
    pub fn paid(&self) -> u64 {
        self.to.saturating_sub(self.from).saturating_mul(1000).saturating_mul(self.devices)
    }
}

/// What a model (the base by itself, or an adapter) did and brought.
#[derive(Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub struct ModelReport {
    /// Answers by standing.
    pub work: BTreeMap<&'static str, Work>,
    /// What it took of the device.
    pub used: Use,
}

/// The whole of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// What it is about.
    pub period: Period,
    /// The device it reckons with.
    pub device: Device,
    /// Where the device's time went, as far as it is recorded.
    pub time: Time,
    /// Nanoseconds between the beginnings and ends of the records, by the system's clock.
    pub recorded: u64,
    /// Paid nanoseconds of which there is no record: the server was off.
    pub unrecorded: u64,
    /// Answers by standing.
    pub work: BTreeMap<&'static str, Work>,
    /// By model.
    pub models: BTreeMap<String, ModelReport>,
    /// What the period cost.
    pub cost: Cost,
    /// Tokens of prompts that were found computed, and of answers that had been guessed right: all answers.
    pub spared_tokens: u64,
    /// Guesses that were wrong.
    pub rejected_tokens: u64,
    /// Memory at the end of the last record.
    pub bytes: Bytes,
}

/// Micro-dollars for a paid device-hour, and more that is told as a rate.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Returns {
    /// Charged for good work, for an hour.
    pub revenue: i64,
    /// Without energy and place.
    pub cash_margin: i64,
    /// And without depreciation and interest.
    pub economic_profit: i64,
    /// Tokens of good work for a dollar of cost; none if nothing is known to cost anything.
    pub goodput_per_dollar: Option<u64>,
    /// The operator's part of the revenue, for an hour.
    pub operator_revenue: i64,
    /// Parts per million of the paid time that were spent computing.
    pub busy_ppm: u64,
}

impl Report {
    /// Sums up: `answers` are the period's, each with its model and standing.
    pub fn new(
        period: Period,
        device: Device,
        records: &[Record],
        answers: impl IntoIterator<Item = (String, Standing, Work)>,
    ) -> Report {
        let mut report = Report {
            cost: Cost::default(),
            period,
            device,
            time: Time::default(),
            recorded: 0,
            unrecorded: 0,
            work: BTreeMap::new(),
            models: BTreeMap::new(),
            spared_tokens: 0,
            rejected_tokens: 0,
            bytes: records.last().map(|record| record.bytes).unwrap_or_default(),
        };
        for record in records {
            report.add_record(record);
        }
        for (model, standing, work) in answers {
            report.spared_tokens += work.cached_tokens + work.accepted_tokens;
            report.work.entry(standing.name()).or_default().add(&work);
            report.models.entry(model).or_default().work.entry(standing.name()).or_default().add(&work);
        }
        let paid = report.period.paid();
        report.unrecorded = paid.saturating_sub(report.time.total());
        report.cost = report.device.cost(paid, report.time.busy());
        report
    }

    fn add_record(&mut self, record: &Record) {
        self.time.add(&record.time);
        self.recorded += record.to.saturating_sub(record.from) * 1000;
        self.rejected_tokens += record.drafts_rejected;
        for (name, used) in &record.adapters {
            self.models.entry(name.clone()).or_default().used.add(used);
        }
        if record.base != Use::default() {
            self.models.entry(record.model.clone()).or_default().used.add(&record.base);
        }
    }

    /// Work of a standing.
    pub fn of(&self, standing: Standing) -> Work {
        self.work.get(standing.name()).copied().unwrap_or_default()
    }

    /// The lines that count.
    pub fn returns(&self) -> Returns {
        Returns::together([self])
    }

    /// By how many parts per million the times by kind differ from the time between the records' ends.
    pub fn clock_error_ppm(&self) -> u64 {
        let difference = self.time.total().abs_diff(self.recorded);
        u64::try_from(u128::from(difference) * 1_000_000 / u128::from(self.recorded.max(1))).unwrap_or(u64::MAX)
    }
}

impl Returns {
    /// The lines of several devices together: what all of them brought and cost, for an hour that one of them was paid for.
    pub fn together<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Returns {
        let (mut paid, mut busy, mut cash, mut cost) = (0i128, 0i128, 0i128, 0i128);
        let mut good = Work::default();
        for report in reports {
            paid += i128::from(report.period.paid());
            busy += i128::from(report.time.busy());
            cash += i128::from(report.cost.cash());
            cost += i128::from(report.cost.total());
            good.add(&report.of(Standing::Good));
        }
        let hourly = |amount: i128| per(amount * HOUR as i128, paid);
        let (amount, tokens) = (i128::from(good.amount), i128::from(good.tokens()));
        let goodput = (cost > 0).then(|| per(tokens * 1_000_000, cost));
        Returns {
            revenue: hourly(amount),
            cash_margin: hourly(amount - cash),
            economic_profit: hourly(amount - cost),
            goodput_per_dollar: goodput.and_then(|tokens| u64::try_from(tokens).ok()),
            operator_revenue: hourly(i128::from(good.operator)),
            busy_ppm: u64::try_from(per(busy * 1_000_000, paid)).unwrap_or(0),
        }
    }
}

/// To the nearest, halves up; 0 of nothing.
fn per(amount: i128, divisor: i128) -> i64 {
    if divisor == 0 {
        return 0;
    }
    i64::try_from((2 * amount + divisor).div_euclid(2 * divisor)).unwrap_or(i64::MAX)
}
