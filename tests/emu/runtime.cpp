// runtime.cpp: the emulated device's runtime: memory, streams that run at once, events, graphs, and the faults that specs ask for. One system thread.
#include "cluster.h"
#include "libraries.h"

#include <set>
#include <string>
#include <vector>

struct CUgraph_st { std::vector<std::function<void()>> nodes; };
struct CUgraphExec_st { std::vector<std::function<void()>> nodes; };
struct CUstream_st {
    CUgraph_st *capture = nullptr;
    bool spoiled = false; // something happened that a capture does not allow
};
struct CUevent_st { int time = 0; };

static CUstream_st default_stream, *capturing;
static cudaError_t last_error;
static int devices = 2, chosen, driver = 13000, generation = 90;
static long fail_malloc_at, fail_launch_at, lose_at;
static size_t in_use, total_memory = (size_t)1 << 30;

// What has befallen the device: every call returns it from when it is known. A kernel that fails is noticed by the next call that waits, or some launches later.
static cudaError_t fate;
static long known_in;

static cudaError_t report(cudaError_t e)
{
    if (e) last_error = e;
    return e;
}

static cudaError_t notice(bool waits)
{
    if (!fate || (known_in > 0 && !waits)) return cudaSuccess;
    known_in = 0;
    return report(fate);
}

static cudaError_t enqueue(cudaStream_t s, std::function<void()> work)
{
    cudaError_t e = notice(false);
    if (e) return e;
    if (!s) s = &default_stream;
    if (s->capture) s->capture->nodes.push_back(std::move(work));
    else if (!fate) work();
    return cudaSuccess;
}

// Calls that a capture in this thread does not allow: they fail, and so does the capture.
static cudaError_t not_while_capturing(void)
{
    if (!capturing) return cudaSuccess;
    capturing->spoiled = true;
    return report(cudaErrorStreamCaptureUnsupported);
}

static void run_kernel(dim3 grid, dim3 block, size_t dynamic_bytes, unsigned cluster, const char *name, const std::function<void()> &f)
{
    if (fate) {
        if (known_in > 0) known_in--;
        return;
    }
    if (lose_at && --lose_at == 0) {
        fate = cudaErrorDevicesUnavailable, known_in = 0;
        report(fate);
    } else if (fail_launch_at && --fail_launch_at == 0)
        fate = cudaErrorLaunchFailure, known_in = 3;
    else
        emu::run_grid(grid, block, dynamic_bytes, cluster, name, f);
}

static std::set<std::pair<const char *, const char *>> launched; // kernels and the files that launched them

void emu::launch(dim3 grid, dim3 block, size_t dynamic_bytes, cudaStream_t stream, const char *name, std::function<void()> f, const char *file)
{
    launch_clusters(1, grid, block, dynamic_bytes, stream, name, std::move(f), file);
}

void emu::launch_clusters(unsigned cluster, dim3 grid, dim3 block, size_t dynamic_bytes, cudaStream_t stream, const char *name, std::function<void()> f, const char *file)
{
    launched.insert({name, file});
    unsigned long n = (unsigned long)block.x * block.y * block.z;
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffff || grid.y > 65535 || grid.z > 65535 || !n || n > 1024 || block.z > 64 || dynamic_bytes > 227 * 1024 ||
        !cluster || cluster > 8 || grid.x % cluster || (cluster > 1 && generation < 90)) {
        report(cudaErrorInvalidConfiguration);
        return;
    }
    enqueue(stream, [=] { run_kernel(grid, block, dynamic_bytes, cluster, name, f); });
}

static const struct { cudaError_t code; const char *name, *text; } words[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorDevicesUnavailable, "cudaErrorDevicesUnavailable", "CUDA-capable device(s) is/are busy or unavailable"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"},
};
const char *cudaGetErrorName(cudaError_t e)
{
    for (auto &w : words)
        if (w.code == e) return w.name;
    return "unrecognized error code";
}
const char *cudaGetErrorString(cudaError_t e)
{
    for (auto &w : words)
        if (w.code == e) return w.text;
    return "unrecognized error code";
}
cudaError_t cudaPeekAtLastError(void) { return last_error; }
cudaError_t cudaGetLastError(void)
{
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}

// ---- devices ----

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = devices;
    return devices ? cudaSuccess : report(cudaErrorNoDevice);
}
cudaError_t cudaSetDevice(int device)
{
    if (device < 0 || device >= devices) return report(cudaErrorInvalidDevice);
    chosen = device;
    return notice(false);
}
cudaError_t cudaGetDevice(int *device) { return *device = chosen, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    if (device < 0 || device >= devices) return report(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated device");
    p->totalGlobalMem = total_memory, p->sharedMemPerBlockOptin = 227 * 1024, p->major = generation / 10, p->minor = generation % 10, p->multiProcessorCount = 4, p->warpSize = 32;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) { return *version = driver, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    *free = total_memory - in_use, *total = total_memory;
    return notice(false);
}

// ---- memory: heap blocks with their size in front, full of NaN when they are new, of the exact size so that AddressSanitizer sees their ends ----

enum { FRONT = 256 };

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    *p = nullptr;
    cudaError_t e = notice(false);
    if (!e) e = not_while_capturing();
    if (e) return e;
    if ((fail_malloc_at > 0 && --fail_malloc_at == 0) || fail_malloc_at < 0 || bytes > total_memory - in_use) return report(cudaErrorMemoryAllocation);
    void *block;
    if (posix_memalign(&block, FRONT, FRONT + bytes)) return report(cudaErrorMemoryAllocation);
    memcpy(block, &bytes, sizeof bytes);
    *p = (char *)block + FRONT;
    memset(*p, 0xff, bytes);
    in_use += bytes;
    return cudaSuccess;
}
cudaError_t cudaFree(void *p)
{
    if (!p) return cudaSuccess;
    cudaError_t e = not_while_capturing();
    if (e) return e;
    size_t bytes;
    memcpy(&bytes, (char *)p - FRONT, sizeof bytes);
    in_use -= bytes;
    free((char *)p - FRONT);
    return notice(true);
}
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
{
    cudaError_t e = not_while_capturing();
    if (e) return e;
    return (*p = malloc(bytes ? bytes : 1)) ? notice(false) : report(cudaErrorMemoryAllocation);
}
cudaError_t cudaFreeHost(void *p) { return free(p), cudaSuccess; }
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t s) { return enqueue(s, [=] { memmove(to, from, bytes); }); }
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s) { return enqueue(s, [=] { memset(p, value, bytes); }); }

// ---- streams and graphs ----

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) { return *s = new CUstream_st, notice(false); }
cudaError_t cudaStreamDestroy(cudaStream_t s) { return delete s, cudaSuccess; }
cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (s && s->capture) return not_while_capturing();
    return notice(true);
}
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return notice(false); }
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode)
{
    cudaError_t e = notice(false);
    if (e) return e;
    if (capturing) return report(cudaErrorStreamCaptureUnsupported);
    s->capture = new CUgraph_st, s->spoiled = false;
    capturing = s;
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus *status)
{
    *status = !s->capture ? cudaStreamCaptureStatusNone : s->spoiled ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    *g = nullptr;
    if (!s->capture) return report(cudaErrorInvalidValue);
    if (s->spoiled) {
        delete s->capture;
        s->capture = nullptr, capturing = nullptr;
        return report(cudaErrorStreamCaptureInvalidated);
    }
    *g = s->capture;
    s->capture = nullptr, capturing = nullptr;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long)
{
    *x = nullptr;
    cudaError_t e = notice(false);
    if (!e) *x = new CUgraphExec_st{g->nodes};
    return e;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s)
{
    if (s->capture) return not_while_capturing();
    for (auto &node : x->nodes) {
        cudaError_t e = enqueue(s, node);
        if (e) return e;
    }
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) { return delete g, cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x) { return delete x, cudaSuccess; }

// The device's clock goes on with what work says it takes: what is timed does not depend on who else is busy.
static int clock_ms;
void emu::took(int ms) { clock_ms += ms; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) { return *e = new CUevent_st, notice(false); }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) { return enqueue(s, [=] { e->time = clock_ms; }); }
cudaError_t cudaEventQuery(cudaEvent_t) { return notice(true); }
cudaError_t cudaEventSynchronize(cudaEvent_t)
{
    cudaError_t e = not_while_capturing();
    return e ? e : notice(true);
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t a, cudaEvent_t b) { return *ms = (float)(b->time - a->time), cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return delete e, cudaSuccess; }

// ---- what specs ask for; n counts from now on, 0: never ----

extern "C" {
EMU_DOOR void lbr_emu_fail_malloc(long n) { fail_malloc_at = n; }   // the nth cudaMalloc; below 0: all
EMU_DOOR void lbr_emu_fail_launch(long n) { fail_launch_at = n; }   // the nth kernel fails, and with it the device
EMU_DOOR void lbr_emu_lose_device(long n) { lose_at = n; }          // the device vanishes at the nth kernel
EMU_DOOR void lbr_emu_heal(void)                                    // as new, which a real one never is
{
    fate = last_error = cudaSuccess;
    fail_malloc_at = fail_launch_at = lose_at = known_in = 0;
}
// Lines "kernel TAB file of the launch" of what was launched since the last call, and the length of the text.
EMU_DOOR long lbr_emu_kernels(char *text, long room)
{
    std::string all;
    for (auto &l : launched) all += std::string(l.first) + "\t" + l.second + "\n";
    launched.clear();
    snprintf(text, (size_t)room, "%s", all.c_str());
    return (long)all.size();
}
EMU_DOOR void lbr_emu_memory(double bytes) { total_memory = (size_t)bytes; }
EMU_DOOR double lbr_emu_in_use(void) { return (double)in_use; }
// How many there are, for what CUDA their driver is (0: there is no driver) and of what generation they are; before the library is asked for them.
EMU_DOOR void lbr_emu_devices(int n, int version, int sm) { devices = n, driver = version, generation = sm; }
}
