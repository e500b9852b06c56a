// Vectors of 16 floats, which become whatever the processor has, and what decode.c computes with them.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define LANES 16

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef float vf_at __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t v16_at __attribute__((vector_size(32), aligned(2), may_alias));
typedef int8_t v8_at __attribute__((vector_size(16), aligned(1), may_alias));

enum { F32 = 0, BF16 = 1, INT8 = 2 };
INLINE vf load(const void *base, int64_t at, int kind) {
    if (kind == F32) return *(const vf_at *)((const float *)base + at);
#ifdef __AVX512F__
    if (kind == BF16) {
        __m256i halves = _mm256_loadu_si256((const __m256i *)((const uint16_t *)base + at));
        return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16);
    }
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)((const int8_t *)base + at))));
#else
    if (kind == BF16) return (vf)(__builtin_convertvector(*(const v16_at *)((const uint16_t *)base + at), vu) << 16);
    return __builtin_convertvector(__builtin_convertvector(*(const v8_at *)((const int8_t *)base + at), vi), vf);
#endif
}

INLINE void store_f32(float *at, vf value) { *(vf_at *)at = value; }

INLINE uint16_t bf16_of(float value) { // round to nearest even
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

#ifdef __AVX512F__
INLINE void store_bf16(uint16_t *at, vf value) { // as bf16_of
    const __m512i bits = (__m512i)value, odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    _mm256_storeu_si256((__m256i *)at, _mm512_cvtepi32_epi16(_mm512_srli_epi32(up, 16)));
}
#endif

INLINE void store_as(void *base, int64_t at, float value, int kind) {
    if (kind == F32) ((float *)base)[at] = value;
    else ((uint16_t *)base)[at] = bf16_of(value);
}

INLINE float scalar(const void *base, int64_t at, int kind) {
    if (kind == F32) return ((const float *)base)[at];
    uint32_t bits = (uint32_t)((const uint16_t *)base)[at] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// A value as it comes back after `store_as`
INLINE float rounded(float value, int kind) {
    float stored;
    store_as(&stored, 0, value, kind);
    return scalar(&stored, 0, kind);
}

INLINE float sum(vf v) {
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)v);
#else
    float lane[LANES];
    memcpy(lane, &v, sizeof v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] += lane[i + half];
    return lane[0];
#endif
}

INLINE vf all(float value) { return value - (vf){0}; }

// e^x to about one unit in the last place of fp32: 2^n times a polynomial
INLINE vf exponential(vf x) {
    vi low = x < -87.0f, high = x > 88.0f;
    x = (vf)(((vi)all(-87.0f) & low) | ((vi)all(88.0f) & high) | ((vi)x & ~(low | high)));
    vf n = x * 1.44269504f + 12582912.0f; // the constant pushes the fraction out of the mantissa: rounding
    vi exponent = (vi)n << 23;
    n -= 12582912.0f;
    vf r = x - n * 0.693145752f - n * 1.42860677e-6f;
    vf p = r * 1.9875691e-4f + 1.3981999e-3f;
    p = p * r + 8.3334519e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 5.0000001e-1f;
    p = p * r * r + r + 1.0f;
    return (vf)((vi)p + exponent);
}

INLINE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

static void rms_norm(const float *x, float *out, int64_t n, float gain) {
    vf squares = {0};
    for (int64_t i = 0; i < n; i += LANES) squares += load(x, i, F32) * load(x, i, F32);
    vf scale = all(gain / sqrtf(sum(squares) / (float)n + 1.1920929e-7f));
    for (int64_t i = 0; i < n; i += LANES) store_f32(out + i, load(x, i, F32) * scale);
}
