/* hadal inspect for machines: one JSON object, written as it goes. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "cli/inspect.h"

enum { MAX_ELEMS = 64 }; // longer arrays (a vocabulary) are told by length and beginning

/* ---- JSON (RFC 8259); bytes that are no UTF-8 become U+FFFD ---- */

static void str(const char *p, size_t n)
{
    putchar('"');
    for (size_t at = 0; at < n;) {
        int32_t cp;
        int len = hd_utf8_next((const uint8_t *)p + at, n - at, &cp);
        if (cp < 0) fputs("\xef\xbf\xbd", stdout);
        else if (cp == '"' || cp == '\\') printf("\\%c", cp);
        else if (cp < 0x20 || cp == 0x7f) printf("\\u%04x", (unsigned)cp);
        else fwrite(p + at, 1, (size_t)len, stdout);
        at += (size_t)len;
    }
    putchar('"');
}

typedef struct {
    const char *sep;
} obj; // what stands before the next member

static void key(obj *o, const char *k)
{
    fputs(o->sep, stdout);
    o->sep = ", ";
    str(k, strlen(k));
    fputs(": ", stdout);
}
static obj begin(void) { return putchar('{'), (obj){""}; }
static void end(void) { putchar('}'); }

static void put_str(obj *o, const char *k, const char *v)
{
    key(o, k);
    if (v) str(v, strlen(v));
    else fputs("null", stdout);
}
static void put_i64(obj *o, const char *k, int64_t v) { key(o, k), printf("%" PRId64, v); }
static void put_u64(obj *o, const char *k, uint64_t v) { key(o, k), printf("%" PRIu64, v); }
static void put_bool(obj *o, const char *k, bool v) { key(o, k), fputs(v ? "true" : "false", stdout); }
static void put_f64(obj *o, const char *k, double v)
{
    key(o, k);
    if (isfinite(v)) printf("%.9g", v);
    else fputs("null", stdout);
}

/* ---- Parts ---- */

static void put_rope(obj *o, const hd_rope_config *r)
{
    static const char *const kinds[] = {"none", "linear", "llama3", "yarn"};
    key(o, "rope");
    obj j = begin();
    put_str(&j, "kind", kinds[r->kind]);
    put_f64(&j, "theta", r->theta);
    put_f64(&j, "factor", r->factor);
    put_i64(&j, "original_max_pos", r->original_max_pos);
    end();
}

static void put_config(obj *o, const hd_config *c)
{
    key(o, "config");
    if (!c) {
        fputs("null", stdout);
        return;
    }
    obj j = begin();
    put_str(&j, "architecture", c->arch);
    put_i64(&j, "layers", c->n_layers);
    put_i64(&j, "mtp_layers", c->n_mtp);
    put_i64(&j, "width", c->d_model);
    put_i64(&j, "ffn", c->n_ffn);
    put_i64(&j, "vocabulary", c->n_vocab);
    put_i64(&j, "heads", c->n_heads);
    put_i64(&j, "kv_heads", c->n_kv_heads);
    put_i64(&j, "head_dim", c->head_dim);
    put_i64(&j, "max_pos", c->max_pos);
    put_f64(&j, "norm_eps", c->norm_eps);
    put_bool(&j, "tied_embeddings", c->tie_embeddings);
    put_rope(&j, &c->rope);
    if (c->kv_lora_rank) {
        put_i64(&j, "q_lora_rank", c->q_lora_rank);
        put_i64(&j, "kv_lora_rank", c->kv_lora_rank);
        put_i64(&j, "qk_nope_head_dim", c->qk_nope_head_dim);
        put_i64(&j, "qk_rope_head_dim", c->qk_rope_head_dim);
        put_i64(&j, "v_head_dim", c->v_head_dim);
    }
    if (c->n_experts) {
        put_i64(&j, "experts", c->n_experts);
        put_i64(&j, "experts_per_token", c->n_experts_per_tok);
        put_i64(&j, "shared_experts", c->n_shared_experts);
        put_i64(&j, "expert_ffn", c->moe_ffn);
        put_i64(&j, "dense_layers", c->first_k_dense);
        put_i64(&j, "groups", c->n_group);
        put_i64(&j, "groups_used", c->topk_group);
    }
    put_i64(&j, "bos", c->bos);
    key(&j, "eos");
    putchar('[');
    for (int i = 0; i < c->n_eos; i++) printf("%s%d", i ? ", " : "", c->eos[i]);
    putchar(']');
    end();
}

static void put_files(obj *o, const hd_source *s)
{
    key(o, "files");
    putchar('[');
    for (int i = 0; i < hd_source_n_files(s); i++) {
        uint64_t bytes;
        const char *path = hd_source_file(s, i, &bytes);
        if (i) fputs(", ", stdout);
        obj j = begin();
        put_str(&j, "path", path);
        put_u64(&j, "bytes", bytes);
        end();
    }
    putchar(']');
}

static void put_tensors(obj *o, const hd_source *s)
{
    key(o, "tensors");
    putchar('[');
    for (int64_t i = 0; i < hd_source_n_tensors(s); i++) {
        const hd_tensor_info *t = hd_source_tensor(s, i);
        fputs(i ? ",\n " : "\n ", stdout);
        obj j = begin();
        put_str(&j, "name", t->name);
        put_str(&j, "type", hd_format_get((int)t->type)->name);
        key(&j, "shape");
        for (int d = 0; d < t->n_dims; d++) printf("%s%" PRId64, d ? ", " : "[", t->dim[d]);
        putchar(']');
        put_u64(&j, "bytes", t->bytes);
        put_i64(&j, "file", t->file);
        end();
    }
    putchar(']');
}

static void value(const hd_value *v)
{
    switch (v->kind) {
    case HD_VALUE_INT: printf("%" PRId64, v->i); break;
    case HD_VALUE_FLOAT: isfinite(v->f) ? printf("%.9g", v->f) : printf("null"); break;
    case HD_VALUE_BOOL: fputs(v->i ? "true" : "false", stdout); break;
    case HD_VALUE_STR: str(v->s.p, v->s.n); break;
    }
}

static void put_metadata(obj *o, const hd_gguf *g)
{
    key(o, "metadata");
    obj j = begin();
    for (int64_t k = 0; k < hd_gguf_n_kv(g); k++) {
        const hd_gguf_kv *kv = hd_gguf_kv_at(g, k);
        size_t pos = 0;
        hd_value v;
        fputs(k ? ",\n " : "\n ", stdout);
        str(kv->key.p, kv->key.n);
        fputs(": ", stdout);
        if (kv->type != HD_GGUF_ARR) {
            if (hd_inspect_value(kv, 0, &pos, &v)) value(&v);
            else fputs("null", stdout);
            continue;
        }
        bool whole = kv->n <= MAX_ELEMS;
        obj a = {""};
        if (!whole) {
            a = begin();
            put_str(&a, "type", hd_gguf_type_name(kv->elem));
            put_u64(&a, "elements", kv->n);
            key(&a, "first");
        }
        putchar('[');
        for (uint64_t i = 0; i < (whole ? MAX_ELEMS : 4) && hd_inspect_value(kv, i, &pos, &v); i++) {
            if (i) fputs(", ", stdout);
            value(&v);
        }
        putchar(']');
        if (!whole) end();
    }
    (void)j;
    end();
}

static void put_plan(obj *o, const hd_facts *f)
{
    key(o, "plan");
    if (!f->has_plan) {
        fputs("null", stdout);
        put_str(o, "plan_error", f->plan_err.msg);
        return;
    }
    obj j = begin();
    put_u64(&j, "file_bytes", f->plan.file_bytes);
    put_u64(&j, "packed_bytes", f->plan.packed_bytes);
    put_u64(&j, "work_bytes", f->plan.work_bytes);
    put_u64(&j, "cache_bytes_per_token", f->plan.cache_bytes_per_tok);
    put_u64(&j, "available_bytes", f->plan.available_bytes);
    put_bool(&j, "fits_packed", f->plan.fits_packed);
    put_bool(&j, "fits_unpacked", f->plan.fits_unpacked);
    end();
}

void hd_inspect_json(const hd_facts *f)
{
    const hd_source *s = f->source;
    obj o = begin();
    put_str(&o, "path", hd_source_path(s));
    put_str(&o, "kind", hd_source_gguf(s) ? "gguf" : "huggingface");
    put_files(&o, s);
    put_config(&o, hd_source_config(s));
    if (!hd_source_config(s)) put_str(&o, "config_error", hd_source_why_not(s));
    put_str(&o, "tokenizer", f->tokenizer[0] ? f->tokenizer : NULL);
    if (f->tokenizer[0]) put_i64(&o, "tokens", f->n_tokens);
    else put_str(&o, "tokenizer_error", f->tokenizer_err.msg);
    put_str(&o, "chat_format", f->chat);
    if (!f->chat) put_str(&o, "chat_format_error", f->chat_err.msg);
    put_u64(&o, "weights", f->n_weights);
    put_u64(&o, "weight_bytes", hd_source_weight_bytes(s));
    put_plan(&o, f);
    put_tensors(&o, s);
    if (hd_source_gguf(s)) put_metadata(&o, hd_source_gguf(s));
    end();
    putchar('\n');
}
