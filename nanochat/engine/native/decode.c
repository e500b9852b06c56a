// The forward pass of gpt.py for a few tokens at a time, on a CPU.
//
// gpt.py is the definition; this is its fast twin for decoding, where a step reads every weight once and does little
// with it, so that a framework's cost per operation is most of the time. One call is one step: all layers, one team of
// threads. Activations are fp32; weights are fp32, bf16, or int8 with a scale for each output row, read in place.
//
// Every dot product adds up in the same order however many tokens share the step, so a token's logits do not depend on
// its neighbours. Vectors are the compiler's own (16 floats), which become whatever the processor has.
//
// Shape legend: M tokens of the step, D width, H query heads, G key/value heads, E head dim, V vocabulary.

#include "matmul.h"
#include "team.h"
#include "vectors.h"

#define N_GATE_INPUTS 12
#define N_SMEAR_INPUTS 24

typedef struct {
    Matrix q, k, v, proj, fc, out;
    Matrix value_embedding, value_gate;  // rows = 0: this layer has none
    int64_t window;
    float residual, first;  // what the residual stream and the embedding are scaled by before the layer
} Layer;

typedef struct {
    int64_t n_layer, n_head, n_kv_head, head_dim, width, modern;
    const Layer *layers;
    Matrix embedding, head, smear_gate;
    const float *cos, *sin;  // positions x head_dim/2
    float smear, backout, qk_scale, logit_cap;
} Model;

typedef struct {
    int64_t n_tokens, n_sampled, page_tokens, kv_kind;
    const int64_t *ids, *positions, *slots;  // slots: where keys and values are stored
    const int64_t *table_start, *tables;     // pages of token m's sequence: tables[table_start[m]...]
    const int64_t *previous;                 // slot of the token before; -1: none, -2: token m - 1 of this step
    const int64_t *sampled;                  // tokens whose logits are wanted
    void *const *keys, *const *values;       // for each layer slots x G x E
    void *embeddings;                        // slots x D (modern)
    float *x, *x0, *middle, *h, *q, *k, *v, *y, *hidden;  // scratch: M rows of each
    uint8_t *packed;                         // scratch: M x packed_stride bytes
    int64_t packed_stride;
    float *packed_scale;                     // scratch: M
    float *scores;                           // scratch: for each M x G item: group x longest sequence
    int64_t longest;
    float *logits;                           // n_sampled x logits_stride
    int64_t logits_stride;
} Step;

typedef struct {
    const Model *model;
    const Step *step;
    Team *team;
    int *loop;
} Run;

// Items 0 to end - 1 of a loop, handed out to the team `size` at a time
#define EACH(item, size, end)                                                                          \
    for (int64_t loop_ = begin_loop(run->team, run->loop), from_; (from_ = take(run->team, loop_, size)) < (end);) \
        for (int64_t item = from_; item < from_ + (size) && item < (end); item++)
#define MEET barrier(run->team)

INLINE Input input_of(const Step *s, const float *floats) {
    return (Input){floats, s->packed, s->packed_scale, s->packed_stride};
}

INLINE void product(Run *run, const Matrix *w, const Input *input, int64_t n_tokens, float *out, int64_t stride, int how) {
    linear(run->team, run->loop, w, input, n_tokens, out, stride, how);
}

// ---------------------------------------------------------------------------------------------- what is not a product

// Row `id` of the embedding, normalised
static void embed(const Model *m, int64_t id, float *out) {
    const Matrix *w = &m->embedding;
    for (int64_t i = 0; i < m->width; i += LANES) store_f32(out + i, load(w->data, id * m->width + i, w->kind));
    rms_norm(out, out, m->width, 1.0f);
}

// Mix a gated share of the token before into token t: h holds the embeddings, x gets the result
static void smear(const Model *m, const Step *s, int64_t t) {
    const float *own = s->h + t * m->width;
    float gate = 0;
    for (int i = 0; i < N_SMEAR_INPUTS; i++) gate += scalar(m->smear_gate.data, i, m->smear_gate.kind) * own[i];
    gate = m->smear * sigmoid(gate);
    for (int64_t i = 0; i < m->width; i++) {
        float before = 0;
        if (s->previous[t] >= 0) before = scalar(s->embeddings, s->previous[t] * m->width + i, s->kv_kind);
        else if (s->previous[t] == -2) before = own[i - m->width];
        s->x[t * m->width + i] = own[i] + gate * before;
        store_as(s->embeddings, s->slots[t] * m->width + i, own[i], s->kv_kind);
    }
}

static void rotate(const Model *m, float *head, int64_t position) {
    const int64_t half = m->head_dim / 2;
    const float *cos = m->cos + position * half, *sin = m->sin + position * half;
    for (int64_t i = 0; i < half; i++) {
        float a = head[i], b = head[i + half];
        head[i] = a * cos[i] + b * sin[i];
        head[i + half] = b * cos[i] - a * sin[i];
    }
}

// Query head `head` of token t becomes ready; heads from n_head on are keys with their values, which go into the cache
static void prepare_head(const Model *m, const Step *s, int64_t layer, int64_t t, int64_t head) {
    const int64_t e = m->head_dim, g = head - m->n_head;
    if (g < 0) {
        float *q = s->q + (t * m->n_head + head) * e;
        rotate(m, q, s->positions[t]);
        rms_norm(q, q, e, m->qk_scale / sqrtf((float)e));
        return;
    }
    float *k = s->k + (t * m->n_kv_head + g) * e, *v = s->v + (t * m->n_kv_head + g) * e, gate = 0;
    const Matrix *gates = &m->layers[layer].value_gate, *ve = &m->layers[layer].value_embedding;
    rotate(m, k, s->positions[t]);
    rms_norm(k, k, e, m->qk_scale);
    if (ve->rows) {
        for (int i = 0; i < N_GATE_INPUTS; i++)
            gate += scalar(gates->data, g * N_GATE_INPUTS + i, gates->kind) * s->h[t * m->width + i];
        gate = 3.0f * sigmoid(gate);
        for (int64_t i = 0; i < e; i++) v[i] += gate * scalar(ve->data, s->ids[t] * ve->columns + g * e + i, ve->kind);
    }
    const int64_t slot = (s->slots[t] * m->n_kv_head + g) * e;
    for (int64_t i = 0; i < e; i++) {
        store_as(s->keys[layer], slot + i, k[i], s->kv_kind);
        store_as(s->values[layer], slot + i, v[i], s->kv_kind);
    }
}

// Scores of `n` neighbouring keys for one query head
INLINE void score(const float *q, const void *keys, int64_t at, int64_t stride, int64_t e, int kind, int64_t n, float *to) {
    for (int64_t p = 0; p < n; p++, at += stride) {
        vf dot = {0};
        for (int64_t i = 0; i < e; i += LANES) dot += load(keys, at + i, kind) * load(q, i, F32);
        to[p] = sum(dot);
    }
}

// out (parts * LANES) += weights of `n` neighbouring values times the values; `parts` is a constant where it is inlined
INLINE void mix(const float *weights, const void *values, int64_t at, int64_t stride, int kind, int64_t n, float *out, int parts) {
    vf total[8];
#pragma GCC unroll 8
    for (int part = 0; part < parts; part++) total[part] = load(out, part * LANES, F32);
    for (int64_t p = 0; p < n; p++, at += stride) {
        vf weight = all(weights[p]);
#pragma GCC unroll 8
        for (int part = 0; part < parts; part++) total[part] += weight * load(values, at + part * LANES, kind);
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
INLINE void attend_as(const Model *m, const Step *s, int64_t layer, int64_t t, int64_t g, int kind) {
    const int64_t e = m->head_dim, group = m->n_head / m->n_kv_head, stride = m->n_kv_head * e, size = s->page_tokens;
    const int64_t end = s->positions[t] + 1, window = m->layers[layer].window, *table = s->tables + s->table_start[t];
    const int64_t first = window >= 0 && end - 1 > window ? end - 1 - window : 0;
    const float *q = s->q + (t * m->n_head + g * group) * e;
    float *scores = s->scores + (t * m->n_kv_head + g) * group * s->longest, *y = s->y + (t * m->n_head + g * group) * e;
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
            for (; i + 8 * LANES <= e; i += 8 * LANES) mix(weights, s->values[layer], at + i, stride, kind, stop - p, y + j * e + i, 8);
            for (; i < e; i += LANES) mix(weights, s->values[layer], at + i, stride, kind, stop - p, y + j * e + i, 1);
        }
    }
}

static void attend(const Model *m, const Step *s, int64_t layer, int64_t t, int64_t g) {
    if (s->kv_kind == F32) attend_as(m, s, layer, t, g, F32);
    else attend_as(m, s, layer, t, g, BF16);
}

// ---------------------------------------------------------------------------------------------- the model

static void first_embeddings(Run *run) {
    const Model *m = run->model;
    const Step *s = run->step;
    float *to = m->modern ? s->h : s->x;
    EACH(t, 1, s->n_tokens) embed(m, s->ids[t], to + t * m->width);
    MEET;
    if (!m->modern) return;
    EACH(t, 1, s->n_tokens) {
        smear(m, s, t);
        memcpy(s->x0 + t * m->width, s->x + t * m->width, m->width * sizeof(float));
    }
    MEET;
}

static void block(Run *run, int64_t number) {
    const Model *m = run->model;
    const Step *s = run->step;
    const Layer *layer = &m->layers[number];
    const int64_t n = s->n_tokens, d = m->width, kv = m->n_kv_head * m->head_dim, heads = m->n_head + m->n_kv_head;
    const int kind = (int)layer->q.kind;
    const Input h = input_of(s, s->h), y = input_of(s, s->y);
    EACH(t, 1, n) {
        float *x = s->x + t * d, *x0 = s->x0 + t * d;
        if (m->modern)
            for (int64_t i = 0; i < d; i++) x[i] = layer->residual * x[i] + layer->first * x0[i];
        rms_norm(x, s->h + t * d, d, 1.0f);
        pack(&h, t, d, kind);
    }
    MEET;
    product(run, &layer->q, &h, n, s->q, d, SET);
    product(run, &layer->k, &h, n, s->k, kv, SET);
    product(run, &layer->v, &h, n, s->v, kv, SET);
    MEET;
    EACH(item, 1, n * heads) prepare_head(m, s, number, item / heads, item % heads);
    MEET;
    EACH(item, 1, n * m->n_kv_head) attend(m, s, number, item / m->n_kv_head, item % m->n_kv_head);
    MEET;
    EACH(t, 1, n) pack(&y, t, d, kind);
    MEET;
    product(run, &layer->proj, &y, n, s->x, d, ADD);
    MEET;
    EACH(t, 1, n) {
        rms_norm(s->x + t * d, s->h + t * d, d, 1.0f);
        pack(&h, t, d, kind);
    }
    MEET;
    product(run, &layer->fc, &h, n, s->y, 4 * d, SQUARE_RELU);
    MEET;
    EACH(t, 1, n) pack(&y, t, 4 * d, kind);
    MEET;
    product(run, &layer->out, &y, n, s->x, d, ADD);
    MEET;
    if (m->modern && number == m->n_layer / 2) {
        EACH(t, 1, n) memcpy(s->middle + t * d, s->x + t * d, d * sizeof(float));
        MEET;
    }
}

static void logits(Run *run) {
    const Model *m = run->model;
    const Step *s = run->step;
    const int64_t d = m->width;
    const Input hidden = input_of(s, s->hidden);
    EACH(row, 1, s->n_sampled) {
        const float *x = s->x + s->sampled[row] * d, *middle = s->middle + s->sampled[row] * d;
        float *to = s->hidden + row * d;
        for (int64_t i = 0; i < d; i++) to[i] = m->modern ? x[i] - m->backout * middle[i] : x[i];
        rms_norm(to, to, d, 1.0f);
        pack(&hidden, row, d, (int)m->head.kind);
    }
    MEET;
    product(run, &m->head, &hidden, s->n_sampled, s->logits, s->logits_stride, SET);
    MEET;
    const vf cap = all(m->logit_cap);
    EACH(part, 64, s->n_sampled * s->logits_stride / LANES) {
        vf e = exponential(load(s->logits, part * LANES, F32) * 2.0f / cap);
        store_f32(s->logits + part * LANES, cap - 2.0f * cap / (e + 1.0f));  // cap * tanh(x / cap)
    }
}

static void step(Team *team, void *given, int *loop) {
    Run run = {((Run *)given)->model, ((Run *)given)->step, team, loop};
    first_embeddings(&run);
    for (int64_t number = 0; number < run.model->n_layer; number++) block(&run, number);
    if (run.step->n_sampled) logits(&run);
}

void forward(const Model *m, const Step *s, Team *team) {
    Run run = {m, s, team, 0};
    team_run(team, step, &run);
}
