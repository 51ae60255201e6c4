// Products for many rows: prompts. A block makes 128 outputs of 256 columns (rows of x at a8, half as many with two
// planes at a16); each of its eight warps 64 of 64. Weights and rows come through shared memory, three chunks of 64
// inputs under way; both lie there as the lanes take them, sixteen bytes each, so no bank is asked twice.
#include "linear.cuh"

#define GEMM_STAGES 3
#define GEMM_OUTPUTS 128
#define GEMM_COLUMNS 256
#define GEMM_STAGE_BYTES ((GEMM_OUTPUTS + GEMM_COLUMNS) * 64)

template <int PLANES> struct Gemm {
    static const int rows = GEMM_COLUMNS / PLANES;
    const Product& p;
    const Target* target;
    u32 output, row;
    unsigned char* memory;

    // Asks for chunk `chunk` of the block's weights and rows.
    __device__ void fetch(u32 chunk) const {
        unsigned char* to = memory + chunk % GEMM_STAGES * GEMM_STAGE_BYTES;
        u32 chunks = p.x.chunks, tiles = (target->outputs + 15) / 16;
#pragma unroll
        for (u32 i = threadIdx.x; i < GEMM_OUTPUTS * 4; i += 256) {
            u32 tile = output / 16 + i / 64;
            tile = tile < tiles ? tile : tiles - 1;
            copy_async(to + i * 16, target->weights + ((u64)tile * chunks + chunk) * 1024 + i % 64 * 16);
        }
        to += GEMM_OUTPUTS * 64;
#pragma unroll
        for (u32 i = threadIdx.x; i < GEMM_COLUMNS * 4; i += 256) {
            u32 group = i / 32, plane = group / (rows / 8);
            u64 eight = row / 8 + group % (rows / 8);
            copy_async(to + i * 16, p.x.digits + plane * p.x.plane_stride + (eight * chunks + chunk) * 512 + i % 32 * 16);
        }
    }
};

template <int PLANES> DEVICE void gemm(const Product& p, unsigned char* memory) {
    const int tokens = 8 / PLANES; // groups of eight rows of one warp
    Gemm<PLANES> block = {p, target_of(p.targets, p.targets_used, blockIdx.x), 0, 0, memory};
    block.output = (blockIdx.x - block.target->first_block) * GEMM_OUTPUTS;
    block.row = blockIdx.y * Gemm<PLANES>::rows;
    u32 count = *p.count, chunks = p.x.chunks;
    if (block.row >= count) return;
    u32 lane = lane_id(), g = lane / 4, t = lane % 4;
    u32 high_warp = warp_id() / 4, wide_warp = warp_id() % 4;
    int d[4][8][4] = {};
    for (u32 c = 0; c < GEMM_STAGES - 1; ++c) {
        if (c < chunks) block.fetch(c);
        copy_commit();
    }
    for (u32 chunk = 0; chunk < chunks; ++chunk) {
        copy_wait<GEMM_STAGES - 2>();
        __syncthreads();
        if (chunk + GEMM_STAGES - 1 < chunks) block.fetch(chunk + GEMM_STAGES - 1);
        copy_commit();
        const unsigned char* stage = memory + chunk % GEMM_STAGES * GEMM_STAGE_BYTES;
        const unsigned char* w = stage + high_warp * 64 * 64 + lane * 16;
        const unsigned char* x = stage + GEMM_OUTPUTS * 64 + wide_warp * tokens * 512 + lane * 16;
        Quad b[8];
#pragma unroll
        for (int c = 0; c < 8; ++c) {
            b[c] = load_quad(x + (c / tokens * (GEMM_COLUMNS / 8 / PLANES) + c % tokens) * 512);
        }
#pragma unroll
        for (int h = 0; h < 4; ++h) {
            Quad a = load_quad(w + h * 1024), a8 = load_quad(w + h * 1024 + 512);
#pragma unroll
            for (int c = 0; c < 8; ++c) mma64(d[h][c], a, a8, b[c]);
        }
    }
    const Target* target = block.target;
#pragma unroll
    for (int h = 0; h < 4; ++h) {
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            u32 n = block.output + high_warp * 64 + h * 16 + g + r / 2 * 8;
            if (n >= target->outputs) continue;
            float s_w = target->scales[n];
            const float* bias = target->bias ? target->bias + n : 0;
#pragma unroll
            for (int c = 0; c < tokens; ++c) {
                u32 row = block.row + (wide_warp * tokens + c) * 8 + 2 * t + r % 2;
                if (row >= count) continue;
                int low = d[h][c + (PLANES - 1) * tokens][r];
                target->out[(u64)row * target->outputs + n] = finish(d[h][c][r], low, PLANES, p.x.scales[row], s_w, bias);
            }
        }
    }
}

KERNEL(gemm_a8, Product, 256) {
    DYNAMIC_SHARED(memory);
    gemm<1>(p, memory);
}
KERNEL(gemm_a16, Product, 256) {
    DYNAMIC_SHARED(memory);
    gemm<2>(p, memory);
}
