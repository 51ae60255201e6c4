// Residual = the token's embedding, widened (section 5). One block a row.
#include "types.cuh"

DEVICE float widen_half(u32 h) {
    u32 sign = (h & 0x8000u) << 16;
    u32 exponent = (h >> 10) & 31u;
    u32 fraction = h & 0x3ffu;
    float magnitude = exponent == 0    ? mul(__int2float_rn((int)fraction), bits((127u - 24u) << 23))
                      : exponent == 31 ? bits(0x7f800000u | fraction << 13)
                                       : bits((exponent + 112u) << 23 | fraction << 13);
    return bits(sign | bits_of(magnitude));
}

KERNEL(embed, Embed, 256) {
    u32 row = blockIdx.x;
    if (row >= p.header->rows) return;
    const u16* from = p.table + (u64)p.rows[row].token * p.width;
    float* to = p.out + (u64)row * p.width;
    for (u32 i = threadIdx.x; i < p.width; i += blockDim.x) {
        to[i] = p.brain ? bits((u32)from[i] << 16) : widen_half(from[i]);
    }
}
