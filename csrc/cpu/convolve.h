/* convolve.h: the convolutions of convolve.c, for the table of kernels in onednn.c alone. */
#ifndef LBR_CONVOLVE_H
#define LBR_CONVOLVE_H

#include "cpu.h"

/* Runs the call where it can (*served = 1); else leaves it alone. Errors: LBR_ENOMEM. */
int lbr_convolve(lbr_call *c, int *served);
int lbr_convolve_depthwise(lbr_call *c, int *served);
/* The same by Winograd's algorithm (winograd.c), where that is quicker: sums run in another order. */
int lbr_winograd(lbr_call *c, int *served);

#endif
