/* From file to panels: one walk over the architecture's slot table finds, checks and visits every weight.
 *
 * The walk is made twice, first to count bytes (so that one arena is opened for all weights), then to bring
 * them in. Packing a matrix reads its pages once and then gives them back, so the file and the panels never
 * lie in memory together: the peak is the panels plus the one tensor being packed.
 *
 *   matrices           panels (or the file's own rows, without packing)
 *   token embedding    stays in the file: a token reads one row
 *   router             f32 panels, whatever the file holds: a tie broken otherwise picks another expert
 *   vectors            f32
 *   MLA's kv_b         cut per head; the keys' half is transposed, [nope, lora] to [lora, nope], since the
 *                      absorbed form multiplies queries by it (arXiv:2405.04434, 2.1.2).  Quantized blocks
 *                      lie along the other dimension, so it becomes bf16 (f32 when exact) */
#include <assert.h>
#include <string.h>

#include "base/num.h"
#include "model/load.h"

/* ---- The walk ---- */

static hd_status wrong_shape(const hd_source *s, const hd_tensor_info *t, int64_t e, int64_t r, int64_t c,
                             hd_err *err)
{
    char have[96] = "", want[96];
    for (int i = 0; i < t->n_dims; i++) {
        size_t n = strlen(have);
        snprintf(have + n, sizeof have - n, "%s%lld", i ? ", " : "", (long long)t->dim[i]);
    }
    if (e > 0) snprintf(want, sizeof want, "%lld, %lld, %lld", (long long)e, (long long)r, (long long)c);
    else if (c > 0) snprintf(want, sizeof want, "%lld, %lld", (long long)r, (long long)c);
    else snprintf(want, sizeof want, "%lld", (long long)r);
    return hd_fail(err, HD_FORMAT, "model: %.200s: weight %.100s: shape [%s], the configuration wants [%s]",
                   hd_source_path(s), t->name, have, want);
}

/* Rows of a tensor that must be [rows, cols], or [count, rows, cols] with count > 0, or
 * [rows] with cols 0. */
static hd_status rows_of(hd_rows *out, const hd_source *s, const hd_tensor_info *t, int64_t count,
                         int64_t rows, int64_t cols, hd_err *err)
{
    const hd_format *f = hd_format_get((int)t->type);
    bool fits = count > 0  ? t->n_dims == 3 && t->dim[0] == count && t->dim[1] == rows && t->dim[2] == cols
                : cols > 0 ? t->n_dims == 2 && t->dim[0] == rows && t->dim[1] == cols
                           : t->n_dims == 1 && t->dim[0] == rows;
    if (!fits) return wrong_shape(s, t, count, rows, cols, err);
    if (!f || !f->dequant)
        return hd_fail(err, HD_UNSUPPORTED,
                       "model: %.200s: weight %.100s: format %s cannot be multiplied here", hd_source_path(s),
                       t->name, f ? f->name : "unknown");
    *out = (hd_rows){.type = t->type, .data = t->data, .n = cols > 0 ? rows : 1, .k = cols > 0 ? cols : rows};
    if (!hd_format_row_bytes(f, out->k, &out->row_bytes))
        return hd_fail(err, HD_FORMAT,
                       "model: %.200s: weight %.100s: rows of %lld are no multiple of %s's %d",
                       hd_source_path(s), t->name, (long long)out->k, f->name, f->block);
    if (t->type == HD_F8_E4M3) { // hd_source_open has checked the scales
        char name[300];
        snprintf(name, sizeof name, "%s_scale_inv", t->name);
        const hd_tensor_info *scale = hd_source_find(s, name);
        assert(scale && scale->n_dims == 2);
        out->f8_scale = (const float *)(const void *)scale->data;
        out->f8_scale_ld = scale->dim[1];
    }
    return HD_OK;
}

/* All experts of one slot in one layer: stacked, or one tensor each. */
static hd_status walk_experts(const hd_source *s, const hd_config *c, const hd_slot *slot, int layer,
                              hd_weight_fn *fn, void *arg, hd_err *err)
{
    hd_status st;
    char name[128];
    int64_t rows = hd_dim_size(c, slot->rows), cols = hd_dim_size(c, slot->cols);
    bool gguf = hd_source_get_kind(s) == HD_SOURCE_GGUF;
    const hd_tensor_info *stacked = NULL;
    hd_weight w = {.slot = slot, .layer = layer};
    if (gguf) {
        hd_slot_name(name, slot->gguf, layer, 0);
        stacked = hd_source_find(s, name);
        if (stacked) HD_TRY(rows_of(&w.rows, s, stacked, c->n_experts, rows, cols, err));
    }
    for (w.expert = 0; w.expert < c->n_experts; w.expert++) {
        w.t = stacked;
        if (!stacked) {
            hd_slot_name(name, gguf ? slot->gguf_each : slot->hf, layer, w.expert);
            w.t = hd_source_find(s, name);
            if (!w.t)
                return hd_fail(err, HD_FORMAT, "model: %.200s: weight %s is missing", hd_source_path(s),
                               name);
            HD_TRY(rows_of(&w.rows, s, w.t, 0, rows, cols, err));
        }
        w.last = !stacked || w.expert == c->n_experts - 1;
        HD_TRY(fn(arg, &w, err));
        if (stacked) w.rows.data += (size_t)rows * w.rows.row_bytes;
    }
    return HD_OK;
fail:
    return st;
}

static hd_status walk_one(const hd_source *s, const hd_config *c, const hd_slot *slot, int layer,
                          hd_weight_fn *fn, void *arg, hd_err *err)
{
    hd_status st;
    char name[128];
    bool gguf = hd_source_get_kind(s) == HD_SOURCE_GGUF;
    int64_t rows = hd_dim_size(c, slot->rows),
            cols = slot->cols == HD_DIM_NONE ? 0 : hd_dim_size(c, slot->cols);
    hd_weight w = {.slot = slot, .layer = layer, .expert = -1, .last = true};
    hd_slot_name(name, gguf ? slot->gguf : slot->hf, layer, 0);
    w.t = hd_source_find(s, name);
    if (!w.t) {
        if (slot->flags & HD_SLOT_OPTIONAL || (gguf && slot->flags & HD_SLOT_PRESENCE)) return HD_OK;
        return hd_fail(err, HD_FORMAT, "model: %.200s: weight %s is missing", hd_source_path(s), name);
    }
    bool heads = slot->kind == HD_SLOT_K_B || slot->kind == HD_SLOT_V_B;
    HD_TRY(rows_of(&w.rows, s, w.t, heads ? c->n_heads : 0, rows, cols, err));
    HD_TRY(fn(arg, &w, err));
fail:
    return st;
}

hd_status hd_weights_walk(const hd_source *s, const hd_config *c, hd_weight_fn *fn, void *arg, hd_err *err)
{
    hd_status st;
    const hd_arch *a;
    HD_TRY(hd_arch_find(&a, c, err));
    for (int i = 0; i < a->n_slots; i++) {
        const hd_slot *slot = &a->slots[i];
        if (slot->per_layer) continue;
        if (hd_slot_exists(slot, c, hd_source_get_kind(s), 0)) HD_TRY(walk_one(s, c, slot, 0, fn, arg, err));
    }
    for (int layer = 0; layer < c->n_layers + c->n_mtp; layer++)
        for (int i = 0; i < a->n_slots; i++) {
            const hd_slot *slot = &a->slots[i];
            if (!slot->per_layer || !hd_slot_exists(slot, c, hd_source_get_kind(s), layer)) continue;
            if (slot->kind == HD_SLOT_EXPERT) HD_TRY(walk_experts(s, c, slot, layer, fn, arg, err));
            else HD_TRY(walk_one(s, c, slot, layer, fn, arg, err));
        }
    return HD_OK;
fail:
    return st;
}

void hd_config_drop_mtp(hd_config *c, const hd_source *s)
{
    char name[128];
    bool gguf = hd_source_get_kind(s) == HD_SOURCE_GGUF;
    snprintf(name, sizeof name, gguf ? "blk.%d.nextn.eh_proj.weight" : "model.layers.%d.eh_proj.weight",
             c->n_layers);
    if (!hd_source_find(s, name)) c->n_mtp = 0;
}

/* ---- Heads of kv_b ---- */

/* The format in which a decoded matrix is kept. */
static hd_type decoded_type(hd_type from, bool exact)
{
    if (from == HD_BF16 || from == HD_F16) return from; // loses nothing
    return exact || from == HD_F32 ? HD_F32 : HD_BF16;
}

static size_t decoded_bytes(hd_type t) { return t == HD_F32 ? 4 : 2; }

/* Is a head's half of kv_b taken from the file as it is?  Keys are transposed, FP8's scales
 * count from row 0. */
static bool as_is(const hd_rows *kv_b) { return kv_b->type != HD_F8_E4M3; }

static void encode(hd_type t, void *out, int64_t i, float v)
{
    if (t == HD_F32) {
        memcpy((char *)out + i * 4, &v, 4);
        return;
    }
    uint16_t h = t == HD_F16 ? hd_f32_to_f16(v) : hd_f32_to_bf16(v);
    memcpy((char *)out + i * 2, &h, 2);
}

/* Rows row0 .. row0+n-1 of src into `out` as `t`, transposed ([k, n]) or not ([n, k]).  tmp: [k]. */
static void decode_part(hd_rows *part, void *out, hd_type t, const hd_rows *src, int64_t row0, int64_t n,
                        bool transpose, float *tmp)
{
    for (int64_t r = 0; r < n; r++) {
        hd_rows_decode(src, row0 + r, tmp);
        for (int64_t i = 0; i < src->k; i++) encode(t, out, transpose ? i * n + r : r * src->k + i, tmp[i]);
    }
    *part = (hd_rows){.type = t, .data = out, .n = transpose ? src->k : n, .k = transpose ? n : src->k};
    part->row_bytes = (size_t)part->k * decoded_bytes(t);
}

/* ---- Counting ---- */

typedef struct {
    const hd_config *c;
    bool pack, exact, wrapped;
    uint64_t bytes;
} counter;

static void count(counter *n, size_t bytes)
{
    if (__builtin_add_overflow(n->bytes, (bytes + 63) / 64 * 64, &n->bytes)) n->wrapped = true;
}

static void count_panels(counter *n, hd_type type, int64_t rows, int64_t cols)
{
    hd_rows r = {.type = type, .n = rows, .k = cols};
    count(n, hd_linear_packed_bytes(&r));
}

static hd_status count_weight(void *arg, const hd_weight *w, hd_err *err)
{
    counter *n = arg;
    const hd_config *c = n->c;
    const hd_rows *r = &w->rows;
    (void)err;
    switch (w->slot->kind) {
    case HD_SLOT_MATRIX:
    case HD_SLOT_HEAD:
    case HD_SLOT_EXPERT:
        if (n->pack) count_panels(n, r->type, r->n, r->k);
        break;
    case HD_SLOT_EMBED:
        if (n->pack && c->tie_embeddings) count_panels(n, r->type, r->n, r->k);
        break;
    case HD_SLOT_ROUTER: count_panels(n, HD_F32, r->n, r->k); break;
    case HD_SLOT_KV_B:
        for (int h = 0; h < c->n_heads; h++) {
            hd_type t = decoded_type(r->type, n->exact);
            count_panels(n, t, r->k, c->qk_nope_head_dim);
            if (!as_is(r)) count_panels(n, t, c->v_head_dim, r->k);
            else if (n->pack) count_panels(n, r->type, c->v_head_dim, r->k);
        }
        break;
    case HD_SLOT_K_B:
    case HD_SLOT_V_B:
        if (n->pack)
            for (int h = 0; h < c->n_heads; h++) count_panels(n, r->type, r->n, r->k);
        break;
    case HD_SLOT_NORM:
    case HD_SLOT_BIAS:
    case HD_SLOT_ROPE_FREQ: count(n, (size_t)r->k * sizeof(float)); break;
    }
    return HD_OK;
}

hd_status hd_weights_bytes(uint64_t *bytes, const hd_source *s, const hd_config *c, bool pack, bool exact,
                           hd_err *err)
{
    counter n = {.c = c, .pack = pack, .exact = exact};
    hd_status st = hd_weights_walk(s, c, count_weight, &n, err);
    if (st != HD_OK) return st;
    if (n.wrapped)
        return hd_fail(err, HD_LIMIT, "model: %.200s: more weights than addresses", hd_source_path(s));
    *bytes = n.bytes;
    return HD_OK;
}

/* ---- Bringing in ---- */

typedef struct {
    hd_model *m;
    bool pack;
    hd_progress bar;
} loader;

static void *take(hd_model *m, size_t bytes)
{
    void *p = hd_arena_take(&m->weights, bytes);
    assert(p && "the count and the load disagree");
    return p;
}

/* Describe the matrix and pack it.  A bias that stands already stays. */
static void set_linear(hd_model *m, hd_linear *l, const hd_rows *rows, bool pack)
{
    const float *bias = l->bias;
    size_t bytes = hd_linear_packed_bytes(rows);
    hd_linear_init(l, rows);
    l->bias = bias;
    if (pack && bytes > 0) hd_arena_give(&m->weights, bytes - hd_linear_pack(&m->dev, l, take(m, bytes)));
}

static hd_status load_router(hd_model *m, hd_linear *l, const hd_rows *src, hd_err *err)
{
    float *w;
    hd_status st = hd_alloc_n(&w, (size_t)(src->n * src->k), sizeof *w, err);
    if (st != HD_OK) return st;
    for (int64_t r = 0; r < src->n; r++) hd_rows_decode(src, r, w + r * src->k);
    hd_rows rows = {.type = HD_F32,
                    .data = (const uint8_t *)w,
                    .row_bytes = (size_t)src->k * 4,
                    .n = src->n,
                    .k = src->k};
    set_linear(m, l, &rows, true);
    l->src.data = NULL; // panels alone from here on
    free(w);
    return HD_OK;
}

static hd_status load_kv_b(hd_model *m, hd_layer *l, const hd_rows *src, bool pack, hd_err *err)
{
    hd_status st;
    const hd_config *c = &m->cfg;
    int64_t nope = c->qk_nope_head_dim, v = c->v_head_dim;
    hd_type t = decoded_type(src->type, m->dev.exact);
    void *part = NULL;
    float *tmp = NULL;
    HD_TRY(hd_alloc_n(&part, (size_t)((nope > v ? nope : v) * src->k), decoded_bytes(t), err));
    HD_TRY(hd_alloc_n(&tmp, (size_t)src->k, sizeof *tmp, err));
    for (int h = 0; h < c->n_heads; h++) {
        hd_rows r;
        int64_t row0 = h * (nope + v);
        decode_part(&r, part, t, src, row0, nope, true, tmp);
        set_linear(m, &l->k_b[h], &r, true);
        l->k_b[h].src.data = NULL;
        if (as_is(src)) {
            r = *src;
            r.data += (size_t)(row0 + nope) * src->row_bytes;
            r.n = v;
            set_linear(m, &l->v_b[h], &r, pack);
        } else {
            decode_part(&r, part, t, src, row0 + nope, v, false, tmp);
            set_linear(m, &l->v_b[h], &r, true);
            l->v_b[h].src.data = NULL;
        }
    }
fail:
    free(part);
    free(tmp);
    return st;
}

static void load_split(hd_model *m, hd_linear *head, const hd_rows *src, bool pack)
{
    hd_rows r = *src;
    for (int h = 0; h < m->cfg.n_heads; h++) {
        set_linear(m, &head[h], &r, pack);
        r.data += (size_t)r.n * r.row_bytes;
    }
}

static hd_status load_weight(void *arg, const hd_weight *w, hd_err *err)
{
    hd_status st = HD_OK;
    loader *ld = arg;
    hd_model *m = ld->m;
    hd_layer *l = w->slot->per_layer ? &m->layer[w->layer] : NULL;
    char *base = l ? (char *)l : (char *)&m->w;
    bool release = ld->pack;
    if (w->expert >= 0) base = (char *)&l->expert[w->expert];
    void *field = base + w->slot->field;

    switch (w->slot->kind) {
    case HD_SLOT_MATRIX:
    case HD_SLOT_HEAD:
    case HD_SLOT_EXPERT: set_linear(m, field, &w->rows, ld->pack); break;
    case HD_SLOT_EMBED:
        m->w.embed = w->rows;
        m->w.embed_info = w->t;
        if (!m->w.head.kind) set_linear(m, &m->w.head, &w->rows, ld->pack); // tied
        break;
    case HD_SLOT_ROUTER: HD_TRY(load_router(m, field, &w->rows, err)); break;
    case HD_SLOT_KV_B: HD_TRY(load_kv_b(m, l, &w->rows, ld->pack, err)); break;
    case HD_SLOT_K_B: load_split(m, l->k_b, &w->rows, ld->pack); break;
    case HD_SLOT_V_B: load_split(m, l->v_b, &w->rows, ld->pack); break;
    case HD_SLOT_NORM:
    case HD_SLOT_BIAS:
    case HD_SLOT_ROPE_FREQ: {
        float *v = take(m, (size_t)w->rows.k * sizeof *v);
        hd_rows_decode(&w->rows, 0, v);
        *(const float **)field = v;
        release = false; // a few pages, shared with neighbours
        break;
    }
    }
    if (w->last) hd_progress_add(&ld->bar, w->t->bytes);
    /* Formats without a panel are read from the file for ever; their pages may go all the same, the file
     * brings them back. */
    if (release && w->last) hd_source_release(m->src, w->t);
fail:
    return st;
}

/* What the walk cannot see: weights that exist in one of two forms. */
static hd_status check_whole(const hd_model *m, hd_err *err)
{
    for (int i = 0; i < m->n_layer; i++) {
        const hd_layer *l = &m->layer[i];
        for (int h = 0; m->cfg.kv_lora_rank > 0 && h < m->cfg.n_heads; h++)
            if (!l->k_b[h].kind || !l->v_b[h].kind)
                return hd_fail(err, HD_FORMAT,
                               "model: %.200s: layer %d: neither attn_kv_b nor attn_k_b and attn_v_b",
                               hd_source_path(m->src), i);
    }
    return HD_OK;
}

hd_status hd_weights_load(hd_model *m, bool pack, bool quiet, hd_err *err)
{
    hd_status st;
    loader ld = {.m = m, .pack = pack};
    const hd_config *c = &m->cfg;
    size_t mla = c->kv_lora_rank > 0 ? (size_t)c->n_heads : 0;
    HD_TRY(hd_alloc_n(&m->layer, (size_t)m->n_layer, sizeof *m->layer, err));
    HD_TRY(hd_alloc_n(&m->heads, (size_t)m->n_layer, 2 * mla * sizeof *m->heads, err));
    HD_TRY(hd_alloc_n(&m->experts, (size_t)m->n_layer, (size_t)c->n_experts * sizeof *m->experts, err));
    for (int i = 0; i < m->n_layer; i++) {
        hd_layer *l = &m->layer[i];
        l->moe = hd_config_layer_is_moe(c, i);
        l->k_b = mla ? m->heads + (size_t)i * 2 * mla : NULL;
        l->v_b = mla ? l->k_b + mla : NULL;
        l->expert = c->n_experts > 0 ? m->experts + (size_t)i * (size_t)c->n_experts : NULL;
    }
    if (!quiet) hd_progress_begin(&ld.bar, "loading", hd_source_weight_bytes(m->src), "B");
    st = hd_weights_walk(m->src, c, load_weight, &ld, err);
    if (!quiet) hd_progress_end(&ld.bar);
    HD_TRY(st);
    HD_TRY(check_whole(m, err));
    if (pack) hd_source_release_all(m->src);
fail:
    return st;
}
