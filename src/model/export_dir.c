/* The weights of any source under their Hugging Face names: the walk over the slot table that loading makes,
 * with a file at its end.  What GGUF stores otherwise is turned back:
 *   - llama: rows of q and k (and their biases) from adjacent rotary pairs to halves: row s d/2 + i of a
 *     head from row 2i+s;
 *   - deepseek2: k_b [heads, lora, nope] and v_b [heads, v, lora] become kv_b [heads (nope + v), lora];
 *   - stacked experts become a tensor each;
 *   - rope_freqs.weight, ready divisors, becomes the llama3 rule that made them.
 * Two walks announce the tensors (wider numbers first), two more write them. */
#include "model/export_dir.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/folder.h"
#include "base/num.h"
#include "model/config_write.h"
#include "model/gguf.h"
#include "model/load.h"
#include "model/safetensors_write.h"
#include "model/tokenizer_files.h"

typedef struct {
    const hd_source *s;
    const hd_config *c;
    const hd_arch *a;
    const hd_export_dir_opts *o;
    hd_export_dir_report *r;
    hd_safetensors_writer *w;
    bool wide, data;  // which of the four walks
    bool turn;        // rotary pairs to halves
    int n_kv_b;
    hd_progress bar;
} job;

/* ---- Numbers ---- */

static hd_type type_of(const job *j, const hd_slot *slot) { return slot->when & HD_IF_CORRECTION ? HD_F32 : j->o->type; }

static hd_status emit(job *j, const char *name, hd_type type, const float *x, int64_t n, hd_err *err)
{
    hd_status st = HD_OK;
    uint16_t h[4096];
    if (type == HD_F32) HD_TRY(hd_safetensors_write(j->w, x, (size_t)n * sizeof *x, err));
    for (int64_t at = 0; type != HD_F32 && at < n; at += 4096) {
        int64_t m = n - at < 4096 ? n - at : 4096;
        for (int64_t i = 0; i < m; i++) {
            h[i] = type == HD_F16 ? hd_f32_to_f16(x[at + i]) : hd_f32_to_bf16(x[at + i]);
            if (type == HD_F16 && isfinite(x[at + i]) && (h[i] & 0x7fff) == 0x7c00)
                return hd_fail(err, HD_FORMAT, "export: weight %s: %g is too large for f16; bf16 holds it", name, (double)x[at + i]);
        }
        HD_TRY(hd_safetensors_write(j->w, h, (size_t)m * sizeof *h, err));
    }
    if (j->o->stop && *j->o->stop) st = hd_fail(err, HD_CANCELLED, "export: interrupted; nothing was written");
fail:
    return st;
}

/* Where row (or number) `at` of rotated heads in halves stands in adjacent pairs. */
static int64_t from_pairs(int64_t at, int64_t head_dim)
{
    int64_t in = at % head_dim, half = head_dim / 2;
    return at - in + in % half * 2 + in / half;
}

static hd_status write_plain(job *j, const hd_weight *w, const char *name, hd_err *err)
{
    hd_status st;
    float *x = NULL, *y;
    int64_t n = w->rows.n, k = w->rows.k, d = j->c->head_dim;
    bool turn = j->turn && w->slot->flags & HD_SLOT_ROTARY;
    HD_TRY(hd_alloc_n(&x, 2 * (size_t)k, sizeof *x, err));
    y = x + k;
    for (int64_t r = 0; r < n; r++) {
        hd_rows_decode(&w->rows, turn && n > 1 ? from_pairs(r, d) : r, x);
        if (turn && n == 1)
            for (int64_t i = 0; i < k; i++) y[i] = x[from_pairs(i, d)];
        HD_TRY(emit(j, name, type_of(j, w->slot), turn && n == 1 ? y : x, k, err));
    }
fail:
    free(x);
    return st;
}

/* k_b and v_b of each head in turn; w: k_b. */
static hd_status write_kv_b(job *j, const hd_weight *w, const hd_tensor_info *v, const char *name, hd_err *err)
{
    hd_status st;
    const hd_config *c = j->c;
    int64_t lora = c->kv_lora_rank, nope = c->qk_nope_head_dim;
    hd_rows k = w->rows, r = {.type = v->type, .data = v->data, .n = c->v_head_dim, .k = lora};
    float *x = NULL, *row;
    hd_format_row_bytes(hd_format_get((int)v->type), lora, &r.row_bytes); // the walk has checked it
    HD_TRY(hd_alloc_n(&x, (size_t)(lora * nope + lora), sizeof *x, err));
    row = x + lora * nope;
    for (int h = 0; h < c->n_heads; h++) {
        for (int64_t i = 0; i < lora; i++) hd_rows_decode(&k, i, x + i * nope);
        for (int64_t p = 0; p < nope; p++) {
            for (int64_t i = 0; i < lora; i++) row[i] = x[i * nope + p];
            HD_TRY(emit(j, name, j->o->type, row, lora, err));
        }
        for (int64_t p = 0; p < r.n; p++) {
            hd_rows_decode(&r, p, row);
            HD_TRY(emit(j, name, j->o->type, row, lora, err));
        }
        k.data += (size_t)k.n * k.row_bytes;
        r.data += (size_t)r.n * r.row_bytes;
    }
fail:
    free(x);
    return st;
}

/* ---- The walk ---- */

static const hd_slot *kv_b_slot(const hd_arch *a)
{
    for (int i = 0; i < a->n_slots; i++)
        if (a->slots[i].kind == HD_SLOT_KV_B) return &a->slots[i];
    return NULL;
}

static hd_status visit(void *arg, const hd_weight *w, hd_err *err)
{
    hd_status st;
    job *j = arg;
    const hd_slot *slot = w->slot;
    char name[128], other[128];
    const hd_tensor_info *v = NULL;
    int64_t dim[2] = {w->rows.n, w->rows.k};
    bool vector = slot->cols == HD_DIM_NONE;
    if (slot->kind == HD_SLOT_ROPE_FREQ || slot->kind == HD_SLOT_V_B) return HD_OK;
    if ((type_of(j, slot) == HD_F32) != j->wide) return HD_OK;
    if (slot->kind == HD_SLOT_K_B) {
        slot = kv_b_slot(j->a);
        snprintf(other, sizeof other, "blk.%d.attn_v_b.weight", w->layer);
        v = hd_source_find(j->s, other);
        if (!v) return hd_fail(err, HD_FORMAT, "export: %s: weight %s is missing", hd_source_path(j->s), other);
        dim[0] = hd_dim_size(j->c, slot->rows), dim[1] = hd_dim_size(j->c, slot->cols);
    }
    hd_slot_name(name, slot->hf, w->layer, w->expert);
    if (!j->data) {
        j->n_kv_b += slot->kind == HD_SLOT_KV_B;
        j->r->n_tensors++;
        j->r->n_weights += dim[0] * dim[1];
        return hd_safetensors_put(j->w, name, type_of(j, slot), vector ? 1 : 2, vector ? &dim[1] : dim, err);
    }
    HD_TRY(v ? write_kv_b(j, w, v, name, err) : write_plain(j, w, name, err));
    hd_progress_add(&j->bar, (uint64_t)(dim[0] * dim[1]));
    if (w->last) hd_source_release(j->s, w->t);
fail:
    return st;
}

static hd_status walk(job *j, bool data, hd_err *err)
{
    hd_status st;
    j->data = data;
    for (int wide = 1; wide >= 0; wide--) {
        j->wide = wide;
        HD_TRY(hd_weights_walk(j->s, j->c, visit, j, err));
    }
fail:
    return st;
}

static hd_status write_weights(job *j, const char *dir, hd_err *err)
{
    hd_status st;
    char path[4200];
    snprintf(path, sizeof path, "%s/model.safetensors", dir);
    HD_TRY(hd_safetensors_writer_open(&j->w, path, err));
    HD_TRY(walk(j, false, err));
    if (j->c->kv_lora_rank > 0 && j->n_kv_b != j->c->n_layers + j->c->n_mtp)
        HD_TRY(hd_fail(err, HD_FORMAT, "export: %s: a layer has neither attn_kv_b nor attn_k_b and attn_v_b", hd_source_path(j->s)));
    HD_TRY(hd_safetensors_begin(j->w, err));
    if (!j->o->quiet) hd_progress_begin(&j->bar, "exporting", (uint64_t)j->r->n_weights, "");
    st = walk(j, true, err);
    if (!j->o->quiet) hd_progress_end(&j->bar);
    HD_TRY(st);
    HD_TRY(hd_safetensors_commit(j->w, NULL, &j->r->bytes, err));
fail:
    hd_safetensors_writer_close(j->w);
    return st;
}

/* ---- Configuration ---- */

/* The llama3 rule (the one that model/export.c turns into divisors): its factor is the largest divisor, and
 * the published models share the rest of its numbers. */
static hd_status read_freqs(hd_config *c, const hd_source *s, hd_err *err)
{
    const hd_tensor_info *t = hd_source_find(s, "rope_freqs.weight");
    hd_rope_config r = c->rope;
    double most = 0, off = 0;
    if (!t || hd_source_get_kind(s) != HD_SOURCE_GGUF) return HD_OK;
    int64_t n = c->head_dim / 2;
    if (t->type != HD_F32 || t->n_dims != 1 || t->dim[0] != n)
        return hd_fail(err, HD_FORMAT, "export: %s: rope_freqs.weight: not %lld numbers of f32", hd_source_path(s), (long long)n);
    const float *y = (const float *)(const void *)t->data;
    for (int64_t i = 0; i < n; i++) most = y[i] > most ? (double)y[i] : most;
    if (most == 1) return HD_OK; // divisors that change nothing
    r.kind = HD_ROPE_LLAMA3;
    r.factor = most;
    r.low_freq_factor = 1, r.high_freq_factor = 4;
    r.original_max_pos = 8192;
    for (int64_t i = 0; i < n; i++) {
        double turns = (double)r.original_max_pos * pow(r.theta, -2.0 * (double)i / c->head_dim) / (2 * M_PI);
        double smooth = (turns - r.low_freq_factor) / (r.high_freq_factor - r.low_freq_factor);
        double want = turns > r.high_freq_factor ? 1 : turns < r.low_freq_factor ? r.factor : 1 / ((1 - smooth) / r.factor + smooth);
        off = fmax(off, fabs((double)y[i] / want - 1));
    }
    if (off > 1e-5)
        return hd_fail(err, HD_UNSUPPORTED, "export: %s: rope_freqs.weight: not made by the llama3 rule as published, and "
                                            "config.json has no other words for it",
                       hd_source_path(s));
    c->rope = r;
    return HD_OK;
}

static const char *dtype_of(hd_type t) { return t == HD_F32 ? "float32" : t == HD_F16 ? "float16" : "bfloat16"; }

hd_status hd_export_dir(const char *dir, const hd_source *s, const hd_export_dir_opts *o, hd_export_dir_report *r, hd_err *err)
{
    hd_status st;
    hd_config c, written;
    hd_newfolder f = {0};
    double t0 = hd_now_s();
    job j = {.s = s, .c = &c, .o = o, .r = r};
    *r = (hd_export_dir_report){0};
    if (!hd_source_config(s))
        return hd_fail(err, HD_UNSUPPORTED, "export: %s: holds no model, only a tokenizer", hd_source_path(s));
    c = *hd_source_config(s);
    hd_config_drop_mtp(&c, s);
    HD_TRY(hd_arch_find(&j.a, &c, err));
    j.turn = c.rope.pairs && !strcmp(c.arch, "LlamaForCausalLM");
    written = c;
    if (j.turn) written.rope.pairs = false;
    HD_TRY(read_freqs(&written, s, err));
    HD_TRY(hd_newfolder_begin(&f, dir, false, err));
    HD_TRY(hd_config_write(f.tmp, &written, dtype_of(o->type), NULL, err));
    if (hd_source_get_kind(s) == HD_SOURCE_GGUF) {
        if (hd_gguf_find(hd_source_gguf(s), "tokenizer.ggml.tokens")) HD_TRY(hd_tokenizer_write(f.tmp, hd_source_gguf(s), err));
    } else if (hd_source_json(s, "tokenizer.json")) {
        HD_TRY(hd_tokenizer_copy(f.tmp, hd_source_path(s), err));
    }
    HD_TRY(write_weights(&j, f.tmp, err));
    HD_TRY(hd_newfolder_commit(&f, err));
    r->seconds = hd_now_s() - t0;
fail:
    hd_newfolder_abort(&f);
    return st;
}
