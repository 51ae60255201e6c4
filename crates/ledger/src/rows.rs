//! What the books answer: rows with names.

use crate::account::AccountId;
use crate::error::LedgerError;
use crate::money::Micros;
use crate::operation::{Kind, Outcome, Time};
use crate::price::Usage;
use crate::sql::{Row, Value};
use crate::store::{account, damaged, int, text};

/// An account and what is on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Balance {
    /// Whose.
    pub account: AccountId,
    /// All of it; negative is debt, or, of `outside`, what came in.
    pub balance: Micros,
    /// Of it, what holds keep.
    pub held: Micros,
    /// The least it may have.
    pub floor: Micros,
    /// How far below its floor rules have let it go.
    pub owed: Micros,
    /// When it was opened.
    pub opened_at: Time,
}

impl Balance {
    /// What may still be spent or held; negative if it owes.
    pub fn available(&self) -> Micros {
        Micros(self.balance.0.saturating_sub(self.held.0).saturating_sub(self.floor.0))
    }
}

/// One line of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Posting {
    /// Its number: later postings have larger ones.
    pub number: i64,
    /// Its transaction's id.
    pub id: String,
    /// What the transaction was.
    pub kind: Kind,
    /// When.
    pub time: Time,
    /// Whose.
    pub account: AccountId,
    /// Positive is a gain.
    pub amount: Micros,
}

/// A transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number: 1, 2, 3, …
    pub number: i64,
    /// Chosen by whoever asked for it.
    pub id: String,
    /// What it was.
    pub kind: Kind,
    /// When.
    pub time: Time,
    /// Whom it was about.
    pub account: Option<AccountId>,
    /// How much; see [`Kind`].
    pub amount: Micros,
    /// Of the amount, what refunds or an appeal undid.
    pub undone: Micros,
    /// The receipt of a settlement, the transaction that a refund or an appeal undid.
    pub reference: Option<String>,
    /// For people.
    pub note: String,
    /// If it is a settlement.
    pub settled: Option<Settled>,
}

/// What only settlements have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settled {
    /// What was held.
    pub held: Micros,
    /// The node that computed the answer.
    pub operator: AccountId,
    /// The split, as text.
    pub split: String,
    /// The name that was asked for.
    pub model: String,
    /// Version of the price list.
    pub price: u32,
    /// Tokens.
    pub usage: Usage,
    /// What came of it.
    pub outcome: Outcome,
    /// Milliseconds to the first token.
    pub first_token_ms: Option<u32>,
    /// Milliseconds to the end.
    pub total_ms: u32,
    /// Whether it took longer than the model's target.
    pub late: bool,
}

/// A hold that has not ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HoldRow {
    /// Of the request.
    pub id: String,
    /// Who pays.
    pub customer: AccountId,
    /// The worst case.
    pub amount: Micros,
    /// When it was opened.
    pub opened_at: Time,
    /// When its money is free again.
    pub expires_at: Time,
    /// Whether it is.
    pub expired: bool,
}

/// Sums over the settlements of one hour, model and outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrafficRow {
    /// When the hour begins.
    pub hour: Time,
    /// The name that was asked for.
    pub model: String,
    /// What came of them.
    pub outcome: Outcome,
    /// Whether they took longer than the model's target.
    pub late: bool,
    /// How many.
    pub requests: u64,
    /// Tokens of all.
    pub usage: Usage,
    /// What they cost by the price list; moved only where the outcome is paid.
    pub amount: Micros,
}

/// What an account earned by settlements in a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Earnings {
    /// Whose.
    pub account: AccountId,
    /// What came in.
    pub earned: Micros,
    /// Of what came in, what was refunded later.
    pub refunded: Micros,
    /// Settlements.
    pub requests: u64,
}

/// Reads rows, or says which makes no sense.
pub(crate) fn parse<T>(table: &str, rows: &[Row], read: fn(&Row) -> Option<T>) -> Result<Vec<T>, LedgerError> {
    let one = |row: &Row| read(row).ok_or_else(|| LedgerError::from(damaged(table, row)));
    rows.iter().map(one).collect()
}

fn count(value: &Value) -> Option<u64> {
    u64::try_from(int(value)?).ok()
}

pub(crate) fn balance(row: &Row) -> Option<Balance> {
    let micros = |index: usize| int(&row[index]).map(Micros);
    Some(Balance {
        account: account(&row[0])?,
        balance: micros(1)?,
        held: micros(2)?,
        floor: micros(3)?,
        owed: micros(4)?,
        opened_at: int(&row[5])?,
    })
}

pub(crate) fn posting(row: &Row) -> Option<Posting> {
    Some(Posting {
        number: int(&row[0])?,
        id: text(&row[1])?,
        kind: Kind::of(int(&row[2])?)?,
        time: int(&row[3])?,
        account: account(&row[4])?,
        amount: Micros(int(&row[5])?),
    })
}

pub(crate) fn entry(row: &Row) -> Option<Entry> {
    let kind = Kind::of(int(&row[2])?)?;
    let settled = if kind == Kind::Settle { Some(settled(row)?) } else { None };
    Some(Entry {
        number: int(&row[0])?,
        id: text(&row[1])?,
        kind,
        time: int(&row[3])?,
        account: account(&row[4]),
        amount: Micros(int(&row[5])?),
        undone: Micros(int(&row[6])?),
        reference: text(&row[7]),
        note: text(&row[8])?,
        settled,
    })
}

fn settled(row: &Row) -> Option<Settled> {
    let milliseconds = |index: usize| int(&row[index]).and_then(|value| u32::try_from(value).ok());
    Some(Settled {
        held: Micros(int(&row[9])?),
        operator: account(&row[10])?,
        split: text(&row[11])?,
        model: text(&row[12])?,
        price: u32::try_from(int(&row[13])?).ok()?,
        usage: usage(&row[14..18])?,
        outcome: Outcome::of(int(&row[18])?)?,
        first_token_ms: milliseconds(19),
        total_ms: milliseconds(20)?,
        late: int(&row[21])? != 0,
    })
}

fn usage(row: &[Value]) -> Option<Usage> {
    let [prompt, cached, output, accepted] = row else { return None };
    Some(Usage { prompt: count(prompt)?, cached: count(cached)?, output: count(output)?, accepted: count(accepted)? })
}

pub(crate) fn hold(row: &Row) -> Option<HoldRow> {
    Some(HoldRow {
        id: text(&row[0])?,
        customer: account(&row[1])?,
        amount: Micros(int(&row[2])?),
        opened_at: int(&row[3])?,
        expires_at: int(&row[4])?,
        expired: int(&row[5])? != 0,
    })
}

pub(crate) fn traffic(row: &Row) -> Option<TrafficRow> {
    Some(TrafficRow {
        hour: int(&row[0])?,
        model: text(&row[1])?,
        outcome: Outcome::of(int(&row[2])?)?,
        late: int(&row[3])? != 0,
        requests: count(&row[4])?,
        usage: usage(&row[5..9])?,
        amount: Micros(int(&row[9])?),
    })
}

pub(crate) fn earnings(row: &Row) -> Option<Earnings> {
    let micros = |index: usize| int(&row[index]).map(Micros);
    Some(Earnings { account: account(&row[0])?, earned: micros(1)?, refunded: micros(2)?, requests: count(&row[3])? })
}
