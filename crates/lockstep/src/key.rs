//! `lockstep key`: a new API key.

use crate::failure::Failure;
use clap::Args;
use gateway::Keys;
use ledger::Micros;

/// Options of `lockstep key`.
#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    /// Whose key it is: shown in logs, one word; its account in the ledger is customer:NAME.
    name: String,
    /// Dollars it may spend beyond what is paid in. Default: nothing.
    #[arg(long, value_name = "DOLLARS")]
    budget: Option<Micros>,
    /// Requests a minute it may make. Default: any number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    requests: Option<u32>,
    /// Tokens a minute, of prompts and answers, it may use. Default: any number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    tokens: Option<u32>,
}

/// Prints a key on standard error and its line on standard output, so that `lockstep key ada >> keys` keeps the line.
pub(crate) fn run(args: &KeyArgs) -> Result<(), Failure> {
    if args.name.is_empty() || args.name.starts_with('#') || args.name.contains(char::is_whitespace) {
        return Err(Failure("a key's name is one word that does not start with #".to_owned()));
    }
    if args.budget.is_some_and(|budget| !budget.is_amount()) {
        return Err(Failure("--budget is an amount of dollars, such as 5.00".to_owned()));
    }
    let (key, mut line) = Keys::create(&args.name).map_err(|error| Failure(error.to_string()))?;
    let bounds = [
        ("budget", args.budget.map(|budget| budget.to_string())),
        ("requests", args.requests.map(|count| count.to_string())),
        ("tokens", args.tokens.map(|count| count.to_string())),
    ];
    for (what, bound) in bounds {
        if let Some(bound) = bound {
            line.push_str(&format!(" {what}={bound}"));
        }
    }
    eprintln!("the key, shown once: {key}");
    println!("{line}");
    Ok(())
}
