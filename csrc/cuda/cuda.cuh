// cuda.cuh: what the CUDA kernels share: launches, shared memory, element conversion, error checks. Compiled by nvcc, and by g++ with tests/emu's headers.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

extern "C" {
#include "../device.h"
}
#include "runtime.cuh"

extern "C" const lbr_kernel_fn lbr_cuda_table[LBR_OPS];
extern "C" const lbr_together_fn lbr_cuda_together[LBR_OPS];

// Where a kernel runs.
struct lbr_cuda_grid {
    dim3 blocks, threads;
    cudaStream_t stream;
};

#ifdef __CUDACC__
#define LBR_LAUNCH(kernel, grid, ...) kernel<<<(grid).blocks, (grid).threads, 0, (grid).stream>>>(__VA_ARGS__)
#define LBR_SHARED(T, name) __shared__ T name
// Shared memory beyond 48 KB: a struct that the launch names by its size.
#define LBR_ROOM(T, name) extern __shared__ float4 lbr_room[]; T &name = *(T *)lbr_room
#define LBR_LAUNCH_ROOM(kernel, grid, bytes, ...)                                                          \
    do {                                                                                                   \
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes));           \
        kernel<<<(grid).blocks, (grid).threads, (bytes), (grid).stream>>>(__VA_ARGS__);                    \
    } while (0)
#define LBR_UNROLL _Pragma("unroll")
#define LBR_ROLL _Pragma("unroll 1")
#else
#define LBR_LAUNCH(kernel, grid, ...) LBR_LAUNCH_ROOM(kernel, grid, 0, __VA_ARGS__)
#define LBR_SHARED(T, name) T &name = *(T *)emu::shared(sizeof(T), false)
#define LBR_ROOM(T, name) T &name = *(T *)emu::shared(sizeof(T), true)
#define LBR_LAUNCH_ROOM(kernel, grid, bytes, ...) \
    emu::launch((grid).blocks, (grid).threads, (bytes), (grid).stream, #kernel, [arguments = std::make_tuple(__VA_ARGS__)] { std::apply(kernel, arguments); })
#define LBR_UNROLL
#define LBR_ROLL
#endif
