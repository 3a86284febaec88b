// convolve_halves.cu: conv2d in f16 and bf16 through tensor cores, sums and bias in f32. The gradients are in f32 and f64 only, as on the CPU.
#include "convolve.cuh"
#include "tile_mma.cuh"

/* Pieces of eight channels are copied as they lie where the channels of a group come in eights; others (a picture's three) are collected one by one, which costs
 * more than it multiplies: networks for f16 pad their channels. */
template <class S> static int forward(lbr_call *c, const lbr_cuda_window &g, int act)
{
    const lbr_cuda_finish<S, float> f = lbr_cuda_finish_of<S, float>(c, act);
    const lbr_cuda_outputs<S, float> y = {f, g.outputs, g.O, g.outputs % 2 == 0 && lbr_cuda_packs<S>(f.y, 2) && lbr_cuda_packs<S>(f.residual, 2), 0};
    lbr_cuda_job j = {};
    int rc = lbr_cuda_job_of(c, (int64_t)g.B * g.OH * g.OW, g.outputs, (int64_t)g.KH * g.KW * g.inputs, g.groups, 64, &j);
    if (rc) return rc;
    const S *x = (const S *)c->in[0].data, *w = (const S *)c->in[1].data;
    if (g.inputs % 8 == 0 && lbr_cuda_packs<S>(x, 8) && lbr_cuda_packs<S>(w, 8)) {
        const lbr_cuda_weights<S, 8> b = {w, j.columns, j.depth};
        if (lbr_cuda_pointwise(g)) return lbr_cuda_mma_run<S>(j, lbr_cuda_lines<S, 8>{x, j.rows, j.depth, g.C, 0}, b, y);
        return lbr_cuda_mma_run<S>(j, lbr_cuda_windows<S, 8>{g, x, j.rows, j.depth}, b, y);
    }
    return lbr_cuda_mma_run<S>(j, lbr_cuda_windows<S, 1>{g, x, j.rows, j.depth}, lbr_cuda_weights<S, 1>{w, j.columns, j.depth}, y);
}

int lbr_cuda_convolve_halves(lbr_call *c, const lbr_cuda_window &g, int act) { return c->in[0].dtype == LBR_F16 ? forward<__half>(c, g, act) : forward<__nv_bfloat16>(c, g, act); }
