// BLAKE3 of many messages, and the messages of the trace's leaves (docs/receipts.md, section 3). One warp a message;
// a lane takes whole chunks of 1,024 bytes, then pairs of their values join level by level.
#include "types.cuh"

#define CHUNKS_MAX 288
#define CHUNK_START 1
#define CHUNK_END 2
#define PARENT 4
#define ROOT 8

DEVICE u32 rotate_right(u32 x, int n) { return x >> n | x << (32 - n); }

DEVICE void mix(u32* s, int a, int b, int c, int d, u32 x, u32 y) {
    s[a] = s[a] + s[b] + x;
    s[d] = rotate_right(s[d] ^ s[a], 16);
    s[c] = s[c] + s[d];
    s[b] = rotate_right(s[b] ^ s[c], 12);
    s[a] = s[a] + s[b] + y;
    s[d] = rotate_right(s[d] ^ s[a], 8);
    s[c] = s[c] + s[d];
    s[b] = rotate_right(s[b] ^ s[c], 7);
}

// The chaining value `cv` becomes that of `cv` and one block.
DEVICE void compress(u32 cv[8], const u32 block[16], u32 counter, u32 length, u32 flags) {
    const u32 iv[4] = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au};
    u32 s[16], m[16];
#pragma unroll
    for (int i = 0; i < 8; ++i) s[i] = cv[i];
#pragma unroll
    for (int i = 0; i < 4; ++i) s[8 + i] = iv[i];
    s[12] = counter;
    s[13] = 0;
    s[14] = length;
    s[15] = flags;
#pragma unroll
    for (int i = 0; i < 16; ++i) m[i] = block[i];
#pragma unroll
    for (int round = 0; round < 7; ++round) {
        mix(s, 0, 4, 8, 12, m[0], m[1]);
        mix(s, 1, 5, 9, 13, m[2], m[3]);
        mix(s, 2, 6, 10, 14, m[4], m[5]);
        mix(s, 3, 7, 11, 15, m[6], m[7]);
        mix(s, 0, 5, 10, 15, m[8], m[9]);
        mix(s, 1, 6, 11, 12, m[10], m[11]);
        mix(s, 2, 7, 8, 13, m[12], m[13]);
        mix(s, 3, 4, 9, 14, m[14], m[15]);
        u32 n[16] = {m[2], m[6], m[3], m[10], m[7], m[0], m[4], m[13], m[1], m[11], m[12], m[5], m[9], m[14], m[15], m[8]};
#pragma unroll
        for (int i = 0; i < 16; ++i) m[i] = n[i];
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) cv[i] = s[i] ^ s[i + 8];
}

DEVICE void start(u32 cv[8]) {
    const u32 iv[8] = {0x6a09e667u, 0xbb67ae85u, 0x3c6ef372u, 0xa54ff53au,
                       0x510e527fu, 0x9b05688cu, 0x1f83d9abu, 0x5be0cd19u};
#pragma unroll
    for (int i = 0; i < 8; ++i) cv[i] = iv[i];
}

// The value of chunk number `chunk` of a message of `bytes` bytes that starts at a multiple of four.
DEVICE void chunk_value(u32 cv[8], const u8* message, u32 bytes, u32 chunk, bool only) {
    u32 at = chunk * 1024, end = at + 1024 < bytes ? at + 1024 : bytes;
    start(cv);
    u32 flags = CHUNK_START;
    do {
        u32 length = end - at < 64 ? end - at : 64;
        u32 block[16];
        for (u32 i = 0; i < 16; ++i) {
            u32 word = 0;
            if (i * 4 + 4 <= length) {
                word = *(const u32*)(message + at + i * 4);
            } else {
                for (u32 j = i * 4; j < length; ++j) word |= (u32)message[at + j] << (8 * (j % 4));
            }
            block[i] = word;
        }
        at += length;
        if (at == end) flags |= CHUNK_END | (only ? ROOT : 0);
        compress(cv, block, chunk, length, flags);
        flags = 0;
    } while (at < end);
}

KERNEL(hash_messages, Hash, 32) {
    SHARED u32 values[CHUNKS_MAX][8];
    u32 row = blockIdx.x, lane = threadIdx.x;
    if (row >= p.header->rows) return;
    const u8* message = p.messages + (u64)row * p.row_stride + (u64)blockIdx.y * p.message_stride;
    u32 count = p.bytes <= 1024 ? 1 : (p.bytes + 1023) / 1024;
    for (u32 c = lane; c < count; c += 32) {
        u32 cv[8];
        chunk_value(cv, message, p.bytes, c, count == 1);
        for (u32 i = 0; i < 8; ++i) values[c][i] = cv[i];
    }
    __syncwarp();
    while (count > 1) {
        for (u32 first = 0; first < count / 2; first += 32) {
            u32 i = first + lane, block[16], cv[8];
            bool mine = i < count / 2;
            if (mine) {
                for (u32 j = 0; j < 16; ++j) block[j] = values[2 * i + j / 8][j % 8];
                start(cv);
                compress(cv, block, 0, 64, PARENT | (count == 2 ? ROOT : 0));
            }
            __syncwarp();
            if (mine) {
                for (u32 j = 0; j < 8; ++j) values[i][j] = cv[j];
            }
            __syncwarp();
        }
        if (count % 2 == 1 && lane < 8) values[count / 2][lane] = values[count - 1][lane];
        __syncwarp();
        count = (count + 1) / 2;
    }
    u8* to = p.digests + (u64)row * p.digest_row_stride + (u64)blockIdx.y * p.digest_stride;
    if (lane < 8) ((u32*)to)[lane] = values[0][lane];
}

// 0x11, token, layer digests, levels and scale of the quantised final hidden row. One block a row.
KERNEL(leaf_message, Leaf, 256) {
    u32 row = blockIdx.x;
    if (row >= p.header->rows) return;
    u8* to = p.messages + (u64)row * p.message_bytes;
    u32 token = p.rows[row].token, scale = bits_of(p.hidden.scales[row]);
    if (threadIdx.x == 0) {
        to[0] = 0x11;
        for (u32 j = 0; j < 4; ++j) to[1 + j] = (u8)(token >> (8 * j));
    }
    to += 5;
    const u8* digests = p.digests + (u64)row * p.layers * 32;
    for (u32 i = threadIdx.x; i < p.layers * 32; i += blockDim.x) to[i] = digests[i];
    to += p.layers * 32;
    const i8* digits = p.hidden.digits + ((u64)(row / 8) * p.hidden.chunks * 8 + row % 8) * 64;
    for (u32 i = threadIdx.x; i < p.width; i += blockDim.x) {
        u64 at = (u64)(i / 64) * 512 + i % 64;
        int q = digits[at];
        if (p.hidden.planes == 2) q = q * 256 + digits[p.hidden.plane_stride + at];
        to[2 * i] = (u8)q;
        to[2 * i + 1] = (u8)((u32)q >> 8);
    }
    to += 2 * p.width;
    if (threadIdx.x < 4) to[threadIdx.x] = (u8)(scale >> (8 * threadIdx.x));
}
