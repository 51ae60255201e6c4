//! What a request costs: versioned lists of prices.

use crate::money::Micros;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A price is per this many tokens.
const TOKENS: i128 = 1_000_000;
/// The highest price: a million dollars per million tokens.
const PRICE_MAX: i64 = 1_000_000_000_000;
/// Models in one list.
const MODELS_MAX: usize = 100_000;
/// Bytes of a file.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Tokens of a request, as the gateway counted them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Usage {
    /// Of the prompt, those found in the prefix cache included.
    pub prompt: u64,
    /// Of the prompt's, those found in the prefix cache.
    pub cached: u64,
    /// Of the answer, those accepted from a prediction included.
    pub output: u64,
    /// Of the answer's, those that a prediction of the client's foretold and the model accepted.
    pub accepted: u64,
}

/// Prices of one model or adapter, in micro-dollars per million tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Price {
    /// A token of the prompt.
    pub prompt: i64,
    /// A token of the prompt that was found in the prefix cache.
    pub cached: i64,
    /// A token of the answer.
    pub output: i64,
    /// A token of the answer that a prediction foretold.
    pub accepted: i64,
}

impl Price {
    /// What a request costs: one exact sum, rounded up to the next micro-dollar once.
    ///
    /// # Errors
    /// More tokens were cached than asked, or accepted than answered; or it costs more than [`Micros::MAX`].
    pub fn cost(&self, usage: &Usage) -> Result<Micros, PriceError> {
        let prompt = usage.prompt.checked_sub(usage.cached).ok_or(PriceError::Usage(*usage))?;
        let output = usage.output.checked_sub(usage.accepted).ok_or(PriceError::Usage(*usage))?;
        let part = |tokens: u64, price: i64| i128::from(tokens) * i128::from(price);
        let sum = part(prompt, self.prompt)
            + part(usage.cached, self.cached)
            + part(output, self.output)
            + part(usage.accepted, self.accepted);
        let micros = (sum + TOKENS - 1) / TOKENS;
        i64::try_from(micros).ok().map(Micros).filter(|cost| cost.is_amount()).ok_or(PriceError::TooDear(*usage))
    }

    /// The most that a request with these tokens can cost: nothing cached, nothing foretold, or all if that is dearer.
    ///
    /// # Errors
    /// It could cost more than [`Micros::MAX`].
    pub fn worst(&self, prompt_tokens: u64, output_tokens_max: u64) -> Result<Micros, PriceError> {
        let dearest = Price { prompt: self.prompt.max(self.cached), output: self.output.max(self.accepted), ..*self };
        dearest.cost(&Usage { prompt: prompt_tokens, output: output_tokens_max, cached: 0, accepted: 0 })
    }
}

/// A list of prices. Its version is in receipts and settlements; a list never changes, the next one has another version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PriceList {
    /// 1 or more; 0 in a receipt says that there is no list.
    pub version: u32,
    /// For every model without a price of its own.
    pub default: Price,
    /// By the name that clients ask for.
    pub models: BTreeMap<String, Price>,
}

/// Why prices cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It is not JSON of the right shape: line and column are in the message.
    #[error("the price list is not as it should be: {0}")]
    Shape(#[from] serde_json::Error),
    /// A number out of range.
    #[error("the price list's {place} is {value}: it must be {least} to {most}")]
    Range {
        /// Which number, such as `models.sql.prompt`.
        place: String,
        /// What it is.
        value: i64,
        /// The least it may be.
        least: i64,
        /// The most it may be.
        most: i64,
    },
    /// Too many models.
    #[error("a price list has {MODELS_MAX} models at most, this has {0}")]
    Models(usize),
    /// Part of something is more than the whole.
    #[error("these counts of tokens cannot be: {0:?}")]
    Usage(Usage),
    /// An amount beyond all sense.
    #[error("this would cost more than {max} dollars: {0:?}", max = Micros::MAX)]
    TooDear(Usage),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceFile {
    version: u32,
    default: PriceEntry,
    #[serde(default)]
    models: BTreeMap<String, PriceEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceEntry {
    prompt: i64,
    cached: Option<i64>,
    output: i64,
    accepted: Option<i64>,
}

impl PriceEntry {
    fn check(&self, place: &str) -> Result<Price, PriceError> {
        let range = |name: &str, value: i64| match value {
            0..=PRICE_MAX => Ok(value),
            _ => Err(PriceError::Range { place: format!("{place}.{name}"), value, least: 0, most: PRICE_MAX }),
        };
        let (prompt, output) = (range("prompt", self.prompt)?, range("output", self.output)?);
        // Three quarters off, rounded up.
        let cached = range("cached", self.cached.unwrap_or((prompt + 3) / 4))?;
        Ok(Price { prompt, cached, output, accepted: range("accepted", self.accepted.unwrap_or(output))? })
    }
}

impl PriceList {
    /// Reads a list: `{"version": 1, "default": {"prompt": 100000, "output": 400000}, "models": {"sql": {…}}}`, in
    /// micro-dollars per million tokens. Without `cached` a cached token costs a quarter of `prompt`, without `accepted`
    /// a foretold token costs as much as `output`.
    ///
    /// # Errors
    /// It is not JSON, has unknown fields, or a price is negative or too high.
    pub fn parse(json: &str) -> Result<PriceList, PriceError> {
        let file: PriceFile = serde_json::from_str(json)?;
        if file.version == 0 {
            let most = i64::from(u32::MAX);
            return Err(PriceError::Range { place: "version".to_owned(), value: 0, least: 1, most });
        }
        if file.models.len() > MODELS_MAX {
            return Err(PriceError::Models(file.models.len()));
        }
        let models =
            file.models.iter().map(|(name, entry)| Ok((name.clone(), entry.check(&format!("models.{name}"))?)));
        let models = models.collect::<Result<_, PriceError>>()?;
        Ok(PriceList { version: file.version, default: file.default.check("default")?, models })
    }

    /// Reads a list from a file.
    ///
    /// # Errors
    /// The file cannot be read or is no list.
    pub fn read(path: &Path) -> Result<PriceList, PriceError> {
        let wrong = |source| PriceError::File { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(wrong)?.len() > FILE_BYTES_MAX {
            return Err(wrong(std::io::Error::other("the file is too large to be a price list")));
        }
        PriceList::parse(&std::fs::read_to_string(path).map_err(wrong)?)
    }

    /// The price of a model or adapter.
    pub fn of(&self, model: &str) -> &Price {
        self.models.get(model).unwrap_or(&self.default)
    }

    /// The list as JSON that [`PriceList::parse`] reads, with nothing left to defaults: what is published and compared.
    pub fn to_json(&self) -> String {
        // Strings and integers only: this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(json: &str) -> PriceList {
        PriceList::parse(json).unwrap()
    }

    fn error(json: &str) -> String {
        PriceList::parse(json).unwrap_err().to_string()
    }

    proptest! {
        #[test]
        fn no_request_costs_more_than_its_worst_case(
            prices in prop::array::uniform4(0..=PRICE_MAX),
            (prompt, output) in (0..=100_000u64, 0..=100_000u64),
            (cached, accepted, shorter) in (0..=100_000u64, 0..=100_000u64, 0..=100_000u64),
        ) {
            let price = Price { prompt: prices[0], cached: prices[1], output: prices[2], accepted: prices[3] };
            let used = output.min(shorter);
            let usage = Usage { prompt, cached: cached.min(prompt), output: used, accepted: accepted.min(used) };
            prop_assert!(price.cost(&usage).unwrap() <= price.worst(prompt, output).unwrap());
        }

        #[test]
        fn a_cost_is_the_exact_sum_rounded_up_once(tokens in 0..=10_000_000u64, price in 0..=1_000_000_000i64) {
            let prices = Price { prompt: price, cached: 0, output: 0, accepted: 0 };
            let cost = prices.cost(&Usage { prompt: tokens, ..Usage::default() }).unwrap();
            let exact = i128::from(tokens) * i128::from(price);
            let over = i128::from(cost.0) * TOKENS - exact;
            prop_assert!((0..TOKENS).contains(&over));
        }
    }

    #[test]
    fn a_model_has_its_own_price_or_the_default() {
        let list = list(
            r#"{"version": 3, "default": {"prompt": 100001, "output": 400000},
                "models": {"sql": {"prompt": 8, "cached": 1, "output": 9, "accepted": 2}}}"#,
        );
        assert_eq!(*list.of("other"), Price { prompt: 100_001, cached: 25_001, output: 400_000, accepted: 400_000 });
        assert_eq!(*list.of("sql"), Price { prompt: 8, cached: 1, output: 9, accepted: 2 });
        assert_eq!(PriceList::parse(&list.to_json()).unwrap(), list);
    }

    #[test]
    fn bad_lists_are_refused_with_the_place() {
        let one = |entry: &str| {
            format!(r#"{{"version": 1, "default": {{"prompt": 1, "output": 1}}, "models": {{"sql": {entry}}}}}"#)
        };
        assert!(error(&one(r#"{"prompt": -5, "output": 1}"#)).contains("models.sql.prompt is -5"));
        assert!(error(&one(r#"{"prompt": 1, "output": 1000000000001}"#)).contains("models.sql.output"));
        assert!(error(&one(r#"{"prompt": 1, "output": 99999999999999999999}"#)).contains("line 1 column"));
        assert!(error(&one(r#"{"prompt": 1.5, "output": 1}"#)).contains("line 1 column"));
        assert!(error(&one(r#"{"prompt": 1, "output": 1, "extra": 1}"#)).contains("unknown field `extra`"));
        assert!(error(&one(r#"{"prompt": 1}"#)).contains("missing field `output`"));
        assert!(error(r#"{"version": 0, "default": {"prompt": 1, "output": 1}}"#).contains("version is 0"));
        assert!(
            PriceList::read(Path::new("/nowhere/prices.json"))
                .unwrap_err()
                .to_string()
                .contains("/nowhere/prices.json")
        );
    }

    #[test]
    fn counts_that_cannot_be_and_costs_beyond_sense_are_refused() {
        let price = Price { prompt: PRICE_MAX, cached: 0, output: 0, accepted: 0 };
        let usage = Usage { prompt: 1, cached: 2, ..Usage::default() };
        assert!(matches!(price.cost(&usage), Err(PriceError::Usage(_))));
        assert!(matches!(price.worst(u64::MAX, u64::MAX), Err(PriceError::TooDear(_))));
    }
}
