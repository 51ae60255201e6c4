//! Sums by the hour over settlements and records of the device's time, so that a page costs the same whatever the ledger
//! holds.
//!
//! The ledger is read once, newest first, and then followed: a page reads only what came since. What is summed is what
//! `lockstep report` sums, by the same code, so both print the same figures. A refund changes a settlement that was summed
//! before: its hour is then summed anew.

use crate::app::App;
use crate::device_time::now_microseconds;
use crate::report::answer;
use ledger::{Entry, Kind, Ledger, LedgerError, PAGE_MAX};
use returns::{Device, Period, Record, Report, Standing, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Microseconds of an hour.
pub(crate) const HOUR: u64 = 3_600_000_000;
/// Hours that are kept.
pub(crate) const HOURS_KEPT: u64 = 31 * 24;
/// Models and standings of one hour that are told apart; the rest are summed up together.
const PARTS_MAX: usize = 1024;
/// What the rest is called.
const REST: &str = "(others)";
/// Between two looks at the ledger.
const EVERY: Duration = Duration::from_secs(2);
/// Transactions of a first look at what came.
const NEW_MAX: u32 = 64;
/// Pages of the ledger that a visitor waits for.
const PAGES_WAITED: usize = 4;

/// How many took so long: by powers of two of milliseconds.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Speeds([u32; 24]);

impl Speeds {
    fn add(&mut self, milliseconds: u32) {
        let bits = (u32::BITS - milliseconds.leading_zeros()) as usize;
        let place = bits.min(self.0.len() - 1);
        self.0[place] = self.0[place].saturating_add(1);
    }

    fn merge(&mut self, other: &Speeds) {
        self.0.iter_mut().zip(other.0).for_each(|(own, more)| *own = own.saturating_add(more));
    }

    /// Milliseconds within which so many of a hundred came, to the next power of two.
    pub(crate) fn within(&self, hundredths: u64) -> Option<u64> {
        let all: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        let mut sum = 0;
        let reached = self.0.iter().position(|count| {
            sum += u64::from(*count);
            sum * 100 >= all * hundredths
        });
        reached.filter(|_| all > 0).map(|bits| 1 << bits)
    }
}

/// Answers of one model and standing.
#[derive(Clone, Copy, Default, Debug)]
struct Part {
    work: Work,
    first: Speeds,
}

type Parts = BTreeMap<(String, Standing), Part>;

#[derive(Default)]
struct Hour {
    parts: Parts,
    /// One for each stretch without a gap.
    records: Vec<Record>,
}

#[derive(Default)]
struct State {
    hours: BTreeMap<u64, Hour>,
    /// Number of the last transaction summed.
    last: i64,
    /// Where reading newest first is: the first number it read, and the last.
    walk: Option<(i64, i64)>,
    /// Whether everything that is kept was summed once.
    complete: bool,
    /// When the first record began.
    begun: Option<u64>,
}

/// The sums.
pub(crate) struct Sums {
    state: Mutex<State>,
    /// One reads at a time.
    turn: tokio::sync::Mutex<()>,
    folder: PathBuf,
    /// Records that ended before this are read from the folder; later ones are told.
    started: u64,
}

fn add(parts: &mut Parts, entry: &Entry) {
    // The node's own receipts are in its log before they are settled.
    let Some((model, standing, work)) = answer(entry, &|_: &str| true) else { return };
    let mut key = (model, standing);
    if parts.len() >= PARTS_MAX && !parts.contains_key(&key) {
        key.0 = REST.to_owned();
    }
    let part = parts.entry(key).or_default();
    part.work.add(&work);
    if let Some(first) = entry.settled.as_ref().and_then(|settled| settled.first_token_ms) {
        part.first.add(first);
    }
}

fn hour_of(time: i64) -> u64 {
    u64::try_from(time).unwrap_or(0) / HOUR
}

/// The oldest hour that is kept.
fn oldest() -> u64 {
    (now_microseconds() / HOUR).saturating_sub(HOURS_KEPT)
}

impl Sums {
    /// Sums over nothing yet; records of former runs are in `folder`.
    pub(crate) fn new(folder: &Path) -> Sums {
        let (state, turn) = (Mutex::default(), tokio::sync::Mutex::default());
        Sums { state, turn, folder: folder.to_owned(), started: now_microseconds() }
    }

    /// Follows the ledger, for ever.
    pub(crate) async fn keep(&self, app: &App) {
        self.read_records().await;
        loop {
            if let Err(error) = self.follow(app, usize::MAX).await {
                tracing::debug!("the ledger could not be summed up: {error}");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Brings the sums up to now, if little is missing; a page shows what there is otherwise.
    pub(crate) async fn catch_up(&self, app: &App) {
        // Whoever reads already brings them up to now as well.
        if let Err(error) = self.follow(app, PAGES_WAITED).await {
            tracing::debug!("the ledger could not be summed up: {error}");
        }
    }

    fn locked<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn follow(&self, app: &App, pages_max: usize) -> Result<(), LedgerError> {
        let Some(billing) = &app.billing else {
            self.locked(|state| state.complete = true);
            return Ok(());
        };
        let Ok(_turn) = self.turn.try_lock() else { return Ok(()) };
        let mut changed = BTreeSet::new();
        for _ in 0..pages_max {
            let (until, walk) = self.locked(|state| (state.last, state.walk));
            // Mostly little has come.
            let limit = if until > 0 && walk.is_none() { NEW_MAX } else { PAGE_MAX };
            let page = billing.ledger.transactions(walk.map(|(_, before)| before), limit).await?;
            let fresh = page.iter().filter(|entry| entry.number > until && hour_of(entry.time) >= oldest());
            let fresh: Vec<&Entry> = fresh.collect();
            let ended = fresh.len() < limit as usize;
            // What a first reading finds is as it is by now; later a refund is of something summed before.
            for entry in fresh.iter().filter(|entry| until > 0 && entry.kind != Kind::Settle) {
                changed.extend(refunded(&billing.ledger, entry).await?);
            }
            self.locked(|state| {
                for entry in &fresh {
                    add(&mut state.hours.entry(hour_of(entry.time)).or_default().parts, entry);
                }
                let newest = state.walk.map_or(fresh.first().map_or(until, |entry| entry.number), |(newest, _)| newest);
                state.walk = fresh.last().map(|entry| (newest, entry.number));
                if ended {
                    (state.last, state.walk, state.complete) = (newest, None, true);
                    let oldest = oldest();
                    state.hours.retain(|hour, _| *hour >= oldest);
                }
            });
            if ended {
                break;
            }
            tokio::task::yield_now().await;
        }
        for hour in changed {
            self.sum_anew(&billing.ledger, hour).await?;
        }
        Ok(())
    }

    /// An hour as it is by now, as far as it was summed.
    async fn sum_anew(&self, ledger: &Ledger, hour: u64) -> Result<(), LedgerError> {
        let last = self.locked(|state| state.last);
        let time = |hour: u64| i64::try_from(hour * HOUR).unwrap_or(i64::MAX);
        let (mut parts, mut after) = (Parts::new(), None);
        loop {
            let page = ledger.settlements(time(hour), time(hour + 1), after, PAGE_MAX).await?;
            let Some(end) = page.last() else { break };
            after = Some((end.time, end.number));
            page.iter().filter(|entry| entry.number <= last).for_each(|entry| add(&mut parts, entry));
        }
        self.locked(|state| state.hours.entry(hour).or_default().parts = parts);
        Ok(())
    }

    /// Reads what former runs recorded, day by day.
    async fn read_records(&self) {
        let mut from = oldest() * HOUR;
        while from < self.started {
            let to = (from + 24 * HOUR).min(self.started);
            let folder = self.folder.clone();
            match tokio::task::spawn_blocking(move || returns::read(&folder, from, to)).await {
                Ok(Ok(records)) => records.iter().for_each(|record| self.add_record(record)),
                Ok(Err(error)) => tracing::error!("the dashboard lacks records of the device's time: {error}"),
                Err(_) => return,
            }
            from = to;
        }
    }

    /// Adds a record of the device's time.
    pub(crate) fn add_record(&self, record: &Record) {
        self.locked(|state| {
            state.begun = Some(state.begun.map_or(record.from, |begun| begun.min(record.from)));
            // A record belongs to the period that it ended in, the period's own end included.
            let hour = state.hours.entry(record.to.saturating_sub(1) / HOUR).or_default();
            match hour.records.iter_mut().find(|known| known.run == record.run && known.to == record.from) {
                Some(known) => merge(known, record),
                None => hour.records.push(record.clone()),
            }
        });
    }

    /// How far the first reading of the ledger is: none if it is done, otherwise the hour it has come back to.
    pub(crate) fn reading(&self) -> Option<u64> {
        self.locked(|state| {
            let oldest = state.hours.iter().find(|(_, hour)| !hour.parts.is_empty()).map(|(hour, _)| *hour);
            (!state.complete).then(|| oldest.unwrap_or(now_microseconds() / HOUR))
        })
    }

    /// What the hours from one to another, the latter not included, come to. Paid time begins with the first record there
    /// is and ends with the last.
    pub(crate) fn report(&self, device: &Device, hours: std::ops::Range<u64>) -> Report {
        self.locked(|state| {
            let (mut records, mut answers) = (Vec::new(), Vec::new());
            for (_, hour) in state.hours.range(hours.clone()) {
                records.extend(hour.records.iter().cloned());
                let answer =
                    |((model, standing), part): (&(String, Standing), &Part)| (model.clone(), *standing, part.work);
                answers.extend(hour.parts.iter().map(answer));
            }
            records.sort_by_key(|record| record.to);
            let ended = records.last().map_or(hours.start * HOUR, |record| record.to);
            let is_past = state.hours.range(hours.end..).any(|(_, hour)| !hour.records.is_empty());
            let to = if is_past { hours.end * HOUR } else { ended };
            let from = (hours.start * HOUR).max(state.begun.unwrap_or(u64::MAX)).min(to);
            Report::new(Period { from, to, devices: 1 }, device.clone(), &records, answers)
        })
    }

    /// How fast first tokens came, by model.
    pub(crate) fn speeds(&self, hours: std::ops::Range<u64>) -> BTreeMap<String, Speeds> {
        self.locked(|state| {
            let mut speeds = BTreeMap::<String, Speeds>::new();
            for ((model, _), part) in state.hours.range(hours).flat_map(|(_, hour)| &hour.parts) {
                speeds.entry(model.clone()).or_default().merge(&part.first);
            }
            speeds
        })
    }
}

/// The hour of the settlement that a transaction undid, if it did.
async fn refunded(ledger: &Ledger, entry: &Entry) -> Result<Option<u64>, LedgerError> {
    let Some(reference) = entry.reference.as_deref() else { return Ok(None) };
    let found = ledger.transaction(reference).await?;
    Ok(found.filter(|(undone, _)| undone.kind == Kind::Settle).map(|(undone, _)| hour_of(undone.time)))
}

fn merge(known: &mut Record, more: &Record) {
    known.to = more.to;
    known.time.add(&more.time);
    known.drafts_accepted += more.drafts_accepted;
    known.drafts_rejected += more.drafts_rejected;
    known.adapters_loaded += more.adapters_loaded;
    known.preemptions += more.preemptions;
    known.bytes = more.bytes;
    known.base.add(&more.base);
    for (name, used) in &more.adapters {
        known.adapters.entry(name.clone()).or_default().add(used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use returns::Time;

    #[test]
    fn records_of_one_run_become_one_and_their_sums_stay() {
        let sums = Sums::new(Path::new("none"));
        let record = |run, from, to| {
            let time = Time { decode: (to - from) * 1000, ..Time::default() };
            Record { run, from, to, time, model: "base".to_owned(), ..Record::default() }
        };
        let start = 500_000 * HOUR;
        let records =
            [record(1, start, start + 10), record(1, start + 10, start + 20), record(2, start + 50, start + 60)];
        records.iter().for_each(|record| sums.add_record(record));
        let report = sums.report(&Device::default(), 500_000..500_001);
        let period = Period { from: start, to: start + 60, devices: 1 };
        assert_eq!(report, Report::new(period, Device::default(), &records, []));
        assert_eq!(sums.locked(|state| state.hours[&500_000].records.len()), 2);
    }

    #[test]
    fn speeds_are_told_to_the_next_power_of_two() {
        let mut speeds = Speeds::default();
        assert_eq!(speeds.within(50), None);
        (0..95).for_each(|_| speeds.add(100));
        (0..5).for_each(|_| speeds.add(3000));
        assert_eq!((speeds.within(50), speeds.within(95), speeds.within(99)), (Some(128), Some(128), Some(4096)));
    }
}
