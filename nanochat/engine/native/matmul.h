// A few rows of activations times the transpose of a weight matrix: where a decoding step spends its time.
//
// Weights are read once, some neighbouring rows at a time, the next ones prefetched: without that one core got 9 of its
// 14.7 GB/s, with it 13.8.
#pragma once

#include "input.h"
#include "panels.h"
#include "tiles.h"

#define ROWS 4
#define CHUNK 64 // rows that a thread takes at a time

enum { FLOATS = 0, PAIRS = 1, BYTES = 2, TILES = 3, PANELS = 4 };

// In what form weights of this kind meet their activations on this processor
INLINE int form_of(int kind, int64_t n_tokens) {
    if (kind == F32) return FLOATS;
#ifdef __AVX512VNNI__
    if (kind == INT8 && n_tokens <= 4) return BYTES; // exact like the tiles, and faster for few
#endif
#ifdef __AMX_TILE__
    if (tiles_allowed()) return n_tokens <= TILE_ROWS ? TILES : PANELS;
#endif
#ifdef __AVX512BF16__
    if (kind == BF16) return PAIRS;
#endif
#ifdef __AVX512VNNI__
    if (kind == INT8) return BYTES;
#endif
    return FLOATS;
}

// The weights that come next, while these are used. Reading past the end of a matrix this way does nothing.
INLINE void prefetch_next(const void *at, int64_t tile_bytes) {
    __builtin_prefetch((const char *)at + tile_bytes, 0, 3);
}

// Each of these: ROWS rows of weights times n_tokens (a constant where it is inlined) rows of activations.

INLINE void floats(const Product *p, int kind, const int64_t *row, int64_t t0, int n_tokens, float *result) {
    const Matrix *w = p->w;
    const Input *input = p->input;
    vf total[ROWS][4];
    const int64_t n = w->columns, bytes = kind == F32 ? 4 : kind == BF16 ? 2 : 1;
    for (int r = 0; r < ROWS; r++)
        for (int t = 0; t < n_tokens; t++) total[r][t] = (vf){0};
    for (int64_t i = 0; i < n; i += LANES) {
        vf weight[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            weight[r] = load(w->data, row[r] * n + i, kind);
            prefetch_next((const char *)w->data + (row[r] * n + i) * bytes, ROWS * n * bytes);
        }
#pragma GCC unroll 4
        for (int t = 0; t < n_tokens; t++) {
            vf activation = load(input->floats, (t0 + t) * n + i, F32);
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++) total[r][t] += weight[r] * activation;
        }
    }
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < ROWS; r++)
            result[t * ROWS + r] = sum(total[r][t]) * (kind == INT8 ? w->scale[row[r]] : 1.0f);
}

INLINE void pairs(const Product *p, const int64_t *row, int64_t t0, int n_tokens, float *result) {
#ifdef __AVX512BF16__
    const Matrix *w = p->w;
    const Input *input = p->input;
    __m512 total[ROWS][4];
    const int64_t n = w->columns;
    for (int r = 0; r < ROWS; r++)
        for (int t = 0; t < n_tokens; t++) total[r][t] = _mm512_setzero_ps();
    for (int64_t i = 0; i < n; i += 2 * LANES) {
        __m512bh weight[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            const uint16_t *at = (const uint16_t *)w->data + row[r] * n + i;
            weight[r] = (__m512bh)_mm512_loadu_si512(at);
            prefetch_next(at, ROWS * n * 2);
        }
#pragma GCC unroll 4
        for (int t = 0; t < n_tokens; t++) {
            __m512bh activation = (__m512bh)_mm512_loadu_si512(input->packed + ((t0 + t) * n + i) * 2);
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++) total[r][t] = _mm512_dpbf16_ps(total[r][t], weight[r], activation);
        }
    }
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < ROWS; r++) result[t * ROWS + r] = _mm512_reduce_add_ps(total[r][t]);
#endif
}

INLINE void bytes(const Product *p, const int64_t *row, int64_t t0, int n_tokens, float *result) {
#ifdef __AVX512VNNI__
    const Matrix *w = p->w;
    const Input *input = p->input;
    __m512i high[ROWS][4], low[ROWS][4];
    const int64_t n = w->columns;
    for (int r = 0; r < ROWS; r++)
        for (int t = 0; t < n_tokens; t++) high[r][t] = low[r][t] = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += 4 * LANES) {
        __m512i weight[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            const int8_t *at = (const int8_t *)w->data + row[r] * n + i;
            weight[r] = _mm512_loadu_si512(at);
            prefetch_next(at, ROWS * n);
        }
#pragma GCC unroll 2
        for (int t = 0; t < n_tokens; t++) {
            const uint8_t *x = input->packed + (t0 + t) * n * 2 + i;
            __m512i x_high = _mm512_loadu_si512(x), x_low = _mm512_loadu_si512(x + n);
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++) {
                high[r][t] = _mm512_dpbusd_epi32(high[r][t], x_high, weight[r]);
                low[r][t] = _mm512_dpbusd_epi32(low[r][t], x_low, weight[r]);
            }
        }
    }
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < ROWS; r++) {
            int32_t h = _mm512_reduce_add_epi32(high[r][t]), l = _mm512_reduce_add_epi32(low[r][t]);
            result[t * ROWS + r] = unpacked(h, l, w, row[r]) * input->scale[t0 + t];
        }
#endif
}

// The products of ROWS rows with up to four tokens from t0 on; how many tokens that were
INLINE int some(const Product *p, int kind, int form, const int64_t *row, int64_t t0, float *result) {
    const int64_t most = form == BYTES ? 2 : 4, left = p->n_tokens - t0, n = left < most ? left : most;
#define WITH(count)                                                                                                    \
    if (n == count && form == PAIRS) pairs(p, row, t0, count, result);                                                 \
    else if (n == count && form == BYTES) bytes(p, row, t0, count, result);                                            \
    else if (n == count) floats(p, kind, row, t0, count, result);
    WITH(1)
    WITH(2)
    WITH(3)
    WITH(4)
#undef WITH
        return (int)n;
}

INLINE void rows_block(const Product *p, int kind, int form, int64_t first) {
    int64_t row[ROWS], n_rows = p->w->rows - first < ROWS ? p->w->rows - first : ROWS;
    for (int r = 0; r < ROWS; r++) row[r] = first + (r < n_rows ? r : 0);
    for (int64_t t0 = 0, n; t0 < p->n_tokens; t0 += n) {
        float result[ROWS * 4];
        n = some(p, kind, form, row, t0, result);
        for (int64_t t = 0; t < n; t++)
            for (int64_t r = 0; r < n_rows; r++) {
                float *to = p->out + (t0 + t) * p->stride + first + r;
                *to = finish(result[t * ROWS + r], *to, p->how);
            }
    }
}

// Rows `from` to `to` - 1 of the product, for each kind of weights and form of input: once each, constants inside
#define ROW_LOOP(name, kind, form)                                                                                     \
    static void name(const Product *p, int64_t from, int64_t to) {                                                     \
        for (int64_t i = from; i < to; i += ROWS) rows_block(p, kind, form, i);                                        \
    }
ROW_LOOP(rows_f32, F32, FLOATS)
ROW_LOOP(rows_bf16, BF16, FLOATS)
ROW_LOOP(rows_int8, INT8, FLOATS)
ROW_LOOP(rows_pairs, BF16, PAIRS)
ROW_LOOP(rows_bytes, INT8, BYTES)
#undef ROW_LOOP

#ifdef __AMX_TILE__
static void rows_tiles(const Product *p, int64_t from, int64_t to) {
    if (p->w->kind == BF16) rows_of_tiles(p, BF16, from, to);
    else rows_of_tiles(p, INT8, from, to);
}

static void rows_panels(const Product *p, int64_t from, int64_t to) {
    if (p->w->kind == BF16) rows_panel(p, BF16, from, to);
    else rows_panel(p, INT8, from, to);
}

// Rows of a panel: as many as a thread can keep, but something for everybody to do
static int64_t panel_rows(const Team *team, int64_t rows) {
    const int64_t share = rows / (2 * team->n_threads) / BLOCK_ROWS * BLOCK_ROWS;
    return share < BLOCK_ROWS ? BLOCK_ROWS : share > PANEL_ROWS ? PANEL_ROWS : share;
}
#endif

// The team shares the rows
static void linear(Team *team, int *loop, const Product *p) {
    const int number = begin_loop(team, loop), kind = (int)p->w->kind, form = form_of(kind, p->n_tokens);
    int64_t chunk = CHUNK;
    void (*rows)(const Product *, int64_t, int64_t) = kind == F32 ? rows_f32 : kind == BF16 ? rows_bf16 : rows_int8;
    if (form == PAIRS) rows = rows_pairs;
    if (form == BYTES) rows = rows_bytes;
#ifdef __AMX_TILE__
    if (form == TILES && p->w->rows >= BLOCK_ROWS) rows = rows_tiles;
    if (form == PANELS && p->w->rows >= BLOCK_ROWS) rows = rows_panels, chunk = panel_rows(team, p->w->rows);
#endif
    for (int64_t from; (from = take(team, number, chunk)) < p->w->rows;)
        rows(p, from, from + chunk < p->w->rows ? from + chunk : p->w->rows);
}

// Whether a token's activations come into their form without regard to its neighbours'
INLINE int packs_alone(int form) { return form == PAIRS || form == BYTES || form == PANELS; }

// Bring token t's activations into such a form
INLINE void pack_token(const Input *input, int64_t t, int64_t n, int kind) {
    const float *x = input->floats + t * n;
    uint8_t *to = input->packed + t * n * 2;
    if (kind == BF16) {
        pack_pairs(x, n, (uint16_t *)to);
    } else {
        input->scale[t] = scale_for_bytes(x, n);
        pack_bytes(x, n, input->scale[t], to, to + n);
    }
}

// Bring the input into the form that weights of this kind want, shared by the team, who have met before and meet after
static void pack(Team *team, int *loop, const Input *input, int64_t n_tokens, int64_t n, int kind) {
    const int form = form_of(kind, n_tokens);
    const int64_t size = some_of(team, n_tokens);
    int number;
    if (form == FLOATS) return;
    if (packs_alone(form)) {
        number = begin_loop(team, loop);
        for (int64_t from; (from = take(team, number, size)) < n_tokens;)
            for (int64_t t = from; t < from + size && t < n_tokens; t++) pack_token(input, t, n, kind);
        barrier(team);
        return;
    }
#ifdef __AMX_TILE__
    if (kind == INT8) {
        number = begin_loop(team, loop);
        for (int64_t t; (t = take(team, number, 1)) < n_tokens;)
            input->scale[t] = scale_for_bytes(input->floats + t * n, n);
        barrier(team);
    }
    const int64_t steps = n / (kind == BF16 ? 32 : 64);
    number = begin_loop(team, loop);
    for (int64_t i; (i = take(team, number, 1)) < steps;) pack_tile(input, i, n_tokens, n, kind);
    barrier(team);
#endif
}
