// Matrix products on the matrix units for many tokens, as when prompts are read: arithmetic, not memory, decides.
//
// Here a tile of activations lies as it is, 16 tokens by 32 (bf16) or 64 (int8) columns, and weights are packed: a
// thread brings PANEL_ROWS rows of them into the form of the second factor once, and keeps them in its cache while all
// tokens pass by. So results come out token by token and need no transposing, as they do in tiles.h, whose sums these
// are to the bit: the same products in the same order.
#pragma once

#include "tiles.h"

#ifdef __AMX_TILE__
#define BLOCK_ROWS 32 // two tiles of weight rows at a time

// 16 x 16 words of 4 bytes, rows become columns. `from` has a row every `row_bytes`.
INLINE void transpose_words(const uint8_t *from, int64_t row_bytes, uint8_t *to) {
    __m512i a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(from + i * row_bytes);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            a[i + 2 * half] = _mm512_unpacklo_epi64(b[i + half], b[i + 2 + half]);
            a[i + 2 * half + 1] = _mm512_unpackhi_epi64(b[i + half], b[i + 2 + half]);
        }
    // a[4 g + c] holds, for c = 0 to 3 and each quarter k of a vector, column 4 k + c of rows 4 g to 4 g + 3
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        const __m512i even = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x88), odd = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xDD);
        const __m512i even2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x88);
        const __m512i odd2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xDD);
        _mm512_storeu_si512(to + 64 * c, _mm512_shuffle_i32x4(even, even2, 0x88));
        _mm512_storeu_si512(to + 64 * (8 + c), _mm512_shuffle_i32x4(even, even2, 0xDD));
        _mm512_storeu_si512(to + 64 * (4 + c), _mm512_shuffle_i32x4(odd, odd2, 0x88));
        _mm512_storeu_si512(to + 64 * (12 + c), _mm512_shuffle_i32x4(odd, odd2, 0xDD));
    }
}

// 32 rows of weights as tiles: for each step along the columns one of the first 16 rows and one of the others
INLINE void pack_weights(const uint8_t *weights, int64_t row_bytes, uint8_t *panel) {
    for (int64_t at = 0; at < row_bytes; at += 64, panel += 2 * TILE_BYTES) {
        transpose_words(weights + at, row_bytes, panel);
        transpose_words(weights + TILE_ROWS * row_bytes + at, row_bytes, panel + TILE_BYTES);
    }
}

// x0 and x1, 16 rows every `stride` bytes, times 32 rows of weights. Results in tiles 0 and 1 (x0), 2 and 3 (x1).
INLINE void multiply_panel(const uint8_t *x0, const uint8_t *x1, int64_t stride, const uint8_t *panel,
                           int64_t row_bytes, int kind) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t at = 0; at < row_bytes; at += 64, panel += 2 * TILE_BYTES) {
        _tile_loadd(4, x0 + at, stride);
        _tile_loadd(5, x1 + at, stride);
        _tile_loadd(6, panel, 64);
        _tile_loadd(7, panel + TILE_BYTES, 64);
        if (kind == BF16) {
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        } else {
            _tile_dpbusd(0, 4, 6);
            _tile_dpbusd(1, 4, 7);
            _tile_dpbusd(2, 5, 6);
            _tile_dpbusd(3, 5, 7);
        }
    }
}

// 16 values of a token's row of results go where they belong
INLINE void put(const Product *p, int64_t at, __m512 value) {
    __asm__("" : "+v"(value)); // no fused multiplication and addition: tiles.h has none here
    if (p->how == ADD) value = _mm512_add_ps(_mm512_loadu_ps(p->out + at), value);
    if (p->how == SQUARE_RELU) {
        value = _mm512_max_ps(value, _mm512_setzero_ps());
        value = _mm512_mul_ps(value, value);
    }
    if (p->rounded) store_bf16(p->rounded + at, (vf)value);
    else _mm512_storeu_ps(p->out + at, value);
}

// Sums of high and low bytes for 16 weight rows -> the product; `unpacked` for a vector
INLINE __m512 joined(__m512i high, __m512i low, const Matrix *w, int64_t row, float scale) {
    const __m512i sums = _mm512_loadu_si512(w->sums + row);
    const __m512 whole = _mm512_cvtepi32_ps(_mm512_sub_epi32(high, _mm512_slli_epi32(sums, 7)));
    const __m512 both = _mm512_fmadd_ps(_mm512_set1_ps(256.0f), whole, _mm512_cvtepi32_ps(low));
    return _mm512_mul_ps(_mm512_mul_ps(both, _mm512_loadu_ps(w->scale + row)), _mm512_set1_ps(scale));
}

// Tiles 0 to 3 of `multiply_panel`, for tokens from t0 and weight rows from `row` on
INLINE void write_panel(const Product *p, int kind, int64_t row, int64_t t0) {
    float results[4][TILE_ROWS * TILE_ROWS] __attribute__((aligned(64))); // whole numbers for INT8
    _tile_stored(0, results[0], 64);
    _tile_stored(1, results[1], 64);
    _tile_stored(2, results[2], 64);
    _tile_stored(3, results[3], 64);
    const int64_t most = kind == BF16 ? 2 * TILE_ROWS : TILE_ROWS;
    const int64_t count = p->n_tokens - t0 < most ? p->n_tokens - t0 : most;
    for (int64_t t = 0; t < count; t++)
        for (int half = 0; half < 2; half++) {
            const float *from = results[t / TILE_ROWS * 2 + half] + t % TILE_ROWS * TILE_ROWS;
            __m512 value = _mm512_load_ps(from);
            if (kind == INT8) {
                const __m512i low = _mm512_load_si512(from + 2 * TILE_ROWS * TILE_ROWS);
                value = joined((__m512i)value, low, p->w, row + half * TILE_ROWS, p->input->scale[t0 + t]);
            }
            put(p, (t0 + t) * p->stride + row + half * TILE_ROWS, value);
        }
}

// Rows `from` to `to` - 1 of the product, at most PANEL_ROWS, for all tokens. The last block of a matrix is moved back to
// end with it; where that repeats rows, the product is one that is SET.
INLINE void rows_panel(const Product *p, int kind, int64_t from, int64_t to) {
    const int64_t n = p->w->columns, row_bytes = kind == BF16 ? 2 * n : n, last = p->w->rows - BLOCK_ROWS;
    const int64_t step = kind == BF16 ? 2 * TILE_ROWS : TILE_ROWS;
    for (int64_t row = from; row < to; row += BLOCK_ROWS) {
        const int64_t base = row < last ? row : last;
        pack_weights((const uint8_t *)p->w->data + base * row_bytes, row_bytes, p->panel + (row - from) * row_bytes);
    }
    for (int64_t t0 = 0; t0 < p->n_tokens; t0 += step) {
        const uint8_t *x0 = p->input->packed + t0 * n * 2, *x1 = x0 + (kind == BF16 ? TILE_ROWS * n * 2 : n);
        for (int64_t row = from; row < to; row += BLOCK_ROWS) {
            multiply_panel(x0, x1, 2 * n, p->panel + (row - from) * row_bytes, row_bytes, kind);
            write_panel(p, kind, row < last ? row : last, t0);
        }
    }
}
#endif
