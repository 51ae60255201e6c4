//! Whether the books are sound, seen as of one moment while serving goes on.
//!
//! 1. All balances add up to zero.
//! 2. Each balance is the sum of the account's postings.
//! 3. Each transaction's postings add up to zero; those of a paid settlement to what it cost. Transactions are numbered
//!    without a gap, and no posting is beyond them.
//! 4. What an account has held is the sum of its open holds.
//! 5. No account is below its floor, but by what it owes.
//! 6. Where everything is read: the sums by hour are those of the settlements.
//!
//! Sums of postings before transaction `checked` are kept in a table of their own, so that a check reads only what is new. A fault is
//! written to the books; payouts stop for every gateway until a check of everything is clean and somebody clears it.

use crate::error::LedgerError;
use crate::ledger::Ledger;
use crate::operation::{Kind, Outcome, Time};
use crate::reader::{Ask, Mode, Question, ask};
use crate::sql::Type::{Int, Text};
use crate::sql::Value;
use crate::store::{LINES_MAX, int, text};
use std::time::Duration;
use tokio::sync::mpsc;

/// Transactions whose sums are kept in one go, so that nobody waits long for the lock.
const STEP: i64 = 50_000;
/// The longest that one part of a check may take.
const WAIT: Duration = Duration::from_secs(600);
/// Examples of each fault.
const EXAMPLES: usize = 5;

/// How much a check reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    /// What came since the last check.
    New,
    /// Everything from the first transaction.
    Everything,
}

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    /// Transactions that were read.
    pub transactions: i64,
    /// Number of the last of them.
    pub up_to: i64,
    /// Accounts.
    pub accounts: i64,
    /// What is wrong, in words; empty if the books are sound.
    pub faults: Vec<String>,
}

impl Checked {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }
}

impl Ledger {
    /// Checks the books. A fault is written to them: then payouts stop.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn check(&self, extent: Extent) -> Result<Checked, LedgerError> {
        check(self.asks()?, self.now(), extent).await
    }

    /// Checks everything, and if it is sound lets payouts go on after a fault.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn clear_violation(&self) -> Result<Checked, LedgerError> {
        let checked = self.check(Extent::Everything).await?;
        if checked.is_sound() {
            let sql = "UPDATE books SET violation = NULL WHERE one = 1";
            self.write(vec![Question { text: sql, values: vec![], types: &[] }]).await?;
        }
        Ok(checked)
    }
}

/// The first transaction that is read; $1 is 1 if it is the first of all.
macro_rules! first {
    () => {
        "(SELECT CASE WHEN $1 = 1 THEN 1 ELSE checked END FROM books)"
    };
}

/// The first that is not there yet.
macro_rules! next {
    () => {
        "(SELECT next FROM books)"
    };
}

/// The postings that are read.
macro_rules! new_postings {
    () => {
        concat!("number >= 64 * ", first!(), " AND number < 64 * ", next!())
    };
}

/// A question whose rows are faults, and what each says in words; `{}` stands for the row's text.
struct Rule {
    sql: &'static str,
    /// Whether the statement takes $1.
    takes_extent: bool,
    says: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        sql: "SELECT CAST(total AS TEXT) FROM \
              (SELECT CAST(COALESCE(SUM(balance), 0) AS BIGINT) AS total FROM accounts) AS sums WHERE total <> 0",
        takes_extent: false,
        says: "all balances add up to {} micro-dollars, not to 0",
    },
    // Sums over everything at once, so that either database reads each table once.
    Rule {
        sql: concat!(
            "SELECT id FROM (SELECT id, balance AS part FROM accounts \
             UNION ALL SELECT account, -balance FROM checked WHERE $1 = 0 \
             UNION ALL SELECT account, -amount FROM postings WHERE ",
            new_postings!(),
            ") AS parts GROUP BY id HAVING SUM(part) <> 0 LIMIT 5"
        ),
        takes_extent: true,
        says: "the balance of {} is not the sum of its postings",
    },
    Rule {
        sql: concat!(
            "SELECT account FROM (SELECT DISTINCT account FROM postings WHERE ",
            new_postings!(),
            ") AS p WHERE account NOT IN (SELECT id FROM accounts) LIMIT 5"
        ),
        takes_extent: true,
        says: "{} has postings, but is no account",
    },
    Rule {
        sql: "SELECT account FROM checked WHERE account NOT IN (SELECT id FROM accounts) LIMIT 5",
        takes_extent: false,
        says: "the account {} is gone",
    },
    Rule {
        sql: concat!(
            "SELECT CAST(number / 64 AS TEXT) FROM postings WHERE ",
            new_postings!(),
            " GROUP BY number / 64 HAVING SUM(amount) <> 0 LIMIT 5"
        ),
        takes_extent: true,
        says: "the postings of transaction {} do not add up to 0",
    },
    Rule {
        sql: concat!(
            "SELECT CAST(t.number AS TEXT) FROM transactions AS t WHERE t.number >= ",
            first!(),
            " AND t.number < ",
            next!(),
            " AND t.kind = 3 AND t.outcome = 1 AND t.amount <> (SELECT CAST(COALESCE(-SUM(p.amount), 0) AS BIGINT) \
             FROM postings AS p WHERE p.number >= 64 * t.number AND p.number < 64 * t.number + 64 AND p.amount < 0) LIMIT 5"
        ),
        takes_extent: true,
        says: "settlement {} did not move what it cost",
    },
    Rule {
        sql: concat!(
            "SELECT CAST(missing AS TEXT) FROM (SELECT ",
            next!(),
            " - ",
            first!(),
            " - (SELECT COUNT(*) FROM transactions WHERE number >= ",
            first!(),
            ") AS missing) AS counted WHERE missing <> 0"
        ),
        takes_extent: true,
        says: "{} transactions are missing",
    },
    Rule {
        sql: concat!("SELECT CAST(number AS TEXT) FROM postings WHERE number >= 64 * ", next!(), " LIMIT 5"),
        takes_extent: false,
        says: "posting {} is of no transaction",
    },
    Rule {
        sql: "SELECT id FROM (SELECT id, held AS part FROM accounts \
              UNION ALL SELECT customer, -amount FROM holds WHERE expired = 0) AS parts \
              GROUP BY id HAVING SUM(part) <> 0 LIMIT 5",
        takes_extent: false,
        says: "what {} has held is not the sum of its holds",
    },
    Rule {
        sql: "SELECT id FROM holds WHERE customer NOT IN (SELECT id FROM accounts) LIMIT 5",
        takes_extent: false,
        says: "the hold {} is of no account",
    },
    Rule {
        sql: "SELECT id FROM accounts WHERE id <> 'outside' AND (balance - held - floor + owed < 0 OR held < 0 OR owed < 0) \
              LIMIT 5",
        takes_extent: false,
        says: "{} is below its floor, and no rule let it",
    },
];

/// The sums by hour are those of the settlements: only where everything is read.
const HOURS: Rule = Rule {
    sql: "SELECT CAST(hour AS TEXT) FROM (SELECT hour, requests, amount, prompt, output FROM traffic \
          UNION ALL SELECT time - time % 3600000000, -1, -amount, -prompt, -output FROM transactions WHERE kind = 3) AS parts \
          GROUP BY hour HAVING SUM(requests) <> 0 OR SUM(amount) <> 0 OR SUM(prompt) <> 0 OR SUM(output) <> 0 LIMIT 5",
    takes_extent: false,
    says: "the sums of the hour that begins at {} are not those of its settlements",
};

const BOOKS: &str = concat!("SELECT ", first!(), ", next, checked, (SELECT COUNT(*) FROM accounts) FROM books");

/// Checks the books by asking whoever answers questions.
pub(crate) async fn check(asks: &mpsc::Sender<Ask>, now: Time, extent: Extent) -> Result<Checked, LedgerError> {
    debug_assert_eq!((LINES_MAX, Kind::Settle.code(), Outcome::Paid.code()), (64, 3, 1), "as the statements have it");
    let everything = Value::Int(i64::from(extent == Extent::Everything));
    let rules: Vec<&Rule> = RULES.iter().chain((extent == Extent::Everything).then_some(&HOURS)).collect();
    let mut questions = vec![Question { text: BOOKS, values: vec![everything.clone()], types: &[Int, Int, Int, Int] }];
    questions.extend(rules.iter().map(|rule| {
        let values = if rule.takes_extent { vec![everything.clone()] } else { vec![] };
        Question { text: rule.sql, values, types: &[Text] }
    }));
    let mut answers = ask(asks, Mode::Read, questions, WAIT).await?.into_iter();
    let books = answers.next().and_then(|rows| rows.into_iter().next()).unwrap_or_default();
    let number = |index: usize| books.get(index).and_then(int);
    let (Some(first), Some(next), Some(kept), Some(accounts)) = (number(0), number(1), number(2), number(3)) else {
        return Err(LedgerError::Damaged("its table books is empty".into()));
    };
    let faults = rules.iter().zip(answers).flat_map(|(rule, rows)| {
        let words = |row: &Vec<Value>| text(&row[0]).map(|text| rule.says.replace("{}", &text));
        rows.iter().filter_map(words).collect::<Vec<_>>()
    });
    let checked = Checked { transactions: next - first, up_to: next - 1, accounts, faults: faults.collect() };
    if checked.is_sound() {
        keep_sums(asks, now, kept, next).await?;
    } else {
        write_fault(asks, now, &checked.faults).await?;
    }
    Ok(checked)
}

/// Keeps the sums of postings up to a transaction, so that the next check need not read them. If another gateway did so
/// meanwhile, it is left at that.
async fn keep_sums(asks: &mpsc::Sender<Ask>, now: Time, kept: i64, next: i64) -> Result<(), LedgerError> {
    let mut from = kept;
    loop {
        let to = next.min(from + STEP);
        let lock = "UPDATE books SET groups = groups + 1 WHERE one = 1";
        let add = "INSERT INTO checked (account, balance) SELECT account, CAST(SUM(amount) AS BIGINT) FROM postings \
                   WHERE number >= 64 * $1 AND number < 64 * $2 AND (SELECT checked FROM books) = $1 GROUP BY account \
                   ON CONFLICT (account) DO UPDATE SET balance = checked.balance + excluded.balance";
        let note = "UPDATE books SET checked = $2, checked_at = $3 WHERE checked = $1";
        let range = vec![from.into(), to.into()];
        let questions = vec![
            Question { text: lock, values: vec![], types: &[] },
            Question { text: add, values: range.clone(), types: &[] },
            Question { text: note, values: [range, vec![now.into()]].concat(), types: &[] },
        ];
        ask(asks, Mode::Write, questions, WAIT).await?;
        if to == next {
            return Ok(());
        }
        from = to;
    }
}

async fn write_fault(asks: &mpsc::Sender<Ask>, now: Time, faults: &[String]) -> Result<(), LedgerError> {
    let mut words = faults.iter().take(EXAMPLES).cloned().collect::<Vec<_>>().join("; ");
    if faults.len() > EXAMPLES {
        words += &format!("; and {} more", faults.len() - EXAMPLES);
    }
    tracing::error!("the ledger's books are not sound, payouts stop: {words}");
    let sql = "UPDATE books SET violation = $1, checked_at = $2 WHERE one = 1";
    let values = vec![Value::Text(words), now.into()];
    ask(asks, Mode::Write, vec![Question { text: sql, values, types: &[] }], WAIT).await?;
    Ok(())
}
