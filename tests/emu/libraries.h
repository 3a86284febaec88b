// libraries.h (emulator): what the twins of the opened libraries share. Types are counted as cuBLASLt and cuDNN do, which agree on all but bf16 (14 and 9).
#pragma once
#include "cuda_runtime.h"

namespace emu {
double load(int type, const void *p, int64_t i);
void store(int type, void *p, int64_t i, double v);
void took(int ms); // by the device's clock, which events read
void *cudnn_symbol(const char *name); // cudnn.cpp
}
