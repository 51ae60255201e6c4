//! `lockstep audit`: replays a whole folder of answers.

use crate::failure::{Failure, io};
use crate::progress::count_bar;
use crate::source::ModelArgs;
use crate::subject::{load_adapters, own_key};
use audit::range::{Verdicts, replay_all};
use audit::{AuditError, ReplayConfig, Verdict};
use clap::Args;
use receipt::{Bundle, ReceiptError};
use std::path::{Path, PathBuf};

/// Options of `lockstep audit`.
#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// Folder of bundles: every file ending in .receipt, or what `/v1/receipts/{id}` gave under any name.
    folder: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Adapters the answers may have used. Without --model: the demo's are known.
    #[arg(long = "adapter", value_name = "NAME=DIR")]
    adapters: Vec<String>,
    /// File of signed verdicts, one line each. A run that was interrupted goes on where it was. Default: verdicts.jsonl in
    /// the data folder.
    #[arg(long, value_name = "FILE")]
    verdicts: Option<PathBuf>,
}

/// The most bytes of one bundle that are read.
const BUNDLE_BYTES_MAX: u64 = 64 << 20;

/// Replays; gives whether every answer is true.
pub(crate) fn run(args: &AuditArgs) -> Result<bool, Failure> {
    let base = args.model.load()?;
    let adapters = load_adapters(&args.model, &args.adapters, &base)?;
    let data = args.model.data_folder()?;
    let path = args.verdicts.clone().unwrap_or_else(|| data.join("verdicts.jsonl"));
    let key = own_key(&data.join("auditor.key"))?;
    let files = files(&args.folder)?;
    let mut verdicts = Verdicts::open(&path, key).map_err(|error| Failure(error.to_string()))?;
    let (isa, threads) = (args.model.machine.isa()?, args.model.machine.threads());
    let bar = count_bar("replaying answers", files.len() as u64);
    let bundles = files.iter().map(|path| {
        bar.inc(1);
        read(path)
    });
    let tally = replay_all(
        bundles,
        &base.model,
        &adapters,
        || ReplayConfig::new(isa, threads),
        &mut verdicts,
        |_, name, verdict: &Result<Verdict, AuditError>| match verdict {
            Ok(verdict) if verdict.is_equal() => {}
            Ok(verdict) => bar.suspend(|| println!("{name}: {verdict}")),
            Err(error) => bar.suspend(|| println!("{name}: no verdict: {error}")),
        },
    )
    .map_err(|error| Failure(error.to_string()))?;
    bar.finish_and_clear();
    println!(
        "{} equal, {} differ, {} without a verdict, {} replayed before, {} not readable; {} positions",
        tally.equal, tally.differing, tally.errors, tally.skipped, tally.unreadable, tally.positions
    );
    println!("signed verdicts: {}", path.display());
    if tally.skipped > 0 && verdicts.others() > 0 {
        println!("{} verdicts of all runs are not \"equal\"", verdicts.others());
    }
    Ok(verdicts.others() + tally.unreadable == 0)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = vec![];
    for entry in std::fs::read_dir(folder).map_err(io(folder))? {
        let path = entry.map_err(io(folder))?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Bundle, ReceiptError> {
    let truncated = || ReceiptError::from(receipt::Malformed::Truncated);
    let fits = std::fs::metadata(path).is_ok_and(|meta| meta.len() <= BUNDLE_BYTES_MAX);
    let bytes = std::fs::read(path).ok().filter(|_| fits).ok_or_else(truncated)?;
    Bundle::from_bytes(&bytes)
}
