// The arguments of the kernels and the tables they read. src/arguments.rs holds the same structures; a test compares
// their sizes.
#pragma once
#include "common.cuh"

// Counts of one step, read by kernels whose grid may be larger.
struct Header {
    u32 rows;        // rows of the batch
    u32 head_rows;   // rows whose logits are wanted
    u32 tiles;       // adapter tiles over the rows
    u32 head_tiles;  // adapter tiles over the rows whose logits are wanted
    u32 few_tiles;   // attention tiles of single tokens
    u32 many_tiles;  // attention tiles of longer segments
    u32 draws;
    u32 unused;
};

// One row of the batch.
struct Row {
    u32 token;
    u32 position;
    u32 segment;
    u32 pages; // where its sequence's page numbers start
};

// Up to eight query rows: tokens of one segment.
struct QueryTile {
    u32 row; // first
    u32 tokens;
};

// What an adapter adds to one linear map; rank 0 is nothing.
struct Share {
    const i8* a;          // [rank / 8][inputs / 64][8][64]
    const float* a_scale; // [rank]
    const i8* b;          // [outputs][stride]
    const float* b_scale; // [outputs]
    float gain;
    u32 rank;
    u32 stride; // bytes of a row of b: 4, 8, or a multiple of 16
    u32 unused;
};

// Up to eight rows that share an adapter.
struct AdapterTile {
    const Share* sites; // by site of the plan
    u32 row;
    u32 rows;
};

// Up to some rows (entries of a list) that use one expert.
struct ExpertTile {
    u32 expert;
    u32 first;
    u32 count;
    u32 unused;
};

// Quantised rows: [plane][row / 8][input / 64][row % 8][input % 64], one scale per row.
struct Rows8 {
    i8* digits;
    float* scales;
    u64 plane_stride; // bytes
    u32 chunks;       // inputs / 64, rounded up
    u32 planes;
};

// A linear map. Weights: [output / 16][input / 64][output % 16][input % 64].
struct Target {
    const i8* weights;
    const float* scales;
    const float* bias; // may be null
    float* out;        // [row][outputs]
    u32 outputs;
    u32 first_block; // of the grid's x
    u32 site;
    u32 unused;
};

struct Embed {
    const Header* header;
    const Row* rows;
    const u16* table;
    float* out;
    u32 width;
    u32 brain; // 1: bfloat16, 0: IEEE half
};

// One row of floats becomes one quantised row (prepare.cu).
struct Prepare {
    const Header* header;
    const Row* rows;
    float* residual;      // if norm: x, updated in place
    const float* update;  // added to the residual first; may be null
    const float* weight;  // of the norm; null: no norm
    const float* source;  // without a norm
    const float* up;      // silu(source) * up; may be null
    float* spread_out;    // the row before quantising; may be null
    float* scratch;       // a row each, where rows do not fit shared memory; else null
    Rows8 out;
    u32* failed;
    u32 width;
    u32 block;  // of the spread; 1: none
    u32 slots;  // quantised rows per row of the batch
    float eps;
};

// Heads to quantised queries and pages (heads.cu).
struct Heads {
    const Header* header;
    const Row* rows;
    const float* query;
    const float* key;
    const float* value;
    const float* query_norm; // may be null
    const float* key_norm;
    const float* cosines; // [position][pairs]
    const float* sines;
    i8* queries; // [row][head][plane][chunks * 64]
    float* query_scales;
    i8* pages;
    const u32* page_ids;
    u8* messages; // of the trace; may be null
    u32* failed;
    u64 page_bytes;
    u32 heads;
    u32 key_heads;
    u32 head_dim;
    u32 chunks; // head_dim / 64, rounded up
    u32 pairs;
    u32 layer;
    u32 block_bytes; // one head's keys and values of one page and layer
    u32 message_bytes; // between messages
    float eps;
    u32 block; // of the spread
};

struct Product {
    const u32* count; // rows in all; with tiles: number of tiles
    const u32* list;  // row of x for each column; null: the column itself
    const ExpertTile* tiles; // null: all rows, no experts
    Rows8 x;
    Target targets[3];
    u64 expert_bytes; // from one expert's weights to the next
    u32 targets_used;
    u32 divide;  // row of x = list / divide
    u32 scatter; // 1: the output row is the list's entry, 0: the column
    u32 planes;
    u32 expert_outputs; // from one expert's scales to the next
    u32 unused;
};

struct AdapterDown {
    const u32* tile_count;
    const AdapterTile* tiles;
    const u32* list; // as in Product
    const Row* rows;
    Rows8 x;
    i8* narrow; // [target][row][plane][rank_max]
    float* narrow_scales;
    u32* failed;
    u32 sites[3];
    u32 rows_max;
    u32 rank_max;
    u32 unused;
};

struct AdapterUp {
    const u32* tile_count;
    const AdapterTile* tiles;
    const i8* narrow;
    const float* narrow_scales;
    Target targets[3];
    u32 rows_max;
    u32 rank_max;
};

struct Attend {
    const Header* header;
    const QueryTile* tiles;
    const Row* rows;
    const i8* queries;
    const float* query_scales;
    const i8* pages;
    const u32* page_ids;
    float* out;     // [row][head][head_dim]
    float* parts;   // [tile][key head, split][span][8][head_dim], few queries only
    float* part_ml; // [tile][key head, split][span][8][2]; sum below 0: the span sees nothing
    u32* failed;
    u64 page_bytes;
    u32 heads;
    u32 key_heads;
    u32 head_dim;
    u32 chunks;
    u32 group;      // query heads per key head
    u32 tile_heads; // of them, those of one tile
    u32 splits;     // tiles for one group
    u32 layer;
    u32 block_bytes;
    u32 window; // 0: none
    u32 spans;  // of the grid
    float constant;
};

struct Route {
    const Header* header;
    const Row* rows;
    const float* x; // [row][inputs], spread if the model spreads
    const short* weights; // [expert][inputs]
    const float* scales;
    u32* chosen;    // [row][chosen]
    float* weight;  // [row][chosen]
    short* levels;  // scratch, [row][inputs]
    u32* failed;
    u32 inputs;
    u32 experts;
    u32 count; // chosen
    u32 renormalise;
};

struct Gather {
    const Header* header;
    const u32* chosen;
    u32* list;          // slots (row * chosen + i), by expert
    ExpertTile* tiles;
    u32* tile_count;
    u32 experts;
    u32 count;
    u32 tile_rows;
    u32 unused;
};

struct Combine {
    const Header* header;
    const float* outputs; // [slot][width]
    const float* weight;
    float* update;
    u32 width;
    u32 count;
};

// One draw (sample.cu).
struct DrawRow {
    u64 seed;
    u64 position;
    u64 share; // of top_p, times 2^24; all ones: no top_p
    u64 least; // of min_p, times 2^24; 0: all
    u32 row;   // of the logits
    u32 top_k; // 0: all
    float tau; // 0: greedy
    u32 unused;
};

struct Sample {
    const Header* header;
    const DrawRow* draws;
    const float* logits;
    u32* tokens; // 0xffffffff: not finite
    u32 vocabulary;
    u32 unused;
};

struct Hash {
    const Header* header;
    const u8* messages; // [row][messages_per_row][message_bytes]
    u8* digests;        // [row][messages_per_row][digest_stride]
    u64 message_stride; // bytes from one message to the next
    u64 row_stride;     // bytes from one row's first message to the next row's
    u64 digest_stride;
    u64 digest_row_stride;
    u32 bytes; // of a message
    u32 per_row;
};

struct Leaf {
    const Header* header;
    const Row* rows;
    const u8* digests; // [row][layers][32]
    Rows8 hidden;
    u8* messages;
    u32 layers;
    u32 width;
    u64 message_bytes;
};

struct Measure {
    const Quad* from;
    Quad* to;
    u64 quads;
    u32 rounds;
    u32 unused;
};
