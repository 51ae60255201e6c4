// Heads of queries, keys and values: norm, rotary positions, spread, quantise; queries to their rows, keys and values to
// their pages (sections 4, 6, 7). One warp a head.
#include "spread.cuh"
#include "types.cuh"

#define HEAD_WARPS 4
#define HEAD_MAX 512

// The norm of a head by one warp: the 128 lanes of section 4, four to a thread.
DEVICE void head_norm(float* x, u32 d, const float* weight, float eps) {
    u32 lane = lane_id();
    float lanes[4];
#pragma unroll
    for (u32 j = 0; j < 4; ++j) {
        lanes[j] = 0.0f;
        for (u32 i = lane + 32 * j; i < d; i += 128) lanes[j] = fma_(x[i], x[i], lanes[j]);
    }
    float sum = add(add(lanes[0], lanes[2]), add(lanes[1], lanes[3]));
    for (int h = 16; h > 0; h /= 2) sum = add(sum, __shfl_down_sync(EVERY_LANE, sum, h));
    sum = __shfl_sync(EVERY_LANE, sum, 0);
    float r = __fdiv_rn(1.0f, __fsqrt_rn(add(__fdiv_rn(sum, __int2float_rn((int)d)), eps)));
    __syncwarp();
    for (u32 i = lane; i < d; i += 32) x[i] = mul(mul(x[i], r), weight[i]);
    __syncwarp();
}

DEVICE void rotate(float* x, u32 pairs, const float* c, const float* s) {
    for (u32 i = lane_id(); i < pairs; i += 32) {
        float a = x[i], b = x[i + pairs];
        x[i] = fma_(a, c[i], -mul(b, s[i]));
        x[i + pairs] = fma_(b, c[i], mul(a, s[i]));
    }
    __syncwarp();
}

DEVICE u32 magnitude_of(const float* x, u32 d) {
    u32 magnitude = 0;
    for (u32 i = lane_id(); i < d; i += 32) {
        u32 m = bits_of(x[i]) & 0x7fffffffu;
        magnitude = m > magnitude ? m : magnitude;
    }
    return warp_max(magnitude);
}

KERNEL(heads, Heads, 128) {
    SHARED float values[HEAD_WARPS][HEAD_MAX];
    u32 row = blockIdx.x, lane = lane_id(), d = p.head_dim;
    u32 unit = blockIdx.y * HEAD_WARPS + warp_id();
    if (row >= p.header->rows || unit >= p.heads + 2 * p.key_heads) return;
    Row info = p.rows[row];
    bool is_query = unit < p.heads, is_key = !is_query && unit < p.heads + p.key_heads;
    u32 head = is_query ? unit : is_key ? unit - p.heads : unit - p.heads - p.key_heads;
    const float* from = is_query ? p.query + ((u64)row * p.heads + head) * d
                                 : (is_key ? p.key : p.value) + ((u64)row * p.key_heads + head) * d;
    float* x = values[warp_id()];
    for (u32 i = lane; i < d; i += 32) x[i] = from[i];
    __syncwarp();
    if (is_query || is_key) {
        if (p.query_norm) head_norm(x, d, is_query ? p.query_norm : p.key_norm, p.eps);
        rotate(x, p.pairs, p.cosines + (u64)info.position * p.pairs, p.sines + (u64)info.position * p.pairs);
        spread(x, d, p.block, lane, 32, WarpSync(), Plain());
    }
    u32 magnitude = magnitude_of(x, d);
    bool finite = finite_bits(magnitude);
    if (!finite && lane == 0) p.failed[info.segment] = 1;
    float multiplier, scale;
    scale_of(magnitude, is_query ? LEVELS_16 : LEVELS_8, &multiplier, &scale);
    if (is_query) {
        u32 width = p.chunks * 64;
        i8* to = p.queries + ((u64)row * p.heads + head) * 2 * width;
        for (u32 i = lane; i < width; i += 32) {
            int q = i < d && finite ? level(x[i], multiplier, LEVELS_16) : 0;
            to[i] = (i8)high_digit(q);
            to[width + i] = (i8)low_digit(q);
        }
        if (lane == 0) p.query_scales[(u64)row * p.heads + head] = scale;
        return;
    }
    u32 slot = info.position % 64;
    i8* block = p.pages + (u64)p.page_ids[info.pages + info.position / 64] * p.page_bytes +
                (u64)(p.layer * p.key_heads + head) * p.block_bytes;
    u32 key_bytes = p.chunks * 4096, dims = (d + 15) / 16 * 16;
    u8* message = p.messages ? p.messages + (u64)row * p.message_bytes + 1 +
                                   (u64)((is_key ? 0 : p.key_heads) + head) * (d + 4)
                             : 0;
    for (u32 i = lane; i < (is_key ? p.chunks * 64 : dims); i += 32) {
        int q = i < d && finite ? level(x[i], multiplier, LEVELS_8) : 0;
        u32 at = is_key ? (slot / 16 * p.chunks + i / 64) * 1024 + slot % 16 * 64 + i % 64 : key_bytes + i * 64 + slot;
        block[at] = (i8)q;
        if (message && i < d) message[i] = (u8)q;
    }
    if (lane == 0) {
        float* scales = (float*)(block + key_bytes + dims * 64);
        scales[is_key ? slot : 64 + slot] = scale;
        if (message) {
            for (u32 j = 0; j < 4; ++j) message[d + j] = (u8)(bits_of(scale) >> (8 * j));
            if (unit == p.heads) message[-1] = 0x10;
        }
    }
}
