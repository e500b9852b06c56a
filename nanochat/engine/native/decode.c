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

#include "attention.h"

INLINE Input input_of(const Step *s, const float *floats) {
    return (Input){floats, floats == s->y ? s->packed : s->packed_h, s->packed_scale};
}

INLINE void ready(Run *run, const Input *input, int64_t n_tokens, int64_t n, int kind) {
    pack(run->team, run->loop, input, n_tokens, n, kind);
}

INLINE void product(Run *run, const Matrix *w, const Input *input, int64_t n_tokens, float *out, int64_t stride,
                    int how, uint16_t *rounded) {
    uint8_t *panel = run->step->panels + run->member * PANEL_ROWS * 8 * run->model->width;
    const Product p = {w, input, n_tokens, out, stride, how, rounded, panel};
    linear(run->team, run->loop, &p);
}

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
    for (int64_t i = 0; i < m->smear_channels; i++) gate += scalar(m->smear_gate.data, i, m->smear_gate.kind) * own[i];
    gate = m->smear * sigmoid(gate);
    for (int64_t i = 0; i < m->width; i++) {
        float before = 0;
        if (s->previous[t] >= 0) before = scalar(s->embeddings, s->previous[t] * m->width + i, s->kv_kind);
        else if (s->previous[t] == -2) before = rounded(own[i - m->width], s->kv_kind); // as it is stored
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
        for (int64_t i = 0; i < m->gate_channels; i++)
            gate += scalar(gates->data, g * m->gate_channels + i, gates->kind) * s->h[t * m->width + i];
        gate = m->gate_scale * sigmoid(gate);
        for (int64_t i = 0; i < e; i++) v[i] += gate * scalar(ve->data, s->ids[t] * ve->columns + g * e + i, ve->kind);
    }
    const int64_t slot = (s->slots[t] * m->n_kv_head + g) * e;
    for (int64_t i = 0; i < e; i++) {
        store_as(s->keys[layer], slot + i, k[i], s->kv_kind);
        store_as(s->values[layer], slot + i, v[i], s->kv_kind);
    }
}

// ---------------------------------------------------------------------------------------------- the model

static void first_embeddings(Run *run) {
    const Model *m = run->model;
    const Step *s = run->step;
    float *to = m->smear_channels ? s->h : s->x;
    EACH(t, s->n_tokens) embed(m, s->ids[t], to + t * m->width);
    MEET;
    if (!m->smear_channels && !m->mixes) return;
    EACH(t, s->n_tokens) {
        if (m->smear_channels) smear(m, s, t);
        if (m->mixes) memcpy(s->x0 + t * m->width, s->x + t * m->width, m->width * sizeof(float));
    }
    MEET;
}

static void block(Run *run, int64_t number) {
    const Model *m = run->model;
    const Step *s = run->step;
    const Layer *layer = &m->layers[number];
    const int64_t n = s->n_tokens, d = m->width, kv = m->n_kv_head * m->head_dim, heads = m->n_head + m->n_kv_head;
    const int kind = (int)layer->q.kind, form = form_of(kind, n), alone = packs_alone(form);
    const Input h = input_of(s, s->h), y = input_of(s, s->y);
    uint16_t *rounded = form == PANELS && kind == BF16 ? (uint16_t *)y.packed : 0; // as `ready` would make it
    EACH(t, n) {
        float *x = s->x + t * d, *x0 = s->x0 + t * d;
        if (m->mixes)
            for (int64_t i = 0; i < d; i++) x[i] = layer->residual * x[i] + layer->first * x0[i];
        rms_norm(x, s->h + t * d, d, 1.0f);
        if (alone) pack_token(&h, t, d, kind);
    }
    MEET;
    if (!alone) ready(run, &h, n, d, kind);
    product(run, &layer->q, &h, n, s->q, d, SET, 0);
    product(run, &layer->k, &h, n, s->k, kv, SET, 0);
    product(run, &layer->v, &h, n, s->v, kv, SET, 0);
    MEET;
    EACH(item, n * heads) prepare_head(m, s, number, item / heads, item % heads);
    MEET;
    EACH_OF(item, s->n_blocks >= 4 * run->team->n_threads ? m->n_kv_head : 1, s->n_blocks * m->n_kv_head) {
        const int64_t *at = s->blocks + 2 * (item / m->n_kv_head);
        attend(run, number, at[0], at[1], item % m->n_kv_head);
    }
    MEET;
    ready(run, &y, n, d, kind);
    product(run, &layer->proj, &y, n, s->x, d, ADD, 0);
    MEET;
    EACH(t, n) {
        rms_norm(s->x + t * d, s->h + t * d, d, 1.0f);
        if (alone) pack_token(&h, t, d, kind);
    }
    MEET;
    if (!alone) ready(run, &h, n, d, kind);
    product(run, &layer->fc, &h, n, s->y, 4 * d, SQUARE_RELU, rounded);
    MEET;
    if (!rounded) ready(run, &y, n, 4 * d, kind);
    product(run, &layer->out, &y, n, s->x, d, ADD, 0);
    MEET;
    if (m->backout && number == m->n_layer / 2) {
        EACH(t, n) memcpy(s->middle + t * d, s->x + t * d, d * sizeof(float));
        MEET;
    }
}

static void logits(Run *run) {
    const Model *m = run->model;
    const Step *s = run->step;
    const int64_t d = m->width;
    const Input hidden = input_of(s, s->hidden);
    EACH(row, s->n_sampled) {
        const float *x = s->x + s->sampled[row] * d, *middle = s->middle + s->sampled[row] * d;
        float *to = s->hidden + row * d;
        for (int64_t i = 0; i < d; i++) to[i] = m->backout ? x[i] - m->backout * middle[i] : x[i];
        rms_norm(to, to, d, 1.0f);
    }
    MEET;
    ready(run, &hidden, s->n_sampled, d, (int)m->head.kind);
    product(run, &m->head, &hidden, s->n_sampled, s->logits, s->logits_stride, SET, 0);
    MEET;
    const vf cap = all(m->logit_cap);
    EACH(part, s->n_sampled * s->logits_stride / LANES) {
        vf e = exponential(load(s->logits, part * LANES, F32) * 2.0f / cap);
        store_f32(s->logits + part * LANES, cap - 2.0f * cap / (e + 1.0f)); // cap * tanh(x / cap)
    }
}

static void step(Team *team, void *given, int member, int *loop) {
    Run run = {((Run *)given)->model, ((Run *)given)->step, team, loop, member};
#ifdef __AMX_TILE__
    const int tiles = tiles_allowed();
    if (tiles) tiles_begin();
#endif
    first_embeddings(&run);
    for (int64_t number = 0; number < run.model->n_layer; number++) block(&run, number);
    if (run.step->n_sampled) logits(&run);
#ifdef __AMX_TILE__
    if (tiles) tiles_end();
#endif
}

typedef struct {
    const char *data;
    int64_t bytes;
    _Atomic int64_t found;
} Reading;

static void read_share(Team *team, void *given, int member, int *loop) {
    Reading *reading = given;
    const int64_t share = 1 << 20;
    const int number = begin_loop(team, loop);
    vi all_bits = {0};
    (void)member;
    for (int64_t at; (at = take(team, number, share)) + share <= reading->bytes;)
        for (int64_t i = at; i < at + share; i += 4 * sizeof(vi))
            for (int part = 0; part < 4; part++) all_bits ^= *(const vi *)(reading->data + i + part * sizeof(vi));
    int64_t found = 0;
    for (int i = 0; i < LANES; i++) found ^= all_bits[i];
    atomic_fetch_xor(&reading->found, found);
}

// Read memory (64-byte aligned) once with the whole team, a yardstick for decoding: the xor of its words
int64_t read_memory(const void *data, int64_t bytes, Team *team) {
    Reading reading = {data, bytes, 0};
    team_run(team, read_share, &reading);
    return reading.found;
}

// Whether many tokens at a time are fast too: on matrix units, for weights of this kind
int has_tiles(int kind) { return form_of(kind, 64) >= TILES; }

void forward(const Model *m, const Step *s, Team *team) {
    Run run = {m, s, team, 0, 0};
    team_run(team, step, &run);
}
