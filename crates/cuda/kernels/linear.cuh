// What the products of linear maps share: finding one's target, and making floats of sums (section 2).
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
