//! `lockstep bench`: speed beside what the machine can do at most, measured in the same run.

use crate::device::Choice;
use crate::failure::Failure;
use crate::serving::{self, ServingArgs};
use crate::source::{ModelArgs, named_adapter};
use clap::{Args, Subcommand};
use cpu::{Config, Executor, PAGE, Pages, Segment, Wanted};
use exact::limits::{self, Limits};
use model::{Adapter, Mlp, Model, Shape};
use std::sync::Arc;
use std::time::Instant;

/// Options of `lockstep bench`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    kind: Option<Kind>,
    #[command(flatten)]
    model: ModelArgs,
    /// Where to measure. With cuda: random weights of 1.24, 8 and 30 billion parameters, those that fit; of the other
    /// options --activations alone counts.
    #[arg(long, default_value = "cpu", value_name = "auto|cpu|cuda|cuda:N")]
    device: Choice,
    /// Make random weights of a shape instead of loading a model.
    #[arg(long, value_name = "llama-1.24b", value_parser = ["llama-1.24b"], conflicts_with = "model")]
    random: Option<String>,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65536))]
    prompt: u32,
    /// Tokens decoded in each run.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    decode: u32,
    /// Streams decoded together, as many adapters at most.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=512))]
    streams: u32,
    /// Numbers of adapters among the streams, each measured.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 16])]
    adapters: Vec<u32>,
    /// Rank of the random adapters.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    rank: u16,
    /// Adapters to use instead of random ones.
    #[arg(long = "adapter", value_name = "NAME=DIR")]
    named: Vec<String>,
    /// Runs of each measurement; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeats: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Other benchmarks.
#[derive(Subcommand, Debug)]
enum Kind {
    /// Serving at full load: many adapters, noisy neighbours, shared prefixes, predicted answers.
    Serving(Box<ServingArgs>),
}

/// One measured line.
#[derive(serde::Serialize)]
struct Row {
    what: String,
    tokens_per_second: f64,
    /// Medians hide spread; these show it.
    slowest: f64,
    fastest: f64,
    /// 10⁹ bytes of weights, adapters, keys and values read a second, and their share of the read limit.
    gigabytes_per_second: f64,
    share_of_read: f64,
    /// 10⁹ integer operations a second, and their share of the int8 limit.
    gigaops_per_second: f64,
    share_of_int8: f64,
}

/// What one step must read and compute at least.
struct Work {
    bytes: f64,
    ops: f64,
}

/// Measures and prints.
pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    if let Some(number) = args.device.cuda() {
        return crate::cuda_checks::bench(number, args.model.activations);
    }
    if let Some(Kind::Serving(args)) = &args.kind {
        return serving::run(args);
    }
    let (isa, threads) = (args.model.machine.isa()?, args.model.machine.threads());
    let (name, model) = match &args.random {
        Some(name) => {
            eprintln!("making random weights of {name} …");
            (name.clone(), Arc::new(Model::random(Shape::llama_1_24b(), args.model.activations, 1)))
        }
        None => {
            let base = args.model.load()?;
            (base.name, base.model)
        }
    };
    let adapters = adapters(args, &model)?;
    let limits = limits::measure(isa, threads);
    let mut bench = Bench::new(args, model.clone(), limits)?;
    let mut rows = vec![bench.prompt(args.prompt as usize), bench.decode(args.prompt as usize, args.decode as usize)];
    for count in args.adapters.iter().filter(|count| **count as usize <= adapters.len()) {
        rows.push(bench.streams(args.streams as usize, &adapters[..*count as usize], args.decode as usize));
    }
    if args.json {
        let all = serde_json::json!({
            "model": name, "activations": args.model.activations.name(), "isa": isa.name(), "threads": threads,
            "read_limit_gb_s": limits.read_bytes / 1e9, "int8_limit_gop_s": limits.int8_ops / 1e9,
            "weights_bytes": model.weights.bytes(), "rows": rows,
        });
        println!("{all}");
        return Ok(());
    }
    println!("{name}, {}, {isa}, {threads} threads", args.model.activations.name());
    println!("weights {:.2} GB in memory", model.weights.bytes() as f64 / 1e9);
    println!(
        "limits of this machine, measured now: read {:.1} GB/s, int8 {:.0} GOP/s\n",
        limits.read_bytes / 1e9,
        limits.int8_ops / 1e9
    );
    println!(
        "{:44} {:>9} {:>17}  {:>7} {:>6}  {:>7} {:>6}",
        "", "tokens/s", "(min … max)", "GB/s", "share", "GOP/s", "share"
    );
    for row in &rows {
        println!(
            "{:44} {:9.2} {:>17}  {:7.2} {:5.0}%  {:7.0} {:5.0}%",
            row.what,
            row.tokens_per_second,
            format!("({:.1} … {:.1})", row.slowest, row.fastest),
            row.gigabytes_per_second,
            100.0 * row.share_of_read,
            row.gigaops_per_second,
            100.0 * row.share_of_int8,
        );
    }
    Ok(())
}

fn adapters(args: &BenchArgs, model: &Arc<Model>) -> Result<Vec<Adapter>, Failure> {
    if !args.named.is_empty() {
        let load = |argument: &String| {
            let (_, folder) = named_adapter(argument)?;
            Ok(Adapter::load(std::path::Path::new(&folder), model, args.model.machine.isa()?)?)
        };
        return args.named.iter().map(load).collect();
    }
    let most = args.adapters.iter().copied().max().unwrap_or(0).min(args.streams);
    Ok((0..most).map(|i| Adapter::random(&model.plan, usize::from(args.rank), u64::from(i))).collect())
}

struct Bench {
    model: Arc<Model>,
    executor: Executor,
    pages: Pages,
    tokens: Vec<u32>,
    limits: Limits,
    repeats: usize,
}

impl Bench {
    fn new(args: &BenchArgs, model: Arc<Model>, limits: Limits) -> Result<Self, Failure> {
        let config = Config { threads: args.model.machine.threads(), isa: args.model.machine.isa()?, trace: false };
        let executor =
            Executor::new(model.clone(), config).map_err(|error| Failure(format!("starting threads: {error}")))?;
        let single = (args.prompt + args.decode) as usize;
        let together = args.streams as usize * (64 + args.decode as usize).div_ceil(PAGE);
        let pages = Pages::new(&model.shape, single.div_ceil(PAGE).max(together));
        let vocabulary = model.shape.vocabulary as u32;
        let tokens = (0..args.prompt.max(args.streams)).map(|i| (i * 7919 + 13) % vocabulary).collect();
        Ok(Bench { model, executor, pages, tokens, limits, repeats: usize::from(args.repeats) })
    }

    fn prompt(&mut self, count: usize) -> Row {
        let ids: Vec<u32> = (0..count.div_ceil(PAGE) as u32).collect();
        let tokens = self.tokens[..count].to_vec();
        let work = self.work(count, 1, &[], count / 2);
        self.measure(format!("prompt of {count}"), count, work, |bench| {
            let segment = Segment { tokens: &tokens, start: 0, pages: &ids, adapter: None, wanted: Wanted::Last };
            bench.executor.step(&mut bench.pages, &[segment]);
            1
        })
    }

    fn decode(&mut self, past: usize, steps: usize) -> Row {
        let ids: Vec<u32> = (0..(past + steps).div_ceil(PAGE) as u32).collect();
        let token = [self.tokens[0]];
        let work = self.work(1, 1, &[], past);
        self.measure(format!("decode 1 stream after {past}"), 1, work, |bench| {
            for step in 0..steps {
                let start = past + step;
                let segment = Segment { tokens: &token, start, pages: &ids, adapter: None, wanted: Wanted::Last };
                bench.executor.step(&mut bench.pages, &[segment]);
            }
            steps
        })
    }

    fn streams(&mut self, streams: usize, adapters: &[Adapter], steps: usize) -> Row {
        let per_stream = (64 + steps).div_ceil(PAGE);
        let ids: Vec<u32> = (0..(streams * per_stream) as u32).collect();
        let tokens = self.tokens[..streams].to_vec();
        let work = self.work(streams, streams, adapters, 64);
        let what = format!("decode {streams} streams, {} adapters", adapters.len());
        self.measure(what, streams, work, |bench| {
            for step in 0..steps {
                let segments: Vec<Segment<'_>> = (0..streams)
                    .map(|s| Segment {
                        tokens: &tokens[s..=s],
                        start: 64 + step,
                        pages: &ids[s * per_stream..],
                        adapter: if adapters.is_empty() { None } else { Some(&adapters[s % adapters.len()]) },
                        wanted: Wanted::Last,
                    })
                    .collect();
                bench.executor.step(&mut bench.pages, &segments);
            }
            steps
        })
    }

    /// Bytes and operations of a step of `rows` tokens, `heads` of them with logits, `past` positions each.
    fn work(&self, rows: usize, heads: usize, adapters: &[Adapter], past: usize) -> Work {
        let (shape, plan) = (&self.model.shape, &self.model.plan);
        let planes = self.model.activations.planes() as f64;
        let (mut bytes, mut ops) = (0.0, 0.0);
        for (number, site) in plan.sites.iter().enumerate() {
            let products = (site.inputs * site.outputs) as f64;
            bytes += products;
            ops += 2.0 * planes * products * if number == plan.head { heads } else { rows } as f64;
        }
        for mlp in &shape.mlps {
            if let Mlp::Experts { experts, chosen, width, .. } = mlp {
                let products = (3 * shape.hidden * width) as f64;
                bytes += products * (experts.min(&(chosen * rows))).to_owned() as f64;
                ops += 2.0 * planes * products * (chosen * rows) as f64;
            }
        }
        bytes += adapters.iter().map(|adapter| adapter.bytes() as f64).sum::<f64>();
        bytes += (heads * past * 2 * shape.layers * shape.key_heads * shape.head_dim) as f64;
        Work { bytes, ops }
    }

    /// Times `run`, which does some steps of `tokens` tokens and `work` each and says how many.
    fn measure(&mut self, what: String, tokens: usize, work: Work, run: impl Fn(&mut Self) -> usize) -> Row {
        run(self);
        let mut seconds: Vec<f64> = (0..self.repeats)
            .map(|_| {
                let start = Instant::now();
                let steps = run(self);
                start.elapsed().as_secs_f64() / steps as f64
            })
            .collect();
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        Row {
            what,
            tokens_per_second: tokens as f64 / median,
            slowest: tokens as f64 / seconds[seconds.len() - 1],
            fastest: tokens as f64 / seconds[0],
            gigabytes_per_second: work.bytes / median / 1e9,
            share_of_read: work.bytes / median / self.limits.read_bytes,
            gigaops_per_second: work.ops / median / 1e9,
            share_of_int8: work.ops / median / self.limits.int8_ops,
        }
    }
}
