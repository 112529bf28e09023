/* A model opened for training: masters decoded from whatever the source holds, panels both ways
 * packed from them. */
#include "model/params.h"

#include <assert.h>
#include <string.h>

#include "kernels/back.h"
#include "model/load.h"
#include "model/lora.h"
#include "model/tape.h"

enum { PARAM_ALIGN = 16 }; // floats: a parameter starts on a cache line

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* ---- The list: one entry for each weight of the walk --------------------------------------------------- */

typedef struct {
    hd_model *m;
    struct hd_train *t;
    int cap, n_linear, n_back;
    int at; // next parameter (with adapters: weight of the base), while decoding
    int base_cap;
} opener;

static bool is_vector(const hd_slot *s) { return s->cols == HD_DIM_NONE; }
static bool is_away(const hd_param *p) { return p->single && p->at < 0; }

static hd_status new_param(hd_param **out, opener *o, hd_err *err)
{
    hd_params *ps = &o->t->params;
    if (ps->n == o->cap) {
        int cap = o->cap ? o->cap * 2 : 64;
        hd_status st = hd_realloc(&ps->p, (size_t)cap * sizeof *ps->p, err);
        if (st != HD_OK) return st;
        o->cap = cap;
    }
    *out = &ps->p[ps->n++];
    return HD_OK;
}

static void place_param(hd_params *ps, hd_param *p, int64_t n, int64_t k)
{
    p->n = n;
    p->k = k;
    ps->n_weights += n * k;
    if (p->single) return; // behind all others, when these are known
    p->at = ps->n_flat;
    ps->n_flat += round_up(n * k, PARAM_ALIGN);
}

/* This rank's own experts behind what all have, so that the latter is one range everywhere. */
static void place_singles(hd_params *ps, const hd_ranks *x)
{
    ps->n_shared = ps->n_flat;
    for (int i = 0; i < ps->n; i++) {
        hd_param *p = &ps->p[i];
        if (!p->single) continue;
        bool mine = p->expert >= x->first && p->expert < x->first + x->n;
        p->rank = hd_ranks_owner(x, p->expert);
        p->at = mine ? ps->n_flat : -1;
        if (mine) ps->n_flat += round_up(p->n * p->k, PARAM_ALIGN);
    }
}

/* A or B: its matrix's name with `end` for "weight". */
static hd_status list_adapter(int *index, opener *o, const hd_weight *w, const char *end, int64_t n, int64_t k, hd_err *err)
{
    hd_param *p;
    char name[128];
    hd_status st = new_param(&p, o, err);
    if (st != HD_OK) return st;
    hd_slot_name(name, w->slot->hf, w->layer, w->expert < 0 ? 0 : w->expert);
    *p = (hd_param){.slot = w->slot, .layer = w->slot->per_layer ? w->layer : -1, .expert = w->expert, .adapter = true};
    size_t len = strlen(name), cut = len > 7 && strcmp(name + len - 7, ".weight") == 0 ? len - 7 : len;
    snprintf(p->name, sizeof p->name, "%.*s%s", (int)cut, name, end);
    place_param(&o->t->params, p, n, k);
    *index = o->t->params.n - 1;
    return HD_OK;
}

/* With adapters: the base's weight, and A and B or the vector among the parameters. */
static hd_status list_base(opener *o, const hd_weight *w, bool vector, hd_err *err)
{
    hd_status st;
    hd_lora *l = o->t->lora;
    if (l->n == o->base_cap) {
        int cap = o->base_cap ? o->base_cap * 2 : 64;
        HD_TRY(hd_realloc(&l->base, (size_t)cap * sizeof *l->base, err));
        o->base_cap = cap;
    }
    hd_lora_base *b = &l->base[l->n++];
    *b = (hd_lora_base){.slot = w->slot, .layer = w->slot->per_layer ? w->layer : -1, .expert = w->expert, .rows = w->rows,
                        .vector = vector ? o->t->params.n : -1, .A = -1, .B = -1};
    if (w->slot->kind != HD_SLOT_MATRIX && w->slot->kind != HD_SLOT_EXPERT) return HD_OK;
    HD_TRY(list_adapter(&b->A, o, w, ".lora_A.weight", l->rank, w->rows.k, err));
    HD_TRY(list_adapter(&b->B, o, w, ".lora_B.weight", w->rows.n, l->rank, err));
fail:
    return st;
}

static hd_status list_weight(void *arg, const hd_weight *w, hd_err *err)
{
    hd_status st;
    opener *o = arg;
    hd_params *ps = &o->t->params;
    hd_param *p;
    if (!w->slot->hf)
        return hd_fail(err, HD_UNSUPPORTED,
                       "train: %.200s: weight %.100s: stands in GGUF alone; start from the model's Hugging Face directory",
                       hd_source_path(o->m->src), w->t->name);
    if (o->t->lora) HD_TRY(list_base(o, w, is_vector(w->slot), err));
    if (o->t->lora && !is_vector(w->slot)) return HD_OK;
    HD_TRY(new_param(&p, o, err));
    *p = (hd_param){.slot = w->slot, .layer = w->slot->per_layer ? w->layer : -1, .expert = w->expert};
    hd_slot_name(p->name, w->slot->hf, w->layer, w->expert < 0 ? 0 : w->expert);
    p->vector = is_vector(w->slot);
    p->frozen = o->t->lora || (w->slot->field == offsetof(hd_layer, router_bias) && w->slot->kind == HD_SLOT_BIAS && w->slot->per_layer);
    p->single = o->m->ranks && w->expert >= 0;
    place_param(ps, p, w->rows.n, w->rows.k);
    return HD_OK;
fail:
    return st;
}

const hd_param *hd_params_find(const hd_params *p, const char *name)
{
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->p[i].name, name) == 0) return &p->p[i];
    return NULL;
}

/* ---- Masters ------------------------------------------------------------------------------------------- */

/* GGUF's `llama` files hold the rows of a rotated head as adjacent pairs; a checkpoint of
 * ours holds halves. */
int64_t hd_row_in_file(const struct hd_train *t, int64_t dim, const hd_slot *s, int64_t row)
{
    int64_t half = dim / 2, i = row % dim;
    if (!(s->flags & HD_SLOT_ROTARY) || !t->pairs_in_file) return row;
    return row - i + (i < half ? 2 * i : 2 * (i - half) + 1);
}

static hd_status decode_weight(void *arg, const hd_weight *w, hd_err *err)
{
    opener *o = arg;
    hd_params *ps = &o->t->params;
    int i_param = o->t->lora ? o->t->lora->base[o->at].vector : o->at;
    o->at++;
    if (i_param < 0) return HD_OK; // decoded whenever its panels are packed
    const hd_param *p = &ps->p[i_param];
    if (is_away(p)) {
        if (w->last) hd_source_release(o->m->src, w->t);
        return HD_OK;
    }
    float *to = ps->w + p->at;
    if (is_vector(w->slot) && w->slot->flags & HD_SLOT_ROTARY) { // a bias of rotated heads: numbers are rows
        float *tmp;
        hd_status st = hd_alloc_n(&tmp, (size_t)p->k, sizeof *tmp, err);
        if (st != HD_OK) return st;
        hd_rows_decode(&w->rows, 0, tmp);
        for (int64_t i = 0; i < p->k; i++) to[i] = tmp[hd_row_in_file(o->t, o->m->cfg.head_dim, w->slot, i)];
        free(tmp);
    } else {
        for (int64_t r = 0; r < p->n; r++)
            hd_rows_decode(&w->rows, is_vector(w->slot) ? r : hd_row_in_file(o->t, o->m->cfg.head_dim, w->slot, r), to + r * p->k);
    }
    for (int64_t i = 0; i < p->n * p->k; i++)
        if (!(to[i] - to[i] == 0))
            return hd_fail(err, HD_FORMAT, "train: %.200s: weight %s: number %lld is not finite", hd_source_path(o->m->src),
                           p->name, (long long)i);
    if (w->last) hd_source_release(o->m->src, w->t);
    return HD_OK;
}

/* ---- Matrices ready to multiply, both ways ------------------------------------------------------------- */

static const hd_panel_kind *kind_of(const struct hd_train *t, hd_slot_kind slot)
{
    bool head = slot == HD_SLOT_HEAD || slot == HD_SLOT_EMBED; // tied
    bool f32 = t->precision == HD_TRAIN_F32 || slot == HD_SLOT_ROUTER || (t->precision == HD_TRAIN_FP8 && head);
    return hd_panel_get(f32 ? HD_PANEL_F32 : HD_PANEL_BF16);
}

static size_t panel_bytes(const hd_panel_kind *kind, int64_t n, int64_t k)
{
    return kind->bytes(k) * (size_t)((n + HD_PANEL_ROWS - 1) / HD_PANEL_ROWS);
}

static uint8_t *take(hd_arena *a, size_t bytes)
{
    uint8_t *p = hd_arena_take(a, bytes);
    assert(p && "panels planned too small");
    return p;
}

/* w: [n, k], rows from row0 on of the masters at `at`, with room for its panels and its transpose's.  With
 * adapters `at` is A's place, by which its gradient is found, or -1. */
static void set_linear(opener *o, hd_linear *w, int64_t at, int64_t row0, int64_t n, int64_t k, const hd_panel_kind *kind)
{
    struct hd_train *t = o->t;
    const float *bias = w->bias;
    hd_linear *back = &t->back[o->n_back++];
    const float *from = at < 0 ? NULL : t->params.w + at + (t->lora ? 0 : row0 * k);
    if (t->row0) t->row0[o->n_linear] = row0;
    *w = (hd_linear){.src = {.type = HD_F32, .data = (const uint8_t *)from, .row_bytes = (size_t)k * 4, .n = n, .k = k},
                     .kind = kind, .bias = bias, .back = back};
    *back = (hd_linear){.src = {.type = HD_F32, .n = k, .k = n, .row_bytes = (size_t)n * 4}, .kind = kind};
    w->panels = take(&t->panels, panel_bytes(kind, n, k));
    back->panels = take(&t->panels, panel_bytes(kind, k, n));
    t->linear[o->n_linear++] = w;
}

/* The key's half of a head is multiplied the other way round (block_mla.c): its transpose is what
 * the forward reads. */
static void set_heads(opener *o, hd_layer *l, int layer, const hd_param *p)
{
    const hd_config *c = &o->m->cfg;
    int64_t nope = c->qk_nope_head_dim, v = c->v_head_dim, lora = p->k;
    const hd_panel_kind *kind = kind_of(o->t, HD_SLOT_KV_B);
    for (int h = 0; h < c->n_heads; h++) {
        int64_t row = h * (nope + v);
        hd_linear *key = &o->t->key[(int64_t)layer * c->n_heads + h];
        set_linear(o, key, p->at, row, nope, lora, kind);
        l->k_b[h] = *key->back;
        l->k_b[h].back = key;
        set_linear(o, &l->v_b[h], p->at, row + nope, v, lora, kind);
    }
}

static void set_param(opener *o, const hd_param *p)
{
    hd_model *m = o->m;
    hd_params *ps = &o->t->params;
    hd_layer *l = p->layer >= 0 ? &m->layer[p->layer] : NULL;
    char *base = l ? (char *)l : (char *)&m->w;
    if (p->expert >= 0) base = (char *)&l->expert[p->expert];
    void *field = base + p->slot->field;
    switch (p->slot->kind) {
    case HD_SLOT_MATRIX:
    case HD_SLOT_HEAD:
    case HD_SLOT_EXPERT:
    case HD_SLOT_ROUTER: set_linear(o, field, p->at, 0, p->n, p->k, kind_of(o->t, p->slot->kind)); break;
    case HD_SLOT_EMBED:
        if (!o->t->lora) m->w.embed = (hd_rows){.type = HD_F32, .data = (const uint8_t *)(ps->w + p->at), .row_bytes = (size_t)p->k * 4, .n = p->n, .k = p->k};
        if (m->cfg.tie_embeddings) set_linear(o, &m->w.head, p->at, 0, p->n, p->k, kind_of(o->t, HD_SLOT_HEAD));
        break;
    case HD_SLOT_KV_B: set_heads(o, l, p->layer, p); break;
    case HD_SLOT_NORM:
    case HD_SLOT_BIAS:
        *(const float **)field = ps->w + p->at;
        if (p->frozen) o->t->router_bias[p->layer] = ps->w + p->at;
        break;
    case HD_SLOT_K_B:
    case HD_SLOT_V_B:
    case HD_SLOT_ROPE_FREQ: assert(!"in GGUF alone"); break;
    }
}

/* Count what set_param will take. */
static void count_param(const opener *o, const hd_param *p, int *n_linear, size_t *bytes)
{
    const hd_config *c = &o->m->cfg;
    const hd_panel_kind *kind = kind_of(o->t, p->slot->kind);
    if (is_away(p)) return;
    switch (p->slot->kind) {
    case HD_SLOT_KV_B:
        *n_linear += 2 * c->n_heads;
        *bytes += (size_t)c->n_heads * (panel_bytes(kind, c->qk_nope_head_dim, p->k) + panel_bytes(kind, p->k, c->qk_nope_head_dim) +
                                        panel_bytes(kind, c->v_head_dim, p->k) + panel_bytes(kind, p->k, c->v_head_dim) + 256);
        break;
    case HD_SLOT_EMBED:
        if (!c->tie_embeddings) break; // fall through
    case HD_SLOT_MATRIX:
    case HD_SLOT_HEAD:
    case HD_SLOT_EXPERT:
    case HD_SLOT_ROUTER:
        *n_linear += 1;
        *bytes += panel_bytes(kind, p->n, p->k) + panel_bytes(kind, p->k, p->n) + 128;
        break;
    default: break;
    }
}

/* ---- What the model is made of: the parameters, or with adapters the weights of the base --------------- */

static int n_weights(const struct hd_train *t) { return t->lora ? t->lora->n : t->params.n; }

static hd_param weight_at(const struct hd_train *t, int i)
{
    if (!t->lora) return t->params.p[i];
    const hd_lora_base *b = &t->lora->base[i];
    if (b->vector >= 0) {
        hd_param p = t->params.p[b->vector];
        p.frozen = b->slot->field == offsetof(hd_layer, router_bias) && b->slot->kind == HD_SLOT_BIAS && b->slot->per_layer;
        return p;
    }
    return (hd_param){.slot = b->slot, .layer = b->layer, .expert = b->expert, .n = b->rows.n, .k = b->rows.k,
                      .at = b->A < 0 ? -1 : t->params.p[b->A].at};
}

static void count_adapter(const opener *o, int i, int *n_linear, size_t *bytes)
{
    const hd_lora *l = o->t->lora;
    if (!l || l->base[i].A < 0) return;
    const hd_panel_kind *kind = kind_of(o->t, l->base[i].slot->kind);
    int64_t n = l->base[i].rows.n, k = l->base[i].rows.k, r = l->rank;
    *n_linear += 2;
    *bytes += panel_bytes(kind, r, k) + panel_bytes(kind, k, r) + panel_bytes(kind, n, r) + panel_bytes(kind, r, n) + 256;
}

static void set_adapter(opener *o, int i, int first)
{
    hd_lora_base *b = &o->t->lora->base[i];
    const hd_params *ps = &o->t->params;
    b->linear = first;
    b->n_linear = o->n_linear - first;
    if (b->slot->kind == HD_SLOT_EMBED) o->m->w.embed = b->rows;
    if (b->A < 0) return;
    const hd_panel_kind *kind = kind_of(o->t, b->slot->kind);
    set_linear(o, &b->a, ps->p[b->A].at, 0, o->t->lora->rank, b->rows.k, kind);
    set_linear(o, &b->b, ps->p[b->B].at, 0, b->rows.n, o->t->lora->rank, kind);
}

static hd_status set_params(opener *o, hd_err *err)
{
    hd_status st;
    hd_model *m = o->m;
    struct hd_train *t = o->t;
    const hd_config *c = &m->cfg;
    size_t bytes = 0, mla = c->kv_lora_rank > 0 ? (size_t)c->n_heads : 0;
    int n_linear = 0;
    for (int i = 0; i < n_weights(t); i++) {
        const hd_param p = weight_at(t, i);
        count_param(o, &p, &n_linear, &bytes);
        count_adapter(o, i, &n_linear, &bytes);
    }
    HD_TRY(hd_alloc_n(&m->layer, (size_t)m->n_layer, sizeof *m->layer, err));
    HD_TRY(hd_alloc_n(&m->heads, (size_t)m->n_layer, 2 * mla * sizeof *m->heads, err));
    HD_TRY(hd_alloc_n(&m->experts, (size_t)m->n_layer, (size_t)c->n_experts * sizeof *m->experts, err));
    HD_TRY(hd_alloc_n(&t->key, (size_t)m->n_layer * mla, sizeof *t->key, err));
    HD_TRY(hd_alloc_n(&t->back, (size_t)n_linear, sizeof *t->back, err));
    HD_TRY(hd_alloc_n(&t->linear, (size_t)n_linear, sizeof *t->linear, err));
    if (t->lora) HD_TRY(hd_alloc_n(&t->row0, (size_t)n_linear, sizeof *t->row0, err));
    HD_TRY(hd_alloc_n(&t->router_bias, (size_t)m->n_layer, sizeof *t->router_bias, err));
    HD_TRY(hd_arena_open(&t->panels, "panels", bytes + 4096, err));
    for (int i = 0; i < m->n_layer; i++) {
        hd_layer *l = &m->layer[i];
        l->moe = hd_config_layer_is_moe(c, i);
        l->k_b = mla ? m->heads + (size_t)i * 2 * mla : NULL;
        l->v_b = mla ? l->k_b + mla : NULL;
        l->expert = c->n_experts > 0 ? m->experts + (size_t)i * (size_t)c->n_experts : NULL;
    }
    for (int i = 0; i < n_weights(t); i++) {
        const hd_param p = weight_at(t, i);
        int first = o->n_linear;
        if (!is_away(&p)) set_param(o, &p);
        if (t->lora) set_adapter(o, i, first);
    }
    assert(o->n_linear == n_linear && o->n_back == n_linear);
    t->n_linear = n_linear;
    t->params.router_bias = t->router_bias;
fail:
    return st;
}

void hd_params_refresh(hd_model *m)
{
    if (m->train->lora) hd_lora_pack(m, false);
    else hd_linear_refresh(&m->dev, m->train->linear, m->train->n_linear);
}

hd_params *hd_model_params(hd_model *m) { return m->train ? &m->train->params : NULL; }

/* ---- Open, close --------------------------------------------------------------------------------------- */

hd_cache_type hd_train_round(const hd_config *c, hd_train_precision p, const hd_kernels *k)
{
    return p != HD_TRAIN_F32 && !k->back->outer_pairs && hd_cache_default(c) == HD_CACHE_F16 ? HD_CACHE_F16 : HD_CACHE_F32;
}

hd_cache_type hd_train_cache(const hd_config *c, hd_train_precision p, const hd_kernels *k)
{
    return p == HD_TRAIN_F32 || hd_train_round(c, p, k) == HD_CACHE_F16 ? HD_CACHE_F32 : HD_CACHE_BF16;
}

static hd_status open_device(hd_model *m, int n_threads, hd_err *err)
{
    const hd_train_precision p = m->train->precision;
    int64_t max_k = hd_model_max_k(&m->cfg, true);
    hd_status st = hd_dev_open(&m->dev, n_threads, p == HD_TRAIN_F32, max_k > HD_LEAST_K ? max_k : HD_LEAST_K, err);
    if (st != HD_OK) return st;
    m->dev.fp8 = p == HD_TRAIN_FP8;
    m->dev.wide = p == HD_TRAIN_BF16 && m->dev.k->wide_mul;
    return HD_OK;
}

/* Work memory and tape; what rows of other ranks may take is set aside, not taken. */
static hd_status open_arenas(hd_model *m, hd_err *err)
{
    hd_status st;
    struct hd_train *t = m->train;
    const hd_config *c = &m->cfg;
    hd_ranks_bytes more = {0};
    hd_status (*open)(hd_arena *, const char *, size_t, hd_err *) = m->ranks ? hd_arena_reserve : hd_arena_open;
    size_t tape = (size_t)m->max_rows * (size_t)c->d_model * 4 * (size_t)(m->n_layer + 4);
    if (m->ranks) more = hd_ranks_bytes_for(c, m->max_rows, hd_ranks_most_rows(m->ranks, m->max_rows));
    for (int i = 0; i < m->n_layer; i++)
        tape += hd_tape_layer_bytes(c, i, m->max_rows) + (hd_config_layer_is_moe(c, i) ? more.tape : 0);
    HD_TRY(hd_pass_work_open(&m->work, m, m->work_tok, err));
    HD_TRY(open(&t->tape, "tape", tape, err));
    HD_TRY(open(&t->work, "backward", hd_back_bytes(c, m->max_rows, hd_pool_threads(m->dev.pool)) + more.back, err));
    HD_TRY(hd_cache_open(&t->cache, c, hd_train_cache(c, t->precision, m->dev.k), (int64_t)m->max_rows * HD_PAGE_TOK, err));
fail:
    return st;
}

hd_status hd_train_open_pass(hd_model *m, int n_threads, hd_err *err)
{
    hd_status st;
    HD_TRY(open_device(m, n_threads, err));
    HD_TRY(open_arenas(m, err));
fail:
    return st;
}

void hd_train_close_pass(hd_model *m)
{
    hd_cache_close(m->train->cache);
    hd_arena_close(&m->train->tape);
    hd_arena_close(&m->train->work);
    hd_arena_close(&m->work);
    hd_dev_close(&m->dev);
}

/* lora: taken, NULL: the weights themselves.  comm: of experts on ranks, or NULL. */
static hd_status open_take(hd_model **out, const hd_source *s, hd_train_precision precision, hd_lora *lora, hd_comm *comm, int n_threads,
                           int max_rows, hd_err *err)
{
    hd_status st;
    hd_model *m = NULL;
    opener o = {0};
    *out = NULL;
    HD_TRY(hd_alloc(&m, sizeof *m, err));
    HD_TRY(hd_alloc(&m->train, sizeof *m->train, err));
    o.m = m;
    struct hd_train *t = o.t = m->train;
    t->lora = lora;
    lora = NULL;
    t->precision = precision;
    HD_TRY(hd_model_describe(m, s, max_rows, err));
    m->keep_pages = true;
    t->pairs_in_file = m->cfg.rope.pairs && hd_source_get_kind(s) == HD_SOURCE_GGUF;
    HD_TRY(open_device(m, n_threads, err));
    if (comm && m->cfg.n_experts > 0) HD_TRY(hd_ranks_open(&m->ranks, comm, &m->cfg, m->max_rows, err));
    HD_TRY(hd_weights_walk(s, &m->cfg, list_weight, &o, err));
    place_singles(&t->params, m->ranks);
    t->w_bytes = (size_t)t->params.n_flat * sizeof(float);
    HD_TRY(hd_alloc_aligned(&t->params.w, t->w_bytes, err));
    HD_TRY(hd_alloc_aligned(&t->params.g, t->w_bytes, err));
    HD_TRY(hd_weights_walk(s, &m->cfg, decode_weight, &o, err));
    if (hd_source_get_kind(s) == HD_SOURCE_GGUF && strcmp(m->arch->gguf_name, "llama") == 0) m->cfg.rope.pairs = false;
    HD_TRY(set_params(&o, err));
    if (t->lora) HD_TRY(hd_lora_start(m, err));
    else hd_params_refresh(m);
    HD_TRY(hd_rope_open(&m->rope, &m->cfg, NULL, err));
    m->attn_scale = hd_attn_scale(&m->cfg);
    HD_TRY(open_arenas(m, err));
    HD_TRY(hd_lanes_open(&t->lanes, m, err));
    *out = m;
    return HD_OK;
fail:
    hd_lora_close(lora);
    hd_model_close(m);
    return st;
}

hd_status hd_model_open_train(hd_model **out, const hd_source *s, hd_train_precision precision, int n_threads, int max_rows, hd_err *err)
{
    return open_take(out, s, precision, NULL, NULL, n_threads, max_rows, err);
}

hd_status hd_model_open_ranks(hd_model **out, const hd_source *s, hd_train_precision precision, hd_comm *comm, int n_threads, int max_rows,
                              hd_err *err)
{
    return open_take(out, s, precision, NULL, comm, n_threads, max_rows, err);
}

uint64_t hd_model_rank_bytes(const hd_model *m) { return m->ranks ? m->ranks->bytes : 0; }

hd_status hd_model_open_lora(hd_model **out, const hd_source *s, hd_train_precision precision, int rank, float alpha, uint64_t seed,
                             int n_threads, int max_rows, hd_err *err)
{
    hd_lora *l;
    hd_status st = HD_OK;
    *out = NULL;
    if (rank < 1 || rank > 4096 || !(alpha > 0)) return hd_fail(err, HD_USAGE, "lora: rank must be 1 to 4096, alpha above 0");
    st = hd_alloc(&l, sizeof *l, err);
    if (st != HD_OK) return st;
    l->rank = rank;
    l->scale = alpha / (float)rank;
    l->seed = seed;
    return open_take(out, s, precision, l, NULL, n_threads, max_rows, err);
}

void hd_train_close(struct hd_train *t)
{
    if (!t) return;
    hd_lanes_close(t->lanes);
    hd_cache_close(t->cache);
    hd_arena_close(&t->panels);
    hd_arena_close(&t->tape);
    hd_arena_close(&t->work);
    hd_free_aligned(t->params.w, t->w_bytes);
    hd_free_aligned(t->params.g, t->w_bytes);
    free(t->params.p);
    free(t->linear);
    free(t->back);
    free(t->key);
    free(t->router_bias);
    free(t->row0);
    hd_lora_close(t->lora);
    free(t);
}
