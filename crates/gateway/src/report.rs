//! Return on GPU from what a server keeps: its ledger, its records of the device's time, its log of receipts.

use ledger::{Entry, Ledger, LedgerError, Outcome, PAGE_MAX, Split};
use returns::{Device, Period, Report, ReturnsError, Standing, Work};
use std::path::Path;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The records cannot be read.
    #[error(transparent)]
    Records(#[from] ReturnsError),
}

/// Sums up a period. `stands` says of a receipt's name (32 hexadecimal digits) whether it is in the log and unrefuted.
///
/// # Errors
/// The ledger or the records cannot be read.
pub async fn report(
    ledger: &Ledger,
    records: &Path,
    period: Period,
    device: Device,
    stands: impl Fn(&str) -> bool,
) -> Result<Report, ReportError> {
    let records = returns::read(records, period.from, period.to)?;
    let time = |microseconds| i64::try_from(microseconds).unwrap_or(i64::MAX);
    let (from, to) = (time(period.from), time(period.to));
    let (mut answers, mut after) = (Vec::new(), None);
    loop {
        let page = ledger.settlements(from, to, after, PAGE_MAX).await?;
        let Some(last) = page.last() else { break };
        after = Some((last.time, last.number));
        answers.extend(page.iter().filter_map(|entry| answer(entry, &stands)));
    }
    Ok(Report::new(period, device, &records, answers))
}

/// Model, standing and work of a settlement.
pub(crate) fn answer(entry: &Entry, stands: &impl Fn(&str) -> bool) -> Option<(String, Standing, Work)> {
    let settled = entry.settled.as_ref()?;
    let standing = match (settled.outcome, entry.reference.as_deref()) {
        (Outcome::Failed, _) => Standing::Failed,
        (Outcome::Free, _) => Standing::Free,
        (Outcome::Late, _) => Standing::Late,
        (Outcome::Paid, None) => Standing::Cancelled,
        (Outcome::Paid, Some(receipt)) if !stands(receipt) => Standing::Unverified,
        (Outcome::Paid, Some(_)) if settled.late => Standing::Late,
        (Outcome::Paid, Some(_)) => Standing::Good,
    };
    let amount = entry.amount.0 - entry.undone.0;
    let parts = settled.split.parse::<Split>().map(|split| split.apportion(ledger::Micros(amount), &settled.operator));
    let operator = parts.ok()?.into_iter().filter(|(account, _)| *account == settled.operator).map(|(_, part)| part.0);
    let work = Work {
        answers: 1,
        prompt_tokens: settled.usage.prompt,
        cached_tokens: settled.usage.cached,
        answer_tokens: settled.usage.output,
        accepted_tokens: settled.usage.accepted,
        amount,
        operator: operator.sum(),
    };
    Some((settled.model.clone(), standing, work))
}
