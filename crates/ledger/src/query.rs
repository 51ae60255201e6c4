//! Questions to the books: what a dashboard, a report or a person wants to see. All by page, or summed up by the database.

use crate::account::AccountId;
use crate::error::LedgerError;
use crate::ledger::Ledger;
use crate::money::Micros;
use crate::operation::{Kind, Outcome, Time};
use crate::price::{PriceList, Usage};
use crate::reader::Statement;
use crate::sql::Type::{Int, Text};
use crate::sql::{Row, Type, Value};
use crate::status::Health;
use crate::store::{LINES_MAX, account, damaged, int, text};

/// Rows of one page, at most.
pub const PAGE_MAX: u32 = 1000;

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

/// What an account earned and spent by settlements in a time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Earnings {
    /// Whose.
    pub account: AccountId,
    /// What came in.
    pub earned: Micros,
    /// What went out.
    pub spent: Micros,
    /// Of what came in, what was refunded later.
    pub refunded: Micros,
    /// Settlements.
    pub requests: u64,
}

const BALANCE: &[Type] = &[Text, Int, Int, Int, Int, Int];
const ENTRY: &[Type] = &[
    Int, Text, Int, Int, Text, Int, Int, Text, Text, Int, Text, Text, Text, Int, Int, Int, Int, Int, Int, Int, Int, Int,
];
macro_rules! entry_columns {
    () => {
        "SELECT number, id, kind, time, account, amount, undone, reference, note, held, operator, split, model, price, \
         prompt, cached, output, accepted, outcome, first_token_ms, total_ms, late FROM transactions "
    };
}

impl Ledger {
    async fn rows(
        &self,
        text: &'static str,
        values: Vec<Value>,
        types: &'static [Type],
    ) -> Result<Vec<Row>, LedgerError> {
        let answers = self.read(vec![Statement { text, values, types }]).await?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// What is on an account; none if there is none of that name.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn balance(&self, id: &AccountId) -> Result<Option<Balance>, LedgerError> {
        let sql = "SELECT id, balance, held, floor, owed, opened_at FROM accounts WHERE id = $1";
        let rows = self.rows(sql, vec![id.as_str().into()], BALANCE).await?;
        Ok(parse("accounts", &rows, balance)?.pop())
    }

    /// Accounts in the order of their names, from behind `after`, whose names contain `search`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn accounts(
        &self,
        search: Option<&str>,
        after: Option<&AccountId>,
        limit: u32,
    ) -> Result<Vec<Balance>, LedgerError> {
        let sql = "SELECT id, balance, held, floor, owed, opened_at FROM accounts \
                   WHERE id > $1 AND id LIKE $2 ESCAPE '!' ORDER BY id LIMIT $3";
        let values = vec![after.map_or("", AccountId::as_str).into(), Value::Text(like(search)), page(limit)];
        parse("accounts", &self.rows(sql, values, BALANCE).await?, balance)
    }

    /// Postings of an account, newest first, from before the posting numbered `before`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn postings(&self, id: &AccountId, before: Option<i64>, limit: u32) -> Result<Vec<Posting>, LedgerError> {
        let sql = "SELECT p.number, t.id, t.kind, t.time, p.account, p.amount FROM \
                   (SELECT number, account, amount FROM postings WHERE account = $1 AND number < $2 \
                   ORDER BY number DESC LIMIT $3) AS p JOIN transactions AS t ON t.number = p.number / 64 \
                   ORDER BY p.number DESC";
        let values = vec![id.as_str().into(), before.unwrap_or(i64::MAX).into(), page(limit)];
        parse("postings", &self.rows(sql, values, &[Int, Text, Int, Int, Text, Int]).await?, posting)
    }

    /// The transaction with this id and its postings; none if there is none.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn transaction(&self, id: &str) -> Result<Option<(Entry, Vec<(AccountId, Micros)>)>, LedgerError> {
        let rows = self.rows(concat!(entry_columns!(), "WHERE id = $1"), vec![id.into()], ENTRY).await?;
        let Some(found) = parse("transactions", &rows, entry)?.pop() else { return Ok(None) };
        let sql = "SELECT account, amount FROM postings WHERE number >= $1 AND number < $2 ORDER BY number";
        let range = vec![(found.number * LINES_MAX).into(), ((found.number + 1) * LINES_MAX).into()];
        let line = |row: &Row| Some((account(&row[0])?, Micros(int(&row[1])?)));
        let lines = parse("postings", &self.rows(sql, range, &[Text, Int]).await?, line)?;
        Ok(Some((found, lines)))
    }

    /// Transactions of all kinds, newest first, from before the one numbered `before`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn transactions(&self, before: Option<i64>, limit: u32) -> Result<Vec<Entry>, LedgerError> {
        let sql = concat!(entry_columns!(), "WHERE number < $1 ORDER BY number DESC LIMIT $2");
        let values = vec![before.unwrap_or(i64::MAX).into(), page(limit)];
        parse("transactions", &self.rows(sql, values, ENTRY).await?, entry)
    }

    /// Settlements from a time to another, the latter not included, oldest first, behind the one at `after` (its time and
    /// number).
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn settlements(
        &self,
        from: Time,
        to: Time,
        after: Option<(Time, i64)>,
        limit: u32,
    ) -> Result<Vec<Entry>, LedgerError> {
        let sql = concat!(
            entry_columns!(),
            "WHERE kind = $1 AND time >= $2 AND time < $3 AND (time > $4 OR number > $5) ORDER BY time, number LIMIT $6"
        );
        let (time, number) = after.unwrap_or((i64::MIN, 0));
        let from = from.max(time);
        let kind = Kind::Settle.code();
        let values = vec![kind.into(), from.into(), to.into(), time.into(), number.into(), page(limit)];
        parse("transactions", &self.rows(sql, values, ENTRY).await?, entry)
    }

    /// Holds that have not ended, in the order in which their time is over, behind the one at `after` (its expiry and id).
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn holds(&self, after: Option<(Time, &str)>, limit: u32) -> Result<Vec<HoldRow>, LedgerError> {
        let sql = "SELECT id, customer, amount, opened_at, expires_at, expired FROM holds \
                   WHERE expires_at > $1 OR (expires_at = $1 AND id > $2) ORDER BY expires_at, id LIMIT $3";
        let (time, id) = after.unwrap_or((i64::MIN, ""));
        let rows = self.rows(sql, vec![time.into(), id.into(), page(limit)], &[Text, Text, Int, Int, Int, Int]).await?;
        parse("holds", &rows, hold)
    }

    /// Sums over settlements by hour, model and outcome, of the hours that begin from a time to another, the latter not
    /// included.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn traffic(&self, from: Time, to: Time) -> Result<Vec<TrafficRow>, LedgerError> {
        let sql = "SELECT hour, model, outcome, late, requests, prompt, cached, output, accepted, amount FROM traffic \
                   WHERE hour >= $1 AND hour < $2 ORDER BY hour, model, outcome, late";
        let types = &[Int, Text, Int, Int, Int, Int, Int, Int, Int, Int];
        parse("traffic", &self.rows(sql, vec![from.into(), to.into()], types).await?, traffic)
    }

    /// What each account earned and spent by settlements in the hours that begin from a time to another, the latter not
    /// included; of accounts whose names contain `search`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn earnings(&self, from: Time, to: Time, search: Option<&str>) -> Result<Vec<Earnings>, LedgerError> {
        let sql = "SELECT account, CAST(SUM(earned) AS BIGINT), CAST(SUM(spent) AS BIGINT), CAST(SUM(refunded) AS BIGINT), \
                   CAST(SUM(requests) AS BIGINT) FROM flows WHERE hour >= $1 AND hour < $2 AND account LIKE $3 ESCAPE '!' \
                   GROUP BY account ORDER BY account";
        let values = vec![from.into(), to.into(), Value::Text(like(search))];
        parse("flows", &self.rows(sql, values, &[Text, Int, Int, Int, Int]).await?, earnings)
    }

    /// What can be paid out to an account now: what is available, less what was earned within the audit window.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn payable(&self, id: &AccountId) -> Result<Micros, LedgerError> {
        let immature = Statement {
            text: crate::schema::IMMATURE,
            values: vec![id.as_str().into(), (self.now() - self.audit_window()).into()],
            types: &[Int],
        };
        let sql = "SELECT balance - held - floor FROM accounts WHERE id = $1";
        let available = Statement { text: sql, values: vec![id.as_str().into()], types: &[Int] };
        let answers = self.read(vec![available, immature]).await?;
        let value = |index: usize| answers.get(index)?.first().and_then(|row: &Row| int(&row[0]));
        let (available, immature) = (value(0).unwrap_or_default(), value(1).unwrap_or_default());
        Ok(Micros((available - immature.max(0)).max(0)))
    }

    /// The published price list of a version.
    ///
    /// # Errors
    /// The database does not answer, or what is in it is no price list.
    pub async fn prices(&self, version: u32) -> Result<Option<PriceList>, LedgerError> {
        let sql = "SELECT list FROM prices WHERE version = $1";
        let rows = self.rows(sql, vec![i64::from(version).into()], &[Text]).await?;
        let list = rows.first().and_then(|row| text(&row[0]));
        Ok(list.map(|list| PriceList::parse(&list)).transpose()?)
    }

    /// How the ledger is. Answers also while the database is away.
    pub async fn health(&self) -> Health {
        let local = self.local();
        let sql = "SELECT violation, checked, checked_at FROM books WHERE one = 1";
        let rows = self.rows(sql, vec![], &[Text, Int, Int]).await;
        let away = local.away.or_else(|| rows.as_ref().err().map(|error| error.to_string().into()));
        let row = rows.ok().and_then(|rows| rows.into_iter().next());
        let value = |index: usize| row.as_ref().map(|row| &row[index]);
        Health {
            away,
            waiting: local.waiting,
            set_aside: local.set_aside,
            violation: value(0).and_then(text),
            checked: value(1).and_then(int).unwrap_or_default(),
            checked_at: value(2).and_then(int).unwrap_or_default(),
        }
    }
}

/// A pattern for names that contain a text.
fn like(search: Option<&str>) -> String {
    let text = search.unwrap_or_default().replace('!', "!!").replace('%', "!%").replace('_', "!_");
    format!("%{text}%")
}

fn page(limit: u32) -> Value {
    i64::from(limit.min(PAGE_MAX)).into()
}

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

fn posting(row: &Row) -> Option<Posting> {
    Some(Posting {
        number: int(&row[0])?,
        id: text(&row[1])?,
        kind: Kind::of(int(&row[2])?)?,
        time: int(&row[3])?,
        account: account(&row[4])?,
        amount: Micros(int(&row[5])?),
    })
}

fn entry(row: &Row) -> Option<Entry> {
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

fn hold(row: &Row) -> Option<HoldRow> {
    Some(HoldRow {
        id: text(&row[0])?,
        customer: account(&row[1])?,
        amount: Micros(int(&row[2])?),
        opened_at: int(&row[3])?,
        expires_at: int(&row[4])?,
        expired: int(&row[5])? != 0,
    })
}

fn traffic(row: &Row) -> Option<TrafficRow> {
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

fn earnings(row: &Row) -> Option<Earnings> {
    let micros = |index: usize| int(&row[index]).map(Micros);
    Some(Earnings {
        account: account(&row[0])?,
        earned: micros(1)?,
        spent: micros(2)?,
        refunded: micros(3)?,
        requests: count(&row[4])?,
    })
}
