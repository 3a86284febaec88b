// cublaslt.cu: opens cuBLASLt when the first product asks for it, and runs products through it. What it needs of the library is declared here, so that no header of
// it has to be installed. Any failure is a false: the caller's own kernel does the work.
#include "activate.cuh"
#include "cublaslt.cuh"
#include "library.cuh"
#include "walk.cuh"

#include <map>

namespace {

// ---- the part of cuBLASLt 12 and 13 that is used; numbers as in cublasLt.h and library_types.h ----

typedef void *Handle, *Desc, *Layout, *Preference;
struct Algorithm { uint64_t data[8]; };
struct Heuristic {
    Algorithm algorithm;
    size_t workspace;
    int status;
    float waves;
    int reserved[4];
};
enum { R_32F = 0, R_64F = 1, R_16F = 2, R_16BF = 14, COMPUTE_32F = 68, COMPUTE_64F = 70, OP_T = 1, EPILOGUE_BIAS = 4 };
enum { DESC_TRANSA = 3, DESC_TRANSB = 4, DESC_EPILOGUE = 7, DESC_BIAS = 8, LAYOUT_BATCH = 5, LAYOUT_STRIDE = 6, MOST_WORKSPACE = 1, ALIGNMENT_A = 5, ALIGNMENT_D = 8 };

struct Library {
    int (*create)(Handle *);
    int (*desc_create)(Desc *, int compute, int scale);
    int (*desc_set)(Desc, int attribute, const void *, size_t);
    int (*desc_destroy)(Desc);
    int (*layout_create)(Layout *, int type, uint64_t rows, uint64_t columns, int64_t step);
    int (*layout_set)(Layout, int attribute, const void *, size_t);
    int (*layout_destroy)(Layout);
    int (*preference_create)(Preference *);
    int (*preference_set)(Preference, int attribute, const void *, size_t);
    int (*preference_destroy)(Preference);
    int (*heuristic)(Handle, Desc, Layout a, Layout b, Layout c, Layout d, Preference, int most, Heuristic *, int *found);
    int (*matmul)(Handle, Desc, const void *alpha, const void *a, Layout, const void *b, Layout, const void *beta, const void *c, Layout, void *d, Layout, const Algorithm *,
                  void *workspace, size_t bytes, cudaStream_t);
};

// Fills a Library; false: there is none.
bool open_library(Library *l)
{
    static const char *const names[] = {"cublasLtCreate", "cublasLtMatmulDescCreate", "cublasLtMatmulDescSetAttribute", "cublasLtMatmulDescDestroy",
                                        "cublasLtMatrixLayoutCreate", "cublasLtMatrixLayoutSetAttribute", "cublasLtMatrixLayoutDestroy",
                                        "cublasLtMatmulPreferenceCreate", "cublasLtMatmulPreferenceSetAttribute", "cublasLtMatmulPreferenceDestroy",
                                        "cublasLtMatmulAlgoGetHeuristic", "cublasLtMatmul"};
    static const char *const files[] = {"libcublasLt.so.13", "libcublasLt.so.12", nullptr};
    static_assert(sizeof names / sizeof *names == sizeof(Library) / sizeof(void *), "a name each");
    return lbr_cuda_functions(files, names, sizeof names / sizeof *names, (void **)l);
}

// ---- plans: what was chosen for a shape ----

struct Key {
    int device;
    bool bias;
    lbr_cuda_gemm d;
    bool operator<(const Key &o) const
    {
        const int64_t mine[] = {device, bias, d.dtype, d.ta, d.tb, d.m, d.n, d.k, d.batch, d.a_batch, d.b_batch};
        const int64_t theirs[] = {o.device, o.bias, o.d.dtype, o.d.ta, o.d.tb, o.d.m, o.d.n, o.d.k, o.d.batch, o.d.a_batch, o.d.b_batch};
        for (int i = 0; i < 11; i++)
            if (mine[i] != theirs[i]) return mine[i] < theirs[i];
        return false;
    }
};

struct Plan {
    bool works;
    Desc desc;
    Layout a, b, y;
    Algorithm algorithm;
};

// A device's handle and workspace: one, as its products run one after another. The workspace comes with the first plan.
struct Session {
    bool tried, works;
    Handle handle;
    void *workspace;
};

constexpr size_t WORKSPACE = 16 << 20;
Library library;
Session sessions[LBR_DEVICES];
std::map<Key, Plan> plans;

bool session_of(int device, Session **out)
{
    static const bool opened = open_library(&library);
    Session *s = *out = &sessions[device];
    if (!opened || s->tried) return opened && s->works;
    s->tried = true;
    return s->works = library.create(&s->handle) == 0;
}

bool layout(Layout *l, int type, bool turned, int rows, int columns, int batch, int64_t stride)
{
    if (library.layout_create(l, type, (uint64_t)(turned ? columns : rows), (uint64_t)(turned ? rows : columns), turned ? columns : rows)) return false;
    return library.layout_set(*l, LAYOUT_BATCH, &batch, sizeof batch) == 0 && library.layout_set(*l, LAYOUT_STRIDE, &stride, sizeof stride) == 0;
}

// The library counts columns first: a dense matrix of ours is its transpose there, so it makes y^T [n,m] = b^T a^T.
bool choose(Session *s, const Key &key, const void *bias, Plan *p)
{
    const lbr_cuda_gemm &d = key.d;
    const int type = d.dtype == LBR_F64 ? R_64F : d.dtype == LBR_F16 ? R_16F : d.dtype == LBR_BF16 ? R_16BF : R_32F, transposed = OP_T, epilogue = EPILOGUE_BIAS;
    const bool wide = d.dtype == LBR_F64;
    if (library.desc_create(&p->desc, wide ? COMPUTE_64F : COMPUTE_32F, wide ? R_64F : R_32F)) return false;
    if (d.tb && library.desc_set(p->desc, DESC_TRANSA, &transposed, sizeof transposed)) return false;
    if (d.ta && library.desc_set(p->desc, DESC_TRANSB, &transposed, sizeof transposed)) return false;
    if (key.bias && (library.desc_set(p->desc, DESC_EPILOGUE, &epilogue, sizeof epilogue) || library.desc_set(p->desc, DESC_BIAS, &bias, sizeof bias))) return false;
    if (!layout(&p->b, type, d.tb, d.n, d.k, d.batch, d.b_batch) || !layout(&p->a, type, d.ta, d.k, d.m, d.batch, d.a_batch)) return false;
    if (!layout(&p->y, type, false, d.n, d.m, d.batch, (int64_t)d.m * d.n)) return false;
    Preference preference;
    if (library.preference_create(&preference)) return false;
    const uint64_t room = WORKSPACE;
    const uint32_t alignment = 16;
    bool set = library.preference_set(preference, MOST_WORKSPACE, &room, sizeof room) == 0;
    for (int i = ALIGNMENT_A; i <= ALIGNMENT_D; i++) set = set && library.preference_set(preference, i, &alignment, sizeof alignment) == 0;
    Heuristic best = {};
    int found = 0;
    bool ok = set && library.heuristic(s->handle, p->desc, p->b, p->a, p->y, p->y, preference, 1, &best, &found) == 0 && found > 0 && best.status == 0;
    library.preference_destroy(preference);
    p->algorithm = best.algorithm;
    return ok;
}

Plan *plan_of(Session *s, const Key &key, const void *bias)
{
    auto known = plans.find(key);
    if (known != plans.end()) return &known->second;
    if (lbr_cuda_capturing(key.device)) return nullptr; // the workspace may have to be allocated
    Plan p = {};
    p.works = choose(s, key, bias, &p) && (s->workspace || cudaMalloc(&s->workspace, WORKSPACE) == cudaSuccess);
    cudaGetLastError();
    if (!p.works) {
        if (p.desc) library.desc_destroy(p.desc);
        for (Layout l : {p.a, p.b, p.y})
            if (l) library.layout_destroy(l);
    }
    return &plans.emplace(key, p).first->second;
}

} // namespace

// The library's own activations are max(x, 0), which loses NaN.
template <class T> static __global__ void activate(int act, int64_t n, T *y)
{
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4; i < n; i += (int64_t)gridDim.x * blockDim.x * 4) {
        lbr_cuda_four<T> v = lbr_cuda_read4(y + i, n - i);
        for (int k = 0; k < 4; k++) {
            v.v[k] = lbr_cuda_store<T>(lbr_cuda_activate(act, lbr_cuda_load(v.v[k])));
        }
        lbr_cuda_write4(y + i, n - i, v);
    }
}

bool lbr_cuda_cublaslt(int device, lbr_cuda_gemm d, const void *a, const void *b, const void *bias, void *y)
{
    Session *s;
    if (!d.m || !d.n || !d.k || !d.batch || !session_of(device, &s)) return false;
    if (((uintptr_t)a | (uintptr_t)b | (uintptr_t)bias | (uintptr_t)y) % 16) return false;
    if (d.batch == 1) d.a_batch = d.b_batch = 0;
    Plan *p = plan_of(s, {device, bias != nullptr, d}, bias);
    if (!p || !p->works || (bias && library.desc_set(p->desc, DESC_BIAS, &bias, sizeof bias))) return false;
    const double one64 = 1, zero64 = 0;
    const float one = 1, zero = 0;
    const bool wide = d.dtype == LBR_F64;
    cudaStream_t stream = lbr_cuda_stream(device);
    if (library.matmul(s->handle, p->desc, wide ? (const void *)&one64 : &one, b, p->b, a, p->a, wide ? (const void *)&zero64 : &zero, y, p->y, y, p->y, &p->algorithm,
                       s->workspace, WORKSPACE, stream)) {
        p->works = false;
        cudaGetLastError();
        return false;
    }
    const int64_t n = (int64_t)d.batch * d.m * d.n;
    lbr_cuda_grid g = lbr_cuda_spread((n + 3) / 4, device + LBR_CUDA);
    if (d.act)
        switch (d.dtype) {
#define CASE(id, T) case id: LBR_LAUNCH(activate<T>, g, d.act, n, (T *)y); break;
            CASE(LBR_F32, float) CASE(LBR_F64, double) CASE(LBR_F16, __half) CASE(LBR_BF16, __nv_bfloat16)
#undef CASE
        }
    return true;
}
