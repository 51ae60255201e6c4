//! What everybody earned in a period, asked of the ledger at most every ten seconds while it changes: a month of hours of many
//! earners takes tens of milliseconds to add up.

use super::sums::HOUR;
use crate::app::App;
use crate::error::ApiError;
use ledger::Earnings;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How old sums may be while the ledger goes on.
const OLD: Duration = Duration::from_secs(10);

struct Kept {
    hours: Range<u64>,
    asked: Instant,
    /// Number of the last transaction that the dashboard had seen then.
    last: i64,
    earnings: Arc<[Earnings]>,
}

/// Sums by the length of their period.
#[derive(Default)]
pub(crate) struct Earned(Mutex<HashMap<u64, Kept>>);

impl Earned {
    /// What accounts earned in the hours from one to another, the latter not included.
    pub(crate) async fn of(&self, app: &App, hours: Range<u64>) -> Result<Arc<[Earnings]>, ApiError> {
        let Some(billing) = &app.billing else { return Ok([].into()) };
        let (length, last) = (hours.end - hours.start, app.dashboard.sums.last());
        // Held while the ledger is asked, so that many visitors ask it once.
        let mut kept = self.0.lock().await;
        if let Some(kept) = kept.get(&length).filter(|kept| kept.hours == hours)
            && ((kept.last == last && last > 0) || kept.asked.elapsed() < OLD)
        {
            return Ok(kept.earnings.clone());
        }
        let time = |hour: u64| i64::try_from(hour * HOUR).unwrap_or(i64::MAX);
        let asked = Instant::now();
        let earnings = billing.ledger.earnings(time(hours.start), time(hours.end), None).await;
        let earnings: Arc<[Earnings]> = earnings.map_err(|error| ApiError::ledger_away(error.to_string()))?.into();
        kept.insert(length, Kept { hours, asked, last, earnings: earnings.clone() });
        Ok(earnings)
    }
}
