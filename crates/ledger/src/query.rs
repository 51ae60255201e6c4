//! Questions to the books: what a dashboard, a report or a person wants to see. All by page, or summed up by the database.

use crate::account::AccountId;
use crate::error::LedgerError;
use crate::ledger::Ledger;
use crate::money::Micros;
use crate::operation::{Kind, Time};
use crate::reader::Question;
use crate::rows::{
    Balance, Earnings, Entry, HoldRow, Posting, TrafficRow, balance, earnings, entry, hold, parse, posting, traffic,
};
use crate::sql::Type::{Int, Text};
use crate::sql::{Row, Type, Value};
use crate::status::Health;
use crate::store::{LINES_MAX, account, int, mature_before, text};

/// Rows of one page, at most.
pub const PAGE_MAX: u32 = 1000;

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
        let answers = self.read(vec![Question { text, values, types }]).await?;
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

    /// What each account earned by settlements in the hours that begin from a time to another, the latter not
    /// included; of accounts whose names contain `search`.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn earnings(&self, from: Time, to: Time, search: Option<&str>) -> Result<Vec<Earnings>, LedgerError> {
        let sql = "SELECT account, CAST(SUM(earned) AS BIGINT), CAST(SUM(refunded) AS BIGINT), \
                   CAST(SUM(requests) AS BIGINT) FROM flows WHERE hour >= $1 AND hour < $2 AND account LIKE $3 ESCAPE '!' \
                   GROUP BY account ORDER BY account";
        let values = vec![from.into(), to.into(), Value::Text(like(search))];
        parse("flows", &self.rows(sql, values, &[Text, Int, Int, Int]).await?, earnings)
    }

    /// What can be paid out to an account now: what is available, less what was earned within the audit window.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn payable(&self, id: &AccountId) -> Result<Micros, LedgerError> {
        let immature = Question {
            text: crate::schema::IMMATURE,
            values: vec![id.as_str().into(), mature_before(self.now(), self.audit_window()).into()],
            types: &[Int],
        };
        let sql = "SELECT balance - held - floor FROM accounts WHERE id = $1";
        let available = Question { text: sql, values: vec![id.as_str().into()], types: &[Int] };
        let answers = self.read(vec![available, immature]).await?;
        let value = |index: usize| answers.get(index)?.first().and_then(|row: &Row| int(&row[0]));
        let (available, immature) = (value(0).unwrap_or_default(), value(1).unwrap_or_default());
        Ok(Micros((available - immature.max(0)).max(0)))
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
            checked: value(1).and_then(int).map_or(0, |next| next - 1),
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
