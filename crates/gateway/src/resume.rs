//! What the log says of a node that starts again: whose it is, where its chain ends, and which numbers are open.

use crate::app::now_seconds;
use crate::draft::Link;
use crate::folder::Folder;
use crate::numbers::{Mark, Numbers, Open};
use crate::start::StartError;
use receipt::{Aborted, Hash, SigningKey, Statement};
use std::sync::Arc;
use tlog::Log;

/// Where it is noted from where the log is to be read for what is open.
pub(crate) const MARK: &str = "seeds.mark";

/// Whether an entry is this node's.
pub(crate) fn signed_by(entry: &[u8], node: &Hash) -> bool {
    match Statement::parse(entry) {
        Ok(Statement::Receipt(receipt)) => receipt.node == *node,
        Ok(Statement::Seeds(_, signer) | Statement::Aborted(_, signer)) => signer == *node,
        _ => false,
    }
}

/// The place after the last receipt of the log.
pub(crate) fn last_receipt(log: &Log) -> Result<Link, StartError> {
    for index in (0..log.size()).rev() {
        if let Ok(Statement::Receipt(receipt)) = Statement::parse(&log.entry(index)?) {
            let (number, previous) = (receipt.claims.number + 1, Some(receipt.hash));
            return Ok(Link { number, previous, opening_seconds: 0 });
        }
    }
    Ok(Link::default())
}

/// Logs every number that is committed to and not settled as aborted: somebody may have seen its secret.
pub(crate) fn abort_what_is_open(
    log: Arc<Log>,
    folder: &Folder,
    key: &SigningKey,
) -> Result<(Arc<Log>, Arc<Numbers>), StartError> {
    let mark = Mark::read(&folder.file(MARK), log.size());
    let mut open = Open::new(mark);
    for index in mark.entry..log.size() {
        if let Ok(statement) = Statement::parse(&log.entry(index)?) {
            open.read(&statement);
        }
    }
    let time_seconds = now_seconds();
    for ranges in open.ranges().chunks(receipt::seed::ABORTED_RANGES_MAX) {
        log.append(&[Aborted { ranges: ranges.to_vec(), time_seconds }.sign(key)])?;
    }
    let secret = blake3::derive_key("lockstep gateway 2: secrets of seeds", key.as_bytes());
    Ok((log, Numbers::new(secret, open.committed)))
}
