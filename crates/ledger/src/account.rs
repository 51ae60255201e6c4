//! Who has a balance: `customer:ada`, `operator:NODE`, `network` and so on.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Bytes a name may have, its kind included.
pub const NAME_BYTES_MAX: usize = 128;

/// Kinds of which there are many accounts, each with a name.
const NAMED: [&str; 5] = ["customer", "operator", "author", "data", "stake"];
/// Accounts of which there is one.
const SINGLE: [&str; 3] = ["network", "insurance", "outside"];

/// The name of an account: a kind and, behind a colon, whose it is.
///
/// `customer:` pays for answers, `operator:` runs a node, `author:` made an adapter, `data:` gave its examples, `stake:` is
/// what an operator has at risk. `network`, `insurance` and `outside` are one each; `outside` is the rest of the world:
/// deposits come from it and payouts go to it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountId(String);

/// Why a text is no account's name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{0:?} is no account: accounts are network, insurance, outside, or customer:, operator:, author:, data: or stake: and a \
     name without spaces, {NAME_BYTES_MAX} bytes at most"
)]
pub struct AccountError(String);

impl AccountId {
    /// `customer:NAME`.
    ///
    /// # Errors
    /// The name is empty, too long, or has spaces in it.
    pub fn customer(name: &str) -> Result<AccountId, AccountError> {
        format!("customer:{name}").parse()
    }

    /// `operator:NODE`.
    ///
    /// # Errors
    /// The name is empty, too long, or has spaces in it.
    pub fn operator(node: &str) -> Result<AccountId, AccountError> {
        format!("operator:{node}").parse()
    }

    /// `stake:NODE`.
    ///
    /// # Errors
    /// The name is empty, too long, or has spaces in it.
    pub fn stake(node: &str) -> Result<AccountId, AccountError> {
        format!("stake:{node}").parse()
    }

    /// The network's own.
    pub fn network() -> AccountId {
        AccountId("network".to_owned())
    }

    /// What pays for damage.
    pub fn insurance() -> AccountId {
        AccountId("insurance".to_owned())
    }

    /// The rest of the world.
    pub fn outside() -> AccountId {
        AccountId("outside".to_owned())
    }

    /// Kind and name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the colon.
    pub fn kind(&self) -> &str {
        self.0.split_once(':').map_or(&self.0, |(kind, _)| kind)
    }

    /// Whether it is the rest of the world, which alone may owe without limit.
    pub fn is_outside(&self) -> bool {
        self.0 == "outside"
    }
}

impl FromStr for AccountId {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<AccountId, AccountError> {
        let known = match text.split_once(':') {
            Some((kind, name)) => NAMED.contains(&kind) && !name.is_empty(),
            None => SINGLE.contains(&text),
        };
        if known && is_name(text) { Ok(AccountId(text.to_owned())) } else { Err(AccountError(text.to_owned())) }
    }
}

/// Whether a text may be an id or a name: not empty, not long, no spaces or control characters.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for AccountId {
    type Error = AccountError;

    fn try_from(text: String) -> Result<AccountId, AccountError> {
        text.parse()
    }
}

impl From<AccountId> for String {
    fn from(account: AccountId) -> String {
        account.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_have_a_known_kind_and_a_name() {
        for text in
            ["customer:ada", "operator:00ff", "author:a:b", "stake:x", "data:d", "network", "insurance", "outside"]
        {
            assert_eq!(text.parse::<AccountId>().unwrap().to_string(), text);
        }
        let long = format!("customer:{}", "a".repeat(NAME_BYTES_MAX));
        for text in ["", "ada", "customer", "customer:", "bank:ada", "network:x", "customer:a b", "customer:a\n", &long]
        {
            assert!(text.parse::<AccountId>().is_err(), "{text:?}");
        }
    }
}
