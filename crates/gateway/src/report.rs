//! Return on GPU from what servers keep: their ledger, their records of the device's time, their logs of receipts.

use crate::hex;
use ledger::{AccountId, Entry, Ledger, LedgerError, Outcome, PAGE_MAX, Split};
use returns::{Device, Period, Report, ReturnsError, Standing, Work};
use std::path::PathBuf;

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

/// A node whose return is to be told.
pub struct Node {
    /// Whose settlements are its own.
    pub operator: AccountId,
    /// The folder of its records of its device's time.
    pub records: PathBuf,
    /// What it is asked about.
    pub period: Period,
    /// What its devices cost.
    pub device: Device,
}

/// The account that a node's work is settled to.
///
/// # Errors
/// Never: a node's key makes a name.
pub fn operator(node: &[u8; 32]) -> Result<AccountId, ledger::AccountError> {
    AccountId::operator(&hex::encode(node))
}

/// Sums up what nodes that share a ledger did, each by itself, in one reading. `stands` says of an operator and
/// a receipt's name (32 hexadecimal digits) whether it is in that node's log and unrefuted.
///
/// # Errors
/// The ledger or the records cannot be read.
pub async fn report(
    ledger: &Ledger,
    nodes: &[Node],
    stands: impl Fn(&AccountId, &str) -> bool,
) -> Result<Vec<Report>, ReportError> {
    let records: Result<Vec<_>, _> =
        nodes.iter().map(|node| returns::read(&node.records, node.period.from, node.period.to)).collect();
    let records = records?;
    let time = |microseconds| i64::try_from(microseconds).unwrap_or(i64::MAX);
    let from = nodes.iter().map(|node| time(node.period.from)).min().unwrap_or(0);
    let to = nodes.iter().map(|node| time(node.period.to)).max().unwrap_or(0);
    let mut answers: Vec<Vec<_>> = nodes.iter().map(|_| vec![]).collect();
    let mut after = None;
    loop {
        let page = ledger.settlements(from, to, after, PAGE_MAX).await?;
        let Some(last) = page.last() else { break };
        after = Some((last.time, last.number));
        for (node, answers) in nodes.iter().zip(&mut answers) {
            let (from, to) = (time(node.period.from), time(node.period.to));
            let own = page.iter().filter(|entry| (from..to).contains(&entry.time));
            answers.extend(
                own.filter_map(|entry| answer(entry, &node.operator, &|receipt: &str| stands(&node.operator, receipt))),
            );
        }
    }
    let sum = |((node, records), answers): ((&Node, Vec<_>), _)| {
        Report::new(node.period.clone(), node.device.clone(), &records, answers)
    };
    Ok(nodes.iter().zip(records).zip(answers).map(sum).collect())
}

/// Model, standing and work of a settlement of one operator's; none of another's, and of what is no settlement.
pub(crate) fn answer(
    entry: &Entry,
    operator: &AccountId,
    stands: &impl Fn(&str) -> bool,
) -> Option<(String, Standing, Work)> {
    let settled = entry.settled.as_ref().filter(|settled| settled.operator == *operator)?;
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
