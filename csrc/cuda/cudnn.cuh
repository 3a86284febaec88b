// cudnn.cuh: convolutions through cuDNN, where it can be opened. Our own are in convolve_halves.cu.
#pragma once
#include "cuda.cuh"

// Queues a conv2d in f16 or bf16 with its bias, residual and activation as one engine; false when the library is missing or does not take it: nothing is queued then.
bool lbr_cuda_cudnn(lbr_call *c);

// What was found to be the quickest, kept on disk (cudnn_choices.cu): of how many engines tried, which; -1 where nothing is known. name: GPU, library, shape.
int lbr_cuda_choice(const char *name);
void lbr_cuda_keep_choice(const char *name, int choice);
