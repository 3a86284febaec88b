/* isa.c: which instruction set our kernels use on this processor. oneDNN decides for itself. */
#include "core.h"

static int limit = LBR_ISA_AVX512;

void lbr_cpu_limit(int isa) { limit = isa; }

int lbr_cpu_isa(void)
{
#if defined(__x86_64__)
    static int found = -1;
    if (found < 0) {
        __builtin_cpu_init();
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
            found = LBR_ISA_AVX512;
        else
            found = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? LBR_ISA_AVX2 : LBR_ISA_PORTABLE;
    }
    return found < limit ? found : limit;
#else
    return LBR_ISA_PORTABLE;
#endif
}

int lbr_cpu_bf16(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    return lbr_cpu_isa() == LBR_ISA_AVX512 && __builtin_cpu_supports("avx512bf16");
#else
    return 0;
#endif
}
