//! Keeps records of the device's time (`returns`): a line every few seconds, and a last one when the server ends.

use crate::app::App;
use crate::start::StartError;
use engine::{Counters, Engine};
use returns::{Bytes, Journal, Record, ReturnsError, Time, Use};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often a record is written: what a kill can lose.
pub(crate) const EVERY: Duration = Duration::from_secs(10);

/// What was recorded so far.
pub(crate) struct DeviceTime {
    state: Mutex<State>,
}

struct State {
    journal: Journal,
    /// When the server started.
    run: u64,
    /// Until when there are records.
    until: u64,
    counters: Counters,
    base: Use,
    adapters: BTreeMap<String, Use>,
}

impl DeviceTime {
    /// Begins with the engine as it is.
    pub(crate) fn open(folder: &Path, engine: &Engine) -> Result<DeviceTime, StartError> {
        let journal = Journal::open(folder)?;
        engine.settle_time();
        let (now, (base, adapters)) = (now_microseconds(), uses(engine));
        let state = State { journal, run: now, until: now, counters: engine.counters(), base, adapters };
        Ok(DeviceTime { state: Mutex::new(state) })
    }

    /// Writes what came since the last record. Waits for the engine's step and for the disk.
    pub(crate) fn record(&self, app: &App) -> Result<(), ReturnsError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        app.engine.settle_time();
        let now = now_microseconds();
        let (counters, (base, adapters)) = (app.engine.counters(), uses(&app.engine));
        let before = &state.counters;
        let record = Record {
            run: state.run,
            from: state.until,
            // The clock may have been set back; time does not go back.
            to: now.max(state.until),
            time: time(&counters.time).since(&time(&before.time)),
            drafts_accepted: counters.drafts_accepted - before.drafts_accepted,
            drafts_rejected: counters.drafts_rejected - before.drafts_rejected,
            adapters_loaded: counters.adapters_loaded - before.adapters_loaded,
            preemptions: counters.preemptions - before.preemptions,
            bytes: bytes(app),
            model: app.base_name.clone(),
            base: base.since(&state.base),
            adapters: changed(&adapters, &state.adapters),
        };
        state.journal.append(&record)?;
        app.dashboard.sums.add_record(&record);
        (state.until, state.counters, state.base, state.adapters) = (record.to, counters, base, adapters);
        Ok(())
    }
}

fn changed(now: &BTreeMap<String, Use>, before: &BTreeMap<String, Use>) -> BTreeMap<String, Use> {
    let since = |(name, used): (&String, &Use)| {
        let since = before.get(name).map_or(*used, |before| used.since(before));
        (since != Use::default()).then(|| (name.clone(), since))
    };
    now.iter().filter_map(since).collect()
}

/// Memory now.
fn bytes(app: &App) -> Bytes {
    let (load, model) = (app.engine.load(), app.engine.model());
    let base = model.weights.bytes() as u64;
    let page = app.engine.config().plan(&model.shape).page_bytes;
    let registered = app.engine.adapters().list();
    // Adapters whose size is not known yet weigh as much as the others do on average.
    let sizes: Vec<u64> = registered.iter().filter_map(|adapter| adapter.bytes()).collect();
    let mean = sizes.iter().sum::<u64>() / sizes.len().max(1) as u64;
    let (models, unknown) = (1 + registered.len() as u64, (registered.len() - sizes.len()) as u64);
    Bytes {
        base,
        adapters: load.adapters_resident_bytes,
        pages: load.pages_used.max(load.pages_cached) as u64 * page,
        separate: models * base + sizes.iter().sum::<u64>() + unknown * mean,
        models,
    }
}

fn uses(engine: &Engine) -> (Use, BTreeMap<String, Use>) {
    let (mut base, mut adapters) = (Use::default(), BTreeMap::new());
    for (name, used) in engine.uses() {
        let used = Use {
            time: time(&used.time),
            prefill_tokens: used.prefill_tokens,
            cached_tokens: used.cached_tokens,
            answer_tokens: used.answer_tokens,
            answers: used.answers,
        };
        match name {
            None => base = used,
            Some(name) => {
                adapters.insert(name, used);
            }
        }
    }
    (base, adapters)
}

fn time(time: &engine::Time) -> Time {
    Time {
        prefill: time.prefill,
        decode: time.decode,
        accepted: time.accepted,
        rejected: time.rejected,
        recomputed: time.recomputed,
        audit: time.audit,
        loading: time.loading,
        held: time.held,
        idle: time.idle,
    }
}

/// Microseconds since 1970.
pub(crate) fn now_microseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}
