//! `lockstep selftest`: the promise of exactness, checked on this machine.

use crate::device::Choice;
use crate::failure::Failure;
use crate::progress::count_bar;
use crate::source::{ModelArgs, named_adapter};
use clap::Args;
use cpu::{Config, Executor, Hash, PAGE, Pages, Segment, Wanted};
use exact::Isa;
use exact::generator::philox;
use model::Adapter;

/// Options of `lockstep selftest`.
#[derive(Args, Debug)]
pub(crate) struct SelftestArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// What is checked: the processor's instruction sets against one another, or a CUDA device against the processor;
    /// auto takes a device if NVIDIA's driver is there.
    #[arg(long, default_value = "cpu", value_name = "auto|cpu|cuda|cuda:N")]
    device: Choice,
    /// Adapters to mix in. Default: the demo's, with the demo.
    #[arg(long = "adapter", value_name = "NAME=DIR")]
    adapters: Vec<String>,
    /// Random sequences.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    sequences: u32,
    /// Tokens of the longest.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=4096))]
    tokens_max: u32,
    /// Another seed shuffles differently.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// With a CUDA device: a little of everything on small random shapes, as for tools that look for wrong accesses.
    #[arg(long)]
    quick: bool,
}

struct Dice {
    seed: u64,
    drawn: u64,
}

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.drawn += 1;
        let (key, counter) =
            ([self.seed as u32, (self.seed >> 32) as u32], [self.drawn as u32, (self.drawn >> 32) as u32, 0, 2]);
        philox(key, counter)[0] as usize % n
    }
}

struct Sequence {
    tokens: Vec<u32>,
    adapter: Option<usize>,
    /// Hash of all logits, and the leaves, of the plain run.
    want: ([u8; 32], Vec<Hash>),
}

/// Runs every sequence alone on one thread, then in shuffled company on every instruction set and number of threads.
pub(crate) fn run(args: &SelftestArgs) -> Result<(), Failure> {
    match (args.quick, args.device.cuda()) {
        (true, Some(number)) => return crate::cuda_checks::quick(number, args.seed),
        (true, None) => return Err(Failure("--quick is for a CUDA device: --device cuda".to_owned())),
        (false, _) => {}
    }
    let base = args.model.load()?;
    let mut names = args.adapters.clone();
    if names.is_empty() && args.model.model.is_none() {
        names = crate::demo::ADAPTERS.iter().map(|name| (*name).to_owned()).collect();
    }
    let adapters = names
        .iter()
        .map(|name| args.model.load_adapter(&base, &named_adapter(name)?.1))
        .collect::<Result<Vec<Adapter>, Failure>>()?;
    if let Some(number) = args.device.cuda() {
        return crate::cuda_checks::selftest(number, &base, &adapters, args.seed, &args.model.machine);
    }
    let mut dice = Dice { seed: args.seed, drawn: 0 };
    let shape = &base.model.shape;
    let longest = (args.tokens_max as usize).min(shape.context);
    let start = |isa, threads| {
        Executor::new(base.model.clone(), Config { threads, isa, trace: true })
            .map_err(|error| Failure(format!("starting threads: {error}")))
    };
    let bar = count_bar("each alone, one thread", u64::from(args.sequences));
    let mut plain = start(Isa::best(), 1)?;
    let count = longest.div_ceil(PAGE);
    let mut pages = Pages::new(shape, count);
    let ids: Vec<u32> = (0..count as u32).collect();
    let mut sequences = Vec::new();
    for _ in 0..args.sequences {
        let tokens: Vec<u32> = (0..=dice.below(longest)).map(|_| dice.below(shape.vocabulary) as u32).collect();
        let adapter = dice.below(adapters.len() + 1).checked_sub(1);
        let segment = Segment {
            tokens: &tokens,
            start: 0,
            pages: &ids,
            adapter: adapter.map(|a| &adapters[a]),
            wanted: Wanted::All,
        };
        let outcome = plain.step(&mut pages, &[segment]);
        let mut hasher = blake3::Hasher::new();
        outcome.logits(0).for_each(|row| absorb(&mut hasher, row));
        let want = (*hasher.finalize().as_bytes(), outcome.leaves[0].clone());
        sequences.push(Sequence { tokens, adapter, want });
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut wrong = 0;
    let all = args.model.machine.threads();
    let mut ways: Vec<(Isa, usize)> = Isa::available().into_iter().map(|isa| (isa, all)).collect();
    if all > 1 {
        ways.push((Isa::best(), 1));
    }
    for (isa, threads) in ways {
        // The scalar reference is hundreds of times slower: a share of the sequences.
        let some = if isa == Isa::SCALAR { sequences.len().div_ceil(50) } else { sequences.len() };
        let bar = count_bar("shuffled", some as u64);
        let mut executor = start(isa, threads)?;
        let mut differing = 0;
        for part in sequences[..some].chunks(24) {
            differing += shuffled(&mut executor, part, &adapters, &mut dice);
            bar.inc(part.len() as u64);
        }
        bar.finish_and_clear();
        println!("{:7} {threads} threads: {some} sequences, {differing} differ", isa.name());
        wrong += differing;
    }
    if wrong > 0 {
        return Err(Failure(format!("{wrong} runs gave other bits: please report this with your processor's model")));
    }
    println!("every logit and every trace leaf equal");
    Ok(())
}

fn absorb(hasher: &mut blake3::Hasher, row: &[f32]) {
    for x in row {
        hasher.update(&x.to_le_bytes());
    }
}

/// Runs the sequences together in random chunks and company. Gives how many came out differently.
fn shuffled(executor: &mut Executor, sequences: &[Sequence], adapters: &[Adapter], dice: &mut Dice) -> usize {
    let needed: usize = sequences.iter().map(|s| s.tokens.len().div_ceil(PAGE)).sum();
    let mut pages = Pages::new(&executor.model().shape, needed);
    let mut free: Vec<u32> = (0..needed as u32).collect();
    let tables: Vec<Vec<u32>> = sequences
        .iter()
        .map(|s| (0..s.tokens.len().div_ceil(PAGE)).map(|_| free.swap_remove(dice.below(free.len()))).collect())
        .collect();
    let mut done = vec![0; sequences.len()];
    let mut got: Vec<(blake3::Hasher, Vec<Hash>)> = sequences.iter().map(|_| Default::default()).collect();
    while let Some(first) = (0..sequences.len()).find(|s| done[*s] < sequences[*s].tokens.len()) {
        let mut segments = Vec::new();
        let mut shares = Vec::new();
        for (s, sequence) in sequences.iter().enumerate() {
            let left = sequence.tokens.len() - done[s];
            if left == 0 || (s != first && dice.below(3) == 0) {
                continue;
            }
            let most = [1, 1, 3, 40, 200][dice.below(5)];
            let count = 1 + dice.below(left.min(most));
            segments.push(Segment {
                tokens: &sequence.tokens[done[s]..done[s] + count],
                start: done[s],
                pages: &tables[s],
                adapter: sequence.adapter.map(|a| &adapters[a]),
                wanted: Wanted::All,
            });
            shares.push((s, count));
        }
        let outcome = executor.step(&mut pages, &segments);
        for (i, (s, count)) in shares.into_iter().enumerate() {
            outcome.logits(i).for_each(|row| absorb(&mut got[s].0, row));
            got[s].1.extend_from_slice(&outcome.leaves[i]);
            done[s] += count;
        }
    }
    let same = |(sequence, got): (&Sequence, &(blake3::Hasher, Vec<Hash>))| {
        sequence.want.0 == *got.0.finalize().as_bytes() && sequence.want.1 == got.1
    };
    sequences.iter().zip(&got).filter(|pair| !same((pair.0, pair.1))).count()
}
