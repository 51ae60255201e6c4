//! A group of operations is one transaction of the database: lock, read what they touch, apply the rules in memory, write,
//! commit. Whoever writes holds the one row of `books`, so groups of all gateways follow one another, as SQLite has it by
//! nature: no deadlocks, no failures to serialise, gapless numbers.

use crate::account::AccountId;
use crate::error::{LedgerError, Refusal};
use crate::money::Micros;
use crate::operation::{Done, Kind, Operation, Outcome, Time};
use crate::rules::apply;
use crate::schema;
use crate::slice::{Account, Changes, HOUR, Known, Needs, OpenHold, Slice, Transaction};
use crate::sql::{Connection, Row, Type, Value};
use std::collections::BTreeSet;

/// Lines a transaction has at most; a posting's number is the transaction's times this plus the line.
pub(crate) const LINES_MAX: i64 = 64;

const INT: Type = Type::Int;
const TEXT: Type = Type::Text;

/// Why a group was not written.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// What the database said.
    Database(sqlx::Error),
    /// It holds what it must not.
    Damaged(String),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        StoreError::Database(error)
    }
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> LedgerError {
        match error {
            StoreError::Database(error) => LedgerError::Away(error.to_string().into()),
            StoreError::Damaged(what) => LedgerError::Damaged(what.into()),
        }
    }
}

/// Writes a group, or nothing; gives what came of each operation.
pub(crate) async fn write(
    connection: &mut Connection,
    group: &[&Operation],
    now: Time,
    audit_window: Time,
) -> Result<Vec<Result<Done, Refusal>>, StoreError> {
    connection.begin().await?;
    match write_begun(connection, group, now, audit_window).await {
        Ok(results) => {
            connection.commit().await?;
            Ok(results)
        }
        Err(error) => {
            // If this fails too, the connection is of no more use, and whoever opens the next one begins anew.
            let _ = connection.rollback().await;
            Err(error)
        }
    }
}

async fn write_begun(
    connection: &mut Connection,
    group: &[&Operation],
    now: Time,
    audit_window: Time,
) -> Result<Vec<Result<Done, Refusal>>, StoreError> {
    let mut needs = Needs::default();
    group.iter().for_each(|operation| needs.add(operation));
    let mut slice = read(connection, needs, now, audit_window).await?;
    let first = slice.next;
    let results = group.iter().map(|operation| apply(&mut slice, operation, now)).collect();
    let changes = std::mem::take(&mut slice.changes);
    write_changes(connection, &slice, changes).await?;
    if slice.next != first {
        connection.query(schema::SET_NEXT, &[slice.next.into()], &[]).await?;
    }
    Ok(results)
}

async fn read(
    connection: &mut Connection,
    mut needs: Needs,
    now: Time,
    audit_window: Time,
) -> Result<Slice, StoreError> {
    let mut slice = Slice::default();
    let rows = connection.query(schema::LOCK, &[], &[INT, INT, TEXT]).await?;
    let Some([Value::Int(version), Value::Int(next), violation]) = rows.first().map(Vec::as_slice) else {
        return Err(StoreError::Damaged("its table books is empty".to_owned()));
    };
    if *version != schema::VERSION {
        return Err(StoreError::Damaged(format!("its tables have version {version}, this is {}", schema::VERSION)));
    }
    slice.next = *next;
    slice.violation = text(violation);
    let ids = keys(needs.ids.iter().map(String::as_str));
    for row in connection.bulk(&schema::FIND_HOLDS, &ids, &[TEXT, TEXT, INT, INT, INT, INT, INT]).await? {
        let (id, hold) = hold_of(&row).ok_or_else(|| damaged("holds", &row))?;
        needs.accounts.insert(hold.customer.clone());
        slice.holds.insert(id, hold);
    }
    let types = [TEXT, INT, INT, INT, INT, INT, TEXT, INT, INT, INT];
    for row in connection.bulk(&schema::FIND_TRANSACTIONS, &ids, &types).await? {
        let (id, known) = known_of(&row).ok_or_else(|| damaged("transactions", &row))?;
        if needs.undone.contains(&id) {
            let lines = postings(connection, known.number).await?;
            needs.accounts.extend(lines.iter().map(|(account, _)| account.clone()));
            slice.postings.insert(known.number, lines);
        }
        slice.known.insert(id, known);
    }
    read_accounts(connection, &mut slice, &needs.accounts).await?;
    for account in needs.earners {
        let values = [account.as_str().into(), mature_before(now, audit_window).into()];
        let rows = connection.query(schema::IMMATURE, &values, &[INT]).await?;
        let sum = rows.first().and_then(|row| int(&row[0])).unwrap_or_default();
        slice.immature.insert(account, Micros(sum));
    }
    Ok(slice)
}

/// The lines of a transaction.
pub(crate) async fn postings(connection: &mut Connection, number: i64) -> Result<Vec<(AccountId, Micros)>, StoreError> {
    let range = [(number * LINES_MAX).into(), ((number + 1) * LINES_MAX).into()];
    let rows = connection.query(schema::POSTINGS_OF, &range, &[TEXT, INT]).await?;
    let line = |row: &Row| Some((account(&row[0])?, Micros(int(&row[1])?)));
    rows.iter().map(|row| line(row).ok_or_else(|| damaged("postings", row))).collect()
}

/// Earnings of an hour are immature if it begins after this: its last moment must be older than the audit window.
pub(crate) fn mature_before(now: Time, audit_window: Time) -> Time {
    now.saturating_sub(audit_window).saturating_sub(HOUR)
}

async fn read_accounts(
    connection: &mut Connection,
    slice: &mut Slice,
    wanted: &BTreeSet<AccountId>,
) -> Result<(), StoreError> {
    slice.accounts.extend(wanted.iter().map(|account| (account.clone(), None)));
    let ids = keys(wanted.iter().map(AccountId::as_str));
    for row in connection.bulk(&schema::FIND_ACCOUNTS, &ids, &[TEXT, INT, INT, INT, INT, INT]).await? {
        let read = || {
            let micros = |index: usize| int(&row[index]).map(Micros);
            let (balance, held, floor, owed) = (micros(1)?, micros(2)?, micros(3)?, micros(4)?);
            Some((account(&row[0])?, Account { balance, held, floor, owed, opened_at: int(&row[5])? }))
        };
        let (id, account) = read().ok_or_else(|| damaged("accounts", &row))?;
        slice.accounts.insert(id, Some(account));
    }
    Ok(())
}

async fn write_changes(connection: &mut Connection, slice: &Slice, changes: Changes) -> Result<(), StoreError> {
    let account = |id: &AccountId| {
        let account = slice.accounts.get(id).copied().flatten().unwrap_or_default();
        let Account { balance, held, floor, owed, opened_at } = account;
        vec![id.as_str().into(), balance.0.into(), held.0.into(), floor.0.into(), owed.0.into(), opened_at.into()]
    };
    let accounts: Vec<Row> = changes.accounts.iter().map(account).collect();
    connection.bulk(&schema::PUT_ACCOUNTS, &accounts, &[]).await?;
    let hold = |id: &String| {
        let hold = slice.holds.get(id)?;
        Some(vec![
            id.as_str().into(),
            hold.customer.as_str().into(),
            hold.amount.0.into(),
            hold.opened_at.into(),
            hold.expires_at.into(),
            hold.digest.into(),
            i64::from(hold.expired).into(),
        ])
    };
    let new: Vec<Row> = changes.new_holds.iter().filter_map(hold).collect();
    connection.bulk(&schema::NEW_HOLDS, &new, &[]).await?;
    let expired = changes.expired_holds.difference(&changes.new_holds).map(String::as_str);
    connection.bulk(&schema::EXPIRED_HOLDS, &keys(expired), &[]).await?;
    connection.bulk(&schema::ENDED_HOLDS, &keys(changes.ended_holds.iter().map(String::as_str)), &[]).await?;
    let transactions: Vec<Row> = changes.transactions.iter().map(transaction_row).collect();
    connection.bulk(&schema::NEW_TRANSACTIONS, &transactions, &[]).await?;
    let posting = |(number, line, account, amount): &(i64, i64, AccountId, Micros)| {
        vec![(number * LINES_MAX + line).into(), account.as_str().into(), amount.0.into()]
    };
    let postings: Vec<Row> = changes.postings.iter().map(posting).collect();
    connection.bulk(&schema::NEW_POSTINGS, &postings, &[]).await?;
    let flows = changes.flows.iter().map(|((account, hour), flow)| {
        let sums = [*hour, flow.earned, flow.refunded, flow.requests];
        std::iter::once(account.as_str().into()).chain(sums.map(Value::Int)).collect()
    });
    connection.bulk(&schema::ADD_FLOWS, &flows.collect::<Vec<Row>>(), &[]).await?;
    let traffic = changes.traffic.iter().map(|((hour, model, outcome, late), sums)| {
        let key = [(*hour).into(), model.as_str().into(), (*outcome).into(), i64::from(*late).into()];
        let sums = [sums.requests, sums.prompt, sums.cached, sums.output, sums.accepted, sums.amount];
        key.into_iter().chain(sums.map(Value::Int)).collect()
    });
    connection.bulk(&schema::ADD_TRAFFIC, &traffic.collect::<Vec<Row>>(), &[]).await?;
    for (number, undone) in changes.undone {
        connection.query(schema::SET_UNDONE, &[undone.0.into(), number.into()], &[]).await?;
    }
    Ok(())
}

fn transaction_row(transaction: &Transaction) -> Row {
    let Transaction { id, known, reference, note, held, settlement } = transaction;
    let settled = settlement.as_ref();
    let usage = settled.map(|settlement| settlement.usage);
    let tokens = |count: fn(&crate::price::Usage) -> u64| Value::from(usage.map(|usage| count(&usage) as i64));
    vec![
        known.number.into(),
        id.as_str().into(),
        known.kind.code().into(),
        known.time.into(),
        known.digest.into(),
        known.hold_digest.into(),
        known.account.as_ref().map(AccountId::as_str).into(),
        known.amount.0.into(),
        known.undone.0.into(),
        held.0.into(),
        reference.as_deref().into(),
        note.as_str().into(),
        settled.map(|settlement| settlement.operator.as_str()).into(),
        settled.map_or(Value::Null, |settlement| Value::Text(settlement.split.to_string())),
        settled.map(|settlement| settlement.model.as_str()).into(),
        settled.map(|settlement| i64::from(settlement.price)).into(),
        tokens(|usage| usage.prompt),
        tokens(|usage| usage.cached),
        tokens(|usage| usage.output),
        tokens(|usage| usage.accepted),
        known.outcome.map(Outcome::code).into(),
        settled.and_then(|settlement| settlement.first_token_ms.map(i64::from)).into(),
        settled.map(|settlement| i64::from(settlement.total_ms)).into(),
        settled.map(|settlement| i64::from(settlement.late)).into(),
    ]
}

fn hold_of(row: &Row) -> Option<(String, OpenHold)> {
    let hold = OpenHold {
        customer: account(&row[1])?,
        amount: Micros(int(&row[2])?),
        opened_at: int(&row[3])?,
        expires_at: int(&row[4])?,
        digest: int(&row[5])?,
        expired: int(&row[6])? != 0,
    };
    Some((text(&row[0])?, hold))
}

fn known_of(row: &Row) -> Option<(String, Known)> {
    let known = Known {
        number: int(&row[1])?,
        kind: Kind::of(int(&row[2])?)?,
        digest: int(&row[3])?,
        hold_digest: int(&row[4]),
        time: int(&row[5])?,
        account: account(&row[6]),
        amount: Micros(int(&row[7])?),
        undone: Micros(int(&row[8])?),
        outcome: int(&row[9]).and_then(Outcome::of),
    };
    Some((text(&row[0])?, known))
}

/// Rows of one column.
pub(crate) fn keys<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<Row> {
    keys.map(|key| vec![key.into()]).collect()
}

/// The number in a column.
pub(crate) fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(value) => Some(*value),
        _ => None,
    }
}

/// The text in a column.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::Text(text) => Some(text.clone()),
        _ => None,
    }
}

/// The account in a column.
pub(crate) fn account(value: &Value) -> Option<AccountId> {
    match value {
        Value::Text(text) => text.parse().ok(),
        _ => None,
    }
}

/// A row that makes no sense.
pub(crate) fn damaged(table: &str, row: &Row) -> StoreError {
    StoreError::Damaged(format!("a row of its table {table} makes no sense: {row:?}"))
}
