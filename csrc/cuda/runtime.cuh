// runtime.cuh: what the kernels ask of runtime.cu: the stream of a device, its workspace, and errors with the op's name.
#pragma once
#include <cuda_runtime.h>

#include <stdint.h>

// The stream that all work of a device is queued on.
cudaStream_t lbr_cuda_stream(int device);
// Is a graph being made of what is queued? Nothing may be waited for or allocated then.
bool lbr_cuda_capturing(int device);
// One line about a device: name, memory, generation.
int lbr_cuda_describe(int device, char *text, int room);
// Number of multiprocessors, for grids that loop.
int lbr_cuda_processors(int device);
// Bytes of shared memory that a block of a cluster may have; 0 where there are no clusters, before sm_90.
int64_t lbr_cuda_cluster_room(int device);
// 0, or LBR_EDEVICE / LBR_ENOMEM with "what: CUDA's words".
int lbr_cuda_status(cudaError_t e, const char *what);

// Memory for a call's own use, kept as long as the call is (with its plan, so that a graph may use it): NULL with the error set when there is none.
struct lbr_call;
void *lbr_cuda_workspace(struct lbr_call *c, int64_t bytes);

/* What a kernel finds wrong with values that the host has not seen: an index outside, a class that is not there. Such a kernel writes zeros in its place and leaves
 * the fault here; the device's next read or synchronize fails with it, once (LIBRATION_SYNC=1: the op itself). Of several one is kept. */
struct lbr_cuda_fault {
    unsigned op; // 1 + its number, 0: none
    int value;
    long long at, limit; // place from 0; values there are
};
lbr_cuda_fault *lbr_cuda_fault_of(int device);
static __device__ __forceinline__ void lbr_cuda_blame(lbr_cuda_fault *f, int op, int value, long long at, long long limit)
{
    if (atomicCAS(&f->op, 0u, 1u + (unsigned)op) == 0) f->value = value, f->at = at, f->limit = limit;
}
