//! Speed on a device, beside what it can do at most, measured in the same run.

use crate::arguments::Measure;
use crate::executor::{Config, Executor};
use crate::kernel;
use crate::launcher::{DeviceError, Launch, Launcher};
use cpu::{Draw, PAGE, Segment, Wanted};
use exact::Activations;
use exact::sample::Sampling;
use model::{Adapter, Mlp, Plan, Rotary, Shape};
use std::time::Instant;

/// What a device can do at most.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// Bytes copied on the device, read and written both counted, per second.
    pub copy_bytes: f64,
    /// Products and additions of 8-bit integers on the matrix units (two operations a pair) per second.
    pub ops: f64,
}

/// One measured line.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was measured.
    pub what: String,
    /// Tokens per second.
    pub tokens: f64,
    /// Seconds of a step and its draws, the host's part included: the median of several.
    pub seconds: f64,
    /// Bytes a step must read at least: weights, adapters, keys and values.
    pub bytes: f64,
    /// Integer operations of a step.
    pub ops: f64,
}

/// What a model's lines do not say.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Adapters there were at last, and their bytes; less than asked for where no more fit, or time was up.
    pub registered: (usize, usize),
    /// Bytes that the memory plan keeps for them.
    pub adapter_bytes: usize,
    /// Why decoding steps could not be recorded and replayed.
    pub unrecorded: Option<DeviceError>,
}

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Numbers of streams decoded together, ascending.
    pub streams: Vec<usize>,
    /// Positions each stream has behind it, and how many streams of so many at most.
    pub contexts: Vec<(usize, usize)>,
    /// Numbers of adapters among the streams.
    pub adapters: Vec<usize>,
    /// Adapters registered in all, as far as they fit, for the last line.
    pub registered: usize,
    /// Bytes for adapters; none lets the memory plan decide.
    pub adapter_bytes: Option<usize>,
    /// Their rank.
    pub rank: usize,
    /// Tokens of the prompts.
    pub prompts: Vec<usize>,
    /// Steps of one measurement; the median counts.
    pub repeats: usize,
}

impl Effort {
    /// What `lockstep bench --device cuda` measures.
    pub fn full() -> Effort {
        Effort {
            streams: vec![1, 8, 64, 256],
            contexts: vec![(512, 256), (8192, 8)],
            adapters: vec![0, 1, 32, 64, 256],
            registered: 1000,
            adapter_bytes: None,
            rank: 16,
            prompts: vec![512, 2048],
            repeats: 9,
        }
    }
}

/// The shapes measured: 1.24 and 8 billion parameters, and 30 billion of which 3 are used.
pub fn shapes() -> [(&'static str, Shape); 3] {
    let small = Shape::llama_1_24b();
    let middle = Shape {
        hidden: 4096,
        layers: 32,
        head_dim: 128,
        mlps: vec![Mlp::Gated { width: 14_336 }; 32],
        rotary: Rotary::plain(500_000.0, 128),
        tied: false,
        ..small.clone()
    };
    let mixture = Mlp::Experts { experts: 128, chosen: 8, width: 768, renormalise: true };
    let large = Shape {
        hidden: 2048,
        layers: 48,
        heads: 32,
        key_heads: 4,
        head_dim: 128,
        mlps: vec![mixture; 48],
        vocabulary: 151_936,
        context: 40_960,
        norm_eps: 1e-6,
        rotary: Rotary::plain(1_000_000.0, 128),
        head_norms: true,
        tied: false,
        ..small.clone()
    };
    [("1.24B", small), ("8B", middle), ("30B-A3B", large)]
}

/// Measures the device's limits with copies of `bytes` bytes and products of `rounds` rounds.
pub fn peak<L: Launcher>(launcher: &mut L, bytes: usize, rounds: u32) -> Result<Peak, DeviceError> {
    let buffer = launcher.alloc(2 * bytes)?;
    // Bits as mixed as a model's: a device may run faster on others.
    let mixed: Vec<u8> = (0..8192.min(bytes)).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    launcher.write(buffer.address, &mixed)?;
    let quads = (bytes / 16) as u64;
    let arguments = Measure { from: buffer.address, to: buffer.address + bytes as u64, quads, rounds, unused: 0 };
    // Enough blocks for any device several times over, and for the copy no more than it has to do.
    let blocks = 4096.min(bytes.div_ceil(4096)) as u32;
    let best = |launcher: &mut L, kernel| -> Result<f64, DeviceError> {
        let mut best = f64::INFINITY;
        for _ in 0..6 {
            let arguments = bytemuck::bytes_of(&arguments).to_vec();
            launcher.mark()?;
            launcher.launch(Launch { kernel, grid: [blocks, 1, 1], shared: 0, arguments })?;
            best = best.min(launcher.seconds()?);
        }
        Ok(best)
    };
    let copy = best(launcher, kernel::MEASURE_COPY);
    let products = best(launcher, kernel::MEASURE_PRODUCTS);
    launcher.free(buffer);
    let ops = f64::from(blocks) * 8.0 * f64::from(rounds) * 8.0 * 2.0 * 16.0 * 8.0 * 32.0;
    Ok(Peak { copy_bytes: 2.0 * bytes as f64 / copy?, ops: ops / products? })
}

/// One model under measurement.
struct Bench<'a, L: Launcher> {
    executor: Executor<&'a mut L>,
    shape: &'a Shape,
    plan: Plan,
    planes: f64,
    effort: &'a Effort,
    /// Stand for what `noise_adapters` registered.
    adapters: Vec<Adapter>,
    /// Positions that streams have behind them, and how many streams.
    filled: (usize, usize),
}

/// Measures a model of random weights; `enough` says when to stop, `report` gets each line as it is there.
///
/// # Errors
/// The model does not fit, or the device failed.
pub fn model<L: Launcher>(
    launcher: &mut L,
    shape: &Shape,
    activations: Activations,
    effort: &Effort,
    enough: impl Fn() -> bool,
    mut report: impl FnMut(Line),
) -> Result<Account, DeviceError> {
    let positions = effort.contexts.iter().map(|c| c.0).chain(effort.prompts.iter().copied()).max().unwrap_or(0) + PAGE;
    let config = Config { trace: false, positions, adapter_bytes: effort.adapter_bytes, ..Config::default() };
    let executor = Executor::noise(launcher, shape, activations, config)?;
    let digest = |i: usize| *blake3::hash(format!("noise {i}").as_bytes()).as_bytes();
    let adapters = (0..effort.registered).map(|i| Adapter { sites: vec![], digest: digest(i) }).collect();
    let planes = activations.planes() as f64;
    let mut bench = Bench { executor, shape, plan: Plan::new(shape), planes, effort, adapters, filled: (0, 0) };
    for tokens in &effort.prompts {
        report(bench.prompt(*tokens)?);
    }
    let mut registered = 0;
    for (number, (context, most)) in effort.contexts.iter().enumerate() {
        let adapters = if number == 0 { &effort.adapters[..] } else { &[0] };
        for count in adapters {
            if *count > registered {
                bench.register(*count)?;
                registered = bench.executor.adapters().0;
            }
            // Not more adapters than streams, and not more than fit.
            for streams in effort.streams.iter().filter(|n| **n <= *most && **n >= *count && *count <= registered) {
                if enough() {
                    return Ok(bench.account());
                }
                if let Some(line) = bench.decode(*streams, *context, *count)? {
                    report(line);
                }
            }
        }
    }
    bench.register(effort.registered)?;
    let (registered, _) = bench.executor.adapters();
    let active = 64.min(registered).min(effort.streams.iter().copied().max().unwrap_or(1));
    if !enough()
        && active > 0
        && let Some(mut line) = bench.decode(active, effort.contexts[0].0, active)?
    {
        line.what = format!("{}, {registered} registered", line.what);
        report(line);
    }
    Ok(bench.account())
}

impl<L: Launcher> Bench<'_, L> {
    /// Registers the first `count` adapters, as far as there is room.
    fn register(&mut self, count: usize) -> Result<(), DeviceError> {
        let digests: Vec<[u8; 32]> = self.adapters[..count].iter().map(|adapter| adapter.digest).collect();
        match self.executor.noise_adapters(&digests, self.effort.rank) {
            Err(DeviceError::Memory(_)) => Ok(()),
            other => other,
        }
    }

    fn account(&self) -> Account {
        Account {
            registered: self.executor.adapters(),
            adapter_bytes: self.executor.memory().adapters,
            unrecorded: self.executor.unrecorded().cloned(),
        }
    }

    fn tokens(&self, count: usize) -> Vec<u32> {
        (0..count).map(|i| ((i * 7919 + 13) % self.shape.vocabulary) as u32).collect()
    }

    fn prompt(&mut self, count: usize) -> Result<Line, DeviceError> {
        let (tokens, pages): (_, Vec<u32>) = (self.tokens(count), (0..count.div_ceil(PAGE) as u32).collect());
        let segment = Segment { tokens: &tokens, start: 0, pages: &pages, adapter: None, wanted: Wanted::Last };
        let seconds = self.time(&[segment], &[])?;
        let (bytes, ops) = self.work(count, 1, 0, count as f64 * count as f64 / 2.0, count as f64);
        Ok(Line { what: format!("prompt of {count}"), tokens: count as f64 / seconds, seconds, bytes, ops })
    }

    /// Decoding; nothing where the pages do not suffice.
    fn decode(&mut self, streams: usize, context: usize, adapters: usize) -> Result<Option<Line>, DeviceError> {
        let each = (context + 1).div_ceil(PAGE);
        if streams * each > self.executor.memory().pages {
            return Ok(None);
        }
        let tables: Vec<Vec<u32>> =
            (0..streams).map(|s| (s * each..(s + 1) * each).map(|page| page as u32).collect()).collect();
        self.fill(&tables, context)?;
        // Different tokens: equal ones would all go to the same experts.
        let tokens = self.tokens(streams);
        let held = std::mem::take(&mut self.adapters);
        let segments: Vec<Segment<'_>> = tables
            .iter()
            .enumerate()
            .map(|(s, pages)| Segment {
                tokens: &tokens[s..=s],
                start: context,
                pages,
                adapter: if adapters == 0 { None } else { held.get(s % adapters) },
                wanted: Wanted::Last,
            })
            .collect();
        let position = context as u64 + 1;
        let draw = |segment| Draw { segment, sampling: Sampling::GREEDY, choice: Default::default(), position };
        let draws: Vec<Draw<'_>> = (0..streams).map(draw).collect();
        let seconds = self.time(&segments, &draws);
        self.adapters = held;
        let (seconds, positions) = (seconds?, (streams * context) as f64);
        let (bytes, ops) = self.work(streams, streams, adapters, positions, positions);
        let what = format!("decode {streams} after {context}, {adapters} adapters");
        Ok(Some(Line { what, tokens: streams as f64 / seconds, seconds, bytes, ops }))
    }

    /// Keys and values behind streams that have these pages: of the first computed, of the others copied, as what they say
    /// changes no time.
    fn fill(&mut self, tables: &[Vec<u32>], context: usize) -> Result<(), DeviceError> {
        let there = if self.filled.0 == context { self.filled.1 } else { 0 };
        if there == 0 {
            let (tokens, pages) = (self.tokens(context), &tables[0]);
            let segment = Segment { tokens: &tokens, start: 0, pages, adapter: None, wanted: Wanted::None };
            self.executor.step(&[segment])?;
        }
        if tables.len() > there.max(1) {
            for (number, from) in tables[0][..context.div_ceil(PAGE)].iter().enumerate() {
                let bytes = self.executor.read_page(*from)?;
                for pages in &tables[there.max(1)..] {
                    self.executor.write_page(pages[number], &bytes)?;
                }
            }
        }
        self.filled = (context, there.max(tables.len()));
        Ok(())
    }

    /// Median seconds of a step and its draws.
    fn time(&mut self, segments: &[Segment<'_>], draws: &[Draw<'_>]) -> Result<f64, DeviceError> {
        self.executor.step(segments)?;
        let mut seconds = Vec::with_capacity(self.effort.repeats);
        for _ in 0..self.effort.repeats.max(1) {
            let start = Instant::now();
            self.executor.step(segments)?.draw(draws)?;
            seconds.push(start.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[seconds.len() / 2])
    }

    /// Bytes and operations of a step of `rows` tokens, `heads` of them with logits; `pairs` of queries and positions,
    /// `positions` read.
    fn work(&self, rows: usize, heads: usize, adapters: usize, pairs: f64, positions: f64) -> (f64, f64) {
        let (shape, rank) = (self.shape, self.effort.rank as f64);
        let (mut bytes, mut ops) = (0.0, 0.0);
        for (number, site) in self.plan.sites.iter().enumerate() {
            let products = (site.inputs * site.outputs) as f64;
            let (uses, adapted) = if number == self.plan.head { (heads, 0.0) } else { (rows, adapters as f64) };
            bytes += products + adapted * rank * (site.inputs + site.outputs) as f64;
            ops += 2.0 * self.planes * products * uses as f64;
        }
        for mlp in &shape.mlps {
            if let Mlp::Experts { experts, chosen, width, .. } = *mlp {
                let products = (3 * shape.hidden * width) as f64;
                let missed = (1.0 - chosen as f64 / experts as f64).powi(rows as i32);
                bytes += products * experts as f64 * (1.0 - missed);
                ops += 2.0 * self.planes * products * (chosen * rows) as f64;
            }
        }
        bytes += positions * (2 * shape.layers * shape.key_heads * shape.head_dim) as f64;
        ops += pairs * 8.0 * (shape.layers * shape.heads * shape.head_dim) as f64;
        (bytes, ops)
    }
}
