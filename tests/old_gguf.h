/* Rewrite a deepseek2 GGUF file (f32) as converters wrote it until 2025: kv_b in one piece, the heads' own
 * sizes as key_length and value_length, and each expert a tensor of its own. */
#ifndef HD_TESTS_OLD_GGUF_H
#define HD_TESTS_OLD_GGUF_H

#include <stdio.h>
#include <string.h>

#include "model/gguf.h"

typedef struct {
    hd_gguf_writer *w;
    const hd_source *s;
    const hd_config *c;
    bool declare;
    hd_err *err;
} old_gguf;

static inline bool old_gguf_key(const hd_gguf_kv *kv, const char *name)
{
    return kv->key.n == strlen(name) && !memcmp(kv->key.p, name, kv->key.n);
}

static inline hd_status old_gguf_keys(old_gguf *o)
{
    static const char *const gone[] = {"deepseek2.attention.key_length_mla",
                                       "deepseek2.attention.value_length_mla",
                                       "deepseek2.attention.key_length", "deepseek2.attention.value_length",
                                       "deepseek2.attention.head_count_kv"};
    hd_status st;
    const hd_gguf *g = hd_source_gguf(o->s);
    for (int64_t i = 0; i < hd_gguf_n_kv(g); i++) {
        const hd_gguf_kv *kv = hd_gguf_kv_at(g, i);
        bool keep = true;
        for (int k = 0; k < 5; k++) keep = keep && !old_gguf_key(kv, gone[k]);
        if (keep) HD_TRY(hd_gguf_put_kv(o->w, kv, o->err));
    }
    HD_TRY(hd_gguf_put_u32(o->w, gone[2], (uint32_t)o->c->head_dim, o->err));
    HD_TRY(hd_gguf_put_u32(o->w, gone[3], (uint32_t)o->c->v_head_dim, o->err));
    HD_TRY(hd_gguf_put_u32(o->w, gone[4], (uint32_t)o->c->n_heads, o->err));
fail:
    return st;
}

/* Per head: the key rows, transposed back, then the value rows.  k: [heads, lora, nope]. */
static inline hd_status old_gguf_kv_b(old_gguf *o, int layer, const hd_tensor_info *k)
{
    hd_status st = HD_OK;
    char name[64];
    int64_t H = k->dim[0], lora = k->dim[1], nope = k->dim[2], v = o->c->v_head_dim,
            dim[] = {H * (nope + v), lora};
    float row[1024];
    snprintf(name, sizeof name, "blk.%d.attn_kv_b.weight", layer);
    if (o->declare) return hd_gguf_put_tensor(o->w, name, HD_F32, 2, dim, o->err);
    snprintf(name, sizeof name, "blk.%d.attn_v_b.weight", layer);
    const hd_tensor_info *value = hd_source_find(o->s, name);
    if (!value || lora > 1024) return hd_fail(o->err, HD_FORMAT, "%s: missing, or too wide", name);
    for (int64_t h = 0; h < H; h++) {
        for (int64_t r = 0; r < nope; r++) {
            for (int64_t i = 0; i < lora; i++) memcpy(row + i, k->data + 4 * ((h * lora + i) * nope + r), 4);
            HD_TRY(hd_gguf_write(o->w, row, (size_t)lora * 4, o->err));
        }
        HD_TRY(hd_gguf_write(o->w, value->data + 4 * h * v * lora, (size_t)(v * lora) * 4, o->err));
    }
fail:
    return st;
}

static inline hd_status old_gguf_experts(old_gguf *o, int layer, const char *what, const hd_tensor_info *t)
{
    hd_status st = HD_OK;
    char name[64];
    size_t bytes = t->bytes / (size_t)t->dim[0];
    for (int x = 0; x < t->dim[0]; x++) {
        snprintf(name, sizeof name, "blk.%d.ffn_%s.%d.weight", layer, what, x);
        if (o->declare) HD_TRY(hd_gguf_put_tensor(o->w, name, t->type, 2, t->dim + 1, o->err));
        else HD_TRY(hd_gguf_write(o->w, t->data + (size_t)x * bytes, bytes, o->err));
    }
fail:
    return st;
}

static inline hd_status old_gguf_tensor(old_gguf *o, const hd_tensor_info *t)
{
    int layer = 0;
    char rest[64] = "", what[8] = "";
    sscanf(t->name, "blk.%d.%63s", &layer, rest);
    if (!strcmp(rest, "attn_v_b.weight")) return HD_OK;
    if (!strcmp(rest, "attn_k_b.weight")) return old_gguf_kv_b(o, layer, t);
    if (strstr(rest, "_exps.weight") && sscanf(rest, "ffn_%7[a-z]", what) == 1)
        return old_gguf_experts(o, layer, what, t);
    return o->declare ? hd_gguf_put_tensor(o->w, t->name, t->type, t->n_dims, t->dim, o->err)
                      : hd_gguf_write(o->w, t->data, t->bytes, o->err);
}

static inline hd_status old_gguf_write(const char *path, const hd_source *s, hd_err *err)
{
    hd_status st;
    old_gguf o = {.s = s, .c = hd_source_config(s), .declare = true, .err = err};
    HD_TRY(hd_gguf_writer_open(&o.w, path, err));
    HD_TRY(old_gguf_keys(&o));
    for (int64_t i = 0; i < hd_source_n_tensors(s); i++) HD_TRY(old_gguf_tensor(&o, hd_source_tensor(s, i)));
    HD_TRY(hd_gguf_begin_data(o.w, err));
    o.declare = false;
    for (int64_t i = 0; i < hd_source_n_tensors(s); i++) HD_TRY(old_gguf_tensor(&o, hd_source_tensor(s, i)));
    HD_TRY(hd_gguf_commit(o.w, err));
fail:
    hd_gguf_writer_close(o.w);
    return st;
}

#endif
