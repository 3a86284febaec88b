// reduce.cuh: sums over a block in a fixed order, for the kernels that reduce.
#pragma once
#include "cuda.cuh"

enum { LBR_CUDA_BLOCK = 256 };

// Combines one value a thread of a block of 256 into all threads, pairwise, always in the same order. room: LBR_CUDA_BLOCK elements of shared memory.
template <class T, class F> static __device__ T lbr_cuda_combine(T *room, T mine, F join)
{
    const int i = threadIdx.x;
    room[i] = mine;
    __syncthreads();
    for (int half = LBR_CUDA_BLOCK / 2; half > 0; half /= 2) {
        if (i < half) room[i] = join(room[i], room[i + half]);
        __syncthreads();
    }
    T all = room[0];
    __syncthreads();
    return all;
}
