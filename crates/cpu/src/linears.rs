//! Linear maps of a step: columns are divided among the threads, so every weight is read once for the whole batch,
//! whatever its adapters; each adapter adds its share to its own rows, at its own rank.

use crate::batch::Group;
use crate::failures::Failures;
use crate::pool::Pool;
use exact::linear::{Epilogue, RowsMut, Workspace, linear, row_linear};
use exact::quantise::Quantised;
use exact::{Activations, Isa};
use model::{Linear, LowRank};
use std::ops::Range;
use std::sync::Mutex;

/// One linear map of the quantised input, and where its output goes.
pub(crate) struct Target<'a> {
    pub(crate) site: usize,
    pub(crate) linear: &'a Linear,
    pub(crate) out: RowsMut<'a>,
}

/// Weight bytes of one unit of work: what stays in a core's second-level cache beside the rows.
const UNIT_BYTES: usize = 512 << 10;
/// Rows of one unit of an adapter's first half.
const NARROW_ROWS: usize = 16;

/// Memory kept between steps.
#[derive(Default)]
pub(crate) struct LinearScratch {
    narrow: Vec<Quantised>,
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
    groups: &[Group<'_>],
    segment_of: impl Fn(usize) -> u32 + Sync,
    failures: &Failures,
    scratch: &mut LinearScratch,
    workspaces: &[Mutex<Workspace>],
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
    let units = units(targets, pool.threads());
    pool.each(units.len(), |thread, i| {
        let (t, blocks) = &units[i];
        let target = &targets[*t];
        let mut workspace = lock(&workspaces[thread]);
        let epilogue = target.linear.bias.as_deref().map_or(Epilogue::Store, Epilogue::Bias);
        let matrix = &target.linear.matrix;
        let rows = 0..input.rows();
        linear(isa, input, rows, matrix, blocks.clone(), epilogue, target.out, 0, &mut workspace);
        let mut shares = shares.iter().zip(&scratch.narrow).filter(|(share, _)| share.target == *t).peekable();
        while let Some((share, narrow)) = shares.next() {
            // Each adapter's weights for these columns lie elsewhere: ask for the next before the present are used.
            if let Some((next, _)) = shares.peek() {
                next.low_rank.b.fetch(blocks.clone());
            }
            let epilogue = Epilogue::AddScaled(share.low_rank.gain);
            let (rows, b) = (0..share.rows.len(), &share.low_rank.b);
            linear(isa, narrow, rows, b, blocks.clone(), epilogue, target.out, share.rows.start, &mut workspace);
        }
    });
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
fn units(targets: &[Target<'_>], threads: usize) -> Vec<(usize, Range<usize>)> {
    let all: usize = targets.iter().map(|t| t.linear.matrix.blocks()).sum();
    let mut units = Vec::new();
    for (i, target) in targets.iter().enumerate() {
        let matrix = &target.linear.matrix;
        let by_cache = UNIT_BYTES / (matrix.inputs().max(1) * 16);
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
