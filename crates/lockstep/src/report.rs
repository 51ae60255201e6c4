//! `lockstep report`: return on GPU, from ledger, logs and records of one node or several alone.

use crate::books::BooksArgs;
use crate::failure::{Failure, io};
use crate::log::WhichLog;
use crate::progress::count_bar;
use crate::source::data_folder;
use clap::Args;
use gateway::Node;
use ledger::{AccountId, Ledger};
use returns::{Device, Period, Report, Returns, Standing, civil};
use serde_json::json;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Options of `lockstep report`.
#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Where the period begins: 2026-11-20 or 2026-11-20T18:30 (UTC). Default: with each node's first record.
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<u64>,
    /// Where it ends. Default: with each node's last record.
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<u64>,
    /// What a device costs: a known device's name, or a file (JSON) with any of name, source, price, life_months,
    /// residual_ppm, capital_ppm, idle_milliwatts, busy_milliwatts, energy, hosting, rent; amounts in micro-dollars, energy
    /// for a kilowatt-hour, hosting and rent for an hour. Without it nothing costs anything. Given once for all nodes, or once
    /// for each --data.
    #[arg(long, value_name = "NAME|FILE")]
    costs: Vec<String>,
    /// Devices paid for, of each node.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    devices: u64,
    /// A node's data folder. Given for each node that is to be told of; they share a ledger (--database).
    #[arg(long, value_name = "DIR", env = "LOCKSTEP_DATA")]
    data: Vec<PathBuf>,
    #[command(flatten)]
    books: BooksArgs,
    /// The log of receipts of each --data: an address or a folder. Default: that in the data folder.
    #[arg(long, value_name = "URL|DIR")]
    log: Vec<String>,
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
    let folders = match &args.data[..] {
        [] => vec![data_folder(None)?],
        folders => folders.to_vec(),
    };
    if args.books.database.is_none() && folders.len() > 1 {
        let what = "nodes of one report share a ledger: say which with --database, or tell of them one by one";
        return Err(Failure(what.to_owned()));
    }
    if ![0, folders.len()].contains(&args.log.len()) || ![0, 1, folders.len()].contains(&args.costs.len()) {
        return Err(Failure(
            "--log is given for each --data or not at all, --costs for each, once, or not at all".to_owned(),
        ));
    }
    let costs = args.costs.iter().map(|costs| Device::find(costs)).collect::<Result<Vec<_>, _>>()?;
    let (mut nodes, mut logged) = (vec![], HashMap::new());
    for (index, folder) in folders.iter().enumerate() {
        let node = folder.join("node");
        let log = args.log.get(index).cloned().unwrap_or_else(|| node.join("log").display().to_string());
        let (key, receipts) = read_log(&log)?;
        let operator = gateway::operator(&key).map_err(|error| Failure(error.to_string()))?;
        let device = costs.get(index).or(costs.first()).cloned().unwrap_or_default();
        let records = node.join("device");
        let period = period(args, &records)?;
        if nodes.iter().any(|other: &Node| other.operator == operator) {
            return Err(Failure(format!("{}: its node was given twice", folder.display())));
        }
        logged.insert(operator.clone(), receipts);
        nodes.push(Node { operator, records, period, device });
    }
    let refuted = refuted(&args.verdicts)?;
    let stands = |operator: &AccountId, receipt: &str| {
        logged.get(operator).is_some_and(|logged| logged.contains(receipt)) && !refuted.contains(receipt)
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(io(Path::new("threads")))?;
    let database = args.books.database(&folders[0].join("node"));
    let reports = runtime.block_on(async {
        let ledger = Ledger::open(ledger::Config::for_orders(database)).await?;
        gateway::report(&ledger, &nodes, stands).await.map_err(|error| Failure(error.to_string()))
    })?;
    let told: Vec<(&str, &Report)> = nodes.iter().map(|node| node.operator.as_str()).zip(&reports).collect();
    if args.json {
        println!("{:#}", json(&told));
        return Ok(());
    }
    if let [(_, report)] = told[..] {
        print(report, &report.returns());
        return Ok(());
    }
    print_together(&told);
    for (operator, report) in told {
        println!("\n\n{operator}");
        print(report, &report.returns());
    }
    Ok(())
}

/// Every figure. What is told of a single node is told of each.
fn json(told: &[(&str, &Report)]) -> serde_json::Value {
    let node = |(operator, report): &(&str, &Report)| {
        let (returns, error) = (report.returns(), report.clock_error_ppm());
        json!({"operator": operator, "report": report, "returns": returns, "clock_error_ppm": error})
    };
    let together = Returns::together(told.iter().map(|(_, report)| *report));
    json!({"nodes": told.iter().map(node).collect::<Vec<_>>(), "together": together})
}

/// What is asked about a node.
fn period(args: &ReportArgs, records: &Path) -> Result<Period, Failure> {
    let all = returns::read(records, args.from.unwrap_or(0), args.to.unwrap_or(u64::MAX))?;
    let from = args.from.or_else(|| all.first().map(|record| record.from)).unwrap_or(0);
    let to = args.to.or_else(|| all.last().map(|record| record.to)).unwrap_or(from);
    if from >= to {
        return Err(Failure(format!(
            "{}: no record of the device's time in that period, so there is nothing to report; serve with `lockstep up` first",
            records.display()
        )));
    }
    Ok(Period { from, to, devices: args.devices })
}

/// Whose a log is, and the names of all receipts in it.
fn read_log(place: &str) -> Result<([u8; 32], HashSet<String>), Failure> {
    let mut names = HashSet::new();
    let (reader, node) = WhichLog { place: place.to_owned(), node: None }.open()?;
    let bar = count_bar("log", reader.head().size);
    reader.entries(|_, entry| {
        names.insert(hex(&tlog::name_of(entry)));
        bar.inc(1);
        Ok(())
    })?;
    bar.finish_and_clear();
    Ok((node, names))
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

/// The four lines of each node and of all.
fn print_together(told: &[(&str, &Report)]) {
    println!("Return on GPU of {} nodes, in dollars for each paid device-hour", told.len());
    println!(
        "\n{:30} {:>12} {:>12} {:>12} {:>16} {:>14} {:>8}",
        "", "hours paid", "revenue", "cash margin", "economic profit", "tokens/dollar", "busy"
    );
    let line = |name: &str, paid: f64, returns: &Returns| {
        println!(
            "{name:30} {:>12.4} {:>12} {:>12} {:>16} {:>14} {:>6.1} %",
            paid / 3.6e12,
            dollars(returns.revenue),
            dollars(returns.cash_margin),
            dollars(returns.economic_profit),
            returns.goodput_per_dollar.map_or("-".to_owned(), |tokens| tokens.to_string()),
            returns.busy_ppm as f64 / 1e4
        );
    };
    for (operator, report) in told {
        let name: String = operator.chars().take(25).chain("...".chars()).collect();
        line(&name, report.period.paid() as f64, &report.returns());
    }
    let paid = told.iter().map(|(_, report)| report.period.paid() as f64).sum();
    line("together", paid, &Returns::together(told.iter().map(|(_, report)| *report)));
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
