/* voice.c: speech whose speaker cannot be known: a noise vocoder. Each 20 ms keep the energy of 16 bands; pitch, phase and what lies inside a band are
 * thrown away and noise takes their place, so nothing can be computed back. Words, accent and rhythm stay. Source: Shannon et al. 1995. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <libavutil/mem.h>
#include <libavutil/tx.h>
#include "internal.h"

enum { BANDS = 16, CHANNELS = 2 };
#define LOWEST 80.0
#define HIGHEST 7000.0

struct lbr_voice {
    int channels, size, hop;  /* samples of a window, and from one to the next */
    int edges[BANDS + 1];     /* first bin of each band */
    float *window;
    float *past[CHANNELS], *sum[CHANNELS], *ready[CHANNELS];
    int filled, held;         /* new samples since the last window; samples in ready */
    int64_t in, out;
    bool begun;
    AVComplexFloat *time, *bins;
    struct AVTXContext *forward, *backward;
    av_tx_fn to_bins, to_time;
    uint64_t random;
};

static double mel(double hertz) { return 2595 * log10(1 + hertz / 700); }
static double hertz(double mel) { return 700 * (pow(10, mel / 2595) - 1); }

/* -sqrt(3)..sqrt(3): variance 1. xorshift64*. Source: Vigna 2016. */
static float noise(struct lbr_voice *v)
{
    v->random ^= v->random >> 12;
    v->random ^= v->random << 25;
    v->random ^= v->random >> 27;
    return (float)(((double)(v->random * 2685821657736338717u >> 11) / 9007199254740992.0 * 2 - 1) * 1.7320508075688772);
}

struct lbr_voice *lbr_voice_open(int rate, int channels)
{
    struct lbr_voice *v = calloc(1, sizeof *v);
    if (!v) return NULL;
    v->channels = channels;
    v->size = 1 << (int)lrint(log2(rate * 0.021));
    v->hop = v->size / 2;
    v->random = 88172645463325252u;
    double top = mel(fmin(HIGHEST, 0.5 * rate)), bottom = mel(LOWEST);
    for (int b = 0; b <= BANDS; b++) {
        int bin = (int)lrint(hertz(bottom + (top - bottom) * b / BANDS) * v->size / rate);
        int least = b > 0 ? v->edges[b - 1] + 1 : 1;
        v->edges[b] = bin < least ? least : bin > v->hop ? v->hop : bin;
    }
    float one = 1;
    bool whole = av_tx_init(&v->forward, &v->to_bins, AV_TX_FLOAT_FFT, 0, v->size, &one, 0) >= 0 &&
                 av_tx_init(&v->backward, &v->to_time, AV_TX_FLOAT_FFT, 1, v->size, &one, 0) >= 0;
    size_t n = (size_t)v->size;
    v->window = malloc(n * sizeof *v->window);
    v->time = av_malloc(n * sizeof *v->time);
    v->bins = av_malloc(n * sizeof *v->bins);
    whole = whole && v->window && v->time && v->bins;
    for (int c = 0; c < channels; c++) {
        v->past[c] = calloc(n, sizeof(float));
        v->sum[c] = calloc(n, sizeof(float));
        v->ready[c] = calloc(n, sizeof(float));
        whole = whole && v->past[c] && v->sum[c] && v->ready[c];
    }
    if (!whole) {
        lbr_voice_close(v);
        return NULL;
    }
    for (int i = 0; i < v->size; i++) v->window[i] = (float)sin(M_PI * (i + 0.5) / v->size);
    return v;
}

/* Noise with the bands' energies in place of the spectrum. */
static void exchange(struct lbr_voice *v)
{
    AVComplexFloat *bins = v->bins;
    memset(v->time, 0, (size_t)v->size * sizeof *v->time);
    for (int b = 0; b < BANDS; b++) {
        int first = v->edges[b], end = v->edges[b + 1];
        if (first >= end) continue;
        double energy = 0;
        for (int k = first; k < end; k++) energy += (double)bins[k].re * bins[k].re + (double)bins[k].im * bins[k].im;
        float level = isfinite(energy) ? (float)(sqrt(energy / (end - first)) / v->size) : 0;   /* 2 lost to both windows, 2 to two parts of a bin */
        for (int k = first; k < end; k++) {
            AVComplexFloat y = { noise(v) * level, noise(v) * level };
            v->time[k] = y;
            v->time[v->size - k] = (AVComplexFloat){ y.re, -y.im };
        }
    }
    v->to_time(v->backward, bins, v->time, sizeof(AVComplexFloat));
}

static void step(struct lbr_voice *v)
{
    for (int c = 0; c < v->channels; c++) {
        for (int i = 0; i < v->size; i++) v->time[i] = (AVComplexFloat){ v->past[c][i] * v->window[i], 0 };
        v->to_bins(v->forward, v->bins, v->time, sizeof(AVComplexFloat));
        exchange(v);
        for (int i = 0; i < v->size; i++) v->sum[c][i] += v->bins[i].re * v->window[i];
        if (v->begun) memcpy(v->ready[c] + v->held, v->sum[c], (size_t)v->hop * sizeof(float));
        memmove(v->sum[c], v->sum[c] + v->hop, (size_t)v->hop * sizeof(float));
        memset(v->sum[c] + v->hop, 0, (size_t)v->hop * sizeof(float));
        memmove(v->past[c], v->past[c] + v->hop, (size_t)v->hop * sizeof(float));
    }
    if (v->begun) v->held += v->hop;
    v->begun = true;
    v->filled = 0;
}

static int take(struct lbr_voice *v, float **planes, int at, int n)
{
    if (n > v->held) n = v->held;
    for (int c = 0; c < v->channels; c++) {
        memcpy(planes[c] + at, v->ready[c], (size_t)n * sizeof(float));
        memmove(v->ready[c], v->ready[c] + n, (size_t)(v->held - n) * sizeof(float));
    }
    v->held -= n;
    v->out += n;
    return n;
}

int lbr_voice_run(struct lbr_voice *v, float **planes, int n)
{
    int given = 0;
    for (int used = 0; used < n;) {
        int part = v->hop - v->filled < n - used ? v->hop - v->filled : n - used;
        for (int c = 0; c < v->channels; c++) memcpy(v->past[c] + v->hop + v->filled, planes[c] + used, (size_t)part * sizeof(float));
        v->filled += part;
        used += part;
        v->in += part;
        if (v->filled == v->hop) step(v);
        given += take(v, planes, given, used - given);
    }
    return given;
}

int lbr_voice_rest(struct lbr_voice *v, float **planes, int n)
{
    if (v->in == v->out) return 0;
    if (v->held == 0) {   /* silence behind the end brings it out */
        for (int c = 0; c < v->channels; c++) memset(v->past[c] + v->hop + v->filled, 0, (size_t)(v->hop - v->filled) * sizeof(float));
        step(v);
        if (v->held == 0) step(v);
    }
    int64_t left = v->in - v->out;
    return take(v, planes, 0, left < n ? (int)left : n);
}

void lbr_voice_close(struct lbr_voice *v)
{
    if (!v) return;
    av_tx_uninit(&v->forward);
    av_tx_uninit(&v->backward);
    for (int c = 0; c < v->channels; c++) {
        free(v->past[c]);
        free(v->sum[c]);
        free(v->ready[c]);
    }
    free(v->window);
    av_free(v->time);
    av_free(v->bins);
    free(v);
}
