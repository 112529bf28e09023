/* The tensors of an export, and their rows as floats.  Names and shapes come from the architecture's slot
 * table (model/arch.h); what llama.cpp wants otherwise than Hugging Face, checked against its converter:
 *   - llama: rows of q and k (and their biases) in adjacent rotary pairs, row 2i+s of a head
 *     from row s d/2 + i;
 *   - deepseek2: kv_b [heads (nope + v), lora] as k_b [heads, lora, nope], transposed so that decoding
 *     multiplies queries by it directly, and v_b [heads, v, lora]; the experts of a layer stacked as
 *     [experts, rows, cols];
 *   - llama3 frequency rule: a tensor of divisors, rope_freqs.weight. */
#include "model/export.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

enum { FP8_BLOCK = 128 };

void hd_export_close(hd_export *e)
{
    for (int64_t i = 0; i < e->n_blocks; i++) free(e->block[i]);
    free(e->block);
    free(e->tensor);
    *e = (hd_export){0};
}

/* ---- Building the list ---- */

static hd_status add_tensor(hd_export *e, hd_export_tensor **t, const char *name, hd_err *err)
{
    if (strlen(name) >= sizeof (*t)->name)
        return hd_fail(err, HD_UNSUPPORTED, "export: tensor %.80s: its name is longer than 63 bytes", name);
    if (e->n == e->cap) {
        int64_t cap = e->cap ? 2 * e->cap : 256;
        hd_status st = hd_realloc(&e->tensor, (size_t)cap * sizeof *e->tensor, err);
        if (st != HD_OK) return st;
        e->cap = cap;
    }
    *t = &e->tensor[e->n++];
    **t = (hd_export_tensor){.layer = -1};
    strcpy((*t)->name, name);
    return HD_OK;
}

static hd_status add_srcs(hd_export *e, hd_export_src **src, int64_t n, hd_err *err)
{
    hd_status st;
    if (e->n_blocks == e->cap_blocks) {
        int64_t cap = e->cap_blocks ? 2 * e->cap_blocks : 256;
        HD_TRY(hd_realloc(&e->block, (size_t)cap * sizeof *e->block, err));
        e->cap_blocks = cap;
    }
    HD_TRY(hd_alloc_n(src, (size_t)n, sizeof **src, err));
    e->block[e->n_blocks++] = *src;
fail:
    return st;
}

/* Find a weight (and its FP8 scales) and check that it is [rows, cols], or [rows] when cols is 0. */
static hd_status find_src(const hd_source *s, const char *name, int64_t rows, int64_t cols, hd_export_src *src, hd_err *err)
{
    char scale[160];
    const hd_tensor_info *t = hd_source_find(s, name);
    if (!t) return hd_fail(err, HD_FORMAT, "export: %s: weight %s is missing", hd_source_path(s), name);
    bool fits = t->n_dims == (cols ? 2 : 1) && t->dim[0] == rows && (!cols || t->dim[1] == cols);
    if (!fits)
        return hd_fail(err, HD_FORMAT, "export: %s: weight %s has another shape than the configuration's [%lld, %lld]",
                       hd_source_path(s), name, (long long)rows, (long long)cols);
    const hd_format *f = hd_format_get((int)t->type);
    if (!f || !f->dequant)
        return hd_fail(err, HD_UNSUPPORTED, "export: %s: weight %s: its format cannot be decoded", hd_source_path(s), name);
    *src = (hd_export_src){.t = t};
    if (t->type != HD_F8_E4M3) return HD_OK;
    snprintf(scale, sizeof scale, "%s_scale_inv", name);
    const hd_tensor_info *k = src->scale = hd_source_find(s, scale);
    if (!k || k->type != HD_F32 || k->n_dims != 2 || k->dim[0] != (rows + FP8_BLOCK - 1) / FP8_BLOCK ||
        k->dim[1] != (cols + FP8_BLOCK - 1) / FP8_BLOCK)
        return hd_fail(err, HD_FORMAT, "export: %s: weight %s: its scales are missing, no f32, or of another shape",
                       hd_source_path(s), name);
    return HD_OK;
}

static void set_shape(hd_export_tensor *t, int64_t a, int64_t b, int64_t c)
{
    t->n_dims = c ? 3 : b ? 2 : 1;
    t->dim[0] = a;
    t->dim[1] = b;
    t->dim[2] = c;
}

static hd_status add_slot(hd_export *e, const hd_slot *slot, int layer, hd_err *err)
{
    hd_status st;
    const hd_config *c = hd_source_config(e->s);
    char gguf[128], hf[128];
    int64_t rows = hd_dim_size(c, slot->rows), cols = slot->cols == HD_DIM_NONE ? 0 : hd_dim_size(c, slot->cols);
    hd_export_tensor *t;
    hd_export_src *src;
    hd_slot_name(gguf, slot->gguf, layer, 0);
    hd_slot_name(hf, slot->hf, layer, 0);
    if (slot->flags & HD_SLOT_OPTIONAL && !hd_source_find(e->s, hf)) return HD_OK;

    if (slot->kind == HD_SLOT_KV_B) {
        HD_TRY(add_srcs(e, &src, 1, err));
        HD_TRY(find_src(e->s, hf, rows, cols, src, err));
        for (int part = 0; part < 2; part++) {
            snprintf(gguf, sizeof gguf, "blk.%d.attn_%s_b.weight", layer, part == 0 ? "k" : "v");
            HD_TRY(add_tensor(e, &t, gguf, err));
            t->take = part == 0 ? HD_TAKE_K_B : HD_TAKE_V_B;
            if (part == 0) set_shape(t, c->n_heads, c->kv_lora_rank, c->qk_nope_head_dim);
            else set_shape(t, c->n_heads, c->v_head_dim, c->kv_lora_rank);
            t->layer = layer;
            t->src = src;
            t->from = src->t->type;
        }
        return HD_OK;
    }

    HD_TRY(add_tensor(e, &t, gguf, err));
    t->layer = slot->per_layer ? layer : -1;
    if (slot->kind == HD_SLOT_EXPERT) {
        HD_TRY(add_srcs(e, &src, c->n_experts, err));
        for (int x = 0; x < c->n_experts; x++) {
            hd_slot_name(hf, slot->hf, layer, x);
            HD_TRY(find_src(e->s, hf, rows, cols, &src[x], err));
            if (src[x].t->type != src[0].t->type)
                return hd_fail(err, HD_UNSUPPORTED, "export: %s: the experts of layer %d differ in format",
                               hd_source_path(e->s), layer);
        }
        set_shape(t, c->n_experts, rows, cols);
        t->stacked = true;
    } else {
        HD_TRY(add_srcs(e, &src, 1, err));
        HD_TRY(find_src(e->s, hf, rows, cols, src, err));
        set_shape(t, rows, cols, 0);
        if (slot->flags & HD_SLOT_ROTARY) t->take = HD_TAKE_ROTARY;
    }
    t->src = src;
    t->from = src->t->type;
fail:
    return st;
}

static hd_status from_directory(hd_export *e, hd_err *err)
{
    hd_status st;
    const hd_config *c = hd_source_config(e->s);
    const hd_arch *a;
    hd_export_tensor *t;
    int64_t unknown = 0;
    const char *first = NULL;
    HD_TRY(hd_arch_find(&a, c, err));
    for (int i = 0; i < a->n_slots; i++)
        if (!a->slots[i].per_layer && hd_slot_exists(&a->slots[i], c, HD_SOURCE_HF, 0))
            HD_TRY(add_slot(e, &a->slots[i], 0, err));
    if (c->rope.kind == HD_ROPE_LLAMA3) {
        HD_TRY(add_tensor(e, &t, "rope_freqs.weight", err));
        t->take = HD_TAKE_FREQS;
        set_shape(t, c->head_dim / 2, 0, 0);
    }
    for (int layer = 0; layer < c->n_layers; layer++)
        for (int i = 0; i < a->n_slots; i++)
            if (a->slots[i].per_layer && hd_slot_exists(&a->slots[i], c, HD_SOURCE_HF, layer))
                HD_TRY(add_slot(e, &a->slots[i], layer, err));
    if (c->n_mtp > 0)
        hd_warn("export: the multi-token-prediction layer is left out, as llama.cpp's own converter does");
    for (int64_t i = 0; i < hd_source_n_tensors(e->s); i++) {
        const char *name = hd_source_tensor(e->s, i)->name;
        if (hd_arch_knows(a, HD_SOURCE_HF, name) || strstr(name, "rotary_emb.inv_freq") || c->n_mtp > 0) continue;
        if (!unknown++) first = name;
    }
    if (unknown) hd_warn("export: %lld tensors have no place in the file and are left out: %s ...", (long long)unknown, first);
fail:
    return st;
}

static hd_status from_gguf(hd_export *e, hd_err *err)
{
    hd_status st = HD_OK;
    hd_export_tensor *t;
    hd_export_src *src;
    int64_t n = hd_source_n_tensors(e->s);
    HD_TRY(add_srcs(e, &src, n ? n : 1, err));
    for (int64_t i = 0; i < n; i++) {
        const hd_tensor_info *info = hd_source_tensor(e->s, i);
        HD_TRY(add_tensor(e, &t, info->name, err));
        src[i].t = info;
        t->src = &src[i];
        t->from = info->type;
        t->n_dims = info->n_dims;
        memcpy(t->dim, info->dim, sizeof t->dim);
        if (sscanf(info->name, "blk.%d.", &t->layer) != 1) t->layer = -1;
    }
fail:
    return st;
}

/* llama.cpp tells DeepSeek-V2-Lite by its number of layers, and such models have no query latent. */
static hd_status check_peer(const hd_source *s, const hd_config *c, hd_err *err)
{
    if (c->kv_lora_rank > 0 && c->q_lora_rank > 0 && (c->n_layers == 26 || c->n_layers == 27))
        return hd_fail(err, HD_UNSUPPORTED, "export: %s: llama.cpp ignores the query latent of deepseek2 files with %d layers",
                       hd_source_path(s), c->n_layers);
    if (hd_source_get_kind(s) == HD_SOURCE_GGUF) return HD_OK;
    const hd_rope_config *r = &c->rope;
    if (r->kind == HD_ROPE_YARN && r->mscale_all_dim != 0 && r->mscale != r->mscale_all_dim)
        return hd_fail(err, HD_UNSUPPORTED, "export: %s: GGUF has no key for a YaRN mscale that differs from mscale_all_dim",
                       hd_source_path(s));
    if (c->kv_lora_rank > 0 && !r->pairs)
        return hd_fail(err, HD_UNSUPPORTED, "export: %s: deepseek2 files rotate adjacent pairs, this model halves",
                       hd_source_path(s));
    if (c->n_experts > 0 && c->moe_layer_freq > 1)
        return hd_fail(err, HD_UNSUPPORTED, "export: %s: GGUF has no key for moe_layer_freq %d", hd_source_path(s),
                       c->moe_layer_freq);
    return HD_OK;
}

/* Its limits, as its sources have them: src/llama-hparams.h and src/models. */
hd_status hd_export_fits_llama_cpp(const hd_config *c, const char *where, hd_err *err)
{
    enum { MAX_LAYERS = 512, MAX_EXPERTS = 1024 };
    bool mla = c->kv_lora_rank > 0;
    const char *why = c->n_layers + c->n_mtp > MAX_LAYERS                  ? "more than 512 layers"
                      : c->n_experts > MAX_EXPERTS                         ? "more than 1024 experts"
                      : c->n_experts > 0 && c->n_shared_experts == 0       ? "experts without a shared one"
                      : mla && c->qkv_bias                                 ? "biases beside latent attention"
                      : c->qk_norm && c->qkv_bias                          ? "biases beside norms of queries and keys"
                      : mla && c->n_experts > 0 && c->first_k_dense == c->n_layers ? "experts in no layer"
                                                                           : NULL;
    if (why) return hd_fail(err, HD_UNSUPPORTED, "export: %s: llama.cpp cannot take %s", where, why);
    return HD_OK;
}

hd_status hd_export_open(hd_export *e, const hd_source *s, hd_err *err)
{
    hd_status st;
    *e = (hd_export){.s = s};
    const hd_config *c = hd_source_config(s);
    if (!c) return hd_fail(err, HD_UNSUPPORTED, "export: %s: holds no model, only a tokenizer", hd_source_path(s));
    HD_TRY(check_peer(s, c, err));
    HD_TRY(hd_source_get_kind(s) == HD_SOURCE_GGUF ? from_gguf(e, err) : from_directory(e, err));
    return HD_OK;
fail:
    hd_export_close(e);
    return st;
}

/* ---- Reading rows ---- */

int64_t hd_export_cols(const hd_export_tensor *t) { return t->dim[t->n_dims - 1]; }

int64_t hd_export_rows(const hd_export_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dims - 1; i++) n *= t->dim[i];
    return n;
}

int64_t hd_export_group(const hd_export_tensor *t) { return t->take == HD_TAKE_K_B ? t->dim[1] : 1; }

int64_t hd_export_scratch(const hd_export_tensor *t)
{
    return t->take == HD_TAKE_K_B ? t->dim[1] * t->dim[2] : hd_export_cols(t);
}

static void read_row(const hd_export_src *src, int64_t row, int64_t cols, float *y)
{
    const hd_format *f = hd_format_get((int)src->t->type);
    size_t bytes = (size_t)(cols / f->block) * (size_t)f->bytes;
    f->dequant(y, src->t->data + (size_t)row * bytes, cols);
    if (!src->scale) return;
    int64_t per_row = (cols + FP8_BLOCK - 1) / FP8_BLOCK;
    for (int64_t b = 0; b < per_row; b++) {
        float k;
        memcpy(&k, src->scale->data + 4 * (size_t)(row / FP8_BLOCK * per_row + b), 4);
        for (int64_t i = b * FP8_BLOCK; i < cols && i < (b + 1) * FP8_BLOCK; i++) y[i] *= k;
    }
}

/* Where element (or row) `at` of a tensor of rotated heads stood in the Hugging Face order. */
static int64_t from_halves(int64_t at, int64_t head_dim)
{
    int64_t in = at % head_dim;
    return at - in + in % 2 * (head_dim / 2) + in / 2;
}

static void read_freqs(const hd_config *c, float *y)
{
    const hd_rope_config *r = &c->rope;
    for (int i = 0; i < c->head_dim / 2; i++) {
        double turns = (double)r->original_max_pos * pow(r->theta, -2.0 * i / c->head_dim) / (2 * M_PI);
        double smooth = (turns - r->low_freq_factor) / (r->high_freq_factor - r->low_freq_factor);
        y[i] = (float)(turns > r->high_freq_factor  ? 1
                       : turns < r->low_freq_factor ? r->factor
                                                    : 1 / ((1 - smooth) / r->factor + smooth));
    }
}

void hd_export_read(const hd_export *e, const hd_export_tensor *t, int64_t row0, int64_t n, float *y, float *scratch)
{
    const hd_config *c = hd_source_config(e->s);
    int64_t cols = hd_export_cols(t), head = (int64_t)c->qk_nope_head_dim + c->v_head_dim;
    switch (t->take) {
    case HD_TAKE_FREQS: read_freqs(c, y); break;
    case HD_TAKE_ROWS:
        for (int64_t i = 0; i < n; i++) {
            int64_t r = row0 + i, each = t->stacked ? t->dim[1] : INT64_MAX;
            read_row(&t->src[r / each], r % each, cols, y + i * cols);
        }
        break;
    case HD_TAKE_ROTARY:
        if (t->n_dims == 1) {
            read_row(t->src, 0, cols, scratch);
            for (int64_t i = 0; i < cols; i++) y[i] = scratch[from_halves(i, c->head_dim)];
        } else
            for (int64_t i = 0; i < n; i++) read_row(t->src, from_halves(row0 + i, c->head_dim), cols, y + i * cols);
        break;
    case HD_TAKE_V_B:
        for (int64_t i = 0; i < n; i++) {
            int64_t h = (row0 + i) / c->v_head_dim, v = (row0 + i) % c->v_head_dim;
            read_row(t->src, h * head + c->qk_nope_head_dim + v, cols, y + i * cols);
        }
        break;
    case HD_TAKE_K_B: // [nope, lora] of one head becomes [lora, nope]
        for (int64_t lora = t->dim[1], i = 0; i < n; i += lora) {
            int64_t h = (row0 + i) / lora;
            for (int64_t k = 0; k < cols; k++) read_row(t->src, h * head + k, lora, scratch + k * lora);
            for (int64_t l = 0; l < lora; l++)
                for (int64_t k = 0; k < cols; k++) y[(i + l) * cols + k] = scratch[k * lora + l];
        }
        break;
    }
}

const uint8_t *hd_export_bytes(const hd_export_tensor *t, int64_t row0)
{
    const hd_format *f = hd_format_get((int)t->type);
    if (t->take != HD_TAKE_ROWS || t->from != t->type) return NULL;
    int64_t each = t->stacked ? t->dim[1] : INT64_MAX;
    size_t bytes = (size_t)(hd_export_cols(t) / f->block) * (size_t)f->bytes;
    return t->src[row0 / each].t->data + (size_t)(row0 % each) * bytes;
}

void hd_export_release(const hd_export *e, const hd_export_tensor *t)
{
    if (!t->src || t->take == HD_TAKE_K_B) return; // v_b, next in the list, reads the same weight
    for (int64_t i = 0; i < (t->stacked ? t->dim[0] : 1); i++) hd_source_release(e->s, t->src[i].t);
}
