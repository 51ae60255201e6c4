//! The rules: what an operation does to the books, or why not. Pure: the same books and the same operation give the same.
//!
//! Every transaction adds up to zero. An account may go below its floor by two rules only, and then owes: a settlement of a
//! hold that had expired, because the work was done; and a refund, because what was earned with it was not.

use crate::account::{AccountId, NAME_BYTES_MAX, is_name};
use crate::error::Refusal;
use crate::money::Micros;
use crate::operation::{Done, Hold, Kind, Operation, Order, Outcome, Settlement, Time, What};
use crate::posting::{lessen_debt, post, take_number};
use crate::slice::{Account, Known, OpenHold, Slice, Traffic, Transaction, hour_of};

/// Bytes of a note or a model's name.
const TEXT_BYTES_MAX: usize = 1024;
/// Tokens of one kind in one request.
const TOKENS_MAX: u64 = 1 << 40;

/// Applies an operation. The slice is unchanged if it is refused.
pub(crate) fn apply(slice: &mut Slice, operation: &Operation, now: Time) -> Result<Done, Refusal> {
    let digest = operation.digest();
    match operation {
        Operation::Hold(hold) => open_hold(slice, hold, digest, now),
        Operation::Settle(settlement) => settle(slice, settlement, digest, now),
        Operation::Release { hold } => release(slice, hold, digest, now),
        Operation::Expire { hold } => expire(slice, hold, now),
        Operation::Order(order) => obey(slice, order, digest, now),
    }
}

/// Whether an operation's texts can be kept at all. Asked before it joins a group, so that no text of one operation keeps the
/// database from taking the others.
pub(crate) fn check_texts(operation: &Operation) -> Result<(), Refusal> {
    let id = |id: &str| check_text("an id", NAME_BYTES_MAX, id, is_name(id));
    id(operation.id())?;
    let is_text = |text: &str| !text.contains('\0');
    match operation {
        Operation::Hold(_) | Operation::Release { .. } | Operation::Expire { .. } => Ok(()),
        Operation::Settle(Settlement { model, receipt, .. }) => {
            check_text("a model's name", TEXT_BYTES_MAX, model, is_text(model) && !model.is_empty())?;
            receipt.as_deref().map_or(Ok(()), id)
        }
        Operation::Order(order) => {
            check_text("a note", TEXT_BYTES_MAX, &order.note, is_text(&order.note))?;
            match &order.what {
                What::Appeal { slash: other } | What::Refund { settlement: other, .. } => id(other),
                _ => Ok(()),
            }
        }
    }
}

fn check_text(what: &'static str, max: usize, text: &str, is_well: bool) -> Result<(), Refusal> {
    let begin = text.chars().take(80).collect();
    if is_well && text.len() <= max { Ok(()) } else { Err(Refusal::Text { what, max, text: begin }) }
}

fn check_amount(amount: Micros) -> Result<(), Refusal> {
    if amount.is_amount() { Ok(()) } else { Err(Refusal::Amount(amount)) }
}

fn done(id: &str, number: Option<i64>, amount: Micros, repeated: bool) -> Done {
    Done { id: id.to_owned(), number, amount, repeated, queued: false }
}

fn open_hold(slice: &mut Slice, hold: &Hold, digest: i64, now: Time) -> Result<Done, Refusal> {
    let id = &hold.id;
    let ended = |how| Err(Refusal::Ended { id: id.clone(), how });
    match (slice.holds.get(id), slice.known.get(id)) {
        (Some(open), _) if open.digest != digest => return Err(Refusal::OtherContent(id.clone())),
        (Some(open), _) if open.expired => return ended("expired"),
        (Some(_), _) => return Ok(done(id, None, hold.amount, true)),
        (None, Some(known)) if known.hold_digest != Some(digest) => return Err(Refusal::OtherContent(id.clone())),
        (None, Some(known)) => return ended(if known.kind == Kind::Settle { "settled" } else { "released" }),
        (None, None) => {}
    }
    check_amount(hold.amount)?;
    if hold.customer.kind() != "customer" {
        return Err(Refusal::Kind { account: hold.customer.clone(), wanted: "a customer:" });
    }
    if hold.expires_at <= now {
        return Err(Refusal::Expired(id.clone()));
    }
    let mut account = slice.account(&hold.customer)?.ok_or_else(|| Refusal::NoAccount(hold.customer.clone()))?;
    if account.available() < hold.amount {
        return Err(Refusal::Funds {
            account: hold.customer.clone(),
            available: account.available(),
            wanted: hold.amount,
        });
    }
    account.held.0 += hold.amount.0;
    slice.put(&hold.customer, account);
    let Hold { customer, amount, expires_at, .. } = hold.clone();
    let open = OpenHold { customer, amount, opened_at: now, expires_at, digest, expired: false };
    slice.holds.insert(id.clone(), open);
    slice.changes.new_holds.insert(id.clone());
    Ok(done(id, None, hold.amount, false))
}

/// The hold that an operation of this kind is to end; or what came of it when it was done before.
fn to_end(slice: &Slice, id: &str, kind: Kind, digest: i64) -> Result<Result<OpenHold, Done>, Refusal> {
    match (slice.holds.get(id), slice.known.get(id)) {
        (Some(hold), _) => Ok(Ok(hold.clone())),
        (None, Some(known)) if known.kind == kind && known.digest == digest => {
            Ok(Err(done(id, Some(known.number), known.amount, true)))
        }
        (None, Some(known)) => match known.kind {
            Kind::Settle if kind == Kind::Release => Err(Refusal::Ended { id: id.to_owned(), how: "settled" }),
            Kind::Release => Err(Refusal::Ended { id: id.to_owned(), how: "released" }),
            _ => Err(Refusal::OtherContent(id.to_owned())),
        },
        (None, None) => Err(Refusal::NoHold(id.to_owned())),
    }
}

/// The account of a hold, with what it kept free again.
fn freed(slice: &Slice, hold: &OpenHold) -> Result<Account, Refusal> {
    let account = slice.account(&hold.customer)?;
    let mut account = account.ok_or_else(|| Refusal::Unread(hold.customer.to_string()))?;
    if !hold.expired {
        account.held.0 -= hold.amount.0;
        lessen_debt(&mut account);
    }
    Ok(account)
}

fn settle(slice: &mut Slice, settlement: &Settlement, digest: i64, now: Time) -> Result<Done, Refusal> {
    let id = &settlement.hold;
    let hold = match to_end(slice, id, Kind::Settle, digest)? {
        Ok(hold) => hold,
        Err(done) => return Ok(done),
    };
    check_settlement(settlement, &hold)?;
    // A clock that went back must not make money mature before its time.
    let time = now.max(hold.opened_at);
    let moved = if settlement.outcome == Outcome::Paid { settlement.amount } else { Micros::ZERO };
    let parts = settlement.split.apportion(moved, &settlement.operator);
    let before = slice.accounts.get(&hold.customer).copied();
    let account = freed(slice, &hold)?;
    slice.put(&hold.customer, account);
    let mut lines = vec![(hold.customer.clone(), Micros(-moved.0))];
    lines.extend(parts.iter().cloned());
    // Who has been served owes, if the hold was not there to pay from.
    let number = match post(slice, &lines, true, time) {
        Ok(number) => number,
        Err(refusal) => {
            slice.accounts.insert(hold.customer.clone(), before.flatten());
            return Err(refusal);
        }
    };
    slice.end_hold(id);
    let hour = hour_of(time);
    note_flows(slice, moved, &parts, hour);
    note_traffic(slice, settlement, hour);
    let known = Known {
        number,
        kind: Kind::Settle,
        digest,
        hold_digest: Some(hold.digest),
        time,
        account: Some(hold.customer.clone()),
        amount: settlement.amount,
        undone: Micros::ZERO,
        outcome: Some(settlement.outcome),
    };
    let transaction = Transaction {
        id: id.clone(),
        known,
        reference: settlement.receipt.clone(),
        note: String::new(),
        held: hold.amount,
        settlement: Some(settlement.clone()),
    };
    keep(slice, transaction);
    Ok(done(id, Some(number), settlement.amount, false))
}

fn check_settlement(settlement: &Settlement, hold: &OpenHold) -> Result<(), Refusal> {
    let Settlement { amount, usage, .. } = *settlement;
    check_amount(amount)?;
    if amount > hold.amount {
        return Err(Refusal::AboveHold { id: settlement.hold.clone(), held: hold.amount, amount });
    }
    if settlement.operator.kind() != "operator" {
        return Err(Refusal::Kind { account: settlement.operator.clone(), wanted: "an operator:" });
    }
    let most = usage.prompt.max(usage.cached).max(usage.output).max(usage.accepted);
    if most > TOKENS_MAX { Err(Refusal::Tokens(most)) } else { Ok(()) }
}

fn note_flows(slice: &mut Slice, moved: Micros, parts: &[(AccountId, Micros)], hour: Time) {
    if moved == Micros::ZERO {
        return;
    }
    for (account, part) in parts {
        let flow = slice.changes.flows.entry((account.clone(), hour)).or_default();
        flow.earned += part.0;
        flow.requests += 1;
        if let Some(immature) = slice.immature.get_mut(account) {
            immature.0 += part.0;
        }
    }
}

fn note_traffic(slice: &mut Slice, settlement: &Settlement, hour: Time) {
    let key = (hour, settlement.model.clone(), settlement.outcome.code(), settlement.late);
    let sums = slice.changes.traffic.entry(key).or_default();
    let usage = &settlement.usage;
    *sums = Traffic {
        requests: sums.requests + 1,
        prompt: sums.prompt + usage.prompt as i64,
        cached: sums.cached + usage.cached as i64,
        output: sums.output + usage.output as i64,
        accepted: sums.accepted + usage.accepted as i64,
        amount: sums.amount + settlement.amount.0,
    };
}

fn release(slice: &mut Slice, id: &str, digest: i64, now: Time) -> Result<Done, Refusal> {
    let hold = match to_end(slice, id, Kind::Release, digest)? {
        Ok(hold) => hold,
        Err(done) => return Ok(done),
    };
    let account = freed(slice, &hold)?;
    slice.put(&hold.customer, account);
    slice.end_hold(id);
    let number = take_number(slice);
    let known = Known {
        number,
        kind: Kind::Release,
        digest,
        hold_digest: Some(hold.digest),
        time: now.max(hold.opened_at),
        account: Some(hold.customer.clone()),
        amount: Micros::ZERO,
        undone: Micros::ZERO,
        outcome: None,
    };
    let held = hold.amount;
    let id_text = id.to_owned();
    keep(slice, Transaction { id: id_text, known, reference: None, note: String::new(), held, settlement: None });
    Ok(done(id, Some(number), Micros::ZERO, false))
}

/// Frees the money of a hold whose time is over. What has ended by now, or is not over by this clock, is left alone.
fn expire(slice: &mut Slice, id: &str, now: Time) -> Result<Done, Refusal> {
    let Some(hold) = slice.holds.get(id).filter(|hold| !hold.expired && hold.expires_at <= now).cloned() else {
        return Ok(done(id, None, Micros::ZERO, true));
    };
    let account = freed(slice, &hold)?;
    slice.put(&hold.customer, account);
    if let Some(hold) = slice.holds.get_mut(id) {
        hold.expired = true;
    }
    slice.changes.expired_holds.insert(id.to_owned());
    Ok(done(id, None, hold.amount, false))
}

/// An order that is not about a request.
fn obey(slice: &mut Slice, order: &Order, digest: i64, now: Time) -> Result<Done, Refusal> {
    let id = &order.id;
    match (slice.holds.contains_key(id), slice.known.get(id)) {
        (false, None) => {}
        (false, Some(known)) if known.hold_digest.is_none() && known.digest == digest => {
            return Ok(done(id, Some(known.number), known.amount, true));
        }
        _ => return Err(Refusal::OtherContent(id.clone())),
    }
    let posted = crate::orders::post_order(slice, &order.what, now)?;
    let known = Known {
        number: posted.number,
        kind: posted.kind,
        digest,
        hold_digest: None,
        time: now,
        account: Some(posted.account),
        amount: posted.amount,
        undone: Micros::ZERO,
        outcome: None,
    };
    let (number, amount) = (known.number, known.amount);
    let (id_text, note, reference) = (id.clone(), order.note.clone(), posted.reference);
    keep(slice, Transaction { id: id_text, known, reference, note, held: Micros::ZERO, settlement: None });
    Ok(done(id, Some(number), amount, false))
}

fn keep(slice: &mut Slice, transaction: Transaction) {
    slice.known.insert(transaction.id.clone(), transaction.known.clone());
    slice.changes.transactions.push(transaction);
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
