//! The device memory a step works in: one area per purpose, sized for the most rows.

use crate::adapters::RANK_MAX;
use crate::arguments::{AdapterTile, DrawRow, ExpertTile, Header, QueryTile, Row, Rows8};
use crate::batch::Heads;
use crate::launcher::{Buffer, DeviceError, Launcher};
use crate::packing::chunks;
use crate::pass::row_bytes;
use crate::weights::chunks_max;
use exact::Activations;
use model::{Mlp, Plan, Shape};

/// What an area is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Area {
    Residual,
    Update,
    Normed,
    Query,
    Key,
    Value,
    Mixed,
    Gate,
    Up,
    InputDigits,
    InputScales,
    SlotDigits,
    SlotScales,
    Queries,
    QueryScales,
    Narrow,
    NarrowScales,
    Parts,
    PartSums,
    Messages,
    Digests,
    LeafMessages,
    Leaves,
    Logits,
    Header,
    Failed,
    Rows,
    QueryTiles,
    Tiles,
    HeadTiles,
    HeadRows,
    PageIds,
    Draws,
    Tokens,
    Chosen,
    ChosenWeights,
    List,
    ExpertTiles,
    TileCount,
    Levels,
    SlotOutputs,
    Scratch,
    Cosines,
    Sines,
}

const ALL: [Area; 44] = [
    Area::Residual,
    Area::Update,
    Area::Normed,
    Area::Query,
    Area::Key,
    Area::Value,
    Area::Mixed,
    Area::Gate,
    Area::Up,
    Area::InputDigits,
    Area::InputScales,
    Area::SlotDigits,
    Area::SlotScales,
    Area::Queries,
    Area::QueryScales,
    Area::Narrow,
    Area::NarrowScales,
    Area::Parts,
    Area::PartSums,
    Area::Messages,
    Area::Digests,
    Area::LeafMessages,
    Area::Leaves,
    Area::Logits,
    Area::Header,
    Area::Failed,
    Area::Rows,
    Area::QueryTiles,
    Area::Tiles,
    Area::HeadTiles,
    Area::HeadRows,
    Area::PageIds,
    Area::Draws,
    Area::Tokens,
    Area::Chosen,
    Area::ChosenWeights,
    Area::List,
    Area::ExpertTiles,
    Area::TileCount,
    Area::Levels,
    Area::SlotOutputs,
    Area::Scratch,
    Area::Cosines,
    Area::Sines,
];

/// The most that one pass over the plan takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Rows: tokens of all segments together.
    pub rows: usize,
    /// Rows whose logits are wanted.
    pub logit_rows: usize,
    /// Positions of a sequence.
    pub positions: usize,
    /// Bytes for spans of decoding's attention that are joined later.
    pub part_bytes: usize,
    /// Whether steps return the trace's leaves.
    pub trace: bool,
}

/// Sizes that follow from a model and limits.
pub(crate) struct Sizes<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) plan: &'a Plan,
    pub(crate) activations: Activations,
    pub(crate) limits: Limits,
    /// The most dynamic shared memory of a block.
    pub(crate) shared_max: usize,
}

/// Experts, chosen and width of the widest mixture.
pub(crate) fn mixture_sizes(shape: &Shape) -> (usize, usize, usize) {
    shape.mlps.iter().fold((0, 0, 0), |most, mlp| match *mlp {
        Mlp::Gated { .. } => most,
        Mlp::Experts { experts, chosen, width, .. } => (most.0.max(experts), most.1.max(chosen), most.2.max(width)),
    })
}

/// Bytes of a layer's message: 0x10, keys and values with their scales.
pub(crate) fn layer_message(shape: &Shape) -> usize {
    1 + 2 * shape.key_heads * (shape.head_dim + 4)
}

/// Bytes of a leaf's message.
pub(crate) fn leaf_message(shape: &Shape) -> usize {
    5 + 32 * shape.layers + 2 * shape.hidden + 4
}

impl Sizes<'_> {
    fn bytes(&self, area: Area) -> usize {
        let (shape, limits) = (self.shape, self.limits);
        let (rows, heads) = (limits.rows, Heads::new(shape));
        let (experts, chosen, expert_width) = mixture_sizes(shape);
        let slots = rows * chosen;
        let gated = |mlp: &Mlp| if let Mlp::Gated { width } = mlp { *width } else { 0 };
        let inner = shape.mlps.iter().map(gated).max().unwrap_or(0);
        let (query, key) = (shape.heads * shape.head_dim, shape.key_heads * shape.head_dim);
        let digits = |rows: usize, chunks: usize| self.activations.planes() * padded(rows) * chunks * 64;
        let units = limits.part_bytes / (8 * (shape.head_dim + 2) * 4);
        let widest = inner.max(expert_width).max(query).max(shape.hidden);
        let spill = if row_bytes(widest) > self.shared_max { rows.max(slots) * widest } else { 0 };
        let traced = usize::from(limits.trace);
        let pairs = shape.rotary.inverse_frequencies.len();
        match area {
            Area::Residual | Area::Update => rows * shape.hidden * 4,
            Area::Normed => {
                if experts > 0 {
                    rows * shape.hidden * 4
                } else {
                    0
                }
            }
            Area::Query | Area::Mixed => rows * query * 4,
            Area::Key | Area::Value => rows * key * 4,
            Area::Gate | Area::Up => (rows * inner).max(slots * expert_width) * 4,
            Area::InputDigits => digits(rows, chunks_max(shape, self.plan)),
            Area::InputScales => rows * 4,
            Area::SlotDigits => {
                if experts > 0 {
                    digits(slots, chunks(expert_width))
                } else {
                    0
                }
            }
            Area::SlotScales => slots * 4,
            Area::Queries => rows * shape.heads * 2 * chunks(shape.head_dim) * 64,
            Area::QueryScales => rows * shape.heads * 4,
            Area::Narrow => 3 * rows * 2 * RANK_MAX,
            Area::NarrowScales => 3 * rows * 4,
            Area::Parts => units * 8 * shape.head_dim * 4,
            Area::PartSums => units * 16 * 4,
            Area::Messages => traced * rows * shape.layers * layer_message(shape).next_multiple_of(16),
            Area::Digests => traced * rows * shape.layers * 32,
            Area::LeafMessages => traced * rows * leaf_message(shape).next_multiple_of(16),
            Area::Leaves => traced * rows * 32,
            Area::Logits => limits.logit_rows * shape.vocabulary * 4,
            Area::Header => size_of::<Header>(),
            Area::Failed => rows * 4,
            Area::Rows => rows * size_of::<Row>(),
            Area::QueryTiles => (rows.div_ceil(heads.tokens) + rows) * size_of::<QueryTile>(),
            Area::Tiles => rows * size_of::<AdapterTile>(),
            Area::HeadTiles => limits.logit_rows * size_of::<AdapterTile>(),
            Area::HeadRows => limits.logit_rows * 4,
            Area::PageIds => rows * limits.positions.div_ceil(cpu::PAGE) * 4,
            Area::Draws => limits.logit_rows * size_of::<DrawRow>(),
            Area::Tokens => limits.logit_rows * 4,
            Area::Chosen | Area::ChosenWeights | Area::List => slots * 4,
            Area::ExpertTiles => (experts + slots) * size_of::<ExpertTile>(),
            Area::TileCount => 16,
            Area::Levels => {
                if experts > 0 {
                    rows * shape.hidden * 2
                } else {
                    0
                }
            }
            Area::SlotOutputs => slots * shape.hidden * 4,
            Area::Scratch => spill * 4,
            Area::Cosines | Area::Sines => limits.positions * pairs * 4,
        }
    }

    /// Bytes of all areas.
    pub(crate) fn total(&self) -> usize {
        ALL.iter().map(|area| self.bytes(*area).next_multiple_of(512)).sum()
    }
}

/// Rows padded to what the widest product tile reads.
fn padded(rows: usize) -> usize {
    rows.next_multiple_of(256)
}

/// The areas, allocated.
pub(crate) struct Areas {
    buffers: [Buffer; ALL.len()],
    pub(crate) limits: Limits,
    planes: usize,
    slots: usize,
}

impl Areas {
    pub(crate) fn new<L: Launcher>(launcher: &mut L, sizes: &Sizes<'_>) -> Result<Areas, DeviceError> {
        let mut buffers = [Buffer::default(); ALL.len()];
        for (i, area) in ALL.iter().enumerate() {
            match launcher.alloc(sizes.bytes(*area).max(16)) {
                Ok(buffer) => buffers[i] = buffer,
                Err(error) => {
                    buffers[..i].iter().for_each(|buffer| launcher.free(*buffer));
                    return Err(error);
                }
            }
        }
        let slots = sizes.limits.rows * mixture_sizes(sizes.shape).1;
        Ok(Areas { buffers, limits: sizes.limits, planes: sizes.activations.planes(), slots })
    }

    pub(crate) fn at(&self, area: Area) -> u64 {
        self.buffers[area as usize].address
    }

    pub(crate) fn bytes(&self, area: Area) -> usize {
        self.buffers[area as usize].bytes
    }

    /// The quantised input of linear maps of `inputs` values.
    pub(crate) fn input(&self, inputs: usize) -> Rows8 {
        self.rows8(Area::InputDigits, Area::InputScales, self.limits.rows, inputs)
    }

    /// The quantised inner rows of experts.
    pub(crate) fn slots(&self, inputs: usize) -> Rows8 {
        self.rows8(Area::SlotDigits, Area::SlotScales, self.slots, inputs)
    }

    fn rows8(&self, digits: Area, scales: Area, rows: usize, inputs: usize) -> Rows8 {
        let chunks = chunks(inputs);
        Rows8 {
            digits: self.at(digits),
            scales: self.at(scales),
            plane_stride: (padded(rows) * chunks * 64) as u64,
            chunks: chunks as u32,
            planes: self.planes as u32,
        }
    }

    pub(crate) fn free<L: Launcher>(&mut self, launcher: &mut L) {
        self.buffers.iter().for_each(|buffer| launcher.free(*buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_are_listed_in_their_order() {
        assert!(ALL.iter().enumerate().all(|(i, area)| *area as usize == i));
    }
}
