//! Price lists that were published: a version never has two.

use crate::error::{LedgerError, Refusal};
use crate::ledger::Ledger;
use crate::price::PriceList;
use crate::reader::Question;
use crate::sql::Type::Text;
use crate::sql::Value;
use crate::store::text;

const LIST: &str = "SELECT list FROM prices WHERE version = $1";

impl Ledger {
    /// Publishes a price list, so that every settlement under its version can be computed again. The same list may be
    /// published many times.
    ///
    /// # Errors
    /// The version is published with other prices, or the database does not answer.
    pub async fn publish(&self, list: &PriceList) -> Result<(), LedgerError> {
        let (version, json) = (Value::Int(list.version.into()), list.to_json());
        let keep = Question {
            text: "INSERT INTO prices (version, list, published_at) VALUES ($1, $2, $3) ON CONFLICT (version) DO NOTHING",
            values: vec![version.clone(), Value::Text(json.clone()), self.now().into()],
            types: &[],
        };
        let look = Question { text: LIST, values: vec![version], types: &[Text] };
        let rows = self.write(vec![keep, look]).await?;
        let kept = rows.iter().flatten().filter_map(|row| text(&row[0])).next_back();
        if kept.as_ref() == Some(&json) { Ok(()) } else { Err(Refusal::OtherPrices(list.version).into()) }
    }

    /// The published price list of a version.
    ///
    /// # Errors
    /// The database does not answer, or what is in it is no price list.
    pub async fn prices(&self, version: u32) -> Result<Option<PriceList>, LedgerError> {
        let look = Question { text: LIST, values: vec![i64::from(version).into()], types: &[Text] };
        let rows = self.read(vec![look]).await?;
        let list = rows.iter().flatten().find_map(|row| text(&row[0]));
        Ok(list.map(|list| PriceList::parse(&list)).transpose()?)
    }

    /// The newest published price list.
    ///
    /// # Errors
    /// The database does not answer, or what is in it is no price list.
    pub async fn newest_prices(&self) -> Result<Option<PriceList>, LedgerError> {
        let newest = "SELECT list FROM prices ORDER BY version DESC LIMIT 1";
        let rows = self.read(vec![Question { text: newest, values: vec![], types: &[Text] }]).await?;
        let list = rows.iter().flatten().find_map(|row| text(&row[0]));
        Ok(list.map(|list| PriceList::parse(&list)).transpose()?)
    }
}
