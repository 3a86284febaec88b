/* device.h: what a device library (libration_cuda.so) gives the core: memory, copies, kernels, graphs. The CPU needs none of it. */
#ifndef LBR_DEVICE_H
#define LBR_DEVICE_H

#include "core.h"

/* Takes n neighbouring calls at once: what they do one after another, bit for bit. All have one op, equal attributes and dtypes, and the same inputs but
 * for the first; none writes what another reads or, but for sums into one place, writes. At most LBR_MOST_TOGETHER. */
enum { LBR_MOST_TOGETHER = 64 };
typedef int (*lbr_together_fn)(lbr_call *const *calls, int n);

/* Memory figures of a device. */
enum { LBR_MEMORY_LIVE, LBR_MEMORY_PEAK, LBR_MEMORY_CACHED, LBR_MEMORY_TOTAL, LBR_MEMORY_FREE };

/* Functions take the device's number from 0 and return LBR_* codes with a text in lbr_error(). Work is queued on the device's own stream
 * in the order of the calls; only download and synchronize wait for it. */
typedef struct lbr_backend {
    int abi;     /* LBR_ABI of the header it was built with */
    int devices; /* usable ones */
    const lbr_kernel_fn *kernels; /* by op; NULL: this device has no kernel for it */
    const lbr_together_fn *together; /* by op, for graphs; NULL: one call at a time */
    int (*describe)(int device, char *text, int room);
    void *(*alloc)(int device, int64_t bytes); /* 256-byte aligned; NULL: out of memory, after the cache was given back */
    void (*free)(int device, void *p, int64_t bytes);
    int64_t (*memory)(int device, int what);
    void (*trim)(int device);
    void (*reset_peak)(int device);
    void (*fail_at)(int64_t n); /* tests: as lbr_memory_fail_at */
    int (*upload)(int device, void *to, const void *from, int64_t bytes);
    int (*download)(int device, void *to, const void *from, int64_t bytes);
    int (*copy)(int to_device, void *to, int from_device, const void *from, int64_t bytes);
    int (*synchronize)(int device);
    /* After each kernel: has its launch failed? name: of the op, for the error. */
    int (*check)(int device, const char *name);
    /* A graph of what is queued between begin and end; run: queues it again. */
    int (*graph_begin)(int device);
    int (*graph_end)(int device, void **graph);
    int (*graph_run)(int device, void *graph);
    void (*graph_free)(int device, void *graph); /* waits for nothing: a finalizer may call it */
} lbr_backend;

/* The library's only door: NULL where there is no usable device, with the reason in lbr_error(). */
typedef const lbr_backend *(*lbr_backend_door)(void);
#define LBR_BACKEND_DOOR "lbr_cuda_backend"

/* LIBRATION_SYNC=1: wait after each op and replay no graphs, so that an error names the op that made it. */
LBR_API int lbr_device_exact(void);

/* The backend of a device and its number there (device.c); NULL for the CPU and for devices that are not there. */
const lbr_backend *lbr_backend_of(int device);
static inline int lbr_device_number(int device) { return device - LBR_CUDA; }

#endif
