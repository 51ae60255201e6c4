// What every kernel shares: number types, correctly rounded arithmetic, the elementary functions of
// docs/arithmetic.md (section 9), reductions that have no order, and the integer matrix instruction.
//
// No header of the CUDA toolkit is used. With LOCKSTEP_SHIM the same text compiles for the processor (shim/shim.h).
#pragma once

#ifdef LOCKSTEP_SHIM
#include "shim.h"
#else
#define KERNEL(name, Params, threads) extern "C" __global__ void __launch_bounds__(threads) name(const Params p)
#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]
#define SHARED __shared__ __align__(16)
#endif

typedef signed char i8;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#define DEVICE static __device__ __forceinline__

#define EVERY_LANE 0xffffffffu

DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
DEVICE float add(float a, float b) { return __fadd_rn(a, b); }
DEVICE float sub(float a, float b) { return __fadd_rn(a, -b); }
DEVICE float fma_(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE float bits(u32 b) { return __int_as_float((int)b); }
DEVICE u32 bits_of(float x) { return (u32)__float_as_int(x); }

// 1.5 * 2^23: adding it rounds a float below 2^22 to an integer, ties to even, that then stands in its low bits.
#define ROUND 12582912.0f
DEVICE int round_small(float x) { return (int)(bits_of(add(x, ROUND)) - 0x4b400000u); }

// 2 to the power x for x <= 0; exactly 0 below -126; NaN stays NaN.
DEVICE float exp2_(float x) {
    float n = sub(add(x, ROUND), ROUND);
    float f = sub(x, n);
    float p = fma_(f, bits(0x392209c5u), bits(0x3aaf8448u));
    p = fma_(f, p, bits(0x3c1d952au));
    p = fma_(f, p, bits(0x3d6357b6u));
    p = fma_(f, p, bits(0x3e75fdf0u));
    p = fma_(f, p, bits(0x3f317218u));
    p = fma_(f, p, 1.0f);
    float power = bits((u32)(round_small(x) + 127) << 23);
    return x < -126.0f ? 0.0f : mul(p, power);
}

// Logarithm to base 2 of a normal, positive x.
DEVICE float log2_(float x) {
    int b = (int)bits_of(x);
    int e = (b - 0x3f3504f3) >> 23;
    float f = sub(bits((u32)(b - e * (1 << 23))), 1.0f);
    float p = bits(0x3dfc20eeu);
    p = fma_(f, p, bits(0xbe52cd75u));
    p = fma_(f, p, bits(0x3e5d439cu));
    p = fma_(f, p, bits(0xbe74e8f3u));
    p = fma_(f, p, bits(0x3e93680eu));
    p = fma_(f, p, bits(0xbeb8accau));
    p = fma_(f, p, bits(0x3ef639efu));
    p = fma_(f, p, bits(0xbf38aa3au));
    p = fma_(f, p, bits(0x3fb8aa3bu));
    return fma_(f, p, __int2float_rn(e));
}

#define LOG2_E bits(0x3fb8aa3bu)

// x * sigmoid(x).
DEVICE float silu(float x) {
    float z = exp2_(-mul(fabsf(x), LOG2_E));
    float numerator = x >= 0.0f ? x : mul(x, z);
    return __fdiv_rn(numerator, add(1.0f, z));
}

// Quantising (section 1): the multiplier and scale of a row whose largest magnitude has these bits.
#define LEVELS_8 127.0f
#define LEVELS_16 32639.0f
DEVICE bool finite_bits(u32 magnitude) { return magnitude < 0x7f800000u; }
DEVICE void scale_of(u32 magnitude, float largest, float* multiplier, float* scale) {
    float a = bits(magnitude);
    bool some = finite_bits(magnitude) && a >= bits((127u - 100u) << 23);
    *multiplier = some ? __fdiv_rn(largest, a) : 0.0f;
    *scale = some ? __fdiv_rn(a, largest) : 0.0f;
}
DEVICE int level(float x, float multiplier, float largest) {
    return round_small(fminf(fmaxf(mul(x, multiplier), -largest), largest));
}
// The balanced digits of a 16-bit level.
DEVICE int low_digit(int q) { return ((q + 128) & 255) - 128; }
DEVICE int high_digit(int q) { return (q - low_digit(q)) >> 8; }

// A product's sums as a float (section 2).
DEVICE float digits_to_float(int high, int low) { return add(mul(__int2float_rn(high), 256.0f), __int2float_rn(low)); }

DEVICE u32 lane_id() { return threadIdx.x & 31u; }
DEVICE u32 warp_id() { return threadIdx.x >> 5; }

DEVICE u32 warp_max(u32 x) {
    for (int h = 16; h > 0; h /= 2) {
        u32 other = __shfl_xor_sync(EVERY_LANE, x, h);
        x = other > x ? other : x;
    }
    return x;
}

// The largest x of a block of at most 1,024 threads, for every thread. `cells` holds 32 words.
DEVICE u32 block_max(u32 x, u32* cells) {
    x = warp_max(x);
    __syncthreads();
    if (lane_id() == 0) cells[warp_id()] = x;
    __syncthreads();
    u32 best = 0;
    for (u32 w = 0; w < (blockDim.x + 31) / 32; ++w) best = cells[w] > best ? cells[w] : best;
    return best;
}

// Sixteen bytes at once.
struct __align__(16) Quad {
    u32 w[4];
};
DEVICE Quad load_quad(const void* at) { return *(const Quad*)at; }

// d[16 x 8] += a[16 x 32] * b[32 x 8] in 32-bit integers. A lane g*4+t holds of A rows g and g+8, of B column g, and of
// D rows g and g+8 in columns 2t and 2t+1. Sums of integers have no order, so "first" and "second" may be any two groups
// of four inputs as long as A and B agree.
DEVICE void mma(int d[4], u32 a_first, u32 a8_first, u32 a_second, u32 a8_second, u32 b_first, u32 b_second) {
#ifdef LOCKSTEP_SHIM
    shim_mma(d, a_first, a8_first, a_second, a8_second, b_first, b_second);
#else
    // Volatile: all lanes must come here together, so nothing may move it under a condition.
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a_first), "r"(a8_first), "r"(a_second), "r"(a8_second), "r"(b_first), "r"(b_second));
#endif
}

// Sixty-four inputs: a lane holds sixteen of rows g and g+8 of A and of column g of B, from input 16t on.
DEVICE void mma64(int d[4], const Quad& a, const Quad& a8, const Quad& b) {
    mma(d, a.w[0], a8.w[0], a.w[1], a8.w[1], b.w[0], b.w[1]);
    mma(d, a.w[2], a8.w[2], a.w[3], a8.w[3], b.w[2], b.w[3]);
}

// c plus the products of four signed bytes each. Spelled out: the intrinsic is declared in a header of the toolkit, and
// without it NVRTC leaves a call that no driver can resolve.
DEVICE int dot4(u32 a, u32 b, int c) {
#ifdef LOCKSTEP_SHIM
    return __dp4a((int)a, (int)b, c);
#else
    int d;
    asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
#endif
}

// Copies sixteen bytes to shared memory without waiting for them.
DEVICE void copy_async(void* to, const void* from) {
#ifdef LOCKSTEP_SHIM
    *(Quad*)to = *(const Quad*)from;
#else
    u32 shared = (u32)__cvta_generic_to_shared(to);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(from) : "memory");
#endif
}
DEVICE void copy_commit() {
#ifndef LOCKSTEP_SHIM
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
// Waits until at most `left` groups are under way.
template <int left> DEVICE void copy_wait() {
#ifndef LOCKSTEP_SHIM
    asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
#endif
}
