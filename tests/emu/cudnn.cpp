// cudnn.cpp: the part of cuDNN 9's graph API that csrc/cuda calls: descriptors that take their own attributes alone, of the right type and number, and before they are
// ready; five engines for a convolution with what follows it, in plain loops. Takes nothing until a spec calls lbr_emu_cudnn(1). Types: 0 f32, 1 f64, 2 f16, 9 bf16.
#include "libraries.h"

#include <map>
#include <vector>

namespace {

enum { OK = 0, BAD_PARAM = 2000, NOT_SUPPORTED = 3000 };
enum { ENGINES = 5, VARIES = 0, TOO_LARGE = 1, UNSUPPORTED = 2, SLOW = 3 }; // what ails the engines; the last one is fine
bool takes;
long runs;

struct Handle { cudaStream_t stream; };

struct Value { int type; std::vector<char> bytes; };
struct Descriptor {
    int kind, engine = 0;
    bool ready = false;
    std::map<int, Value> values;
    template <class T> T get(int attribute, int i = 0) const
    {
        T v = {};
        auto found = values.find(attribute);
        if (found != values.end() && found->second.bytes.size() >= (i + 1) * sizeof v) memcpy(&v, found->second.bytes.data() + i * sizeof v, sizeof v);
        return v;
    }
    const Descriptor *to(int attribute, int i = 0) const { return get<const Descriptor *>(attribute, i); }
};

// Attributes that a kind takes: of which type, how many at least and at most; those with `needed` must be there when it is finalized.
const struct Rule { int kind, attribute, type, least, most; bool needed; } rules[] = {
    {0, 0, 14, 1, 1, true}, {0, 1, 1, 1, 1, true}, {0, 2, 10, 1, 1, false}, {0, 4, 5, 1, 1, false},
    {1, 100, 1, 1, 1, true}, {1, 101, 7, 1, 1, true}, {1, 102, 3, 2, 2, true}, {1, 103, 3, 2, 2, true}, {1, 104, 3, 2, 2, true}, {1, 105, 3, 2, 2, true}, {1, 106, 3, 1, 1, true},
    {4, 200, 8, 1, 1, true}, {4, 201, 15, 1, 1, true}, {5, 400, 0, 1, 1, true}, {5, 401, 15, 1, 1, true},
    {10, 700, 4, 1, 1, true}, {10, 701, 4, 1, 1, true}, {10, 702, 15, 1, 1, true}, {10, 703, 15, 1, 1, true}, {10, 704, 15, 1, 1, true}, {10, 705, 15, 1, 1, true},
    {13, 750, 15, 1, 1, true}, {13, 751, 15, 1, 1, true}, {13, 752, 15, 1, 1, false}, {13, 753, 15, 1, 1, true}, {15, 800, 0, 1, 1, true}, {15, 801, 15, 1, 50, true},
    {16, 1000, 3, 1, 50, true}, {16, 1001, 6, 1, 50, true}, {16, 1003, 6, 1, 1, true},
    {17, 900, 3, 1, 1, true}, {17, 901, 1, 1, 1, true}, {17, 902, 3, 4, 4, true}, {17, 903, 3, 4, 4, true}, {17, 906, 3, 1, 1, true}, {17, 907, 2, 1, 1, false},
};
size_t size_of(int type) { return type == 2 ? 1 : type == 0 || type == 3 || type == 5 || type == 6 || type == 15 ? 8 : 4; }

int create(void **handle) { return *handle = new Handle(), OK; }
int set_stream(void *handle, cudaStream_t stream) { return ((Handle *)handle)->stream = stream, OK; }
size_t version() { return 91000; }
int descriptor_create(int kind, void **out)
{
    Descriptor *d = new Descriptor();
    d->kind = kind, *out = d;
    return OK;
}
int descriptor_destroy(void *d) { return delete (Descriptor *)d, OK; }

int set(void *p, int attribute, int type, int64_t n, const void *values)
{
    Descriptor *d = (Descriptor *)p;
    if (d->ready) return BAD_PARAM;
    for (auto &r : rules)
        if (r.kind == d->kind && r.attribute == attribute) {
            if (r.type != type || n < r.least || n > r.most) return BAD_PARAM;
            if (type == 15)
                for (int64_t i = 0; i < n; i++)
                    if (!((Descriptor *const *)values)[i]->ready) return BAD_PARAM;
            d->values[attribute] = {type, std::vector<char>((const char *)values, (const char *)values + n * size_of(type))};
            return OK;
        }
    return BAD_PARAM;
}

// A convolution first; then each operation reads what the one before it made, and only what is between is virtual.
bool chain(const Descriptor *graph)
{
    const int n = (int)(graph->values.at(801).bytes.size() / 8);
    const Descriptor *made = nullptr;
    for (int i = 0; i < n; i++) {
        const Descriptor *op = graph->to(801, i), *y = op->to(i ? 753 : 705);
        if (op->kind != (i ? 13 : 10) || (i && op->to(751) != made) || y->get<bool>(907) != (i + 1 < n)) return false;
        made = y;
    }
    return true;
}

int finalize(void *p)
{
    Descriptor *d = (Descriptor *)p;
    for (auto &r : rules)
        if (r.kind == d->kind && r.needed && !d->values.count(r.attribute)) return BAD_PARAM;
    if (d->kind == 0 && d->get<int>(0) == 100 && d->get<int>(2) != 1) return BAD_PARAM; // a relu that loses NaN
    if (d->kind == 4 && !takes) return NOT_SUPPORTED;
    if (d->kind == 15 && !chain(d)) return NOT_SUPPORTED;
    if (d->kind == 5) {
        d->engine = d->to(401)->engine;
        if (d->engine == UNSUPPORTED) return NOT_SUPPORTED;
    }
    if (d->kind == 16 && d->values.at(1000).bytes.size() != d->values.at(1001).bytes.size()) return BAD_PARAM;
    d->ready = true;
    return OK;
}

int get(void *p, int attribute, int type, int64_t room, int64_t *n, void *out)
{
    Descriptor *d = (Descriptor *)p;
    if (d->kind == 4 && attribute == 202 && type == 15 && d->ready) {
        *n = room < ENGINES && room ? room : (int64_t)ENGINES;
        for (int64_t i = 0; i < room && i < ENGINES; i++) {
            Descriptor *one = ((Descriptor **)out)[i];
            if (one->kind != 3) return BAD_PARAM;
            one->engine = (int)i, one->ready = true;
            one->values[-1] = {15, std::vector<char>((char *)&d, (char *)&d + 8)};
            one->values[-2] = d->values.at(201);
        }
        return OK;
    }
    if (d->kind == 3 && attribute == 300 && type == 15 && room == 1 && d->ready) {
        Descriptor *engine = *(Descriptor **)out;
        engine->engine = d->engine, engine->ready = engine->kind == 2, *n = 1;
        return engine->ready ? OK : BAD_PARAM;
    }
    if (d->kind == 2 && attribute == 1303 && type == 11 && d->ready) {
        const int notes[] = {0, d->engine == VARIES ? 4 : 9}; // tensor cores; nondeterministic or strict about NaN
        memcpy(out, notes, sizeof notes);
        return *n = 2, OK;
    }
    if (d->kind == 5 && attribute == 402 && type == 3 && d->ready) {
        const int64_t bytes = d->engine == TOO_LARGE ? (int64_t)1 << 40 : 1024;
        memcpy(out, &bytes, sizeof bytes);
        return *n = 1, OK;
    }
    return BAD_PARAM;
}

struct View {
    int type;
    int64_t dims[4], strides[4];
    void *data;
    int64_t at(int64_t b, int64_t c, int64_t y, int64_t x) const
    {
        const int64_t i[] = {b, c, y, x};
        int64_t place = 0;
        for (int k = 0; k < 4; k++) place += dims[k] == 1 ? 0 : i[k] * strides[k];
        return place;
    }
};

View view(const Descriptor *t, const Descriptor *pack)
{
    View v = {t->get<int>(901), {}, {}, nullptr};
    for (int k = 0; k < 4; k++) v.dims[k] = t->get<int64_t>(902, k), v.strides[k] = t->get<int64_t>(903, k);
    for (size_t i = 0; i < pack->values.at(1000).bytes.size() / 8; i++)
        if (pack->get<int64_t>(1000, (int)i) == t->get<int64_t>(906)) v.data = pack->get<void *>(1001, (int)i);
    return v;
}

struct Step { int mode; double most; bool adds; View b; };

int execute(void *handle, void *p, void *q)
{
    const Descriptor *plan = (Descriptor *)p, *pack = (Descriptor *)q;
    if (!plan->ready || !pack->ready || plan->kind != 5 || pack->kind != 16 || handle != plan->get<void *>(400) || !pack->get<void *>(1003)) return BAD_PARAM;
    const Descriptor *graph = plan->to(401)->to(-2), *conv = graph->to(801), *shape = conv->to(702);
    const int n = (int)(graph->values.at(801).bytes.size() / 8);
    const View x = view(conv->to(704), pack), w = view(conv->to(703), pack), y = view(graph->to(801, n - 1)->to(n > 1 ? 753 : 705), pack);
    int64_t stride[2], before[2], dilation[2];
    for (int k = 0; k < 2; k++) stride[k] = shape->get<int64_t>(103, k), before[k] = shape->get<int64_t>(105, k), dilation[k] = shape->get<int64_t>(102, k);
    for (int k = 0; k < 2; k++)
        if ((x.dims[2 + k] + before[k] + shape->get<int64_t>(104, k) - dilation[k] * (w.dims[2 + k] - 1) - 1) / stride[k] + 1 != y.dims[2 + k]) return BAD_PARAM;
    if (!x.data || !w.data || !y.data || x.dims[1] % w.dims[1] || shape->get<int>(101) != 1 || shape->get<int>(100) != 0) return BAD_PARAM;
    std::vector<Step> steps;
    for (int i = 1; i < n; i++) {
        const Descriptor *op = graph->to(801, i), *what = op->to(750);
        Step s = {what->get<int>(0), what->values.count(4) ? what->get<double>(4) : HUGE_VAL, op->values.count(752) > 0, {}};
        if (s.adds) s.b = view(op->to(752), pack);
        if (s.mode != (s.adds ? 0 : 100) || (s.adds && !s.b.data)) return BAD_PARAM;
        steps.push_back(s);
    }
    const bool slow = plan->engine == SLOW;
    runs++;
    const int64_t inputs = w.dims[1], outputs = w.dims[0] / (x.dims[1] / inputs);
    emu::launch(dim3(1), dim3(1), 0, ((Handle *)handle)->stream, "cudnnBackendExecute", [=] {
        if (slow) emu::took(5);
        for (int64_t b = 0; b < y.dims[0]; b++)
            for (int64_t o = 0; o < y.dims[1]; o++)
                for (int64_t r = 0; r < y.dims[2]; r++)
                    for (int64_t c = 0; c < y.dims[3]; c++) {
                        double sum = 0;
                        for (int64_t i = 0; i < inputs; i++)
                            for (int64_t ky = 0; ky < w.dims[2]; ky++)
                                for (int64_t kx = 0; kx < w.dims[3]; kx++) {
                                    const int64_t iy = r * stride[0] - before[0] + ky * dilation[0], ix = c * stride[1] - before[1] + kx * dilation[1];
                                    if (iy < 0 || ix < 0 || iy >= x.dims[2] || ix >= x.dims[3]) continue;
                                    sum += emu::load(x.type, x.data, x.at(b, o / outputs * inputs + i, iy, ix)) * emu::load(w.type, w.data, w.at(o, i, ky, kx));
                                }
                        for (auto &s : steps) {
                            if (s.adds) sum += emu::load(s.b.type, s.b.data, s.b.at(b, o, r, c));
                            else sum = sum < 0 ? 0 : sum > s.most ? s.most : sum;
                        }
                        emu::store(y.type, y.data, y.at(b, o, r, c), sum);
                    }
    });
    return OK;
}

} // namespace

void *emu::cudnn_symbol(const char *name)
{
    static const struct { const char *name; void *function; } table[] = {
        {"cudnnCreate", (void *)create}, {"cudnnSetStream", (void *)set_stream}, {"cudnnBackendCreateDescriptor", (void *)descriptor_create},
        {"cudnnBackendDestroyDescriptor", (void *)descriptor_destroy}, {"cudnnBackendFinalize", (void *)finalize}, {"cudnnBackendSetAttribute", (void *)set},
        {"cudnnBackendGetAttribute", (void *)get}, {"cudnnBackendExecute", (void *)execute}, {"cudnnGetVersion", (void *)version},
    };
    for (auto &row : table)
        if (!strcmp(row.name, name)) return row.function;
    return nullptr;
}

extern "C" {
EMU_DOOR void lbr_emu_cudnn(int on) { takes = on != 0; } // shapes that were refused before stay refused
EMU_DOOR long lbr_emu_cudnn_runs(void) { return runs; }  // convolutions so far
}
