//! Linear maps on quantised rows (specification, sections 2 and 3).

use crate::kernels::{self, Ahead, Left, Multiplier, Narrow, PANEL_COLUMNS, PANEL_ROWS, Panel, Right, versions};
use crate::matrix::{BLOCK, Matrix, RowMatrix};
use crate::quantise::{Quantised, TILE_ROWS};
use crate::shared::Shared;
use crate::{Activations, Isa};
use std::ops::Range;

/// Rows of floats that several threads write, each its own rows or columns.
#[derive(Clone, Copy)]
pub struct RowsMut<'a> {
    values: Shared<'a, f32>,
    stride: usize,
    first_column: usize,
}

impl<'a> RowsMut<'a> {
    /// Row r is `values[r * stride..]`.
    pub fn new(values: &'a mut [f32], stride: usize) -> Self {
        RowsMut::columns(values, stride, 0)
    }

    /// Some columns of rows: `values` holds `width` of each, from `first_column` on.
    pub fn columns(values: &'a mut [f32], width: usize, first_column: usize) -> Self {
        RowsMut { values: Shared::new(values), stride: width, first_column }
    }

    /// `width` values of row `row`, from `column` on.
    #[inline(always)]
    pub fn part(&self, row: usize, column: usize, width: usize) -> &'a [f32] {
        self.values.part(row * self.stride + column - self.first_column, width)
    }

    /// The same, to write; no other thread touches them meanwhile.
    #[inline(always)]
    pub fn part_mut(&self, row: usize, column: usize, width: usize) -> &'a mut [f32] {
        self.values.part_mut(row * self.stride + column - self.first_column, width)
    }
}

/// What becomes of a product.
#[derive(Clone, Copy)]
pub enum Epilogue<'a> {
    /// y = product
    Store,
    /// y = product + bias
    Bias(&'a [f32]),
    /// y = fma(product, gain, y): an adapter's share.
    AddScaled(f32),
}

/// More rows than this are worth a panel.
const NARROW_ROWS: usize = 6;
/// Bytes of rows that pass over all blocks before the next rows do: a part of the second-level cache, whose rest is for
/// the weights.
const CACHED_BYTES: usize = 384 << 10;
/// The weights of the next blocks are fetched during so many panels of rows.
const SOON_CALLS: usize = 8;

/// Reusable memory of one thread's products.
pub struct Workspace {
    pub(crate) panel: Box<Panel>,
}

impl Default for Workspace {
    fn default() -> Self {
        Workspace { panel: Panel::zeroed() }
    }
}

/// The rows `rows` of `x` times the output blocks `blocks` (of sixteen) of `weights`. Row `rows.start + i` of `x` goes
/// to row `out_row + i` of `out`, output n to column n.
#[expect(clippy::too_many_arguments, reason = "one product has this many sides")]
pub fn linear(
    isa: Isa,
    x: &Quantised,
    rows: Range<usize>,
    weights: &Matrix,
    blocks: Range<usize>,
    epilogue: Epilogue<'_>,
    out: RowsMut<'_>,
    out_row: usize,
    workspace: &mut Workspace,
) {
    assert!(x.inputs() == weights.inputs() && rows.end <= x.rows() && blocks.end <= weights.blocks());
    let product = Product { isa, x, weights, epilogue, out, multiplier: Multiplier::new(isa) };
    if let Epilogue::AddScaled(gain) = epilogue
        && rows.len() <= NARROW_ROWS
        && x.activations() == Activations::A16
        && kernels::narrow_suits(isa, weights.inputs().div_ceil(4))
    {
        return product.narrow(rows, blocks, gain, out_row);
    }
    let cached = (CACHED_BYTES / (x.tile_stride() / TILE_ROWS).max(1) / PANEL_ROWS).max(2) * PANEL_ROWS;
    let mut first = rows.start;
    while first < rows.end {
        let last = (first + cached - first % TILE_ROWS).min(rows.end);
        for block in blocks.clone().step_by(PANEL_COLUMNS / BLOCK) {
            let these = block..(block + PANEL_COLUMNS / BLOCK).min(blocks.end);
            let next = these.end..(these.end + these.len()).min(blocks.end);
            product.columns(first..last, these, next, out_row + first - rows.start, &mut workspace.panel);
        }
        first = last;
    }
}

/// A linear map of quantised rows.
struct Product<'a> {
    isa: Isa,
    x: &'a Quantised,
    weights: &'a Matrix,
    epilogue: Epilogue<'a>,
    out: RowsMut<'a>,
    multiplier: Multiplier,
}

impl Product<'_> {
    /// Few rows of few inputs, one by one.
    fn narrow(&self, rows: Range<usize>, blocks: Range<usize>, gain: f32, out_row: usize) {
        let stride = self.weights.block_stride();
        let padded = blocks.start * BLOCK..blocks.end * BLOCK;
        let width = self.weights.outputs().min(padded.end) - padded.start;
        for row in rows.clone() {
            let digits = |plane| &self.x.bytes()[self.x.offset(row, plane)..];
            let narrow = Narrow {
                high: digits(0),
                low: digits(1),
                groups: self.weights.inputs().div_ceil(4),
                packed: bytemuck::cast_slice(&self.weights.packed()[blocks.start * stride..blocks.end * stride]),
                scales: &self.weights.scales_padded()[padded.clone()],
            };
            let y = self.out.part_mut(out_row + row - rows.start, padded.start, width);
            kernels::add_narrow(self.isa, narrow, self.x.scales()[row], gain, y);
        }
    }

    /// The rows `rows` times a panel's width of blocks; the blocks `next` are fetched meanwhile.
    fn columns(&self, rows: Range<usize>, blocks: Range<usize>, next: Range<usize>, out_row: usize, panel: &mut Panel) {
        let stride = self.weights.block_stride();
        let packed: &[i8] = bytemuck::cast_slice(self.weights.packed());
        let groups = self.weights.inputs().div_ceil(4);
        let more = next.len() == blocks.len();
        let mut next = &packed[next.start * stride..next.end * stride];
        let soon_bytes = blocks.len() * stride / SOON_CALLS;
        let column = blocks.start * BLOCK;
        let columns = column..self.weights.outputs().min(blocks.end * BLOCK);
        let mut row = rows.start;
        while row < rows.end {
            // Several tiles only from a tile's first row on.
            let most = if row.is_multiple_of(TILE_ROWS) { PANEL_ROWS } else { TILE_ROWS - row % TILE_ROWS };
            let height = (rows.end - row).min(most);
            let soon = next.split_off(..next.len().min(soon_bytes)).unwrap_or_default();
            let ahead = if rows.len() > PANEL_ROWS { Ahead::Soon(soon) } else { Ahead::These { more } };
            let right = Right { packed: &packed[blocks.start * stride..], blocks: blocks.len(), groups, ahead };
            self.multiplier.products(left(self.x, row, height), right, panel);
            finish(
                self.isa,
                panel,
                self.x.activations().planes(),
                &self.x.scales()[row..row + height],
                &self.weights.scales_padded()[columns.clone()],
                &self.weights.offsets()[columns.clone()],
                match self.epilogue {
                    Epilogue::Bias(bias) => Epilogue::Bias(&bias[columns.clone()]),
                    other => other,
                },
                self.out,
                out_row + row - rows.start,
                column,
            );
            row += height;
        }
    }
}

/// The exact integer sums behind [`linear`], of row `row` of `x` and all outputs: those of the levels (a8), or of the high
/// digits and then of the low ones (a16), `weights.outputs()` each.
pub fn integer_sums(isa: Isa, x: &Quantised, row: usize, weights: &Matrix, out: &mut [i32], workspace: &mut Workspace) {
    let (planes, outputs) = (x.activations().planes(), weights.outputs());
    assert!(x.inputs() == weights.inputs() && row < x.rows() && out.len() == planes * outputs);
    let stride = weights.block_stride();
    let packed: &[i8] = bytemuck::cast_slice(weights.packed());
    let multiplier = Multiplier::new(isa);
    for block in (0..weights.blocks()).step_by(PANEL_COLUMNS / BLOCK) {
        let blocks = (weights.blocks() - block).min(PANEL_COLUMNS / BLOCK);
        let groups = weights.inputs().div_ceil(4);
        let right = Right { packed: &packed[block * stride..], blocks, groups, ahead: Ahead::These { more: false } };
        multiplier.products(left(x, row, 1), right, &mut workspace.panel);
        let column = block * BLOCK;
        let width = (outputs - column).min(blocks * BLOCK);
        for plane in 0..planes {
            let to = &mut out[plane * outputs + column..][..width];
            for (i, sum) in to.iter_mut().enumerate() {
                *sum = workspace.panel.0[plane][0][i].wrapping_sub(weights.offsets()[column + i]);
            }
        }
    }
}

/// Row `row` of `x` times all rows of `weights`: an adapter's narrow first half.
pub fn row_linear(isa: Isa, x: &Quantised, row: usize, weights: &RowMatrix, out: &mut [f32]) {
    assert!(x.inputs() == weights.inputs() && row < x.rows() && out.len() == weights.outputs());
    let (stride, rows) = (weights.stride(), weights.bytes_all());
    let planes = x.activations().planes();
    let mut sums = [[0i32; PANEL_COLUMNS]; 2];
    let scale = x.scales()[row];
    for (first, out) in (0..).step_by(PANEL_COLUMNS).zip(out.chunks_mut(PANEL_COLUMNS)) {
        for plane in 0..planes {
            let digits = &x.bytes()[x.offset(row, plane)..];
            kernels::row_products(isa, digits, &rows[first * stride..], stride, &mut sums[plane][..out.len()]);
        }
        for (i, y) in out.iter_mut().enumerate() {
            let (offset, s_w) = (weights.offsets()[first + i], weights.scales()[first + i]);
            let sum = |plane: usize| sums[plane][i].wrapping_sub(offset) as f32;
            let c = match x.activations() {
                Activations::A8 => sum(0),
                Activations::A16 => sum(0) * 256.0 + sum(1),
            };
            *y = c * (scale * s_w);
        }
    }
}

pub(crate) fn left(x: &Quantised, row: usize, rows: usize) -> Left<'_> {
    Left {
        bytes: &x.bytes()[x.offset(row, 0)..],
        rows,
        planes: x.activations().planes(),
        plane_stride: x.plane_stride(),
        tile_stride: x.tile_stride(),
    }
}

versions! {
    fn finish(
        panel: &Panel,
        planes: usize,
        x_scales: &[f32],
        w_scales: &[f32],
        offsets: &[i32],
        epilogue: Epilogue<'_>,
        out: RowsMut<'_>,
        out_row: usize,
        column: usize
    ) = finish_body;
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "kernel signatures are flat")]
fn finish_body(
    panel: &Panel,
    planes: usize,
    x_scales: &[f32],
    w_scales: &[f32],
    offsets: &[i32],
    epilogue: Epilogue<'_>,
    out: RowsMut<'_>,
    out_row: usize,
    column: usize,
) {
    // A bias as long as the columns: a bound that could be passed in the middle would keep the last columns out of vectors.
    match (planes, epilogue) {
        (1, Epilogue::Store) => rows::<1>(panel, x_scales, w_scales, offsets, out, out_row, column, |v, _, _| v),
        (1, Epilogue::Bias(bias)) => {
            let bias = &bias[..w_scales.len()];
            rows::<1>(panel, x_scales, w_scales, offsets, out, out_row, column, |v, _, j| v + bias[j]);
        }
        (1, Epilogue::AddScaled(gain)) => {
            rows::<1>(panel, x_scales, w_scales, offsets, out, out_row, column, |v, y, _| v.mul_add(gain, y));
        }
        (_, Epilogue::Store) => rows::<2>(panel, x_scales, w_scales, offsets, out, out_row, column, |v, _, _| v),
        (_, Epilogue::Bias(bias)) => {
            let bias = &bias[..w_scales.len()];
            rows::<2>(panel, x_scales, w_scales, offsets, out, out_row, column, |v, _, j| v + bias[j]);
        }
        (_, Epilogue::AddScaled(gain)) => {
            rows::<2>(panel, x_scales, w_scales, offsets, out, out_row, column, |v, y, _| v.mul_add(gain, y));
        }
    }
}

/// `y = last(product, y, column)` for every row of the panel.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "kernel signatures are flat")]
fn rows<const PLANES: usize>(
    panel: &Panel,
    x_scales: &[f32],
    w_scales: &[f32],
    offsets: &[i32],
    out: RowsMut<'_>,
    out_row: usize,
    column: usize,
    last: impl Fn(f32, f32, usize) -> f32,
) {
    let width = w_scales.len();
    let offsets = &offsets[..width];
    for (row, s_x) in x_scales.iter().enumerate() {
        let y = &mut out.part_mut(out_row + row, column, width)[..width];
        let (high, low) = (&panel.0[0][row][..width], &panel.0[1][row][..width]);
        for j in 0..width {
            let mut c = high[j].wrapping_sub(offsets[j]) as f32;
            if PLANES == 2 {
                c = c * 256.0 + low[j].wrapping_sub(offsets[j]) as f32;
            }
            y[j] = last(c * (s_x * w_scales[j]), y[j], j);
        }
    }
}
