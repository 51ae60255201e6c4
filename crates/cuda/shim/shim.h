// Runs the kernels on the processor: what they use of CUDA, for one block at a time. Each thread of a block is a fibre;
// barriers and shuffles switch between them. Blocks and threads run in the order that shim_order sets, so that a missing
// barrier shows as a difference. For tests alone; the program never links it.
#pragma once
#include <cmath>
#include <cstring>

#define __device__
#define __forceinline__ inline
#define __align__(n) alignas(n)
#define __shared__ static
#define SHARED alignas(16) static
#define DYNAMIC_SHARED(name) unsigned char* name = shim_dynamic
#define KERNEL(name, Params, threads) \
    static void name##_kernel(const Params& p); \
    extern "C" __attribute__((visibility("default"))) void lockstep_##name(const void* p) { name##_kernel(*(const Params*)p); } \
    static void name##_kernel(const Params& p)

struct ShimIndex {
    unsigned x, y, z;
};
extern ShimIndex threadIdx, blockIdx, blockDim, gridDim;
extern unsigned char* shim_dynamic;

void shim_block_barrier();
// Waits for the other threads of the warp.
void shim_warp_barrier();
// Eight bytes of each thread of the warp.
unsigned long long* shim_cells();

inline void __syncthreads() { shim_block_barrier(); }
inline void __syncwarp() { shim_warp_barrier(); }

template <typename T> T shim_exchange(T value, unsigned from) {
    unsigned long long* cells = shim_cells();
    std::memcpy(&cells[threadIdx.x % 32], &value, sizeof(T));
    shim_warp_barrier();
    T other;
    std::memcpy(&other, &cells[from % 32], sizeof(T));
    shim_warp_barrier();
    return other;
}
template <typename T> T __shfl_xor_sync(unsigned, T value, int mask) {
    return shim_exchange(value, threadIdx.x % 32 ^ (unsigned)mask);
}
template <typename T> T __shfl_down_sync(unsigned, T value, int delta) {
    unsigned lane = threadIdx.x % 32;
    return shim_exchange(value, lane + delta < 32 ? lane + delta : lane);
}
template <typename T> T __shfl_sync(unsigned, T value, int lane) { return shim_exchange(value, (unsigned)lane); }

// Compiled without contraction, so every operation rounds once.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __int2float_rn(int a) { return (float)a; }
inline float __ll2float_rn(long long a) { return (float)a; }
inline float __ull2float_rn(unsigned long long a) { return (float)a; }
inline int __float2int_rn(float a) { return (int)std::nearbyint(a); }
inline int __float_as_int(float a) {
    int b;
    std::memcpy(&b, &a, 4);
    return b;
}
inline float __int_as_float(int a) {
    float b;
    std::memcpy(&b, &a, 4);
    return b;
}
using std::fabs;
inline float fabsf_(float a) { return std::fabs(a); }
inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; ++i) c += (int)(signed char)(a >> 8 * i) * (int)(signed char)(b >> 8 * i);
    return c;
}
template <typename T> T atomicAdd(T* at, T value) {
    T old = *at;
    *at = old + value;
    return old;
}
template <typename T> T atomicMax(T* at, T value) {
    T old = *at;
    *at = old > value ? old : value;
    return old;
}

// mma.sync m16n8k32 of signed bytes, all 32 lanes together (PTX ISA, matrix fragments for mma.m16n8k32).
void shim_mma(int d[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1);
