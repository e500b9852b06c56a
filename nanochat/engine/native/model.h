// What one step is given: the model's shapes and weights, the tokens, the cache, room to work in. The structures mirror
// those of decoder.py, field by field.
//
// Shape legend: M tokens of the step, D width, H query heads, G key/value heads, E head dim, V vocabulary.
#pragma once

#include "matmul.h"

typedef struct {
    Matrix q, k, v, proj, fc, out;
    Matrix value_embedding, value_gate; // rows = 0: this layer has none
    int64_t window;
    float residual, first; // what the residual stream and the embedding are scaled by before the layer
} Layer;

typedef struct {
    int64_t n_layer, n_head, n_kv_head, head_dim, width;
    int64_t gate_channels, smear_channels; // that the gates read; smear_channels = 0: no smear
    int64_t mixes;                         // whether layers scale the residual stream and add the embedding
    const Layer *layers;
    Matrix embedding, head, smear_gate;
    const float *cos, *sin; // positions x head_dim/2
    float smear, backout, gate_scale, qk_scale, logit_cap;
} Model;

typedef struct {
    int64_t n_tokens, n_sampled, n_blocks, page_tokens, kv_kind;
    const int64_t *ids, *positions, *slots; // slots: where keys and values are stored
    const int64_t *table_start, *tables;    // pages of token m's sequence: tables[table_start[m]...]
    const int64_t *previous;                // slot of the token before; -1: none, -2: token m - 1 of this step
    const int64_t *sampled;                 // tokens whose logits are wanted
    const int64_t *blocks;                  // n_blocks x (first token, how many): neighbours to attend together
    void *const *keys, *const *values;      // for each layer slots x G x E
    void *embeddings;                       // slots x D, for smear
    float *x, *x0, *middle, *h, *q, *k, *v, *y, *hidden; // scratch: M rows of each
    uint8_t *packed, *packed_h;                          // scratch: M (up to a multiple of 32) x 8 D, 2 D bytes
    float *packed_scale;                                 // scratch: M
    uint8_t *panels;                                     // scratch: for each thread PANEL_ROWS x 8 D bytes
    float *scores;                                       // scratch: for each thread MAX_QUERIES x longest
    int64_t longest;
    float *logits; // n_sampled x logits_stride
    int64_t logits_stride;
} Step;

typedef struct {
    const Model *model;
    const Step *step;
    Team *team;
    int *loop;
    int member;
} Run;

// Items 0 to end - 1 of a loop, handed out to the team `size` at a time, or as many as suit small ones
#define EACH_OF(item, size, end)                                                                                       \
    for (int64_t loop_ = begin_loop(run->team, run->loop), size_ = (size), from_;                                      \
         (from_ = take(run->team, loop_, size_)) < (end);)                                                             \
        for (int64_t item = from_; item < from_ + size_ && item < (end); item++)
#define EACH(item, end) EACH_OF(item, some_of(run->team, end), end)
#define MEET barrier(run->team)
