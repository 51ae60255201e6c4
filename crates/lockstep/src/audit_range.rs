//! `lockstep audit`: replays a whole folder of answers, or those of a log.

use crate::audit_log::{FromLogArgs, Owed, Produce};
use crate::device::DeviceArgs;
use crate::failure::{Failure, io};
use crate::progress::count_bar;
use crate::source::ModelArgs;
use crate::subject::{load_adapters, own_key};
use audit::range::{Produced, Verdicts, replay_all};
use audit::{AuditError, ReplayConfig, Verdict};
use clap::Args;
use receipt::{Bundle, ReceiptError};
use std::path::{Path, PathBuf};

/// Options of `lockstep audit`.
#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// Folder of bundles: every file ending in .receipt, or what `/v1/receipts/{id}` gave under any name.
    #[arg(required_unless_present = "log")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    from_log: FromLogArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
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
    let mut verdicts = Verdicts::open(&path, key).map_err(|error| Failure(error.to_string()))?;
    let (isa, threads) = (args.model.machine.isa()?, args.model.machine.threads());
    let device = args.device.forward(&base.model, true)?;
    let mut source = Source::open(args, &verdicts)?;
    let bar = count_bar("replaying answers", source.count() as u64);
    let mut failed = None;
    let answers = std::iter::from_fn(|| {
        bar.inc(1);
        source.next().unwrap_or_else(|failure| {
            failed = Some(failure);
            None
        })
    });
    let tally = replay_all(
        answers,
        &base.model,
        &adapters,
        || ReplayConfig { device: device.as_ref().map(|device| device as _), ..ReplayConfig::new(isa, threads) },
        &mut verdicts,
        |_, name, verdict: &Result<Verdict, AuditError>| match verdict {
            Ok(verdict) if verdict.is_equal() => {}
            Ok(verdict) => bar.suspend(|| println!("{name}: {verdict}")),
            Err(error) => bar.suspend(|| println!("{name}: no verdict: {error}")),
        },
    )
    .map_err(|error| Failure(error.to_string()))?;
    bar.finish_and_clear();
    let (before, expired) = source.passed_over();
    println!(
        "{} equal, {} differ, {} without a verdict, {} replayed before, {} not readable; {} positions",
        tally.equal,
        tally.differing,
        tally.errors,
        tally.skipped + before,
        tally.unreadable,
        tally.positions
    );
    if tally.withheld + expired > 0 {
        println!("{} withheld by the node, {expired} no longer owed", tally.withheld);
    }
    println!("signed verdicts: {}", path.display());
    if tally.skipped + before > 0 && verdicts.others() > 0 {
        println!("{} verdicts of all runs are not \"equal\"", verdicts.others());
    }
    match failed {
        Some(failure) => Err(Failure(format!("{failure}; what was replayed is kept, the same command goes on"))),
        None => Ok(verdicts.others() + tally.unreadable == 0),
    }
}

/// Where answers come from, one after the other.
enum Source {
    Folder(std::vec::IntoIter<PathBuf>),
    Log {
        owed: std::vec::IntoIter<Owed>,
        produce: Produce,
        /// Replayed in an earlier run.
        before: usize,
        /// No longer owed.
        expired: usize,
    },
}

impl Source {
    fn open(args: &AuditArgs, verdicts: &Verdicts) -> Result<Source, Failure> {
        match (&args.folder, &args.from_log.log) {
            (_, Some(log)) => {
                let mut owed = args.from_log.owed(log)?;
                let all = owed.len();
                owed.retain(|owed| !verdicts.has(&owed.hash));
                let produce = args.from_log.producer(log, BUNDLE_BYTES_MAX as usize)?;
                Ok(Source::Log { before: all - owed.len(), expired: 0, owed: owed.into_iter(), produce })
            }
            (Some(folder), None) => Ok(Source::Folder(files(folder)?.into_iter())),
            (None, None) => Err(Failure("give a folder of bundles, or --log".to_owned())),
        }
    }

    fn count(&self) -> usize {
        match self {
            Source::Folder(files) => files.len(),
            Source::Log { owed, .. } => owed.len(),
        }
    }

    fn next(&mut self) -> Result<Option<Produced>, Failure> {
        match self {
            Source::Folder(files) => Ok(files.next().map(|path| read(&path).into())),
            Source::Log { owed, produce, expired, .. } => {
                for owed in owed.by_ref() {
                    match produce(&owed)? {
                        None => *expired += 1,
                        found => return Ok(found),
                    }
                }
                Ok(None)
            }
        }
    }

    /// Answers replayed before, and those no longer owed.
    fn passed_over(&self) -> (usize, usize) {
        match self {
            Source::Folder(_) => (0, 0),
            Source::Log { before, expired, .. } => (*before, *expired),
        }
    }
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
