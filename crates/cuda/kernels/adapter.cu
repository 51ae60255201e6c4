// Adapters (section 3), grouped: one launch per half for all adapters, ranks and maps of a group of linear maps. A tile
// is up to eight rows that share an adapter; each half reads an adapter's integers once per tile.
#include "linear.cuh"

#define RANK_MAX 1024

// t = A x, quantised at 16 bits. One block a tile and map.
KERNEL(adapter_down, AdapterDown, 256) {
    SHARED float t[8][RANK_MAX];
    SHARED int sums[2][16][8];
    SHARED u32 cells[32];
    if (blockIdx.x >= *p.tile_count) return;
    AdapterTile tile = p.tiles[blockIdx.x];
    // Chosen, not indexed: an index would have every thread copy the arguments to local memory.
    u32 site = blockIdx.y == 0 ? p.sites[0] : blockIdx.y == 1 ? p.sites[1] : p.sites[2];
    Share share = tile.sites[site];
    if (share.rank == 0) return;
    u32 lane = lane_id(), g = lane / 4, q = lane % 4, chunks = p.x.chunks, planes = p.x.planes;
    u32 column = tile.row + (g < tile.rows ? g : 0);
    const i8* x = digits_of(p.x, p.list ? p.list[column] : column) + q * 16;
    for (u32 first = 0; first < share.rank; first += 16) {
        __syncthreads();
        for (u32 i = threadIdx.x; i < 256; i += blockDim.x) (&sums[0][0][0])[i] = 0;
        __syncthreads();
        const i8* a = share.a + (u64)first * chunks * 64 + lane * 16;
        // A group of eight ranks without a second one is taken twice; the second time's sums are not read.
        u64 half = first + 8 < share.rank ? (u64)chunks * 512 : 0;
        int d[1][1][2][4] = {};
        if (planes == 2) {
            Chunks<2, 1, 1> operands = {{a}, half, 512, {x}, p.x.plane_stride};
            operands.all<4>(d, chunks);
        } else {
            Chunks<1, 1, 1> operands = {{a}, half, 512, {x}, 0};
            operands.all<4>((int(*)[1][1][4])d, chunks);
        }
#pragma unroll
        for (u32 plane = 0; plane < 2; ++plane) {
            if (plane == planes) break;
#pragma unroll
            for (int r = 0; r < 4; ++r) atomicAdd(&sums[plane][g + r / 2 * 8][2 * q + r % 2], d[0][0][plane][r]);
        }
        __syncthreads();
        for (u32 i = threadIdx.x; i < 128; i += blockDim.x) {
            u32 rank = first + i % 16, c = i / 16;
            if (rank >= share.rank || c >= tile.rows) continue;
            u32 row = p.list ? p.list[tile.row + c] : tile.row + c;
            t[c][rank] = finish(sums[0][i % 16][c], sums[1][i % 16][c], p.x.planes, p.x.scales[row], share.a_scale[rank], 0);
        }
    }
    for (u32 c = 0; c < tile.rows; ++c) {
        u32 magnitude = 0;
        __syncthreads();
        for (u32 i = threadIdx.x; i < share.rank; i += blockDim.x) {
            u32 m = bits_of(t[c][i]) & 0x7fffffffu;
            magnitude = m > magnitude ? m : magnitude;
        }
        magnitude = block_max(magnitude, cells);
        float multiplier, scale;
        scale_of(magnitude, LEVELS_16, &multiplier, &scale);
        bool finite = finite_bits(magnitude);
        u64 at = (u64)blockIdx.y * p.rows_max + tile.row + c;
        i8* to = p.narrow + at * 2 * p.rank_max;
        for (u32 i = threadIdx.x; i < share.stride; i += blockDim.x) {
            int v = i < share.rank && finite ? level(t[c][i], multiplier, LEVELS_16) : 0;
            to[i] = (i8)high_digit(v);
            to[p.rank_max + i] = (i8)low_digit(v);
        }
        if (threadIdx.x == 0) {
            p.narrow_scales[at] = scale;
            u32 row = p.list ? p.list[tile.row + c] : tile.row + c;
            if (!finite) p.failed[p.rows[row].segment] = 1;
        }
    }
}

// y = fma(B t, gain, y). One thread an output, for all rows of a tile.
KERNEL(adapter_up, AdapterUp, 256) {
    SHARED u32 digits[8][2][RANK_MAX / 4];
    if (blockIdx.x >= *p.tile_count) return;
    AdapterTile tile = p.tiles[blockIdx.x];
    const Target& target = p.targets[blockIdx.z];
    if (blockIdx.y * 256 >= target.outputs) return;
    Share share = tile.sites[target.site];
    if (share.rank == 0) return;
    u32 words = share.stride / 4;
    u64 first = (u64)blockIdx.z * p.rows_max + tile.row;
    for (u32 i = threadIdx.x; i < tile.rows * 2 * words; i += blockDim.x) {
        u32 c = i / (2 * words), plane = i / words % 2;
        digits[c][plane][i % words] = ((const u32*)(p.narrow + ((first + c) * 2 + plane) * p.rank_max))[i % words];
    }
    __syncthreads();
    u32 n = blockIdx.y * 256 + threadIdx.x;
    if (n >= target.outputs) return;
    int high[8] = {}, low[8] = {};
    const i8* b = share.b + (u64)n * share.stride;
    for (u32 i = 0; i < words;) {
        Quad w = {};
        u32 some = words - i < 4 ? words - i : 4;
        if (some == 4) {
            w = load_quad(b + i * 4);
        } else {
            w.w[0] = *(const u32*)(b + i * 4);
            if (some > 1) w.w[1] = *(const u32*)(b + i * 4 + 4);
        }
#pragma unroll
        for (u32 j = 0; j < 4; ++j) {
            if (j >= some) break;
#pragma unroll
            for (u32 c = 0; c < 8; ++c) {
                if (c >= tile.rows) break;
                high[c] = dot4(digits[c][0][i + j], w.w[j], high[c]);
                low[c] = dot4(digits[c][1][i + j], w.w[j], low[c]);
            }
        }
        i += some;
    }
    float s_b = share.b_scale[n];
#pragma unroll
    for (u32 c = 0; c < 8; ++c) {
        if (c >= tile.rows) break;
        float* y = target.out + (u64)(tile.row + c) * target.outputs + n;
        float d = mul(digits_to_float(high[c], low[c]), mul(p.narrow_scales[first + c], s_b));
        *y = fma_(d, share.gain, *y);
    }
}
