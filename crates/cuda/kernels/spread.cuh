// The Walsh-Hadamard transform of section 1. Strides ascend, as the text says; several are taken in one pass over
// memory, which changes no addition and no order.
#pragma once
#include "common.cuh"

DEVICE void butterfly(float* a, float* b) {
    float x = *a, y = *b;
    *a = add(x, y);
    *b = sub(x, y);
}

// Where a value lies: its own place,
struct Plain {
    __device__ u32 operator()(u32 i) const { return i; }
};
// or another among its 32 neighbours, so that neither lanes eight values apart nor lanes 64 apart meet in one of the 32
// banks of shared memory: bits 5 to 7 of the place go onto bits 0 to 2, bits 6 and 7 onto bits 3 and 4.
struct Scattered {
    __device__ u32 operator()(u32 i) const { return i ^ (i >> 5 & 7) ^ (i >> 3 & 24); }
};

// Strides h, 2h, ... (`stages` of them; h is a power of two) of the values i in [first, n / 2^stages) of one pass, `step`
// apart.
template <int stages, typename Where>
DEVICE void spread_pass(float* values, u32 n, u32 h, u32 first, u32 step, Where where) {
    const int size = 1 << stages;
    for (u32 i = first; i < n / size; i += step) {
        u32 at = (i & ~(h - 1)) * size + (i & (h - 1));
        float v[size];
#pragma unroll
        for (int j = 0; j < size; ++j) v[j] = values[where(at + j * h)];
#pragma unroll
        for (int s = 1; s < size; s *= 2) {
#pragma unroll
            for (int j = 0; j < size; ++j) {
                if ((j & s) == 0) butterfly(&v[j], &v[j + s]);
            }
        }
#pragma unroll
        for (int j = 0; j < size; ++j) values[where(at + j * h)] = v[j];
    }
}

// Spreads n values over blocks of `block`, by the threads first, first + step, ... of a group that `sync` joins.
template <typename Sync, typename Where>
DEVICE void spread(float* values, u32 n, u32 block, u32 first, u32 step, Sync sync, Where where) {
    u32 h = 1;
    while (h < block) {
        sync();
        if (8 * h <= block) {
            spread_pass<3>(values, n, h, first, step, where);
            h *= 8;
        } else if (4 * h <= block) {
            spread_pass<2>(values, n, h, first, step, where);
            h *= 4;
        } else {
            spread_pass<1>(values, n, h, first, step, where);
            h *= 2;
        }
    }
    sync();
}

struct BlockSync {
    __device__ void operator()() const { __syncthreads(); }
};
struct WarpSync {
    __device__ void operator()() const { __syncwarp(); }
};
