//! Who earns what of a settled request.

use crate::account::{AccountError, AccountId};
use crate::money::Micros;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// All of it, in parts per million.
pub const WHOLE_PPM: u32 = 1_000_000;
/// The most shares in a split.
pub const SHARES_MAX: usize = 60;
/// What stands for the account of the node that computed the answer.
const OPERATOR: &str = "operator";

/// A published split: shares in parts per million that add up to the whole. Written as
/// `operator=800000,author:ada=120000,network=50000,insurance=30000`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Split {
    /// No account: the node's operator, whoever that is.
    shares: Vec<(Option<AccountId>, u32)>,
}

/// Why shares are not a split.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SplitError {
    /// They make more or less than the whole.
    #[error("the shares add up to {0} parts per million, not to {WHOLE_PPM}")]
    Sum(u64),
    /// A share that is not `account=parts`.
    #[error("{0:?} is not a share: write account=parts per million, such as operator=800000")]
    Share(String),
    /// An account that cannot be.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// An account that takes no share.
    #[error("{0} cannot have a share: shares go to operator, operator:, author:, data:, network and insurance")]
    Recipient(AccountId),
    /// Twice the same.
    #[error("{0} has two shares: add them up")]
    Twice(String),
    /// Too many.
    #[error("a split has 1 to {SHARES_MAX} shares, this has {0}")]
    Count(usize),
}

impl Split {
    /// A split; no account stands for the operator of the node.
    ///
    /// # Errors
    /// The shares do not add up to the whole, go to whom they cannot, or are too many.
    pub fn new(shares: Vec<(Option<AccountId>, u32)>) -> Result<Split, SplitError> {
        if shares.is_empty() || shares.len() > SHARES_MAX {
            return Err(SplitError::Count(shares.len()));
        }
        for (index, (account, _)) in shares.iter().enumerate() {
            if shares[..index].iter().any(|(other, _)| other == account) {
                return Err(SplitError::Twice(account.as_ref().map_or(OPERATOR.to_owned(), AccountId::to_string)));
            }
            match account {
                Some(account) if matches!(account.kind(), "customer" | "stake" | "outside") => {
                    return Err(SplitError::Recipient(account.clone()));
                }
                _ => {}
            }
        }
        let sum: u64 = shares.iter().map(|(_, parts)| u64::from(*parts)).sum();
        if sum == u64::from(WHOLE_PPM) { Ok(Split { shares }) } else { Err(SplitError::Sum(sum)) }
    }

    /// What holds where nothing else was published: 80 % to the operator, 15 % to the network, 5 % to the insurance.
    pub fn standard() -> Split {
        let shares =
            vec![(None, 800_000), (Some(AccountId::network()), 150_000), (Some(AccountId::insurance()), 50_000)];
        Split { shares }
    }

    /// What each account gets of an amount, which is not negative; the parts add up to it. No account twice.
    pub fn apportion(&self, amount: Micros, operator: &AccountId) -> Vec<(AccountId, Micros)> {
        let weights: Vec<i64> = self.shares.iter().map(|(_, parts)| i64::from(*parts)).collect();
        let mut parts: Vec<(AccountId, Micros)> = vec![];
        for ((account, _), part) in self.shares.iter().zip(apportion(amount, &weights)) {
            let account = account.as_ref().unwrap_or(operator);
            match parts.iter_mut().find(|(other, _)| other == account) {
                Some((_, sum)) => sum.0 += part.0,
                None => parts.push((account.clone(), part)),
            }
        }
        parts
    }
}

/// Divides an amount in proportion to weights: each part is rounded down, and what is left over goes, a micro-dollar each, to
/// the parts that lost most by rounding; among equals to the earlier. Amount and weights are not negative; without any
/// weight everything goes to the first.
pub(crate) fn apportion(amount: Micros, weights: &[i64]) -> Vec<Micros> {
    let whole: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
    let mut parts = vec![Micros::ZERO; weights.len()];
    if whole == 0 {
        parts.iter_mut().take(1).for_each(|part| *part = amount);
        return parts;
    }
    let mut lost: Vec<(i128, usize)> = vec![];
    let mut left = amount.0;
    for (index, (part, weight)) in parts.iter_mut().zip(weights).enumerate() {
        let product = i128::from(amount.0) * i128::from(*weight);
        // Not above the amount.
        *part = Micros((product / whole) as i64);
        left -= part.0;
        lost.push((product % whole, index));
    }
    // Stable: among equals the earlier stays first.
    lost.sort_by_key(|(rest, _)| -rest);
    for (_, index) in lost.iter().take(usize::try_from(left).unwrap_or(0)) {
        parts[*index].0 += 1;
    }
    parts
}

impl FromStr for Split {
    type Err = SplitError;

    fn from_str(text: &str) -> Result<Split, SplitError> {
        let share = |share: &str| {
            let wrong = || SplitError::Share(share.to_owned());
            let (account, parts) = share.trim().rsplit_once('=').ok_or_else(wrong)?;
            let parts = parts.trim().parse().map_err(|_| wrong())?;
            let account = match account.trim() {
                OPERATOR => None,
                account => Some(account.parse()?),
            };
            Ok((account, parts))
        };
        Split::new(text.split(',').map(share).collect::<Result<_, SplitError>>()?)
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (account, parts)) in self.shares.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}={parts}", account.as_ref().map_or(OPERATOR, AccountId::as_str))?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Split {
    type Error = SplitError;

    fn try_from(text: String) -> Result<Split, SplitError> {
        text.parse()
    }
}

impl From<Split> for String {
    fn from(split: Split) -> String {
        split.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_add_up_and_are_within_one_of_their_share(
            amount in 0..=Micros::MAX.0,
            weights in prop::collection::vec(0..=1_000_000i64, 1..20),
        ) {
            let parts = apportion(Micros(amount), &weights);
            prop_assert_eq!(parts.iter().map(|part| part.0).sum::<i64>(), amount);
            let whole: i128 = weights.iter().map(|weight| i128::from(*weight)).sum();
            for (part, weight) in parts.iter().zip(&weights) {
                let error = i128::from(part.0) * whole - i128::from(amount) * i128::from(*weight);
                prop_assert!(whole == 0 || (error.abs() < whole));
            }
        }
    }

    #[test]
    fn what_is_left_over_goes_where_most_was_lost_and_then_in_order() {
        let parts =
            |amount, weights: &[i64]| apportion(Micros(amount), weights).iter().map(|part| part.0).collect::<Vec<_>>();
        assert_eq!(parts(100, &[1, 1, 1]), [34, 33, 33]);
        assert_eq!(parts(101, &[1, 1, 1]), [34, 34, 33]);
        assert_eq!(parts(10, &[500_000, 333_333, 166_667]), [5, 3, 2]);
        assert_eq!(parts(1, &[1, 999_999]), [0, 1]);
    }

    #[test]
    fn an_operator_that_is_named_too_gets_one_part() {
        let split: Split = "operator=500000,operator:n=250000,network=250000".parse().unwrap();
        let node = AccountId::operator("n").unwrap();
        assert_eq!(split.apportion(Micros(4), &node), [(node.clone(), Micros(3)), (AccountId::network(), Micros(1))]);
    }

    #[test]
    fn splits_that_do_not_add_up_are_refused() {
        let error = |text: &str| text.parse::<Split>().unwrap_err();
        assert_eq!(error("operator=999999"), SplitError::Sum(999_999));
        assert_eq!(error("operator=4294967295,network=4294967295"), SplitError::Sum(8_589_934_590));
        assert_eq!(error("operator=500000,operator=500000"), SplitError::Twice("operator".to_owned()));
        assert!(matches!(error("customer:ada=1000000"), SplitError::Recipient(_)));
        assert!(matches!(error("operator=-1,network=1000001"), SplitError::Share(_)));
        assert!(matches!(error("bank=1000000"), SplitError::Account(_)));
        assert!(matches!(error(""), SplitError::Share(_)));
        let standard = Split::standard();
        assert_eq!(standard.to_string().parse::<Split>().unwrap(), standard);
    }
}
