/* vectors.h: what the files of inner loops over vectors share: the compilers' intrinsics, loops unrolled whole, names made per instruction set. Knows no kernel. */
#ifndef LBR_CPU_VECTORS_H
#define LBR_CPU_VECTORS_H

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Before a loop whose number of rounds is known where it is inlined. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 24")
#endif

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)

#endif
