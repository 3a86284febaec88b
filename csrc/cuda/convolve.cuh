// convolve.cuh: what the files of the forward convolutions share: one file for f32 and f64, one for f16 and bf16.
#pragma once
#include "finish.cuh"
#include "window.cuh"

int lbr_cuda_convolve_halves(lbr_call *c, const lbr_cuda_window &g, int act);
