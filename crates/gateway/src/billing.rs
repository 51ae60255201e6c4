//! What requests cost, who pays, who earns, and how fast answers should be.

use crate::start::StartError;
use ledger::{AccountId, Ledger, Micros, PriceList, Split, Usage};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Who pays for requests without a key: nobody. They are free, and shown apart.
const ANONYMOUS: &str = "anonymous";

/// How fast answers of a model should be; slower ones are no goodput.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// To the first token.
    pub first: Duration,
    /// From token to token, on average.
    pub each: Duration,
}

impl Default for Target {
    fn default() -> Target {
        Target { first: Duration::from_secs(5), each: Duration::from_millis(250) }
    }
}

impl Target {
    /// Whether an answer of so many tokens was late: `first` after the request came the first piece, `total` after it the
    /// end.
    pub fn is_missed(&self, first: Duration, total: Duration, tokens: usize) -> bool {
        let gaps = u32::try_from(tokens.saturating_sub(1)).unwrap_or(u32::MAX);
        first > self.first || total.saturating_sub(first) > self.each.saturating_mul(gaps.max(1))
    }
}

/// A ledger and what it is told.
pub struct Billing {
    pub(crate) ledger: Ledger,
    prices: Option<PriceList>,
    splits: BTreeMap<String, Split>,
    target: Target,
    targets: BTreeMap<String, Target>,
}

impl Billing {
    /// Everything is free until there are prices.
    pub fn new(ledger: Ledger) -> Billing {
        let (splits, targets) = (BTreeMap::new(), BTreeMap::new());
        Billing { ledger, prices: None, splits, target: Target::default(), targets }
    }

    /// Requests with a key are charged by this list.
    pub fn with_prices(self, prices: PriceList) -> Billing {
        Billing { prices: Some(prices), ..self }
    }

    /// Who earns what of a request, by model; of all others by [`Split::standard`].
    pub fn with_splits(self, splits: BTreeMap<String, Split>) -> Billing {
        Billing { splits, ..self }
    }

    /// How fast answers should be, and those of some models.
    pub fn with_targets(self, target: Target, targets: BTreeMap<String, Target>) -> Billing {
        Billing { target, targets, ..self }
    }

    /// Publishes the prices, and opens the accounts of those who pay: each may spend its budget beyond what it has paid in.
    pub(crate) async fn open(&self, keys: &[(String, Micros)]) -> Result<(), StartError> {
        if let Some(prices) = &self.prices {
            self.ledger.publish(prices).await?;
        }
        let anonymous = [(ANONYMOUS.to_owned(), Micros::ZERO)];
        for (name, budget) in keys.iter().chain(&anonymous) {
            let account = customer(Some(name))?;
            let floor = Micros(-budget.0);
            if self.ledger.balance(&account).await?.is_none_or(|known| known.floor != floor) {
                let id = format!("open:{account}:{}", self.ledger.now());
                self.ledger.open_account(&id, &account, floor).await?;
            }
        }
        Ok(())
    }

    /// Version of the price list; 0 is none.
    pub(crate) fn version(&self) -> u32 {
        self.prices.as_ref().map_or(0, |prices| prices.version)
    }

    /// The most a request can cost; nothing if nobody pays for it.
    pub(crate) fn worst(
        &self,
        model: &str,
        pays: bool,
        prompt: usize,
        answer: usize,
    ) -> Result<Micros, ledger::PriceError> {
        match &self.prices {
            Some(prices) if pays => prices.of(model).worst(prompt as u64, answer as u64),
            _ => Ok(Micros::ZERO),
        }
    }

    /// What a request costs, at most what was held.
    pub(crate) fn cost(&self, model: &str, usage: &Usage, held: Micros) -> Micros {
        let cost = self.prices.as_ref().map(|prices| prices.of(model).cost(usage));
        cost.and_then(Result::ok).unwrap_or(Micros::ZERO).min(held)
    }

    /// What a model costs, if anything does.
    pub(crate) fn price(&self, model: &str) -> Option<&ledger::Price> {
        self.prices.as_ref().map(|prices| prices.of(model))
    }

    pub(crate) fn split(&self, model: &str) -> Split {
        self.splits.get(model).cloned().unwrap_or_else(Split::standard)
    }

    pub(crate) fn target(&self, model: &str) -> Target {
        self.targets.get(model).copied().unwrap_or(self.target)
    }

    /// Prices and splits, for everybody.
    pub(crate) fn published(&self) -> Value {
        let splits: BTreeMap<&str, String> =
            self.splits.iter().map(|(name, split)| (name.as_str(), split.to_string())).collect();
        json!({
            "unit": "micro-dollars per million tokens",
            "prices": self.prices,
            "splits": {"default": Split::standard().to_string(), "models": splits},
        })
    }
}

/// The account of a key, or of those who have none.
pub(crate) fn customer(key: Option<&str>) -> Result<AccountId, ledger::AccountError> {
    AccountId::customer(key.unwrap_or(ANONYMOUS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_a_late_first_token_or_slow_ones_after_it() {
        let target = Target { first: Duration::from_millis(500), each: Duration::from_millis(100) };
        let missed =
            |first, total, tokens| target.is_missed(Duration::from_millis(first), Duration::from_millis(total), tokens);
        assert!(!missed(500, 1400, 10));
        assert!(missed(501, 600, 10));
        assert!(missed(500, 1401, 10));
        assert!(!missed(100, 200, 1), "a single token takes its end's time with it");
    }
}
