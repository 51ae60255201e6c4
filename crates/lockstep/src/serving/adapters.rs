//! Many adapters, few places: does the time to the first token fall off a cliff?

use super::{Dice, Served, ServingArgs, ask, percentile, together};
use crate::demo;
use crate::failure::{Failure, io};
use engine::{AdapterHandle, Engine, Request};
use model::{Adapter, AdapterCache, Model};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Adapters that differ, each in a folder of its own, made of the demo's.
pub(super) struct Farm {
    folder: PathBuf,
}

impl Farm {
    pub(super) fn grow(args: &ServingArgs, count: usize) -> Result<Farm, Failure> {
        let folder = args.model.data_folder()?.join(format!("bench-adapters-{}", std::process::id()));
        let farm = Farm { folder };
        for number in 0..count {
            let name = demo::ADAPTERS[number % demo::ADAPTERS.len()];
            farm.plant(&args.model.adapter_folder(name)?, number)?;
        }
        Ok(farm)
    }

    fn plant(&self, from: &Path, number: usize) -> Result<(), Failure> {
        let to = self.path(number);
        fs::create_dir_all(&to).map_err(io(&to))?;
        let config = "adapter_config.json";
        fs::copy(from.join(config), to.join(config)).map_err(io(&to))?;
        let file = from.join("adapter_model.safetensors");
        let mut bytes = fs::read(&file).map_err(io(&file))?;
        // The last weights carry the number in bits that hardly matter.
        let end = bytes.len();
        for (bit, at) in (end - 64..end).step_by(4).enumerate() {
            bytes[at] = bytes[at] & 0xfe | (number >> bit & 1) as u8;
        }
        fs::write(to.join("adapter_model.safetensors"), bytes).map_err(io(&to))
    }

    pub(super) fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("a{number:04}"))
    }

    /// Where quantised forms are kept, to go with the rest.
    pub(super) fn forms(&self) -> PathBuf {
        self.folder.join("forms")
    }

    /// Makes the quantised forms of the first `count`, as their first use would.
    fn keep_forms(&self, args: &ServingArgs, base: &Model, count: usize) -> Result<(), Failure> {
        let started = Instant::now();
        let (cache, isa, threads) = (self.cache(), args.model.machine.isa()?, args.model.machine.threads());
        for number in 0..count {
            cache.load(&self.path(number), base, isa, threads)?;
        }
        let each = started.elapsed().as_secs_f64() * 1e3 / count as f64;
        println!(
            "each was used before and has its quantised form on disk; making that took {each:.1} ms, once for all time"
        );
        Ok(())
    }

    /// Throws the quantised forms away, as if nobody had ever used them.
    pub(super) fn forget_forms(&self) {
        // Forms that stay are only quicker than they should be.
        let _ = fs::remove_dir_all(self.forms());
    }

    fn cache(&self) -> AdapterCache {
        AdapterCache::new(&self.forms(), 64 << 30)
    }

    pub(super) fn register(&self, engine: &Engine, count: usize) -> Result<Vec<Arc<AdapterHandle>>, Failure> {
        engine.adapters().keep_forms(self.cache());
        let register = |n| Ok(engine.adapters().register(&format!("a{n:04}"), &self.path(n))?);
        (0..count).map(register).collect()
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        // What stays behind is a folder of copies.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

pub(super) fn run(args: &ServingArgs) -> Result<(), Failure> {
    let count = args.adapters.unwrap_or(1000);
    let slots = (count / 16).max(1);
    let served = Served::load(args, 0)?;
    let farm = Farm::grow(args, count)?;
    let isa = args.model.machine.isa()?;
    let bytes = |name| Ok::<_, Failure>(Adapter::load(&args.model.adapter_folder(name)?, &served.model, isa)?.bytes());
    let each =
        demo::ADAPTERS.into_iter().map(bytes).collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0) as u64;
    println!(
        "{count} adapters of at most {:.2} MB, {slots} of them resident at most, host memory for {}; {} clients, {} requests a \
         point, 48 tokens of prompt, 16 of answer",
        each as f64 / 1e6,
        slots as u64 * args.host,
        args.clients,
        args.requests
    );
    farm.keep_forms(args, &served.model, count)?;
    println!(
        "{:8} {:>8} {:>6}  {:>12} {:>12} {:>10}  {:>7}",
        "", "in use", "×", "first p50 ms", "first p99 ms", "requests/s", "loads"
    );
    for zipf in [false, true] {
        for times in [1, 2, 4, 16] {
            // A new engine, so that each point begins alike; the first half of the requests only warms it.
            let engine = served.engine(args, 1024, |config| {
                config.memory = config.context.div_ceil(cpu::PAGE) as u64
                    * cpu::Pages::page_bytes(&served.model.shape) as u64
                    + slots as u64 * each;
                config.host_memory = slots as u64 * args.host * each;
            })?;
            let handles = farm.register(&engine, count)?;
            let use_of = (slots * times).min(count);
            let measure = |seed: u64| {
                let started = Instant::now();
                let times = together(args.clients, |client| {
                    let mut dice = Dice(seed << 40 | (client as u64) << 32);
                    let mut first = Vec::new();
                    for _ in 0..args.requests.div_ceil(args.clients) {
                        let pick = if zipf { skewed(&mut dice, use_of) } else { dice.below(use_of) };
                        let adapter = Some(handles[pick].clone());
                        let request = Request { adapter, ..Request::new(dice.tokens(48), 16) };
                        first.push(ask(&engine, request)?.first);
                    }
                    Ok(first)
                })?;
                Ok::<_, Failure>((times, started.elapsed()))
            };
            if times == 1 {
                // Everything that fits is there before the clock starts.
                for handle in &handles[..use_of] {
                    ask(&engine, Request { adapter: Some(handle.clone()), ..Request::new(vec![5; 4], 1) })?;
                }
            }
            measure(1)?;
            let before = engine.counters().adapters_loaded;
            let (first, elapsed): (Vec<Duration>, Duration) = measure(2)?;
            println!(
                "{:8} {use_of:8} {times:5}×  {:12.2} {:12.2} {:10.1}  {:7}",
                if zipf { "Zipf" } else { "uniform" },
                percentile(&first, 0.5),
                percentile(&first, 0.99),
                first.len() as f64 / elapsed.as_secs_f64(),
                engine.counters().adapters_loaded - before,
            );
        }
    }
    Ok(())
}

/// Adapter i about as often as 1 / (i + 1): the inverse of the continuous law.
fn skewed(dice: &mut Dice, count: usize) -> usize {
    let u = f64::from(dice.word()) / f64::from(u32::MAX);
    ((count as f64 + 1.0).powf(u) as usize).clamp(1, count) - 1
}
