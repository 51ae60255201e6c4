//! Reads a node's whole log, entry by entry, and finds what an honest node never does.

use crate::error::ReceiptError;
use crate::hash::Hash;
use crate::signed::Receipt;
use crate::statement::Statement;
use crate::{Aborted, Seeds};
use std::collections::{BTreeSet, VecDeque};

/// A number that a later one overtook must be in the log before an entry is this much younger than the overtaking one.
pub const OVERDUE_SECONDS: u64 = 3600;

/// What an honest node never does. Two entries prove each, but for the last, which the whole log proves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The entry is no statement.
    #[error("it is not a statement: {0}")]
    NotAStatement(#[from] ReceiptError),
    /// Another node signed it.
    #[error("another node signed it")]
    OtherNode,
    /// Receipts are numbered 0, 1, 2, …
    #[error("receipt {expected} was expected, this is number {found}")]
    Number {
        /// The next free one.
        expected: u64,
        /// Of the receipt.
        found: u64,
    },
    /// A receipt is bound to another predecessor than the one in the log.
    #[error("the receipt before it is not the one it names")]
    Previous,
    /// Lists of commitments follow each other without gaps.
    #[error("a list of commitments from number {expected} was expected, this begins with {found}")]
    Commitments {
        /// The first without a commitment.
        expected: u64,
        /// Of the list.
        found: u64,
    },
    /// A number without a commitment was used or aborted.
    #[error("the secret with number {0} was not committed to before")]
    NotCommitted(u64),
    /// A number was used or aborted before.
    #[error("number {0} was used or aborted before")]
    Reused(u64),
    /// A number that was taken is nowhere in the log.
    #[error("number {0} was taken, but has neither a receipt nor was it aborted in time")]
    Missing(u64),
}

/// What was read of a log so far. Its memory grows with the numbers that are open: a few, unless the node misbehaves.
#[derive(Clone, Debug)]
pub struct Monitor {
    node: Hash,
    receipts: u64,
    last: Option<Hash>,
    /// Numbers below this are committed to.
    committed: u64,
    /// Numbers below this are settled or in `open`.
    passed: u64,
    /// Numbers below `passed` with neither receipt nor abortion.
    open: BTreeSet<u64>,
    /// Numbers with the time they were overtaken, in order; settled ones may be among them.
    overtaken: VecDeque<(u64, u64)>,
    /// The latest time that an entry told.
    time_seconds: u64,
}

impl Monitor {
    /// Of the log of a node.
    pub fn new(node: Hash) -> Monitor {
        Monitor {
            node,
            receipts: 0,
            last: None,
            committed: 0,
            passed: 0,
            open: BTreeSet::new(),
            overtaken: VecDeque::new(),
            time_seconds: 0,
        }
    }

    /// Receipts so far.
    pub fn receipts(&self) -> u64 {
        self.receipts
    }

    /// Hash of the last receipt.
    pub fn last(&self) -> Option<Hash> {
        self.last
    }

    /// Numbers below this are committed to.
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Committed numbers with neither receipt nor abortion, in order.
    pub fn unsettled(&self) -> impl Iterator<Item = u64> {
        self.open.iter().copied().chain(self.passed..self.committed)
    }

    /// Takes in the next entry of the log. After a fault the log is not read on.
    ///
    /// # Errors
    /// What an honest node would not have logged.
    pub fn read(&mut self, entry: &[u8]) -> Result<Statement, Fault> {
        let statement = Statement::parse(entry)?;
        match &statement {
            Statement::Receipt(receipt) => self.receipt(receipt)?,
            Statement::Seeds(seeds, node) => self.seeds(seeds, node)?,
            Statement::Aborted(aborted, node) => self.aborted(aborted, node)?,
            Statement::Countersignature(_) => {}
        }
        self.overdue()?;
        Ok(statement)
    }

    fn receipt(&mut self, receipt: &Receipt) -> Result<(), Fault> {
        let claims = &receipt.claims;
        self.signed_by(&receipt.node)?;
        if claims.number != self.receipts {
            return Err(Fault::Number { expected: self.receipts, found: claims.number });
        }
        if claims.previous != self.last {
            return Err(Fault::Previous);
        }
        (self.receipts, self.last) = (self.receipts + 1, Some(receipt.hash));
        self.time_seconds = self.time_seconds.max(claims.time_seconds);
        claims.seed_number.map_or(Ok(()), |number| self.settle(number, 1))
    }

    fn seeds(&mut self, seeds: &Seeds, node: &Hash) -> Result<(), Fault> {
        self.signed_by(node)?;
        if seeds.first != self.committed {
            return Err(Fault::Commitments { expected: self.committed, found: seeds.first });
        }
        self.committed = seeds.end();
        self.time_seconds = self.time_seconds.max(seeds.time_seconds);
        Ok(())
    }

    fn aborted(&mut self, aborted: &Aborted, node: &Hash) -> Result<(), Fault> {
        self.signed_by(node)?;
        self.time_seconds = self.time_seconds.max(aborted.time_seconds);
        aborted.ranges.iter().try_for_each(|(first, count)| self.settle(*first, *count))
    }

    fn signed_by(&self, node: &Hash) -> Result<(), Fault> {
        if *node == self.node { Ok(()) } else { Err(Fault::OtherNode) }
    }

    fn settle(&mut self, first: u64, count: u64) -> Result<(), Fault> {
        let end = first.saturating_add(count);
        if end > self.committed {
            return Err(Fault::NotCommitted(first.max(self.committed)));
        }
        // What it overtakes stays open.
        for number in self.passed..first {
            self.open.insert(number);
            self.overtaken.push_back((number, self.time_seconds));
        }
        for number in first..end.min(self.passed) {
            if !self.open.remove(&number) {
                return Err(Fault::Reused(number));
            }
        }
        self.passed = self.passed.max(end);
        Ok(())
    }

    fn overdue(&mut self) -> Result<(), Fault> {
        while let Some((number, since)) = self.overtaken.front().copied() {
            let open = self.open.contains(&number);
            if open && self.time_seconds <= since.saturating_add(OVERDUE_SECONDS) {
                return Ok(());
            }
            if open {
                return Err(Fault::Missing(number));
            }
            self.overtaken.pop_front();
        }
        Ok(())
    }
}
