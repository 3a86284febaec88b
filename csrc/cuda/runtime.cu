// runtime.cu: devices, streams, the caching allocator, copies and graphs of the CUDA library. No arithmetic.
#include "cuda.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <vector>

enum { MOST_DEVICES = LBR_DEVICES - LBR_CUDA, CLASSES = 160, STAGES = 2 };
static const int64_t STAGING = 4 << 20;

namespace {

struct Block { Block *next; void *memory; };

struct Device {
    int ordinal; // CUDA's number of it: GPUs that these kernels cannot run on have none of ours
    cudaStream_t stream;
    cudaDeviceProp properties;
    int64_t live, peak, cached;
    Block *cache[CLASSES];
    char *stage[STAGES]; // pinned: what goes up waits here, so that the caller does not
    cudaEvent_t staged[STAGES];
    lbr_cuda_fault *fault; // pinned, so that kernels write it and it is read without a copy
    int turn;
    std::vector<cudaGraphExec_t> ended; // graphs that a finalizer let go: they may still run, the next wait destroys them
    bool ready;
};

Device devices[MOST_DEVICES];
int count;
int64_t fail_countdown, fail_stays;

} // namespace

// An error of a kernel comes up at a later call; what waited for each op knows whose it is.
int lbr_cuda_status(cudaError_t e, const char *what)
{
    if (e == cudaSuccess) return 0;
    if (e == cudaErrorMemoryAllocation) return lbr_fail(LBR_ENOMEM, "%s: %s (%s)", what, cudaGetErrorString(e), cudaGetErrorName(e));
    return lbr_fail(LBR_EDEVICE, "%s: %s (%s)%s", what, cudaGetErrorString(e), cudaGetErrorName(e),
                    lbr_device_exact() ? "" : "; it may come from an earlier op, LIBRATION_SYNC=1 names the one");
}

// Makes a device the current one of this thread, with its stream and staging when it is used for the first time.
static int use(int device)
{
    Device *d = &devices[device];
    int rc = lbr_cuda_status(cudaSetDevice(d->ordinal), "cuda");
    if (rc || d->ready) return rc;
    if (!d->stream && (rc = lbr_cuda_status(cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "cuda: stream"))) return rc;
    for (int i = 0; i < STAGES; i++) { // a second try goes on where the first ended
        if (!d->stage[i] && (rc = lbr_cuda_status(cudaHostAlloc((void **)&d->stage[i], STAGING, cudaHostAllocDefault), "cuda: pinned memory"))) return rc;
        if (!d->staged[i] && (rc = lbr_cuda_status(cudaEventCreateWithFlags(&d->staged[i], cudaEventDisableTiming), "cuda: event"))) return rc;
    }
    if (!d->fault && (rc = lbr_cuda_status(cudaHostAlloc((void **)&d->fault, sizeof *d->fault, cudaHostAllocDefault), "cuda: pinned memory"))) return rc;
    *d->fault = {};
    d->ready = true;
    return 0;
}

cudaStream_t lbr_cuda_stream(int device) { return devices[device].stream; }
lbr_cuda_fault *lbr_cuda_fault_of(int device) { return devices[device].fault; }
bool lbr_cuda_capturing(int device)
{
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    return cudaStreamIsCapturing(devices[device].stream, &status) || status != cudaStreamCaptureStatusNone;
}
int lbr_cuda_processors(int device) { return devices[device].properties.multiProcessorCount; }
int64_t lbr_cuda_cluster_room(int device)
{
    const cudaDeviceProp *p = &devices[device].properties;
    return p->major >= 9 ? (int64_t)p->sharedMemPerBlockOptin : 0;
}

// ---- memory: blocks of four sizes an octave, kept when freed; one stream, so a freed block may be handed out at once ----

// Waits for a device; then nothing of the graphs that were let go is queued any more.
static cudaError_t drain(Device *d)
{
    cudaError_t e = cudaStreamSynchronize(d->stream);
    if (e) return e;
    for (cudaGraphExec_t g : d->ended) cudaGraphExecDestroy(g);
    d->ended.clear();
    return e;
}

static void trim(int device)
{
    Device *d = &devices[device];
    if (use(device)) return;
    drain(d); // what is queued may still use the freed blocks
    for (int k = 0; k < CLASSES; k++)
        while (d->cache[k]) {
            Block *b = d->cache[k];
            d->cache[k] = b->next;
            cudaFree(b->memory);
            free(b);
        }
    d->cached = 0;
    cudaGetLastError();
}

static void *allocate(int device, int64_t bytes)
{
    Device *d = &devices[device];
    int64_t size;
    if (fail_countdown > 0 && --fail_countdown == 0) {
        fail_countdown = fail_stays;
        return NULL;
    }
    if (bytes < 0 || bytes > (int64_t)1 << 46 || use(device)) return NULL;
    int k = lbr_size_class(bytes < 1 ? 1 : bytes, 512, CLASSES, &size);
    void *p = NULL;
    if (d->cache[k]) {
        Block *b = d->cache[k];
        d->cache[k] = b->next;
        p = b->memory;
        free(b);
        d->cached -= size;
    } else if (cudaMalloc(&p, (size_t)size) != cudaSuccess) {
        cudaGetLastError();
        if (!d->cached) return NULL;
        trim(device);
        if (cudaMalloc(&p, (size_t)size) != cudaSuccess) {
            cudaGetLastError();
            return NULL;
        }
    }
    d->live += size;
    if (d->live > d->peak) d->peak = d->live;
    return p;
}

static void release(int device, void *p, int64_t bytes)
{
    Device *d = &devices[device];
    int64_t size;
    if (!p) return;
    int k = lbr_size_class(bytes < 1 ? 1 : bytes, 512, CLASSES, &size);
    d->live -= size;
    Block *b = (Block *)malloc(sizeof *b);
    if (!b) {
        if (!use(device)) cudaFree(p);
        return;
    }
    b->memory = p, b->next = d->cache[k];
    d->cache[k] = b;
    d->cached += size;
}

static int64_t memory(int device, int what)
{
    const Device *d = &devices[device];
    size_t available = 0, total = 0;
    switch (what) {
    case LBR_MEMORY_LIVE: return d->live;
    case LBR_MEMORY_PEAK: return d->peak;
    case LBR_MEMORY_CACHED: return d->cached;
    case LBR_MEMORY_TOTAL: return (int64_t)d->properties.totalGlobalMem;
    default:
        if (use(device) || cudaMemGetInfo(&available, &total)) return 0;
        return (int64_t)available;
    }
}

static void reset_peak(int device) { devices[device].peak = devices[device].live; }

static void fail_at(int64_t n)
{
    fail_countdown = n < 0 ? -n : n;
    fail_stays = n < 0;
}

namespace {
struct Workspace { void *memory; int64_t bytes; int device; };
}

static void forget(void *state)
{
    Workspace *w = (Workspace *)state;
    release(w->device, w->memory, w->bytes);
    free(w);
}

void *lbr_cuda_workspace(lbr_call *c, int64_t bytes)
{
    Workspace *w = (Workspace *)c->state;
    if (w && w->bytes >= bytes) return w->memory;
    if (w) c->state_free(w);
    c->state = NULL;
    w = (Workspace *)malloc(sizeof *w);
    int device = c->device - LBR_CUDA;
    void *p = w ? allocate(device, bytes) : NULL;
    if (!p) {
        free(w);
        char what[64];
        snprintf(what, sizeof what, "%s: workspace: ", lbr_op_name(c->op));
        lbr_out_of_memory(c->device, what, bytes);
        return NULL;
    }
    *w = {p, bytes, device};
    c->state = w, c->state_free = forget;
    return p;
}

// ---- copies ----

static int upload(int device, void *to, const void *from, int64_t bytes)
{
    Device *d = &devices[device];
    int rc = use(device);
    for (int64_t at = 0; !rc && at < bytes; at += STAGING) {
        int64_t n = bytes - at < STAGING ? bytes - at : STAGING;
        int k = d->turn;
        d->turn = (k + 1) % STAGES;
        if ((rc = lbr_cuda_status(cudaEventSynchronize(d->staged[k]), "upload"))) break;
        memcpy(d->stage[k], (const char *)from + at, (size_t)n);
        rc = lbr_cuda_status(cudaMemcpyAsync((char *)to + at, d->stage[k], (size_t)n, cudaMemcpyHostToDevice, d->stream), "upload");
        if (!rc) rc = lbr_cuda_status(cudaEventRecord(d->staged[k], d->stream), "upload");
    }
    return rc;
}

// Waits for what is queued; a fault that a kernel left is told once, with the words of the CPU.
static int settle(int device, const char *what)
{
    int rc = lbr_cuda_status(drain(&devices[device]), what);
    lbr_cuda_fault f = *devices[device].fault;
    if (rc || !f.op) return rc;
    *devices[device].fault = {};
    const char *name = lbr_op_name((int)f.op - 1);
    if (f.op - 1 == LBR_OP_cross_entropy) return lbr_fail(LBR_EINVAL, "%s: class %d in row %lld, there are %lld", name, f.value, f.at + 1, f.limit);
    if (f.op - 1 == LBR_OP_windows) return lbr_fail(LBR_EINVAL, "%s: start %d of window %lld, want 0..%lld", name, f.value, f.at + 1, f.limit);
    if (f.op - 1 == LBR_OP_crop) return lbr_fail(LBR_EINVAL, "%s: region %lld of %lld is not finite or has no area", name, f.at + 1, f.limit);
    return lbr_fail(LBR_EINVAL, "%s: index %d at element %lld, there are %lld rows", name, f.value, f.at + 1, f.limit);
}

static int synchronize(int device)
{
    int rc = use(device);
    return rc ? rc : settle(device, "cuda");
}

static int download(int device, void *to, const void *from, int64_t bytes)
{
    int rc = use(device);
    if (!rc) rc = lbr_cuda_status(cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDeviceToHost, devices[device].stream), "download");
    return rc ? rc : synchronize(device);
}

// Between two devices it waits: each has a stream of its own, and either side may hand its memory out again.
static int copy(int to_device, void *to, int from_device, const void *from, int64_t bytes)
{
    int rc = from_device != to_device ? synchronize(from_device) : 0;
    if (!rc) rc = use(to_device);
    if (!rc) rc = lbr_cuda_status(cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDefault, devices[to_device].stream), "copy");
    return rc || from_device == to_device ? rc : synchronize(to_device);
}

// ---- kernels and graphs ----

static int check(int device, const char *name)
{
    cudaError_t e = cudaGetLastError();
    return e == cudaSuccess && lbr_device_exact() ? settle(device, name) : lbr_cuda_status(e, name);
}

static int graph_begin(int device)
{
    int rc = use(device);
    return rc ? rc : lbr_cuda_status(cudaStreamBeginCapture(devices[device].stream, cudaStreamCaptureModeThreadLocal), "graph");
}

static int graph_end(int device, void **out)
{
    cudaGraph_t g = NULL;
    cudaGraphExec_t x = NULL;
    *out = NULL;
    int rc = lbr_cuda_status(cudaStreamEndCapture(devices[device].stream, &g), "graph");
    if (rc) return rc;
    rc = lbr_cuda_status(cudaGraphInstantiate(&x, g, 0), "graph");
    cudaGraphDestroy(g);
    *out = x;
    return rc;
}

static int graph_run(int device, void *graph)
{
    int rc = use(device);
    return rc ? rc : lbr_cuda_status(cudaGraphLaunch((cudaGraphExec_t)graph, devices[device].stream), "graph");
}

static void graph_free(int device, void *graph) { devices[device].ended.push_back((cudaGraphExec_t)graph); }

// ---- the door ----

int lbr_cuda_describe(int device, char *text, int room)
{
    const cudaDeviceProp *p = &devices[device].properties;
    return snprintf(text, (size_t)room, "%s, %.0f GiB, sm_%d%d", p->name, (double)p->totalGlobalMem / (1 << 30), p->major, p->minor);
}

static lbr_backend backend = {LBR_ABI, 0, lbr_cuda_table, lbr_cuda_together, lbr_cuda_describe, allocate, release, memory, trim, reset_peak, fail_at, upload, download, copy, synchronize, check,
                              graph_begin, graph_end, graph_run, graph_free};

// Fills devices[] with the GPUs that the kernels were compiled for; what it looked at goes to text.
static int usable(int found, char *text, int room)
{
    int n = 0, length = 0;
    for (int i = 0; i < found && n < MOST_DEVICES; i++) {
        Device *d = &devices[n];
        if (cudaGetDeviceProperties(&d->properties, i) != cudaSuccess) continue;
        if (length < room) length += snprintf(text + length, (size_t)(room - length), "%s%s (sm_%d%d)", length ? ", " : "", d->properties.name, d->properties.major, d->properties.minor);
        d->ordinal = i;
        n += d->properties.major >= 8;
    }
    return n;
}

extern "C" LBR_API const lbr_backend *lbr_cuda_backend(void)
{
    int driver = 0, runtime = 0, found = 0;
    char seen[256] = "none could be asked";
    const char *visible = getenv("CUDA_VISIBLE_DEVICES");
    if (count) return &backend;
    cudaRuntimeGetVersion(&runtime);
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) {
        lbr_fail(LBR_EDEVICE, "looked for an NVIDIA driver (libcuda.so.1) and found none");
        return NULL;
    }
    if (driver / 1000 < runtime / 1000) {
        lbr_fail(LBR_EDEVICE, "the NVIDIA driver is too old: it knows CUDA %d.%d, this library was built with %d.%d", driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
        return NULL;
    }
    cudaError_t e = cudaGetDeviceCount(&found);
    if (e != cudaSuccess || found < 1) {
        lbr_fail(LBR_EDEVICE, "found an NVIDIA driver for CUDA %d.%d, but no GPU: %s%s%s", driver / 1000, driver % 1000 / 10, e ? cudaGetErrorString(e) : "none is visible",
                 visible ? "; CUDA_VISIBLE_DEVICES is " : "", visible ? visible : "");
        cudaGetLastError();
        return NULL;
    }
    found = usable(found, seen, sizeof seen);
    cudaGetLastError();
    if (!found) {
        lbr_fail(LBR_EDEVICE, "found no GPU of sm_80 or later, only: %s", seen);
        return NULL;
    }
    backend.devices = count = found;
    return &backend;
}
