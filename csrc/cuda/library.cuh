// library.cuh: functions of a library that is opened when it is first needed, by their names; under the emulator its own stand-ins.
#pragma once
#include <dlfcn.h>
#include "cuda.cuh"

// Fills a place for each name from the first of the files (NULL ends them) that opens; false: none does, or it lacks one of them.
static inline bool lbr_cuda_functions(const char *const *files, const char *const *names, size_t count, void **places)
{
#ifdef __CUDACC__
    void *library = nullptr;
    while (*files && !library) library = dlopen(*files++, RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
    for (size_t i = 0; i < count; i++)
        if (!(places[i] = dlsym(library, names[i]))) return false;
#else
    (void)files;
    for (size_t i = 0; i < count; i++)
        if (!(places[i] = emu::symbol(names[i]))) return false;
#endif
    return true;
}
