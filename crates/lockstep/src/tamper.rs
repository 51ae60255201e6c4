//! `lockstep tamper`: does to an answer what a cheating node would, and signs it with the node's own key.

use crate::failure::Failure;
use crate::subject::{self, SubjectArgs, read_key};
use clap::{Args, ValueEnum};
use cpu::{Config, Executor, PAGE, Pages, Segment, Wanted};
use receipt::{Lie, Opening, SigningKey, sign_as_if_true};
use std::path::PathBuf;

/// Options of `lockstep tamper`.
#[derive(Args, Debug)]
pub(crate) struct TamperArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// What to do to it.
    #[arg(long, value_enum, default_value = "answer")]
    how: How,
    /// File for the tampered bundle.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The node's secret key. Default: that of `lockstep up` in the same data folder.
    #[arg(long, value_name = "FILE")]
    node_key: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum How {
    /// Another token in the middle of the answer, the trace computed anew behind it.
    Answer,
    /// Another token in the prompt than the one that was asked, the trace as it was.
    Prompt,
    /// A bit of one position's trace.
    Trace,
    /// The answer ends early.
    Short,
}

/// Signs a lie.
pub(crate) fn run(args: &TamperArgs) -> Result<(), Failure> {
    let subject = args.subject.load()?;
    let key = node_key(args.node_key.as_ref(), &args.subject)?;
    let mut opening = subject.bundle.opening.clone();
    let vocabulary = subject.base.model.shape.vocabulary as u32;
    let lie = match args.how {
        How::Answer => Lie::Answer,
        How::Prompt => Lie::Prompt,
        How::Trace => Lie::Trace,
        How::Short => Lie::Short,
    };
    lie.tell(&mut opening, vocabulary);
    if lie == Lie::Answer {
        opening.leaves = leaves(&subject, &opening, &args.subject)?;
    }
    let bundle = sign_as_if_true(&subject.claims, opening, &key);
    subject::write(&args.out, &bundle.to_bytes())?;
    println!("signed by the node as if it were true: {}", args.out.display());
    Ok(())
}

/// The node's key.
pub(crate) fn node_key(path: Option<&PathBuf>, subject: &SubjectArgs) -> Result<SigningKey, Failure> {
    match path {
        Some(path) => read_key(path),
        None => read_key(&subject.model.data_folder()?.join("node").join("node.key")),
    }
}

/// The trace of tokens as they are.
fn leaves(
    subject: &crate::subject::Subject,
    opening: &Opening,
    args: &SubjectArgs,
) -> Result<Vec<receipt::Hash>, Failure> {
    let mut tokens = [&opening.prompt[..], &opening.output[..]].concat();
    tokens.pop();
    let machine = &args.model.machine;
    let config = Config { threads: machine.threads(), isa: machine.isa()?, trace: true };
    let mut executor = Executor::new(subject.base.model.clone(), config)
        .map_err(|error| Failure(format!("starting threads: {error}")))?;
    let count = tokens.len().div_ceil(PAGE);
    let mut pages = Pages::new(&subject.base.model.shape, count);
    let ids: Vec<u32> = (0..count as u32).collect();
    let (adapter, mut leaves) = (subject.adapter.as_ref(), vec![]);
    for (number, chunk) in tokens.chunks(256).enumerate() {
        let segment = Segment { tokens: chunk, start: number * 256, pages: &ids, adapter, wanted: Wanted::None };
        leaves.append(&mut executor.step(&mut pages, &[segment]).leaves[0]);
    }
    Ok(leaves)
}
