/* libration.h: the whole C ABI of the core; what Lua sees is this file, preprocessed. Knows nothing of poses, data sets or recipes. */
#ifndef LIBRATION_H
#define LIBRATION_H

#ifdef LBR_CDEF
#define LBR_API
#define LBR_PRINTF(a, b)
#else
#include <stddef.h>
#include <stdint.h>
#define LBR_API __attribute__((visibility("default")))
#define LBR_PRINTF(a, b) __attribute__((format(printf, a, b)))
#endif

/* ---- status: every function that can fail returns 0 or one of these, with a text for lbr_error() ---- */
enum {
    LBR_OK = 0, LBR_ESHAPE = -1, LBR_EDTYPE = -2, LBR_EDEVICE = -3, LBR_ENOMEM = -4, LBR_EINVAL = -5, LBR_EIO = -6,
    LBR_EINTR = -7, LBR_EFORMAT = -8, LBR_EUNSUPPORTED = -9, LBR_EEND = -10
};
enum { LBR_ABI = 1 };

LBR_API int lbr_abi(void);
LBR_API const char *lbr_cdef(void);
/* Sets the calling thread's error text (at most 511 bytes) and returns code. */
LBR_API int lbr_fail(int code, const char *format, ...) LBR_PRINTF(2, 3);
/* Text of the calling thread's last failure; "" when there was none. */
LBR_API const char *lbr_error(void);

/* ---- threads and signals ---- */
/* Number of threads that lbr_parallel uses; set: n < 1 means all cores this process may run on. */
LBR_API int lbr_threads(void);
LBR_API void lbr_set_threads(int n);
/* Runs body over [0, n) split into contiguous chunks of at least grain, one a thread. Only the Lua thread may call it. */
LBR_API void lbr_parallel(int64_t n, int64_t grain, void (*body)(void *ctx, int64_t begin, int64_t end, int thread), void *ctx);
/* Ctrl-C: the first one sets a flag, a second one before it is cleared ends the process. */
LBR_API void lbr_interrupt_install(void);
/* SIGTERM and SIGHUP (unless it is ignored) as well: for programs that take back what is half done before they end. */
LBR_API void lbr_interrupt_install_all(void);
/* Number of the last such signal, 0 before the first. */
LBR_API int lbr_interrupt_signal(void);
LBR_API int lbr_interrupted(void);
LBR_API void lbr_interrupt_clear(void);

/* Best instruction set of this processor that our own kernels use; lower it with lbr_cpu_limit (tests). */
enum { LBR_ISA_PORTABLE = 0, LBR_ISA_AVX2 = 1, LBR_ISA_AVX512 = 2 };
LBR_API int lbr_cpu_isa(void);
LBR_API void lbr_cpu_limit(int isa);
/* 1 where bf16 products are faster than f32 ones (AVX-512 BF16 or AMX). */
LBR_API int lbr_cpu_bf16(void);

/* ---- tensors ---- */
enum { LBR_F32 = 0, LBR_F64 = 1, LBR_F16 = 2, LBR_BF16 = 3, LBR_U8 = 4, LBR_I32 = 5, LBR_DTYPES = 6 };
enum { LBR_CPU = 0, LBR_CUDA = 1, LBR_DEVICES = 17 }; /* cuda:N is LBR_CUDA + N */
/* Activations that layers apply to what they made; prelu takes a slope a channel, hard_sigmoid is min(max(x / 6 + 1/2, 0), 1), gelu the one with erf. */
enum {
    LBR_ACT_NONE, LBR_ACT_RELU, LBR_ACT_RELU6, LBR_ACT_PRELU, LBR_ACT_SILU, LBR_ACT_HARD_SWISH, LBR_ACT_SIGMOID, LBR_ACT_HARD_SIGMOID, LBR_ACT_TANH, LBR_ACT_GELU, LBR_ACT_MISH,
    LBR_ACTS
};
/* Kinds of the ops unary and binary. */
#define LBR_UNARY_KINDS(X) \
    X(tan) X(asin) X(acos) X(atan) X(sinh) X(cosh) X(asinh) X(acosh) X(atanh) X(erf) X(ceil) X(floor) X(rint) X(trunc) X(rsqrt) X(softplus) X(softsign) X(elu) X(selu) X(celu) \
    X(gelu_tanh) X(hard_sigmoid) X(hard_swish) X(mish) X(thresholded_relu) X(shrink) X(leaky_relu)
#define LBR_BINARY_KINDS(X) X(mod) X(fmod) X(bit_and) X(bit_or) X(bit_xor) X(shift_left) X(shift_right)
#define LBR_UNARY_ID(name) LBR_UNARY_##name,
#define LBR_BINARY_ID(name) LBR_BINARY_##name,
enum { LBR_UNARY_KINDS(LBR_UNARY_ID) LBR_UNARIES };
enum { LBR_BINARY_KINDS(LBR_BINARY_ID) LBR_BINARIES };
enum { LBR_MAX_DIMS = 6, LBR_MAX_IN = 12, LBR_MAX_OUT = 6 };

/* Memory shared by a tensor and its views. version grows with every write through an op; id is never used twice. */
typedef struct lbr_storage {
    char *base;
    int64_t bytes;
    uint64_t id;
    int32_t refs;
    uint32_t version;
    int32_t device;
    uint32_t flags;
} lbr_storage;

/* A tensor is a view of a storage. Strides count elements; an absent optional input has storage NULL.
 * Lua sees the fields that its methods are named after with a trailing underscore. */
#ifdef LBR_CDEF
#define shape shape_
#define stride stride_
#define dtype dtype_
#define device device_
#endif
typedef struct lbr_tensor {
    lbr_storage *storage;
    char *data;
    int32_t shape[6];
    int32_t stride[6];
    uint8_t ndim, dtype, device, flags;
    int32_t node;  /* Lua's: index in the autograd tape */
    uint32_t seen; /* Lua's: version of the storage when this handle was made */
} lbr_tensor;
#undef shape
#undef stride
#undef dtype
#undef device

/* New contiguous tensor, contents undefined. Errors: LBR_ESHAPE, LBR_EDTYPE, LBR_EDEVICE, LBR_ENOMEM. */
LBR_API int lbr_tensor_new(lbr_tensor *t, int dtype, int ndim, const int32_t *shape, int device);
/* View of t's storage: offset in elements from t->data; refused when it would leave the storage. */
LBR_API int lbr_tensor_view(const lbr_tensor *t, lbr_tensor *view, int ndim, const int32_t *shape, const int32_t *stride, int64_t offset);
/* Drops t's hold on its storage; idempotent, silent, safe as a finalizer. */
LBR_API void lbr_tensor_release(lbr_tensor *t);
LBR_API int64_t lbr_tensor_numel(const lbr_tensor *t);
LBR_API int lbr_tensor_contiguous(const lbr_tensor *t);
LBR_API int lbr_dtype_size(int dtype);
/* One element, offset in elements from t->data; the caller keeps it inside. Errors: LBR_EDEVICE. */
LBR_API int lbr_element_get(const lbr_tensor *t, int64_t offset, double *value);
LBR_API int lbr_element_set(lbr_tensor *t, int64_t offset, double value);
/* Bytes held by storages now, at most so far, kept in the cache for reuse, and storages alive. */
LBR_API int64_t lbr_memory_live(int device);
LBR_API int64_t lbr_memory_peak(int device);
LBR_API int64_t lbr_memory_cached(int device);
LBR_API int64_t lbr_memory_storages(int device);
/* Bytes that a device has; 0 of the CPU. */
LBR_API int64_t lbr_memory_total(int device);
/* Bytes live on all devices: what the collector should know of. */
LBR_API int64_t lbr_memory_held(void);
LBR_API void lbr_memory_reset_peak(int device);
LBR_API void lbr_memory_trim(int device);
/* Tests: the nth allocation from now on fails (0 = never); -n: the nth and all after it. */
LBR_API void lbr_memory_fail_at(int64_t n);

/* ---- devices beside the CPU ---- */
/* Opens the library of CUDA devices; returns how many are usable. Errors: LBR_EDEVICE with what was looked for and found. */
LBR_API int lbr_device_open(const char *library);
/* "cpu", "cuda:0"; and one line about a device. */
LBR_API const char *lbr_device_label(int device);
LBR_API int lbr_device_describe(int device, char *text, int room);
/* Waits for all queued work. Errors: LBR_EDEVICE. */
LBR_API int lbr_device_synchronize(int device);
/* Copies bytes between devices; both contiguous, of one shape and dtype. To the CPU: waits for the work before it. Errors: LBR_ESHAPE, LBR_EDEVICE. */
LBR_API int lbr_transfer(const lbr_tensor *from, lbr_tensor *to);
/* Tests: the nth device allocation from now on fails (0 = never); -n: the nth and all after it. */
LBR_API void lbr_device_fail_at(int64_t n);

/* ---- ops: one attribute struct and one typed door a row of ops.def ---- */
#define ATTR(type, name) type name;
#define ATTRS(type, name, n) type name[n];
#define LBR_OP(name, ins, outs, attrs, flags) typedef struct lbr_##name##_attr { attrs int32_t unused_; } lbr_##name##_attr;
#include "ops.def"
#undef LBR_OP
#undef ATTR
#undef ATTRS

#define IN(name) const lbr_tensor *name,
#define OPT(name) const lbr_tensor *name,
#define OUT(name) lbr_tensor *name,
#define LBR_OP(name, ins, outs, attrs, flags) LBR_API int lbr_##name(ins outs const lbr_##name##_attr *attr);
#include "ops.def"
#undef LBR_OP
#undef IN
#undef OPT
#undef OUT

/* Row i of ops.def (0-based; NULL past the end): names separated by blanks, optional inputs end in '?'. */
typedef struct lbr_op_row {
    const char *name, *inputs, *outputs, *attributes;
    int32_t attribute_bytes;
} lbr_op_row;
LBR_API const lbr_op_row *lbr_op_info(int i);

/* on = 1: from now on ops check and infer, but no kernel runs and what they make has no memory: a network's shapes. Returns what was set before. */
LBR_API int lbr_dry_run(int on);

/* ---- recording: a plan is the list of calls that ops append while recording ---- */
typedef struct lbr_plan lbr_plan;
typedef struct lbr_plan_call {
    const char *name;
    int32_t inputs, outputs;
    const lbr_tensor *in, *out;
    double seconds;   /* of the last timed run */
    double flops;     /* floating point operations by the op's own count; 0 = not counted */
    int64_t bytes;    /* read and written */
} lbr_plan_call;
/* lazily: calls are checked and written down, and run for the first time by the plan, so that memory of what only the plan holds is never touched but in its arena. Of the CPU alone. */
LBR_API lbr_plan *lbr_record_begin(int lazily);
/* Ends recording, gives internal storages places in one arena by liveness. */
LBR_API int lbr_record_end(lbr_plan *plan);
LBR_API void lbr_record_abort(lbr_plan *plan);
LBR_API int lbr_recording(void);
LBR_API int lbr_plan_run(lbr_plan *plan);
LBR_API int lbr_plan_time(lbr_plan *plan);
LBR_API int lbr_plan_size(const lbr_plan *plan);
LBR_API int lbr_plan_at(const lbr_plan *plan, int i, lbr_plan_call *call);
LBR_API int64_t lbr_plan_arena(const lbr_plan *plan);
/* Runs the plan call by call against the slow twins; *index = first call (0-based) whose relative difference exceeds tolerance, -1 = none. */
LBR_API int lbr_plan_compare(lbr_plan *plan, double tolerance, int *index, double *difference);
/* Likewise against the kernels of another device, each call from the same inputs. Errors: LBR_EDEVICE, LBR_ENOMEM, LBR_EUNSUPPORTED. */
LBR_API int lbr_plan_compare_device(lbr_plan *plan, int device, double tolerance, int *index, double *difference);
/* The device of all calls; -1: of several, or no call. */
LBR_API int lbr_plan_device(const lbr_plan *plan);
/* A batch of `rows` through `count` plans of one row each, recorded from one function, a row on each core (count at least the smaller of rows and lbr_threads()).
 * own: of each plan its inputs, then its outputs; batch: inputs and outputs whose rows those are; all contiguous. The same bits as row by row.
 * Errors: LBR_EINVAL, LBR_ESHAPE, LBR_EUNSUPPORTED (a call uses what works for one plan at a time: oneDNN, 16-bit operands that are widened), LBR_EINTR, and those of the calls; outputs are undefined then. */
LBR_API int lbr_plan_rows(lbr_plan *const *plans, int count, lbr_tensor *const *own, int inputs, int outputs, lbr_tensor *const *batch, int rows);
LBR_API void lbr_plan_free(lbr_plan *plan);
/* After every op: the first op that makes a NaN from inputs without one fails by name. */
LBR_API void lbr_debug_nan(int on);

/* ---- host-side helpers ---- */
/* Philox 4x32-10 block: out[4] from a 64-bit key and a 128-bit counter. Source: Salmon et al., SC 2011. */
LBR_API void lbr_philox(uint64_t key, uint64_t counter_low, uint64_t counter_high, uint32_t *out);
/* CRC-free content hash of n bytes, chained by seed; not cryptographic (keys of in-memory caches only). */
LBR_API uint64_t lbr_hash(const void *bytes, int64_t n, uint64_t seed);
/* Seconds of a monotonic clock. */
LBR_API double lbr_clock(void);

/* reader */
/* A file's bytes, read with checks. Offsets and sizes are doubles holding whole numbers of bytes, so that a Lua number arrives unchanged and a negative, broken or
 * NaN one is refused. Every function returns LBR_EFORMAT, naming the offset and what was wanted, where the file does not hold what was asked for. */
typedef struct lbr_reader lbr_reader;

/* Kinds of number in a file, little endian. */
enum {
    LBR_READ_U8, LBR_READ_I8, LBR_READ_U16, LBR_READ_I16, LBR_READ_U32, LBR_READ_I32, LBR_READ_U64, LBR_READ_I64,
    LBR_READ_F16, LBR_READ_BF16, LBR_READ_F32, LBR_READ_F64, LBR_READ_KINDS
};

/* Maps a regular file read-only. path: a name for errors too. The file must not be shortened while it is open (replace files by rename).
 * Errors: LBR_EIO (missing, unreadable, a folder), LBR_EFORMAT (empty), LBR_ENOMEM. */
LBR_API int lbr_reader_open(const char *path, lbr_reader **out);
/* The same over a copy of `size` bytes in memory; name: for errors. Errors: LBR_ENOMEM, LBR_EFORMAT (empty). */
LBR_API int lbr_reader_memory(const char *name, const void *bytes, size_t size, lbr_reader **out);
/* The same over the caller's own bytes, which stay as they are until the reader is closed. */
LBR_API int lbr_reader_borrow(const char *name, const void *bytes, size_t size, lbr_reader **out);
LBR_API void lbr_reader_close(lbr_reader *r); /* NULL is allowed */
LBR_API double lbr_reader_size(const lbr_reader *r);
LBR_API const char *lbr_reader_name(const lbr_reader *r);

/* One number of `kind` at byte `at`. 64-bit integers beyond 2^53 are refused: no size, count or offset in a file is that large. */
LBR_API int lbr_reader_number(const lbr_reader *r, double at, int kind, double *value);
/* `bytes` bytes from `at` into dst, which holds `capacity` bytes. */
LBR_API int lbr_reader_copy(const lbr_reader *r, double at, double bytes, void *dst, double capacity);
/* Where `bytes` bytes from `at` lie, until the reader is closed; NULL, with the error set, where the file does not hold them. */
LBR_API const void *lbr_reader_span(const lbr_reader *r, double at, double bytes);
/* `count` numbers of a floating kind from `at`, in their own kind, into dst, which holds `capacity` elements; any NaN becomes the plain quiet one of its sign. */
LBR_API int lbr_reader_reals(const lbr_reader *r, double at, double count, int kind, void *dst, double capacity);
/* `count` whole numbers of `kind` from `at` into dst, which holds `capacity` elements. What does not fit an int32 is refused. */
LBR_API int lbr_reader_i32(const lbr_reader *r, double at, double count, int kind, int32_t *dst, double capacity);
/* end reader */

/* ---- plan files: a network, its weights and its plan in one file that runs without Lua; docs/FORMATS.md has the layout ----
 * In C:  lbr_plan *plan;
 *        if (lbr_plan_open("network.plan", &plan)) puts(lbr_error());
 *        lbr_plan_apply(plan, (const void *[]){pixels}, (void *[]){scores});
 *        lbr_plan_free(plan);
 * Plans are made, opened and run by one thread; a run spreads over lbr_threads() of its own. */
typedef struct lbr_plan_value {
    const char *name; /* as long as the plan is open */
    int32_t dtype, ndim;
    int32_t shape[6];
    int64_t bytes;
} lbr_plan_value;
/* A named tensor of a recorded plan. */
typedef struct lbr_plan_port {
    const char *name;
    const lbr_tensor *tensor;
} lbr_plan_port;
/* Writes a recorded plan of the CPU: its calls, what they read that no call has made before (weights), its inputs (whole tensors) and outputs. The file appears under
 * its name at once: give a temporary one and rename it. Errors: LBR_EDEVICE, LBR_EUNSUPPORTED, LBR_EINVAL (no call, an input that is a part of a tensor), LBR_EIO, LBR_ENOMEM. */
LBR_API int lbr_plan_write(const lbr_plan *plan, const char *path, const lbr_plan_port *inputs, int n, const lbr_plan_port *outputs, int m);
/* Opens such a file. Weights stay in the mapped file (replace it by rename); kernels repack theirs, and oneDNN makes its primitives anew, at the first run.
 * Every call is checked as when it was recorded. Errors: LBR_EIO, LBR_EFORMAT (not a plan file, broken), LBR_EUNSUPPORTED (of another version), LBR_ENOMEM. */
LBR_API int lbr_plan_open(const char *path, lbr_plan **plan);
/* The same from a reader, which belongs to the plan from now on, also where this fails. */
LBR_API int lbr_plan_read(lbr_reader *reader, lbr_plan **plan);
/* Number of inputs and outputs; 0 of a plan that was recorded here. */
LBR_API int lbr_plan_inputs(const lbr_plan *plan);
LBR_API int lbr_plan_outputs(const lbr_plan *plan);
/* Name, dtype, shape and bytes of input or output i, from 0. Errors: LBR_EINVAL. */
LBR_API int lbr_plan_input(const lbr_plan *plan, int i, lbr_plan_value *value);
LBR_API int lbr_plan_output(const lbr_plan *plan, int i, lbr_plan_value *value);
/* Runs an opened plan: in[i] has the bytes of input i, out[i] takes those of output i, both in C order; in and out must not overlap. An out[i] of NULL is left out.
 * Errors: LBR_EINVAL, LBR_EINTR, what the ops say. */
LBR_API int lbr_plan_apply(lbr_plan *plan, const void *const *in, void *const *out);

/* image */
/* A rotated rectangle in pixels of a picture: centre, sides, angle in radians clockwise (0 = upright). Borders: black, or the nearest edge pixel. */
typedef struct lbr_region { float x, y, width, height, angle; } lbr_region;
enum { LBR_BORDER_ZERO = 0, LBR_BORDER_REPLICATE = 1 };

/* Bilinear crop of a region, answering what OpenCV's warpPerspective on bytes does (source places in 1/32 pixel, results rounded to bytes).
 *   src [h,w,3] u8 in, `row` bytes from one row to the next      dst [oh,ow,3] u8 out, may not alias src
 * Errors: LBR_EINVAL, LBR_ESHAPE. */
LBR_API int lbr_crop_u8(const uint8_t *src, int32_t h, int32_t w, int64_t row, const lbr_region *region, int border, uint8_t *dst, int32_t oh, int32_t ow);
/* The same; dst [oh,ow,3] f32 = byte * scale + shift, rounded once. */
LBR_API int lbr_crop_f32(const uint8_t *src, int32_t h, int32_t w, int64_t row, const lbr_region *region, int border, float scale, float shift,
                         float *dst, int32_t oh, int32_t ow);
/* The square rectangle round a body: points[4] = its centre x, y and x, y of a point on the circle round it, pixels; half a side is 1.25 x their distance, turned so that the
 * second lies upwards -> rect[5] = centre x, y, width, height (fractions of the picture's), angle. Returns twice the distance. */
LBR_API float lbr_region_rect(const float *points, int32_t width, int32_t height, float *rect);
/* The square in pixels round such a rectangle. */
LBR_API void lbr_region_square(const float *rect, int32_t width, int32_t height, lbr_region *region);
/* RGB bytes [h,w,3] to Cairo's CAIRO_FORMAT_RGB24 / ARGB32 (opaque) pixels [h,w] and back (alpha dropped); from, to: bytes from row to row. */
LBR_API int lbr_rgb_to_bgrx(const uint8_t *src, int64_t from, uint8_t *dst, int64_t to, int32_t h, int32_t w);
LBR_API int lbr_bgrx_to_rgb(const uint8_t *src, int64_t from, uint8_t *dst, int64_t to, int32_t h, int32_t w);
/* end image */

/* loader */
/* Batches of windows, gathered by background threads ahead of their use. Window w of a stream is the `window` frames from start[w] on of sequence[w].
 * The data and slots belong to the caller and outlive the loader; everything else is copied. */
typedef struct lbr_loader lbr_loader;
typedef struct lbr_loader_options {
    int32_t streams, sequences, windows, window, batch, depth, workers; /* workers 0: gathered when asked for; else depth >= 2 */
    const int64_t *row_bytes;         /* [streams] bytes of a frame */
    const void *const *data;          /* [streams][sequences] first frame */
    const int32_t *frames;            /* [sequences] frames, the same in all streams */
    const int32_t *sequence, *start;  /* [windows] from 0 */
    void *const *slots;               /* [depth][streams] room for batch * window frames */
} lbr_loader_options;
/* Errors: LBR_EINVAL (a window outside its sequence, nothing to load), LBR_ENOMEM. */
LBR_API int lbr_loader_new(const lbr_loader_options *o, lbr_loader **out);
/* Begins an epoch at its batch `first` (from 0); what is left of the one before is dropped. shuffle != 0: window of position i is lbr_permute(seed, epoch, windows, i).
 * Errors: LBR_EINVAL (first beyond the last batch). */
LBR_API int lbr_loader_start(lbr_loader *l, uint64_t seed, uint32_t epoch, int32_t shuffle, int32_t first);
/* The next batch: windows lie in the buffers of *slot, *count of them (the last batch may be short), until the next call. Errors: LBR_EEND, LBR_EINTR. */
LBR_API int lbr_loader_next(lbr_loader *l, int32_t *slot, int32_t *count);
LBR_API void lbr_loader_free(lbr_loader *l); /* NULL is allowed */
/* Position i of a random order of 0 .. n-1 that depends on seed and epoch alone. Source: Black & Rogaway 2002 (cycle-walking Feistel network). */
LBR_API uint32_t lbr_permute(uint64_t seed, uint32_t epoch, uint32_t n, uint32_t i);
/* end loader */

#endif
