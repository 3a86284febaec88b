/* tally.c: counts values for a mean that is read later. */
#include "cpu.h"

int lbr_cpu_tally(lbr_call *c)
{
    const lbr_tally_attr *a = c->attr;
    double x = c->in[0].dtype == LBR_F64 ? *(const double *)c->in[0].data : *(const float *)c->in[0].data, *sums = (double *)c->out[0].data;
    if (a->finite && !isfinite(x)) return 0;
    sums[0] += x * a->count;
    sums[1] += a->count;
    return 0;
}
