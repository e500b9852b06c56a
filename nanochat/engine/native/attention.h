// Attention of one token at a time over the pages of its sequence.
#pragma once

#include "model.h"

// A head's part of a key is a short piece every `stride` elements, which the processor's own prefetching does not follow.
// Asking for the piece eight keys ahead took attention from 7 to 17 GB/s.
INLINE void prefetch_ahead(const void *base, int64_t at, int64_t stride, int kind) {
    const int64_t ahead = at + 8 * stride;
    __builtin_prefetch(kind == F32 ? (const char *)base + ahead * 4 : (const char *)base + ahead * 2, 0, 3);
}

// Scores of `n` neighbouring keys for one query head
INLINE void score(const float *q, const void *keys, int64_t at, int64_t stride, int64_t e, int kind, int64_t n,
                  float *to) {
    for (int64_t p = 0; p < n; p++, at += stride) {
        vf dot = {0};
        for (int64_t i = 0; i < e; i += LANES) {
            dot += load(keys, at + i, kind) * load(q, i, F32);
            if (kind == F32 || i % (2 * LANES) == 0) prefetch_ahead(keys, at + i, stride, kind);
        }
        to[p] = sum(dot);
    }
}

// out (parts * LANES) += weights of `n` neighbouring values times the values; `parts` is a constant where it is inlined
INLINE void mix(const float *weights, const void *values, int64_t at, int64_t stride, int kind, int64_t n, float *out,
                int parts) {
    vf total[8];
#pragma GCC unroll 8
    for (int part = 0; part < parts; part++) total[part] = load(out, part * LANES, F32);
    for (int64_t p = 0; p < n; p++, at += stride) {
        vf weight = all(weights[p]);
#pragma GCC unroll 8
        for (int part = 0; part < parts; part++) {
            total[part] += weight * load(values, at + part * LANES, kind);
            if (kind == F32 || part % 2 == 0) prefetch_ahead(values, at + part * LANES, stride, kind);
        }
    }
#pragma GCC unroll 8
    for (int part = 0; part < parts; part++) store_f32(out + part * LANES, total[part]);
}

// scores (n, room up to a multiple of LANES) become weights that add up to 1
static void softmax(float *scores, int64_t n) {
    float highest = -INFINITY;
    vf total = {0};
    for (int64_t p = 0; p < n; p++) highest = scores[p] > highest ? scores[p] : highest;
    for (int64_t p = n; p % LANES; p++) scores[p] = -INFINITY;
    for (int64_t p = 0; p < n; p += LANES) {
        vf weight = exponential(load(scores, p, F32) - highest);
        for (int64_t i = n - p; i < LANES; i++) weight[i] = 0;
        store_f32(scores + p, weight);
        total += weight;
    }
    vf scale = all(1.0f / sum(total));
    for (int64_t p = 0; p < n; p += LANES) store_f32(scores + p, load(scores, p, F32) * scale);
}

// The query heads that share key/value head g, for token t, over all positions its window covers, page by page
INLINE void attend_as(const Run *run, int64_t layer, int64_t t, int64_t g, int64_t e, int kind) {
    const Model *m = run->model;
    const Step *s = run->step;
    const int64_t group = m->n_head / m->n_kv_head, stride = m->n_kv_head * e, size = s->page_tokens;
    const int64_t end = s->positions[t] + 1, window = m->layers[layer].window, *table = s->tables + s->table_start[t];
    const int64_t first = window >= 0 && end - 1 > window ? end - 1 - window : 0;
    const float *q = s->q + (t * m->n_head + g * group) * e;
    float *scores = s->scores + run->member * group * s->longest, *y = s->y + (t * m->n_head + g * group) * e;
    for (int64_t p = first, stop; p < end; p = stop) {
        const int64_t page = p / size, at = (table[page] * size + p % size) * stride + g * e;
        stop = (page + 1) * size < end ? (page + 1) * size : end;
        for (int64_t j = 0; j < group; j++)
            score(q + j * e, s->keys[layer], at, stride, e, kind, stop - p, scores + j * s->longest + p - first);
    }
    for (int64_t j = 0; j < group; j++) softmax(scores + j * s->longest, end - first);
    memset(y, 0, group * e * sizeof(float));
    for (int64_t p = first, stop; p < end; p = stop) {
        const int64_t page = p / size, at = (table[page] * size + p % size) * stride + g * e;
        stop = (page + 1) * size < end ? (page + 1) * size : end;
        for (int64_t j = 0; j < group; j++) {
            const float *weights = scores + j * s->longest + p - first;
            int64_t i = 0;
            for (; i + 8 * LANES <= e; i += 8 * LANES)
                mix(weights, s->values[layer], at + i, stride, kind, stop - p, y + j * e + i, 8);
            for (; i < e; i += LANES) mix(weights, s->values[layer], at + i, stride, kind, stop - p, y + j * e + i, 1);
        }
    }
}

static void attend(const Run *run, int64_t layer, int64_t t, int64_t g) {
    const int64_t e = run->model->head_dim;
    const int kind = (int)run->step->kv_kind;
    if (e == 128 && kind == BF16) attend_as(run, layer, t, g, 128, BF16); // constants, for loops without a test
    else if (e == 128) attend_as(run, layer, t, g, 128, F32);
    else attend_as(run, layer, t, g, e, kind);
}
