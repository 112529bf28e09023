/* hadal quantize: a model in, a GGUF file with smaller weights out.  The work is model/quantize.c's; what a
 * text says about the weights before, and about the result after, is infer/importance.c's and
 * infer/compare.c's. */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/cmd.h"
#include "cli/hub.h"
#include "cli/load.h"
#include "cli/opts.h"
#include "infer/compare.h"
#include "infer/importance.h"
#include "model/json.h"
#include "model/quantize.h"
#include "model/tokenizer.h"

enum { CTX = 512 }; // ids of a chunk, as llama-perplexity's customary -c

typedef struct {
    const char *in, *out, *type, *imatrix, *measure;
    hd_opt_list rules;
    int64_t threads, chunks;
    bool json;
} options;

typedef struct {
    hd_quantize_report file;
    hd_perplexity seen; // by --imatrix-text
    hd_comparison diff; // by --measure
} report;

static hd_status unknown_type(const char *type, hd_err *err)
{
    char known[256] = "";
    for (int i = 0; hd_quant_mix_at(i); i++) {
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", hd_quant_mix_at(i)->name);
    }
    return hd_fail(err, HD_USAGE, "--type %.40s: not known: %s are", type, known);
}

/* ---- Texts ---- */

/* A model, and a text in its ids, for as long as one measurement takes. */
typedef struct {
    hd_ids ids;
    int64_t ctx;
    int32_t bos; // -1: plain text does not start with it
} text;

static void text_close(text *t) { hd_ids_free(&t->ids); }

/* t: zeros.  A short text gets shorter chunks, two at least. */
static hd_status text_open(text *t, const hd_source *s, const char *path, hd_err *err)
{
    hd_status st;
    hd_tokenizer *k = NULL;
    hd_buf bytes;
    hd_buf_init(&bytes, (size_t)1 << 30);
    t->bos = -1;
    HD_TRY(hd_tokenizer_open(&k, s, err));
    HD_TRY(hd_file_read(&bytes, path, err));
    if (hd_tokenizer_adds_bos(k)) t->bos = hd_tokenizer_bos(k);
    HD_TRY(hd_tokenizer_encode(k, bytes.data ? bytes.data : "", bytes.len, &t->ids, err));
    t->ctx = t->ids.n < 2 * CTX ? t->ids.n / 2 : CTX;
    if (t->ctx < 4) st = hd_fail(err, HD_USAGE, "quantize: %s: %lld ids are no text to measure with", path, (long long)t->ids.n);
fail:
    hd_tokenizer_close(k);
    hd_buf_free(&bytes);
    return st;
}

static hd_status learn_importance(hd_importances *v, report *r, const hd_source *s, const options *o, hd_err *err)
{
    hd_status st;
    hd_model *m = NULL;
    text t = {0};
    hd_model_opts mo = {.n_threads = (int)o->threads, .pack = -1};
    HD_TRY(text_open(&t, s, o->imatrix, err));
    HD_TRY(hd_model_open(&m, s, &mo, err));
    HD_TRY(hd_importances_open(v, &r->seen, m, s, t.ids.id, t.ids.n, t.ctx, t.bos, o->chunks, err));
fail:
    hd_model_close(m);
    text_close(&t);
    return st;
}

static hd_status measure(report *r, const hd_source *s, const options *o, hd_err *err)
{
    hd_status st;
    hd_source *made = NULL;
    hd_model *before = NULL, *after = NULL;
    text t = {0};
    hd_model_opts mo = {.n_threads = (int)o->threads, .pack = -1};
    HD_TRY(text_open(&t, s, o->measure, err));
    HD_TRY(hd_source_open(&made, o->out, true, err));
    HD_TRY(hd_model_open(&before, s, &mo, err));
    HD_TRY(hd_model_open(&after, made, &mo, err));
    HD_TRY(hd_compare(&r->diff, before, HD_CACHE_BF16, after, HD_CACHE_BF16, t.ids.id, t.ids.n, t.ctx, t.bos, o->chunks, err));
fail:
    hd_model_close(after);
    hd_model_close(before);
    hd_source_close(made);
    text_close(&t);
    return st;
}

/* ---- The report ---- */

static void print_text(const options *o, const hd_quant_mix *mix, const report *all)
{
    const hd_quantize_report *r = &all->file;
    const hd_comparison *d = &all->diff;
    bool small = r->in_bytes < 100000000;
    double unit = small ? 1e6 : 1e9;
    const char *name = small ? "MB" : "GB";
    printf("%s: %s, %.2f %s from %.2f %s, %.2f bits a weight, %lld tensors (", o->out, mix->name, (double)r->out_bytes / unit,
           name, (double)r->in_bytes / unit, name, 8 * (double)r->out_bytes / (double)r->n_weights, (long long)r->n_tensors);
    for (int i = 0, first = 1; hd_format_at(i); i++) {
        if (!r->tensors_of[i]) continue;
        printf("%s%lld %s", first ? "" : ", ", (long long)r->tensors_of[i], hd_format_at(i)->name);
        first = 0;
    }
    printf("), error %.3f %% of the weights' size, %.1f s\n", 100 * r->relative_rmse, r->seconds);
    if (r->n_fallback)
        printf("%d tensors have rows that are no multiple of 256 and got a format with blocks of 32\n", r->n_fallback);
    if (o->imatrix)
        printf("importance from %lld ids, perplexity %.4f\n", (long long)(2 * all->seen.n_scored), all->seen.perplexity);
    if (o->measure)
        printf("perplexity %.4f before, %.4f after (%+.2f %%), KL %.5f +- %.5f nats, same likeliest id %.2f %%, of %lld ids\n",
               d->perplexity, d->perplexity_of_other, 100 * (d->perplexity_of_other / d->perplexity - 1), d->kl, d->kl_error,
               100 * d->same_top, (long long)d->n_scored);
}

static hd_status print_json(const options *o, const hd_quant_mix *mix, const report *all, hd_err *err)
{
    const hd_quantize_report *r = &all->file;
    const hd_comparison *d = &all->diff;
    json_t *formats = json_object(), *j = NULL;
    bool whole = formats != NULL;
    for (int i = 0; hd_format_at(i); i++)
        if (r->tensors_of[i])
            whole &= json_object_set_new(formats, hd_format_at(i)->name, json_integer(r->tensors_of[i])) == 0;
    if (whole)
        j = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:f, s:f, s:O}", "file", o->out, "type", mix->name, "bytes_in",
                      (json_int_t)r->in_bytes, "bytes_out", (json_int_t)r->out_bytes, "tensors", (json_int_t)r->n_tensors,
                      "weights", (json_int_t)r->n_weights, "fallbacks", r->n_fallback, "relative_rmse", r->relative_rmse,
                      "seconds", r->seconds, "formats", formats);
    json_decref(formats);
    whole = j != NULL;
    if (whole && o->imatrix)
        whole = json_object_set_new(j, "imatrix_perplexity", json_real(all->seen.perplexity)) == 0;
    if (whole && o->measure)
        whole = json_object_set_new(j, "measure", json_pack("{s:f, s:f, s:f, s:f, s:f, s:I}", "perplexity_before", d->perplexity,
                                                            "perplexity_after", d->perplexity_of_other, "kl", d->kl, "kl_error",
                                                            d->kl_error, "same_top", d->same_top, "scored",
                                                            (json_int_t)d->n_scored)) == 0;
    if (!whole) {
        json_decref(j);
        return hd_fail(err, HD_NOMEM, "quantize: report: no memory, or a file name or a number that JSON cannot hold");
    }
    return hd_json_print_take(j, JSON_PRESERVE_ORDER, "quantize: report", err);
}

/* ---- The command ---- */

/* All rules in one list, as quantize_rules.c reads them. */
static hd_status join_rules(hd_buf *b, const hd_opt_list *rules, hd_err *err)
{
    hd_status st = HD_OK;
    for (int i = 0; i < rules->n; i++) {
        if (i) HD_TRY(hd_buf_adds(b, ",", err));
        HD_TRY(hd_buf_adds(b, rules->v[i], err));
    }
    HD_TRY(hd_buf_add(b, "", 1, err));
fail:
    return st;
}

static hd_status run_all(const options *o, hd_err *err)
{
    hd_status st;
    hd_source *s = NULL;
    hd_importances importance = {0};
    report r = {0};
    hd_buf rules;
    hd_quantize_opts q = {.mix = hd_quant_mix_named(o->type), .n_threads = (int)o->threads, .stop = &hd_interrupted};
    hd_buf_init(&rules, (size_t)1 << 20);
    if (!q.mix) return unknown_type(o->type, err);
    HD_TRY(join_rules(&rules, &o->rules, err));
    q.rules = (const char *)rules.data;
    HD_TRY(hd_hub_open_source(&s, o->in, true, err));
    if (o->imatrix) {
        HD_TRY(learn_importance(&importance, &r, s, o, err));
        q.importance = importance.v;
        q.n_importance = importance.n;
    }
    hd_watch_signals(); // an unfinished file is removed
    HD_TRY(hd_quantize(o->out, s, &q, &r.file, err));
    signal(SIGINT, SIG_DFL); // the file stands: there is nothing left to tidy up
    signal(SIGTERM, SIG_DFL);
    if (o->measure) HD_TRY(measure(&r, s, o, err));
    if (o->json) HD_TRY(print_json(o, q.mix, &r, err));
    else print_text(o, q.mix, &r);
fail:
    hd_importances_close(&importance);
    hd_source_close(s);
    hd_buf_free(&rules);
    return st;
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    options o = {.type = "q4_k_m"};
    int n = 0;
    const hd_opt opts[] = {
        {"type", 't', HD_OPT_STR, &o.type, 0, 0},
        {"tensor-type", 0, HD_OPT_LIST, &o.rules, 0, 0},
        {"imatrix-text", 0, HD_OPT_STR, &o.imatrix, 0, 0},
        {"measure", 0, HD_OPT_STR, &o.measure, 0, 0},
        {"chunks", 0, HD_OPT_INT, &o.chunks, 1, 1 << 30},
        {"threads", 0, HD_OPT_INT, &o.threads, 1, 1024},
        {"json", 0, HD_OPT_FLAG, &o.json, 0, 0},
    };
    hd_status st = hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err);
    if (st != HD_OK) return st;
    if (n != 2) return hd_fail(err, HD_USAGE, "quantize: two names are needed: hadal quantize IN OUT.gguf --type q4_k_m");
    o.in = argv[1];
    o.out = argv[2];
    return run_all(&o, err);
}

const hd_command hd_cmd_quantize = {
    .verb = "quantize",
    .summary = "write a model as GGUF with smaller weights",
    .help = "usage: hadal quantize IN OUT.gguf [options]\n\n"
            "IN is a Hugging Face directory or a GGUF file.  OUT.gguf appears when it is whole; until then, and after\n"
            "Ctrl-C or a full disk, a file of that name stays as it was.\n\n"
            "  -t, --type NAME        f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 q2_k q2_k_s q3_k_s q3_k_m q3_k_l q4_k_s\n"
            "                         q4_k_m (default) q5_k_s q5_k_m q6_k\n"
            "      --tensor-type RULE PATTERN=TYPE, several with commas or by repeating: tensors whose GGUF name\n"
            "                         matches a regular expression; the first rule that matches counts\n"
            "      --imatrix-text F   weigh each column by what it is multiplied with on this text\n"
            "      --measure F        perplexity before and after on this text, and the KL divergence\n"
            "      --chunks N         of either text use the first N chunks of 512 ids only\n"
            "      --threads N        default: physical cores available\n"
            "      --json             one JSON object instead of text\n\n"
            "examples:\n"
            "  hadal quantize DeepSeek-R1-Distill-Qwen-1.5B r1.gguf\n"
            "  hadal quantize model-bf16.gguf small.gguf --type q3_k_m --tensor-type 'attn_v=q6_k,ffn_down=q4_k'\n"
            "  hadal quantize model-bf16.gguf small.gguf --imatrix-text sample.txt --measure other.txt --chunks 40\n",
    .run = run,
};
