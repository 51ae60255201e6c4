//! `lockstep statement`: signed statements of all balances, and proofs that anybody checks without the ledger.

use crate::accounts::{PlaceArgs, runtime};
use crate::failure::{Failure, io};
use crate::subject::{read_key, restrict};
use clap::{Args, Subcommand};
use ledger::{AccountId, BalanceProof, Leaves, Note, Statement, StatementError};
use std::path::{Path, PathBuf};

/// Options of `lockstep statement`.
#[derive(Args, Debug)]
pub(crate) struct StatementArgs {
    #[command(subcommand)]
    command: StatementCommand,
}

#[derive(Subcommand, Debug)]
enum StatementCommand {
    /// Make a statement of all balances as of now: `statement` for everybody, `proofs/ACCOUNT` for each account, and
    /// `balances` with all of them, for an auditor.
    Make {
        #[command(flatten)]
        place: PlaceArgs,
        /// Folder for it; made, and must not hold a statement yet.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The node's secret key. Default: that of `lockstep up` in the data folder.
        #[arg(long, value_name = "FILE")]
        node_key: Option<PathBuf>,
    },
    /// Check a statement, an account's proof, or all balances, without the ledger. Exit code 1: it does not hold.
    Verify {
        /// What `make` wrote.
        file: PathBuf,
        /// The account it must be of.
        #[arg(long)]
        account: Option<AccountId>,
        /// The node's public key, 64 hexadecimal digits. Without it the file's own word is taken for whose it is.
        #[arg(long, value_name = "KEY", value_parser = node_key)]
        node: Option<[u8; 32]>,
    },
}

fn node_key(digits: &str) -> Result<[u8; 32], String> {
    let node = tlog::node_of(&format!("lockstep.node/{digits}"));
    node.ok_or_else(|| "a node's key has 64 lowercase hexadecimal digits".to_owned())
}

/// Does what was asked; gives whether it holds.
pub(crate) fn run(args: &StatementArgs) -> Result<bool, Failure> {
    match &args.command {
        StatementCommand::Make { place, out, node_key } => make(place, out, node_key.as_deref()).map(|()| true),
        StatementCommand::Verify { file, account, node } => verify(file, account.as_ref(), node.as_ref()),
    }
}

fn make(place: &PlaceArgs, out: &Path, key: Option<&Path>) -> Result<(), Failure> {
    let own = place.node()?.join("node.key");
    let key = read_key(key.unwrap_or(&own))?;
    let leaves = runtime()?.block_on(async { Ok::<_, Failure>(place.open().await?.statement(&key).await?) })?;
    let proofs = leaves.proofs()?;
    let folder = out.join("proofs");
    std::fs::create_dir_all(&folder).map_err(io(&folder))?;
    for proof in &proofs {
        write(&folder.join(file_name(&proof.leaf.account)), &proof.to_string())?;
    }
    let all = out.join("balances");
    write(&all, &leaves.to_string())?;
    restrict(&all)?;
    write(&out.join("statement"), &leaves.note.to_string())?;
    let said = leaves.verify(None)?;
    println!("{} accounts after {} transactions add up to {}", said.accounts, said.transactions, said.sum);
    println!("for everybody:     {}", out.join("statement").display());
    println!("for each account:  {}", folder.display());
    println!("for an auditor:    {}, which tells every balance", all.display());
    Ok(())
}

/// Nothing that was there is written over.
fn write(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let file = std::fs::OpenOptions::new().create_new(true).write(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(io(path))
}

/// An account's name as a file's: what might be a path is written as %XX.
fn file_name(account: &AccountId) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":-_@+".contains(&byte);
    let byte = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    account.as_str().bytes().map(byte).collect()
}

fn verify(path: &Path, account: Option<&AccountId>, node: Option<&[u8; 32]>) -> Result<bool, Failure> {
    let text = std::fs::read_to_string(path).map_err(io(path))?;
    match words(&text, account, node) {
        Ok(words) => {
            println!("holds: {words}");
            Ok(true)
        }
        Err(StatementError::Shape(_)) => {
            Err(Failure(format!("{}: this is no statement, no proof and no list of balances", path.display())))
        }
        Err(error) => {
            println!("does not hold: {error}");
            Ok(false)
        }
    }
}

/// What a file shows, in words.
fn words(text: &str, account: Option<&AccountId>, node: Option<&[u8; 32]>) -> Result<String, StatementError> {
    let of = |said: &Statement| {
        let digits = crate::score::hex(&said.node);
        format!("in the books of node {digits}, {} µs since 1970, after {} transactions", said.time, said.transactions)
    };
    if text.starts_with("lockstep balance proof ") {
        let proof = BalanceProof::parse(text)?;
        let said = proof.verify(account, node)?;
        let leaf = &proof.leaf;
        return Ok(format!(
            "{} had {}, of which {} were held, {}; the node says that all {} accounts add up to {}",
            leaf.account,
            leaf.balance,
            leaf.held,
            of(&said),
            said.accounts,
            said.sum
        ));
    }
    if text.starts_with("lockstep balances ") {
        let said = Leaves::parse(text)?.verify(node)?;
        return Ok(format!("all {} accounts, each once, add up to zero {}", said.accounts, of(&said)));
    }
    let said = Statement::verify(&Note::parse(text.as_bytes()).map_err(|_| StatementError::Shape("a note"))?, node)?;
    Ok(format!("signed; {} accounts that are said to add up to {} {}", said.accounts, said.sum, of(&said)))
}
