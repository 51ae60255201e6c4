//! Sums by the hour over settlements and records of the device's time, so that a page costs the same whatever the ledger
//! holds.
//!
//! The ledger is read once, newest first, and then followed: a page reads only what came since. What is summed is what
//! `lockstep report` sums, by the same code, so both print the same figures. A refund changes a settlement that was summed
//! before: its hour is then summed anew.

use super::hours::{Answers, Hours, Speeds, Summed, hour_of, joined};
use crate::app::App;
use crate::device_time::now_microseconds;
use ledger::{Entry, Kind, Ledger, LedgerError, PAGE_MAX};
use returns::{Device, Record, Report};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Microseconds of an hour.
pub(crate) const HOUR: u64 = 3_600_000_000;
/// Hours that are kept.
pub(crate) const HOURS_KEPT: u64 = 31 * 24;
/// Between two looks at the ledger.
const EVERY: Duration = Duration::from_secs(2);
/// Transactions of a first look at what came.
const NEW_MAX: u32 = 64;
/// Transactions of a look at what is read for the first time: few, so that whoever asks for a page meanwhile waits for little.
const FIRST_MAX: u32 = 250;
/// Pages of the ledger that a visitor waits for.
const PAGES_WAITED: usize = 4;

#[derive(Default)]
struct State {
    hours: Hours,
    /// Number of the last transaction summed.
    last: i64,
    /// Where reading newest first is: the first number it read, and the last.
    walk: Option<(i64, i64)>,
    /// Whether everything that is kept was summed once.
    complete: bool,
    /// Hours in which something was refunded since they were summed.
    changed: BTreeSet<u64>,
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
            if let Err(error) = self.follow(app, None).await {
                tracing::debug!("the ledger could not be summed up: {error}");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Brings the sums up to now, if little is missing; a page shows what there is otherwise.
    pub(crate) async fn catch_up(&self, app: &App) {
        // Whoever reads already brings them up to now as well.
        if let Err(error) = self.follow(app, Some(PAGES_WAITED)).await {
            tracing::debug!("the ledger could not be summed up: {error}");
        }
    }

    fn locked<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads so many pages at most; without a bound, with pauses: the processor is not this reader's alone.
    async fn follow(&self, app: &App, pages_max: Option<usize>) -> Result<(), LedgerError> {
        let Some(billing) = &app.billing else {
            self.locked(|state| state.complete = true);
            return Ok(());
        };
        let Ok(_turn) = self.turn.try_lock() else { return Ok(()) };
        for _ in 0..pages_max.unwrap_or(usize::MAX) {
            let begun = Instant::now();
            let (until, walk) = self.locked(|state| (state.last, state.walk));
            let limit = match (until, walk) {
                (0, _) => FIRST_MAX,
                // Mostly little has come.
                (_, None) => NEW_MAX,
                (_, Some(_)) => PAGE_MAX,
            };
            let page = billing.ledger.transactions(walk.map(|(_, before)| before), limit).await?;
            let fresh = page.iter().filter(|entry| entry.number > until && hour_of(entry.time) >= oldest());
            let fresh: Vec<&Entry> = fresh.collect();
            let ended = fresh.len() < limit as usize;
            let mut changed = BTreeSet::new();
            // What a first reading finds is as it is by now; later a refund is of something summed before.
            for entry in fresh.iter().filter(|entry| until > 0 && entry.kind != Kind::Settle) {
                changed.extend(refunded(&billing.ledger, entry).await?);
            }
            // Read before it is added, so that no page waits for that.
            let summed: Vec<Summed> = fresh.iter().filter_map(|entry| Summed::of(entry, &app.operator)).collect();
            self.locked(|state| {
                summed.iter().for_each(|one| state.hours.add(one));
                state.changed.append(&mut changed);
                let newest = state.walk.map_or(fresh.first().map_or(until, |entry| entry.number), |(newest, _)| newest);
                state.walk = fresh.last().map(|entry| (newest, entry.number));
                if ended {
                    (state.last, state.walk, state.complete) = (newest, None, true);
                    state.hours.keep_from(oldest());
                }
            });
            if ended {
                break;
            }
            if pages_max.is_none() {
                tokio::time::sleep(begun.elapsed() / 2).await;
            }
        }
        // In the middle of a reading an hour may have entries beyond the last that counts as read.
        while let Some(hour) = self.locked(|state| state.changed.first().copied().filter(|_| state.walk.is_none())) {
            self.sum_anew(app, &billing.ledger, hour).await?;
            self.locked(|state| state.changed.remove(&hour));
        }
        Ok(())
    }

    /// An hour as it is by now, as far as it was summed.
    async fn sum_anew(&self, app: &App, ledger: &Ledger, hour: u64) -> Result<(), LedgerError> {
        let last = self.locked(|state| state.last);
        let time = |hour: u64| i64::try_from(hour * HOUR).unwrap_or(i64::MAX);
        let (mut answers, mut after) = (Answers::default(), None);
        loop {
            let page = ledger.settlements(time(hour), time(hour + 1), after, PAGE_MAX).await?;
            let Some(end) = page.last() else { break };
            after = Some((end.time, end.number));
            let known = page.iter().filter(|entry| entry.number <= last);
            let summed: Vec<Summed> = known.filter_map(|entry| Summed::of(entry, &app.operator)).collect();
            self.locked(|state| summed.iter().for_each(|one| state.hours.add_to(&mut answers, one)));
        }
        self.locked(|state| state.hours.replace(hour, answers));
        Ok(())
    }

    /// Reads what former runs recorded, day by day.
    async fn read_records(&self) {
        let mut from = oldest() * HOUR;
        while from < self.started {
            let to = (from + 24 * HOUR).min(self.started);
            let folder = self.folder.clone();
            // Joined before they are added, so that no page waits for them.
            match tokio::task::spawn_blocking(move || returns::read(&folder, from, to).map(joined)).await {
                Ok(Ok(records)) => records.iter().for_each(|record| self.add_record(record)),
                Ok(Err(error)) => tracing::error!("the dashboard lacks records of the device's time: {error}"),
                Err(_) => return,
            }
            from = to;
        }
    }

    /// Adds a record of the device's time.
    pub(crate) fn add_record(&self, record: &Record) {
        self.locked(|state| state.hours.add_record(record));
    }

    /// How far the first reading of the ledger is: none if it is done, otherwise the hour it has come back to.
    pub(crate) fn reading(&self) -> Option<u64> {
        self.locked(|state| (!state.complete).then(|| state.hours.first().unwrap_or(now_microseconds() / HOUR)))
    }

    /// Number of the last transaction that is summed; 0 until all were read once.
    pub(crate) fn last(&self) -> i64 {
        self.locked(|state| state.last)
    }

    /// What the hours from one to another, the latter not included, come to. Paid time begins with the first record there
    /// is and ends with the last.
    pub(crate) fn report(&self, device: &Device, hours: Range<u64>) -> Report {
        self.locked(|state| state.hours.report(device, hours))
    }

    /// How fast first tokens came, by model.
    pub(crate) fn speeds(&self, hours: Range<u64>) -> BTreeMap<String, Speeds> {
        self.locked(|state| state.hours.speeds(hours))
    }
}

/// The hour of the settlement that a transaction undid, if it did.
async fn refunded(ledger: &Ledger, entry: &Entry) -> Result<Option<u64>, LedgerError> {
    let Some(reference) = entry.reference.as_deref() else { return Ok(None) };
    let found = ledger.transaction(reference).await?;
    Ok(found.filter(|(undone, _)| undone.kind == Kind::Settle).map(|(undone, _)| hour_of(undone.time)))
}
