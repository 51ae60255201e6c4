//! `lockstep witness`: signs log heads that continue those it signed before, and nothing else.

use crate::failure::{Failure, io};
use crate::remote::{Place, agent, body};
use crate::serve;
use clap::{Args, Subcommand};
use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tlog::{Head, Known, Log, Note, NoteSignature, Reader, SigningKey, VerifierKey, Witness, add_checkpoint_body};

/// Options of `lockstep witness`.
#[derive(Args, Debug)]
pub(crate) struct WitnessArgs {
    #[command(subcommand)]
    command: WitnessCommand,
}

#[derive(Subcommand, Debug)]
enum WitnessCommand {
    /// Make a witness: a key and a memory, in a folder of its own.
    Init {
        /// The folder, which must not hold a witness yet.
        folder: PathBuf,
        /// The witness's name, such as witness.example.com/w1.
        name: String,
    },
    /// Fetch a log's newest head, and sign it if it continues the last one that was signed. Exit code 1: it does not.
    Cosign {
        /// The witness's folder.
        folder: PathBuf,
        /// The log: an address (http://HOST:PORT/v1/log) or a folder.
        #[arg(value_name = "URL|DIR")]
        log: String,
    },
    /// Answer logs that ask for signatures (C2SP tlog-witness).
    Run {
        /// The witness's folder.
        folder: PathBuf,
        /// Keys of the logs to witness (name+hash+key). Default: the log of any Lockstep node.
        #[arg(long = "log", value_name = "KEY")]
        logs: Vec<VerifierKey>,
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1:8200", value_name = "ADDR")]
        listen: SocketAddr,
    },
}

const KEY: &str = "witness.key";

/// Does what was asked; gives whether it was signed.
pub(crate) fn run(args: &WitnessArgs) -> Result<bool, Failure> {
    match &args.command {
        WitnessCommand::Init { folder, name } => init(folder, name).map(|()| true),
        WitnessCommand::Cosign { folder, log } => cosign(folder, log),
        WitnessCommand::Run { folder, logs, listen } => {
            let (name, key) = load(folder)?;
            let logs = logs.clone();
            let known: Known = Box::new(move |origin| match logs.is_empty() {
                true => any_node(origin),
                false => logs.iter().find(|log| log.name() == origin).cloned(),
            });
            serve::witness(Witness::open(folder, &name, key, known)?, *listen, &name).map(|()| true)
        }
    }
}

/// The key of a node's log stands in its name.
fn any_node(origin: &str) -> Option<VerifierKey> {
    tlog::verifier_of(&tlog::node_of(origin)?).ok()
}

fn init(folder: &Path, name: &str) -> Result<(), Failure> {
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    let path = folder.join(KEY);
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| Failure(format!("there are no random numbers: {error}")))?;
    let key = SigningKey::from_bytes(&secret);
    let verifier = VerifierKey::new(name, tlog::Kind::Cosignature, key.verifying_key().as_bytes())?;
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
    let mut file = file.map_err(io(&path))?;
    let text = format!("{name}\n{}\n", crate::score::hex(&secret));
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(io(&path))?;
    println!("{verifier}");
    Ok(())
}

fn load(folder: &Path) -> Result<(String, SigningKey), Failure> {
    let path = folder.join(KEY);
    let mode = std::fs::metadata(&path).map_err(io(&path))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(Failure(format!("{} can be read by others: run `chmod 600` on it", path.display())));
    }
    let text = std::fs::read_to_string(&path).map_err(io(&path))?;
    let wrong = || Failure(format!("{} is not a witness's key: restore it from a backup", path.display()));
    let mut lines = text.lines();
    let (name, digits) = (lines.next().ok_or_else(wrong)?, lines.next().ok_or_else(wrong)?);
    let mut secret = [0; 32];
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if pairs.len() != 32 || !rest.is_empty() {
        return Err(wrong());
    }
    for (byte, pair) in secret.iter_mut().zip(pairs) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok((name.to_owned(), SigningKey::from_bytes(&secret)))
}

fn cosign(folder: &Path, log: &str) -> Result<bool, Failure> {
    let (name, key) = load(folder)?;
    let witness = Witness::open(folder, &name, key, Box::new(any_node))?;
    let place = Place::parse(log);
    let note = Note::parse(&tlog::Source::get(&place, "checkpoint", tlog::HEAD_BYTES_MAX)?)?;
    let head = Head::of(&note)?;
    let log = any_node(&head.origin).ok_or_else(|| Failure(format!("{} is not the log of a node", head.origin)))?;
    let reader = Reader::at(place, &note, &log)?;
    let old = witness.remembered(&head.origin)?.map(|note| Head::of(&note)).transpose()?;
    let (size, proof) = match &old {
        None => (0, vec![]),
        Some(old) => match reader.prove_consistency(old) {
            Ok(proof) => (old.size, proof),
            Err(error) => {
                println!("not signed: {error}");
                return Ok(false);
            }
        },
    };
    match witness.add_checkpoint(add_checkpoint_body(size, &proof, &note).as_bytes(), now_seconds()) {
        Ok(line) => {
            print!("{note}{line}");
            Ok(true)
        }
        Err(refusal) => {
            println!("not signed: {refusal}");
            Ok(false)
        }
    }
}

/// A witness that a log asks for its signature.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    key: VerifierKey,
    address: String,
}

impl std::str::FromStr for Asked {
    type Err = Failure;

    /// `KEY=URL`
    fn from_str(text: &str) -> Result<Asked, Failure> {
        let wrong = || Failure("write it as KEY=URL, with the key that `lockstep witness init` printed".to_owned());
        // The key's base64 may end with = too.
        let at = text.find("=http").ok_or_else(wrong)?;
        let key: VerifierKey = text[..at].parse()?;
        if key.kind() != tlog::Kind::Cosignature {
            return Err(Failure(format!("{} is not a witness's key", key.name())));
        }
        Ok(Asked { key, address: text[at + 1..].trim_end_matches('/').to_owned() })
    }
}

impl Asked {
    /// Asks for a signature of the log's newest head, if the log has grown beyond what the witness last signed.
    pub(crate) fn ask(&self, log: &Log, last: &mut u64) -> Result<(), Failure> {
        if log.size() == *last {
            return Ok(());
        }
        let (head, note) = log.head()?;
        let agent = agent();
        let mut old = *last;
        // The second time with what the witness says it signed last.
        for _ in 0..2 {
            let proof = log.prove_consistency(old, head.size)?;
            let sent = agent.post(format!("{}/add-checkpoint", self.address));
            let sent = sent.send(add_checkpoint_body(old, &proof, &note).as_bytes());
            let mut answer = sent.map_err(|error| Failure(error.to_string()))?;
            let text = String::from_utf8_lossy(&body(&mut answer, 1 << 16)?).into_owned();
            match answer.status().as_u16() {
                200 => {
                    for line in text.lines().filter_map(|line| NoteSignature::parse(line).ok()) {
                        if line.name() == self.key.name() {
                            log.cosign(&note, line, &self.key)?;
                        }
                    }
                    *last = head.size;
                    return Ok(());
                }
                409 => {
                    let size = text.trim().parse().ok().filter(|size| *size <= head.size && *size != old);
                    old = size.ok_or_else(|| Failure(format!("it has seen another history: {}", text.trim())))?;
                }
                status => return Err(Failure(format!("it answered {status}: {}", text.trim()))),
            }
        }
        Err(Failure("it does not keep to one head".to_owned()))
    }

    /// The witness's name.
    pub(crate) fn name(&self) -> &str {
        self.key.name()
    }
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
