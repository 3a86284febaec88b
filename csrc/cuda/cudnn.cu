// cudnn.cu: opens cuDNN 9 when the first convolution in f16 or bf16 asks for it, and runs convolution, bias, residual and activation as one engine of its graph API.
// What it needs of the library is declared here, so that no header of it has to be installed. Any failure is a false: the caller's own kernel does the work. f32 never
// comes here: our own kernel answers the CPU's bits there, which cuDNN's do not.
#include "cudnn.cuh"
#include "library.cuh"

#include <stdio.h>

#include <map>
#include <string>
#include <vector>

namespace {

// ---- the part of the backend API that is used; numbers as in cudnn_graph_v9.h ----

enum Kind { POINTWISE = 0, CONVOLUTION = 1, ENGINE = 2, CONFIGURATION = 3, HEURISTIC = 4, PLAN = 5, CONVOLVE = 10, APPLY = 13, GRAPH = 15, PACK = 16, TENSOR = 17 };
enum Type {
    T_HANDLE = 0, T_DATA = 1, T_BOOLEAN = 2, T_INT64 = 3, T_FLOAT = 4, T_DOUBLE = 5, T_POINTER = 6, T_CONVOLUTION = 7, T_HEURISTIC = 8, T_NAN = 10, T_NOTE = 11, T_MODE = 14,
    T_DESCRIPTOR = 15
};
enum Attribute {
    MODE = 0, PRECISION = 1, NAN_PROPAGATION = 2, UPPER_CLIP = 4,                                                                       // of POINTWISE
    COMPUTE = 100, CONVOLUTION_MODE = 101, DILATIONS = 102, STRIDES = 103, POST_PADDINGS = 104, PRE_PADDINGS = 105, SPATIAL_DIMS = 106, // of CONVOLUTION
    HEURISTIC_MODE = 200, HEURISTIC_GRAPH = 201, HEURISTIC_RESULTS = 202,
    CONFIGURATION_ENGINE = 300, PLAN_HANDLE = 400, PLAN_CONFIGURATION = 401, PLAN_WORKSPACE = 402,
    CONVOLVE_ALPHA = 700, CONVOLVE_BETA = 701, CONVOLVE_CONVOLUTION = 702, CONVOLVE_W = 703, CONVOLVE_X = 704, CONVOLVE_Y = 705,
    APPLY_POINTWISE = 750, APPLY_X = 751, APPLY_B = 752, APPLY_Y = 753, GRAPH_HANDLE = 800, GRAPH_OPS = 801,
    ALIGNMENT = 900, DATA_TYPE = 901, DIMENSIONS = 902, TENSOR_STRIDES = 903, UNIQUE_ID = 906, IS_VIRTUAL = 907,
    PACK_IDS = 1000, PACK_POINTERS = 1001, PACK_WORKSPACE = 1003, ENGINE_NOTE = 1303,
};
enum { R_32F = 0, R_16F = 2, R_16BF = 9, ADD = 0, RELU = 100, CROSS_CORRELATION = 1, PROPAGATE = 1, MODE_A = 3 };
enum { REDUCED_PRECISION_REDUCTION = 2, NONDETERMINISTIC = 4 }; // notes of engines that are not taken

struct Library {
    int (*create)(void **handle);
    int (*set_stream)(void *handle, cudaStream_t);
    int (*descriptor_create)(int kind, void **);
    int (*descriptor_destroy)(void *);
    int (*finalize)(void *);
    int (*set)(void *, int attribute, int type, int64_t n, const void *);
    int (*get)(void *, int attribute, int type, int64_t room, int64_t *n, void *);
    int (*execute)(void *handle, void *plan, void *pack);
    size_t (*version)(void);
};

// Fills a Library; false: there is none.
bool open_library(Library *l)
{
    static const char *const names[] = {"cudnnCreate", "cudnnSetStream", "cudnnBackendCreateDescriptor", "cudnnBackendDestroyDescriptor", "cudnnBackendFinalize",
                                        "cudnnBackendSetAttribute", "cudnnBackendGetAttribute", "cudnnBackendExecute", "cudnnGetVersion"};
    static const char *const files[] = {"libcudnn.so.9", nullptr};
    static_assert(sizeof names / sizeof *names == sizeof(Library) / sizeof(void *), "a name each");
    return lbr_cuda_functions(files, names, sizeof names / sizeof *names, (void **)l);
}

Library library;

// Descriptors that belong together. After the first failure nothing more is asked of the library.
struct Draft {
    std::vector<void *> made;
    bool works = true;
    Draft() {}
    Draft(Draft &&o) : made(std::move(o.made)), works(o.works) { o.made.clear(); }
    Draft &operator=(Draft &&o)
    {
        std::swap(made, o.made), std::swap(works, o.works);
        return *this;
    }
    ~Draft()
    {
        while (!made.empty()) library.descriptor_destroy(made.back()), made.pop_back();
    }
    void *descriptor(Kind kind)
    {
        void *d = nullptr;
        if (works && library.descriptor_create(kind, &d)) works = false;
        if (d) made.push_back(d);
        return d;
    }
    void set(void *d, Attribute attribute, Type type, const void *values, int64_t n = 1) { works = works && library.set(d, attribute, type, n, values) == 0; }
    void set_descriptor(void *d, Attribute attribute, void *other) { set(d, attribute, T_DESCRIPTOR, &other); }
    void *ready(void *d)
    {
        works = works && library.finalize(d) == 0;
        return d;
    }
    bool get(void *d, Attribute attribute, Type type, int64_t room, int64_t *n, void *to) { return works && library.get(d, attribute, type, room, n, to) == 0; }
};

// ---- what is asked for ----

enum { X, W, BIAS, RESIDUAL, Y, REAL }; // identities of tensors; from REAL on those between operations
enum Number {
    N_TYPE, N_BIAS, N_RESIDUAL, N_ACT, N_GROUPS, N_X, N_W = N_X + 4, N_Y = N_W + 4, N_STRIDE = N_Y + 4, N_PAD = N_STRIDE + 2, N_DILATION = N_PAD + 4, NUMBERS = N_DILATION + 2
};

struct Key {
    int device, n[NUMBERS];
    bool operator<(const Key &o) const { return memcmp(this, &o, sizeof o) < 0; }
};

int type_of(const lbr_tensor *t) { return t->dtype == LBR_F16 ? R_16F : t->dtype == LBR_BF16 ? R_16BF : t->dtype == LBR_F32 ? R_32F : -1; }

// ours: [B,H,W,C], counted by the library as [B,C,H,W].
void *tensor(Draft &d, int64_t identity, int type, const int *ours)
{
    const int64_t dims[] = {ours[0], ours[3], ours[1], ours[2]}, strides[] = {dims[1] * dims[2] * dims[3], 1, dims[1] * dims[3], dims[1]}, alignment = 16;
    const bool between = identity >= REAL;
    void *t = d.descriptor(TENSOR);
    d.set(t, DATA_TYPE, T_DATA, &type);
    d.set(t, DIMENSIONS, T_INT64, dims, 4);
    d.set(t, TENSOR_STRIDES, T_INT64, strides, 4);
    d.set(t, UNIQUE_ID, T_INT64, &identity);
    d.set(t, ALIGNMENT, T_INT64, &alignment);
    d.set(t, IS_VIRTUAL, T_BOOLEAN, &between);
    return d.ready(t);
}

// y = x + b, or the activation `act` of x where there is no b.
void *apply(Draft &d, void *x, void *b, void *y, int act)
{
    const int mode = b ? ADD : RELU, precision = R_32F, propagate = PROPAGATE;
    const double six = 6;
    void *p = d.descriptor(POINTWISE), *op;
    d.set(p, MODE, T_MODE, &mode);
    d.set(p, PRECISION, T_DATA, &precision);
    if (!b) d.set(p, NAN_PROPAGATION, T_NAN, &propagate);
    if (!b && act == 2) d.set(p, UPPER_CLIP, T_DOUBLE, &six);
    d.ready(p);
    op = d.descriptor(APPLY);
    d.set_descriptor(op, APPLY_POINTWISE, p);
    d.set_descriptor(op, APPLY_X, x);
    if (b) d.set_descriptor(op, APPLY_B, b);
    d.set_descriptor(op, APPLY_Y, y);
    return d.ready(op);
}

// Convolution, then bias, residual and activation as far as there are any; sums and all between in f32.
void *graph(Draft &d, void *handle, const Key &key)
{
    const int *n = key.n, type = n[N_TYPE], compute = R_32F, mode = CROSS_CORRELATION, channels[] = {1, 1, 1, n[N_Y + 3]};
    const int64_t two = 2, dilation[] = {n[N_DILATION], n[N_DILATION + 1]}, stride[] = {n[N_STRIDE], n[N_STRIDE + 1]};
    const int64_t before[] = {n[N_PAD], n[N_PAD + 2]}, after[] = {n[N_PAD + 1], n[N_PAD + 3]};
    const float one = 1, zero = 0;
    int left = (n[N_BIAS] >= 0) + (n[N_RESIDUAL] != 0) + (n[N_ACT] != 0);
    int64_t between = REAL;
    auto result = [&] { return left-- > 0 ? tensor(d, between++, R_32F, n + N_Y) : tensor(d, Y, type, n + N_Y); };
    std::vector<void *> ops;

    void *convolution = d.descriptor(CONVOLUTION);
    d.set(convolution, COMPUTE, T_DATA, &compute);
    d.set(convolution, CONVOLUTION_MODE, T_CONVOLUTION, &mode);
    d.set(convolution, SPATIAL_DIMS, T_INT64, &two);
    d.set(convolution, DILATIONS, T_INT64, dilation, 2);
    d.set(convolution, STRIDES, T_INT64, stride, 2);
    d.set(convolution, PRE_PADDINGS, T_INT64, before, 2);
    d.set(convolution, POST_PADDINGS, T_INT64, after, 2);
    d.ready(convolution);
    void *x = tensor(d, X, type, n + N_X), *w = tensor(d, W, type, n + N_W), *y = result(), *op = d.descriptor(CONVOLVE);
    d.set(op, CONVOLVE_ALPHA, T_FLOAT, &one);
    d.set(op, CONVOLVE_BETA, T_FLOAT, &zero);
    d.set_descriptor(op, CONVOLVE_CONVOLUTION, convolution);
    d.set_descriptor(op, CONVOLVE_W, w);
    d.set_descriptor(op, CONVOLVE_X, x);
    d.set_descriptor(op, CONVOLVE_Y, y);
    ops.push_back(d.ready(op));
    auto next = [&](void *b) {
        void *to = result();
        ops.push_back(apply(d, y, b, to, n[N_ACT]));
        y = to;
    };
    if (n[N_BIAS] >= 0) next(tensor(d, BIAS, n[N_BIAS], channels));
    if (n[N_RESIDUAL]) next(tensor(d, RESIDUAL, type, n + N_Y));
    if (n[N_ACT]) next(nullptr);

    void *whole = d.descriptor(GRAPH);
    d.set(whole, GRAPH_HANDLE, T_HANDLE, &handle);
    d.set(whole, GRAPH_OPS, T_DESCRIPTOR, ops.data(), (int64_t)ops.size());
    return d.ready(whole);
}

// ---- plans: what was chosen for a shape ----

// Engines that are looked at, and of these how many that work are timed: each may have to be compiled first.
enum { LOOKED_AT = 16, TRIED = 4, RUNS = 3 };
constexpr int64_t MOST_WORKSPACE = 256 << 20;

struct Plan {
    Draft draft;
    void *plan = nullptr;
    int64_t workspace = 0;
};

// What is known of a shape: the configurations that the library lists for it, best first, and the plan that was chosen.
struct Entry {
    Draft draft;
    std::vector<void *> list;
    Plan plan;
};

struct Session { bool tried, works; void *handle; };
Session sessions[LBR_DEVICES];
std::map<Key, Entry> &entries = *new std::map<Key, Entry>; // stays: at the end of the process the library may be gone before it

bool session_of(int device, Session **out)
{
    static const bool opened = open_library(&library);
    Session *s = *out = &sessions[device];
    if (!opened || s->tried) return opened && s->works;
    s->tried = true;
    return s->works = library.create(&s->handle) == 0 && library.set_stream(s->handle, lbr_cuda_stream(device)) == 0;
}

// Does an engine give the same sums each time, made in f32?
bool sound(Draft &d, void *configuration)
{
    int notes[32];
    int64_t n = 0;
    void *engine = d.descriptor(ENGINE);
    if (!d.get(configuration, CONFIGURATION_ENGINE, T_DESCRIPTOR, 1, &n, &engine) || !d.get(engine, ENGINE_NOTE, T_NOTE, 32, &n, notes)) return false;
    for (int64_t i = 0; i < n && i < 32; i++)
        if (notes[i] == REDUCED_PRECISION_REDUCTION || notes[i] == NONDETERMINISTIC) return false;
    return true;
}

bool run(lbr_call *c, Session *s, const Plan &p)
{
    void *room = p.workspace ? lbr_cuda_workspace(c, p.workspace) : nullptr, *data[REAL];
    int64_t identities[REAL], n = 0;
    if (p.workspace && !room) return false;
    const lbr_tensor *const tensors[REAL] = {&c->in[0], &c->in[1], &c->in[2], &c->in[3], &c->out[0]};
    for (int i = 0; i < REAL; i++)
        if (lbr_present(tensors[i])) identities[n] = i, data[n++] = tensors[i]->data;
    Draft d;
    void *pack = d.descriptor(PACK);
    d.set(pack, PACK_IDS, T_INT64, identities, n);
    d.set(pack, PACK_POINTERS, T_POINTER, data, n);
    d.set(pack, PACK_WORKSPACE, T_POINTER, &room);
    d.ready(pack);
    return d.works && library.execute(s->handle, p.plan, pack) == 0;
}

// Milliseconds of RUNS runs after one that does not count; below 0: it does not run.
float time_of(lbr_call *c, Session *s, const Plan &p)
{
    cudaStream_t stream = lbr_cuda_stream(c->device - LBR_CUDA);
    cudaEvent_t begin = nullptr, end = nullptr;
    float ms = -1;
    if (!cudaEventCreateWithFlags(&begin, 0) && !cudaEventCreateWithFlags(&end, 0)) {
        bool ok = run(c, s, p) && !cudaEventRecord(begin, stream);
        for (int i = 0; ok && i < RUNS; i++) ok = run(c, s, p);
        if (!ok || cudaEventRecord(end, stream) || cudaEventSynchronize(end) || cudaEventElapsedTime(&ms, begin, end)) ms = -1;
    }
    if (begin) cudaEventDestroy(begin);
    if (end) cudaEventDestroy(end);
    return ms;
}

void list(Session *s, const Key &key, Entry *e)
{
    Draft &d = e->draft;
    const int mode = MODE_A;
    int64_t n = 0;
    void *all = graph(d, s->handle, key), *heuristic = d.descriptor(HEURISTIC);
    d.set_descriptor(heuristic, HEURISTIC_GRAPH, all);
    d.set(heuristic, HEURISTIC_MODE, T_HEURISTIC, &mode);
    d.ready(heuristic);
    if (!d.get(heuristic, HEURISTIC_RESULTS, T_DESCRIPTOR, 0, &n, nullptr)) return;
    for (int i = 0; i < n && i < LOOKED_AT; i++) e->list.push_back(d.descriptor(CONFIGURATION));
    if (!d.get(heuristic, HEURISTIC_RESULTS, T_DESCRIPTOR, (int64_t)e->list.size(), &n, e->list.data())) e->list.clear();
}

// The plan of a configuration; without one where its engine is not taken.
Plan plan_with(Session *s, void *configuration)
{
    Plan p;
    Draft &d = p.draft;
    int64_t n = 0;
    if (!sound(d, configuration)) return p;
    void *plan = d.descriptor(PLAN);
    d.set(plan, PLAN_HANDLE, T_HANDLE, &s->handle);
    d.set_descriptor(plan, PLAN_CONFIGURATION, configuration);
    d.ready(plan);
    if (d.get(plan, PLAN_WORKSPACE, T_INT64, 1, &n, &p.workspace) && p.workspace <= MOST_WORKSPACE) p.plan = plan;
    return p;
}

// Of GPU, library and shape.
std::string name_of(const Key &key)
{
    char gpu[128] = "", number[16];
    lbr_cuda_describe(key.device, gpu, sizeof gpu);
    std::string name = std::string(gpu) + "; " + std::to_string(library.version()) + ";";
    for (int n : key.n) snprintf(number, sizeof number, " %d", n), name += number;
    return name;
}

void choose(lbr_call *c, Session *s, const std::string &name, Entry *e)
{
    float least = 0;
    int best = -1, tried = 0;
    for (int i = 0; i < (int)e->list.size() && tried < TRIED; i++) {
        Plan p = plan_with(s, e->list[i]);
        const float ms = p.plan ? time_of(c, s, p) : -1;
        if (ms < 0) continue;
        tried++;
        if (best >= 0 && ms >= least) continue;
        best = i, least = ms;
        std::swap(e->plan, p);
    }
    if (best >= 0) lbr_cuda_keep_choice(name.c_str(), best);
}

// The quickest of the engines, timed once, or the one that is known to be.
Plan *plan_of(lbr_call *c, Session *s, const Key &key)
{
    auto have = entries.find(key);
    if (have != entries.end()) return &have->second.plan;
    if (lbr_cuda_capturing(key.device)) return nullptr; // nothing can be timed
    Entry &e = entries[key];
    list(s, key, &e);
    const std::string name = name_of(key);
    const int known = lbr_cuda_choice(name.c_str());
    if (known >= 0 && known < (int)e.list.size()) {
        e.plan = plan_with(s, e.list[known]);
        if (e.plan.plan && !run(c, s, e.plan)) e.plan.plan = nullptr;
    }
    if (!e.plan.plan) choose(c, s, name, &e);
    cudaGetLastError();
    return &e.plan;
}

} // namespace

bool lbr_cuda_cudnn(lbr_call *c)
{
    const lbr_conv2d_attr *a = (const lbr_conv2d_attr *)c->attr;
    const lbr_tensor *x = &c->in[0], *w = &c->in[1], *bias = &c->in[2], *residual = &c->in[3], *y = &c->out[0];
    const int device = c->device - LBR_CUDA;
    Session *s;
    if ((x->dtype != LBR_F16 && x->dtype != LBR_BF16) || a->act > 2 || (lbr_present(bias) && type_of(bias) < 0) || !lbr_tensor_numel(w)) return false;
    if (!session_of(device, &s)) return false;
    for (const lbr_tensor *t : {x, w, bias, residual, y})
        if (lbr_present(t) && (uintptr_t)t->data % 16) return false;
    Key key = {};
    key.device = device;
    key.n[N_TYPE] = type_of(x), key.n[N_BIAS] = lbr_present(bias) ? type_of(bias) : -1, key.n[N_RESIDUAL] = lbr_present(residual);
    key.n[N_ACT] = a->act, key.n[N_GROUPS] = a->groups;
    memcpy(key.n + N_X, x->shape, 4 * sizeof(int)), memcpy(key.n + N_W, w->shape, 4 * sizeof(int)), memcpy(key.n + N_Y, y->shape, 4 * sizeof(int));
    memcpy(key.n + N_STRIDE, a->stride, 2 * sizeof(int)), memcpy(key.n + N_PAD, a->pad, 4 * sizeof(int)), memcpy(key.n + N_DILATION, a->dilation, 2 * sizeof(int));
    Plan *p = plan_of(c, s, key);
    if (!p || !p->plan) return false;
    if (run(c, s, *p)) return true;
    p->plan = nullptr;
    cudaGetLastError();
    return false;
}
