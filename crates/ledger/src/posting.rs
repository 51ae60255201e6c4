//! Lines that add up to zero: posting them, and undoing them.

use crate::account::AccountId;
use crate::error::Refusal;
use crate::money::Micros;
use crate::operation::{Kind, Outcome, Time};
use crate::slice::{Account, Known, Slice, hour_of};
use crate::split::apportion;

/// Floors are within what one operation may move.
const FLOOR_MAX: i64 = Micros::MAX.0;

/// Gives an account a floor; opens it if need be.
pub(crate) fn set_floor(slice: &mut Slice, id: &AccountId, floor: Micros, now: Time) -> Result<i64, Refusal> {
    if id.is_outside() {
        return Err(Refusal::Kind { account: id.clone(), wanted: "any account but outside" });
    }
    if floor.0.abs() > FLOOR_MAX {
        return Err(Refusal::Amount(floor));
    }
    let mut account = slice.account_or_new(id, now)?;
    let before = account.floor;
    account.floor = floor;
    if floor > before && account.available() < Micros::ZERO {
        let Account { balance, held, .. } = account;
        return Err(Refusal::Floor { account: id.clone(), balance, held, floor });
    }
    lessen_debt(&mut account);
    slice.put(id, account);
    Ok(take_number(slice))
}

/// Posts lines that add up to zero as one transaction, all or none. An account that is debited may go below its floor only if
/// `may_owe`, and then owes.
pub(crate) fn post(slice: &mut Slice, lines: &[(AccountId, Micros)], may_owe: bool, now: Time) -> Result<i64, Refusal> {
    let mut after: Vec<(&AccountId, Account)> = vec![];
    for (id, amount) in lines {
        let index = match after.iter().position(|(other, _)| *other == id) {
            Some(index) => index,
            None => {
                after.push((id, slice.account_or_new(id, now)?));
                after.len() - 1
            }
        };
        let account = &mut after[index].1;
        let available = account.available();
        let balance = account.balance.plus(*amount).filter(|sum| sum.0.abs() <= Micros::BALANCE_MAX.0);
        account.balance = balance.ok_or_else(|| Refusal::Balance(id.clone()))?;
        if id.is_outside() {
            continue;
        }
        let left = account.available();
        if *amount < Micros::ZERO && left < Micros::ZERO {
            if !may_owe {
                return Err(Refusal::Funds { account: id.clone(), available, wanted: Micros(-amount.0) });
            }
            account.owed = account.owed.max(Micros(-left.0));
        }
        lessen_debt(account);
    }
    debug_assert_eq!(lines.iter().map(|(_, amount)| amount.0).sum::<i64>(), 0);
    let after: Vec<(AccountId, Account)> = after.into_iter().map(|(id, account)| (id.clone(), account)).collect();
    for (id, account) in &after {
        slice.put(id, *account);
    }
    let number = take_number(slice);
    let moved = lines.iter().filter(|(_, amount)| *amount != Micros::ZERO);
    for (line, (id, amount)) in (0..).zip(moved.clone()) {
        slice.changes.postings.push((number, line, id.clone(), *amount));
    }
    slice.postings.insert(number, moved.cloned().collect());
    Ok(number)
}

/// Who has money again owes less.
pub(crate) fn lessen_debt(account: &mut Account) {
    account.owed = account.owed.min(Micros((-account.available().0).max(0)));
}

/// Undoes an amount of an earlier transaction: each account gives back or gets its part of it, in proportion, so that parts
/// of many refunds add up to the whole.
pub(crate) fn undo(
    slice: &mut Slice,
    id: &str,
    kind: Kind,
    amount: Option<Micros>,
    now: Time,
) -> Result<(i64, Known, Micros), Refusal> {
    let absent = || Refusal::NoTransaction { kind: kind.name(), id: id.to_owned() };
    let known = slice.known.get(id).filter(|known| known.kind == kind).cloned().ok_or_else(absent)?;
    let paid = known.outcome.is_none_or(|outcome| outcome == Outcome::Paid);
    let left = if paid { Micros(known.amount.0 - known.undone.0) } else { Micros::ZERO };
    let amount = amount.unwrap_or(known.amount);
    if amount > left || left == Micros::ZERO {
        return Err(Refusal::AboveRest { id: id.to_owned(), left, wanted: amount });
    }
    let postings = slice.postings.get(&known.number).ok_or_else(|| Refusal::Unread(id.to_owned()))?.clone();
    let undone = Micros(known.undone.0 + amount.0);
    let mut lines: Vec<(AccountId, Micros)> = vec![];
    for gained in [true, false] {
        let side: Vec<_> = postings.iter().filter(|(_, part)| (part.0 > 0) == gained).collect();
        let weights: Vec<i64> = side.iter().map(|(_, part)| part.0.abs()).collect();
        let (before, after) = (apportion(known.undone, &weights), apportion(undone, &weights));
        let sign = if gained { -1 } else { 1 };
        let parts = before.iter().zip(&after).map(|(before, after)| Micros(sign * (after.0 - before.0)));
        lines.extend(side.iter().zip(parts).map(|((account, _), part)| (account.clone(), part)));
    }
    let may_owe = kind == Kind::Settle;
    let number = post(slice, &lines, may_owe, now)?;
    if kind == Kind::Settle {
        take_back(slice, &lines, hour_of(known.time));
    }
    if let Some(known) = slice.known.get_mut(id) {
        known.undone = undone;
    }
    slice.changes.undone.insert(known.number, undone);
    Ok((number, known, amount))
}

/// Earnings that were refunded do not wait for their payout any more.
fn take_back(slice: &mut Slice, lines: &[(AccountId, Micros)], hour: Time) {
    for (account, part) in lines.iter().filter(|(account, _)| account.kind() != "customer") {
        slice.changes.flows.entry((account.clone(), hour)).or_default().refunded -= part.0;
    }
}

pub(crate) fn take_number(slice: &mut Slice) -> i64 {
    slice.next += 1;
    slice.next - 1
}
