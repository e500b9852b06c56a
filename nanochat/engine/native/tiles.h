// Matrix products on the matrix units of Intel's server processors (AMX), for bf16 and int8 weights.
//
// A tile is 16 rows of 64 bytes. Weights are used as they lie, 16 rows by 32 (bf16) or 64 (int8) columns; activations
// are packed so that a tile holds the same columns for 16 tokens. One multiplication costs the same for 1 token as for
// 16, and every token's sum runs over the columns in the same order whatever shares its tile.
#pragma once

#include "input.h"

#ifdef __AMX_TILE__
#include <sys/syscall.h>
#include <unistd.h>

#define TILE_ROWS 16
#define BLOCK_ROWS 32 // two tiles of weight rows at a time
#define TILE_BYTES 1024

// The system lets a process use the tiles only after it asks. Whether this one may; asked for once.
static int tiles_allowed(void) {
    static int answer = -1; // the same for every thread that finds out
    if (answer < 0) answer = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XTILEDATA */) == 0;
    return answer;
}

static void tiles_begin(void) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.row_bytes[i] = 64, shape.rows[i] = TILE_ROWS;
    _tile_loadconfig(&shape);
}

static void tiles_end(void) { _tile_release(); }

// The activations of 16 tokens for one step along the columns: 32 of them as bf16, or 64 as high and as low bytes
static void pack_tile(const Input *input, int64_t step, int64_t group, int64_t n_tokens, int64_t n, int kind) {
    const int64_t first = group * TILE_ROWS, count = n_tokens - first < TILE_ROWS ? n_tokens - first : TILE_ROWS;
    uint8_t *to = input->packed + group * TILE_ROWS * n * 2 + step * TILE_BYTES;
    for (int64_t t = 0; t < count; t++) {
        uint32_t *column = (uint32_t *)to + t;
        if (kind == BF16) {
            uint16_t pairs[32];
            pack_pairs(input->floats + (first + t) * n + step * 32, 32, pairs);
            for (int i = 0; i < 16; i++) memcpy(column + i * TILE_ROWS, pairs + 2 * i, 4);
        } else {
            uint8_t high[64], low[64];
            pack_bytes(input->floats + (first + t) * n + step * 64, 64, input->scale[first + t], high, low);
            for (int i = 0; i < 16; i++) {
                memcpy(column + i * TILE_ROWS, high + 4 * i, 4);
                memcpy(column + n * TILE_ROWS / 4 + i * TILE_ROWS, low + 4 * i, 4);
            }
        }
    }
}

// Rows of weights times the activations in x0 and x1: 16 tokens each, or high and low bytes of the same 16. Results in
// tiles 0 and 1 and, for the second 16 rows, 2 and 3.

// BLOCK_ROWS rows, for many tokens: twice the products for each tile loaded
INLINE void multiply_block(const uint8_t *weights, int64_t row_bytes, const uint8_t *x0, const uint8_t *x1, int kind) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t at = 0; at < row_bytes; at += 64) {
        _tile_loadd(4, weights + at, row_bytes);
        _tile_loadd(5, weights + TILE_ROWS * row_bytes + at, row_bytes);
        _tile_loadd(6, x0 + at * TILE_ROWS, 64);
        _tile_loadd(7, x1 + at * TILE_ROWS, 64);
        if (kind == BF16) {
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        } else {
            _tile_dpbsud(0, 4, 6);
            _tile_dpbsud(1, 4, 7);
            _tile_dpbsud(2, 5, 6);
            _tile_dpbsud(3, 5, 7);
        }
    }
}

// 16 rows, for few tokens: the weights come from memory, the next 16 rows are fetched on the way
INLINE void multiply_rows(const uint8_t *weights, int64_t row_bytes, const uint8_t *x0, const uint8_t *x1, int kind) {
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t at = 0; at < row_bytes; at += 64) {
        if (kind == INT8) // bf16 keeps the memory busy by itself
            for (int64_t r = TILE_ROWS; r < 2 * TILE_ROWS; r++) __builtin_prefetch(weights + r * row_bytes + at, 0, 3);
        _tile_loadd(4, weights + at, row_bytes);
        _tile_loadd(6, x0 + at * TILE_ROWS, 64);
        if (x1) _tile_loadd(7, x1 + at * TILE_ROWS, 64);
        if (kind == BF16) {
            _tile_dpbf16ps(0, 4, 6);
            if (x1) _tile_dpbf16ps(1, 4, 7);
        } else {
            _tile_dpbsud(0, 4, 6);
            _tile_dpbsud(1, 4, 7);
        }
    }
}

// 16 x 16 floats, rows become columns
static void transpose(float *square) {
    __m512 v[16], w[16];
    for (int i = 0; i < 16; i++) v[i] = _mm512_loadu_ps(square + i * 16);
    for (int half = 8; half; half /= 2) {
        int32_t from_low[16], from_high[16];
        for (int i = 0; i < 16; i++) {
            int other = (i & half) != 0;
            from_low[i] = other ? (i - half) | 16 : i;
            from_high[i] = other ? i | 16 : i + half;
        }
        const __m512i low = _mm512_loadu_si512(from_low), high = _mm512_loadu_si512(from_high);
        for (int i = 0; i < 16; i++) {
            if (i & half) continue;
            w[i] = _mm512_permutex2var_ps(v[i], low, v[i + half]);
            w[i + half] = _mm512_permutex2var_ps(v[i], high, v[i + half]);
        }
        for (int i = 0; i < 16; i++) v[i] = w[i];
    }
    for (int i = 0; i < 16; i++) _mm512_storeu_ps(square + i * 16, v[i]);
}

// One tile of results, (weight rows, tokens), into `out`: rows from `skip` on, `count` tokens
static void write_tile(float *square, int64_t skip, int64_t count, float *out, int64_t stride, int how) {
    const int64_t row_step = count > 2 ? 1 : TILE_ROWS, token_step = count > 2 ? TILE_ROWS : 1;
    if (count > 2) transpose(square);
    for (int64_t t = 0; t < count; t++) {
        float *to = out + t * stride;
        const float *from = square + t * token_step;
        for (int64_t r = skip; r < TILE_ROWS; r++) to[r] = finish(from[r * row_step], to[r], how);
    }
}

// Sums of high and of low bytes, (weight rows, tokens), become the product in `high`
static void join_bytes(float *high, const float *low, const Matrix *w, int64_t row, const float *scale, int64_t count) {
    for (int64_t r = 0; r < TILE_ROWS; r++)
        for (int64_t t = 0; t < count; t++) {
            int32_t h, l;
            memcpy(&h, high + r * TILE_ROWS + t, 4);
            memcpy(&l, low + r * TILE_ROWS + t, 4);
            high[r * TILE_ROWS + t] = unpacked(h, l, w, row + r) * scale[t];
        }
}

// Two tiles of results for weight rows from `row` on: 32 tokens, or high and low bytes of 16, from t0 on. Rows before
// `first` are somebody else's.
INLINE void write_tiles(const Product *p, int kind, float *results, int64_t row, int64_t first, int64_t t0) {
    const int64_t left = p->n_tokens - t0, count = left < TILE_ROWS ? left : TILE_ROWS;
    const int64_t skip = first > row ? first - row : 0, more = left - count < TILE_ROWS ? left - count : TILE_ROWS;
    float *second = results + TILE_ROWS * TILE_ROWS, *to = p->out + t0 * p->stride + row;
    if (skip >= TILE_ROWS) return;
    if (kind == INT8) join_bytes(results, second, p->w, row, p->input->scale + t0, count);
    write_tile(results, skip, count, to, p->stride, p->how);
    if (kind == BF16) write_tile(second, skip, more, to + TILE_ROWS * p->stride, p->stride, p->how);
}

// Rows `first` to first + BLOCK_ROWS - 1 of the product, for all tokens. The last block of a matrix is moved back to
// end with it; the rows it shares with the block before are left alone.
INLINE void tiles_block(const Product *p, int kind, int64_t first) {
    const int64_t n = p->w->columns, row_bytes = kind == BF16 ? 2 * n : n, group_bytes = TILE_ROWS * n * 2;
    const int64_t base = first + BLOCK_ROWS <= p->w->rows ? first : p->w->rows - BLOCK_ROWS;
    const uint8_t *weights = (const uint8_t *)p->w->data + base * row_bytes;
    float results[4][TILE_ROWS * TILE_ROWS]; // whole numbers for INT8
    for (int64_t t0 = 0; t0 < p->n_tokens; t0 += kind == BF16 ? 2 * TILE_ROWS : TILE_ROWS) {
        const uint8_t *x0 = p->input->packed + t0 / TILE_ROWS * group_bytes;
        const uint8_t *x1 = x0 + (kind == BF16 ? group_bytes : group_bytes / 2);
        if (p->n_tokens <= TILE_ROWS) {
            for (int half = 0; half < 2; half++) {
                const uint8_t *rows = weights + half * TILE_ROWS * row_bytes;
                if (kind == BF16) multiply_rows(rows, row_bytes, x0, 0, kind);
                else multiply_rows(rows, row_bytes, x0, x1, kind);
                _tile_stored(0, results[2 * half], 64);
                _tile_stored(1, results[2 * half + 1], 64);
            }
        } else {
            multiply_block(weights, row_bytes, x0, x1, kind);
            _tile_stored(0, results[0], 64);
            _tile_stored(1, results[1], 64);
            _tile_stored(2, results[2], 64);
            _tile_stored(3, results[3], 64);
        }
        for (int half = 0; half < 2; half++)
            write_tiles(p, kind, results[2 * half], base + half * TILE_ROWS, first, t0);
    }
}
#endif
