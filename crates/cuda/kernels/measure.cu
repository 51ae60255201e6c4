// What the device can do at most: a copy, and integer matrix products of registers.
#include "types.cuh"

KERNEL(measure_copy, Measure, 256) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < p.quads; i += step) p.to[i] = p.from[i];
}

KERNEL(measure_products, Measure, 256) {
    int d[8][4] = {};
    Quad a = p.from[threadIdx.x], b = p.from[threadIdx.x + 256];
    for (u32 i = 0; i < p.rounds; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) mma(d[j], a.w[0], a.w[1], a.w[2], a.w[3], b.w[j % 4], b.w[(j + 1) % 4]);
    }
    int sum = 0;
    for (int j = 0; j < 8; ++j) sum += d[j][0] + d[j][1] + d[j][2] + d[j][3];
    if (sum == 0x7fffffff) p.to[0].w[0] = 1;
}
