// What goes into a matrix product and in what form: shared by the kernels for different processors.
//
// Activations meet the weights as fp32; as bf16 pairs, where the processor multiplies those; or, for int8 weights, as
// 16-bit whole numbers in two bytes, because byte products cost a sixth of conversions to fp32. The products of bytes
// are exact, and 16 bits resolve an activation finer than bf16 does: only the weights are quantised in a way one could
// measure.
#pragma once

#include "team.h"
#include "vectors.h"

#define PANEL_ROWS 128 // of weights, that a thread packs at a time (panels.h)

enum { SET = 0, ADD = 1, SQUARE_RELU = 2 };

typedef struct {
    const void *data;    // rows x columns
    const float *scale;  // rows, INT8: what a row's whole numbers are multiplied by
    const int32_t *sums; // rows, INT8: sum of a row
    int64_t rows, columns, kind;
} Matrix;

// M rows of activations
typedef struct {
    const float *floats; // M x columns
    uint8_t *packed;     // in the form the weights want, 2 bytes for each (rows up to a multiple of 32)
    float *scale;        // M: what the whole numbers are multiplied by
} Input;

// out (M x rows of w, stride) = input (M x columns of w) times w transposed, put there `how`
typedef struct {
    const Matrix *w;
    const Input *input;
    int64_t n_tokens;
    float *out;
    int64_t stride;
    int how;
    uint16_t *rounded; // where given, the results go here as bf16 instead (panels.h)
    uint8_t *panel;    // this thread's room for weights brought into another form
} Product;

INLINE void pack_pairs(const float *x, int64_t n, uint16_t *to) {
    for (int64_t i = 0; i < n; i++) to[i] = bf16_of(x[i]);
}

// Whole numbers from 1 to 65535: 32768 too large, so that they need no sign
INLINE void pack_bytes(const float *x, int64_t n, float scale, uint8_t *high, uint8_t *low) {
    const float inverse = 1.0f / scale;
    for (int64_t i = 0; i < n; i++) {
        int32_t whole = (int32_t)(x[i] * inverse + 32768.5f);
        high[i] = (uint8_t)(whole >> 8);
        low[i] = (uint8_t)whole;
    }
}

INLINE float scale_for_bytes(const float *x, int64_t n) {
    float largest = 0;
    for (int64_t i = 0; i < n; i++) largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    return largest > 0 ? largest / 32767.0f : 1.0f;
}

// The sums of high and low bytes times a row of weights -> the row's product, but for the activations' scale. The
// offset comes off while the numbers are whole.
INLINE float unpacked(int32_t high, int32_t low, const Matrix *w, int64_t row) {
    return (256.0f * (float)(high - 128 * w->sums[row]) + (float)low) * w->scale[row];
}

INLINE float finish(float value, float before, int how) {
    if (how == ADD) return before + value;
    if (how == SQUARE_RELU) return value > 0 ? value * value : 0;
    return value;
}
