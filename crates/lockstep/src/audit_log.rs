//! The answers of a node's log, as its auditors get them: the log says which there are, the node must open each.

use crate::failure::{Failure, io};
use crate::light::{Span, bytes_of_beacon};
use crate::log::WhichLog;
use crate::remote::{agent, body};
use audit::policy::{Rate, selected};
use audit::range::Produced;
use clap::Args;
use receipt::{Bundle, Hash, Receipt, Statement};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Which answers of a log.
#[derive(Args, Debug)]
pub(crate) struct FromLogArgs {
    /// A node's log in place of a folder (http://HOST:PORT/v1/log): the node must open every receipt in it.
    #[arg(long, value_name = "URL", conflicts_with = "folder", requires = "token")]
    pub(crate) log: Option<String>,
    /// Entries of the log, as FIRST..END, counted from 0. Default: all.
    #[arg(long, value_name = "A..B", requires = "log")]
    range: Option<Span>,
    /// File with the node's token for auditors: node/audit.token in its data folder.
    #[arg(long, value_name = "FILE", requires = "log")]
    token: Option<PathBuf>,
    /// Only receipts that the beacon draws at this rate, 0.02 for two of a hundred.
    #[arg(long, value_name = "SHARE", requires = "beacon")]
    rate: Option<f64>,
    /// A random value, in hexadecimal, that nobody knew when the receipts were logged.
    #[arg(long, value_name = "HEX", requires = "rate")]
    beacon: Option<String>,
}

/// A receipt that the node must open.
pub(crate) struct Owed {
    pub(crate) hash: Hash,
    id: String,
    /// Until then, seconds since 1970.
    until: u64,
}

/// Asks the node for a bundle; nothing where it owes none any more.
pub(crate) type Produce = Box<dyn Fn(&Owed) -> Result<Option<Produced>, Failure>>;

impl FromLogArgs {
    /// The receipts that are to be checked, once the whole log was read and its head vouches for it.
    pub(crate) fn owed(&self, log: &str) -> Result<Vec<Owed>, Failure> {
        let (reader, _) = WhichLog { place: log.to_owned(), node: None }.open()?;
        let range = self.range.as_ref().map_or(0..u64::MAX, |Span(range)| range.start as u64..range.end as u64);
        let drawn = match (self.rate, &self.beacon) {
            (Some(rate), Some(beacon)) => Some((Rate::millionths((rate * 1e6) as u32), bytes_of_beacon(beacon)?)),
            _ => None,
        };
        let mut owed = vec![];
        reader.entries(|index, entry| {
            if range.contains(&index)
                && let Ok(Statement::Receipt(receipt)) = Statement::parse(entry)
                && drawn.as_ref().is_none_or(|(rate, beacon)| selected(beacon, &receipt.hash, *rate))
            {
                let until = receipt.claims.time_seconds.saturating_add(receipt.claims.opening_seconds.into());
                owed.push(Owed { hash: receipt.hash, id: receipt.id(), until });
            }
            Ok(())
        })?;
        Ok(owed)
    }

    /// Asks the node of the log.
    pub(crate) fn producer(&self, log: &str, bytes_max: usize) -> Result<Produce, Failure> {
        let server = log.trim_end_matches('/').strip_suffix("/log").filter(|_| log.starts_with("http"));
        let wrong =
            || Failure(format!("--log {log}: an address that ends in /v1/log, of the node that made the answers"));
        let server = server.ok_or_else(wrong)?.to_owned();
        let path = self.token.as_ref().ok_or_else(|| Failure("--log needs --token FILE".to_owned()))?;
        let token = std::fs::read_to_string(path).map_err(io(path))?.trim().to_owned();
        let agent = agent();
        Ok(Box::new(move |owed: &Owed| {
            let address = format!("{server}/receipts/{}", owed.id);
            let answer = agent.get(&address).header("x-lockstep-audit", &token).call();
            let mut answer = answer.map_err(|error| Failure(error.to_string()))?;
            let withheld = |why: String| Ok(Some(Produced::Withheld(owed.hash, why)));
            match answer.status().as_u16() {
                200 => {}
                410 if seconds() > owed.until => return Ok(None),
                status @ (404 | 410 | 500) => return withheld(format!("it answered {status}")),
                status => return Err(Failure(format!("{address}: the server answered {status}"))),
            }
            let bytes = body(&mut answer, bytes_max)?;
            match Bundle::from_bytes(&bytes) {
                Ok(bundle) if receipt::hash(&bundle.receipt) == owed.hash => {
                    Ok(Some(Produced::Bundle(Box::new(bundle))))
                }
                Ok(_) => withheld("it gave another answer's".to_owned()),
                Err(_) if Receipt::parse(&bytes).is_ok() => {
                    Err(Failure("the node does not take this token for its auditors'".to_owned()))
                }
                Err(error) => withheld(format!("what it gave cannot be read: {error}")),
            }
        }))
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
