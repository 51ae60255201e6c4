// Attention of decoding: a block takes one tile of queries, one key head and one span of 1,024 positions; its warps take
// the span's blocks in turn and their results join in ascending order. A second kernel joins the spans.
#include "attention.cuh"

template <int TILES, int WARPS> DEVICE void attend_few(const Attend& p) {
    const u32 each = TILES * 4 / WARPS; // values of a thread
    SHARED i8 weights[WARPS][1024];
    SHARED float outs[WARPS][TILES * 4][32];
    SHARED float alphas[WARPS][8];
    SHARED float betas[WARPS][8];
    SHARED u32 joins[WARPS][8]; // 0: nothing, 1: starts, 2: joins
    SHARED float maxima[WARPS][8];
    SHARED float lengths[WARPS][8];
    SHARED u32 seen[WARPS][8];
    SHARED float last_l[8];
    if (blockIdx.x >= p.header->few_tiles) return;
    u32 key_head = blockIdx.y / p.splits, split = blockIdx.y % p.splits, number = blockIdx.z;
    QueryTile tile = p.tiles[blockIdx.x];
    Row row = p.rows[tile.row];
    Queries q = queries_of(p, tile, key_head, split);
    u32 lane = lane_id(), warp = warp_id(), t = lane % 4, g = lane / 4;
    u32 begin = number * 16 > q.first ? number * 16 : q.first;
    u32 end = number * 16 + 15 < q.last ? number * 16 + 15 : q.last;
    u32 failed = 0;
    float m = 0.0f, l = -1.0f; // of query row threadIdx.x, for the first eight threads
    bool started = false;
    float total[each];
    for (u32 i = 0; i < each; ++i) total[i] = 0.0f;
    for (u32 first = begin; first <= end; first += WARPS) {
        State state = {};
        if (first + warp <= end) {
            float out[TILES][4];
            u32 b = first + warp;
            attend_block<TILES>(p, q, b, block_of(p, row.pages, b, key_head), weights[warp], &state, out, &failed);
#pragma unroll
            for (u32 i = 0; i < TILES * 4; ++i) outs[warp][i][lane] = out[i / 4][i % 4];
        }
        if (g == 0) {
            for (u32 n = 0; n < 2; ++n) {
                seen[warp][2 * t + n] = state.started[n];
                maxima[warp][2 * t + n] = state.m[n];
                lengths[warp][2 * t + n] = state.l[n];
            }
        }
        __syncthreads();
        if (threadIdx.x < 8) {
            for (u32 w = 0; w < WARPS; ++w) {
                u32 j = threadIdx.x;
                float alpha = 0.0f, beta = 1.0f;
                joins[w][j] = !seen[w][j] ? 0 : started ? 2 : 1;
                if (joins[w][j] == 2) join(&m, &l, maxima[w][j], lengths[w][j], &alpha, &beta);
                if (joins[w][j] == 1) {
                    m = maxima[w][j];
                    l = lengths[w][j];
                    started = true;
                }
                alphas[w][j] = alpha;
                betas[w][j] = beta;
            }
        }
        __syncthreads();
        for (u32 i = 0; i < each; ++i) {
            u32 value = i * WARPS + warp, j = 2 * t + value % 2;
            for (u32 w = 0; w < WARPS; ++w) {
                float x = outs[w][value][lane];
                if (joins[w][j] == 1) total[i] = x;
                if (joins[w][j] == 2) total[i] = fma_(total[i], alphas[w][j], mul(x, betas[w][j]));
            }
        }
        __syncthreads();
    }
    if (failed) p.failed[row.segment] = 1;
    if (threadIdx.x < 8) last_l[threadIdx.x] = l;
    __syncthreads();
    u32 heads = p.group - split * p.tile_heads < p.tile_heads ? p.group - split * p.tile_heads : p.tile_heads;
    u32 first_head = key_head * p.group + split * p.tile_heads, used = tile.tokens * heads, d = p.head_dim;
    u64 part = ((u64)blockIdx.x * gridDim.y + blockIdx.y) * p.spans + number;
    for (u32 i = 0; i < each; ++i) {
        u32 value = i * WARPS + warp, j = 2 * t + value % 2, dim = value / 4 * 16 + value / 2 % 2 * 8 + g;
        if (dim >= d || j >= used) continue;
        if (p.spans == 1) {
            float* to = p.out + ((u64)(tile.row + j / heads) * p.heads + first_head + j % heads) * d;
            to[dim] = mul(total[i], __fdiv_rn(65536.0f, last_l[j]));
        } else {
            p.parts[(part * 8 + j) * d + dim] = total[i];
        }
    }
    if (p.spans > 1 && threadIdx.x < 8) {
        p.part_ml[(part * 8 + threadIdx.x) * 2] = m;
        p.part_ml[(part * 8 + threadIdx.x) * 2 + 1] = l;
    }
}

KERNEL(attend_few_64, Attend, 256) { attend_few<4, 8>(p); }
KERNEL(attend_few_128, Attend, 256) { attend_few<8, 8>(p); }
KERNEL(attend_few_256, Attend, 128) { attend_few<16, 4>(p); }
KERNEL(attend_few_512, Attend, 64) { attend_few<32, 2>(p); }

// Joins the spans of one tile's query rows in ascending order. One block a tile and key head.
KERNEL(join_spans, Attend, 128) {
    if (blockIdx.x >= p.header->few_tiles) return;
    u32 key_head = blockIdx.y / p.splits, split = blockIdx.y % p.splits, d = p.head_dim;
    QueryTile tile = p.tiles[blockIdx.x];
    u32 heads = p.group - split * p.tile_heads < p.tile_heads ? p.group - split * p.tile_heads : p.tile_heads;
    u32 first_head = key_head * p.group + split * p.tile_heads;
    u64 first = ((u64)blockIdx.x * gridDim.y + blockIdx.y) * p.spans;
    for (u32 i = threadIdx.x; i < tile.tokens * heads * d; i += blockDim.x) {
        u32 j = i / d, dim = i % d;
        bool started = false;
        float m = 0.0f, l = 0.0f, o = 0.0f;
        for (u32 s = 0; s < p.spans; ++s) {
            const float* ml = p.part_ml + ((first + s) * 8 + j) * 2;
            if (ml[1] < 0.0f) continue;
            float x = p.parts[((first + s) * 8 + j) * d + dim];
            if (started) {
                float alpha, beta;
                join(&m, &l, ml[0], ml[1], &alpha, &beta);
                o = fma_(o, alpha, mul(x, beta));
            } else {
                started = true;
                m = ml[0];
                l = ml[1];
                o = x;
            }
        }
        p.out[((u64)(tile.row + j / heads) * p.heads + first_head + j % heads) * d + dim] = mul(o, __fdiv_rn(65536.0f, l));
    }
}
