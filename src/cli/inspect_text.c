/* hadal inspect for people: a page that fits a screen, however large the model.
 *
 * Tensors that differ only in the numbers of their names (layers, experts) share a line, so that the 46
 * thousand tensors of DeepSeek-V3 are told in forty. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "cli/inspect.h"
#include "model/vocab.h"

enum { SHOWN_VALUE = 96, SHOWN_ELEMS = 4, LABEL = 14, MAX_GROUPS = 256 };

/* ---- Pieces ---- */

/* Characters that change what a terminal does or the order of what it shows. */
static bool is_harmful(int32_t cp)
{
    return cp < 0x20 || (cp >= 0x7f && cp < 0xa0) || (cp >= 0x200b && cp <= 0x200f) ||
           (cp >= 0x2028 && cp <= 0x202e) || (cp >= 0x2060 && cp <= 0x206f) || cp == 0xfeff;
}

void hd_inspect_show(const char *p, size_t n, size_t max)
{
    size_t at = 0;
    while (at < n) {
        int32_t cp;
        size_t len = (size_t)hd_utf8_next((const uint8_t *)p + at, n - at, &cp);
        if (at + len > max) break;
        if (cp < 0 || is_harmful(cp)) putchar(cp == '\n' || cp == '\t' ? ' ' : '?');
        else fwrite(p + at, 1, len, stdout);
        at += len;
    }
    if (at < n) fputs("...", stdout);
}

static void show_bytes(uint64_t n)
{
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double v = (double)n;
    int u = 0;
    while (v >= 999.5) v /= 1000, u++; // 2^64 is 18 EB
    printf(u == 0 ? "%.0f %s" : v < 9.995 ? "%.2f %s" : v < 99.95 ? "%.1f %s" : "%.0f %s", v, unit[u]);
}

static void show_count(uint64_t n)
{
    if (n >= 1000000000) printf("%.2f billion", (double)n / 1e9);
    else if (n >= 1000000) printf("%.1f million", (double)n / 1e6);
    else printf("%" PRIu64, n);
}

static void label(const char *s) { printf("%-*s", LABEL, s); }

static void shape(const hd_tensor_info *t)
{
    putchar('[');
    for (int i = 0; i < t->n_dims; i++) printf("%s%" PRId64, i ? ", " : "", t->dim[i]);
    putchar(']');
}

/* ---- Configuration ---- */

static void print_rope(const hd_config *c)
{
    static const char *const kinds[] = {"", ", linear", ", llama3", ", yarn"};
    const hd_rope_config *r = &c->rope;
    label("positions");
    printf("%" PRId64 " tokens, rope theta %g%s", c->max_pos, r->theta, kinds[r->kind]);
    if (r->kind != HD_ROPE_NONE) printf(" x %g over %" PRId64, r->factor, r->original_max_pos);
    putchar('\n');
}

static void print_experts(const hd_config *c)
{
    if (!c->n_experts) return;
    label("experts");
    printf("%d of %d a token, width %d", c->n_experts_per_tok, c->n_experts, c->moe_ffn);
    if (c->n_shared_experts) printf(", %d shared", c->n_shared_experts);
    if (c->n_group > 1) printf(", %d of %d groups", c->topk_group, c->n_group);
    printf(", %s scores", c->score == HD_SCORE_SIGMOID ? "sigmoid" : "softmax");
    if (c->first_k_dense) printf("; the first %d layers are dense", c->first_k_dense);
    putchar('\n');
}

static void print_config(const hd_config *c)
{
    label("architecture");
    printf("%s: %d layers", c->arch, c->n_layers);
    if (c->n_mtp) printf(" and %d for multi-token prediction", c->n_mtp);
    printf(", width %" PRId64 ", feed-forward %" PRId64 ", vocabulary %" PRId64 "%s\n", c->d_model, c->n_ffn,
           c->n_vocab, c->tie_embeddings ? " (tied)" : "");
    label("attention");
    if (c->kv_lora_rank) {
        printf("MLA: %d heads of %d + %d, values of %d, key latent %d", c->n_heads, c->qk_nope_head_dim,
               c->qk_rope_head_dim, c->v_head_dim, c->kv_lora_rank);
        if (c->q_lora_rank) printf(", query latent %d", c->q_lora_rank);
    } else {
        printf("%d heads of %d, %d key heads%s%s", c->n_heads, c->head_dim, c->n_kv_heads,
               c->qkv_bias ? ", biases" : "", c->qk_norm ? ", normed queries and keys" : "");
    }
    putchar('\n');
    print_experts(c);
    print_rope(c);
    if (c->bos >= 0 || c->n_eos) {
        label("special ids");
        if (c->bos >= 0) printf("begin %d%s", c->bos, c->n_eos ? ", " : "");
        for (int i = 0; i < c->n_eos; i++) printf("%s%d", i ? " " : "end ", c->eos[i]);
        putchar('\n');
    }
    if (c->sampling.temperature >= 0 || c->sampling.top_p >= 0 || c->sampling.top_k >= 0) {
        label("sampling");
        const char *sep = "";
        if (c->sampling.temperature >= 0) printf("temperature %g", c->sampling.temperature), sep = ", ";
        if (c->sampling.top_p >= 0) printf("%stop-p %g", sep, c->sampling.top_p), sep = ", ";
        if (c->sampling.top_k >= 0) printf("%stop-k %d", sep, c->sampling.top_k);
        putchar('\n');
    }
}

/* ---- Tensors ---- */

/* blk.17.attn_q.weight -> blk.*.attn_q.weight: runs of digits between dots. */
static void pattern_of(char *out, size_t cap, const char *name)
{
    size_t n = 0;
    for (const char *p = name; *p && n + 1 < cap;) {
        size_t digits = strspn(p, "0123456789");
        bool number = digits && (p == name || p[-1] == '.') && (p[digits] == '.' || !p[digits]);
        out[n++] = number ? '*' : *p;
        p += number ? digits : 1;
    }
    out[n] = 0;
}

typedef struct {
    uint64_t hash;
    char pattern[256];
    const hd_tensor_info *first;
    int64_t n;
    uint64_t bytes;
} group;

static bool same_group(const group *g, const hd_tensor_info *t, const char *pattern)
{
    return g->first->type == t->type && g->first->n_dims == t->n_dims &&
           memcmp(g->first->dim, t->dim, sizeof t->dim) == 0 && strcmp(g->pattern, pattern) == 0;
}

static hd_status print_groups(const hd_source *s, hd_err *err)
{
    hd_status st;
    group *g = NULL;
    int n = 0, width = 8;
    int64_t more = 0;
    HD_TRY(hd_alloc_n(&g, MAX_GROUPS, sizeof *g, err));
    for (int64_t i = 0; i < hd_source_n_tensors(s); i++) {
        const hd_tensor_info *t = hd_source_tensor(s, i);
        char pattern[256];
        pattern_of(pattern, sizeof pattern, t->name);
        uint64_t hash = hd_hash_bytes(pattern, strlen(pattern), (uint64_t)t->type);
        int k = 0;
        while (k < n && !(g[k].hash == hash && same_group(&g[k], t, pattern))) k++;
        if (k == MAX_GROUPS) {
            more++;
            continue;
        }
        if (k == n) {
            g[n] = (group){.hash = hash, .first = t};
            strcpy(g[n++].pattern, pattern);
            int len = (int)strlen(pattern);
            if (len > width && len < 72) width = len;
        }
        g[k].n++;
        g[k].bytes += t->bytes;
    }
    int64_t most = 0;
    for (int k = 0; k < n; k++)
        if (g[k].n > most) most = g[k].n;
    int digits = snprintf(NULL, 0, "%" PRId64, most);
    for (int k = 0; k < n; k++) {
        printf("  %-*s  %*" PRId64 " x %-7s ", width, g[k].pattern, digits, g[k].n,
               hd_format_get((int)g[k].first->type)->name);
        shape(g[k].first);
        fputs("  ", stdout);
        show_bytes(g[k].bytes);
        putchar('\n');
    }
    if (more) printf("  and %" PRId64 " more of further kinds: --tensors lists each\n", more);
fail:
    free(g);
    return st;
}

static void print_each(const hd_source *s)
{
    int width = 8;
    bool many = hd_source_n_files(s) > 1;
    for (int64_t i = 0; i < hd_source_n_tensors(s); i++) {
        int len = (int)strlen(hd_source_tensor(s, i)->name);
        if (len > width && len < 72) width = len;
    }
    for (int64_t i = 0; i < hd_source_n_tensors(s); i++) {
        const hd_tensor_info *t = hd_source_tensor(s, i);
        printf("  %-*s  %-7s ", width, t->name, hd_format_get((int)t->type)->name);
        shape(t);
        fputs("  ", stdout);
        show_bytes(t->bytes);
        if (many) printf("  file %d", t->file + 1);
        putchar('\n');
    }
}

/* "4.6 bits a weight: 211 q4_1 (86 MB), 61 f32 (0.1 MB)" */
static void print_weights(const hd_facts *f)
{
    const hd_source *s = f->source;
    uint64_t bytes = hd_source_weight_bytes(s);
    label("weights");
    show_count(f->n_weights);
    printf(" in %" PRId64 " tensors, ", hd_source_n_tensors(s));
    show_bytes(bytes);
    if (f->n_weights) printf(", %.2f bits each", 8 * (double)bytes / (double)f->n_weights);
    putchar('\n');
    const char *sep = "";
    label("formats");
    for (int k = 0; hd_format_at(k); k++) {
        int64_t n = 0;
        uint64_t b = 0;
        for (int64_t i = 0; i < hd_source_n_tensors(s); i++) {
            const hd_tensor_info *t = hd_source_tensor(s, i);
            if (t->type == hd_format_at(k)->type) n++, b += t->bytes;
        }
        if (!n) continue;
        printf("%s%" PRId64 " %s%s (", sep, n, hd_format_at(k)->name,
               hd_format_at(k)->dequant ? "" : ", which cannot be run");
        show_bytes(b);
        putchar(')');
        sep = ", ";
    }
    putchar('\n');
}

/* ---- Metadata of a GGUF file ---- */

static void print_value(const hd_value *v)
{
    switch (v->kind) {
    case HD_VALUE_INT: printf("%" PRId64, v->i); break;
    case HD_VALUE_FLOAT: printf("%.9g", v->f); break;
    case HD_VALUE_BOOL: fputs(v->i ? "true" : "false", stdout); break;
    case HD_VALUE_STR: hd_inspect_show(v->s.p, v->s.n, SHOWN_VALUE); break;
    }
}

static void print_metadata(const hd_gguf *g)
{
    for (int64_t k = 0; k < hd_gguf_n_kv(g); k++) {
        const hd_gguf_kv *kv = hd_gguf_kv_at(g, k);
        size_t pos = 0;
        hd_value v;
        fputs("  ", stdout);
        hd_inspect_show(kv->key.p, kv->key.n, 80);
        fputs(" = ", stdout);
        if (kv->type != HD_GGUF_ARR) {
            if (hd_inspect_value(kv, 0, &pos, &v)) print_value(&v);
        } else {
            printf("%" PRIu64 " x %s [", kv->n, hd_gguf_type_name(kv->elem));
            for (uint64_t i = 0; i < SHOWN_ELEMS && hd_inspect_value(kv, i, &pos, &v); i++) {
                if (i) fputs(", ", stdout);
                print_value(&v);
            }
            fputs(kv->n > SHOWN_ELEMS ? ", ...]" : "]", stdout);
        }
        putchar('\n');
    }
}

/* ---- The page ---- */

static void print_files(const hd_source *s)
{
    const hd_gguf *g = hd_source_gguf(s);
    hd_gguf_str name;
    uint64_t total = 0, bytes;
    if (g && hd_gguf_string(g, "general.name", &name)) {
        label("name");
        hd_inspect_show(name.p, name.n, SHOWN_VALUE);
        putchar('\n');
    }
    label("files");
    int n = hd_source_n_files(s);
    for (int i = 0; i < n; i++) hd_source_file(s, i, &bytes), total += bytes;
    printf("%s, %d %s, ", g ? "GGUF" : "Hugging Face directory", n, n == 1 ? "file" : "files");
    show_bytes(total);
    putchar('\n');
}

static void print_tokenizer(const hd_facts *f)
{
    label("tokenizer");
    if (f->tokenizer[0]) {
        hd_inspect_show(f->tokenizer, strlen(f->tokenizer), sizeof f->tokenizer);
        printf(", %" PRId64 " tokens\n", f->n_tokens);
    } else {
        printf("none that can be used: %s\n", f->tokenizer_err.msg);
    }
    label("chat format");
    if (f->chat) printf("%s\n", f->chat);
    else printf("none: %s\n", f->chat_err.msg[0] ? f->chat_err.msg : "a tokenizer is needed");
}

/* Unpacked weights are pages of the file, which the system may drop and read again: slow, and never out of
 * memory. */
static const char *verdict(const hd_plan *p, uint64_t with_whole_cache)
{
    if (p->fits_packed)
        return with_whole_cache <= p->available_bytes ? "it fits" : "it fits, with a shorter context";
    if (p->file_bytes <= p->available_bytes && p->fits_unpacked)
        return "it fits with --no-pack, which is slower";
    return "the weights do not fit; with --no-pack they would be read from the disk again for every token";
}

static void print_plan(const hd_facts *f)
{
    const hd_plan *p = &f->plan;
    const hd_config *c = hd_source_config(f->source);
    uint64_t full, all;
    if (!f->has_plan) {
        label("memory plan");
        printf("none: %s\n", f->plan_err.msg);
        return;
    }
    if (__builtin_mul_overflow(p->cache_bytes_per_tok, (uint64_t)c->max_pos, &full)) full = UINT64_MAX;
    if (__builtin_add_overflow(p->packed_bytes + p->work_bytes, full, &all)) all = UINT64_MAX;
    label("memory plan");
    show_bytes(all);
    printf(" for %" PRId64 " tokens: ", c->max_pos);
    show_bytes(p->packed_bytes);
    fputs(" packed weights, ", stdout);
    show_bytes(p->work_bytes);
    fputs(" to work in, ", stdout);
    show_bytes(full);
    fputs(" cache (", stdout);
    show_bytes(p->cache_bytes_per_tok);
    puts(" a token)");
    label("");
    show_bytes(p->available_bytes);
    printf(" available here: %s\n", verdict(p, all));
}

hd_status hd_inspect_text(const hd_facts *f, const hd_inspect_opts *o, hd_err *err)
{
    hd_status st = HD_OK;
    const hd_source *s = f->source;
    print_files(s);
    if (hd_source_config(s)) {
        print_config(hd_source_config(s));
    } else {
        label("architecture");
        printf("cannot be run: %s\n",
               hd_source_why_not(s)[0] ? hd_source_why_not(s) : "there is no config.json");
    }
    print_tokenizer(f);
    print_weights(f);
    print_plan(f);
    if (hd_source_n_tensors(s)) {
        puts("\ntensors");
        if (o->tensors) print_each(s);
        else HD_TRY(print_groups(s, err));
    }
    if (o->metadata && hd_source_gguf(s)) {
        puts("\nmetadata");
        print_metadata(hd_source_gguf(s));
    }
fail:
    return st;
}
