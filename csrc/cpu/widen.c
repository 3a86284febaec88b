/* widen.c: f16 and bf16 operands for kernels that compute in f32: what tensor cores do, operands rounded, sums not. Computes nothing itself. */
#include "cpu.h"

static bool narrow(const lbr_tensor *t) { return lbr_present(t) && (t->dtype == LBR_F16 || t->dtype == LBR_BF16); }

int lbr_widened(lbr_call *c, lbr_kernel_fn kernel)
{
    lbr_call wide = *c;
    uint32_t made = 0;
    int rc = lbr_use_shared("widening"), all = c->nin + c->nout;
    wide.state = NULL, wide.state_free = NULL;
    for (int k = 0; k < all && !rc; k++) {
        const lbr_tensor *from = k < c->nin ? &c->in[k] : &c->out[k - c->nin];
        lbr_tensor *to = k < c->nin ? &wide.in[k] : &wide.out[k - c->nin];
        if (!narrow(from)) continue;
        if ((rc = lbr_tensor_new(to, LBR_F32, from->ndim, from->shape, LBR_CPU))) break;
        made |= 1u << k;
        if (k < c->nin) lbr_load_f32(from->dtype, from->data, 1, lbr_tensor_numel(from), (float *)to->data);
    }
    if (!rc) rc = kernel(&wide);
    for (int k = 0; k < c->nout && !rc; k++) {
        const lbr_tensor *y = &c->out[k];
        if (made >> (c->nin + k) & 1) lbr_store_f32(y->dtype, (const float *)wide.out[k].data, lbr_tensor_numel(y), y->data, 1);
    }
    if (wide.state && wide.state_free) wide.state_free(wide.state);
    for (int k = 0; k < all; k++)
        if (made >> k & 1) lbr_tensor_release(k < c->nin ? &wide.in[k] : &wide.out[k - c->nin]);
    return rc;
}
