// A row of floats becomes the quantised input of linear maps: [residual += update,] norm, or silu(gate) * up, or a
// register as it is; then spread, then quantise (sections 1, 4, 9, 11). One block a row; the row stays in shared memory.
#include "spread.cuh"
#include "types.cuh"

// Values a thread asks memory for before it uses the first.
#define AT_ONCE 4

// Those of a thread from `first` on; where the row has ended, the first once more.
DEVICE void load_some(float some[AT_ONCE], const float* from, u32 first, u32 n) {
#pragma unroll
    for (u32 k = 0; k < AT_ONCE; ++k) {
        u32 i = first + k * blockDim.x;
        some[k] = from[i < n ? i : first];
    }
}

// The sum of squares in its written order: 128 lanes, then halves folded onto halves. Every warp folds for itself.
template <typename Where> DEVICE float squares(const float* x, u32 n, float* lanes, Where where) {
    u32 t = threadIdx.x;
    if (t < 128) {
        float lane = 0.0f;
        u32 i = t;
        for (; i + 7 * 128 < n; i += 8 * 128) {
            float some[8];
#pragma unroll
            for (u32 k = 0; k < 8; ++k) some[k] = x[where(i + k * 128)];
#pragma unroll
            for (u32 k = 0; k < 8; ++k) lane = fma_(some[k], some[k], lane);
        }
        for (; i < n; i += 128) lane = fma_(x[where(i)], x[where(i)], lane);
        lanes[t] = lane;
    }
    __syncthreads();
    t = lane_id();
    float sum = add(add(lanes[t], lanes[t + 64]), add(lanes[t + 32], lanes[t + 96]));
    for (int h = 16; h > 0; h /= 2) sum = add(sum, __shfl_down_sync(EVERY_LANE, sum, h));
    return __shfl_sync(EVERY_LANE, sum, 0);
}

template <typename Where>
DEVICE void write_levels(const Rows8& out, u32 row, const float* x, u32 width, float multiplier, Where where) {
    u64 start = ((u64)(row / 8) * out.chunks * 8 + row % 8) * 64;
    for (u32 i = threadIdx.x; i < out.chunks * 16; i += blockDim.x) {
        u32 high = 0, low = 0;
        for (u32 j = 0; j < 4; ++j) {
            float value = 4 * i + j < width ? x[where(4 * i + j)] : 0.0f;
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

template <typename Where> DEVICE void prepare_row(const Prepare& p, u32 row, float* x, Where where) {
    SHARED float lanes[128];
    SHARED u32 cells[32];
    u32 n = p.width, turn = AT_ONCE * blockDim.x;
    u64 start = (u64)row * n;
    if (p.weight) {
        float* residual = p.residual + start;
        for (u32 first = threadIdx.x; first < n; first += turn) {
            float value[AT_ONCE], update[AT_ONCE];
            load_some(value, residual, first, n);
            if (p.update) load_some(update, p.update + start, first, n);
#pragma unroll
            for (u32 k = 0; k < AT_ONCE; ++k) {
                u32 i = first + k * blockDim.x;
                if (i >= n) break;
                if (p.update) {
                    value[k] = add(value[k], update[k]);
                    residual[i] = value[k];
                }
                x[where(i)] = value[k];
            }
        }
        __syncthreads();
        float sum = squares(x, n, lanes, where);
        float r = __fdiv_rn(1.0f, __fsqrt_rn(add(__fdiv_rn(sum, __int2float_rn((int)n)), p.eps)));
        for (u32 first = threadIdx.x; first < n; first += turn) {
            float weight[AT_ONCE];
            load_some(weight, p.weight, first, n);
#pragma unroll
            for (u32 k = 0; k < AT_ONCE; ++k) {
                u32 i = first + k * blockDim.x;
                if (i < n) x[where(i)] = mul(mul(x[where(i)], r), weight[k]);
            }
        }
    } else {
        for (u32 first = threadIdx.x; first < n; first += turn) {
            float value[AT_ONCE], up[AT_ONCE];
            load_some(value, p.source + start, first, n);
            if (p.up) load_some(up, p.up + start, first, n);
#pragma unroll
            for (u32 k = 0; k < AT_ONCE; ++k) {
                u32 i = first + k * blockDim.x;
                if (i < n) x[where(i)] = p.up ? mul(silu(value[k]), up[k]) : value[k];
            }
        }
    }
    spread(x, n, p.block, threadIdx.x, blockDim.x, BlockSync(), where);
    u32 magnitude = 0;
    for (u32 i = threadIdx.x; i < n; i += blockDim.x) {
        float value = x[where(i)];
        if (p.spread_out) p.spread_out[start + i] = value;
        u32 m = bits_of(value) & 0x7fffffffu;
        magnitude = m > magnitude ? m : magnitude;
    }
    magnitude = block_max(magnitude, cells);
    float multiplier, scale;
    scale_of(magnitude, p.out.planes == 1 ? LEVELS_8 : LEVELS_16, &multiplier, &scale);
    bool finite = finite_bits(magnitude);
    write_levels(p.out, row, x, finite ? n : 0, multiplier, where);
    if (threadIdx.x == 0) {
        p.out.scales[row] = scale;
        if (!finite) p.failed[p.rows[row / p.slots].segment] = 1;
    }
}

DEVICE void prepare_any(const Prepare& p) {
    DYNAMIC_SHARED(memory);
    u32 row = blockIdx.x;
    if (row >= p.header->rows * p.slots) return;
    if (p.scratch) {
        prepare_row(p, row, p.scratch + (u64)row * p.width, Plain());
    } else {
        prepare_row(p, row, (float*)memory, Scattered());
    }
}

KERNEL(prepare, Prepare, 256) { prepare_any(p); }
// For few rows, which leave most of the device idle: more threads end a wide row sooner.
KERNEL(prepare_few, Prepare, 1024) { prepare_any(p); }
