// emu.cpp: the emulated device: fibers, barriers, warps, streams, graphs, and the faults that specs ask for. One system thread; nothing here is quick.
#include "cuda_runtime.h"

#include <algorithm>
#include <ctime>
#include <string>
#include <sys/mman.h>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define UNTRACED __attribute__((no_sanitize("thread")))
#else
#define UNTRACED
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace {

// ---- fibers: a stack each, switched in assembly ----

constexpr size_t STACK = 128 * 1024;
enum State { READY, AT_WARP, AT_BLOCK, DONE };

struct Warp {
    unsigned live = 0, arrived = 0, wanted = 0, generation = 0;
    alignas(64) char slots[2][32][64];
    char token[2]; // what ThreadSanitizer takes for the warp's lock, in turns
};

struct Copy { void *to; const void *from; size_t bytes; unsigned group; };

struct Fiber {
    void *sp = nullptr;
    char *stack = nullptr;
    State state = DONE;
    emu::Place place;
    unsigned lane = 0;
    Warp *warp = nullptr;
    void *tsan = nullptr, *fake = nullptr;
    std::vector<Copy> copies; // cp.async under way
    unsigned group = 0;
};

Fiber outside, *current = &outside;
std::vector<Fiber> fibers;
std::vector<Warp> warps;
std::vector<char *> stacks;
unsigned alive, waiting, generation, order_seed, random_state = 1;
const std::function<void()> *body;
const char *kernel_name = "";
char *shared_memory[2];
size_t shared_bytes[2], dynamic_limit;
#if defined(__SANITIZE_THREAD__)
char block_token[2], begin_token, end_token;
#endif
unsigned long fiber_switches;

[[noreturn]] void die(const char *what)
{
    fprintf(stderr, "emulated device: %s: %s\n", kernel_name, what);
    abort();
}

#if !defined(__x86_64__)
#error "the emulator switches stacks in x86-64 assembly"
#endif
extern "C" void emu_switch(void **save, void *to);
__asm__(".text\n.globl emu_switch\n.hidden emu_switch\n.type emu_switch,@function\nemu_switch:\n push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
        " mov %rsp,(%rdi)\n mov %rsi,%rsp\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n.size emu_switch,.-emu_switch\n");

UNTRACED void go(Fiber *to)
{
    Fiber *from = current;
    current = to;
    fiber_switches++;
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to->tsan, 1); // no happens-before edge by mere scheduling
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from->fake, to->stack, STACK);
#endif
    emu_switch(&from->sp, to->sp);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
#endif
}

UNTRACED void wake(State state, const Warp *w)
{
    for (Fiber &f : fibers)
        if (f.state == state && (!w || f.warp == w)) f.state = READY;
}

UNTRACED void wait(State state)
{
    current->state = state;
    go(&outside);
}

UNTRACED void release_block()
{
    waiting = 0;
    generation++;
    wake(AT_BLOCK, nullptr);
}

UNTRACED void release_warp(Warp *w)
{
    w->arrived = w->wanted = 0;
    w->generation++;
    wake(AT_WARP, w);
}

UNTRACED void entry()
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(&begin_token);
#endif
    (*body)();
#if defined(__SANITIZE_THREAD__)
    __tsan_release(&end_token);
#endif
    Fiber *f = current;
    f->state = DONE;
    alive--;
    f->warp->live &= ~(1u << f->lane);
    if (!f->copies.empty()) die("a thread ended without waiting for its copies");
    if (f->warp->arrived) die("a thread ended while its warp waits in a collective");
    if (alive && waiting == alive) release_block(); // as on the chip: an ended thread is not waited for
    for (;;) go(&outside);
}

UNTRACED void arrive(unsigned mask)
{
    Fiber *f = current;
    Warp *w = f->warp;
    if (!(mask >> f->lane & 1)) die("a warp collective whose mask leaves out the calling thread");
    if (mask & ~w->live && mask != 0xffffffffu) die("a warp collective that names threads which ended or do not exist");
    mask &= w->live;
    if (w->arrived && w->wanted != mask) die("two warp collectives with different masks meet");
    w->wanted = mask;
    w->arrived |= 1u << f->lane;
    if (w->arrived == w->wanted) release_warp(w);
    else wait(AT_WARP);
}

} // namespace

UNTRACED const emu::Place &emu::place() { return current->place; }
UNTRACED unsigned emu::lane() { return current->lane; }

UNTRACED void emu::block_barrier()
{
#if defined(__SANITIZE_THREAD__)
    void *token = &block_token[generation & 1];
    __tsan_release(token);
#endif
    if (++waiting == alive) release_block();
    else wait(AT_BLOCK);
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(token);
#endif
}

UNTRACED void emu::warp_barrier(unsigned mask)
{
#if defined(__SANITIZE_THREAD__)
    void *token = &current->warp->token[current->warp->generation & 1];
    __tsan_release(token);
#endif
    arrive(mask);
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(token);
#endif
}

UNTRACED const void *emu::warp_exchange(unsigned mask, const void *mine, size_t bytes)
{
    if (bytes > 64) die("a warp exchange of more than 64 bytes");
    Warp *w = current->warp;
    unsigned turn = w->generation & 1;
    for (size_t i = 0; i < bytes; i++) w->slots[turn][current->lane][i] = ((const char *)mine)[i];
    arrive(mask);
    return w->slots[turn];
}

// Until it is waited for, a copy's place holds NaN.
void emu::async_copy(void *shared, const void *global, size_t bytes, bool some)
{
    if ((uintptr_t)shared % bytes || (uintptr_t)global % bytes || !global) die("an asynchronous copy that is not aligned to its size");
    memset(shared, 0xff, bytes);
    current->copies.push_back({shared, some ? global : nullptr, bytes, current->group});
}

void emu::async_commit() { current->group++; }

void emu::async_wait(unsigned groups)
{
    std::vector<Copy> &all = current->copies;
    size_t n = 0;
    while (n < all.size() && all[n].group + groups < current->group) {
        if (all[n].from) memcpy(all[n].to, all[n].from, all[n].bytes);
        else memset(all[n].to, 0, all[n].bytes);
        n++;
    }
    all.erase(all.begin(), all.begin() + (long)n);
}

UNTRACED void *emu::shared(size_t bytes, bool dynamic)
{
    if (dynamic && bytes > dynamic_limit) die("more dynamic shared memory than the launch asked for");
    if (bytes > 227 * 1024) die("more than 227 KB of shared memory");
    if (!shared_memory[dynamic]) {
        shared_memory[dynamic] = (char *)malloc(bytes ? bytes : 1); // a heap block of the exact size, so that AddressSanitizer sees its ends
        shared_bytes[dynamic] = bytes;
        memset(shared_memory[dynamic], 0xff, bytes);
    }
    if (shared_bytes[dynamic] != bytes) die("two shared structs in one kernel");
    return shared_memory[dynamic];
}

static UNTRACED void run_block(const std::vector<unsigned> &order)
{
    for (unsigned i = 0; i < order.size(); i++) {
        Fiber &f = fibers[i];
        void **top = (void **)(stacks[i] + STACK);
        *--top = nullptr;
        *--top = (void *)entry;
        for (int k = 0; k < 6; k++) *--top = nullptr;
        f.sp = top, f.stack = stacks[i], f.state = READY;
    }
#if defined(__SANITIZE_THREAD__)
    __tsan_release(&begin_token);
#endif
    while (alive) {
        bool ran = false;
        for (unsigned i : order)
            if (fibers[i].state == READY) {
                ran = true;
                go(&fibers[i]);
            }
        if (!ran && alive) die("deadlock: a barrier or collective that not all threads reach");
    }
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(&end_token);
#endif
}

static void run_grid(dim3 grid, dim3 block, size_t dynamic_bytes, const char *name, const std::function<void()> &f)
{
    unsigned n = block.x * block.y * block.z;
    kernel_name = name;
    if (n == 0 || n > 1024) die("a block of no or more than 1024 threads");
    if (current != &outside) die("a launch from device code");
    fibers.assign(n, Fiber());
    warps.assign((n + 31) / 32, Warp());
    body = &f;
    dynamic_limit = dynamic_bytes;
    while (stacks.size() < n) {
        void *p = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == MAP_FAILED) die("no memory for a stack");
        stacks.push_back((char *)p);
    }
#if defined(__SANITIZE_THREAD__)
    outside.tsan = __tsan_get_current_fiber();
    for (Fiber &q : fibers) q.tsan = __tsan_create_fiber(0);
#endif
    std::vector<unsigned> order(n);
    for (unsigned i = 0; i < n; i++) order[i] = i;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                alive = n, waiting = 0, generation = 0;
                for (Warp &w : warps) w = Warp();
                for (unsigned i = 0; i < n; i++) {
                    Fiber &q = fibers[i];
                    q.lane = i & 31, q.warp = &warps[i >> 5];
                    q.warp->live |= 1u << q.lane;
                    q.place = {grid, block, dim3(x, y, z), dim3(i % block.x, i / block.x % block.y, i / block.x / block.y)};
                }
                if (order_seed)
                    for (unsigned i = n - 1; i; i--) {
                        random_state = random_state * 1664525u + 1013904223u + order_seed;
                        std::swap(order[i], order[(random_state >> 8) % (i + 1)]);
                    }
                run_block(order);
                for (int k = 0; k < 2; k++) {
                    free(shared_memory[k]);
                    shared_memory[k] = nullptr;
                }
            }
#if defined(__SANITIZE_THREAD__)
    for (Fiber &q : fibers) __tsan_destroy_fiber(q.tsan);
#endif
}

// ---- streams run at once; a capturing stream keeps what it is given ----

struct CUgraph_st { std::vector<std::function<void()>> nodes; };
struct CUgraphExec_st { std::vector<std::function<void()>> nodes; };
struct CUstream_st { CUgraph_st *capture = nullptr; };
struct CUevent_st { double time = 0; };

static CUstream_st default_stream;
static cudaError_t last_error;
static int devices = 2, chosen;
static bool lost;
static long fail_malloc_at, fail_launch_at;
static size_t in_use, total_memory = (size_t)1 << 30;

static cudaError_t report(cudaError_t e)
{
    if (e) last_error = e;
    return e;
}

static cudaError_t enqueue(cudaStream_t s, std::function<void()> work)
{
    if (lost) return report(cudaErrorDevicesUnavailable);
    if (!s) s = &default_stream;
    if (s->capture) s->capture->nodes.push_back(std::move(work));
    else work();
    return cudaSuccess;
}

void emu::launch(dim3 grid, dim3 block, size_t dynamic_bytes, cudaStream_t stream, const char *name, std::function<void()> f)
{
    if (fail_launch_at && --fail_launch_at == 0) {
        report(cudaErrorLaunchFailure);
        return;
    }
    if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535) {
        report(cudaErrorInvalidValue);
        return;
    }
    enqueue(stream, [=] { run_grid(grid, block, dynamic_bytes, name, f); });
}

const char *cudaGetErrorName(cudaError_t e)
{
    switch (e) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorDevicesUnavailable: return "cudaErrorDevicesUnavailable";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    default: return "cudaErrorInvalidValue";
    }
}
const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorLaunchFailure: return "unspecified launch failure";
    case cudaErrorDevicesUnavailable: return "the device is busy or unavailable";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    default: return "invalid argument";
    }
}
cudaError_t cudaPeekAtLastError(void) { return last_error; }
cudaError_t cudaGetLastError(void)
{
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}
cudaError_t cudaGetDeviceCount(int *n)
{
    *n = devices;
    return devices ? cudaSuccess : report(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device)
{
    if (device < 0 || device >= devices) return report(cudaErrorInvalidDevice);
    chosen = device;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device) { return *device = chosen, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    if (device < 0 || device >= devices) return report(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated device");
    p->totalGlobalMem = total_memory, p->sharedMemPerBlockOptin = 227 * 1024, p->major = 9, p->minor = 0, p->multiProcessorCount = 4, p->warpSize = 32;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t *free, size_t *total) { return *free = total_memory - in_use, *total = total_memory, cudaSuccess; }

// Device memory is heap memory with its size in front, full of NaN when it is new.
cudaError_t cudaMalloc(void **p, size_t bytes)
{
    *p = nullptr;
    if (lost) return report(cudaErrorDevicesUnavailable);
    if ((fail_malloc_at && --fail_malloc_at == 0) || bytes > total_memory - in_use) return report(cudaErrorMemoryAllocation);
    char *block = (char *)aligned_alloc(256, (bytes + 511) / 256 * 256);
    if (!block) return report(cudaErrorMemoryAllocation);
    memcpy(block, &bytes, sizeof bytes);
    memset(block + 256, 0xff, (bytes + 255) / 256 * 256);
    in_use += bytes;
    *p = block + 256;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p)
{
    if (!p) return cudaSuccess;
    size_t bytes;
    memcpy(&bytes, (char *)p - 256, sizeof bytes);
    in_use -= bytes;
    free((char *)p - 256);
    return lost ? report(cudaErrorDevicesUnavailable) : cudaSuccess;
}
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned) { return (*p = malloc(bytes ? bytes : 1)) ? cudaSuccess : report(cudaErrorMemoryAllocation); }
cudaError_t cudaFreeHost(void *p) { return free(p), cudaSuccess; }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t s) { return enqueue(s, [=] { memmove(to, from, bytes); }); }
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s) { return enqueue(s, [=] { memset(p, value, bytes); }); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) { return *s = new CUstream_st, cudaSuccess; }
cudaError_t cudaStreamDestroy(cudaStream_t s) { return delete s, cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (s && s->capture) return report(cudaErrorStreamCaptureUnsupported);
    return lost ? report(cudaErrorDevicesUnavailable) : cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode)
{
    if (s->capture) return report(cudaErrorStreamCaptureUnsupported);
    s->capture = new CUgraph_st;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    *g = s->capture;
    s->capture = nullptr;
    return *g ? cudaSuccess : report(cudaErrorInvalidValue);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long) { return *x = new CUgraphExec_st{g->nodes}, cudaSuccess; }
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s)
{
    for (auto &node : x->nodes) {
        cudaError_t e = enqueue(s, node);
        if (e) return e;
    }
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) { return delete g, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x) { return delete x, cudaSuccess; }
static double clock_ms()
{
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) { return *e = new CUevent_st, cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) { return enqueue(s, [=] { e->time = clock_ms(); }); }
cudaError_t cudaEventQuery(cudaEvent_t) { return lost ? report(cudaErrorDevicesUnavailable) : cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return lost ? report(cudaErrorDevicesUnavailable) : cudaSuccess; }
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) { return *ms = (float)(b->time - a->time), cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return delete e, cudaSuccess; }

// ---- what specs ask for ----
extern "C" {
#define DOOR __attribute__((visibility("default")))
DOOR void lbr_emu_seed(unsigned seed) { order_seed = seed, random_state = 1; }         // order in which threads run; 0: by number
DOOR void lbr_emu_fail_malloc(long n) { fail_malloc_at = n; }                          // the nth cudaMalloc from now on
DOOR void lbr_emu_fail_launch(long n) { fail_launch_at = n; }
DOOR void lbr_emu_lose_device(int on) { lost = on != 0; }
DOOR void lbr_emu_memory(double bytes) { total_memory = (size_t)bytes; }
DOOR double lbr_emu_in_use(void) { return (double)in_use; }
}
