// Attention over the pages of a sequence, for a few queries at a time that share a key/value head: neighbouring tokens
// of one sequence, and the query heads of a group. Keys and values are read once for all of them, four at a time.
//
// Each score, each softmax and each mixture adds up in the same order whatever the block, so a token read in a prompt
// leaves the same traces as one decoded alone.
#pragma once

#include "model.h"

#define QUERIES 4 // that share a pass over the keys
#define MAX_QUERIES 64

// Sums of 16 vectors, each in the order in which `sum` adds
INLINE vf sums(const vf *v) {
#ifdef __AVX512F__
    __m512 a[8], b[4], c[2];
    for (int i = 0; i < 8; i++) {
        const __m512 x = (__m512)v[i / 4 * 8 + i % 4], y = (__m512)v[i / 4 * 8 + i % 4 + 4];
        a[i] = _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x44), _mm512_shuffle_f32x4(x, y, 0xEE));
    }
    for (int i = 0; i < 4; i++)
        b[i] = _mm512_add_ps(_mm512_shuffle_f32x4(a[i], a[i + 4], 0x88), _mm512_shuffle_f32x4(a[i], a[i + 4], 0xDD));
    for (int i = 0; i < 2; i++)
        c[i] = _mm512_add_ps(_mm512_shuffle_ps(b[2 * i], b[2 * i + 1], 0x44),
                             _mm512_shuffle_ps(b[2 * i], b[2 * i + 1], 0xEE));
    return (vf)_mm512_add_ps(_mm512_shuffle_ps(c[0], c[1], 0x88), _mm512_shuffle_ps(c[0], c[1], 0xDD));
#else
    vf result = {0};
    for (int i = 0; i < 16; i++) result[i] = sum(v[i]);
    return result;
#endif
}

// A head's part of a key is a short piece every `stride` elements, which the processor's own prefetching does not
// follow. Asking for the piece eight keys ahead took attention from 7 to 17 GB/s.
INLINE void prefetch_ahead(const void *base, int64_t at, int64_t stride, int kind) {
    const int64_t ahead = at + 8 * stride;
    __builtin_prefetch(kind == F32 ? (const char *)base + ahead * 4 : (const char *)base + ahead * 2, 0, 3);
}

// Scores of four neighbouring keys for n queries (a constant where it is inlined), each query's into its own row of
// `to`
INLINE void score(const float *const *q, int n, const void *keys, int64_t at, int64_t stride, int64_t e, int kind,
                  float **to, int64_t column) {
    vf dot[16];
#pragma GCC unroll 16
    for (int i = 0; i < 4 * n; i++) dot[i] = (vf){0};
    for (int64_t i = 0; i < e; i += LANES) {
        vf key[4];
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            key[k] = load(keys, at + k * stride + i, kind);
            if (kind == F32 || i % (2 * LANES) == 0) prefetch_ahead(keys, at + k * stride + i, stride, kind);
        }
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) {
            const vf query = load(q[j], i, F32);
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) dot[4 * j + k] += key[k] * query;
        }
    }
    if (n == QUERIES) {
        const vf all_sums = sums(dot);
        for (int j = 0; j < n; j++) memcpy(to[j] + column, (const float *)&all_sums + 4 * j, 4 * sizeof(float));
    } else {
        for (int i = 0; i < 4 * n; i++) to[i / 4][column + i % 4] = sum(dot[i]);
    }
}

// For n queries: out (parts * LANES) += weights of `count` neighbouring values times the values
INLINE void mix(float *const *weights, int n, int64_t column, const void *values, int64_t at, int64_t stride, int kind,
                int64_t count, float *const *out, int64_t i, int parts) {
    vf total[16];
#pragma GCC unroll 16
    for (int part = 0; part < n * parts; part++) total[part] = load(out[part / parts], i + part % parts * LANES, F32);
    for (int64_t p = 0; p < count; p++, at += stride) {
        vf value[8];
#pragma GCC unroll 8
        for (int part = 0; part < parts; part++) {
            value[part] = load(values, at + i + part * LANES, kind);
            if (kind == F32 || part % 2 == 0) prefetch_ahead(values, at + i + part * LANES, stride, kind);
        }
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) {
            const vf weight = all(weights[j][column + p]);
#pragma GCC unroll 8
            for (int part = 0; part < parts; part++) total[j * parts + part] += weight * value[part];
        }
    }
#pragma GCC unroll 16
    for (int part = 0; part < n * parts; part++) store_f32(out[part / parts] + i + part % parts * LANES, total[part]);
}

INLINE void mix_all(float *const *weights, int n, int64_t column, const void *values, int64_t at, int64_t stride,
                    int64_t e, int kind, int64_t count, float *const *out) {
    int64_t i = 0;
    if (n == 1)
        for (; i + 8 * LANES <= e; i += 8 * LANES) mix(weights, 1, column, values, at, stride, kind, count, out, i, 8);
    for (; i + 4 * LANES <= e; i += 4 * LANES) mix(weights, n, column, values, at, stride, kind, count, out, i, 4);
    for (; i < e; i += LANES) mix(weights, n, column, values, at, stride, kind, count, out, i, 1);
}

// scores (n, a multiple of LANES), of which `from` to `to` - 1 count, become weights that add up to 1
static void softmax(float *scores, int64_t from, int64_t to, int64_t n) {
    float highest = -INFINITY;
    vf total = {0};
    for (int64_t p = from; p < to; p++) highest = scores[p] > highest ? scores[p] : highest;
    memset(scores, 0, from * sizeof(float));
    memset(scores + to, 0, (n - to) * sizeof(float));
    for (int64_t p = from / LANES * LANES; p < to; p += LANES) {
        vf weight = exponential(load(scores, p, F32) - highest);
        if (p < from || p + LANES > to)
            for (int64_t i = 0; i < LANES; i++) weight[i] = p + i < from || p + i >= to ? 0 : weight[i];
        store_f32(scores + p, weight);
        total += weight;
    }
    vf scale = all(1.0f / sum(total));
    for (int64_t p = from / LANES * LANES; p < to; p += LANES) store_f32(scores + p, load(scores, p, F32) * scale);
}

// `count` neighbouring tokens of one sequence from token t on, with the query heads of key/value head g
INLINE void attend_as(const Run *run, int64_t layer, int64_t t, int64_t count, int64_t g, int64_t e, int kind) {
    const Model *m = run->model;
    const Step *s = run->step;
    const int64_t group = m->n_head / m->n_kv_head, stride = m->n_kv_head * e, size = s->page_tokens, n = count * group;
    const int64_t window = m->layers[layer].window, *table = s->tables + s->table_start[t];
    const int64_t position = s->positions[t], oldest = window >= 0 && position > window ? position - window : 0;
    const int64_t first_page = oldest / size, last_page = (position + count - 1) / size, base = first_page * size;
    const int64_t room = ((last_page + 1 - first_page) * size + LANES - 1) / LANES * LANES;
    const void *keys = s->keys[layer], *values = s->values[layer];
    const float *q[MAX_QUERIES];
    float *y[MAX_QUERIES], *scores[MAX_QUERIES];
    for (int64_t j = 0; j < n; j++) {
        const int64_t at = ((t + j / group) * m->n_head + g * group + j % group) * e;
        q[j] = s->q + at;
        y[j] = s->y + at;
        scores[j] = s->scores + (run->member * MAX_QUERIES + j) * s->longest;
        memset(y[j], 0, e * sizeof(float));
    }
    for (int64_t page = first_page; page <= last_page; page++) {
        const int64_t at = table[page] * size * stride + g * e, column = (page - first_page) * size;
        for (int64_t k = 0; k < size; k += 4) {
            int64_t j = 0;
            for (; j + QUERIES <= n; j += QUERIES)
                score(q + j, QUERIES, keys, at + k * stride, stride, e, kind, scores + j, column + k);
            for (; j < n; j++) score(q + j, 1, keys, at + k * stride, stride, e, kind, scores + j, column + k);
        }
    }
    for (int64_t j = 0; j < n; j++) {
        const int64_t end = position + j / group + 1, first = window >= 0 && end - 1 > window ? end - 1 - window : 0;
        softmax(scores[j], first - base, end - base, room);
    }
    for (int64_t page = first_page; page <= last_page; page++) {
        const int64_t at = table[page] * size * stride + g * e, column = (page - first_page) * size;
        const int64_t used = position + count - page * size < size ? position + count - page * size : size;
        int64_t j = 0;
        for (; j + QUERIES <= n; j += QUERIES)
            mix_all(scores + j, QUERIES, column, values, at, stride, e, kind, used, y + j);
        for (; j < n; j++) mix_all(scores + j, 1, column, values, at, stride, e, kind, used, y + j);
    }
}

static void attend(const Run *run, int64_t layer, int64_t t, int64_t count, int64_t g) {
    const int64_t e = run->model->head_dim;
    const int kind = (int)run->step->kv_kind;
    if (e == 128 && kind == BF16) attend_as(run, layer, t, count, g, 128, BF16); // constants, for loops without a test
    else attend_as(run, layer, t, count, g, e, kind);
}
