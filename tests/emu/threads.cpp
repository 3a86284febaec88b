// threads.cpp: the emulated device's threads: fibers of one system thread, barriers, warps, shared memory. Blocks run one after another, those of a cluster together;
// nothing here is quick.
// Under ThreadSanitizer each thread is a TSan fiber, and barriers (and fences) are the only happens-before edges: also blocks of a grid are unordered.
#include "cluster.h"

#include <algorithm>
#include <set>
#include <string>
#include <sys/mman.h>
#include <vector>

// EMU_RACES: the kernels are compiled for ThreadSanitizer; this file is not, so that what it does itself is no access of theirs.
#if defined(EMU_RACES)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
}
// Also malloc and memcmp are seen wherever they are called; not here.
struct Quiet {
    Quiet() { AnnotateIgnoreWritesBegin(__FILE__, __LINE__), AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
    ~Quiet() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__), AnnotateIgnoreWritesEnd(__FILE__, __LINE__); }
};
#define PASS_ON(token) __tsan_release(token)
#define TAKE_UP(token) __tsan_acquire(token)
#else
struct Quiet { Quiet() {} };
#define PASS_ON(token) ((void)(token))
#define TAKE_UP(token) ((void)(token))
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace {

constexpr size_t STACK = 256 * 1024;
enum State { READY, AT_WARP, AT_BLOCK, AT_CLUSTER, DONE };

struct Warp {
    unsigned live, arrived, wanted, generation;
    alignas(64) char slots[2][32][64];
    char token[2]; // what ThreadSanitizer takes for the warp's lock, in turns
};

struct Copy { void *to; const void *from; size_t bytes; unsigned group; };

struct Site {
    const char *file;
    int line;
    std::string name() const
    {
        const char *folder = strstr(file, "csrc/");
        return std::string(folder ? folder : file) + ":" + std::to_string(line);
    }
    bool operator==(const Site &o) const { return line == o.line && (file == o.file || !strcmp(file, o.file)); }
};

// Threads that wait for each other: those of a block, or of all blocks of a cluster.
struct Crowd {
    unsigned alive, waiting, generation;
    Site waits_at;
    char token[2];
};

struct Block : Crowd {
    unsigned rank;
    char *memory[2]; // shared: of a fixed size, and of the launch's
    size_t bytes[2];
    char *begun; // one byte, of this cluster alone: what an earlier one wrote there is no race
};

struct Fiber {
    void *sp = nullptr;
    const void *stack = nullptr; // its lowest byte
    size_t size = 0;
    State state = DONE;
    emu::Place place;
    unsigned lane = 0;
    Warp *warp = nullptr;
    Block *block = nullptr;
    void *tsan = nullptr, *fake = nullptr;
    std::vector<Copy> copies; // cp.async under way
    unsigned group = 0;
};

Fiber outside, *current = &outside;
std::vector<Fiber> fibers;
std::vector<Warp> warps;
std::vector<char *> stacks[2]; // one set, or two in turns
std::vector<Block> blocks; // of the cluster that runs
Crowd all; // its threads
unsigned random_state = 1;
unsigned order_seed = getenv("EMU_SEED") ? (unsigned)atoi(getenv("EMU_SEED")) : 0; // see lbr_emu_seed
const std::function<void()> *body;
const char *kernel_name = "";
size_t dynamic_limit;
char begin_token, end_token, fence_token;

// Barriers that were reached, by kernel; and the one that orders nothing (see lbr_emu_ignore).
std::set<std::string> reached;
std::string ignored;
unsigned turn; // counts what was asked about them

[[noreturn]] void die(const char *what)
{
    fprintf(stderr, "emulated device: %s: %s\n", kernel_name, what);
    abort();
}

// Notes that a barrier was reached; does it order memory?
bool orders(const Site &s)
{
    static const char *last_kernel;
    static Site last_site;
    static unsigned last_turn;
    static bool last;
    if (last_kernel != kernel_name || !(last_site == s) || last_turn != turn) {
        Quiet quiet;
        std::string name = std::string(kernel_name) + "\t" + s.name();
        reached.insert(name);
        last_kernel = kernel_name, last_site = s, last_turn = turn, last = name != ignored;
    }
    return last;
}

// ---- fibers: a stack each, switched in assembly ----

#if !defined(__x86_64__)
#error "the emulator switches stacks in x86-64 assembly"
#endif
extern "C" void emu_switch(void **save, void *to);
__asm__(".text\n.globl emu_switch\n.hidden emu_switch\n.type emu_switch,@function\nemu_switch:\n push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
        " mov %rsp,(%rdi)\n mov %rsi,%rsp\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n.size emu_switch,.-emu_switch\n");

void go(Fiber *to)
{
    Fiber *from = current;
    current = to;
#if defined(EMU_RACES)
    __tsan_switch_to_fiber(to->tsan, 1); // no happens-before edge by mere scheduling
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from->fake, to->stack, to->size);
#endif
    emu_switch(&from->sp, to->sp);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
#endif
}

void wake(State state, const Warp *w, const Block *b)
{
    for (Fiber &f : fibers)
        if (f.state == state && (!w || f.warp == w) && (!b || f.block == b)) f.state = READY;
}

void wait(State state)
{
    current->state = state;
    go(&outside);
}

// Lets a crowd go on: a block's threads, or all (b = NULL).
void release(Crowd *c, State state, const Block *b)
{
    c->waiting = 0;
    c->generation++;
    wake(state, nullptr, b);
}

void meet(Crowd *c, State state, const Block *b, const Site &site, const char *apart)
{
    void *token = &c->token[c->generation & 1];
    bool real = orders(site);
    if (c->waiting && !(c->waits_at == site)) die(apart);
    c->waits_at = site;
    if (real) PASS_ON(token);
    if (++c->waiting == c->alive) release(c, state, b);
    else wait(state);
    if (real) TAKE_UP(token);
}

void entry()
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &outside.stack, &outside.size); // fibers are entered from outside alone
#endif
    TAKE_UP(&begin_token);
    (*body)();
    PASS_ON(&end_token);
    Fiber *f = current;
    f->state = DONE;
    f->block->alive--, all.alive--;
    f->warp->live &= ~(1u << f->lane);
    if (!f->copies.empty()) die("a thread ended without waiting for its copies");
    std::vector<Copy>().swap(f->copies); // its memory too: the race build takes a later thread's use of it for a race
    if (f->warp->arrived) die("a thread ended while its warp waits in a collective");
    // as on the chip: an ended thread is not waited for
    if (f->block->alive && f->block->waiting == f->block->alive) release(f->block, AT_BLOCK, f->block);
    if (all.alive && all.waiting == all.alive) release(&all, AT_CLUSTER, nullptr);
    for (;;) go(&outside);
}

void arrive(unsigned mask)
{
    Fiber *f = current;
    Warp *w = f->warp;
    if (!(mask >> f->lane & 1)) die("a warp collective whose mask leaves out the calling thread");
    if (mask & ~w->live && mask != 0xffffffffu) die("a warp collective that names threads which ended or do not exist");
    mask &= w->live;
    if (w->arrived && w->wanted != mask) die("two warp collectives with different masks meet");
    w->wanted = mask;
    w->arrived |= 1u << f->lane;
    if (w->arrived == w->wanted) {
        w->arrived = w->wanted = 0;
        w->generation++;
        wake(AT_WARP, w, nullptr);
    } else
        wait(AT_WARP);
}

} // namespace

// ---- what a thread does ----

const emu::Place &emu::place() { return current->place; }
unsigned emu::lane() { return current->lane; }

void emu::block_barrier(const char *file, int line)
{
    meet(current->block, AT_BLOCK, current->block, {file, line}, "threads of a block wait at different barriers");
}

void emu::cluster_barrier(const char *file, int line) { meet(&all, AT_CLUSTER, nullptr, {file, line}, "threads of a cluster wait at different barriers"); }

unsigned emu::cluster_rank() { return current->block->rank; }

volatile char *emu::cluster_begun(unsigned rank)
{
    if (rank >= blocks.size()) die("a block that the cluster does not have");
    return blocks[rank].begun;
}

char *emu::cluster_place(const void *own, unsigned rank)
{
    const Block *b = current->block, *other = &blocks[rank];
    const char *at = (const char *)own;
    if (at < b->memory[1] || at >= b->memory[1] + b->bytes[1]) die("a place that is not in this block's shared memory");
    if (!other->memory[1] || !other->alive) die("shared memory of a block that has not begun or has ended");
    return other->memory[1] + (at - b->memory[1]);
}

void emu::warp_barrier(unsigned mask, const char *file, int line)
{
    void *token = &current->warp->token[current->warp->generation & 1];
    bool real = orders({file, line});
    if (real) PASS_ON(token);
    arrive(mask);
    if (real) TAKE_UP(token);
}

void emu::fence()
{
    TAKE_UP(&fence_token);
    PASS_ON(&fence_token);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

const void *emu::warp_exchange(unsigned mask, const void *mine, size_t bytes)
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

void *emu::shared(size_t bytes, bool dynamic)
{
    if (dynamic && bytes > dynamic_limit) die("more dynamic shared memory than the launch asked for");
    if (bytes > 227 * 1024) die("more than 227 KB of shared memory");
    Block *b = current->block;
    if (!b->memory[dynamic]) {
        Quiet quiet;
        b->memory[dynamic] = (char *)malloc(bytes ? bytes : 1); // a heap block of the exact size, so that AddressSanitizer sees its ends
        memset(b->memory[dynamic], 0xff, bytes);
        b->bytes[dynamic] = bytes;
    }
    if (b->bytes[dynamic] != bytes) die("two shared structs in one kernel");
    return b->memory[dynamic];
}

// ---- blocks and grids ----

namespace {

#if defined(EMU_RACES)
enum { SETS = 2 }; // threads and stacks of a block or cluster, in turns, so that nothing orders it and the next one
std::vector<void *> threads[SETS];

void take_threads(unsigned set)
{
    outside.tsan = __tsan_get_current_fiber();
    while (threads[set].size() < fibers.size()) threads[set].push_back(__tsan_create_fiber(0));
    for (unsigned i = 0; i < fibers.size(); i++) fibers[i].tsan = threads[set][i];
}
#else
enum { SETS = 1 };
void take_threads(unsigned) {}
#endif

void run_blocks(const std::vector<unsigned> &order, unsigned set)
{
    for (unsigned i = 0; i < order.size(); i++) {
        Fiber &f = fibers[i];
#if defined(__SANITIZE_ADDRESS__)
        __asan_unpoison_memory_region(stacks[set][i], STACK); // the frame of a thread that ended never returned
#endif
        void **top = (void **)(stacks[set][i] + STACK);
        *--top = nullptr;
        *--top = (void *)entry;
        for (int k = 0; k < 6; k++) *--top = nullptr;
        f.sp = top, f.stack = stacks[set][i], f.size = STACK, f.state = READY, f.group = 0;
    }
    while (all.alive) {
        bool ran = false;
        for (unsigned i : order)
            if (fibers[i].state == READY) {
                ran = true;
                go(&fibers[i]);
            }
        if (!ran && all.alive) die("deadlock: a barrier or collective that not all threads reach");
    }
}

void shuffle(std::vector<unsigned> &order)
{
    for (unsigned i = (unsigned)order.size(); order_seed && i > 1; i--) {
        random_state = random_state * 1664525u + 1013904223u + order_seed;
        std::swap(order[i - 1], order[(random_state >> 8) % i]);
    }
}

void more_stacks(std::vector<char *> &set, unsigned n)
{
    const size_t guard = 4096;
    while (set.size() < n) {
        char *p = (char *)mmap(nullptr, STACK + guard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (p == (char *)MAP_FAILED || mprotect(p, guard, PROT_NONE)) die("no memory for a stack");
        set.push_back(p + guard);
    }
}

} // namespace

void emu::run_grid(dim3 grid, dim3 block, size_t dynamic_bytes, unsigned cluster, const char *name, const std::function<void()> &f)
{
    unsigned each = block.x * block.y * block.z, n = each * cluster, clusters = grid.x * grid.y * grid.z / cluster;
    kernel_name = name;
    if (current != &outside) die("a launch from device code");
    for (unsigned set = 0; set < SETS; set++) more_stacks(stacks[set], n);
    const unsigned warps_each = (each + 31) / 32;
    fibers.resize(n);
    warps.resize(warps_each * cluster);
    blocks.resize(cluster);
    body = &f;
    dynamic_limit = dynamic_bytes;
    std::vector<unsigned> order(n), turns(clusters);
    for (unsigned i = 0; i < n; i++) order[i] = i;
    for (unsigned i = 0; i < clusters; i++) turns[i] = i;
    shuffle(turns);
    PASS_ON(&begin_token);
    for (unsigned c : turns) {
        all.alive = n, all.waiting = all.generation = 0;
        for (Warp &w : warps) w.live = w.arrived = w.wanted = w.generation = 0;
        for (unsigned r = 0; r < cluster; r++) {
            Block &own = blocks[r];
            Quiet quiet;
            own.rank = r, own.alive = each, own.waiting = own.generation = 0, own.memory[0] = own.memory[1] = nullptr;
            own.begun = (char *)malloc(1);
        }
        for (unsigned i = 0; i < n; i++) {
            Fiber &q = fibers[i];
            const unsigned r = i / each, t = i % each, b = c * cluster + r;
            q.block = &blocks[r], q.lane = t & 31, q.warp = &warps[r * warps_each + (t >> 5)];
            q.warp->live |= 1u << q.lane;
            q.place = {grid, block, dim3(b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y), dim3(t % block.x, t / block.x % block.y, t / block.x / block.y)};
        }
        take_threads(c % SETS);
        shuffle(order);
        run_blocks(order, c % SETS);
        for (Block &own : blocks)
            for (char *memory : {own.memory[0], own.memory[1], own.begun}) {
                Quiet quiet;
                free(memory);
            }
    }
    TAKE_UP(&end_token);
}

// ---- what specs ask for ----

extern "C" {
// Order in which threads and blocks run; 0: by number.
EMU_DOOR void lbr_emu_seed(unsigned seed) { order_seed = seed, random_state = 1; }

// Lines "kernel TAB file:line" of the barriers reached since the last call, and the length of the text.
EMU_DOOR long lbr_emu_barriers(char *text, long room)
{
    std::string all;
    for (auto &r : reached) all += r + "\n";
    reached.clear();
    turn++;
    snprintf(text, (size_t)room, "%s", all.c_str());
    return (long)all.size();
}

// Race build: this barrier of this kernel ("kernel TAB file:line") is waited at but orders nothing, as if it were not there. "": all do.
EMU_DOOR void lbr_emu_ignore(const char *barrier) { ignored = barrier, turn++; }

// 0: plain, 1: AddressSanitizer, 2: ThreadSanitizer
EMU_DOOR int lbr_emu_build(void)
{
#if defined(EMU_RACES)
    return 2;
#elif defined(__SANITIZE_ADDRESS__)
    return 1;
#else
    return 0;
#endif
}
}
