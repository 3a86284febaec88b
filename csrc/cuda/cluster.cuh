// cluster.cuh: blocks that run together and reach each other's shared memory (sm_90 and later): launch, barrier, stores. g++ takes the twins of tests/emu/cluster.h.
// A kernel for clusters is compiled for older generations too, where it does nothing: lbr_cuda_cluster_room says that it cannot be launched there.
#pragma once
#include "cuda.cuh"

#ifdef __CUDACC__
// Shared memory of a size that the launch says.
#define LBR_CLUSTER_ROOM(name, bytes) extern __shared__ float4 lbr_room[]; char *name = (char *)lbr_room
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
#define LBR_HAS_CLUSTERS 1
#else
#define LBR_HAS_CLUSTERS 0
#endif

// All threads of all blocks of the cluster arrive, what they wrote is seen by all. The first one also says that all blocks have begun: no store into another block goes before it.
static __device__ __forceinline__ void lbr_cluster_barrier()
{
#if LBR_HAS_CLUSTERS
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
static __device__ __forceinline__ unsigned lbr_cluster_rank()
{
    unsigned rank = 0;
#if LBR_HAS_CLUSTERS
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
    return rank;
}
// Stores v where block `rank` of the cluster has what `own` is in this block's shared memory.
static __device__ __forceinline__ void lbr_cluster_store(float *own, unsigned rank, float v)
{
#if LBR_HAS_CLUSTERS
    unsigned at;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(at) : "r"((unsigned)__cvta_generic_to_shared(own)), "r"(rank));
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(at), "f"(v) : "memory");
#endif
}

template <class... Parameters, class... Arguments>
static inline void lbr_cuda_launch_cluster(void (*kernel)(Parameters...), const lbr_cuda_grid &grid, size_t bytes, unsigned size, Arguments... arguments)
{
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
    cudaLaunchAttribute cluster[1] = {};
    cluster[0].id = cudaLaunchAttributeClusterDimension;
    cluster[0].val.clusterDim.x = size, cluster[0].val.clusterDim.y = cluster[0].val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid.blocks, config.blockDim = grid.threads, config.dynamicSmemBytes = bytes, config.stream = grid.stream;
    config.attrs = cluster, config.numAttrs = 1;
    cudaLaunchKernelEx(&config, kernel, arguments...);
}
#define LBR_LAUNCH_CLUSTER(kernel, grid, bytes, size, ...) lbr_cuda_launch_cluster(kernel, grid, bytes, size, __VA_ARGS__)
#else
#include "cluster.h"
#define LBR_HAS_CLUSTERS 1
#define LBR_CLUSTER_ROOM(name, bytes) char *name = emu::cluster_room(bytes)
#define lbr_cluster_barrier() emu::cluster_barrier()
#define lbr_cluster_rank() emu::cluster_rank()
#define lbr_cluster_store(own, rank, v) emu::cluster_store(own, rank, v)
#define LBR_LAUNCH_CLUSTER(kernel, grid, bytes, size, ...) \
    emu::launch_clusters(size, (grid).blocks, (grid).threads, (bytes), (grid).stream, #kernel, [arguments = std::make_tuple(__VA_ARGS__)] { std::apply(kernel, arguments); })
#endif
