//! What one answer is charged: held before it begins, settled after its last token.
//!
//! However an answer ends, its hold does: settled with what it cost; settled as far as it came if its client broke it off;
//! settled as failed, at no charge, if the server did; released if nothing came of it. Only the end of the process leaves a
//! hold behind, and that expires.

use crate::app::App;
use crate::billing::{Billing, customer};
use crate::error::ApiError;
use crate::keys::Caller;
use ledger::{AccountId, Hold, LedgerError, Micros, Outcome, Settlement, Usage};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// For how long a hold outlives the longest answer.
const GRACE: Duration = Duration::from_secs(300);
/// Pauses between tries to settle while neither database nor disk takes it.
const PAUSES: [u64; 6] = [1, 5, 15, 60, 300, 900];

/// Money held for one answer.
pub(crate) struct Charge {
    /// Taken when it ends.
    billing: Option<Arc<Billing>>,
    operator: AccountId,
    id: String,
    model: String,
    held: Micros,
    pays: bool,
    prompt: usize,
    started: Instant,
    first: Option<Instant>,
    /// Tokens the client has been sent text of.
    drawn: usize,
    failed: bool,
}

impl Charge {
    /// Holds the most that an answer can cost: `prompt` tokens that count, and at most `tokens_max` of the answer.
    pub(crate) async fn hold(
        app: &App,
        caller: &Caller,
        id: String,
        model: &str,
        (prompt, tokens_max): (usize, usize),
        started: Instant,
    ) -> Result<Option<Charge>, ApiError> {
        let Some(billing) = &app.billing else { return Ok(None) };
        let key = caller.0.as_deref();
        let priced = billing.worst(model, key.is_some(), prompt, tokens_max);
        let held = priced.map_err(|error| ApiError::invalid("max_tokens", error.to_string()))?;
        let pays = held > Micros::ZERO;
        let customer = customer(key).map_err(|error| ApiError::server(error.to_string()))?;
        let lives = i64::try_from((app.limits.answer_deadline + GRACE).as_micros()).unwrap_or(i64::MAX);
        let expires_at = billing.ledger.now().saturating_add(lives);
        let operator = app.operator.clone();
        let hold = Hold { id: id.clone(), customer, amount: held, expires_at };
        billing.ledger.hold(hold).await.map_err(|error| refused(&error))?;
        Ok(Some(Charge {
            billing: Some(billing.clone()),
            operator,
            id,
            model: model.to_owned(),
            held,
            pays,
            prompt,
            started,
            first: None,
            drawn: 0,
            failed: false,
        }))
    }

    /// More of the answer goes to the client: so many tokens were drawn by now.
    pub(crate) fn note(&mut self, drawn: usize) {
        self.first.get_or_insert_with(Instant::now);
        self.drawn = drawn;
    }

    /// The server could not complete the answer.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }

    /// The answer is complete and has this receipt. Returns when what it cost is durable.
    pub(crate) async fn settle(mut self, usage: Usage, receipt: String) {
        let Some(billing) = self.billing.take() else { return };
        let outcome = if self.pays { Outcome::Paid } else { Outcome::Free };
        let settlement = self.settlement(&billing, usage, outcome, Some(receipt));
        end(billing, End::Settle(Box::new(settlement))).await;
    }

    fn settlement(&self, billing: &Billing, usage: Usage, outcome: Outcome, receipt: Option<String>) -> Settlement {
        let total = self.started.elapsed();
        let first = self.first.map(|first| first - self.started);
        let late = billing.target(&self.model).is_missed(first.unwrap_or(total), total, usage.output as usize);
        let milliseconds = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        Settlement {
            hold: self.id.clone(),
            amount: match outcome {
                Outcome::Paid => billing.cost(&self.model, &usage, self.held),
                _ => Micros::ZERO,
            },
            operator: self.operator.clone(),
            split: billing.split(&self.model),
            usage,
            model: self.model.clone(),
            price: if self.pays { billing.version() } else { 0 },
            receipt,
            outcome,
            first_token_ms: first.map(milliseconds),
            total_ms: milliseconds(total),
            late,
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let Some(billing) = self.billing.take() else { return };
        let usage = Usage { prompt: self.prompt as u64, cached: 0, output: self.drawn as u64, accepted: 0 };
        let settle = |outcome| End::Settle(Box::new(self.settlement(&billing, usage, outcome, None)));
        let how = match (self.failed, self.drawn) {
            (true, _) => settle(Outcome::Failed),
            (false, 0) => End::Release(self.id.clone()),
            (false, _) if self.pays => settle(Outcome::Paid),
            (false, _) => settle(Outcome::Free),
        };
        // Without a runtime the process ends, and the hold expires.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(end(billing, how));
        }
    }
}

/// How a hold ends.
enum End {
    Settle(Box<Settlement>),
    Release(String),
}

/// Ends a hold. If that cannot be made durable now it is tried again, in the background: the answer is there.
async fn end(billing: Arc<Billing>, how: End) {
    let Err(error) = try_end(&billing, &how).await else { return };
    tracing::error!("an answer could not be settled: {error}");
    if error.is_refused() {
        return;
    }
    tokio::spawn(async move {
        for seconds in PAUSES {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            match try_end(&billing, &how).await {
                Ok(()) => return,
                Err(error) if error.is_refused() => break,
                Err(_) => {}
            }
        }
        tracing::error!("an answer was never settled: its hold expires, and what it would have earned is lost");
    });
}

async fn try_end(billing: &Billing, how: &End) -> Result<(), LedgerError> {
    match how {
        End::Settle(settlement) => billing.ledger.settle(settlement.as_ref().clone()).await.map(drop),
        End::Release(hold) => billing.ledger.release(hold).await.map(drop),
    }
}

/// Why an answer is not begun.
fn refused(error: &LedgerError) -> ApiError {
    match error {
        LedgerError::Refused(ledger::Refusal::Funds { available, wanted, .. }) => ApiError::no_money(format!(
            "this could cost {wanted} dollars, and {available} are left of what this key may spend: ask for fewer tokens, \
             or have its account topped up"
        )),
        LedgerError::Refused(_) => ApiError::server(error.to_string()),
        _ => ApiError::ledger_away(error.to_string()),
    }
}
