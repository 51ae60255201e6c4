//! What each order moves.

use crate::account::AccountId;
use crate::error::Refusal;
use crate::money::Micros;
use crate::operation::{Kind, Time, What};
use crate::posting::{post, set_floor, undo};
use crate::slice::{Slice, hour_of};

/// An order that was carried out.
pub(crate) struct Posted {
    pub(crate) number: i64,
    pub(crate) kind: Kind,
    pub(crate) account: AccountId,
    pub(crate) amount: Micros,
    /// The transaction it undid.
    pub(crate) reference: Option<String>,
}

/// Carries out an order, or leaves the slice as it is.
pub(crate) fn post_order(slice: &mut Slice, what: &What, now: Time) -> Result<Posted, Refusal> {
    let posted = |kind, number, account: &AccountId, amount| Posted {
        number,
        kind,
        account: account.clone(),
        amount,
        reference: None,
    };
    match what {
        What::Open { account, floor } => {
            let number = set_floor(slice, account, *floor, now)?;
            Ok(posted(Kind::Open, number, account, *floor))
        }
        What::Deposit { account, amount } => {
            let number = transfer(slice, &AccountId::outside(), account, *amount, now)?;
            Ok(posted(Kind::Deposit, number, account, *amount))
        }
        What::Payout { account, amount } => {
            let number = pay_out(slice, account, *amount, now)?;
            Ok(posted(Kind::Payout, number, account, *amount))
        }
        What::Stake { node, amount } => {
            let (operator, stake) = accounts_of(node)?;
            let number = transfer(slice, &operator, &stake, *amount, now)?;
            Ok(posted(Kind::Stake, number, &operator, *amount))
        }
        What::Unstake { node, amount } => {
            let (operator, stake) = accounts_of(node)?;
            let number = transfer(slice, &stake, &operator, *amount, now)?;
            // It could be slashed as long as it was staked; so it waits as earnings do.
            slice.changes.flows.entry((operator.clone(), hour_of(now))).or_default().earned += amount.0;
            if let Some(immature) = slice.immature.get_mut(&operator) {
                immature.0 += amount.0;
            }
            Ok(posted(Kind::Unstake, number, &operator, *amount))
        }
        What::Slash { node, amount } => {
            let (operator, stake) = accounts_of(node)?;
            let number = slash(slice, &operator, &stake, *amount, now)?;
            Ok(posted(Kind::Slash, number, &stake, *amount))
        }
        What::Appeal { slash } => {
            let (number, known, amount) = undo(slice, slash, Kind::Slash, None, now)?;
            let account = known.account.unwrap_or_else(AccountId::insurance);
            Ok(Posted { reference: Some(slash.clone()), ..posted(Kind::Appeal, number, &account, amount) })
        }
        What::Refund { settlement, amount } => {
            check(*amount)?;
            let (number, known, amount) = undo(slice, settlement, Kind::Settle, Some(*amount), now)?;
            let account = known.account.unwrap_or_else(AccountId::outside);
            Ok(Posted { reference: Some(settlement.clone()), ..posted(Kind::Refund, number, &account, amount) })
        }
    }
}

fn accounts_of(node: &str) -> Result<(AccountId, AccountId), Refusal> {
    let wrong = |_| Refusal::Text { what: "a node's name", max: 100, text: node.chars().take(80).collect() };
    Ok((AccountId::operator(node).map_err(wrong)?, AccountId::stake(node).map_err(wrong)?))
}

/// Orders move something.
fn check(amount: Micros) -> Result<(), Refusal> {
    if amount.is_amount() && amount > Micros::ZERO { Ok(()) } else { Err(Refusal::Amount(amount)) }
}

fn transfer(slice: &mut Slice, from: &AccountId, to: &AccountId, amount: Micros, now: Time) -> Result<i64, Refusal> {
    check(amount)?;
    if from == to {
        return Err(Refusal::Kind { account: from.clone(), wanted: "any account but outside" });
    }
    if !from.is_outside() && slice.account(from)?.is_none() {
        return Err(Refusal::NoAccount(from.clone()));
    }
    post(slice, &[(from.clone(), Micros(-amount.0)), (to.clone(), amount)], false, now)
}

fn pay_out(slice: &mut Slice, account: &AccountId, amount: Micros, now: Time) -> Result<i64, Refusal> {
    if let Some(violation) = &slice.violation {
        return Err(Refusal::Unsound(violation.clone()));
    }
    if account.kind() == "stake" {
        return Err(Refusal::Kind { account: account.clone(), wanted: "an account that is no stake: unstake first" });
    }
    let state = slice.account(account)?.ok_or_else(|| Refusal::NoAccount(account.clone()))?;
    let immature = slice.immature.get(account).ok_or_else(|| Refusal::Unread(account.to_string()))?;
    let available = state.available();
    let payable = Micros((available.0 - immature.0.max(0)).max(0));
    if amount > payable && amount <= available {
        return Err(Refusal::Immature { account: account.clone(), payable, wanted: amount });
    }
    transfer(slice, account, &AccountId::outside(), amount, now)
}

fn slash(
    slice: &mut Slice,
    operator: &AccountId,
    stake: &AccountId,
    amount: Micros,
    now: Time,
) -> Result<i64, Refusal> {
    check(amount)?;
    let available = |id: &AccountId| Ok(slice.account(id)?.map_or(Micros::ZERO, |account| account.available()));
    let at_risk = available(stake)?.max(Micros::ZERO).min(amount);
    let rest = Micros(amount.0 - at_risk.0);
    let earned = available(operator)?.max(Micros::ZERO);
    if earned < rest {
        let both = Micros(at_risk.0 + earned.0);
        return Err(Refusal::Funds { account: stake.clone(), available: both, wanted: amount });
    }
    let lines =
        [(stake.clone(), Micros(-at_risk.0)), (operator.clone(), Micros(-rest.0)), (AccountId::insurance(), amount)];
    let lines: Vec<_> = lines.into_iter().filter(|(_, part)| part.0 != 0).collect();
    post(slice, &lines, false, now)
}
