// runtime.cuh: what the kernels ask of runtime.cu: the stream of a device, its workspace, and errors with the op's name.
#pragma once
#include <cuda_runtime.h>

#include <stdint.h>

// The stream that all work of a device is queued on.
cudaStream_t lbr_cuda_stream(int device);
// Number of multiprocessors, for grids that loop.
int lbr_cuda_processors(int device);
// 0, or LBR_EDEVICE / LBR_ENOMEM with "what: CUDA's words".
int lbr_cuda_status(cudaError_t e, const char *what);

// Memory for a call's own use, kept as long as the call is (with its plan, so that a graph may use it): NULL with the error set when there is none.
struct lbr_call;
void *lbr_cuda_workspace(struct lbr_call *c, int64_t bytes);
