//! `lockstep dispute`: who lied, decided without the model. Both sides and the referee in one process, or each in its own.

use crate::failure::{Failure, io};
use crate::source::ModelArgs;
use crate::subject::{self, Subject, SubjectArgs, own_key};
use crate::tamper::node_key;
use audit::dispute::{Case, Challenger, Entry, Game, Party, Prover, Regenerate, Ruling, Transcript, Why, play, target};
use audit::trace::{Borders, History, Missing, Position, Run, regenerate};
use audit::{ReplayConfig, replay};
use clap::{Args, ValueEnum};
use model::digest;
use receipt::SigningKey;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Options of `lockstep dispute`.
#[derive(Args, Debug)]
pub(crate) struct DisputeArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Which part to play here.
    #[arg(long, value_enum, default_value = "all")]
    role: Role,
    /// The position that is doubted, counted from 0 over prompt and answer. Default: where a replay differs.
    #[arg(long, value_name = "N")]
    position: Option<usize>,
    /// Prover: the model it ran, if it is not the one the receipt names.
    #[arg(long, value_name = "DIR|REPO")]
    prover_model: Option<String>,
    /// Prover: the node's secret key. Default: that of `lockstep up` in the same data folder.
    #[arg(long, value_name = "FILE")]
    node_key: Option<PathBuf>,
    /// Prover: where to wait for the challenger.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Challenger: where the prover waits.
    #[arg(long, value_name = "ADDRESS")]
    connect: Option<SocketAddr>,
    /// Where the transcript is written, or read by the referee.
    #[arg(long, value_name = "FILE", default_value = "dispute.transcript")]
    transcript: PathBuf,
    /// Where the manifests are written, or read by the referee: FILE and FILE.adapter.
    #[arg(long, value_name = "FILE", default_value = "dispute.manifest")]
    manifest: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
enum Role {
    /// Both sides and the referee, in one process.
    All,
    /// Stands by the receipt.
    Prover,
    /// Doubts it.
    Challenger,
    /// Decides from transcript, bundle and manifests. Needs no model.
    Referee,
}

/// How long the other side may take for one message.
const TURN_SECONDS: u64 = 600;

/// Plays; gives whether the receipt stood.
pub(crate) fn run(args: &DisputeArgs) -> Result<bool, Failure> {
    if args.role == Role::Referee {
        return referee(args);
    }
    let subject = args.subject.load()?;
    let case = open_case(args, &subject)?;
    let side = Side::new(&subject, &case, &args.subject.model, None)?;
    let prover_side = match &args.prover_model {
        Some(model) => Some(Side::new(&subject, &case, &args.subject.model, Some(model))?),
        None => None,
    };
    let (model, adapter) = (&*subject.base.model, subject.adapter.as_ref());
    let leaves = subject.bundle.opening.leaves.clone();
    let mut prover = Prover::new(leaves, prover_side.as_ref().unwrap_or(&side).regenerate(), model, adapter);
    if args.role == Role::Prover {
        let address = args.listen.ok_or_else(|| Failure("a prover needs --listen ADDRESS".to_owned()))?;
        let listener = TcpListener::bind(address).map_err(io(&PathBuf::from(address.to_string())))?;
        eprintln!("waiting for a challenger on {address}");
        let (stream, _) = listener.accept().map_err(io(&PathBuf::from(address.to_string())))?;
        let key = node_key(args.node_key.as_ref(), &args.subject)?;
        return remote(&case, stream, Party::Prover, &key, args, |game| prover.answer(game));
    }
    let Some(position) = doubted(args, &subject)? else { return Ok(true) };
    let mut challenger = Challenger::new(position, side.regenerate());
    let key = own_key(&args.subject.model.data_folder()?.join("auditor.key"))?;
    if args.role == Role::Challenger {
        let address = args.connect.ok_or_else(|| Failure("a challenger needs --connect ADDRESS".to_owned()))?;
        let stream = TcpStream::connect(address).map_err(io(&PathBuf::from(address.to_string())))?;
        return remote(&case, stream, Party::Challenger, &key, args, |game| challenger.answer(game));
    }
    let node = node_key(args.node_key.as_ref(), &args.subject)?;
    let (ruling, transcript) = play(&case, (&mut prover, &node), (&mut challenger, &key))
        .map_err(|error| Failure(format!("{error}; is --node-key the key of the node that signed the receipt?")))?;
    conclude(&case, &ruling, &transcript, args)
}

/// What one side regenerates from.
struct Side<'a> {
    subject: &'a Subject,
    case: &'a Case,
    model: std::sync::Arc<model::Model>,
    history: History,
    tokens: Vec<u32>,
}

impl<'a> Side<'a> {
    fn new(
        subject: &'a Subject,
        case: &'a Case,
        args: &ModelArgs,
        other: Option<&String>,
    ) -> Result<Side<'a>, Failure> {
        let model = match other {
            Some(other) => {
                let own = subject::in_its_mode(args, &subject.claims);
                ModelArgs { model: Some(other.clone()), ..own }.load()?.model
            }
            None => subject.base.model.clone(),
        };
        let (opening, machine) = (&subject.bundle.opening, &args.machine);
        let mut tokens = [&opening.prompt[..], &opening.output[..]].concat();
        tokens.pop();
        let run = Run {
            model: model.clone(),
            adapter: subject.adapter.as_ref(),
            isa: machine.isa()?,
            threads: machine.threads(),
        };
        let history = run.history(&tokens).map_err(|error| Failure(format!("starting threads: {error}")))?;
        Ok(Side { subject, case, model, history, tokens })
    }

    fn position(&self, position: usize, borders: Option<Borders>) -> Result<Position, Missing> {
        let token = *self.tokens.get(position).ok_or(Missing("a position"))?;
        let adapter = self.subject.adapter.as_ref();
        regenerate(&self.model, adapter, &self.history, position, token, self.case.draw(position), borders)
    }

    fn regenerate(&self) -> Regenerate<'_> {
        Box::new(|position, borders| self.position(position, borders))
    }
}

fn open_case(args: &DisputeArgs, subject: &Subject) -> Result<Case, Failure> {
    let (model, threads) = (&subject.base.model, args.subject.model.machine.threads());
    let base = digest::manifest(&model.shape, &model.plan, &model.weights, model.activations, threads);
    let adapter = subject.adapter.as_ref().map(|a| digest::adapter_manifest(&model.plan, &a.sites, threads));
    subject::write(&args.manifest, &base)?;
    if let Some(adapter) = &adapter {
        subject::write(&adapter_manifest(args), adapter)?;
    }
    let text = subject.base.text()?;
    let case = Case::read(&subject.bundle, &base, adapter.as_deref(), Some(&text));
    case.map_err(|error| Failure(error.to_string()))
}

fn adapter_manifest(args: &DisputeArgs) -> PathBuf {
    let mut name = args.manifest.clone().into_os_string();
    name.push(".adapter");
    name.into()
}

/// The position to doubt; none if there is nothing to doubt.
fn doubted(args: &DisputeArgs, subject: &Subject) -> Result<Option<usize>, Failure> {
    if args.position.is_some() {
        return Ok(args.position);
    }
    let machine = &args.subject.model.machine;
    // As the case does: a dispute believes stop strings, unless a form wants the tokenizer anyway.
    let form = subject.bundle.opening.settings.shaping.form.is_some();
    let text = form.then(|| subject.base.text()).transpose()?;
    let config = ReplayConfig { text: text.as_deref(), ..ReplayConfig::new(machine.isa()?, machine.threads()) };
    let verdict = replay(&subject.bundle, subject.base.model.clone(), subject.adapter.as_ref(), config)
        .map_err(|error| Failure(error.to_string()))?;
    println!("replay: {verdict}");
    if verdict.is_equal() {
        println!("there is nothing to dispute");
        return Ok(None);
    }
    // Where tokens alone show it, any position will do: the referee sees it before anything is said.
    Ok(Some(target(&verdict).unwrap_or(0)))
}

/// One side, the other behind a connection: messages with their signatures, each behind its length.
fn remote(
    case: &Case,
    mut stream: TcpStream,
    own: Party,
    key: &SigningKey,
    args: &DisputeArgs,
    mut answer: impl FnMut(&Game<'_>) -> Result<audit::dispute::Message, Missing>,
) -> Result<bool, Failure> {
    let broken = |error: std::io::Error| Failure(format!("the other side: {error}"));
    stream.set_read_timeout(Some(Duration::from_secs(TURN_SECONDS))).map_err(broken)?;
    let mut challenger = [0; 32];
    match own {
        Party::Challenger => {
            challenger = key.verifying_key().to_bytes();
            stream.write_all(&challenger).map_err(broken)?;
        }
        Party::Prover => stream.read_exact(&mut challenger).map_err(broken)?,
    }
    let (mut game, mut transcript) = (Game::new(case), Transcript::new(case, challenger));
    while let Some(party) = game.turn() {
        let entry = if party == own {
            let message = answer(&game).map_err(|error| Failure(error.to_string()))?;
            let entry = transcript.sign(key, &message);
            stream.write_all(&(entry.message.len() as u32).to_le_bytes()).map_err(broken)?;
            stream.write_all(&entry.message).and_then(|()| stream.write_all(&entry.signature)).map_err(broken)?;
            entry
        } else {
            match receive(&mut stream) {
                Ok(entry) => entry,
                Err(_) => {
                    game.forfeit();
                    break;
                }
            }
        };
        game.take(&transcript.push(case, party, entry).map_err(|error| Failure(error.to_string()))?);
    }
    let ruling = game.ruling().cloned().ok_or_else(|| Failure("nothing was decided".to_owned()))?;
    conclude(case, &ruling, &transcript, args)
}

fn receive(stream: &mut TcpStream) -> std::io::Result<Entry> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > audit::dispute::MESSAGE_BYTES_MAX {
        return Err(std::io::Error::other("a message is too long"));
    }
    let (mut message, mut signature) = (vec![0; length], [0; 64]);
    stream.read_exact(&mut message)?;
    stream.read_exact(&mut signature)?;
    Ok(Entry { message, signature })
}

fn conclude(case: &Case, ruling: &Ruling, transcript: &Transcript, args: &DisputeArgs) -> Result<bool, Failure> {
    let bytes = transcript.to_bytes();
    subject::write(&args.transcript, &bytes)?;
    say(ruling);
    if ruling.why != Why::Silence && !transcript.entries.is_empty() {
        let started = Instant::now();
        let judged = transcript.judge(case).map_err(|error| Failure(error.to_string()))?;
        let milliseconds = started.elapsed().as_secs_f64() * 1e3;
        assert_eq_ruling(&judged, ruling)?;
        println!(
            "transcript: {} bytes, {} messages; judged again from it alone in {milliseconds:.1} ms",
            bytes.len(),
            transcript.entries.len()
        );
    }
    Ok(ruling.winner == Party::Prover)
}

fn assert_eq_ruling(judged: &Ruling, ruling: &Ruling) -> Result<(), Failure> {
    if judged == ruling { Ok(()) } else { Err(Failure("the transcript does not give the same ruling".to_owned())) }
}

fn referee(args: &DisputeArgs) -> Result<bool, Failure> {
    let bundle = args.subject.bundle()?;
    let base = subject::read(&args.manifest)?;
    let adapter = args.subject.claims()?.adapter.map(|_| subject::read(&adapter_manifest(args))).transpose()?;
    let wrong = |error: String| Failure(error);
    // Of the model's folder a referee needs the tokenizer alone, and that only for forms.
    let form = bundle.opening.settings.shaping.form.is_some();
    let text = form.then(|| subject::text(&args.subject.model)).transpose()?;
    let case =
        Case::read(&bundle, &base, adapter.as_deref(), text.as_ref()).map_err(|error| wrong(error.to_string()))?;
    let bytes = subject::read(&args.transcript)?;
    let started = Instant::now();
    let transcript = Transcript::from_bytes(&bytes).map_err(|error| wrong(error.to_string()))?;
    let ruling = transcript.judge(&case).map_err(|error| wrong(error.to_string()))?;
    say(&ruling);
    println!("judged from {} bytes in {:.1} ms", bytes.len(), started.elapsed().as_secs_f64() * 1e3);
    Ok(ruling.winner == Party::Prover)
}

fn say(ruling: &Ruling) {
    let who = match ruling.winner {
        Party::Prover => "the node is right, the challenger is wrong",
        Party::Challenger => "the node lied",
    };
    match &ruling.why {
        Why::Computed { position, what, row, .. } => println!("{who}: position {position}, {what}, row {row}"),
        Why::Foul(foul) => println!("{who}: {foul}"),
        Why::Plain(what) => println!("{who}: {what}"),
        Why::Silence => println!("{who}: the other side said nothing in time"),
    }
}
