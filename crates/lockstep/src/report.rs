//! `lockstep report`: return on GPU, from a node's ledger, log and records alone.

use crate::books::BooksArgs;
use crate::failure::{Failure, io};
use crate::log::WhichLog;
use crate::progress::count_bar;
use crate::source::data_folder;
use clap::Args;
use ledger::Ledger;
use returns::{Device, Period, Report, Returns, Standing, civil};
use serde_json::json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Options of `lockstep report`.
#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Where the period begins: 2026-11-20 or 2026-11-20T18:30 (UTC). Default: with the first record.
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<u64>,
    /// Where it ends. Default: with the last record.
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<u64>,
    /// What the device costs: a known device's name, or a file (JSON) with any of name, source, price, life_months,
    /// residual_ppm, capital_ppm, idle_milliwatts, busy_milliwatts, energy, hosting, rent; amounts in micro-dollars, energy
    /// for a kilowatt-hour, hosting and rent for an hour. Without it nothing costs anything.
    #[arg(long, value_name = "NAME|FILE")]
    costs: Option<String>,
    /// Devices paid for.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    devices: u64,
    /// The node's data folder.
    #[arg(long, value_name = "DIR", env = "LOCKSTEP_DATA")]
    data: Option<PathBuf>,
    #[command(flatten)]
    books: BooksArgs,
    /// The node's log of receipts: an address or a folder. Default: the data folder's.
    #[arg(long, value_name = "URL|DIR")]
    log: Option<String>,
    /// Verdicts of an audit (`lockstep audit`): answers they refute do not count. May be given many times.
    #[arg(long, value_name = "FILE")]
    verdicts: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn time(text: &str) -> Result<u64, String> {
    civil::parse(text).ok_or_else(|| format!("{text:?} is not a time, such as 2026-11-20 or 2026-11-20T18:30"))
}

/// Prints the report.
pub(crate) fn run(args: &ReportArgs) -> Result<(), Failure> {
    let node = data_folder(args.data.as_deref())?.join("node");
    let records = node.join("device");
    let device = args.costs.as_deref().map(Device::find).transpose()?.unwrap_or_default();
    let all = returns::read(&records, args.from.unwrap_or(0), args.to.unwrap_or(u64::MAX))?;
    let from = args.from.or_else(|| all.first().map(|record| record.from)).unwrap_or(0);
    let to = args.to.or_else(|| all.last().map(|record| record.to)).unwrap_or(from);
    if from >= to {
        let what =
            "there is nothing to report: no record of the device's time in that period; serve with `lockstep up` first";
        return Err(Failure(what.to_owned()));
    }
    let log = args.log.clone().unwrap_or_else(|| node.join("log").display().to_string());
    let logged = logged(&log)?;
    let refuted = refuted(&args.verdicts)?;
    let stands = |receipt: &str| logged.contains(receipt) && !refuted.contains(receipt);
    let period = Period { from, to, devices: args.devices };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io(Path::new("threads")))?;
    let report = runtime.block_on(async {
        let config = ledger::Config::for_orders(args.books.database(&node));
        let ledger = Ledger::open(config).await?;
        gateway::report(&ledger, &records, period, device, stands).await.map_err(|error| Failure(error.to_string()))
    })?;
    if args.json {
        println!(
            "{:#}",
            json!({"report": report, "returns": report.returns(), "clock_error_ppm": report.clock_error_ppm()})
        );
    } else {
        print(&report, &report.returns());
    }
    Ok(())
}

/// Names of all receipts in a log.
fn logged(place: &str) -> Result<HashSet<String>, Failure> {
    let (reader, _) = WhichLog { place: place.to_owned(), node: None }.open()?;
    let bar = count_bar("log", reader.head().size);
    let mut names = HashSet::new();
    reader.entries(|_, entry| {
        names.insert(hex(&tlog::name_of(entry)));
        bar.inc(1);
        Ok(())
    })?;
    bar.finish_and_clear();
    Ok(names)
}

/// Names of all receipts that verdicts refute.
fn refuted(files: &[PathBuf]) -> Result<HashSet<String>, Failure> {
    let mut names = HashSet::new();
    for path in files {
        let text = std::fs::read_to_string(path).map_err(io(path))?;
        let lines = audit::range::read(&text).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
        for (_, statement) in lines {
            if statement.verdict["verdict"] == "differs" {
                names.insert(statement.receipt.chars().take(32).collect());
            }
        }
    }
    Ok(names)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn dollars(micros: i64) -> String {
    ledger::Micros(micros).to_string()
}

fn print(report: &Report, returns: &Returns) {
    let Period { from, to, devices } = report.period;
    let hours = |nanoseconds: u64| nanoseconds as f64 / 3.6e12;
    println!("Return on GPU, {} to {}", civil::words(from), civil::words(to));
    let known = if report.device.name.is_empty() { "at no known cost (--costs)" } else { report.device.name.as_str() };
    println!("  {devices} device(s), {:.4} hours paid; {known}", hours(report.period.paid()));
    if !report.device.source.is_empty() {
        println!("  {}", report.device.source);
    }
    println!("\nFor each paid device-hour, in dollars");
    println!(
        "  revenue           {:>14}   of it the operator's {}",
        dollars(returns.revenue),
        dollars(returns.operator_revenue)
    );
    println!("  cash margin       {:>14}   after energy and place", dollars(returns.cash_margin));
    println!("  economic profit   {:>14}   after depreciation and interest too", dollars(returns.economic_profit));
    let goodput = returns.goodput_per_dollar.map_or("nothing costs".to_owned(), |tokens| tokens.to_string());
    println!("  goodput           {goodput:>14}   tokens of good work for a dollar of cost");
    println!(
        "\n{:28} {:>8} {:>12} {:>12} {:>12} {:>14}",
        "Answers", "answers", "prompt", "cached", "tokens", "charged"
    );
    for standing in Standing::ALL {
        let work = report.of(standing);
        println!(
            "  {:26} {:>8} {:>12} {:>12} {:>12} {:>14}",
            words(standing),
            work.answers,
            work.prompt_tokens,
            work.cached_tokens,
            work.answer_tokens,
            dollars(work.amount)
        );
    }
    println!("\nTime of the device, {:.1} % of what was paid computing", returns.busy_ppm as f64 / 1e4);
    let kinds = report.time.kinds().into_iter().chain([("no record", report.unrecorded)]);
    for (name, nanoseconds) in kinds {
        let share = 100.0 * nanoseconds as f64 / report.period.paid().max(1) as f64;
        println!("  {name:18} {:>12.3} s {share:>7.2} %", nanoseconds as f64 / 1e9);
    }
    println!("  the parts differ from the clock by {} parts per million", report.clock_error_ppm());
    println!("\nModels                         good answers        tokens      dollars    seconds");
    for (name, model) in &report.models {
        let good = model.work.get(Standing::Good.name()).copied().unwrap_or_default();
        println!(
            "  {name:28} {:>12} {:>13} {:>12} {:>10.3}",
            good.answers,
            good.tokens(),
            dollars(good.amount),
            model.used.time.busy() as f64 / 1e9
        );
    }
    let bytes = report.bytes;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "\nMemory  base {:.1} MB, adapters {:.1} MB, pages {:.1} MB; {} separate deployments would take {:.1} MB of weights",
        megabytes(bytes.base),
        megabytes(bytes.adapters),
        megabytes(bytes.pages),
        bytes.models,
        megabytes(bytes.separate)
    );
    println!(
        "Spared  {} tokens by shared prompts and right guesses; {} wrong guesses",
        report.spared_tokens, report.rejected_tokens
    );
}

fn words(standing: Standing) -> &'static str {
    match standing {
        Standing::Good => "paid, in time, verified",
        Standing::Late => "late",
        Standing::Unverified => "without a standing receipt",
        Standing::Cancelled => "broken off by the client",
        Standing::Free => "free",
        Standing::Failed => "failed",
    }
}
