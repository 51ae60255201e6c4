//! Linear maps and adapters of a pass.

use crate::adapters::RANK_MAX;
use crate::areas::Area;
use crate::arguments::{AdapterDown, AdapterUp, Header, Product, Rows8, Target};
use crate::kernel::{self, Kernel};
use crate::launcher::{DeviceError, Launcher};
use crate::pass::Pass;
use crate::weights::DeviceLinear;
use exact::Activations;
use model::Register;
use std::mem::offset_of;

/// From this many rows on, weights come through shared memory.
const MANY_ROWS: usize = 65;
/// Bytes of dynamic shared memory of gemm.cu: three stages of 384 rows of 64.
const GEMM_BYTES: usize = 3 * 384 * 64;

/// A product kernel and the rows (columns of its tile) and outputs of one block.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) kernel: Kernel,
    pub(crate) rows: usize,
    pub(crate) outputs: usize,
    pub(crate) shared: usize,
}

/// Every product kernel and the mode it is for.
pub(crate) const KERNELS: [(Activations, Shape); 8] = [
    (Activations::A8, kernel_for(Activations::A8, 8)),
    (Activations::A8, kernel_for(Activations::A8, 16)),
    (Activations::A8, kernel_for(Activations::A8, 64)),
    (Activations::A8, many(Activations::A8)),
    (Activations::A16, kernel_for(Activations::A16, 8)),
    (Activations::A16, kernel_for(Activations::A16, 16)),
    (Activations::A16, kernel_for(Activations::A16, 64)),
    (Activations::A16, many(Activations::A16)),
];

impl Shape {
    /// Whether it is one of gemm.cu, which takes rows in order only.
    pub(crate) fn many(self) -> bool {
        self.shared > 0
    }
}

/// The kernel for about this many rows that use one matrix.
pub(crate) const fn kernel_for(activations: Activations, rows: usize) -> Shape {
    const fn shape(kernel: Kernel, rows: usize, outputs: usize) -> Shape {
        Shape { kernel, rows, outputs, shared: 0 }
    }
    match (activations, rows) {
        (Activations::A8, 0..=8) => shape(kernel::PRODUCT_A8_8, 8, 16),
        (Activations::A8, 9..=16) => shape(kernel::PRODUCT_A8_16, 16, 16),
        (Activations::A8, _) => shape(kernel::PRODUCT_A8_64, 64, 32),
        (Activations::A16, 0..=8) => shape(kernel::PRODUCT_A16_8, 8, 16),
        (Activations::A16, 9..=16) => shape(kernel::PRODUCT_A16_16, 16, 16),
        (Activations::A16, _) => shape(kernel::PRODUCT_A16_32, 32, 32),
    }
}

const fn many(activations: Activations) -> Shape {
    let (kernel, rows) = match activations {
        Activations::A8 => (kernel::GEMM_A8, 256),
        Activations::A16 => (kernel::GEMM_A16, 128),
    };
    Shape { kernel, rows, outputs: 128, shared: GEMM_BYTES }
}

/// Which rows a product takes.
pub(crate) struct Operands {
    /// Address of their number, or of the number of tiles.
    pub(crate) count: u64,
    /// Address of a list of them; 0: all in order.
    pub(crate) list: u64,
    /// Address of experts' tiles; 0: none.
    pub(crate) tiles: u64,
    /// The row of `x` is the list's entry divided by this.
    pub(crate) divide: usize,
    /// Whether the output row is the list's entry.
    pub(crate) scatter: bool,
    pub(crate) x: Rows8,
    /// Blocks in y: tiles, or groups of rows.
    pub(crate) blocks: usize,
}

impl<L: Launcher> Pass<'_, L> {
    pub(crate) fn header(&self, field: usize) -> u64 {
        self.at(Area::Header) + field as u64
    }

    /// Linear maps of the quantised input, adapters included.
    pub(crate) fn linear(&mut self, targets: &[(usize, Register)]) -> Result<(), DeviceError> {
        let maps: Vec<(DeviceLinear, u64, usize)> =
            targets.iter().map(|(site, to)| (self.weights.linears[*site], self.register(*to), *site)).collect();
        let x = self.areas.input(maps[0].0.inputs);
        let rows = self.extent.rows;
        let shape = if rows >= MANY_ROWS { many(self.activations) } else { kernel_for(self.activations, rows) };
        let count = self.header(offset_of!(Header, rows));
        let blocks = rows.div_ceil(shape.rows);
        let operands = Operands { count, list: 0, tiles: 0, divide: 1, scatter: false, x, blocks };
        self.product(shape, &operands, &maps, 0)?;
        let tiles = (self.extent.tiles, offset_of!(Header, tiles), Area::Tiles);
        self.adapters(tiles, 0, x, &maps)
    }

    /// The output head, for the rows whose logits are wanted.
    pub(crate) fn head(&mut self) -> Result<(), DeviceError> {
        let site = self.plan.head;
        let map = (self.weights.linears[site], self.at(Area::Logits), site);
        let (x, list, rows) = (self.areas.input(map.0.inputs), self.at(Area::HeadRows), self.extent.head_rows);
        let shape = kernel_for(self.activations, rows);
        let count = self.header(offset_of!(Header, head_rows));
        let blocks = rows.div_ceil(shape.rows);
        self.product(shape, &Operands { count, list, tiles: 0, divide: 1, scatter: false, x, blocks }, &[map], 0)?;
        let tiles = (self.extent.head_tiles, offset_of!(Header, head_tiles), Area::HeadTiles);
        self.adapters(tiles, list, x, &[map])
    }

    /// `expert_bytes`: from one expert's weights to the next.
    pub(crate) fn product(
        &mut self,
        shape: Shape,
        rows: &Operands,
        maps: &[(DeviceLinear, u64, usize)],
        expert_bytes: usize,
    ) -> Result<(), DeviceError> {
        let (targets, blocks) = targets(maps, shape.outputs);
        let arguments = Product {
            count: rows.count,
            list: rows.list,
            tiles: rows.tiles,
            x: rows.x,
            targets,
            expert_bytes: expert_bytes as u64,
            targets_used: maps.len() as u32,
            divide: rows.divide as u32,
            scatter: u32::from(rows.scatter),
            planes: rows.x.planes,
            expert_outputs: maps[0].0.outputs as u32,
            unused: 0,
        };
        self.launch(shape.kernel, [blocks, rows.blocks, 1], shape.shared, &arguments)
    }

    /// Adapters' shares in some maps of one input: two launches, whatever their number and ranks.
    fn adapters(
        &mut self,
        tiles: (usize, usize, Area),
        list: u64,
        x: Rows8,
        maps: &[(DeviceLinear, u64, usize)],
    ) -> Result<(), DeviceError> {
        let (bound, count, area) = tiles;
        if bound == 0 {
            return Ok(());
        }
        let mut sites = [0u32; 3];
        maps.iter().zip(&mut sites).for_each(|(map, site)| *site = map.2 as u32);
        let rows_max = self.areas.limits.rows as u32;
        let down = AdapterDown {
            tile_count: self.header(count),
            tiles: self.at(area),
            list,
            rows: self.at(Area::Rows),
            x,
            narrow: self.at(Area::Narrow),
            narrow_scales: self.at(Area::NarrowScales),
            failed: self.at(Area::Failed),
            sites,
            rows_max,
            rank_max: RANK_MAX as u32,
            unused: 0,
        };
        self.launch(kernel::ADAPTER_DOWN, [bound, maps.len(), 1], 0, &down)?;
        let up = AdapterUp {
            tile_count: down.tile_count,
            tiles: down.tiles,
            narrow: down.narrow,
            narrow_scales: down.narrow_scales,
            targets: targets(maps, 256).0,
            rows_max,
            rank_max: RANK_MAX as u32,
        };
        let outputs = maps.iter().map(|map| map.0.outputs).max().unwrap_or(0);
        self.launch(kernel::ADAPTER_UP, [bound, outputs.div_ceil(256), maps.len()], 0, &up)
    }
}

/// The targets of one grid, and its blocks in x at `outputs` outputs a block.
fn targets(maps: &[(DeviceLinear, u64, usize)], outputs: usize) -> ([Target; 3], usize) {
    let (mut targets, mut block) = ([Target::default(); 3], 0);
    for ((linear, out, site), target) in maps.iter().zip(&mut targets) {
        *target = Target {
            weights: linear.weights,
            scales: linear.scales,
            bias: linear.bias,
            out: *out,
            outputs: linear.outputs as u32,
            first_block: block as u32,
            site: *site as u32,
            unused: 0,
        };
        block += linear.outputs.div_ceil(outputs);
    }
    (targets, block)
}
