// A row of floats becomes the quantised input of linear maps: [residual += update,] norm, or silu(gate) * up, or a
// register as it is; then spread, then quantise (sections 1, 4, 9, 11). One block a row; the row stays in shared memory.
#include "spread.cuh"
#include "types.cuh"

// The sum of squares in its written order: 128 lanes, then halves folded onto halves.
DEVICE float squares(const float* x, u32 n, float* lanes) {
    u32 t = threadIdx.x;
    if (t < 128) {
        float lane = 0.0f;
        for (u32 i = t; i < n; i += 128) lane = fma_(x[i], x[i], lane);
        lanes[t] = lane;
    }
    for (u32 h = 64; h > 0; h /= 2) {
        __syncthreads();
        if (t < h) lanes[t] = add(lanes[t], lanes[t + h]);
    }
    __syncthreads();
    return lanes[0];
}

DEVICE void write_levels(const Rows8& out, u32 row, const float* x, u32 width, float multiplier) {
    u64 start = ((u64)(row / 8) * out.chunks * 8 + row % 8) * 64;
    for (u32 i = threadIdx.x; i < out.chunks * 16; i += blockDim.x) {
        u32 high = 0, low = 0;
        for (u32 j = 0; j < 4; ++j) {
            float value = 4 * i + j < width ? x[4 * i + j] : 0.0f;
            if (out.planes == 1) {
                high |= ((u32)level(value, multiplier, LEVELS_8) & 255u) << (8 * j);
            } else {
                int q = level(value, multiplier, LEVELS_16);
                high |= ((u32)high_digit(q) & 255u) << (8 * j);
                low |= ((u32)low_digit(q) & 255u) << (8 * j);
            }
        }
        u64 at = start + (u64)(i / 16) * 512 + i % 16 * 4;
        *(u32*)(out.digits + at) = high;
        if (out.planes == 2) *(u32*)(out.digits + out.plane_stride + at) = low;
    }
}

KERNEL(prepare, Prepare, 256) {
    DYNAMIC_SHARED(memory);
    SHARED float lanes[128];
    SHARED u32 cells[32];
    u32 row = blockIdx.x, n = p.width;
    if (row >= p.header->rows * p.slots) return;
    float* x = p.scratch ? p.scratch + (u64)row * n : (float*)memory;
    u64 start = (u64)row * n;
    if (p.weight) {
        for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
            float value = p.residual[start + i];
            if (p.update) {
                value = add(value, p.update[start + i]);
                p.residual[start + i] = value;
            }
            x[i] = value;
        }
        __syncthreads();
        float sum = squares(x, n, lanes);
        float r = __fdiv_rn(1.0f, __fsqrt_rn(add(__fdiv_rn(sum, __int2float_rn((int)n)), p.eps)));
        for (u32 i = threadIdx.x; i < n; i += blockDim.x) x[i] = mul(mul(x[i], r), p.weight[i]);
    } else {
        for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
            float value = p.source[start + i];
            x[i] = p.up ? mul(silu(value), p.up[start + i]) : value;
        }
    }
    spread(x, n, p.block, threadIdx.x, blockDim.x, BlockSync());
    u32 magnitude = 0;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
        if (p.spread_out) p.spread_out[start + i] = x[i];
        u32 m = bits_of(x[i]) & 0x7fffffffu;
        magnitude = m > magnitude ? m : magnitude;
    }
    magnitude = block_max(magnitude, cells);
    float multiplier, scale;
    scale_of(magnitude, p.out.planes == 1 ? LEVELS_8 : LEVELS_16, &multiplier, &scale);
    bool finite = finite_bits(magnitude);
    write_levels(p.out, row, x, finite ? n : 0, multiplier);
    if (threadIdx.x == 0) {
        p.out.scales[row] = scale;
        if (!finite) p.failed[p.rows[row / p.slots].segment] = 1;
    }
}
