// Mixtures of experts (section 10): route each row, group the rows by expert, add the experts' outputs.
#include "types.cuh"

#define EXPERTS_MAX 1024
#define NO_EXPERT 0xffffffffu
#define ROUTE_DEPTH 4

// Eight products of two 16-bit integers each. A product of a level and a weight is below 2^31, so 64 bits hold their sum.
DEVICE i64 dot8(const Quad& a, const Quad& b, i64 sum) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        sum += (i64)((int)a.w[i] >> 16) * ((int)b.w[i] >> 16);
        sum += (i64)(int)(short)a.w[i] * (int)(short)b.w[i];
    }
    return sum;
}

// A lane's part of the products of q with two rows of weights: each piece of q is read once for both, and the weights of
// a turn are asked for before the first is used. Rows that do not start at sixteen bytes are taken one by one.
DEVICE void dot_pair(const short* q, const short* w0, const short* w1, u32 inputs, i64 dots[2]) {
    u32 wide = inputs % 8 == 0 ? inputs : 0, first = 0;
    for (; first + ROUTE_DEPTH * 256 <= wide; first += ROUTE_DEPTH * 256) {
        u32 at = first + lane_id() * 8;
        Quad a[ROUTE_DEPTH], b[ROUTE_DEPTH];
#pragma unroll
        for (int k = 0; k < ROUTE_DEPTH; ++k) {
            a[k] = load_quad(w0 + at + k * 256);
            b[k] = load_quad(w1 + at + k * 256);
        }
        // The assembler would sink loads between the sums below. All lanes are here: `first` is the same for all.
        __syncwarp();
#pragma unroll
        for (int k = 0; k < ROUTE_DEPTH; ++k) {
            Quad x = load_quad(q + at + k * 256);
            dots[0] = dot8(x, a[k], dots[0]);
            dots[1] = dot8(x, b[k], dots[1]);
        }
    }
    u32 i = first + lane_id() * 8;
    for (; i < wide; i += 256) {
        Quad a = load_quad(w0 + i), b = load_quad(w1 + i), x = load_quad(q + i);
        dots[0] = dot8(x, a, dots[0]);
        dots[1] = dot8(x, b, dots[1]);
    }
    for (i = wide + lane_id(); i < inputs; i += 32) {
        dots[0] += (i64)(int)q[i] * (int)w0[i];
        dots[1] += (i64)(int)q[i] * (int)w1[i];
    }
}

// The chosen experts of a row in ascending id, with their weights. One block a row.
KERNEL(route, Route, 1024) {
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
    for (u32 e = 2 * warp_id(); e < p.experts; e += blockDim.x / 16) {
        bool two = e + 1 < p.experts;
        const short* w = p.weights + (u64)e * p.inputs;
        i64 dots[2] = {};
        dot_pair(q, w, two ? w + p.inputs : w, p.inputs, dots);
        for (int h = 16; h > 0; h /= 2) {
            dots[0] += __shfl_xor_sync(EVERY_LANE, dots[0], h);
            dots[1] += __shfl_xor_sync(EVERY_LANE, dots[1], h);
        }
        if (lane_id() < (two ? 2 : 1)) {
            u32 n = e + lane_id();
            z[n] = mul(__ll2float_rn(lane_id() == 0 ? dots[0] : dots[1]), mul(scale, p.scales[n]));
            atomicMax(&worst, bits_of(z[n]) & 0x7fffffffu);
        }
    }
    __syncthreads();
    if (!finite_bits(worst)) {
        if (threadIdx.x < p.count) p.chosen[(u64)row * p.count + threadIdx.x] = NO_EXPERT;
        if (threadIdx.x == 0) p.failed[p.rows[row].segment] = 1;
        return;
    }
    // Of zeros of either sign any may be the largest: what is computed with it is the same.
    float z_max = z[0];
    for (u32 e = lane_id(); e < p.experts; e += 32) z_max = z[e] > z_max ? z[e] : z_max;
    for (int h = 16; h > 0; h /= 2) {
        float other = __shfl_xor_sync(EVERY_LANE, z_max, h);
        z_max = other > z_max ? other : z_max;
    }
    u64 own = 0;
    for (u32 e = threadIdx.x; e < p.experts; e += blockDim.x) {
        float mine = z[e];
        u32 rank = 0;
#pragma unroll 8
        for (u32 o = 0; o < p.experts; ++o) rank += z[o] > mine || (z[o] == mine && o < e);
        chosen[e] = rank < p.count;
        u64 n = (u64)__float2int_rn(mul(exp2_(mul(sub(mine, z_max), LOG2_E)), 16777216.0f));
        if (chosen[e] || !p.renormalise) own += n;
    }
    // One addition a warp: shared memory adds 64 bits by trying again.
    for (int h = 16; h > 0; h /= 2) own += __shfl_xor_sync(EVERY_LANE, own, h);
    if (lane_id() == 0 && own > 0) atomicAdd(&sum, own);
    __syncthreads();
    for (u32 e = threadIdx.x; e < p.experts; e += blockDim.x) {
        if (!chosen[e]) continue;
        u32 slot = 0;
#pragma unroll 8
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
