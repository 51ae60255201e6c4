// What the products of linear maps share: finding one's target, multiplying chunks that a block's warps divide among
// them, and making floats of sums (section 2).
#pragma once
#include "types.cuh"

// The target whose blocks of the grid hold `block`.
DEVICE const Target* target_of(const Target* targets, u32 used, u32 block) {
    u32 t = 0;
    while (t + 1 < used && block >= targets[t + 1].first_block) ++t;
    return &targets[t];
}

// c = sums as a float; y = c * (s_x * s_w) [+ bias].
DEVICE float finish(int high, int low, u32 planes, float s_x, float s_w, const float* bias) {
    float c = planes == 1 ? __int2float_rn(high) : digits_to_float(high, low);
    float y = mul(c, mul(s_x, s_w));
    return bias ? add(y, *bias) : y;
}

// Where the digits of row `row` start in plane 0.
DEVICE const i8* digits_of(const Rows8& x, u32 row) {
    return x.digits + ((u64)(row / 8) * x.chunks * 8 + row % 8) * 64;
}

#define CHUNK_WARPS 8

// Where a lane's sixteen bytes of chunk 0 lie. COLUMNS: groups of eight rows of x; HEIGHT: groups of sixteen outputs.
template <int PLANES, int COLUMNS, int HEIGHT> struct Chunks {
    const i8* w[HEIGHT]; // row g of a group
    u64 half;            // bytes from there to row g + 8
    u64 stride;          // and to the next chunk
    const i8* x[COLUMNS];
    u64 plane_stride;

    // The compiler moves no exit from a loop over a matrix instruction, so a lane would wait for memory once a chunk. Here
    // it asks for the weights of DEPTH chunks, and for as much of x as registers hold, before it multiplies the first.
    template <int DEPTH> __device__ __forceinline__ void some(int (*d)[COLUMNS][PLANES][4], u32 chunk) const {
        constexpr int ahead = COLUMNS * PLANES <= 2 ? DEPTH : 1;
        Quad a[DEPTH][HEIGHT], a8[DEPTH][HEIGHT], b[ahead][COLUMNS][PLANES];
#pragma unroll
        for (int k = 0; k < DEPTH; ++k) {
#pragma unroll
            for (int h = 0; h < HEIGHT; ++h) {
                const i8* at = w[h] + (u64)(chunk + k * CHUNK_WARPS) * stride;
                a[k][h] = load_quad(at);
                a8[k][h] = load_quad(at + half);
            }
        }
#pragma unroll
        for (int first = 0; first < DEPTH; first += ahead) {
#pragma unroll
            for (int k = 0; k < ahead; ++k) {
#pragma unroll
                for (int c = 0; c < COLUMNS; ++c) {
#pragma unroll
                    for (int plane = 0; plane < PLANES; ++plane) {
                        b[k][c][plane] =
                            load_quad(x[c] + plane * plane_stride + (u64)(chunk + (first + k) * CHUNK_WARPS) * 512);
                    }
                }
            }
            // The assembler would sink loads between the instructions below.
            __syncwarp();
#pragma unroll
            for (int k = 0; k < ahead; ++k) {
#pragma unroll
                for (int c = 0; c < COLUMNS; ++c) {
#pragma unroll
                    for (int plane = 0; plane < PLANES; ++plane) {
#pragma unroll
                        for (int h = 0; h < HEIGHT; ++h) {
                            mma64(d[h][c][plane], a[first + k][h], a8[first + k][h], b[k][c][plane]);
                        }
                    }
                }
            }
        }
    }

    // A warp's share of all chunks.
    template <int DEPTH> __device__ __forceinline__ void all(int (*d)[COLUMNS][PLANES][4], u32 chunks) const {
        u32 chunk = warp_id();
        for (; chunk + (DEPTH - 1) * CHUNK_WARPS < chunks; chunk += DEPTH * CHUNK_WARPS) some<DEPTH>(d, chunk);
        if constexpr (DEPTH > 2) {
            if (chunk + CHUNK_WARPS < chunks) {
                some<2>(d, chunk);
                chunk += 2 * CHUNK_WARPS;
            }
        }
        for (; chunk < chunks; chunk += CHUNK_WARPS) some<1>(d, chunk);
    }
};
