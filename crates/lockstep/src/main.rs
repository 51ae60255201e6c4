//! Exact inference of many adapters on one base model, with a receipt for every answer.

mod accounts;
mod audit_log;
mod audit_range;
mod bench;
mod books;
mod countersign;
mod cuda_checks;
mod demo;
mod device;
mod dispute;
mod failure;
mod generate;
mod key;
mod light;
mod load;
mod log;
mod logs;
mod plan;
mod progress;
mod remote;
mod report;
mod score;
mod selftest;
mod serve;
mod serving;
mod source;
mod statement;
mod subject;
mod tamper;
mod up;
mod verify;
mod witness;

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
    Up(Box<up::UpArgs>),
    /// Replay an answer and say whether its receipt is true. Exit code 0: equal; 1: not, or an error.
    Verify(verify::VerifyArgs),
    /// Sign, as a client, that you got an answer: neither side can deny it then.
    Countersign(countersign::CountersignArgs),
    /// Check a node's log of receipts, prove what is in it, serve a copy of it.
    Log(log::LogArgs),
    /// Witness logs: sign their heads as long as each continues the one before.
    Witness(witness::WitnessArgs),
    /// Replay every answer of a folder; signed verdicts, interrupted runs go on. Exit code 0: all are true.
    Audit(audit_range::AuditArgs),
    /// How many devices some traffic needs, shared or apart, and what they return.
    Plan(plan::PlanArgs),
    /// Send traffic to any OpenAI-compatible server; throughput, latency, goodput, cost.
    Load(load::LoadArgs),
    /// Return on GPU: what a node's time cost and earned, from its ledger, log and records alone.
    Report(report::ReportArgs),
    /// Look at the ledger, give orders to it, check it. Exit code 1: its books are not sound, or an error.
    Ledger(accounts::LedgerArgs),
    /// Signed statements of all balances, and proofs of one. Exit code 1: it does not hold, or an error.
    Statement(statement::StatementArgs),
    /// Decide who lied, without the model. Exit code 0: the receipt stands; 1: it does not, or an error.
    Dispute(dispute::DisputeArgs),
    /// Make a secret key for light checks, the weights passing through memory once.
    LightKey(light::LightKeyArgs),
    /// Open a span of an answer for a light check.
    LightOpen(light::LightOpenArgs),
    /// Check an opened span without the weights. Exit code 0: it holds; 1: it does not, or an error.
    LightCheck(light::LightCheckArgs),
    /// Do to an answer what a cheating node would, to see it caught.
    Tamper(tamper::TamperArgs),
    /// Make an API key for `lockstep up --api-keys`: prints the key once, and its line for the file.
    Key(key::KeyArgs),
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
    // Whether everything is as claimed, of commands that judge.
    let result = match Cli::parse().command {
        Command::Up(args) => up::run(&args).map(|()| true),
        Command::Verify(args) => verify::run(&args),
        Command::Countersign(args) => countersign::run(&args).map(|()| true),
        Command::Audit(args) => audit_range::run(&args),
        Command::Load(args) => load::run(&args).map(|()| true),
        Command::Plan(args) => plan::run(&args).map(|()| true),
        Command::Report(args) => report::run(&args).map(|()| true),
        Command::Ledger(args) => accounts::run(&args),
        Command::Statement(args) => statement::run(&args),
        Command::Dispute(args) => dispute::run(&args),
        Command::LightKey(args) => light::run_key(&args).map(|()| true),
        Command::LightOpen(args) => light::run_open(&args).map(|()| true),
        Command::LightCheck(args) => light::run_check(&args),
        Command::Tamper(args) => tamper::run(&args).map(|()| true),
        Command::Log(args) => log::run(&args),
        Command::Witness(args) => witness::run(&args),
        Command::Generate(args) => generate::run(&args).map(|()| true),
        Command::Score(args) => score::run(&args).map(|()| true),
        Command::Bench(args) => bench::run(&args).map(|()| true),
        Command::Selftest(args) => selftest::run(&args).map(|()| true),
        Command::Key(args) => key::run(&args).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
