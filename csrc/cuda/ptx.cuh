// ptx.cuh: the instructions that CUDA C++ has no name for: tensor core products, their fragments from shared memory, copies that do not wait. Nothing else
// writes PTX. g++ takes the twins of tests/emu/ptx.h, which have the same fragments and the same faults. Needs sm_80.
#pragma once
#include "cuda.cuh"

#ifndef __CUDACC__
#include "ptx.h"
#endif

/* Fragments of a warp, lane = 4 g + t, two elements of 16 bits a register, the lower column (of b: the lower row) in the lower half:
 *   a [16 rows][16 k]  registers (g, 2t) (g + 8, 2t) (g, 2t + 8) (g + 8, 2t + 8)     b [16 k][8 columns]  registers (2t, g) (2t + 8, g)
 *   d [16][8] f32      numbers (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1) */

// d += a b with f32 sums. T: __half or __nv_bfloat16. All 32 lanes call it.
template <class T> static __device__ __forceinline__ void lbr_mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
#ifdef __CUDACC__
#define LBR_MMA(T, name)                                                                                                                          \
    template <> __device__ __forceinline__ void lbr_mma<T>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2])                        \
    {                                                                                                                                             \
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." name "." name ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"         \
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                                                             \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                                                         \
    }
LBR_MMA(__half, "f16")
LBR_MMA(__nv_bfloat16, "bf16")
#undef LBR_MMA
#else
template <class T> static inline void lbr_mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) { emu::mma<T>(d, a, b); }
#endif

/* 8 x 8 matrices of 16 bits from shared memory: lane 8 i + r gives the place of row r of matrix i (16 bytes, aligned; of 2 matrices the upper lanes' are not looked at).
 * Register i holds (g, 2t) and (g, 2t + 1) of matrix i, of its transpose where the name says so. */
#ifdef __CUDACC__
static __device__ __forceinline__ unsigned lbr_shared_address(const void *p) { return (unsigned)__cvta_generic_to_shared(p); }

static __device__ __forceinline__ void lbr_ldmatrix4(unsigned (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(lbr_shared_address(row)) : "memory");
}
static __device__ __forceinline__ void lbr_ldmatrix4_trans(unsigned (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(lbr_shared_address(row)) : "memory");
}
static __device__ __forceinline__ void lbr_ldmatrix2(unsigned (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(lbr_shared_address(row)) : "memory");
}
static __device__ __forceinline__ void lbr_ldmatrix2_trans(unsigned (&r)[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(lbr_shared_address(row)) : "memory");
}
#else
static inline void lbr_ldmatrix4(unsigned (&r)[4], const void *row) { emu::ldmatrix<4>(r, row, false); }
static inline void lbr_ldmatrix4_trans(unsigned (&r)[4], const void *row) { emu::ldmatrix<4>(r, row, true); }
static inline void lbr_ldmatrix2(unsigned (&r)[2], const void *row) { emu::ldmatrix<2>(r, row, false); }
static inline void lbr_ldmatrix2_trans(unsigned (&r)[2], const void *row) { emu::ldmatrix<2>(r, row, true); }
#endif

/* Copies of BYTES (4, 8 or 16, both places aligned to them) from global to shared memory that go on while the thread does; zeros where there is nothing to copy
 * (`global` is not read then, but must not be NULL). lbr_async_commit ends a group; lbr_async_wait<N> returns when all but the last N groups of this thread have arrived:
 * other threads see them after a barrier. */
#ifdef __CUDACC__
template <int BYTES> static __device__ __forceinline__ void lbr_async_copy(void *shared, const void *global, bool some)
{
    int n = some ? BYTES : 0;
    if (BYTES == 16) asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(lbr_shared_address(shared)), "l"(global), "r"(n) : "memory");
    else asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(lbr_shared_address(shared)), "l"(global), "n"(BYTES), "r"(n) : "memory");
}
static __device__ __forceinline__ void lbr_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> static __device__ __forceinline__ void lbr_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
#else
template <int BYTES> static inline void lbr_async_copy(void *shared, const void *global, bool some) { emu::async_copy(shared, global, BYTES, some); }
static inline void lbr_async_commit() { emu::async_commit(); }
template <int N> static inline void lbr_async_wait() { emu::async_wait(N); }
#endif

// tanh to a relative error of 2^-11; NaN passes.
#ifdef __CUDACC__
static __device__ __forceinline__ float lbr_tanh(float v)
{
    float y;
    asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(v));
    return y;
}
#else
static inline float lbr_tanh(float v) { return emu::tanh_approx(v); }
#endif
