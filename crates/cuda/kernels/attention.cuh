// One block of 64 positions for eight query rows, by one warp (section 8). Queries and weights at 16 bits are two
// digits each; both products run on the integer matrix unit. A lane g*4+t keeps, of query rows 2t and 2t+1, maximum and
// sum, and of the weighted sum of values dimensions 16i+g and 16i+g+8.
#pragma once
#include "types.cuh"

struct State {
    bool started[2];
    float m[2];
    float l[2];
};

// Which query rows one warp works on, as a lane sees them.
struct Queries {
    const i8* digits; // of query row g, from input 16t on
    float scale[2];   // of query rows 2t, 2t+1: s_q * c
    u32 position[2];
    bool used[2];
    u32 first; // blocks with a visible position
    u32 last;
};

DEVICE u32 earliest(u32 position, u32 window) {
    return window == 0 || position + 1 < window ? 0 : position + 1 - window;
}

// Query row j of a tile: token j / heads, head j % heads.
DEVICE Queries queries_of(const Attend& p, QueryTile tile, u32 key_head, u32 split) {
    Queries q;
    u32 lane = lane_id(), g = lane / 4, t = lane % 4, width = p.chunks * 64;
    u32 heads = p.group - split * p.tile_heads < p.tile_heads ? p.group - split * p.tile_heads : p.tile_heads;
    u32 first_head = key_head * p.group + split * p.tile_heads, used = tile.tokens * heads;
    u32 mine = g < used ? g : 0;
    u64 at = (u64)(tile.row + mine / heads) * p.heads + first_head + mine % heads;
    q.digits = p.queries + at * 2 * width + t * 16;
    for (u32 i = 0; i < 2; ++i) {
        u32 j = 2 * t + i;
        q.used[i] = j < used;
        j = q.used[i] ? j : 0;
        q.position[i] = p.rows[tile.row + j / heads].position;
        q.scale[i] = mul(p.query_scales[(u64)(tile.row + j / heads) * p.heads + first_head + j % heads], p.constant);
    }
    u32 position = p.rows[tile.row].position;
    q.first = earliest(position, p.window) / 64;
    q.last = (position + tile.tokens - 1) / 64;
    return q;
}

DEVICE float max_over_g(float x) {
    for (int h = 4; h < 32; h *= 2) {
        float other = __shfl_xor_sync(EVERY_LANE, x, h);
        x = other > x ? other : x;
    }
    return x;
}

// Scores, weights and weighted values of block number b. `weights` holds 1,024 bytes of this warp.
template <int TILES>
DEVICE void attend_block(const Attend& p, const Queries& q, u32 b, const i8* block, i8* weights, State* state,
                         float out[TILES][4], u32* failed) {
    u32 lane = lane_id(), g = lane / 4, t = lane % 4, width = p.chunks * 64;
    u32 key_bytes = p.chunks * 4096, tiles = (p.head_dim + 15) / 16;
    const float* s_k = (const float*)(block + key_bytes + tiles * 1024);
    const float* s_v = s_k + 64;
    int score[4][4];
    __syncwarp();
    {
        int high[4][4] = {}, low[4][4] = {};
        for (u32 c = 0; c < p.chunks; ++c) {
            Quad q_high = load_quad(q.digits + c * 64), q_low = load_quad(q.digits + width + c * 64);
#pragma unroll
            for (u32 i = 0; i < 4; ++i) {
                const i8* k = block + ((u64)(i * p.chunks + c) * 16 + g) * 64 + t * 16;
                Quad a = load_quad(k), a8 = load_quad(k + 512);
                mma64(high[i], a, a8, q_high);
                mma64(low[i], a, a8, q_low);
            }
        }
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
#pragma unroll
            for (u32 r = 0; r < 4; ++r) score[i][r] = (int)((u32)high[i][r] * 256u + (u32)low[i][r]);
        }
    }
    float scale_w[2];
#pragma unroll
    for (u32 n = 0; n < 2; ++n) {
        // Visible slots of query row 2t+n: from <= slot < to.
        u32 start = b * 64, early = earliest(q.position[n], p.window);
        u32 from = early > start ? early - start : 0;
        u32 to = q.used[n] && q.position[n] + 1 > start ? q.position[n] + 1 - start : 0;
        to = to < 64 ? to : 64;
        state->started[n] = from < to;
        float w[8];
        float m = bits(0xff800000u);
#pragma unroll
        for (u32 j = 0; j < 8; ++j) {
            u32 slot = j / 2 * 16 + j % 2 * 8 + g;
            bool visible = slot >= from && slot < to;
            float x = mul(__int2float_rn(score[j / 2][j % 2 * 2 + n]), mul(q.scale[n], s_k[slot]));
            w[j] = visible ? x : bits(0xff800000u);
            m = w[j] > m ? w[j] : m;
        }
        m = max_over_g(m);
        int sum = 0;
        u32 magnitude = 0;
#pragma unroll
        for (u32 j = 0; j < 8; ++j) {
            u32 slot = j / 2 * 16 + j % 2 * 8 + g;
            bool visible = slot >= from && slot < to;
            float e = visible ? exp2_(sub(w[j], m)) : 0.0f;
            sum += round_small(mul(e, 65536.0f));
            w[j] = visible ? mul(e, s_v[slot]) : 0.0f;
            u32 size = bits_of(w[j]) & 0x7fffffffu;
            magnitude = size > magnitude ? size : magnitude;
        }
        for (int h = 4; h < 32; h *= 2) {
            sum += __shfl_xor_sync(EVERY_LANE, sum, h);
            u32 other = __shfl_xor_sync(EVERY_LANE, magnitude, h);
            magnitude = other > magnitude ? other : magnitude;
        }
        if (!finite_bits(magnitude)) *failed = 1;
        float multiplier;
        scale_of(magnitude, LEVELS_16, &multiplier, &scale_w[n]);
        state->m[n] = m;
        state->l[n] = __int2float_rn(sum);
#pragma unroll
        for (u32 j = 0; j < 8; ++j) {
            int v = finite_bits(magnitude) ? level(w[j], multiplier, LEVELS_16) : 0;
            i8* at = weights + (2 * t + n) * 64 + j / 2 * 16 + j % 2 * 8 + g;
            at[0] = (i8)high_digit(v);
            at[512] = (i8)low_digit(v);
        }
    }
    __syncwarp();
    Quad w_high = load_quad(weights + g * 64 + t * 16), w_low = load_quad(weights + 512 + g * 64 + t * 16);
#pragma unroll
    for (u32 i = 0; i < TILES; ++i) {
        if (i < tiles) {
            const i8* v = block + key_bytes + (u64)(i * 16 + g) * 64 + t * 16;
            Quad a = load_quad(v), a8 = load_quad(v + 512);
            int high[4] = {}, low[4] = {};
            mma64(high, a, a8, w_high);
            mma64(low, a, a8, w_low);
#pragma unroll
            for (u32 r = 0; r < 4; ++r) {
                out[i][r] = mul(__int2float_rn((int)((u32)high[r] * 256u + (u32)low[r])), scale_w[r % 2]);
            }
        }
    }
    __syncwarp();
}

// The factors with which `other` joins a state (section 8), and the joined maximum and sum.
DEVICE void join(float* m, float* l, float m_other, float l_other, float* alpha, float* beta) {
    float larger = m_other > *m ? m_other : *m;
    *alpha = exp2_(sub(*m, larger));
    *beta = exp2_(sub(m_other, larger));
    *l = fma_(*l, *alpha, mul(l_other, *beta));
    *m = larger;
}

DEVICE const i8* block_of(const Attend& p, u32 pages, u32 b, u32 key_head) {
    return p.pages + (u64)p.page_ids[pages + b] * p.page_bytes + (u64)(p.layer * p.key_heads + key_head) * p.block_bytes;
}
