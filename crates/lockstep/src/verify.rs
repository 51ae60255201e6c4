//! `lockstep verify`: replays an answer and says whether its receipt is true.

use crate::demo;
use crate::failure::{Failure, io};
use crate::progress::count_bar;
use crate::source::{ModelArgs, named_adapter};
use audit::{Progress, ReplayConfig, Verdict, replay};
use clap::Args;
use exact::Activations;
use model::Adapter;
use receipt::Bundle;
use std::io::Read;
use std::path::PathBuf;

/// Options of `lockstep verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// What `/v1/receipts/{id}` gave, as a file; `-` is standard input.
    receipt: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    /// Adapters the answer may have used. Without --model: the demo's are known.
    #[arg(long = "adapter", value_name = "NAME=DIR")]
    adapters: Vec<String>,
    /// Print the verdict as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Bytes a bundle may have: a million tokens and their leaves.
const BUNDLE_BYTES_MAX: u64 = 64 << 20;

/// Replays; gives whether everything is as claimed.
pub(crate) fn run(args: &VerifyArgs) -> Result<bool, Failure> {
    let bundle = Bundle::from_bytes(&read(&args.receipt)?)
        .map_err(|error| Failure(format!("{}: {error}", args.receipt.display())))?;
    let claims = receipt::Receipt::parse(&bundle.receipt)
        .map_err(|error| Failure(format!("{}: {error}", args.receipt.display())))?
        .claims;
    // The receipt says in which mode the answer was computed; its digest says whether that is true.
    let mut model = args.model.clone();
    model.activations = match claims.activations {
        receipt::Activations::A8 => Activations::A8,
        receipt::Activations::A16 => Activations::A16,
    };
    let base = model.load()?;
    let mut names = args.adapters.clone();
    if model.model.is_none() {
        names.extend(demo::ADAPTERS.iter().map(|name| (*name).to_owned()));
    }
    let mut known: Vec<Adapter> = Vec::new();
    for name in &names {
        known.push(model.load_adapter(&base, &named_adapter(name)?.1)?);
    }
    let adapter = known.iter().find(|adapter| Some(adapter.digest) == claims.adapter);
    let bar = count_bar("replaying", 0);
    let mut show = |progress: Progress| {
        bar.set_length(progress.positions_total as u64);
        bar.set_position(progress.positions as u64);
    };
    let mut config = ReplayConfig::new(model.machine.isa()?, model.machine.threads());
    config.progress = Some(&mut show);
    let verdict = replay(&bundle, base.model.clone(), adapter, config).map_err(|error| Failure(error.to_string()))?;
    bar.finish_and_clear();
    if args.json {
        println!("{}", serde_json::to_string(&verdict)?);
    } else {
        println!("{verdict}");
    }
    Ok(matches!(verdict, Verdict::Equal { .. }))
}

fn read(path: &PathBuf) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(io(path))?)
    };
    source.take(BUNDLE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io(path))?;
    if bytes.len() as u64 > BUNDLE_BYTES_MAX {
        return Err(Failure(format!("{}: too large to be a receipt", path.display())));
    }
    Ok(bytes)
}
