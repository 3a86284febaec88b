// cluster.h (emulator): what csrc/cuda/cluster.cuh says in PTX: the blocks of a cluster run together, each with its own shared memory (threads.cpp).
#pragma once
#include "cuda_runtime.h"

namespace emu {
// A launch of clusters: so many blocks along x run together.
void launch_clusters(unsigned cluster, dim3 grid, dim3 block, size_t dynamic_bytes, cudaStream_t stream, const char *name, std::function<void()> body,
                     const char *file = __builtin_FILE());
void cluster_barrier(const char *file = __builtin_FILE(), int line = __builtin_LINE()); // barrier.cluster.arrive.release and wait.acquire
unsigned cluster_rank();
char *cluster_place(const void *own, unsigned rank); // mapa: the same place in another block's shared memory; rank's own where that is this block's
volatile char *cluster_begun(unsigned rank);         // of a block: written when it begins, and read by who reaches into it, so that the race build sees when nothing lies between

// Inline, so that the kernel's own build sees these accesses.
static inline char *cluster_room(size_t bytes)
{
    char *room = (char *)shared(bytes, true);
    if (threadIdx.x == 0) *cluster_begun(cluster_rank()) = 1;
    return room;
}
static inline void cluster_store(float *own, unsigned rank, float v)
{
    (void)*cluster_begun(rank);
    *(float *)cluster_place(own, rank) = v;
}
}
