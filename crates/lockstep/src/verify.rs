//! `lockstep verify`: replays an answer and says whether its receipt is true.

use crate::countersign;
use crate::demo;
use crate::device::DeviceArgs;
use crate::failure::{Failure, io};
use crate::log::{committed, included};
use crate::progress::count_bar;
use crate::remote::{Place, agent, fetch};
use crate::score::hex;
use crate::source::{ModelArgs, named_adapter};
use crate::subject::SubjectArgs;
use audit::{Progress, ReplayConfig, Verdict, replay};
use clap::Args;
use exact::Activations;
use model::Adapter;
use receipt::{Bundle, Countersignature, Receipt};
use std::io::Read;
use std::path::PathBuf;
use tlog::{Proof, Reader, VerifierKey, leaf_hash};

/// Options of `lockstep verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// What `/v1/receipts/{id}` gave, as a file; `-` is standard input.
    receipt: PathBuf,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Adapters the answer may have used. Without --model: the demo's are known.
    #[arg(long = "adapter", value_name = "NAME=DIR")]
    adapters: Vec<String>,
    /// The proof that the receipt is in its node's log: what /v1/receipts/ID?format=proof gave.
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    /// The node's log, in which the receipt, and the commitment to the secret of its seed, must be: an address
    /// (http://HOST:PORT/v1/log) or a folder.
    #[arg(long, value_name = "URL|DIR")]
    log: Option<String>,
    /// A witness whose signature the log's head must carry (name+hash+key). May be given many times.
    #[arg(long = "witness", value_name = "KEY")]
    witnesses: Vec<VerifierKey>,
    /// The client's countersignature. Default: the file beside the receipt that `lockstep countersign` makes, if it is there.
    #[arg(long, value_name = "FILE")]
    countersignature: Option<PathBuf>,
    /// Open the answer and check it without the levels of the weights, in one process: see light-check.
    #[arg(long, conflicts_with_all = ["proof", "log"])]
    light: bool,
    /// With --light, a public coin in place of a fresh secret: a random value, in hexadecimal, that nobody knew when the opening was
    /// handed out.
    #[arg(long, value_name = "HEX", requires = "light")]
    beacon: Option<String>,
    /// Print the verdict as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Bytes a bundle may have: a million tokens and their leaves.
const BUNDLE_BYTES_MAX: u64 = 64 << 20;

/// Bytes a proof of inclusion may have.
const PROOF_BYTES_MAX: usize = 1 << 17;

/// Replays; gives whether everything is as claimed.
pub(crate) fn run(args: &VerifyArgs) -> Result<bool, Failure> {
    if args.light {
        let (receipt, model, adapters) = (args.receipt.clone(), args.model.clone(), args.adapters.clone());
        return crate::light::run_verify(&SubjectArgs { receipt, model, adapters }, args.beacon.as_deref(), args.json);
    }
    let bundle = Bundle::from_bytes(&read(&args.receipt)?)
        .map_err(|error| Failure(format!("{}: {error}", args.receipt.display())))?;
    let receipt = receipt::Receipt::parse(&bundle.receipt)
        .map_err(|error| Failure(format!("{}: {error}", args.receipt.display())))?;
    let logged = logged(args, &bundle, &receipt);
    let countersigned = countersigned(args, &receipt);
    let claims = receipt.claims;
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
    let device = args.device.forward(&base.model, true)?;
    let mut config = ReplayConfig::new(model.machine.isa()?, model.machine.threads());
    config.device = device.as_ref().map(|device| device as _);
    let text = base.text()?;
    config.text = Some(&text);
    config.progress = Some(&mut show);
    let verdict = replay(&bundle, base.model.clone(), adapter, config).map_err(|error| Failure(error.to_string()))?;
    bar.finish_and_clear();
    let as_shown = logged.iter().all(Result::is_ok) && countersigned.iter().all(Result::is_ok);
    if args.json {
        let mut verdict = serde_json::to_value(&verdict)?;
        verdict["log"] = match &logged {
            None => serde_json::Value::Null,
            Some(Ok(words)) => serde_json::json!({"included": true, "what": words}),
            Some(Err(failure)) => serde_json::json!({"included": false, "what": failure.to_string()}),
        };
        verdict["countersignature"] = match &countersigned {
            None => serde_json::Value::Null,
            Some(Ok(found)) => serde_json::json!({"client": hex(&found.client), "time_seconds": found.time_seconds}),
            Some(Err(failure)) => serde_json::json!({"error": failure.to_string()}),
        };
        println!("{verdict}");
    } else {
        println!("{verdict}");
        match &logged {
            None => {}
            Some(Ok(words)) => println!("logged: {words}"),
            Some(Err(failure)) => println!("not shown to be logged: {failure}"),
        }
        match &countersigned {
            None => {}
            Some(Ok(found)) => {
                println!("countersigned: by {}, {} s since 1970", hex(&found.client), found.time_seconds)
            }
            Some(Err(failure)) => println!("not countersigned: {failure}"),
        }
    }
    Ok(matches!(verdict, Verdict::Equal { .. }) && as_shown)
}

/// What the client signed; nothing if there is no countersignature.
fn countersigned(args: &VerifyArgs, receipt: &Receipt) -> Option<Result<Countersignature, Failure>> {
    let beside = countersign::beside(&args.receipt);
    let path = args.countersignature.clone().or_else(|| beside.exists().then_some(beside))?;
    Some(countersign::read(&path, receipt))
}

/// Whether the receipt is in its node's log, and its seed's secret was committed to; nothing if that was not asked.
fn logged(args: &VerifyArgs, bundle: &Bundle, receipt: &Receipt) -> Option<Result<String, Failure>> {
    if args.proof.is_none() && args.log.is_none() {
        return None;
    }
    Some(args.log.as_deref().map_or(Ok(None), |log| in_log(log, bundle, receipt)).and_then(|from_log| {
        let proof = match &args.proof {
            Some(path) => Some(Proof::parse(&std::fs::read(path).map_err(io(path))?)?),
            None => from_log,
        };
        let proof = proof.ok_or_else(|| Failure("there is no proof".to_owned()))?;
        included(receipt, &bundle.receipt, &proof, &args.witnesses)
    }))
}

/// The proof that a log has of a receipt, once it shows that the secret of the seed was committed to.
fn in_log(log: &str, bundle: &Bundle, receipt: &Receipt) -> Result<Option<Proof>, Failure> {
    let reader = Reader::open(Place::parse(log), &tlog::verifier_of(&receipt.node)?)?;
    committed(&reader, bundle, receipt)?;
    if let Some(server) = log.trim_end_matches('/').strip_suffix("/log").filter(|_| log.starts_with("http")) {
        let address = format!("{server}/receipts/{}?format=proof", receipt.id());
        return Ok(Some(Proof::parse(&fetch(&agent(), &address, PROOF_BYTES_MAX)?)?));
    }
    let mut found = None;
    reader.entries(|index, entry| {
        if entry == bundle.receipt {
            found = Some(index);
        }
        Ok(())
    })?;
    let Some(index) = found else { return Err(Failure("the log does not hold this receipt".to_owned())) };
    let hashes = reader.prove(&leaf_hash(&bundle.receipt), index)?;
    Ok(Some(Proof { index, hashes, head: reader.note().clone() }))
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
