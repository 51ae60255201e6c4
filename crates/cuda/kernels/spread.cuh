// The Walsh-Hadamard transform of section 1. Strides ascend, as the text says; several are taken in one pass over
// memory, which changes no addition and no order.
#pragma once
#include "common.cuh"

DEVICE void butterfly(float* a, float* b) {
    float x = *a, y = *b;
    *a = add(x, y);
    *b = sub(x, y);
}

// Strides h, 2h, ... (`stages` of them) of the values i in [first, n / 2^stages) of one pass, `step` apart.
template <int stages> DEVICE void spread_pass(float* values, u32 n, u32 h, u32 first, u32 step) {
    const int size = 1 << stages;
    for (u32 i = first; i < n / size; i += step) {
        float* at = values + i / h * (size * h) + i % h;
        float v[size];
#pragma unroll
        for (int j = 0; j < size; ++j) v[j] = at[j * h];
#pragma unroll
        for (int s = 1; s < size; s *= 2) {
#pragma unroll
            for (int j = 0; j < size; ++j) {
                if ((j & s) == 0) butterfly(&v[j], &v[j + s]);
            }
        }
#pragma unroll
        for (int j = 0; j < size; ++j) at[j * h] = v[j];
    }
}

// Spreads n values over blocks of `block`, by the threads first, first + step, ... of a group that `sync` joins.
template <typename Sync> DEVICE void spread(float* values, u32 n, u32 block, u32 first, u32 step, Sync sync) {
    u32 h = 1;
    while (h < block) {
        sync();
        if (8 * h <= block) {
            spread_pass<3>(values, n, h, first, step);
            h *= 8;
        } else if (4 * h <= block) {
            spread_pass<2>(values, n, h, first, step);
            h *= 4;
        } else {
            spread_pass<1>(values, n, h, first, step);
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
