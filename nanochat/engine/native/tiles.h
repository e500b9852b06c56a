// Matrix products on the matrix units of Intel's server processors (AMX), for bf16 and int8 weights.
//
// A tile is 16 rows of 64 bytes. Here are up to 16 tokens, as when answers are decoded: weights are used as they lie, 16
// rows by 32 (bf16) or 64 (int8) columns; activations are packed so that a tile holds the same columns for 16 tokens. One
// multiplication costs the same for 1 token as for 16, and every token's sum runs over the columns in the same order
// whatever shares its tile. For more tokens see panels.h.
#pragma once

#include "input.h"

#ifdef __AMX_TILE__
#include <sys/syscall.h>
#include <unistd.h>

#define TILE_ROWS 16
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

// The activations of all tokens for one step along the columns: 32 of them as bf16, or 64 as high and as low bytes
static void pack_tile(const Input *input, int64_t step, int64_t n_tokens, int64_t n, int kind) {
    uint8_t *to = input->packed + step * TILE_BYTES;
    for (int64_t t = 0; t < n_tokens; t++) {
        uint32_t *column = (uint32_t *)to + t;
        if (kind == BF16) {
            uint16_t pairs[32];
            pack_pairs(input->floats + t * n + step * 32, 32, pairs);
            for (int i = 0; i < 16; i++) memcpy(column + i * TILE_ROWS, pairs + 2 * i, 4);
        } else {
            uint8_t high[64], low[64];
            pack_bytes(input->floats + t * n + step * 64, 64, input->scale[t], high, low);
            for (int i = 0; i < 16; i++) {
                memcpy(column + i * TILE_ROWS, high + 4 * i, 4);
                memcpy(column + n * TILE_ROWS / 4 + i * TILE_ROWS, low + 4 * i, 4);
            }
        }
    }
}

// 16 rows of weights times the activations: results in tile 0; for INT8 those of the high bytes, of the low ones in
// tile 1. The weights come from memory, the next 16 rows are fetched on the way.
INLINE void multiply_rows(const uint8_t *weights, int64_t row_bytes, const uint8_t *x, int kind) {
    const uint8_t *low = x + row_bytes * TILE_ROWS;
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t at = 0; at < row_bytes; at += 64) {
        if (kind == INT8) // bf16 keeps the memory busy by itself
            for (int64_t r = TILE_ROWS; r < 2 * TILE_ROWS; r++) __builtin_prefetch(weights + r * row_bytes + at, 0, 3);
        _tile_loadd(4, weights + at, row_bytes);
        _tile_loadd(6, x + at * TILE_ROWS, 64);
        if (kind == BF16) {
            _tile_dpbf16ps(0, 4, 6);
        } else {
            _tile_loadd(7, low + at * TILE_ROWS, 64);
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

// Rows `from` to `to` - 1 of the product. The last tile of a matrix is moved back to end with it; the rows it shares with
// the tile before are left alone.
INLINE void rows_of_tiles(const Product *p, int kind, int64_t from, int64_t to) {
    const int64_t row_bytes = kind == BF16 ? 2 * p->w->columns : p->w->columns, last = p->w->rows - TILE_ROWS;
    float results[2][TILE_ROWS * TILE_ROWS]; // whole numbers for INT8
    for (int64_t row = from; row < to; row += TILE_ROWS) {
        const int64_t base = row < last ? row : last;
        multiply_rows((const uint8_t *)p->w->data + base * row_bytes, row_bytes, p->input->packed, kind);
        _tile_stored(0, results[0], 64);
        _tile_stored(1, results[1], 64);
        if (kind == INT8) join_bytes(results[0], results[1], p->w, base, p->input->scale, p->n_tokens);
        write_tile(results[0], row - base, p->n_tokens, p->out + base, p->stride, p->how);
    }
}
#endif
