/* run_plan.c: runs a plan file without Lua on a picture, on raw bytes or on random numbers, and prints what comes out. An example; not part of the library.
 *
 *   cc -Icsrc examples/run_plan.c -o run_plan -Lbuild -l:libration_core.so -Wl,-rpath,"$PWD/build"
 *   ./run_plan NETWORK.plan [INPUT [OUTPUT]]
 *
 * INPUT: a binary .ppm, whose pixels / 255 fill the first input ([B,3,H,W] or [B,H,W,3] f32, resized to the nearest pixel), or a file with the bytes of all inputs one
 * after another. OUTPUT: file for the bytes of all outputs one after another. */
#include "libration.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *what)
{
    fprintf(stderr, "run_plan: %s\n", what);
    exit(1);
}

static void check(int rc)
{
    if (rc) fail(lbr_error());
}

static void print_value(const char *what, const lbr_plan_value *v)
{
    static const char *const names[LBR_DTYPES] = {"f32", "f64", "f16", "bf16", "u8", "i32"};
    printf("%s %s %s [", what, v->name, names[v->dtype]);
    for (int d = 0; d < v->ndim; d++) printf("%s%d", d ? "," : "", v->shape[d]);
    printf("]");
}

/* The same numbers every run: a ramp with jumps in f32, zeros and ones else. */
static void make_up(const lbr_plan_value *v, void *to)
{
    uint32_t state = 1;
    for (int64_t i = 0; i < v->bytes / lbr_dtype_size(v->dtype); i++) {
        state = state * 1664525u + 1013904223u;
        if (v->dtype == LBR_F32) ((float *)to)[i] = (float)(state >> 8) / (1 << 24);
        else if (v->dtype == LBR_F64) ((double *)to)[i] = (double)(state >> 8) / (1 << 24);
        else if (v->dtype == LBR_I32) ((int32_t *)to)[i] = (int32_t)(state >> 31);
        else if (v->dtype == LBR_U8) ((uint8_t *)to)[i] = (uint8_t)(state >> 31);
        else memset((char *)to + 2 * i, 0, 2);
    }
}

/* A binary PPM of 8 bits into an input of three channels. */
static void picture(FILE *file, const lbr_plan_value *v, float *to)
{
    int width, height, most, first = v->ndim == 4 && v->shape[1] == 3;
    if (fscanf(file, "P6 %d %d %d", &width, &height, &most) != 3 || most != 255 || width < 1 || height < 1 || width > 32768 || height > 32768) fail("the picture is no binary PPM of 8 bits");
    fgetc(file);
    if (v->dtype != LBR_F32 || v->ndim != 4 || !(first || v->shape[3] == 3)) fail("the first input is no f32 picture of three channels");
    size_t bytes = 3 * (size_t)width * (size_t)height;
    unsigned char *pixels = malloc(bytes);
    if (!pixels || fread(pixels, 1, bytes, file) != bytes) fail("the picture ends too early");
    int h = v->shape[first ? 2 : 1], w = v->shape[first ? 3 : 2];
    for (int b = 0; b < v->shape[0]; b++)
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++)
                for (int c = 0; c < 3; c++) {
                    const unsigned char *p = pixels + 3 * ((size_t)((int64_t)y * height / h) * (size_t)width + (size_t)((int64_t)x * width / w));
                    size_t at = first ? (((size_t)b * 3 + (size_t)c) * (size_t)h + (size_t)y) * (size_t)w + (size_t)x : (((size_t)b * (size_t)h + (size_t)y) * (size_t)w + (size_t)x) * 3 + (size_t)c;
                    to[at] = (float)p[c] / 255;
                }
    free(pixels);
}

int main(int argc, char **argv)
{
    lbr_plan *plan;
    lbr_plan_value v;
    if (argc < 2) fail("NETWORK.plan [INPUT [OUTPUT]]");
    check(lbr_plan_open(argv[1], &plan));
    int n = lbr_plan_inputs(plan), m = lbr_plan_outputs(plan);
    void **in = calloc((size_t)n + 1, sizeof *in), **out = calloc((size_t)m + 1, sizeof *out);
    if (!in || !out) fail("out of memory");

    FILE *file = argc > 2 ? fopen(argv[2], "rb") : NULL;
    if (argc > 2 && !file) fail("cannot read INPUT");
    int is_picture = file && strlen(argv[2]) > 4 && !strcmp(argv[2] + strlen(argv[2]) - 4, ".ppm");
    for (int i = 0; i < n; i++) {
        check(lbr_plan_input(plan, i, &v));
        if (!(in[i] = malloc((size_t)v.bytes + 1))) fail("out of memory");
        if (is_picture && i == 0) picture(file, &v, in[i]);
        else if (file && !is_picture && fread(in[i], 1, (size_t)v.bytes, file) != (size_t)v.bytes) fail("INPUT ends too early");
        else if (!file || is_picture) make_up(&v, in[i]);
        print_value("input", &v);
        puts("");
    }
    if (file) fclose(file);
    for (int i = 0; i < m; i++) {
        check(lbr_plan_output(plan, i, &v));
        if (!(out[i] = malloc((size_t)v.bytes + 1))) fail("out of memory");
    }

    double start = lbr_clock();
    check(lbr_plan_apply(plan, (const void *const *)in, out));
    double seconds = lbr_clock() - start;

    file = argc > 3 ? fopen(argv[3], "wb") : NULL;
    if (argc > 3 && !file) fail("cannot write OUTPUT");
    for (int i = 0; i < m; i++) {
        check(lbr_plan_output(plan, i, &v));
        print_value("output", &v);
        int64_t count = v.bytes / lbr_dtype_size(v.dtype);
        for (int64_t k = 0; k < count && k < 5; k++)
            if (v.dtype == LBR_F32) printf(" %.9g", ((float *)out[i])[k]);
            else if (v.dtype == LBR_I32) printf(" %d", ((int32_t *)out[i])[k]);
            else if (v.dtype == LBR_U8) printf(" %d", ((uint8_t *)out[i])[k]);
        puts(count > 5 ? " ..." : "");
        if (file && fwrite(out[i], 1, (size_t)v.bytes, file) != (size_t)v.bytes) fail("cannot write OUTPUT");
    }
    if (file && fclose(file)) fail("cannot write OUTPUT");
    printf("%.2f ms\n", seconds * 1e3);

    for (int i = 0; i < n; i++) free(in[i]);
    for (int i = 0; i < m; i++) free(out[i]);
    free(in), free(out);
    lbr_plan_free(plan);
    return 0;
}
