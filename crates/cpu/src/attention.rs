//! Attention of a step: units of up to 32 query rows that share a key head and a sequence.

use crate::batch::Layout;
use crate::failures::Failures;
use crate::pages::{PAGE, PagesView};
use crate::registers::Views;
use exact::Isa;
use exact::attention::{ROWS, Workspace, attend};
use exact::quantise::Quantised;
use model::{Model, Register, Shape};

/// How query rows are laid out: each unit of work has [`ROWS`] rows of its own, token by token, heads within.
pub(crate) struct Tiles {
    key_heads: usize,
    /// Query heads per key head.
    group: usize,
    /// Query heads of one group that go in one unit.
    heads: usize,
    /// Tokens in one unit.
    tokens: usize,
    /// Number of each segment's first tile of tokens.
    first: Vec<usize>,
    /// Segment and first token of each tile.
    tiles: Vec<(usize, usize)>,
}

impl Tiles {
    pub(crate) fn new(shape: &Shape, layout: &Layout<'_>) -> Self {
        let group = shape.heads / shape.key_heads;
        let heads = group.min(ROWS);
        let tokens = ROWS / heads;
        let (mut first, mut tiles) = (Vec::new(), Vec::new());
        for (s, segment) in layout.segments.iter().enumerate() {
            first.push(tiles.len());
            tiles.extend((0..segment.tokens.len()).step_by(tokens).map(|token| (s, token)));
        }
        Tiles { key_heads: shape.key_heads, group, heads, tokens, first, tiles }
    }

    fn splits(&self) -> usize {
        self.group.div_ceil(self.heads)
    }

    /// Units of work.
    pub(crate) fn units(&self) -> usize {
        self.tiles.len() * self.key_heads * self.splits()
    }

    /// Query rows in all, unused ones included.
    pub(crate) fn rows(&self) -> usize {
        self.units() * ROWS
    }

    /// Where the query of batch row `row` and head `head` goes.
    pub(crate) fn row_of(&self, layout: &Layout<'_>, row: usize, head: usize) -> usize {
        let s = layout.segment_of[row] as usize;
        let token = row - layout.first_row[s];
        let (key_head, g) = (head / self.group, head % self.group);
        let tile = self.first[s] + token / self.tokens;
        let unit = (tile * self.key_heads + key_head) * self.splits() + g / self.heads;
        let heads = self.heads_in(g / self.heads);
        unit * ROWS + token % self.tokens * heads + g % self.heads
    }

    fn heads_in(&self, split: usize) -> usize {
        self.heads.min(self.group - split * self.heads)
    }
}

/// Memory one thread reuses for its units.
#[derive(Default)]
pub(crate) struct AttentionScratch {
    workspace: Workspace,
    out: Vec<f32>,
}

/// Everything the units of one layer's attention read and write.
pub(crate) struct AttentionSection<'a> {
    pub(crate) isa: Isa,
    pub(crate) model: &'a Model,
    pub(crate) layer: usize,
    pub(crate) layout: &'a Layout<'a>,
    pub(crate) tiles: &'a Tiles,
    pub(crate) queries: &'a Quantised,
    pub(crate) pages: &'a PagesView<'a>,
    pub(crate) views: Views<'a>,
    pub(crate) failures: &'a Failures,
}

impl AttentionSection<'_> {
    /// One unit of work.
    pub(crate) fn run(&self, unit: usize, scratch: &mut AttentionScratch) {
        let (tiles, d) = (self.tiles, self.model.shape.head_dim);
        let split = unit % tiles.splits();
        let key_head = unit / tiles.splits() % tiles.key_heads;
        let (s, token) = tiles.tiles[unit / tiles.splits() / tiles.key_heads];
        let segment = &self.layout.segments[s];
        let (heads, tokens) = (tiles.heads_in(split), tiles.tokens.min(segment.tokens.len() - token));
        let rows = unit * ROWS..unit * ROWS + tokens * heads;
        scratch.out.resize(ROWS * d, 0.0);
        let out = &mut scratch.out[..rows.len() * d];
        let result = attend(
            self.isa,
            self.pages.layout,
            self.queries,
            rows,
            |i| segment.start + token + i / heads,
            self.model.shape.window,
            |b| self.pages.block(segment.pages[b], self.layer, key_head),
            out,
            &mut scratch.workspace,
        );
        if result.is_err() {
            self.failures.set(s as u32);
            out.fill(0.0);
        }
        let first_head = key_head * tiles.group + split * tiles.heads;
        for (t, heads_out) in out.chunks_exact(heads * d).enumerate() {
            let row = self.layout.first_row[s] + token + t;
            let mixed = self.views.all(Register::Mixed).part_mut(row, first_head * d, heads * d);
            mixed.copy_from_slice(heads_out);
        }
    }
}

/// Pages a segment touches during the step.
pub(crate) fn pages_used(start: usize, tokens: usize) -> usize {
    (start + tokens).div_ceil(PAGE)
}
