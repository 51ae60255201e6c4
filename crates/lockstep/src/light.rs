//! `lockstep light-key`, `light-open`, `light-check` and `verify --light`: checks without the levels of the weights.

use crate::failure::{Failure, io};
use crate::source::{ModelArgs, model_folder};
use crate::subject::{self, Subject, SubjectArgs, from_hex};
use audit::light::{Frame, Key, LightConfig, LightOpening, LightVerdict, Opened, OpeningFile, check, coin_of, prove};
use audit::trace::Run;
use clap::Args;
use model::LoadOptions;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

/// Options of `lockstep light-key`.
#[derive(Args, Debug)]
pub(crate) struct LightKeyArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// File for the key. Keep it secret: whoever has it can pass false sums off on you.
    #[arg(long, value_name = "FILE", default_value = "light.key")]
    key: PathBuf,
    /// File for the model's small parts, which are no secret.
    #[arg(long, value_name = "FILE", default_value = "light.frame")]
    frame: PathBuf,
}

/// Options of `lockstep light-open`.
#[derive(Args, Debug)]
pub(crate) struct LightOpenArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Positions, as FIRST..END, counted from 0 over prompt and answer. Default: all.
    #[arg(long, value_name = "A..B")]
    span: Option<Span>,
    /// File for the opening.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Options of `lockstep light-check`.
#[derive(Args, Debug)]
pub(crate) struct LightCheckArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// What the prover handed out.
    #[arg(long, value_name = "FILE")]
    opening: PathBuf,
    /// Your secret key. Without it, the coin is public: see --beacon.
    #[arg(long, value_name = "FILE", requires = "frame")]
    key: Option<PathBuf>,
    /// The small parts that belong to the key.
    #[arg(long, value_name = "FILE")]
    frame: Option<PathBuf>,
    /// Public coin: a random value, in hexadecimal, that nobody knew when the opening was handed out. The weights pass through
    /// memory once.
    #[arg(long, value_name = "HEX", conflicts_with = "key", required_unless_present = "key")]
    beacon: Option<String>,
    /// Print the verdict as one line of JSON.
    #[arg(long)]
    json: bool,
}

/// Consecutive positions.
#[derive(Clone, Debug)]
pub(crate) struct Span(pub(crate) Range<usize>);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Span, String> {
        let (first, end) = text.split_once("..").ok_or("write it as FIRST..END, 10..20 for one")?;
        let number = |text: &str| text.parse::<usize>().map_err(|error| format!("{text:?}: {error}"));
        Ok(Span(number(first)?..number(end)?))
    }
}

/// Makes a secret key, the weights passing through memory one by one.
pub(crate) fn run_key(args: &LightKeyArgs) -> Result<(), Failure> {
    let (key, frame) = streamed(&args.model, subject::random()?)?;
    subject::write(&args.key, &key.to_bytes())?;
    subject::restrict(&args.key)?;
    subject::write(&args.frame, &frame.to_bytes())?;
    let (a, b) = (key.to_bytes().len(), frame.to_bytes().len());
    println!("key    {} ({a} bytes, keep it secret)", args.key.display());
    println!("frame  {} ({b} bytes)", args.frame.display());
    println!("base   {}", crate::score::hex(&key.base));
    Ok(())
}

fn streamed(model: &ModelArgs, seed: [u8; 32]) -> Result<(Key, Frame), Failure> {
    let folder = model_folder(model)?;
    let options = LoadOptions {
        isa: model.machine.isa()?,
        threads: model.machine.threads(),
        ..LoadOptions::new(model.activations)
    };
    Key::streamed(&folder, &options, seed).map_err(|error| Failure(error.to_string()))
}

fn open(subject: &Subject, model: &ModelArgs, span: Option<&Span>) -> Result<LightOpening, Failure> {
    let run = Run {
        model: subject.base.model.clone(),
        adapter: subject.adapter.as_ref(),
        isa: model.machine.isa()?,
        threads: model.machine.threads(),
    };
    let positions = subject.bundle.opening.leaves.len();
    let span = span.map_or(0..positions, |span| span.0.clone());
    prove(&run, &subject.bundle, span).map_err(|error| Failure(error.to_string()))
}

/// Writes the opening of a span.
pub(crate) fn run_open(args: &LightOpenArgs) -> Result<(), Failure> {
    let subject = args.subject.load()?;
    let opening = open(&subject, &args.subject.model, args.span.as_ref())?;
    let bytes = opening.to_bytes();
    subject::write(&args.out, &bytes)?;
    let ((sums, past), span) = (opening.weight_bytes(), opening.span());
    println!(
        "positions {} to {}: {} bytes ({sums} of sums, {past} of the past)",
        span.start,
        span.end - 1,
        bytes.len()
    );
    Ok(())
}

/// Checks an opening that somebody handed out.
pub(crate) fn run_check(args: &LightCheckArgs) -> Result<bool, Failure> {
    let opening = OpeningFile::open(&args.opening).map_err(|error| Failure(error.to_string()))?;
    let (key, frame) = match (&args.key, &args.frame, &args.beacon) {
        (Some(key), Some(frame), _) => {
            let read = |path: &PathBuf| std::fs::read(path).map_err(io(path));
            let wrong = |error: audit::Malformed| Failure(error.to_string());
            (Key::from_bytes(&read(key)?).map_err(wrong)?, Frame::from_bytes(&read(frame)?).map_err(wrong)?)
        }
        (_, _, Some(beacon)) => {
            let beacon = bytes_of_beacon(beacon)?;
            let claims = args.subject.claims()?;
            let model = subject::in_its_mode(&args.subject.model, &claims);
            let mut hasher = blake3::Hasher::new();
            let file = std::fs::File::open(&args.opening).map_err(io(&args.opening))?;
            hasher.update_reader(file).map_err(io(&args.opening))?;
            streamed(&model, coin_of(hasher.finalize().as_bytes(), &beacon))?
        }
        _ => return Err(Failure("give --key and --frame, or --beacon".to_owned())),
    };
    let (bundle, claims) = (args.subject.bundle()?, args.subject.claims()?);
    // An adapter is small and recomputed whole; preparing it takes the base's norms, so the base is loaded for it.
    let adapter = if claims.adapter.is_some() { args.subject.load()?.adapter } else { None };
    let machine = &args.subject.model.machine;
    let text = subject::text(&args.subject.model)?;
    let config = LightConfig { isa: machine.isa()?, threads: machine.threads(), text: Some(&text) };
    let verdict = check(&bundle, &opening, &key, &frame, adapter.as_ref(), config);
    tell(&verdict.map_err(|error| Failure(error.to_string()))?, args.json)
}

/// `verify --light`: opens the whole answer and checks it, in one process, with a fresh secret key, or by the coin that the beacon
/// and the opening make.
pub(crate) fn run_verify(args: &SubjectArgs, beacon: Option<&str>, json: bool) -> Result<bool, Failure> {
    let subject = args.load()?;
    let machine = &args.model.machine;
    let (isa, threads) = (machine.isa()?, machine.threads());
    let failed = |error: String| Failure(error);
    let opening = open(&subject, &args.model, None)?;
    let (key, frame) = match beacon {
        None => Key::secret(&subject.base.model, subject::random()?, isa, threads),
        Some(beacon) => {
            Key::from_coin(&subject.base.model, &opening.to_bytes(), &bytes_of_beacon(beacon)?, isa, threads)
        }
    }
    .map_err(|error| failed(error.to_string()))?;
    let text = subject.base.text()?;
    let config = LightConfig { isa, threads, text: Some(&text) };
    let verdict = check(&subject.bundle, &opening, &key, &frame, subject.adapter.as_ref(), config);
    tell(&verdict.map_err(|error| failed(error.to_string()))?, json)
}

/// A beacon's value as it was typed.
pub(crate) fn bytes_of_beacon(digits: &str) -> Result<Vec<u8>, Failure> {
    from_hex(digits).ok_or_else(|| Failure("--beacon takes hexadecimal digits, two a byte".to_owned()))
}

fn tell(verdict: &LightVerdict, json: bool) -> Result<bool, Failure> {
    if json {
        println!("{}", serde_json::to_string(verdict)?);
    } else {
        println!("{verdict}");
    }
    Ok(verdict.holds())
}
