//! Linear maps of a step: columns are divided among the threads, so every weight is read once for the whole batch,
//! whatever its adapters; each adapter adds its share to its own rows, at its own rank.

use crate::batch::Group;
use crate::failures::Failures;
use crate::pool::Pool;
use exact::linear::{Epilogue, RowsMut, Workspace, linear, row_linear};
use exact::matrix::BLOCK;
use exact::quantise::Quantised;
use exact::{Activations, Isa, norm};
use model::{Linear, LowRank};
use std::ops::Range;
use std::sync::Mutex;

/// One linear map of the quantised input.
pub(crate) struct Target<'a> {
    pub(crate) site: usize,
    pub(crate) linear: &'a Linear,
}

/// What becomes of the targets' outputs. Values that only the next operation reads stay in the cache and are never
/// written to memory.
pub(crate) enum Outputs<'a> {
    /// Each target's are kept.
    Each(Vec<RowsMut<'a>>),
    /// silu(first target's) · second's.
    Gated(RowsMut<'a>),
    /// The only target's are added to these.
    Added(RowsMut<'a>),
}

/// Weight bytes of one unit of work: what stays in a core's second-level cache beside the rows.
const UNIT_BYTES: usize = 512 << 10;
/// Rows of one unit of an adapter's first half.
const NARROW_ROWS: usize = 16;
/// Rows whose outputs wait in the cache for the next operation, a multiple of a panel's.
const WAITING_ROWS: usize = 128;

/// Adapters whose weights are asked for together.
const AHEAD: usize = 4;

/// Memory kept between steps.
#[derive(Default)]
pub(crate) struct LinearScratch {
    narrow: Vec<Quantised>,
}

/// Memory of one thread.
#[derive(Default)]
pub(crate) struct LinearWorkspace {
    products: Workspace,
    waiting: [Vec<f32>; 2],
}

/// An adapter's share in one target.
struct Share<'a> {
    low_rank: &'a LowRank,
    target: usize,
    rows: Range<usize>,
}

/// Runs all targets on the rows of `input`. `segment_of` names the segment of a row, for failures.
#[expect(clippy::too_many_arguments, reason = "one section of work has this many sides")]
pub(crate) fn run(
    isa: Isa,
    pool: &mut Pool,
    input: &Quantised,
    targets: &[Target<'_>],
    outputs: &Outputs<'_>,
    groups: &[Group<'_>],
    segment_of: impl Fn(usize) -> u32 + Sync,
    failures: &Failures,
    scratch: &mut LinearScratch,
    workspaces: &[Mutex<LinearWorkspace>],
) {
    let shares: Vec<Share<'_>> = groups
        .iter()
        .flat_map(|group| targets.iter().enumerate().map(move |(target, t)| (group, target, t.site)))
        .filter_map(|(group, target, site)| {
            let low_rank = group.adapter.sites[site].as_ref()?;
            Some(Share { low_rank, target, rows: group.rows.clone() })
        })
        .collect();
    narrow(isa, pool, input, &shares, segment_of, failures, scratch);
    let mut of_targets: Vec<_> = targets.iter().map(|_| Vec::new()).collect();
    shares.iter().zip(&scratch.narrow).for_each(|(share, narrow)| of_targets[share.target].push((share, narrow)));
    let maps = Maps { isa, input, targets, shares: of_targets };
    let together = if matches!(outputs, Outputs::Gated(_)) { 2 } else { 1 };
    let units = units(targets, together, input.rows(), pool.threads());
    pool.each(units.len(), |thread, i| {
        let (target, blocks) = &units[i];
        // What this thread multiplies after the unit's first map: its second one, and most often the next unit.
        if together == 2 {
            targets[1].linear.matrix.fetch_first(blocks.start);
        }
        if let Some((target, blocks)) = units.get(i + 1) {
            targets[*target].linear.matrix.fetch_first(blocks.start);
        }
        let LinearWorkspace { products, waiting } = &mut *lock(&workspaces[thread]);
        match outputs {
            Outputs::Each(outs) => maps.run(*target, 0..input.rows(), blocks, outs[*target], products),
            Outputs::Gated(to) => maps.wait_for(&[0, 1], blocks, products, waiting, |row, columns, [gate, up]| {
                norm::gated(isa, gate, up, to.part_mut(row, columns.start, columns.len()));
            }),
            Outputs::Added(to) => maps.wait_for(&[0], blocks, products, waiting, |row, columns, [update, _]| {
                norm::add(isa, to.part_mut(row, columns.start, columns.len()), update);
            }),
        }
    });
}

/// The maps of one section, adapters' shares included.
struct Maps<'a> {
    isa: Isa,
    input: &'a Quantised,
    targets: &'a [Target<'a>],
    /// Of each target, in the order of their rows, with the outputs of their first halves.
    shares: Vec<Vec<(&'a Share<'a>, &'a Quantised)>>,
}

impl Maps<'_> {
    /// The output blocks `blocks` of one target for the rows `rows`, of which the first goes to row 0 of `out`.
    fn run(
        &self,
        target: usize,
        rows: Range<usize>,
        blocks: &Range<usize>,
        out: RowsMut<'_>,
        workspace: &mut Workspace,
    ) {
        let Linear { matrix, bias, .. } = self.targets[target].linear;
        let epilogue = bias.as_deref().map_or(Epilogue::Store, Epilogue::Bias);
        let all = &self.shares[target];
        let first = all.partition_point(|(share, _)| share.rows.end <= rows.start);
        let last = all.partition_point(|(share, _)| share.rows.start < rows.end);
        let shares = &all[first..last];
        // Each adapter's weights for these columns lie elsewhere. The first few are asked for before the base's product, and while
        // a few are used so are the next: memory gives several runs of lines sooner than one after the other.
        shares.iter().take(AHEAD).for_each(|(share, _)| share.low_rank.b.fetch(blocks.clone()));
        linear(self.isa, self.input, rows.clone(), matrix, blocks.clone(), epilogue, out, 0, workspace);
        for (i, (share, narrow)) in shares.iter().enumerate() {
            let part = |n: usize| blocks.start + blocks.len() * n / AHEAD;
            for (next, _) in shares.iter().skip((i / AHEAD + 1) * AHEAD).take(AHEAD) {
                next.low_rank.b.fetch(part(i % AHEAD)..part(i % AHEAD + 1));
            }
            let both = rows.start.max(share.rows.start)..rows.end.min(share.rows.end);
            let (of_share, to) = (both.start - share.rows.start..both.end - share.rows.start, both.start - rows.start);
            let (epilogue, b) = (Epilogue::AddScaled(share.low_rank.gain), &share.low_rank.b);
            linear(self.isa, narrow, of_share, b, blocks.clone(), epilogue, out, to, workspace);
        }
    }

    /// The same blocks of one or two targets, a few rows at a time, and `then` for each row, its columns and outputs.
    fn wait_for(
        &self,
        targets: &[usize],
        blocks: &Range<usize>,
        workspace: &mut Workspace,
        waiting: &mut [Vec<f32>; 2],
        then: impl Fn(usize, Range<usize>, [&[f32]; 2]),
    ) {
        let matrix = &self.targets[targets[0]].linear.matrix;
        let columns = blocks.start * BLOCK..matrix.outputs().min(blocks.end * BLOCK);
        let width = columns.len();
        for first in (0..self.input.rows()).step_by(WAITING_ROWS) {
            let rows = first..(first + WAITING_ROWS).min(self.input.rows());
            for (target, waiting) in targets.iter().zip(waiting.iter_mut()) {
                waiting.resize(waiting.len().max(rows.len() * width), 0.0);
                let out = RowsMut::columns(waiting, width, columns.start);
                self.run(*target, rows.clone(), blocks, out, workspace);
            }
            for (i, row) in rows.enumerate() {
                let part = |n: usize| waiting[n].get(i * width..(i + 1) * width).unwrap_or_default();
                then(row, columns.clone(), [part(0), part(1)]);
            }
        }
    }
}

/// t = A · x for every share, quantised at 16 bits (specification, section 3).
fn narrow(
    isa: Isa,
    pool: &mut Pool,
    input: &Quantised,
    shares: &[Share<'_>],
    segment_of: impl Fn(usize) -> u32 + Sync,
    failures: &Failures,
    scratch: &mut LinearScratch,
) {
    if shares.is_empty() {
        return;
    }
    if scratch.narrow.len() < shares.len() {
        scratch.narrow.resize_with(shares.len(), || Quantised::new(Activations::A16));
    }
    let mut units = Vec::new();
    let mut outputs = Vec::with_capacity(shares.len());
    for (i, (share, narrow)) in shares.iter().zip(&mut scratch.narrow).enumerate() {
        narrow.reshape(share.rows.len(), share.low_rank.a.outputs(), Activations::A16);
        outputs.push(narrow.rows_mut());
        units.extend((0..share.rows.len()).step_by(NARROW_ROWS).map(|first| (i, first)));
    }
    pool.each(units.len(), |_, unit| {
        let (i, first) = units[unit];
        let share = &shares[i];
        let mut t = vec![0.0f32; share.low_rank.a.outputs()];
        for row in first..(first + NARROW_ROWS).min(share.rows.len()) {
            row_linear(isa, input, share.rows.start + row, &share.low_rank.a, &mut t);
            if outputs[i].write(isa, row, &t).is_err() {
                outputs[i].clear(row);
                failures.set(segment_of(share.rows.start + row));
            }
        }
    });
}

/// Divides the targets' columns: units small enough for the cache and many enough to keep all threads busy to the end.
/// With two targets `together`, a unit is the same columns of both; only if rows come again for the weights must both fit.
fn units(targets: &[Target<'_>], together: usize, rows: usize, threads: usize) -> Vec<(usize, Range<usize>)> {
    let bytes = if rows > WAITING_ROWS { UNIT_BYTES / together } else { UNIT_BYTES };
    let apart = targets.len() / together;
    let all: usize = targets.iter().take(apart).map(|t| t.linear.matrix.blocks()).sum();
    let mut units = Vec::new();
    for (i, target) in targets.iter().take(apart).enumerate() {
        let matrix = &target.linear.matrix;
        let by_cache = bytes / (matrix.inputs().max(1) * BLOCK);
        let by_threads = if threads == 1 { usize::MAX } else { all.div_ceil(threads * 6) };
        let size = (by_cache.min(by_threads).min(16).max(1)).next_multiple_of(4);
        for start in (0..matrix.blocks()).step_by(size) {
            units.push((i, start..(start + size).min(matrix.blocks())));
        }
    }
    units
}

/// A thread's own memory: never contended, and whole even after another's panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
