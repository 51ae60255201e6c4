//! Whatever a node's log holds, told apart by content type.

use crate::countersign::{COUNTERSIGNATURE_CONTENT_TYPE, Countersignature};
use crate::envelope;
use crate::error::{Malformed, ReceiptError};
use crate::hash::Hash;
use crate::seed::{ABORTED_CONTENT_TYPE, Aborted, SEEDS_CONTENT_TYPE, Seeds};
use crate::signed::{CONTENT_TYPE, Receipt};

/// The most bytes a log entry may have: its length is written with 16 bits.
pub const ENTRY_BYTES_MAX: usize = u16::MAX as usize;

/// An entry of a log, its signature valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Statement {
    /// Of an answer.
    Receipt(Box<Receipt>),
    /// Commitments to secrets, by the node with this key.
    Seeds(Seeds, Hash),
    /// Numbers without an answer, by the node with this key.
    Aborted(Aborted, Hash),
    /// A client's.
    Countersignature(Countersignature),
}

impl Statement {
    /// Reads an entry and verifies its signature. Takes memory in proportion to `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Statement, ReceiptError> {
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(ReceiptError::EntryTooLarge(bytes.len()));
        }
        match envelope::content_type(bytes)? {
            CONTENT_TYPE => Receipt::parse(bytes).map(|receipt| Statement::Receipt(Box::new(receipt))),
            SEEDS_CONTENT_TYPE => Seeds::parse(bytes).map(|(seeds, node)| Statement::Seeds(seeds, node)),
            ABORTED_CONTENT_TYPE => Aborted::parse(bytes).map(|(aborted, node)| Statement::Aborted(aborted, node)),
            COUNTERSIGNATURE_CONTENT_TYPE => Countersignature::parse(bytes).map(Statement::Countersignature),
            _ => Err(Malformed::Kind.into()),
        }
    }
}
