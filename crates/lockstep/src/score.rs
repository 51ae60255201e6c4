//! `lockstep score`: the likelihood of a text, and a digest of every logit on the way.

use crate::device::DeviceArgs;
use crate::failure::{Failure, io};
use crate::progress::count_bar;
use crate::source::ModelArgs;
use clap::Args;
use cpu::{Computed, Config, Forward, Single, Wanted};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::PoisonError;

/// Options of `lockstep score`.
#[derive(Args, Debug)]
pub(crate) struct ScoreArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Folder of a LoRA adapter in PEFT's layout, or the name of one of the demo's.
    #[arg(long, value_name = "DIR")]
    adapter: Option<String>,
    #[command(flatten)]
    input: Input,
    /// Write all logits: tensor `logits`, binary32, [tokens, vocabulary].
    #[arg(long, value_name = "OUT.safetensors")]
    logits: Option<PathBuf>,
    /// Tokens computed at a time. Changes no bit.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=4096))]
    chunk: u16,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Input {
    /// File of plain text.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// File of token ids, separated by white space.
    #[arg(long, value_name = "FILE")]
    token_ids: Option<PathBuf>,
}

/// Scores one sequence, teacher-forced.
pub(crate) fn run(args: &ScoreArgs) -> Result<(), Failure> {
    let base = args.model.load()?;
    let adapter = args.adapter.as_ref().map(|name| args.model.load_adapter(&base, name)).transpose()?;
    let tokens = match (&args.input.text, &args.input.token_ids) {
        (Some(path), _) => {
            let text = std::fs::read(path).map_err(io(path))?;
            let text = String::from_utf8(text)
                .map_err(|_| Failure(format!("{}: not UTF-8 text; convert it first", path.display())))?;
            base.text()?.encode(&text, true)?
        }
        (None, Some(path)) => parse_ids(&std::fs::read_to_string(path).map_err(io(path))?)?,
        (None, None) => return Err(Failure("name a --text or a --token-ids file".to_owned())),
    };
    let shape = &base.model.shape;
    if tokens.is_empty() {
        return Err(Failure("there are no tokens to score".to_owned()));
    }
    if let Some(id) = tokens.iter().find(|id| **id as usize >= shape.vocabulary) {
        return Err(Failure(format!("token id {id} is not in the vocabulary of {} tokens", shape.vocabulary)));
    }
    if tokens.len() > shape.context {
        let (have, most) = (tokens.len(), shape.context);
        return Err(Failure(format!(
            "{have} tokens are more than the model's context of {most}: score a shorter text"
        )));
    }
    let mut out = args
        .logits
        .as_ref()
        .map(|path| LogitsFile::create(path.clone(), tokens.len(), shape.vocabulary))
        .transpose()?;
    let mut there = args.device.forward(&base.model, false)?;
    let mut here;
    let forward: &mut dyn Forward = match &mut there {
        Some(device) => device.get_mut().unwrap_or_else(PoisonError::into_inner),
        None => {
            let config = Config { threads: args.model.machine.threads(), isa: args.model.machine.isa()?, trace: false };
            here = Single::new(base.model.clone(), config).map_err(|e| Failure(format!("starting threads: {e}")))?;
            &mut here
        }
    };
    forward.begin(tokens.len()).map_err(Failure)?;
    let bar = count_bar("scoring", tokens.len() as u64);
    let (mut digest, mut sum) = (Sha256::new(), 0.0);
    for (number, chunk) in tokens.chunks(usize::from(args.chunk)).enumerate() {
        let start = number * usize::from(args.chunk);
        let mut done = Ok(());
        let mut take = |computed: Computed<'_>| -> Result<(), Failure> {
            if computed.failed {
                return Err(Failure(engine::Failure::NotFinite.to_string()));
            }
            for (i, logits) in computed.logits.iter().enumerate() {
                let bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
                digest.update(&bytes);
                if let Some(out) = &mut out {
                    out.write(&bytes)?;
                }
                if let Some(next) = tokens.get(start + i + 1) {
                    sum += negative_log_likelihood(logits, *next as usize);
                }
            }
            Ok(())
        };
        let mut run = |computed: Computed<'_>| done = take(computed);
        forward.run(chunk, start, adapter.as_ref(), Wanted::All, &mut run).map_err(Failure)?;
        done?;
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    if let Some(out) = out {
        out.finish()?;
    }
    let scored = tokens.len() - 1;
    let mean = (scored > 0).then(|| sum / scored as f64);
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if args.json {
        let line = serde_json::json!({
            "tokens": tokens.len(), "scored": scored, "mean_nll": mean, "logits_sha256": digest,
            "activations": args.model.activations.name(), "base_digest": hex(&base.model.digest),
        });
        println!("{line}");
    } else {
        println!("tokens                        {} ({scored} scored; the first has no past)", tokens.len());
        let mean = mean.map_or("none".to_owned(), |mean| format!("{mean:.6} nats a token"));
        println!("mean negative log-likelihood  {mean}");
        println!("digest of all logits          sha256 {digest}");
    }
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn parse_ids(text: &str) -> Result<Vec<u32>, Failure> {
    let parse = |word: &str| word.parse().map_err(|_| Failure(format!("{word:?} is not a token id")));
    text.split_whitespace().map(parse).collect()
}

/// −log of the softmax's share of `token`, in binary64: a report, not part of the arithmetic.
pub(crate) fn negative_log_likelihood(logits: &[f32], token: usize) -> f64 {
    let max = logits.iter().fold(f64::NEG_INFINITY, |a, x| a.max(f64::from(*x)));
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - max).exp()).sum();
    max + sum.ln() - f64::from(logits[token])
}

/// A safetensors file of one tensor, written row by row under a temporary name.
struct LogitsFile {
    file: BufWriter<File>,
    partial: PathBuf,
    path: PathBuf,
}

impl LogitsFile {
    fn create(path: PathBuf, tokens: usize, vocabulary: usize) -> Result<Self, Failure> {
        let bytes = tokens * vocabulary * 4;
        let tensor = serde_json::json!({"dtype": "F32", "shape": [tokens, vocabulary], "data_offsets": [0, bytes]});
        let mut header = serde_json::json!({"logits": tensor}).to_string();
        while !header.len().is_multiple_of(8) {
            header.push(' ');
        }
        let partial = path.with_extension("partial");
        let mut file = BufWriter::new(File::create(&partial).map_err(io(&partial))?);
        file.seek(SeekFrom::Start(0)).map_err(io(&partial))?;
        file.write_all(&(header.len() as u64).to_le_bytes()).map_err(io(&partial))?;
        file.write_all(header.as_bytes()).map_err(io(&partial))?;
        Ok(LogitsFile { file, partial, path })
    }

    fn write(&mut self, row: &[u8]) -> Result<(), Failure> {
        self.file.write_all(row).map_err(io(&self.partial))
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.file.flush().map_err(io(&self.partial))?;
        std::fs::rename(&self.partial, &self.path).map_err(io(&self.path))
    }
}
