/* core.h: what the core's own files share; not part of the ABI. */
#ifndef LBR_CORE_H
#define LBR_CORE_H

#include "libration.h"

#include <stdbool.h>
#include <string.h>

enum { DENSE = 1, STRIDED = 2, INPLACE = 4 };

enum lbr_op {
#define LBR_OP(name, ins, outs, attrs, flags) LBR_OP_##name,
#include "ops.def"
#undef LBR_OP
    LBR_OPS
};

/* Text of at most 256 bytes that describes a tensor in errors: "f32 [30,8,98]". Rotating thread-local buffers, four at a time. */
LBR_API const char *lbr_describe(const lbr_tensor *t);
LBR_API const char *lbr_op_name(int op);
LBR_API const char *lbr_dtype_name(int dtype);

/* One op at work: tensors are copies of the caller's structs, absent optional inputs have storage NULL. */
struct lbr_call {
    int op, nin, nout, device;
    lbr_tensor in[LBR_MAX_IN], out[LBR_MAX_OUT];
    const void *attr;
    void *state;                 /* a kernel's own preparation, kept as long as the plan */
    void (*state_free)(void *);
};
typedef struct lbr_call lbr_call;

typedef int (*lbr_infer_fn)(lbr_call *c);
typedef int (*lbr_kernel_fn)(lbr_call *c);
extern const lbr_infer_fn lbr_infer_table[LBR_OPS];
extern const lbr_kernel_fn lbr_cpu_table[LBR_OPS];
extern const lbr_kernel_fn lbr_reference_table[LBR_OPS]; /* NULL: no slow twin */

/* The corridor: checks devices, makes inputs dense, infers, allocates, runs, records. */
int lbr_submit(int op, const lbr_tensor *const *in, int nin, lbr_tensor *const *out, int nout, const void *attr);
int lbr_op_flags(int op);
int lbr_op_attr_bytes(int op);
/* Is a call that no corridor has checked one that it would have let through? Devices, presence, layouts, shapes and dtypes, memory that outputs share. */
int lbr_call_check(const lbr_call *c);
/* Runs a call's kernel and bumps the versions of its outputs. */
int lbr_call_run(lbr_call *c);
/* Is the first NaN looked for (lbr_debug_nan)? Then every call runs by itself. */
bool lbr_tracing(void);
/* Bumps the versions of a call's outputs. */
void lbr_call_wrote(const lbr_call *c);
double lbr_call_flops(const lbr_call *c);
/* First and last byte (past the end) that t, not empty, touches. */
void lbr_span(const lbr_tensor *t, const char **low, const char **high);

/* Recording (record.c). Memory is reserved before a call runs: what ran is appended without fail, so that no caller runs it again. LBR_ENOMEM. */
int lbr_record_reserve(size_t attr_bytes);
bool lbr_recording_lazily(void);
void lbr_record_append(const lbr_call *c, size_t attr_bytes); /* its tensors are retained by the plan */

/* Phases one after another in one team of threads (threads.c): the tasks of a phase, 0 .. tasks[phase] - 1, are handed out one at a time, and a phase begins when the
 * one before it is done. thread: 0 .. lbr_threads() - 1. At most LBR_MOST_PHASES; only the Lua thread may call it. */
enum { LBR_MOST_PHASES = 4 };
void lbr_phases(int phases, const int64_t *tasks, void (*body)(void *ctx, int phase, int64_t task, int thread), void *ctx);
/* Between true and false the threads of lbr_phases work on plans of their own: loops inside stay on their thread, and memory is handed out under a lock. */
void lbr_side_by_side(bool on);
bool lbr_is_side_by_side(void);
/* For kernels that go to what is one for all threads (oneDNN's primitives, new storages): LBR_EUNSUPPORTED side by side. lbr_shared_uses: how often they did so far. */
int lbr_use_shared(const char *what);
int64_t lbr_shared_uses(void);

/* Storage (tensor.c). Its flags: the memory is not its own; nothing may be written there. */
enum { LBR_STORAGE_LENT = 1, LBR_STORAGE_CONSTANT = 2 };
/* A storage on the CPU over memory that is there; NULL when out of memory. Without LBR_STORAGE_LENT it frees it by lbr_free. */
lbr_storage *lbr_storage_over(char *base, int64_t bytes, uint32_t flags);
void lbr_storage_retain(lbr_storage *s);
void lbr_storage_release(lbr_storage *s);
/* Blocks that are kept for reuse come in four sizes an octave from `least` up: the class of at least 1 byte below `classes`, and its size. */
static inline int lbr_size_class(int64_t bytes, int64_t least, int classes, int64_t *size)
{
    int64_t base = least;
    int octave = 0;
    while (base < bytes && octave < classes / 4 - 1) base *= 2, octave++;
    *size = least;
    if (octave == 0) return 0;
    int64_t step = base / 8, low = base / 2;
    int quarter = (int)((bytes - low + step - 1) / step);
    *size = low + quarter * step;
    return octave * 4 + quarter - 4;
}
void *lbr_alloc(int64_t bytes);          /* 64-byte aligned, counted, cached; NULL when out of memory */
void lbr_free(void *p, int64_t bytes);
void *lbr_alloc_on(int device, int64_t bytes);
void lbr_free_on(int device, void *p, int64_t bytes);
/* LBR_ENOMEM with what was wanted and what there is; what: whose memory, "" or ending in ": ". */
LBR_API int lbr_out_of_memory(int device, const char *what, int64_t bytes);

/* Helpers of the infer functions (infer.h has the rest). */
static inline bool lbr_present(const lbr_tensor *t) { return t->storage != NULL; }
static inline bool lbr_same_shape(const lbr_tensor *a, const lbr_tensor *b)
{
    if (a->ndim != b->ndim) return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->shape[i] != b->shape[i]) return false;
    return true;
}
/* Sets shape, dtype and contiguous strides of an output. */
void lbr_out(lbr_call *c, int i, int dtype, int ndim, const int32_t *shape);
void lbr_out_like(lbr_call *c, int i, const lbr_tensor *t);
/* A tensor without memory: for shapes alone. */
int lbr_tensor_new_dry(lbr_tensor *t, int dtype, int ndim, const int32_t *shape, int device);

#endif
