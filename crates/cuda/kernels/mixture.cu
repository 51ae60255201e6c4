// Mixtures of experts (section 10): route each row, group the rows by expert, add the experts' outputs.
#include "types.cuh"

#define EXPERTS_MAX 1024
#define NO_EXPERT 0xffffffffu

// The chosen experts of a row in ascending id, with their weights. One block a row.
KERNEL(route, Route, 256) {
    SHARED float z[EXPERTS_MAX];
    SHARED u32 chosen[EXPERTS_MAX];
    SHARED u32 cells[32];
    SHARED u64 sum;
    SHARED u32 worst;
    u32 row = blockIdx.x;
    if (row >= p.header->rows) return;
    const float* x = p.x + (u64)row * p.inputs;
    short* q = p.levels + (u64)row * p.inputs;
    u32 magnitude = 0;
    for (u32 i = threadIdx.x; i < p.inputs; i += blockDim.x) {
        u32 m = bits_of(x[i]) & 0x7fffffffu;
        magnitude = m > magnitude ? m : magnitude;
    }
    magnitude = block_max(magnitude, cells);
    float multiplier, scale;
    scale_of(magnitude, LEVELS_16, &multiplier, &scale);
    bool finite = finite_bits(magnitude);
    for (u32 i = threadIdx.x; i < p.inputs; i += blockDim.x) {
        q[i] = finite ? (short)level(x[i], multiplier, LEVELS_16) : (short)0;
    }
    if (threadIdx.x == 0) {
        sum = 0;
        worst = finite ? 0 : 0x7f800000u;
    }
    __syncthreads();
    for (u32 e = warp_id(); e < p.experts; e += blockDim.x / 32) {
        const short* w = p.weights + (u64)e * p.inputs;
        i64 dot = 0;
        for (u32 i = lane_id(); i < p.inputs; i += 32) dot += (i64)((int)q[i] * (int)w[i]);
        for (int h = 16; h > 0; h /= 2) dot += __shfl_xor_sync(EVERY_LANE, dot, h);
        if (lane_id() == 0) {
            z[e] = mul(__ll2float_rn(dot), mul(scale, p.scales[e]));
            atomicMax(&worst, bits_of(z[e]) & 0x7fffffffu);
        }
    }
    __syncthreads();
    if (!finite_bits(worst)) {
        if (threadIdx.x < p.count) p.chosen[(u64)row * p.count + threadIdx.x] = NO_EXPERT;
        if (threadIdx.x == 0) p.failed[p.rows[row].segment] = 1;
        return;
    }
    float z_max = z[0];
    for (u32 e = 1; e < p.experts; ++e) z_max = z[e] > z_max ? z[e] : z_max;
    for (u32 e = threadIdx.x; e < p.experts; e += blockDim.x) {
        u32 rank = 0;
        for (u32 o = 0; o < p.experts; ++o) rank += z[o] > z[e] || (z[o] == z[e] && o < e);
        chosen[e] = rank < p.count;
        u64 n = (u64)__float2int_rn(mul(exp2_(mul(sub(z[e], z_max), LOG2_E)), 16777216.0f));
        if (chosen[e] || !p.renormalise) atomicAdd(&sum, n);
    }
    __syncthreads();
    for (u32 e = threadIdx.x; e < p.experts; e += blockDim.x) {
        if (!chosen[e]) continue;
        u32 slot = 0;
        for (u32 o = 0; o < e; ++o) slot += chosen[o];
        int n = __float2int_rn(mul(exp2_(mul(sub(z[e], z_max), LOG2_E)), 16777216.0f));
        p.chosen[(u64)row * p.count + slot] = e;
        p.weight[(u64)row * p.count + slot] = __fdiv_rn(__int2float_rn(n), __ull2float_rn(sum));
    }
}

// Lists the slots (row * count + i) of each expert and cuts the lists into tiles. One block in all.
KERNEL(gather, Gather, 1024) {
    SHARED u32 next[EXPERTS_MAX];
    u32 slots = p.header->rows * p.count;
    for (u32 e = threadIdx.x; e < p.experts; e += blockDim.x) next[e] = 0;
    __syncthreads();
    for (u32 s = threadIdx.x; s < slots; s += blockDim.x) {
        if (p.chosen[s] != NO_EXPERT) atomicAdd(&next[p.chosen[s]], 1u);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        u32 first = 0, tiles = 0;
        for (u32 e = 0; e < p.experts; ++e) {
            u32 count = next[e];
            for (u32 i = 0; i < count; i += p.tile_rows) {
                ExpertTile tile = {e, first + i, count - i < p.tile_rows ? count - i : p.tile_rows, 0};
                p.tiles[tiles++] = tile;
            }
            next[e] = first;
            first += count;
        }
        *p.tile_count = tiles;
    }
    __syncthreads();
    for (u32 s = threadIdx.x; s < slots; s += blockDim.x) {
        if (p.chosen[s] != NO_EXPERT) p.list[atomicAdd(&next[p.chosen[s]], 1u)] = s;
    }
}

// Update = the experts' outputs, weighted, in ascending id.
KERNEL(combine, Combine, 256) {
    u32 row = blockIdx.x, i = blockIdx.y * 256 + threadIdx.x;
    if (row >= p.header->rows || i >= p.width) return;
    float y = 0.0f;
    for (u32 k = 0; k < p.count; ++k) {
        u64 slot = (u64)row * p.count + k;
        float d = p.outputs[slot * p.width + i], g = p.weight[slot];
        y = k == 0 ? mul(d, g) : fma_(d, g, y);
    }
    p.update[(u64)row * p.width + i] = y;
}
