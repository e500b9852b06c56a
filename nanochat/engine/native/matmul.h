// A few rows of activations times the transpose of a weight matrix: where a decoding step spends its time.
//
// Weights are read once, four neighbouring rows at a time, the next four prefetched. In what form the activations meet
// them depends on the processor: as fp32; as bf16 pairs, where it multiplies those; or, for int8 weights, as 16-bit whole
// numbers in two bytes, because byte products cost a sixth of conversions to fp32. The products of bytes are exact, and 16
// bits resolve an activation finer than bf16 does, so only the weights are quantised in a way one could measure.
#pragma once

#include "team.h"
#include "vectors.h"

#define ROWS 4
#define CHUNK 16  // tiles of ROWS rows that a thread takes at a time

enum { SET = 0, ADD = 1, SQUARE_RELU = 2 };
enum { FLOATS = 0, PAIRS = 1, BYTES = 2 };

typedef struct {
    const void *data;     // rows x columns
    const float *scale;   // rows, INT8: what a row's whole numbers are multiplied by
    const int32_t *sums;  // rows, INT8: sum of a row
    int64_t rows, columns, kind;
} Matrix;

// M rows of activations as `linear` wants them
typedef struct {
    const float *floats;  // M x columns
    uint8_t *packed;      // M x stride bytes
    float *scale;         // M
    int64_t stride;
} Input;

INLINE int form_of(int kind) {
#ifdef __AVX512BF16__
    if (kind == BF16) return PAIRS;
#endif
#ifdef __AVX512VNNI__
    if (kind == INT8) return BYTES;
#endif
    (void)kind;
    return FLOATS;
}

// Row t of the floats into the form that weights of this kind meet
static void pack(const Input *input, int64_t t, int64_t n, int kind) {
    const float *x = input->floats + t * n;
    if (form_of(kind) == PAIRS) {
        uint16_t *to = (uint16_t *)(input->packed + t * input->stride);
        for (int64_t i = 0; i < n; i++) to[i] = bf16_of(x[i]);
    } else if (form_of(kind) == BYTES) {
        uint8_t *high = input->packed + t * input->stride, *low = high + n;
        float largest = 0;
        for (int64_t i = 0; i < n; i++) largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
        const float scale = largest > 0 ? largest / 32767.0f : 1.0f, inverse = 1.0f / scale;
        for (int64_t i = 0; i < n; i++) {
            int32_t whole = (int32_t)(x[i] * inverse + 32768.5f);  // 1 to 65535
            high[i] = (uint8_t)(whole >> 8);
            low[i] = (uint8_t)whole;
        }
        input->scale[t] = scale;
    }
}

// The weights that come next, while these are used. Reading past the end of a matrix this way does nothing.
INLINE void prefetch_next(const void *at, int64_t tile_bytes) { __builtin_prefetch((const char *)at + tile_bytes, 0, 3); }

// Each tile function: ROWS rows of weights times n_tokens (a constant where it is inlined) rows of activations.

INLINE void tile_floats(const Matrix *w, int kind, const int64_t *row, const Input *input, int64_t t0, int n_tokens, float *result) {
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
        for (int r = 0; r < ROWS; r++) result[t * ROWS + r] = sum(total[r][t]) * (kind == INT8 ? w->scale[row[r]] : 1.0f);
}

#ifdef __AVX512BF16__
INLINE void tile_pairs(const Matrix *w, const int64_t *row, const Input *input, int64_t t0, int n_tokens, float *result) {
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
            __m512bh activation = (__m512bh)_mm512_loadu_si512(input->packed + (t0 + t) * input->stride + i * 2);
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++) total[r][t] = _mm512_dpbf16_ps(total[r][t], weight[r], activation);
        }
    }
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < ROWS; r++) result[t * ROWS + r] = _mm512_reduce_add_ps(total[r][t]);
}
#endif

#ifdef __AVX512VNNI__
INLINE void tile_bytes(const Matrix *w, const int64_t *row, const Input *input, int64_t t0, int n_tokens, float *result) {
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
#pragma GCC unroll 4
        for (int t = 0; t < n_tokens; t++) {
            const uint8_t *x = input->packed + (t0 + t) * input->stride + i;
            __m512i x_high = _mm512_loadu_si512(x), x_low = _mm512_loadu_si512(x + n);
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++) {
                high[r][t] = _mm512_dpbusd_epi32(high[r][t], x_high, weight[r]);
                low[r][t] = _mm512_dpbusd_epi32(low[r][t], x_low, weight[r]);
            }
        }
    }
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < ROWS; r++) {  // the whole numbers are 32768 too large, so that they need no sign
            int64_t whole = 256 * (int64_t)_mm512_reduce_add_epi32(high[r][t]) + _mm512_reduce_add_epi32(low[r][t]);
            whole -= 32768 * (int64_t)w->sums[row[r]];
            result[t * ROWS + r] = (float)whole * w->scale[row[r]] * input->scale[t0 + t];
        }
}
#endif

INLINE int tile(const Matrix *w, int kind, const int64_t *row, const Input *input, int64_t t0, int n, float *result) {
#ifdef __AVX512BF16__
    if (kind == BF16) {
        if (n == 1) tile_pairs(w, row, input, t0, 1, result);
        else if (n == 2) tile_pairs(w, row, input, t0, 2, result);
        else if (n == 3) tile_pairs(w, row, input, t0, 3, result);
        else tile_pairs(w, row, input, t0, 4, result);
        return n < 4 ? n : 4;
    }
#endif
#ifdef __AVX512VNNI__
    if (kind == INT8) {
        if (n == 1) tile_bytes(w, row, input, t0, 1, result);
        else tile_bytes(w, row, input, t0, 2, result);
        return n < 2 ? n : 2;
    }
#endif
    if (n == 1) tile_floats(w, kind, row, input, t0, 1, result);
    else if (n == 2) tile_floats(w, kind, row, input, t0, 2, result);
    else if (n == 3) tile_floats(w, kind, row, input, t0, 3, result);
    else tile_floats(w, kind, row, input, t0, 4, result);
    return n < 4 ? n : 4;
}

INLINE void linear_as(const Matrix *w, int kind, int64_t first, const Input *input, int64_t n_tokens, float *out, int64_t stride, int how) {
    int64_t row[ROWS], n_rows = w->rows - first < ROWS ? w->rows - first : ROWS;
    for (int r = 0; r < ROWS; r++) row[r] = first + (r < n_rows ? r : 0);
    for (int64_t token = 0, n; token < n_tokens; token += n) {
        float result[ROWS * 4];
        n = tile(w, kind, row, input, token, (int)(n_tokens - token), result);
        for (int t = 0; t < n; t++)
            for (int r = 0; r < n_rows; r++) {
                float value = result[t * ROWS + r], *to = out + (token + t) * stride + first + r;
                if (how == ADD) *to += value;
                else if (how == SQUARE_RELU) *to = value > 0 ? value * value : 0;
                else *to = value;
            }
    }
}

// out (M x rows, stride) = input (M x columns) times w transposed, shared by the team; `how` it goes into `out`
static void linear(Team *team, int *loop, const Matrix *w, const Input *input, int64_t n_tokens, float *out, int64_t stride, int how) {
    const int64_t n_tiles = (w->rows + ROWS - 1) / ROWS;
    const int number = begin_loop(team, loop);
    for (int64_t from; (from = take(team, number, CHUNK)) < n_tiles;)
        for (int64_t i = from; i < from + CHUNK && i < n_tiles; i++) {
            if (w->kind == F32) linear_as(w, F32, i * ROWS, input, n_tokens, out, stride, how);
            else if (w->kind == BF16) linear_as(w, BF16, i * ROWS, input, n_tokens, out, stride, how);
            else linear_as(w, INT8, i * ROWS, input, n_tokens, out, stride, how);
        }
}
