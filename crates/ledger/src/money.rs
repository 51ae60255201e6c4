//! Money: whole micro-dollars, never floats.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Micro-dollars: millionths of a dollar. Sums are checked; nothing wraps or rounds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

/// Micro-dollars in a dollar.
pub const MICROS_PER_DOLLAR: i64 = 1_000_000;

/// Why a text is no amount of money.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not an amount: write dollars with at most six decimals, such as 12.345678, and at most {max}", max = Micros::MAX)]
pub struct AmountError {
    text: String,
}

impl Micros {
    /// Nothing.
    pub const ZERO: Micros = Micros(0);
    /// The most that one operation may move: a billion dollars.
    pub const MAX: Micros = Micros(1_000_000_000_000_000);
    /// No balance goes beyond this, above or below zero: so sums over all accounts and all postings fit 64 bits.
    pub const BALANCE_MAX: Micros = Micros(1_000_000_000_000_000_000);

    /// Micro-dollars.
    pub fn get(self) -> i64 {
        self.0
    }

    /// The sum, if 64 bits hold it.
    pub fn plus(self, other: Micros) -> Option<Micros> {
        self.0.checked_add(other.0).map(Micros)
    }

    /// The difference, if 64 bits hold it.
    pub fn minus(self, other: Micros) -> Option<Micros> {
        self.0.checked_sub(other.0).map(Micros)
    }

    /// Whether one operation may move this much: neither negative nor above [`Micros::MAX`].
    pub fn is_amount(self) -> bool {
        (0..=Micros::MAX.0).contains(&self.0)
    }
}

/// Dollars with six decimals: `12.345678`, `-0.000001`.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, micros) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        let dollar = MICROS_PER_DOLLAR.unsigned_abs();
        f.pad(&format!("{sign}{}.{:06}", micros / dollar, micros % dollar))
    }
}

/// Reads what [`Micros`] prints; decimals may be fewer than six, or none.
impl FromStr for Micros {
    type Err = AmountError;

    fn from_str(text: &str) -> Result<Micros, AmountError> {
        parse(text).ok_or_else(|| AmountError { text: text.to_owned() })
    }
}

fn parse(text: &str) -> Option<Micros> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, decimals) = digits.split_once('.').map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let decimals = match decimals {
        None => 0,
        Some(rest) if is_number(rest) && rest.len() <= 6 => format!("{rest:0<6}").parse().ok()?,
        Some(_) => return None,
    };
    let whole: i64 = if is_number(whole) { whole.parse().ok()? } else { return None };
    let micros = whole.checked_mul(MICROS_PER_DOLLAR)?.checked_add(decimals)?;
    Some(Micros(sign * micros)).filter(|micros| micros.0.abs() <= Micros::MAX.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_printed_reads_back(micros in -Micros::MAX.0..=Micros::MAX.0) {
            prop_assert_eq!(Micros(micros).to_string().parse::<Micros>().unwrap(), Micros(micros));
        }

        #[test]
        fn any_text_is_an_amount_or_an_error(text in ".{0,24}") {
            if let Ok(amount) = text.parse::<Micros>() {
                prop_assert!(amount.0.abs() <= Micros::MAX.0);
            }
        }
    }

    #[test]
    fn amounts_are_read_exactly_or_refused() {
        for (text, micros) in [("12.345678", 12_345_678), ("-0.000001", -1), ("7", 7_000_000), ("0.5", 500_000)] {
            assert_eq!(text.parse(), Ok(Micros(micros)));
        }
        for text in
            ["", ".", "-", "1.", ".5", "1.0000001", "1e3", "+1", " 1", "1,5", "1000000001", "9223372036854775808"]
        {
            assert!(text.parse::<Micros>().is_err(), "{text}");
        }
    }
}
