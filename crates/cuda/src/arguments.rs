//! The kernels' arguments and tables, field for field as kernels/types.cuh has them. Addresses are device addresses.
#![expect(missing_docs, reason = "fields are described where the kernels read them, in kernels/types.cuh")]

use bytemuck::{Pod, Zeroable};

macro_rules! structures {
    ($($(#[$meta:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {
        $(
            $(#[$meta])*
            #[derive(Clone, Copy, Pod, Zeroable, Debug)]
            #[repr(C)]
            pub struct $name {
                $(pub $field: $type,)*
            }

            impl Default for $name {
                fn default() -> Self {
                    Zeroable::zeroed()
                }
            }
        )*
    };
}

structures! {
    /// Counts of one step.
    Header { rows: u32, head_rows: u32, tiles: u32, head_tiles: u32, few_tiles: u32, many_tiles: u32, draws: u32, unused: u32, }
    /// One row of the batch.
    Row { token: u32, position: u32, segment: u32, pages: u32, }
    /// Up to eight query rows.
    QueryTile { row: u32, tokens: u32, }
    /// What an adapter adds to one linear map.
    Share { a: u64, a_scale: u64, b: u64, b_scale: u64, gain: f32, rank: u32, stride: u32, unused: u32, }
    /// Up to eight rows that share an adapter.
    AdapterTile { sites: u64, row: u32, rows: u32, }
    /// Up to some rows that use one expert.
    ExpertTile { expert: u32, first: u32, count: u32, unused: u32, }
    /// Quantised rows.
    Rows8 { digits: u64, scales: u64, plane_stride: u64, chunks: u32, planes: u32, }
    /// A linear map.
    Target {
        weights: u64, scales: u64, bias: u64, out: u64, outputs: u32, first_block: u32, site: u32, unused: u32,
    }
    /// embed.cu
    Embed { header: u64, rows: u64, table: u64, out: u64, width: u32, brain: u32, }
    /// prepare.cu
    Prepare {
        header: u64, rows: u64, residual: u64, update: u64, weight: u64, source: u64, up: u64, spread_out: u64,
        scratch: u64, out: Rows8, failed: u64, width: u32, block: u32, slots: u32, eps: f32,
    }
    /// heads.cu
    Heads {
        header: u64, rows: u64, query: u64, key: u64, value: u64, query_norm: u64, key_norm: u64, cosines: u64,
        sines: u64, queries: u64, query_scales: u64, pages: u64, page_ids: u64, messages: u64, failed: u64,
        page_bytes: u64, heads: u32, key_heads: u32, head_dim: u32, chunks: u32, pairs: u32, layer: u32,
        block_bytes: u32, message_bytes: u32, eps: f32, block: u32,
    }
    /// product.cu and gemm.cu
    Product {
        count: u64, list: u64, tiles: u64, x: Rows8, targets: [Target; 3], expert_bytes: u64, targets_used: u32,
        divide: u32, scatter: u32, planes: u32, expert_outputs: u32, unused: u32,
    }
    /// adapter.cu, first half
    AdapterDown {
        tile_count: u64, tiles: u64, list: u64, rows: u64, x: Rows8, narrow: u64, narrow_scales: u64, failed: u64,
        sites: [u32; 3], rows_max: u32, rank_max: u32, unused: u32,
    }
    /// adapter.cu, second half
    AdapterUp {
        tile_count: u64, tiles: u64, narrow: u64, narrow_scales: u64, targets: [Target; 3], rows_max: u32,
        rank_max: u32,
    }
    /// attend_few.cu and attend_many.cu
    Attend {
        header: u64, tiles: u64, rows: u64, queries: u64, query_scales: u64, pages: u64, page_ids: u64, out: u64,
        parts: u64, part_ml: u64, failed: u64, page_bytes: u64, heads: u32, key_heads: u32, head_dim: u32,
        chunks: u32, group: u32, tile_heads: u32, splits: u32, layer: u32, block_bytes: u32, window: u32,
        spans: u32, constant: f32,
    }
    /// mixture.cu, routing
    Route {
        header: u64, rows: u64, x: u64, weights: u64, scales: u64, chosen: u64, weight: u64, levels: u64,
        failed: u64, inputs: u32, experts: u32, count: u32, renormalise: u32,
    }
    /// mixture.cu, grouping
    Gather {
        header: u64, chosen: u64, list: u64, tiles: u64, tile_count: u64, experts: u32, count: u32, tile_rows: u32,
        unused: u32,
    }
    /// mixture.cu, adding
    Combine { header: u64, outputs: u64, weight: u64, update: u64, width: u32, count: u32, }
    /// One draw.
    DrawRow {
        seed: u64, position: u64, share: u64, least: u64, row: u32, top_k: u32, tau: f32, unused: u32,
    }
    /// sample.cu
    Sample { header: u64, draws: u64, logits: u64, tokens: u64, vocabulary: u32, unused: u32, }
    /// hash.cu, any messages
    Hash {
        header: u64, messages: u64, digests: u64, message_stride: u64, row_stride: u64, digest_stride: u64,
        digest_row_stride: u64, bytes: u32, per_row: u32,
    }
    /// hash.cu, the leaves' messages
    Leaf {
        header: u64, rows: u64, digests: u64, hidden: Rows8, messages: u64, layers: u32, width: u32,
        message_bytes: u64,
    }
    /// measure.cu
    Measure { from: u64, to: u64, quads: u64, rounds: u32, unused: u32, }
}
