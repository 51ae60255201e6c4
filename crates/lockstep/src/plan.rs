//! `lockstep plan`: how many devices some traffic needs, and what they return.

use crate::failure::Failure;
use crate::load::arrivals::{Arrival, TrafficArgs};
use crate::source::data_folder;
use clap::Args;
use ledger::{PriceList, Usage};
use returns::fleet::{Ask, Fleet, Need, Speed, need};
use returns::{Device, Time};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Options of `lockstep plan`.
#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    traffic: TrafficArgs,
    /// How many adapters share the traffic, if it is not a trace.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    adapters: u32,
    /// Tokens of prompts a second that one full device computes (`lockstep bench`). Default: as measured by the server in
    /// the data folder.
    #[arg(long, value_name = "N", requires = "decode")]
    prefill: Option<f64>,
    /// Tokens of answers a second that one full device computes, all streams together.
    #[arg(long, value_name = "N", requires = "prefill")]
    decode: Option<f64>,
    /// The data folder of a server that was busy, to take speeds from.
    #[arg(long, value_name = "DIR", env = "LOCKSTEP_DATA")]
    data: Option<PathBuf>,
    /// What a device costs: a name or a file, as for `lockstep report`.
    #[arg(long, value_name = "NAME|FILE")]
    costs: String,
    /// What requests are charged (a price list, as for `lockstep up`).
    #[arg(long, value_name = "FILE")]
    prices: PathBuf,
    /// A hosted API's prices, in the same form, to compare with.
    #[arg(long, value_name = "FILE")]
    hosted: Option<PathBuf>,
    /// The part of a window that a device may be busy.
    #[arg(long, default_value_t = 0.7, value_name = "0..1")]
    load_max: f64,
    /// Seconds of a window.
    #[arg(long, default_value_t = 60.0, value_name = "S")]
    window: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the plan.
pub(crate) fn run(args: &PlanArgs) -> Result<(), Failure> {
    if !(args.load_max > 0.0 && args.load_max <= 1.0 && args.window > 0.0) {
        return Err(Failure("--load-max is above 0 and at most 1, --window above 0".to_owned()));
    }
    let names: Vec<String> = (1..=args.adapters).map(|number| format!("adapter-{number}")).collect();
    let arrivals = args.traffic.arrivals(&names)?;
    let seconds = args.traffic.seconds(&arrivals).max(1.0);
    let speed = speed(args)?;
    let device = Device::find(&args.costs)?;
    let asks: Vec<Ask<'_>> = arrivals.iter().map(ask).collect();
    let need = need(&asks, seconds, speed, args.window, args.load_max);
    let prices = PriceList::read(&args.prices).map_err(|error| Failure(error.to_string()))?;
    let hosted = args.hosted.as_deref().map(PriceList::read).transpose().map_err(|error| Failure(error.to_string()))?;
    let revenue = charge(&prices, &need)?;
    let hosted = hosted.map(|hosted| charge(&hosted, &need)).transpose()?;
    let lines = [("all models share devices", need.shared), ("devices for each model", need.separate)]
        .map(|(what, fleet)| Line::new(what, fleet, &device, seconds, revenue));
    if args.json {
        let lines: Vec<Value> = lines.iter().map(Line::to_json).collect();
        let told = json!({
            "speed": speed, "seconds": seconds, "need": need, "device": device,
            "revenue": revenue, "hosted": hosted, "fleets": lines,
        });
        println!("{told:#}");
        return Ok(());
    }
    println!(
        "{} requests for {} models in {seconds:.0} s; a full device computes {:.0} tokens of prompts or {:.0} of answers a second",
        arrivals.len(),
        need.tokens.len(),
        speed.prefill,
        speed.decode
    );
    println!("{}: {}", device.name, device.source);
    println!(
        "\n{:26} {:>8} {:>7} {:>12} {:>12} {:>12} {:>12}",
        "", "devices", "busy", "cost/h", "revenue", "cash margin", "profit"
    );
    println!("{:26} {:>8} {:>7} {:>12} {:>38}", "", "", "", "dollars", "dollars for a device-hour");
    for line in &lines {
        line.print();
    }
    let ratio = lines[0].revenue / lines[1].revenue.max(f64::MIN_POSITIVE);
    println!("\nA shared device-hour earns {ratio:.1} times what one of separate deployments does.");
    if let Some(hosted) = hosted {
        let own = lines[0].cost_hour * seconds / 3600.0;
        println!(
            "The same traffic at the hosted API's prices: {:.4} dollars; shared devices cost {own:.4} for that time ({:.2} of it).",
            hosted as f64 / 1e6,
            own / (hosted as f64 / 1e6).max(1e-12)
        );
    }
    Ok(())
}

fn ask(arrival: &Arrival) -> Ask<'_> {
    Ask {
        at: arrival.at,
        model: &arrival.model,
        prompt: arrival.prompt_tokens,
        shared: arrival.shared_tokens,
        prefix: arrival.prefix,
        output: arrival.output_tokens,
    }
}

/// As given, or as a server measured it.
fn speed(args: &PlanArgs) -> Result<Speed, Failure> {
    if let (Some(prefill), Some(decode)) = (args.prefill, args.decode) {
        if !(prefill > 0.0 && decode > 0.0) {
            return Err(Failure("--prefill and --decode are above 0".to_owned()));
        }
        return Ok(Speed { prefill, decode });
    }
    let folder = data_folder(args.data.as_deref())?.join("node").join("device");
    let (mut time, mut prompt, mut answer) = (Time::default(), 0, 0);
    for record in returns::read(&folder, 0, u64::MAX)? {
        time.add(&record.time);
        for used in record.adapters.values().chain([&record.base]) {
            prompt += used.prefill_tokens;
            answer += used.answer_tokens;
        }
    }
    if prompt == 0 || answer == 0 {
        return Err(Failure(
            "no server in the data folder has measured its speed: serve under load first, or give --prefill and --decode"
                .to_owned(),
        ));
    }
    let rate = |tokens: u64, nanoseconds: u64| tokens as f64 * 1e9 / nanoseconds.max(1) as f64;
    let decode = time.decode + time.accepted + time.rejected + time.recomputed;
    Ok(Speed { prefill: rate(prompt, time.prefill), decode: rate(answer, decode) })
}

/// Micro-dollars for all traffic by a list; rounded once a model.
fn charge(prices: &PriceList, need: &Need) -> Result<i64, Failure> {
    let mut sum = 0i64;
    for (model, tokens) in &need.tokens {
        let usage = Usage { prompt: tokens.prompt, cached: tokens.cached, output: tokens.output, accepted: 0 };
        let cost = prices.of(model).cost(&usage).map_err(|error| Failure(error.to_string()))?;
        sum = sum.saturating_add(cost.0);
    }
    Ok(sum)
}

/// A fleet in dollars.
struct Line {
    what: &'static str,
    fleet: Fleet,
    busy: f64,
    /// Dollars an hour, of all devices.
    cost_hour: f64,
    /// Dollars for a device-hour.
    revenue: f64,
    cash_margin: f64,
    profit: f64,
}

impl Line {
    fn new(what: &'static str, fleet: Fleet, device: &Device, seconds: f64, revenue: i64) -> Line {
        let cost = fleet.cost(device, seconds);
        let device_hours = fleet.devices as f64 * seconds / 3600.0;
        let each = |micros: i64| micros as f64 / 1e6 / device_hours;
        Line {
            what,
            fleet,
            busy: fleet.busy_seconds / (fleet.devices as f64 * seconds),
            cost_hour: cost.total() as f64 / 1e6 * 3600.0 / seconds,
            revenue: each(revenue),
            cash_margin: each(revenue - cost.cash()),
            profit: each(revenue - cost.total()),
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "what": self.what, "fleet": self.fleet, "busy": self.busy, "cost_an_hour": self.cost_hour,
            "revenue_a_device_hour": self.revenue, "cash_margin_a_device_hour": self.cash_margin,
            "economic_profit_a_device_hour": self.profit,
        })
    }

    fn print(&self) {
        println!(
            "{:26} {:>8} {:>6.1}% {:>12.4} {:>12.4} {:>12.4} {:>12.4}",
            self.what,
            self.fleet.devices,
            100.0 * self.busy,
            self.cost_hour,
            self.revenue,
            self.cash_margin,
            self.profit
        );
    }
}
