//! `lockstep load`: traffic against any OpenAI-compatible server, and what it gave under it.

pub(crate) mod arrivals;
mod client;
mod summary;

use crate::failure::Failure;
use crate::progress::count_bar;
use arrivals::{Arrival, TrafficArgs};
use clap::Args;
use client::{Answered, Client};
use returns::Device;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use summary::Summary;

/// Bytes of a client thread's stack.
const STACK_BYTES: usize = 256 << 10;

/// Options of `lockstep load`.
#[derive(Args, Debug)]
pub(crate) struct LoadArgs {
    /// The server's address, with the API's path.
    #[arg(long, default_value = "http://127.0.0.1:8000/v1", value_name = "URL")]
    url: String,
    /// Ask another server for one model: to compare separate deployments with a shared one. May be given many times.
    #[arg(long = "route", value_name = "NAME=URL", value_parser = route)]
    routes: Vec<(String, String)>,
    /// Key to send.
    #[arg(long, env = "LOCKSTEP_API_KEY", hide_env_values = true, value_name = "KEY")]
    key: Option<String>,
    /// Models to ask for, the most wanted first, separated by commas. Default: all that the server has.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    models: Vec<String>,
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Ask for answers of full length (`ignore_eos`, which Lockstep and vLLM know).
    #[arg(long)]
    ignore_eos: bool,
    /// Requests under way at once, at most: further ones wait here, and their time counts.
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=8192))]
    at_once: u16,
    /// Milliseconds to a first token, and from token to token on average: slower answers are no goodput.
    #[arg(long, value_name = "FIRST,EACH", default_value = "5000,250", value_parser = crate::books::target)]
    target: gateway::Target,
    /// Seconds that one request may take.
    #[arg(long, default_value_t = 600, value_name = "S")]
    deadline: u64,
    /// What the server's device costs, for the cost of a million tokens: a name or a file, as for `lockstep report`.
    #[arg(long, value_name = "NAME|FILE")]
    costs: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn route(text: &str) -> Result<(String, String), String> {
    let (name, url) = text.split_once('=').ok_or_else(|| format!("{text:?} is not NAME=URL"))?;
    Ok((name.to_owned(), url.trim_end_matches('/').to_owned()))
}

/// Sends the traffic and prints what came of it.
pub(crate) fn run(args: &LoadArgs) -> Result<(), Failure> {
    let device = args.costs.as_deref().map(Device::find).transpose()?;
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(args.deadline)))
        .http_status_as_error(false)
        .max_idle_connections(usize::from(args.at_once))
        .max_idle_connections_per_host(usize::from(args.at_once))
        .build();
    let url = args.url.trim_end_matches('/').to_owned();
    let routes = args.routes.iter().cloned().collect();
    let client = Client { agent: config.into(), url, routes, key: args.key.clone(), ignore_end: args.ignore_eos };
    let models = if args.models.is_empty() { client.models()? } else { args.models.clone() };
    let arrivals = args.traffic.arrivals(&models)?;
    let started = Instant::now();
    let answered = send(&client, &arrivals, usize::from(args.at_once), started)?;
    let summary = Summary::new(&answered, started.elapsed(), args.traffic.seconds(&arrivals), &args.target);
    if args.json {
        println!("{:#}", summary.to_json(device.as_ref()));
    } else {
        summary.print(device.as_ref());
    }
    Ok(())
}

/// Sends each request when it is due, in a thread of its own.
fn send(client: &Client, arrivals: &[Arrival], at_once: usize, started: Instant) -> Result<Vec<Answered>, Failure> {
    let bar = count_bar("requests", arrivals.len() as u64);
    let under_way = AtomicUsize::new(0);
    let (results, gathered) = channel();
    let mut all = Vec::with_capacity(arrivals.len());
    std::thread::scope(|scope| {
        for (number, arrival) in (0..).zip(arrivals) {
            let due = started + Duration::from_secs_f64(arrival.at);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            while under_way.load(Relaxed) >= at_once {
                std::thread::sleep(Duration::from_millis(1));
            }
            let (under_way, results, bar) = (&under_way, results.clone(), &bar);
            under_way.fetch_add(1, Relaxed);
            let ask = move || {
                // Nobody stops listening before all have answered.
                let _ = results.send(client.ask(number, arrival, due));
                under_way.fetch_sub(1, Relaxed);
                bar.inc(1);
            };
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, ask);
            thread.map_err(|error| Failure(format!("starting threads: {error}; lower --at-once")))?;
        }
        drop(results);
        all.extend(gathered.iter());
        Ok::<(), Failure>(())
    })?;
    bar.finish_and_clear();
    Ok(all)
}
