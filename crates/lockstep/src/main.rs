//! Exact inference of many adapters on one base model, with a receipt for every answer.

mod bench;
mod demo;
mod failure;
mod generate;
mod progress;
mod score;
mod selftest;
mod source;
mod up;
mod verify;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Many fine-tuned models on one device; every answer the same bits on every machine, with a receipt anyone can replay.
///
/// Start with `lockstep up`: it serves a demo model and its five adapters to any OpenAI client.
#[derive(Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve a base model and its adapters to any OpenAI client.
    Up(up::UpArgs),
    /// Replay an answer and say whether its receipt is true. Exit code 0: equal; 1: not, or an error.
    Verify(verify::VerifyArgs),
    /// Answer one prompt on the terminal.
    Generate(generate::GenerateArgs),
    /// Score a text: its mean negative log-likelihood, and a digest of every logit.
    Score(score::ScoreArgs),
    /// Measure speed: prompts, decoding, batches of many adapters, beside the machine's own limits.
    Bench(bench::BenchArgs),
    /// Check on this machine that instruction sets, threads, batches and chunks all give the same bits.
    Selftest(selftest::SelftestArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up(args) => up::run(&args),
        Command::Verify(args) => match verify::run(&args) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(failure) => Err(failure),
        },
        Command::Generate(args) => generate::run(&args),
        Command::Score(args) => score::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Selftest(args) => selftest::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
