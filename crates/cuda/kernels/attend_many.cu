// Attention of prompts: each warp takes eight query rows through all their blocks; the warps of a block read the same
// keys and values at about the same time.
#include "attention.cuh"

// Takes `other` into `state`; values lie `step` apart in `total`.
template <int TILES>
DEVICE void join_values(State* state, const State& other, float* total, u32 step, const float out[TILES][4]) {
#pragma unroll
    for (u32 n = 0; n < 2; ++n) {
        if (!other.started[n]) continue;
        float alpha = 0.0f, beta = 1.0f;
        bool started = state->started[n];
        if (started) {
            join(&state->m[n], &state->l[n], other.m[n], other.l[n], &alpha, &beta);
        } else {
            state->started[n] = true;
            state->m[n] = other.m[n];
            state->l[n] = other.l[n];
        }
#pragma unroll
        for (u32 i = 0; i < TILES; ++i) {
#pragma unroll
            for (u32 r = n; r < 4; r += 2) {
                float* o = total + (i * 4 + r) * step;
                *o = started ? fma_(*o, alpha, mul(out[i][r], beta)) : out[i][r];
            }
        }
    }
}

// WARPS warps of a block; dynamic shared memory: per warp 1,024 bytes of weights and TILES * 512 of totals.
template <int TILES, int WARPS> DEVICE void attend_many(const Attend& p, unsigned char* memory) {
    u32 number = blockIdx.x * WARPS + warp_id();
    if (number >= p.header->many_tiles) return;
    u32 key_head = blockIdx.y / p.splits, split = blockIdx.y % p.splits;
    QueryTile tile = p.tiles[number];
    i8* weights = (i8*)memory + warp_id() * 1024;
    float* total = (float*)(memory + WARPS * 1024) + warp_id() * TILES * 128 + lane_id();
    Queries q = queries_of(p, tile, key_head, split);
    Row row = p.rows[tile.row];
    State all = {}, span = {};
    float joined[TILES][4], out[TILES][4];
    u32 failed = 0;
    for (u32 b = q.first; b <= q.last; ++b) {
        State state;
        attend_block<TILES>(p, q, b, block_of(p, row.pages, b, key_head), weights, &state, out, &failed);
        join_values<TILES>(&span, state, &joined[0][0], 1, out);
        if (b % 16 == 15 || b == q.last) {
            join_values<TILES>(&all, span, total, 32, joined);
            span.started[0] = span.started[1] = false;
        }
    }
    if (failed) p.failed[row.segment] = 1;
    u32 t = lane_id() % 4, g = lane_id() / 4, d = p.head_dim;
    u32 heads = p.group - split * p.tile_heads < p.tile_heads ? p.group - split * p.tile_heads : p.tile_heads;
    u32 first_head = key_head * p.group + split * p.tile_heads;
#pragma unroll
    for (u32 n = 0; n < 2; ++n) {
        if (!q.used[n]) continue;
        u32 j = 2 * t + n;
        float* to = p.out + ((u64)(tile.row + j / heads) * p.heads + first_head + j % heads) * d;
        float r = __fdiv_rn(65536.0f, all.l[n]);
        for (u32 i = 0; i < TILES; ++i) {
            for (u32 k = 0; k < 2; ++k) {
                u32 dim = i * 16 + g + k * 8;
                if (dim < d) to[dim] = mul(total[(i * 4 + n + 2 * k) * 32], r);
            }
        }
    }
}

KERNEL(attend_many_64, Attend, 256) {
    DYNAMIC_SHARED(memory);
    attend_many<4, 8>(p, memory);
}
KERNEL(attend_many_128, Attend, 256) {
    DYNAMIC_SHARED(memory);
    attend_many<8, 8>(p, memory);
}
KERNEL(attend_many_256, Attend, 128) {
    DYNAMIC_SHARED(memory);
    attend_many<16, 4>(p, memory);
}
KERNEL(attend_many_512, Attend, 64) {
    DYNAMIC_SHARED(memory);
    attend_many<32, 2>(p, memory);
}
