//! `lockstep log`: checks a node's log of receipts, proves what is in it, serves a copy.

use crate::failure::{Failure, io};
use crate::progress::count_bar;
use crate::remote::Place;
use crate::serve;
use clap::{Args, Subcommand};
use receipt::{Monitor, Receipt, Statement};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tlog::{Head, Note, Proof, Reader, VerifierKey, leaf_hash};

/// Options of `lockstep log`.
#[derive(Args, Debug)]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Subcommand, Debug)]
enum LogCommand {
    /// Read a whole log: signatures, tree, the chain of receipts, and what became of every seed. Exit code 1: a fault.
    Check {
        #[command(flatten)]
        log: WhichLog,
        /// A log head from before, which the log must continue: a file with the text of /v1/log/checkpoint. May be given
        /// many times.
        #[arg(long = "since", value_name = "FILE")]
        since: Vec<PathBuf>,
        /// Keep the head that was checked here, for --since next time.
        #[arg(long, value_name = "FILE")]
        keep: Option<PathBuf>,
    },
    /// Write a proof that a receipt or other entry is in a log, which anybody can check without the log.
    Prove {
        #[command(flatten)]
        log: WhichLog,
        /// Index of the entry.
        index: u64,
    },
    /// Check a proof that a receipt is in its node's log. Exit code 1: it is not shown.
    Verify {
        /// The receipt, or the bundle with it.
        receipt: PathBuf,
        /// The proof: what /v1/receipts/ID?format=proof or `log prove` gave.
        proof: PathBuf,
        /// A witness whose signature the proof must carry (name+hash+key). May be given many times.
        #[arg(long = "witness", value_name = "KEY")]
        witnesses: Vec<VerifierKey>,
    },
    /// Serve a log's folder to anybody, as tiles.
    Serve {
        /// The log's folder, or a copy of it.
        folder: PathBuf,
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1:8100", value_name = "ADDR")]
        listen: SocketAddr,
    },
}

/// A log and its key.
#[derive(Args, Debug)]
pub(crate) struct WhichLog {
    /// The log: an address (http://HOST:PORT/v1/log) or a folder.
    #[arg(value_name = "URL|DIR")]
    pub(crate) place: String,
    /// The node's public key, 64 hexadecimal digits. Without it the log's own word is taken for whose it is.
    #[arg(long, value_name = "KEY")]
    pub(crate) node: Option<String>,
}

impl WhichLog {
    /// A reader at the log's newest head, and the node whose log it is.
    pub(crate) fn open(&self) -> Result<(Reader<Place>, [u8; 32]), Failure> {
        let place = Place::parse(&self.place);
        let node = match &self.node {
            Some(digits) => node(digits)?,
            None => claimed_node(&place)?,
        };
        let reader = Reader::open(place, &tlog::verifier_of(&node)?)?;
        Ok((reader, node))
    }
}

fn node(digits: &str) -> Result<[u8; 32], Failure> {
    tlog::node_of(&format!("lockstep.node/{digits}"))
        .ok_or_else(|| Failure(format!("--node {digits}: a node's key has 64 lowercase hexadecimal digits")))
}

/// The node that the log says it is of. Its signature shows that it is.
fn claimed_node(place: &Place) -> Result<[u8; 32], Failure> {
    let bytes = tlog::Source::get(place, "checkpoint", tlog::HEAD_BYTES_MAX)?;
    let head = Head::of(&Note::parse(&bytes)?)?;
    tlog::node_of(&head.origin).ok_or_else(|| Failure(format!("{} is not the log of a node", head.origin)))
}

/// Does what was asked; gives whether all is as it should be.
pub(crate) fn run(args: &LogArgs) -> Result<bool, Failure> {
    match &args.command {
        LogCommand::Check { log, since, keep } => check(log, since, keep.as_deref()),
        LogCommand::Prove { log, index } => prove(log, *index),
        LogCommand::Verify { receipt, proof, witnesses } => verify(receipt, proof, witnesses),
        LogCommand::Serve { folder, listen } => serve::folder(folder, *listen).map(|()| true),
    }
}

fn check(log: &WhichLog, since: &[PathBuf], keep: Option<&Path>) -> Result<bool, Failure> {
    let (reader, node) = log.open()?;
    let head = reader.head();
    let verifier = tlog::verifier_of(&node)?;
    for path in since {
        let old = Head::verify(&std::fs::read(path).map_err(io(path))?, &verifier)?;
        if let Err(error) = reader.prove_consistency(&old) {
            println!("different: {error} (the head of {} entries in {})", old.size, path.display());
            return Ok(false);
        }
    }
    let bar = count_bar("reading", head.size);
    let mut monitor = Monitor::new(node);
    let mut fault = None;
    reader.entries(|index, entry| {
        bar.set_position(index);
        // Tiles are read to their end all the same: a fault counts only if the head vouches for it.
        if fault.is_none()
            && let Err(found) = monitor.read(entry)
        {
            fault = Some((index, found));
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    if let Some((index, fault)) = fault {
        println!("different: entry {index} of {}: {fault}", head.origin);
        return Ok(false);
    }
    if let Some(path) = keep {
        std::fs::write(path, reader.note().to_string()).map_err(io(path))?;
    }
    println!(
        "equal: {} entries of {}, {} receipts in one chain, {} committed secrets of which {} are open",
        head.size,
        head.origin,
        monitor.receipts(),
        monitor.committed(),
        monitor.unsettled().count()
    );
    Ok(true)
}

fn prove(log: &WhichLog, index: u64) -> Result<bool, Failure> {
    let (reader, _) = log.open()?;
    let entry = reader.entry(index)?;
    let hashes = reader.prove(&leaf_hash(&entry), index)?;
    print!("{}", Proof { index, hashes, head: reader.note().clone() });
    Ok(true)
}

fn verify(receipt: &Path, proof: &Path, witnesses: &[VerifierKey]) -> Result<bool, Failure> {
    let bytes = std::fs::read(receipt).map_err(io(receipt))?;
    let bytes = receipt::Bundle::from_bytes(&bytes).map_or(bytes, |bundle| bundle.receipt);
    let parsed = Receipt::parse(&bytes).map_err(|error| Failure(format!("{}: {error}", receipt.display())))?;
    let proof = Proof::parse(&std::fs::read(proof).map_err(io(proof))?)?;
    match included(&parsed, &bytes, &proof, witnesses) {
        Ok(words) => println!("equal: {words}"),
        Err(failure) => {
            println!("different: {failure}");
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the proof shows that a receipt is in its node's log, in words.
pub(crate) fn included(
    receipt: &Receipt,
    bytes: &[u8],
    proof: &Proof,
    witnesses: &[VerifierKey],
) -> Result<String, Failure> {
    let head = proof.verify(bytes, &tlog::verifier_of(&receipt.node)?)?;
    for witness in witnesses {
        proof.head.verify(witness)?;
    }
    let seen = if witnesses.is_empty() { String::new() } else { format!(", seen by {} witnesses", witnesses.len()) };
    Ok(format!("entry {} of the {} in its node's log{seen}", proof.index, head.size))
}

/// Whether the log shows that the node committed to the secret of a numbered seed.
pub(crate) fn committed(reader: &Reader<Place>, bundle: &receipt::Bundle, receipt: &Receipt) -> Result<(), Failure> {
    let (Some(origin), Some(number)) = (&bundle.opening.seed, receipt.claims.seed_number) else { return Ok(()) };
    let entry = reader.entry(origin.entry)?;
    match Statement::parse(&entry) {
        Ok(Statement::Seeds(seeds, node)) if node == receipt.node && seeds.commits(number, &origin.secret) => Ok(()),
        _ => Err(Failure(format!("entry {} of the log does not commit to the secret of its seed", origin.entry))),
    }
}
