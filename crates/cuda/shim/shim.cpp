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

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

ShimIndex threadIdx, blockIdx, blockDim, gridDim;
unsigned char* shim_dynamic;

#define STACK_BYTES (256 << 10)
#define THREADS_MAX 1024

namespace {

struct Fibre {
    ucontext_t context;
    jmp_buf at;
    unsigned char* stack;
    bool begun, done;
};

struct Barrier {
    unsigned waiting, generation;
};

struct Warp {
    Barrier barrier;
    unsigned living;
    unsigned long long cells[32];
    unsigned mma[32][6];
};

Fibre fibres[THREADS_MAX];
Warp warps[THREADS_MAX / 32];
Barrier block_barrier;
unsigned living, backward;
jmp_buf scheduler;
void (*entry)(const void*);
const void* arguments;
unsigned current;

void yield() {
    unsigned me = current;
    if (_setjmp(fibres[me].at) == 0) _longjmp(scheduler, 1);
    current = me;
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
    _longjmp(scheduler, 1);
}

void run_block(unsigned threads) {
    living = threads;
    block_barrier = {};
    for (unsigned t = 0; t < threads; ++t) {
        fibres[t].begun = fibres[t].done = false;
        if (!fibres[t].stack) {
            fibres[t].stack = (unsigned char*)mmap(0, STACK_BYTES, PROT_READ | PROT_WRITE,
                                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        }
    }
    for (unsigned w = 0; w * 32 < threads; ++w) {
        warps[w].barrier = {};
        warps[w].living = threads - w * 32 < 32 ? threads - w * 32 : 32;
    }
    // A round in which nobody moves would be a barrier that some never reach: stop loudly.
    volatile unsigned rounds = 0;
    while (living > 0) {
        if (++rounds > 100000000u) {
            std::fprintf(stderr, "shim: a barrier is never reached by all threads\n");
            std::abort();
        }
        for (volatile unsigned i = 0; i < threads; i = i + 1) {
            unsigned t = backward ? threads - 1 - i : i;
            Fibre& fibre = fibres[t];
            if (fibre.done) continue;
            current = t;
            threadIdx = {t, 0, 0};
            if (_setjmp(scheduler) == 0) {
                if (fibre.begun) _longjmp(fibre.at, 1);
                fibre.begun = true;
                getcontext(&fibre.context);
                fibre.context.uc_stack.ss_sp = fibre.stack;
                fibre.context.uc_stack.ss_size = STACK_BYTES;
                fibre.context.uc_link = 0;
                makecontext(&fibre.context, begin, 0);
                setcontext(&fibre.context);
            }
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
    unsigned mine[6] = {a0, a1, a2, a3, b0, b1};
    std::memcpy(warp.mma[lane], mine, sizeof(mine));
    shim_warp_barrier();
    for (unsigned r = 0; r < 4; ++r) {
        unsigned row = group, column = quad * 2 + r % 2, upper = r / 2;
        int sum = d[r];
        for (unsigned q = 0; q < 4; ++q) {
            const unsigned* a = warp.mma[row * 4 + q];
            const unsigned* b = warp.mma[column * 4 + q];
            sum = __dp4a((int)a[upper], (int)b[4], sum);
            sum = __dp4a((int)a[2 + upper], (int)b[5], sum);
        }
        d[r] = sum;
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
