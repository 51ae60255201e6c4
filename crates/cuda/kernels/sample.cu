// Drawing tokens (section 12). One block a draw. What stays is a prefix of the rank (z descending, then id ascending),
// found as the smallest key whose prefix counts enough, eight bits of the key at a time; no sort is needed.
#include "types.cuh"

#define SAMPLE_THREADS 1024

// Ascending keys are descending values; -0 equals +0.
DEVICE u32 key_of(float z) {
    u32 b = z == 0.0f ? 0u : bits_of(z);
    return b & 0x80000000u ? b : ~(b | 0x80000000u);
}

DEVICE float noise(u64 seed, u64 position, u32 id) {
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
    u32 c0 = id / 4, c1 = (u32)position, c2 = (u32)(position >> 32), c3 = 0;
    for (int i = 0; i < 10; ++i) {
        u64 a = (u64)c0 * 0xD2511F53u, b = (u64)c2 * 0xCD9E8D57u;
        c0 = (u32)(b >> 32) ^ c1 ^ k0;
        c2 = (u32)(a >> 32) ^ c3 ^ k1;
        c1 = (u32)b;
        c3 = (u32)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    u32 word = id % 4 == 0 ? c0 : id % 4 == 1 ? c1 : id % 4 == 2 ? c2 : c3;
    float u = mul(__int2float_rn((int)((word >> 9) * 2 + 1)), bits((127u - 24u) << 23));
    return -log2_(-log2_(u));
}

DEVICE u64 count_of(float z, float z_max) { return (u64)__float2int_rn(mul(exp2_(sub(z, z_max)), 16777216.0f)); }

struct Narrow {
    const float* logits;
    u32 vocabulary;
    float tau;
    float z_max;
    u64* cells; // 256, shared
    u64* found; // 2, shared

    __device__ float z(u32 id) const { return mul(logits[id], tau); }
    __device__ u64 key(u32 id) const { return (u64)key_of(z(id)) << 32 | id; }

    template <bool counts> __device__ u64 weight(u32 id) const { return counts ? count_of(z(id), z_max) : 1; }

    // The smallest key of those up to `bound` at which the weights add up to `need`; `bound` if they never do.
    template <bool counts> __device__ u64 select(u64 need, u64 bound) const {
        u64 prefix = 0;
        for (int shift = 56; shift >= 0; shift -= 8) {
            __syncthreads();
            if (threadIdx.x < 256) cells[threadIdx.x] = 0;
            __syncthreads();
            for (u32 id = threadIdx.x; id < vocabulary; id += SAMPLE_THREADS) {
                u64 k = key(id);
                bool here = shift == 56 || k >> (shift + 8) == prefix >> (shift + 8);
                if (here && k <= bound) atomicAdd(&cells[k >> shift & 255], weight<counts>(id));
            }
            __syncthreads();
            if (threadIdx.x == 0) {
                u64 sum = 0, digit = 0;
                while (digit < 256 && sum + cells[digit] < need) sum += cells[digit++];
                found[0] = digit;
                found[1] = sum;
            }
            __syncthreads();
            if (found[0] == 256) return bound;
            prefix |= found[0] << shift;
            need -= found[1];
        }
        return prefix;
    }

    __device__ u64 total(u64 bound) const {
        __syncthreads();
        if (threadIdx.x == 0) cells[0] = 0;
        __syncthreads();
        u64 sum = 0;
        for (u32 id = threadIdx.x; id < vocabulary; id += SAMPLE_THREADS) {
            if (key(id) <= bound) sum += count_of(z(id), z_max);
        }
        atomicAdd(&cells[0], sum);
        __syncthreads();
        sum = cells[0];
        __syncthreads();
        return sum;
    }
};

// The smallest of all threads' keys.
DEVICE u64 block_min(u64 key, u64* cells) {
    for (int h = 16; h > 0; h /= 2) {
        u64 other = __shfl_xor_sync(EVERY_LANE, key, h);
        key = other < key ? other : key;
    }
    __syncthreads();
    if (lane_id() == 0) cells[warp_id()] = key;
    __syncthreads();
    u64 best = cells[0];
    for (u32 w = 1; w < SAMPLE_THREADS / 32; ++w) best = cells[w] < best ? cells[w] : best;
    __syncthreads();
    return best;
}

KERNEL(sample, Sample, 1024) {
    SHARED u64 cells[256];
    SHARED u64 found[2];
    SHARED u32 words[32];
    if (blockIdx.x >= p.header->draws) return;
    DrawRow draw = p.draws[blockIdx.x];
    const float* logits = p.logits + (u64)draw.row * p.vocabulary;
    u32 worst = 0;
    u64 best = ~0ull;
    for (u32 id = threadIdx.x; id < p.vocabulary; id += SAMPLE_THREADS) {
        u32 m = bits_of(logits[id]) & 0x7fffffffu;
        worst = m > worst ? m : worst;
        u64 key = (u64)key_of(logits[id]) << 32 | id;
        best = key < best ? key : best;
    }
    worst = block_max(worst, words);
    best = block_min(best, cells);
    bool greedy = draw.tau == 0.0f;
    bool finite = finite_bits(worst) && (greedy || finite_bits(bits_of(mul(bits(worst), draw.tau)) & 0x7fffffffu));
    if (!finite || greedy) {
        if (threadIdx.x == 0) p.tokens[blockIdx.x] = finite ? (u32)best : 0xffffffffu;
        return;
    }
    Narrow narrow = {logits, p.vocabulary, draw.tau, mul(logits[(u32)best], draw.tau), cells, found};
    u64 bound = ~0ull;
    if (draw.top_k > 0 && draw.top_k < p.vocabulary) bound = narrow.select<false>(draw.top_k, bound);
    if (draw.share != ~0ull) {
        // The least sum of counts n with 2^24 n >= share * total, at least one token.
        u64 total = narrow.total(bound);
        u64 need = draw.share * (total >> 24) + ((draw.share * (total & 0xffffff) + 0xffffff) >> 24);
        bound = narrow.select<true>(need > 0 ? need : 1, bound);
    }
    // The first of the rank by z: -0 and +0 scaled may tie where logits did not.
    u64 first = ~0ull;
    for (u32 id = threadIdx.x; id < p.vocabulary; id += SAMPLE_THREADS) {
        u64 key = narrow.key(id);
        first = key < first ? key : first;
    }
    first = block_min(first, cells);
    best = ~0ull;
    for (u32 id = threadIdx.x; id < p.vocabulary; id += SAMPLE_THREADS) {
        u64 key = narrow.key(id);
        bool stays = key <= bound && (draw.least == 0 || count_of(narrow.z(id), narrow.z_max) >= draw.least || key == first);
        if (!stays) continue;
        u64 score = (u64)key_of(add(narrow.z(id), noise(draw.seed, draw.position, id))) << 32 | id;
        best = score < best ? score : best;
    }
    best = block_min(best, cells);
    if (threadIdx.x == 0) p.tokens[blockIdx.x] = (u32)best;
}
