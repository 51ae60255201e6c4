//! `lockstep countersign`: a client signs that it got an answer, so that neither side can deny it later.

use crate::failure::Failure;
use crate::remote::{agent, body};
use crate::score::hex;
use crate::subject;
use clap::Args;
use receipt::{Bundle, COUNTERSIGNATURE_CONTENT_TYPE, Countersignature, Receipt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of what a node answers.
const ANSWER_BYTES_MAX: usize = 1 << 16;

/// Options of `lockstep countersign`.
#[derive(Args, Debug)]
pub(crate) struct CountersignArgs {
    /// What `/v1/receipts/{id}` gave, as a file.
    receipt: PathBuf,
    /// Your key; made if the file is not there. It names you to whoever sees the countersignature.
    #[arg(long, value_name = "FILE", default_value = "client.key")]
    key: PathBuf,
    /// File for the countersignature. Default: beside the receipt, with .countersignature behind its name.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Hand it to the node: the address the receipt came from, http://HOST:PORT/v1/receipts/ID.
    #[arg(long, value_name = "URL")]
    to: Option<String>,
}

/// Signs, keeps, hands in.
pub(crate) fn run(args: &CountersignArgs) -> Result<(), Failure> {
    let receipt = read_receipt(&args.receipt)?;
    let key = subject::own_key(&args.key)?;
    let time_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let bytes = Countersignature::sign(&key, &receipt.hash, time_seconds);
    let out = args.out.clone().unwrap_or_else(|| beside(&args.receipt));
    subject::write(&out, &bytes)?;
    println!("countersigned {} by {}: {}", receipt.id(), hex(&key.verifying_key().to_bytes()), out.display());
    if let Some(address) = &args.to {
        hand_in(address, &bytes)?;
        println!("the node has it");
    }
    Ok(())
}

/// Where a receipt's countersignature is if nothing else is said.
pub(crate) fn beside(receipt: &Path) -> PathBuf {
    let mut path = receipt.as_os_str().to_owned();
    path.push(".countersignature");
    path.into()
}

/// A countersignature in a file, which must be for this receipt.
pub(crate) fn read(path: &Path, receipt: &Receipt) -> Result<Countersignature, Failure> {
    let wrong = |why: String| Failure(format!("{}: {why}", path.display()));
    let found = Countersignature::parse(&subject::read(path)?).map_err(|error| wrong(error.to_string()))?;
    if found.receipt != receipt.hash {
        return Err(wrong("it is for another receipt".to_owned()));
    }
    Ok(found)
}

/// The receipt of a bundle that opens it, or a bare receipt. Nobody should sign for an answer that is not the receipt's.
fn read_receipt(path: &Path) -> Result<Receipt, Failure> {
    let bytes = subject::read(path)?;
    let found = Receipt::parse(&bytes).or_else(|_| Bundle::from_bytes(&bytes)?.check());
    found.map_err(|error| Failure(format!("{}: {error}", path.display())))
}

fn hand_in(address: &str, bytes: &[u8]) -> Result<(), Failure> {
    let address = format!("{}/countersignature", address.trim_end_matches('/'));
    let sent = agent().post(&address).header("content-type", COUNTERSIGNATURE_CONTENT_TYPE).send(bytes);
    let mut answer = sent.map_err(|error| Failure(format!("{address}: {error}")))?;
    let said = body(&mut answer, ANSWER_BYTES_MAX)?;
    if answer.status().is_success() {
        return Ok(());
    }
    let message = serde_json::from_slice::<serde_json::Value>(&said).ok();
    let message = message.as_ref().and_then(|said| said["error"]["message"].as_str());
    Err(Failure(message.map_or_else(|| format!("the node answered {}", answer.status()), str::to_owned)))
}
