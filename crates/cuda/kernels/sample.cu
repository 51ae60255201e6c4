// Drawing tokens (section 12). One block a draw. What stays is a prefix of the rank (z descending, then id ascending),
// found as the smallest key whose prefix counts enough, eight bits of the key at a time; no sort is needed.
#include "types.cuh"

#define SAMPLE_THREADS 1024
#define AT_ONCE 8
// Counters of a digit, so that a warp's lanes rarely add to the same one: most logits share their first eight bits.
#define COPIES 16

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

// Calls f(id, logit) for a thread's share of the ids; some logits are asked for before the first is used.
template <typename F> DEVICE void each(const float* logits, u32 vocabulary, F f) {
    u32 id = threadIdx.x;
    for (; id + (AT_ONCE - 1) * SAMPLE_THREADS < vocabulary; id += AT_ONCE * SAMPLE_THREADS) {
        float some[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) some[k] = logits[id + k * SAMPLE_THREADS];
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) f(id + k * SAMPLE_THREADS, some[k]);
    }
    for (; id < vocabulary; id += SAMPLE_THREADS) f(id, logits[id]);
}

// The sum over all threads.
DEVICE u64 block_sum(u64 x, u64* cells) {
    for (int h = 16; h > 0; h /= 2) x += __shfl_xor_sync(EVERY_LANE, x, h);
    __syncthreads();
    if (lane_id() == 0) cells[warp_id()] = x;
    __syncthreads();
    u64 sum = 0;
    for (u32 w = 0; w < SAMPLE_THREADS / 32; ++w) sum += cells[w];
    __syncthreads();
    return sum;
}

// Where weights are counted, in shared memory. Memory adds 32 bits at once but 64 only by trying again, so a weight of
// up to 2^24 is counted in two parts, each up to 2^12. A copy counts two lanes of 32, at most 2^18 ids of the 2^22 that a
// vocabulary may have: below 2^31.
struct Counters {
    u32 low[256 * COPIES];
    u32 high[256 * COPIES];
    u64 sums[256];
    u64 digit;  // found; 256: none
    u64 before; // the sum of all digits below it
};

// The first digit up to which the sums reach `need`, which is not 0. By one warp, eight digits a lane.
DEVICE void find_digit(Counters& counters, u64 need) {
    u32 lane = lane_id();
    const u64* sums = counters.sums + lane * 8;
    u64 own = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) own += sums[i];
    u64 upto = own;
    for (u32 h = 1; h < 32; h *= 2) {
        u64 other = __shfl_sync(EVERY_LANE, upto, (int)(lane >= h ? lane - h : lane));
        if (lane >= h) upto += other;
    }
    if (lane == 31 && upto < need) counters.digit = 256;
    u64 before = upto - own;
    if (before >= need || upto < need) return;
    u32 i = 0;
    while (before + sums[i] < need) before += sums[i++];
    counters.digit = lane * 8 + i;
    counters.before = before;
}

struct Narrow {
    const float* logits;
    u32 vocabulary;
    float tau;
    float z_max;
    Counters& counters; // shared

    __device__ u64 key(u32 id, float logit) const { return (u64)key_of(mul(logit, tau)) << 32 | id; }
    __device__ u64 count(float logit) const { return count_of(mul(logit, tau), z_max); }

    // The smallest key of those up to `bound` at which the weights add up to `need`; `bound` if they never do.
    template <bool counts> __device__ u64 select(u64 need, u64 bound) const {
        u64 prefix = 0;
        for (int shift = 56; shift >= 0; shift -= 8) {
            __syncthreads();
            for (u32 i = threadIdx.x; i < 256 * COPIES; i += SAMPLE_THREADS) counters.low[i] = counters.high[i] = 0;
            __syncthreads();
            each(logits, vocabulary, [&](u32 id, float logit) {
                u64 k = key(id, logit);
                bool here = shift == 56 || k >> (shift + 8) == prefix >> (shift + 8);
                if (!here || k > bound) return;
                u32 n = counts ? (u32)count(logit) : 1, at = (u32)(k >> shift & 255) * COPIES + threadIdx.x % COPIES;
                if (n % 4096 > 0) atomicAdd(&counters.low[at], n % 4096);
                if (counts && n >= 4096) atomicAdd(&counters.high[at], n / 4096);
            });
            __syncthreads();
            if (threadIdx.x < 256) {
                u64 sum = 0;
                for (u32 i = 0; i < COPIES; ++i) {
                    u32 at = threadIdx.x * COPIES + (threadIdx.x + i) % COPIES;
                    sum += counters.low[at] + ((u64)counters.high[at] << 12);
                }
                counters.sums[threadIdx.x] = sum;
            }
            __syncthreads();
            if (warp_id() == 0) find_digit(counters, need);
            __syncthreads();
            if (counters.digit == 256) return bound;
            prefix |= counters.digit << shift;
            need -= counters.before;
        }
        return prefix;
    }

    __device__ u64 total(u64 bound) const {
        u64 sum = 0;
        each(logits, vocabulary, [&](u32 id, float logit) {
            if (key(id, logit) <= bound) sum += count(logit);
        });
        return block_sum(sum, counters.sums);
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
    SHARED Counters counters;
    SHARED u32 words[32];
    u64* cells = counters.sums;
    if (blockIdx.x >= p.header->draws) return;
    DrawRow draw = p.draws[blockIdx.x];
    const float* logits = p.logits + (u64)draw.row * p.vocabulary;
    u32 worst = 0;
    u64 best = ~0ull;
    each(logits, p.vocabulary, [&](u32 id, float logit) {
        u32 m = bits_of(logit) & 0x7fffffffu;
        worst = m > worst ? m : worst;
        u64 key = (u64)key_of(logit) << 32 | id;
        best = key < best ? key : best;
    });
    worst = block_max(worst, words);
    best = block_min(best, cells);
    bool greedy = draw.tau == 0.0f;
    bool finite = finite_bits(worst) && (greedy || finite_bits(bits_of(mul(bits(worst), draw.tau)) & 0x7fffffffu));
    if (!finite || greedy) {
        if (threadIdx.x == 0) p.tokens[blockIdx.x] = finite ? (u32)best : 0xffffffffu;
        return;
    }
    Narrow narrow = {logits, p.vocabulary, draw.tau, mul(logits[(u32)best], draw.tau), counters};
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
    each(logits, p.vocabulary, [&](u32 id, float logit) {
        u64 key = narrow.key(id, logit);
        first = key < first ? key : first;
    });
    first = block_min(first, cells);
    best = ~0ull;
    each(logits, p.vocabulary, [&](u32 id, float logit) {
        u64 key = narrow.key(id, logit);
        bool stays = key <= bound && (draw.least == 0 || narrow.count(logit) >= draw.least || key == first);
        if (!stays) return;
        float z = mul(logit, draw.tau);
        u64 score = (u64)key_of(add(z, noise(draw.seed, draw.position, id))) << 32 | id;
        best = score < best ? score : best;
    });
    best = block_min(best, cells);
    if (threadIdx.x == 0) p.tokens[blockIdx.x] = (u32)best;
}
