//! Attention of 16-bit queries over int8 keys and values in blocks of 64 positions (specification, sections 7 and 8).
//!
//! A block holds one head's keys and values for 64 consecutive positions, packed for the product kernels: keys as a
//! [`Matrix`](crate::matrix::Matrix) whose outputs are positions, values as one whose inputs are positions.

use crate::elementary::{exp2, round_small};
use crate::kernels::{self, Ahead, Left, Multiplier, PANEL_COLUMNS, PANEL_ROWS, Panel, Right, versions};
use crate::linear::left;
use crate::quantise::{CHUNK_STRIDE, NotFinite, Quantised, TILE_ROWS, level, magnitude_bits, scale_of};
use crate::shared::Shared;
use crate::spread::head_block;
use crate::{Activations, Isa};

/// Positions in a block, and in a page.
pub const POSITIONS: usize = 64;
/// Blocks in a span: results of one span are joined before spans are.
pub const SPAN_BLOCKS: usize = 16;

/// Where the parts of a block lie, in bytes: keys, values, key scales, value scales, key offsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockLayout {
    head_dim: usize,
    values: usize,
    scales: usize,
}

impl BlockLayout {
    /// The layout for heads of `head_dim` dimensions.
    pub fn new(head_dim: usize) -> Self {
        let values = head_dim.div_ceil(4) * 4 * POSITIONS;
        let scales = values + head_dim.div_ceil(16) * 16 * POSITIONS;
        BlockLayout { head_dim, values, scales }
    }

    /// Bytes a block takes, a multiple of 64.
    pub fn bytes(&self) -> usize {
        self.scales + 3 * 4 * POSITIONS
    }

    /// Dimensions of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Writes the quantised key of the position in slot `slot` of the block that starts at byte `block`. Threads may
    /// write different slots of one block at once.
    pub fn write_key(&self, bytes: Shared<'_, u8>, block: usize, slot: usize, levels: &[i8], scale: f32) {
        assert!(slot < POSITIONS && levels.len() == self.head_dim);
        let groups = self.head_dim.div_ceil(4);
        let start = block + slot / 16 * groups * 64 + slot % 16 * 4;
        for (group, four) in levels.chunks(4).enumerate() {
            // Zeros up to a multiple of four: the products read the padding, whatever lay there before.
            let mut padded = [0i8; 4];
            padded[..four.len()].copy_from_slice(four);
            bytes.copy_in(start + group * 64, bytemuck::cast_slice(&padded));
        }
        self.write_word(bytes, block, 0, slot, scale.to_bits());
        self.write_word(bytes, block, 2, slot, kernels::offset_of(levels) as u32);
    }

    /// Writes the quantised value of the position in slot `slot` of the block that starts at byte `block`.
    pub fn write_value(&self, bytes: Shared<'_, u8>, block: usize, slot: usize, levels: &[i8], scale: f32) {
        assert!(slot < POSITIONS && levels.len() == self.head_dim);
        let start = block + self.values + slot / 4 * 64 + slot % 4;
        for (i, level) in levels.iter().enumerate() {
            bytes.set(start + i / 16 * 16 * POSITIONS + i % 16 * 4, *level as u8);
        }
        self.write_word(bytes, block, 1, slot, scale.to_bits());
    }

    /// Reads the quantised key of the position in slot `slot` of a block; gives its scale.
    pub fn read_key(&self, block: &[u8], slot: usize, levels: &mut [i8]) -> f32 {
        assert!(slot < POSITIONS && levels.len() == self.head_dim);
        let start = slot / 16 * self.head_dim.div_ceil(4) * 64 + slot % 16 * 4;
        for (group, four) in levels.chunks_mut(4).enumerate() {
            four.copy_from_slice(bytemuck::cast_slice(&block[start + group * 64..][..four.len()]));
        }
        self.words::<f32>(block, 0)[slot]
    }

    /// Reads the quantised value of the position in slot `slot` of a block; gives its scale.
    pub fn read_value(&self, block: &[u8], slot: usize, levels: &mut [i8]) -> f32 {
        assert!(slot < POSITIONS && levels.len() == self.head_dim);
        let start = self.values + slot / 4 * 64 + slot % 4;
        for (i, level) in levels.iter_mut().enumerate() {
            *level = block[start + i / 16 * 16 * POSITIONS + i % 16 * 4] as i8;
        }
        self.words::<f32>(block, 1)[slot]
    }

    fn write_word(&self, bytes: Shared<'_, u8>, block: usize, which: usize, slot: usize, word: u32) {
        bytes.copy_in(block + self.scales + (which * POSITIONS + slot) * 4, &word.to_ne_bytes());
    }

    fn words<'a, T: bytemuck::Pod>(&self, block: &'a [u8], which: usize) -> &'a [T] {
        bytemuck::cast_slice(&block[self.scales + which * POSITIONS * 4..][..POSITIONS * 4])
    }
}

/// log2(e) / √d, with the Walsh–Hadamard transform's factor taken out again.
pub fn score_constant(head_dim: usize) -> f32 {
    let d = head_dim as f64;
    (std::f64::consts::LOG2_E / (d.sqrt() * head_block(head_dim) as f64)) as f32
}

/// The most dimensions of a head: 32,639 · 128 · 512 still fits 32 bits.
pub const HEAD_DIM_MAX: usize = 512;
/// The most query rows of one call to [`attend`].
pub const ROWS: usize = PANEL_ROWS;

/// Running result of one row over some blocks: maximum, sum of weights, weighted sum of values.
#[derive(Clone, Copy)]
struct State {
    started: bool,
    m: f32,
    l: f32,
}

const EMPTY: State = State { started: false, m: 0.0, l: 0.0 };

/// Reusable memory of one thread's attention.
pub struct Workspace {
    panel: Box<Panel>,
    /// Quantised weights, in the layout of quantised rows: high bytes, then low bytes, both unsigned.
    weights: Box<[[[u8; CHUNK_STRIDE]; 2]; PANEL_ROWS / TILE_ROWS]>,
    weight_scales: [f32; PANEL_ROWS],
    block: [State; PANEL_ROWS],
    span: [State; PANEL_ROWS],
    total: [State; PANEL_ROWS],
    block_out: Vec<f32>,
    span_out: Vec<f32>,
}

impl Default for Workspace {
    fn default() -> Self {
        Workspace {
            panel: Panel::zeroed(),
            weights: Box::new([[[0; CHUNK_STRIDE]; 2]; PANEL_ROWS / TILE_ROWS]),
            weight_scales: [0.0; PANEL_ROWS],
            block: [EMPTY; PANEL_ROWS],
            span: [EMPTY; PANEL_ROWS],
            total: [EMPTY; PANEL_ROWS],
            block_out: Vec::new(),
            span_out: Vec::new(),
        }
    }
}

/// Attention of the query rows `rows` (at most [`ROWS`], the first at the start of a tile of 16) of `queries` (a16,
/// rows of one head dimension) that share one key head. `position(i)` is the absolute position of row `rows.start + i`,
/// ascending; `block(b)` the block of positions 64·b…; `out` takes `rows × head_dim` floats.
/// On failure names the first row, relative to `rows`, whose values are not finite.
#[expect(clippy::too_many_arguments, reason = "one attention has this many sides")]
pub fn attend<'a>(
    isa: Isa,
    layout: BlockLayout,
    queries: &Quantised,
    rows: std::ops::Range<usize>,
    position: impl Fn(usize) -> usize,
    window: Option<usize>,
    block: impl Fn(usize) -> &'a [u8],
    out: &mut [f32],
    ws: &mut Workspace,
) -> Result<(), usize> {
    let (count, d) = (rows.len(), layout.head_dim);
    assert!(queries.activations() == Activations::A16 && queries.inputs() == d && d <= HEAD_DIM_MAX);
    assert!((1..=ROWS).contains(&count) && rows.start.is_multiple_of(TILE_ROWS) && out.len() == count * d);
    let constant = score_constant(d);
    ws.block_out.resize(ROWS * d, 0.0);
    ws.span_out.resize(ROWS * d, 0.0);
    ws.span[..count].fill(EMPTY);
    ws.total[..count].fill(EMPTY);
    let earliest = |p: usize| window.map_or(0, |w| (p + 1).saturating_sub(w));
    let first = earliest(position(0)) / POSITIONS;
    let last = position(count - 1) / POSITIONS;
    let q = left(queries, rows.start, count);
    let multiplier = Multiplier::new(isa);
    for b in first..=last {
        let bytes = block(b);
        let (keys, values) = (&bytes[..layout.values], &bytes[layout.values..layout.scales]);
        let right = Right {
            packed: bytemuck::cast_slice(keys),
            blocks: POSITIONS / 16,
            groups: d.div_ceil(4),
            ahead: Ahead::Soon(&[]),
        };
        multiplier.products(q, right, &mut ws.panel);
        let (s_k, s_v): (&[f32], &[f32]) = (layout.words(bytes, 0), layout.words(bytes, 1));
        let offsets: &[i32] = layout.words(bytes, 2);
        for i in 0..count {
            let p = position(i);
            let from = earliest(p).saturating_sub(b * POSITIONS);
            let to = (p + 1).saturating_sub(b * POSITIONS).min(POSITIONS);
            let [high, low] = &mut ws.weights[i / TILE_ROWS];
            let at = i % TILE_ROWS * POSITIONS..(i % TILE_ROWS + 1) * POSITIONS;
            let (high, low) = (&mut high[at.clone()], &mut low[at]);
            ws.block[i].started = from < to;
            if from >= to {
                high.fill(0);
                low.fill(0);
                continue;
            }
            let s_q = queries.scales()[rows.start + i] * constant;
            let scores = (&ws.panel.0[0][i], &ws.panel.0[1][i]);
            let (m, l, s_w) = weigh(isa, scores, offsets, s_k, s_v, s_q, from, to, high, low).map_err(|_| i)?;
            ws.block[i] = State { started: true, m, l };
            ws.weight_scales[i] = s_w;
        }
        for (n, part) in (0..d.div_ceil(16)).step_by(PANEL_COLUMNS / 16).enumerate() {
            let blocks = (d.div_ceil(16) - part).min(PANEL_COLUMNS / 16);
            let right = Right {
                packed: &bytemuck::cast_slice(values)[part * 16 * POSITIONS..],
                blocks,
                groups: POSITIONS / 4,
                ahead: Ahead::Soon(&[]),
            };
            let w = Left {
                bytes: ws.weights.as_flattened().as_flattened(),
                rows: count,
                planes: 2,
                plane_stride: CHUNK_STRIDE,
                tile_stride: 2 * CHUNK_STRIDE,
            };
            multiplier.products(w, right, &mut ws.panel);
            let column = n * PANEL_COLUMNS;
            let width = (d - column).min(PANEL_COLUMNS);
            for i in 0..count {
                let o = &mut ws.block_out[i * d + column..][..width];
                let (high, low) = (&ws.panel.0[0][i][..width], &ws.panel.0[1][i][..width]);
                scale_sums(isa, high, low, ws.weight_scales[i], o);
            }
        }
        for i in 0..count {
            let span_out = &mut ws.span_out[i * d..][..d];
            join(isa, &mut ws.span[i], span_out, ws.block[i], &ws.block_out[i * d..][..d]);
            if b % SPAN_BLOCKS == SPAN_BLOCKS - 1 || b == last {
                join(isa, &mut ws.total[i], &mut out[i * d..][..d], ws.span[i], span_out);
                ws.span[i] = EMPTY;
            }
        }
    }
    for i in 0..count {
        finish(isa, &mut out[i * d..][..d], 65_536.0 / ws.total[i].l);
    }
    Ok(())
}

/// Takes `other` into `state` (section 8): the first starts it.
fn join(isa: Isa, state: &mut State, out: &mut [f32], other: State, other_out: &[f32]) {
    if !other.started {
        return;
    }
    if state.started {
        blend(isa, state, out, other, other_out);
    } else {
        *state = other;
        out.copy_from_slice(other_out);
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "kernel signatures are flat")]
fn weigh_body(
    scores: (&[i32; PANEL_COLUMNS], &[i32; PANEL_COLUMNS]),
    offsets: &[i32],
    s_k: &[f32],
    s_v: &[f32],
    s_q: f32,
    from: usize,
    to: usize,
    high: &mut [u8],
    low: &mut [u8],
) -> Result<(f32, f32, f32), NotFinite> {
    let (offsets, s_k, s_v) = (&offsets[..POSITIONS], &s_k[..POSITIONS], &s_v[..POSITIONS]);
    let (high, low) = (&mut high[..POSITIONS], &mut low[..POSITIONS]);
    let mut t = [0.0f32; POSITIONS];
    for j in 0..POSITIONS {
        let (h, l) = (scores.0[j].wrapping_sub(offsets[j]), scores.1[j].wrapping_sub(offsets[j]));
        let score = h.wrapping_mul(256).wrapping_add(l) as f32 * (s_q * s_k[j]);
        let visible = (j as u32).wrapping_sub(from as u32) < (to - from) as u32;
        t[j] = if visible { score } else { f32::NEG_INFINITY };
    }
    let mut lanes = [f32::NEG_INFINITY; 16];
    for part in t.chunks_exact(16) {
        for j in 0..16 {
            lanes[j] = if part[j] > lanes[j] { part[j] } else { lanes[j] };
        }
    }
    let mut half = 8;
    while half > 0 {
        for j in 0..half {
            lanes[j] = if lanes[j + half] > lanes[j] { lanes[j + half] } else { lanes[j] };
        }
        half /= 2;
    }
    let m = lanes[0];
    let mut u = [0.0f32; POSITIONS];
    let mut l = 0i32;
    for j in 0..POSITIONS {
        let p = exp2(t[j] - m);
        l = l.wrapping_add(round_small(p * 65_536.0));
        let visible = (j as u32).wrapping_sub(from as u32) < (to - from) as u32;
        u[j] = if visible { p * s_v[j] } else { 0.0 };
    }
    let (multiplier, s_w) = scale_of(magnitude_bits(&u), 32_639.0)?;
    for j in 0..POSITIONS {
        let w = level(u[j], multiplier, 32_639.0);
        high[j] = (w >> 8) as u8;
        low[j] = w as u8;
    }
    Ok((m, l as f32, s_w))
}

versions! {
    /// One row's weights in one block: maximum, sum, and the scale of the 16-bit weights.
    fn weigh(
        scores: (&[i32; PANEL_COLUMNS], &[i32; PANEL_COLUMNS]),
        offsets: &[i32],
        s_k: &[f32],
        s_v: &[f32],
        s_q: f32,
        from: usize,
        to: usize,
        high: &mut [u8],
        low: &mut [u8]
    ) -> Result<(f32, f32, f32), NotFinite> = weigh_body;
}

#[inline(always)]
fn scale_sums_body(high: &[i32], low: &[i32], scale: f32, out: &mut [f32]) {
    for ((o, high), low) in out.iter_mut().zip(high).zip(low) {
        *o = high.wrapping_mul(256).wrapping_add(*low) as f32 * scale;
    }
}

versions! {
    fn scale_sums(high: &[i32], low: &[i32], scale: f32, out: &mut [f32]) = scale_sums_body;
}

#[inline(always)]
fn blend_body(state: &mut State, out: &mut [f32], other: State, other_out: &[f32]) {
    let m = if other.m > state.m { other.m } else { state.m };
    let (alpha, beta) = (exp2(state.m - m), exp2(other.m - m));
    state.l = state.l.mul_add(alpha, other.l * beta);
    state.m = m;
    for (o, x) in out.iter_mut().zip(other_out) {
        *o = o.mul_add(alpha, x * beta);
    }
}

versions! {
    fn blend(state: &mut State, out: &mut [f32], other: State, other_out: &[f32]) = blend_body;
}

#[inline(always)]
fn finish_body(out: &mut [f32], r: f32) {
    for o in out {
        *o *= r;
    }
}

versions! {
    fn finish(out: &mut [f32], r: f32) = finish_body;
}
