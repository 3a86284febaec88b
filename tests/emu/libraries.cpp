// libraries.cpp: the libraries that the device opens when it runs, as far as csrc/cuda calls them: here cuBLASLt in plain loops, columns first as the real one counts; cuDNN is in cudnn.cpp.
// Takes nothing until a spec calls lbr_emu_cublaslt(1): products are our own kernels'.
#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "libraries.h"

static bool takes;

struct Desc { int compute, scale, turned_a, turned_b, epilogue; const void *bias; };
struct Layout { int type; uint64_t rows, columns; int64_t step, stride; int batch; };
struct Preference { uint64_t room; uint32_t alignment[4]; };
struct Heuristic { uint64_t algorithm[8]; size_t workspace; int status; float waves; int reserved[4]; };

double emu::load(int type, const void *p, int64_t i)
{
    switch (type) {
    case 0: return ((const float *)p)[i];
    case 1: return ((const double *)p)[i];
    case 2: return (double)__half2float(((const __half *)p)[i]);
    default: return (double)__bfloat162float(((const __nv_bfloat16 *)p)[i]);
    }
}
void emu::store(int type, void *p, int64_t i, double v)
{
    switch (type) {
    case 0: ((float *)p)[i] = (float)v; break;
    case 1: ((double *)p)[i] = v; break;
    case 2: ((__half *)p)[i] = __float2half((float)v); break;
    default: ((__nv_bfloat16 *)p)[i] = __float2bfloat16((float)v);
    }
}

static int create(void **handle) { return *handle = &takes, 0; }
static int desc_create(Desc **d, int compute, int scale) { return *d = new Desc{compute, scale, 0, 0, 1, nullptr}, 0; }
static int desc_set(Desc *d, int attribute, const void *v, size_t bytes)
{
    switch (attribute) {
    case 3: return memcpy(&d->turned_a, v, bytes), bytes != sizeof d->turned_a;
    case 4: return memcpy(&d->turned_b, v, bytes), bytes != sizeof d->turned_b;
    case 7: return memcpy(&d->epilogue, v, bytes), bytes != sizeof d->epilogue;
    case 8: return memcpy(&d->bias, v, bytes), bytes != sizeof d->bias;
    }
    return 7; // CUBLAS_STATUS_INVALID_VALUE
}
static int desc_destroy(Desc *d) { return delete d, 0; }
static int layout_create(Layout **l, int type, uint64_t rows, uint64_t columns, int64_t step)
{
    if (step < (int64_t)rows) return 7;
    return *l = new Layout{type, rows, columns, step, 0, 1}, 0;
}
static int layout_set(Layout *l, int attribute, const void *v, size_t bytes)
{
    if (attribute == 5) return memcpy(&l->batch, v, bytes), bytes != sizeof l->batch;
    if (attribute == 6) return memcpy(&l->stride, v, bytes), bytes != sizeof l->stride;
    return 7;
}
static int layout_destroy(Layout *l) { return delete l, 0; }
static int preference_create(Preference **p) { return *p = new Preference(), 0; }
static int preference_set(Preference *p, int attribute, const void *v, size_t bytes)
{
    if (attribute == 1) return memcpy(&p->room, v, bytes), bytes != sizeof p->room;
    if (attribute >= 5 && attribute <= 8) return memcpy(&p->alignment[attribute - 5], v, bytes), bytes != sizeof p->alignment[0];
    return 7;
}
static int preference_destroy(Preference *p) { return delete p, 0; }

static int heuristic(void *, const Desc *d, const Layout *a, const Layout *b, const Layout *c, const Layout *y, const Preference *p, int most, Heuristic *h, int *found)
{
    *found = 0;
    if (!takes) return 15; // CUBLAS_STATUS_NOT_SUPPORTED
    uint64_t m = d->turned_a ? a->columns : a->rows, k = d->turned_a ? a->rows : a->columns, n = d->turned_b ? b->rows : b->columns;
    bool fits = (d->turned_b ? b->columns : b->rows) == k && y->rows == m && y->columns == n && c == y && a->batch == y->batch && b->batch == y->batch;
    bool types = a->type == y->type && b->type == y->type && d->compute == (y->type == 1 ? 70 : 68) && d->scale == (y->type == 1);
    if (!fits || !types || most < 1 || !p->room || !p->alignment[0] || !p->alignment[3]) return 7;
    *h = Heuristic();
    h->algorithm[0] = 77;
    return *found = 1, 0;
}

static int matmul(void *, const Desc *desc, const void *alpha, const void *a, const Layout *la, const void *b, const Layout *lb, const void *beta, const void *, const Layout *, void *y,
                  const Layout *ly, const uint64_t *algorithm, void *workspace, size_t, cudaStream_t stream)
{
    if (algorithm[0] != 77 || !workspace || emu::load(desc->scale, alpha, 0) != 1 || emu::load(desc->scale, beta, 0) != 0) return 7;
    Desc d = *desc;
    Layout A = *la, B = *lb, Y = *ly;
    emu::launch(dim3(1), dim3(1), 0, stream, "cublasLtMatmul", [=] {
        int64_t depth = (int64_t)(d.turned_a ? A.rows : A.columns);
        for (int z = 0; z < Y.batch; z++)
            for (int64_t j = 0; j < (int64_t)Y.columns; j++)
                for (int64_t i = 0; i < (int64_t)Y.rows; i++) {
                    double sum = d.epilogue == 4 ? emu::load(Y.type, d.bias, i) : 0;
                    for (int64_t k = 0; k < depth; k++)
                        sum += emu::load(A.type, a, z * A.stride + (d.turned_a ? i * A.step + k : k * A.step + i)) * emu::load(B.type, b, z * B.stride + (d.turned_b ? k * B.step + j : j * B.step + k));
                    emu::store(Y.type, y, z * Y.stride + j * Y.step + i, sum);
                }
    });
    return 0;
}

void *emu::symbol(const char *name)
{
    static const struct { const char *name; void *function; } table[] = {
        {"cublasLtCreate", (void *)create}, {"cublasLtMatmulDescCreate", (void *)desc_create}, {"cublasLtMatmulDescSetAttribute", (void *)desc_set},
        {"cublasLtMatmulDescDestroy", (void *)desc_destroy}, {"cublasLtMatrixLayoutCreate", (void *)layout_create}, {"cublasLtMatrixLayoutSetAttribute", (void *)layout_set},
        {"cublasLtMatrixLayoutDestroy", (void *)layout_destroy}, {"cublasLtMatmulPreferenceCreate", (void *)preference_create},
        {"cublasLtMatmulPreferenceSetAttribute", (void *)preference_set}, {"cublasLtMatmulPreferenceDestroy", (void *)preference_destroy},
        {"cublasLtMatmulAlgoGetHeuristic", (void *)heuristic}, {"cublasLtMatmul", (void *)matmul},
    };
    for (auto &row : table)
        if (!strcmp(row.name, name)) return row.function;
    return cudnn_symbol(name);
}

extern "C" EMU_DOOR void lbr_emu_cublaslt(int on) { takes = on != 0; } // shapes that were refused before stay refused
