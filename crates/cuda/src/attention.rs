//! Attention, mixtures and the trace of a pass.

use crate::areas::{Area, layer_message, leaf_message, mixture_sizes};
use crate::arguments::{Attend, Combine, ExpertTile, Gather, Hash, Header, Heads, Leaf, Prepare, QueryTile, Route};
use crate::kernel;
use crate::launcher::{DeviceError, Launcher};
use crate::linears::{Operands, kernel_for};
use crate::packing::{chunks, matrix_bytes};
use crate::pass::{Pass, block_bytes};
use exact::attention::score_constant;
use exact::spread::head_block;
use std::mem::offset_of;

/// Whole warps of heads.cu.
const HEAD_WARPS: usize = 4;

impl<L: Launcher> Pass<'_, L> {
    pub(crate) fn attend(
        &mut self,
        layer: usize,
        query_norm: Option<usize>,
        key_norm: Option<usize>,
    ) -> Result<(), DeviceError> {
        let shape = self.shape;
        let norm = |number: Option<usize>| number.map_or(0, |number| self.weights.norms[number]);
        let message_bytes = layer_message(shape).next_multiple_of(16);
        let messages = match self.areas.limits.trace {
            true => self.at(Area::Messages) + (layer * self.areas.limits.rows * message_bytes) as u64,
            false => 0,
        };
        let arguments = Heads {
            header: self.at(Area::Header),
            rows: self.at(Area::Rows),
            query: self.at(Area::Query),
            key: self.at(Area::Key),
            value: self.at(Area::Value),
            query_norm: norm(query_norm),
            key_norm: norm(key_norm),
            cosines: self.at(Area::Cosines),
            sines: self.at(Area::Sines),
            queries: self.at(Area::Queries),
            query_scales: self.at(Area::QueryScales),
            pages: self.pages,
            page_ids: self.at(Area::PageIds),
            messages,
            failed: self.at(Area::Failed),
            page_bytes: self.page_bytes as u64,
            heads: shape.heads as u32,
            key_heads: shape.key_heads as u32,
            head_dim: shape.head_dim as u32,
            chunks: chunks(shape.head_dim) as u32,
            pairs: shape.rotary.inverse_frequencies.len() as u32,
            layer: layer as u32,
            block_bytes: block_bytes(shape.head_dim) as u32,
            message_bytes: message_bytes as u32,
            eps: shape.norm_eps,
            block: head_block(shape.head_dim) as u32,
        };
        let units = shape.heads + 2 * shape.key_heads;
        self.launch(kernel::HEADS, [self.extent.rows, units.div_ceil(HEAD_WARPS), 1], 0, &arguments)?;
        self.attend_tiles(layer)
    }

    fn attend_tiles(&mut self, layer: usize) -> Result<(), DeviceError> {
        let (shape, heads, extent) = (self.shape, self.heads, self.extent);
        let mut arguments = Attend {
            header: self.at(Area::Header),
            tiles: self.at(Area::QueryTiles),
            rows: self.at(Area::Rows),
            queries: self.at(Area::Queries),
            query_scales: self.at(Area::QueryScales),
            pages: self.pages,
            page_ids: self.at(Area::PageIds),
            out: self.at(Area::Mixed),
            parts: self.at(Area::Parts),
            part_ml: self.at(Area::PartSums),
            failed: self.at(Area::Failed),
            page_bytes: self.page_bytes as u64,
            heads: shape.heads as u32,
            key_heads: shape.key_heads as u32,
            head_dim: shape.head_dim as u32,
            chunks: chunks(shape.head_dim) as u32,
            group: heads.group as u32,
            tile_heads: heads.tile_heads as u32,
            splits: heads.splits as u32,
            layer: layer as u32,
            block_bytes: block_bytes(shape.head_dim) as u32,
            window: shape.window.unwrap_or(0) as u32,
            spans: extent.spans as u32,
            constant: score_constant(shape.head_dim),
        };
        let (few, many, tiles, warps) = match shape.head_dim {
            0..=64 => (kernel::ATTEND_FEW_64, kernel::ATTEND_MANY_64, 4, 8),
            65..=128 => (kernel::ATTEND_FEW_128, kernel::ATTEND_MANY_128, 8, 8),
            129..=256 => (kernel::ATTEND_FEW_256, kernel::ATTEND_MANY_256, 16, 4),
            _ => (kernel::ATTEND_FEW_512, kernel::ATTEND_MANY_512, 32, 2),
        };
        let across = shape.key_heads * heads.splits;
        if extent.few_tiles > 0 {
            self.launch(few, [extent.few_tiles, across, extent.spans], 0, &arguments)?;
            if extent.spans > 1 {
                self.launch(kernel::JOIN_SPANS, [extent.few_tiles, across, 1], 0, &arguments)?;
            }
        }
        if extent.many_tiles > 0 {
            arguments.tiles += (extent.few_tiles * size_of::<QueryTile>()) as u64;
            let shared = warps * (1024 + tiles * 512);
            self.launch(many, [extent.many_tiles.div_ceil(warps), across, 1], shared, &arguments)?;
        }
        Ok(())
    }

    pub(crate) fn experts(&mut self, number: usize) -> Result<(), DeviceError> {
        let (shape, mixture, rows) = (self.shape, self.weights.mixtures[number], self.extent.rows);
        let slots = rows * mixture.chosen;
        let route = Route {
            header: self.at(Area::Header),
            rows: self.at(Area::Rows),
            x: self.at(Area::Normed),
            weights: mixture.router,
            scales: mixture.router_scales,
            chosen: self.at(Area::Chosen),
            weight: self.at(Area::ChosenWeights),
            levels: self.at(Area::Levels),
            failed: self.at(Area::Failed),
            inputs: shape.hidden as u32,
            experts: mixture.experts as u32,
            count: mixture.chosen as u32,
            renormalise: u32::from(mixture.renormalise),
        };
        self.launch(kernel::ROUTE, [rows, 1, 1], 0, &route)?;
        let product = kernel_for(self.activations, slots.div_ceil(mixture.experts));
        let gather = Gather {
            header: route.header,
            chosen: route.chosen,
            list: self.at(Area::List),
            tiles: self.at(Area::ExpertTiles),
            tile_count: self.at(Area::TileCount),
            experts: route.experts,
            count: route.count,
            tile_rows: product.rows as u32,
            unused: 0,
        };
        self.launch(kernel::GATHER, [1, 1, 1], 0, &gather)?;
        let blocks = slots.min(mixture.experts + slots / product.rows);
        let mut operands = Operands {
            count: gather.tile_count,
            list: gather.list,
            tiles: gather.tiles,
            divide: mixture.chosen,
            scatter: true,
            x: self.areas.input(shape.hidden),
            blocks,
        };
        let maps = [(mixture.gate, self.at(Area::Gate), 0), (mixture.up, self.at(Area::Up), 0)];
        self.product(product, &operands, &maps, matrix_bytes(mixture.width, shape.hidden))?;
        let x = self.areas.slots(mixture.width);
        let inner = Prepare {
            source: self.at(Area::Gate),
            up: self.at(Area::Up),
            out: x,
            slots: mixture.chosen as u32,
            ..Prepare::default()
        };
        self.prepare_rows(inner, mixture.width, slots)?;
        (operands.divide, operands.x) = (1, x);
        let outputs = self.at(Area::SlotOutputs);
        self.product(product, &operands, &[(mixture.down, outputs, 0)], matrix_bytes(shape.hidden, mixture.width))?;
        let combine = Combine {
            header: route.header,
            outputs,
            weight: route.weight,
            update: self.at(Area::Update),
            width: shape.hidden as u32,
            count: route.count,
        };
        self.launch(kernel::COMBINE, [rows, shape.hidden.div_ceil(256), 1], 0, &combine)
    }

    /// The trace's leaves of all rows.
    pub(crate) fn leaves(&mut self) -> Result<(), DeviceError> {
        let (shape, rows, rows_max) = (self.shape, self.extent.rows, self.areas.limits.rows);
        let message_bytes = layer_message(shape).next_multiple_of(16);
        let layers = Hash {
            header: self.at(Area::Header),
            messages: self.at(Area::Messages),
            digests: self.at(Area::Digests),
            message_stride: (rows_max * message_bytes) as u64,
            row_stride: message_bytes as u64,
            digest_stride: 32,
            digest_row_stride: 32 * shape.layers as u64,
            bytes: layer_message(shape) as u32,
            per_row: shape.layers as u32,
        };
        self.launch(kernel::HASH_MESSAGES, [rows, shape.layers, 1], 0, &layers)?;
        let leaf_bytes = leaf_message(shape).next_multiple_of(16) as u64;
        let leaf = Leaf {
            header: layers.header,
            rows: self.at(Area::Rows),
            digests: layers.digests,
            hidden: self.areas.input(shape.hidden),
            messages: self.at(Area::LeafMessages),
            layers: shape.layers as u32,
            width: shape.hidden as u32,
            message_bytes: leaf_bytes,
        };
        self.launch(kernel::LEAF_MESSAGE, [rows, 1, 1], 0, &leaf)?;
        let leaves = Hash {
            messages: leaf.messages,
            digests: self.at(Area::Leaves),
            message_stride: 0,
            row_stride: leaf_bytes,
            digest_stride: 32,
            digest_row_stride: 32,
            bytes: leaf_message(shape) as u32,
            per_row: 1,
            ..layers
        };
        self.launch(kernel::HASH_MESSAGES, [rows, 1, 1], 0, &leaves)
    }
}

/// Whether the kernels take a model of this shape; if not, why.
pub(crate) fn check(shape: &model::Shape) -> Result<(), DeviceError> {
    let (experts, ..) = mixture_sizes(shape);
    let what = if shape.head_dim > 512 {
        format!("heads of {} dimensions: the CUDA kernels take up to 512", shape.head_dim)
    } else if experts > 1024 {
        format!("{experts} experts: the CUDA kernels take up to 1,024")
    } else if shape.vocabulary > 1 << 22 {
        format!("{} tokens: the CUDA kernels take vocabularies up to {}", shape.vocabulary, 1 << 22)
    } else if leaf_message(shape) > 288 * 1024 || layer_message(shape) > 288 * 1024 {
        "rows too wide to hash on the device".to_owned()
    } else {
        return Ok(());
    };
    Err(DeviceError::Unsupported(format!("{what}; run it on the CPU")))
}

/// Sizes that a compile of the kernels relies on.
const _: () = assert!(size_of::<ExpertTile>() == 16 && offset_of!(Header, many_tiles) == 20);
