// convolve.cu: conv2d in f32 and f64 as products whose operands are found, not laid out: no picture is unfolded, whatever stride, dilation and padding are. Its gradients are
// in convolve_backward.cu, depthwise convolutions in depthwise.cu.
#include "convolve.cuh"
#include "cudnn.cuh"

template <class T> static int forward(lbr_call *c, const lbr_cuda_window &g, int act)
{
    const lbr_cuda_finish<T, T> f = lbr_cuda_finish_of<T, T>(c, act);
    const lbr_cuda_outputs<T, T> y = {f, g.outputs, g.O, g.outputs % 4 == 0 && lbr_cuda_packs<T>(f.y, 4) && lbr_cuda_packs<T>(f.residual, 4), 0};
    lbr_cuda_job j = {};
    int rc = lbr_cuda_job_of(c, (int64_t)g.B * g.OH * g.OW, g.outputs, (int64_t)g.KH * g.KW * g.inputs, g.groups, 64, &j);
    if (rc) return rc;
    const T *x = (const T *)c->in[0].data, *w = (const T *)c->in[1].data;
    if constexpr (sizeof(T) == 4)
        if (g.inputs % 4 == 0 && lbr_cuda_packs<T>(x, 4) && lbr_cuda_packs<T>(w, 4)) {
            const lbr_cuda_weights<T, 4> b = {w, j.columns, j.depth};
            if (lbr_cuda_pointwise(g)) return lbr_cuda_tile_run<T>(j, lbr_cuda_lines<T, 4>{x, j.rows, j.depth, g.C, 0}, b, y);
            return lbr_cuda_tile_run<T>(j, lbr_cuda_windows<T, 4>{g, x, j.rows, j.depth}, b, y);
        }
    return lbr_cuda_tile_run<T>(j, lbr_cuda_windows<T, 1>{g, x, j.rows, j.depth}, lbr_cuda_weights<T, 1>{w, j.columns, j.depth}, y);
}

/* Four channels at a time where those of a group come in fours, else one by one (a picture's three). A group is a product of its own: groups of few channels leave
 * most of a tile unused, which is right for the two to eight groups that networks have; a group a channel is depthwise's.
 * f32 and f64 sum in the CPU's order with the CPU's fused steps, so that f32 answers are the CPU's to the bit where k is not shared among blocks.
 * f16 and bf16: cuDNN where it is there and takes them, else tensor cores. */
int lbr_cuda_conv2d(lbr_call *c)
{
    const lbr_conv2d_attr *a = (const lbr_conv2d_attr *)c->attr;
    if (!lbr_tensor_numel(&c->out[0])) return 0;
    const lbr_cuda_window g = lbr_cuda_window_of(c->in[0].shape, c->out[0].shape, c->in[1].shape[1], c->in[1].shape[2], a->groups, a->stride, a->pad, a->dilation);
    switch (c->in[0].dtype) {
    case LBR_F64: return forward<double>(c, g, a->act);
    case LBR_F32: return forward<float>(c, g, a->act);
    default: return lbr_cuda_cudnn(c) ? 0 : lbr_cuda_convolve_halves(c, g, a->act);
    }
}
