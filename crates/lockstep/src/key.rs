//! `lockstep key`: a new API key.

use crate::failure::Failure;
use clap::Args;
use gateway::Keys;

/// Options of `lockstep key`.
#[derive(Args, Debug)]
pub(crate) struct KeyArgs {
    /// Whose key it is: shown in logs, one word.
    name: String,
}

/// Prints a key on standard error and its line on standard output, so that `lockstep key ada >> keys` keeps the line.
pub(crate) fn run(args: &KeyArgs) -> Result<(), Failure> {
    if args.name.is_empty() || args.name.starts_with('#') || args.name.contains(char::is_whitespace) {
        return Err(Failure("a key's name is one word that does not start with #".to_owned()));
    }
    let (key, line) = Keys::create(&args.name).map_err(|error| Failure(error.to_string()))?;
    eprintln!("the key, shown once: {key}");
    println!("{line}");
    Ok(())
}
