// The processor's side of shim.h, and every kernel.
#include "../kernels/adapter.cu"
#include "../kernels/attend_few.cu"
#include "../kernels/attend_many.cu"
#include "../kernels/embed.cu"
#include "../kernels/gemm.cu"
#include "../kernels/hash.cu"
#include "../kernels/heads.cu"
#include "../kernels/measure.cu"
#include "../kernels/mixture.cu"
#include "../kernels/prepare.cu"
#include "../kernels/product.cu"
#include "../kernels/sample.cu"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <vector>

ShimIndex threadIdx, blockIdx, blockDim, gridDim;
unsigned char* shim_dynamic;

#define STACK_BYTES (256 << 10)
#define THREADS_MAX 1024

// Saves the callee's registers and the stack pointer in *save, and goes on where `load` was saved.
extern "C" __attribute__((visibility("hidden"))) void shim_switch(void** save, void* load);
#if defined(__x86_64__)
#define SAVED 6
asm(".text\n.hidden shim_switch\n.globl shim_switch\nshim_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n");
#else
#error "the shim switches threads in x86-64 instructions: write shim_switch for this processor"
#endif

namespace {

struct Fibre {
    void* at;
    unsigned char* stack;
    bool done;
};

struct Barrier {
    unsigned waiting, generation;
};

struct Warp {
    Barrier barrier;
    unsigned living;
    unsigned long long cells[32];
    // Operands of one matrix instruction: 16 x 32 and 8 x 32 bytes, row by row and column by column.
    signed char a[16][32];
    signed char b[8][32];
};

Fibre fibres[THREADS_MAX];
Warp warps[THREADS_MAX / 32];
Barrier block_barrier;
unsigned living, backward;
void* scheduler;
void (*entry)(const void*);
const void* arguments;
unsigned current;

void yield() {
    unsigned me = current;
    shim_switch(&fibres[me].at, scheduler);
    threadIdx = {me, 0, 0};
}

void wait(Barrier& barrier, const unsigned& count) {
    unsigned generation = barrier.generation;
    ++barrier.waiting;
    while (true) {
        if (barrier.generation != generation) return;
        if (barrier.waiting >= count) {
            barrier.waiting = 0;
            ++barrier.generation;
            return;
        }
        yield();
    }
}

void begin() {
    entry(arguments);
    fibres[current].done = true;
    --living;
    --warps[current / 32].living;
    void* nowhere;
    shim_switch(&nowhere, scheduler);
}

void run_block(unsigned threads) {
    living = threads;
    block_barrier = {};
    for (unsigned t = 0; t < threads; ++t) {
        Fibre& fibre = fibres[t];
        if (!fibre.stack) {
            fibre.stack = (unsigned char*)mmap(0, STACK_BYTES, PROT_READ | PROT_WRITE,
                                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        }
        void** top = (void**)(fibre.stack + STACK_BYTES) - 2;
        *top = (void*)begin;
        fibre.at = top - SAVED;
        fibre.done = false;
    }
    for (unsigned w = 0; w * 32 < threads; ++w) {
        warps[w].barrier = {};
        warps[w].living = threads - w * 32 < 32 ? threads - w * 32 : 32;
    }
    // Without end, some thread waits at a barrier that the others never reach: stop loudly.
    for (unsigned rounds = 0; living > 0; ++rounds) {
        if (rounds > 100000000u) {
            std::fprintf(stderr, "shim: a barrier is never reached by all threads\n");
            std::abort();
        }
        for (unsigned i = 0; i < threads; ++i) {
            unsigned t = backward ? threads - 1 - i : i;
            if (fibres[t].done) continue;
            current = t;
            threadIdx = {t, 0, 0};
            shim_switch(&scheduler, fibres[t].at);
        }
    }
}

} // namespace

void shim_block_barrier() { wait(block_barrier, living); }
void shim_warp_barrier() { wait(warps[current / 32].barrier, warps[current / 32].living); }
unsigned long long* shim_cells() { return warps[current / 32].cells; }

void shim_mma(int d[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    Warp& warp = warps[current / 32];
    unsigned lane = current % 32, group = lane / 4, quad = lane % 4;
    std::memcpy(&warp.a[group][quad * 4], &a0, 4);
    std::memcpy(&warp.a[group + 8][quad * 4], &a1, 4);
    std::memcpy(&warp.a[group][16 + quad * 4], &a2, 4);
    std::memcpy(&warp.a[group + 8][16 + quad * 4], &a3, 4);
    std::memcpy(&warp.b[group][quad * 4], &b0, 4);
    std::memcpy(&warp.b[group][16 + quad * 4], &b1, 4);
    shim_warp_barrier();
    for (unsigned r = 0; r < 4; ++r) {
        const signed char* row = warp.a[group + r / 2 * 8];
        const signed char* column = warp.b[quad * 2 + r % 2];
        int sum = 0;
        for (unsigned k = 0; k < 32; ++k) sum += (short)row[k] * (short)column[k];
        d[r] += sum;
    }
    shim_warp_barrier();
}

#define EXPORT extern "C" __attribute__((visibility("default")))

// 0: blocks and threads in ascending order; 1: descending.
EXPORT void shim_order(unsigned order) { backward = order; }

EXPORT void shim_launch(void (*kernel)(const void*), const void* params, const unsigned grid[3], unsigned threads,
                        unsigned shared) {
    static std::vector<unsigned char> memory;
    entry = kernel;
    arguments = params;
    memory.resize(shared + 256);
    shim_dynamic = (unsigned char*)(((unsigned long)memory.data() + 127) / 128 * 128);
    blockDim = {threads, 1, 1};
    gridDim = {grid[0], grid[1], grid[2]};
    unsigned count = grid[0] * grid[1] * grid[2];
    for (unsigned i = 0; i < count; ++i) {
        unsigned block = backward ? count - 1 - i : i;
        blockIdx = {block % grid[0], block / grid[0] % grid[1], block / grid[0] / grid[1]};
        std::memset(memory.data(), 0xcd, memory.size());
        run_block(threads);
    }
}

// Device memory that ends at a page nobody may touch, filled with bytes that are no zeros.
EXPORT void* shim_alloc(unsigned long bytes) {
    unsigned long page = 4096, room = (bytes + 15) / 16 * 16, whole = (room + page - 1) / page * page;
    unsigned char* at = (unsigned char*)mmap(0, whole + page, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return 0;
    mprotect(at + whole, page, PROT_NONE);
    // Of large buffers the ends only: touching all of them would cost more than the kernels.
    unsigned long some = room < (1 << 20) ? room : 1 << 20;
    std::memset(at + whole - room, 0xcd, some);
    std::memset(at + whole - some, 0xcd, some);
    return at + whole - room;
}

EXPORT void shim_free(void* at, unsigned long bytes) {
    unsigned long page = 4096, room = (bytes + 15) / 16 * 16, whole = (room + page - 1) / page * page;
    munmap((unsigned char*)at - (whole - room), whole + page);
}

// Bytes of a structure of types.cuh; 0 if there is none of that name.
EXPORT unsigned long shim_size(const char* name) {
#define SIZE(T) \
    if (!std::strcmp(name, #T)) return sizeof(T);
    SIZE(Header) SIZE(Row) SIZE(QueryTile) SIZE(Share) SIZE(AdapterTile) SIZE(ExpertTile) SIZE(Rows8) SIZE(Target)
    SIZE(Embed) SIZE(Prepare) SIZE(Heads) SIZE(Product) SIZE(AdapterDown) SIZE(AdapterUp) SIZE(Attend) SIZE(Route)
    SIZE(Gather) SIZE(Combine) SIZE(DrawRow) SIZE(Sample) SIZE(Hash) SIZE(Leaf) SIZE(Measure)
    return 0;
}
