// Products for few rows: decoding, experts, output heads. The weights pass once through the registers of the lanes that
// multiply them, 1,024 consecutive bytes a warp and load; eight warps divide the inputs among them.
#include "linear.cuh"

// COLUMNS: groups of eight rows of x; HEIGHT: groups of sixteen outputs of one block; DEPTH: chunks asked for at once.
template <int PLANES, int COLUMNS, int HEIGHT, int DEPTH> DEVICE void product(const Product& p) {
    const int outputs = HEIGHT * 16, columns = COLUMNS * 8;
    SHARED int sums[PLANES][outputs][columns];
    SHARED u32 source[columns];
    SHARED u32 goal[columns];
    u32 first = blockIdx.y * columns, rows = columns, expert = 0, count = *p.count;
    if (p.tiles) {
        if (blockIdx.y >= count) return;
        ExpertTile tile = p.tiles[blockIdx.y];
        first = tile.first;
        rows = tile.count;
        expert = tile.expert;
    } else {
        if (first >= count) return;
        rows = count - first < columns ? count - first : columns;
    }
    const Target* target = target_of(p.targets, p.targets_used, blockIdx.x);
    u32 output = (blockIdx.x - target->first_block) * outputs;
    u32 lane = lane_id(), g = lane / 4, t = lane % 4, chunks = p.x.chunks;
    if (threadIdx.x < columns) {
        u32 at = first + (threadIdx.x < rows ? threadIdx.x : 0);
        u32 entry = p.list ? p.list[at] : at;
        source[threadIdx.x] = entry / p.divide;
        goal[threadIdx.x] = p.scatter ? entry : at;
    }
    for (u32 i = threadIdx.x; i < PLANES * outputs * columns; i += blockDim.x) (&sums[0][0][0])[i] = 0;
    __syncthreads();
    Chunks<PLANES, COLUMNS, HEIGHT> operands;
    operands.half = 512;
    operands.stride = 1024;
    operands.plane_stride = p.x.plane_stride;
#pragma unroll
    for (int c = 0; c < COLUMNS; ++c) operands.x[c] = digits_of(p.x, source[c * 8 + g]) + t * 16;
    u32 tiles = (target->outputs + 15) / 16;
#pragma unroll
    for (int h = 0; h < HEIGHT; ++h) {
        u32 tile = output / 16 + h < tiles ? output / 16 + h : tiles - 1;
        operands.w[h] = target->weights + expert * p.expert_bytes + (u64)tile * chunks * 1024 + lane * 16;
    }
    int d[HEIGHT][COLUMNS][PLANES][4] = {};
    operands.template all<DEPTH>(d, chunks);
#pragma unroll
    for (int h = 0; h < HEIGHT; ++h) {
#pragma unroll
        for (int c = 0; c < COLUMNS; ++c) {
#pragma unroll
            for (int plane = 0; plane < PLANES; ++plane) {
#pragma unroll
                for (int r = 0; r < 4; ++r) {
                    atomicAdd(&sums[plane][h * 16 + g + r / 2 * 8][c * 8 + 2 * t + r % 2], d[h][c][plane][r]);
                }
            }
        }
    }
    __syncthreads();
    for (u32 i = threadIdx.x; i < rows * outputs; i += blockDim.x) {
        u32 n = output + i % outputs, c = i / outputs;
        if (n >= target->outputs) continue;
        float s_w = target->scales[expert * p.expert_outputs + n];
        const float* bias = target->bias ? target->bias + n : 0;
        int high = sums[0][i % outputs][c], low = sums[PLANES - 1][i % outputs][c];
        target->out[(u64)goal[c] * target->outputs + n] = finish(high, low, PLANES, p.x.scales[source[c]], s_w, bias);
    }
}

KERNEL(product_a8_8, Product, 256) { product<1, 1, 1, 4>(p); }
KERNEL(product_a8_16, Product, 256) { product<1, 2, 1, 4>(p); }
KERNEL(product_a8_64, Product, 256) { product<1, 8, 2, 4>(p); }
KERNEL(product_a16_8, Product, 256) { product<2, 1, 1, 4>(p); }
KERNEL(product_a16_16, Product, 256) { product<2, 2, 1, 4>(p); }
KERNEL(product_a16_32, Product, 256) { product<2, 4, 2, 4>(p); }
