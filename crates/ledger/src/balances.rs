//! All balances as of one moment, for a statement.

use crate::error::LedgerError;
use crate::ledger::Ledger;
use crate::money::Micros;

use crate::reader::Question;
use crate::rows::parse;
use crate::sql::Row;
use crate::sql::Type::{Int, Text};
use crate::statement::{Leaf, Leaves, Statement, StatementError};
use crate::store::{account, int};
use tlog::SigningKey;

impl Ledger {
    /// A signed statement of all balances as of now, with all its leaves. They tell every balance: keep them from others,
    /// and give each account its proof.
    ///
    /// # Errors
    /// The database does not answer, or there are no random numbers.
    pub async fn statement(&self, key: &SigningKey) -> Result<Leaves, LedgerError> {
        let books = Question { text: "SELECT next FROM books WHERE one = 1", values: vec![], types: &[Int] };
        let sql = "SELECT id, balance, held FROM accounts";
        let answers = self.read(vec![books, Question { text: sql, values: vec![], types: &[Text, Int, Int] }]).await?;
        let [books, accounts] = answers.as_slice() else { return Err(LedgerError::Closed) };
        let next = books.first().and_then(|row| int(&row[0])).unwrap_or(1);
        let row = |row: &Row| Some((account(&row[0])?, Micros(int(&row[1])?), Micros(int(&row[2])?)));
        let rows = parse("accounts", accounts, row)?;
        let mut leaves = vec![];
        for (account, balance, held) in rows {
            let mut salt = [0; 16];
            getrandom::fill(&mut salt).map_err(|error| StatementError::Random(error.to_string()))?;
            leaves.push(Leaf { account, balance, held, salt });
        }
        leaves.sort_unstable_by(|a, b| a.account.cmp(&b.account));
        let transactions = u64::try_from(next - 1).unwrap_or_default();
        let statement = Statement::over(&leaves, self.now(), transactions, key.verifying_key().to_bytes())?;
        Ok(Leaves { note: statement.sign(key)?, leaves })
    }
}
