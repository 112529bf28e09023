/* hadal score: how likely a text is, id by id, or as one number, the perplexity.  The work is
 * infer/score.c's. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/cmd.h"
#include "cli/hub.h"
#include "cli/opts.h"
#include "infer/compare.h"
#include "infer/score.h"
#include "model/json.h"
#include "model/tokenizer.h"

typedef struct {
    const char *tokens, *text, *text_file, *logits, *cache;
    int64_t ctx, chunks, threads, slice, first_bytes;
    bool exact, no_pack, json, no_bos, kl;
} options;

/* ---- Ids ---- */

static hd_status ids_from_list(hd_ids *out, const char *s, hd_err *err)
{
    hd_status st = HD_OK;
    while (*s) {
        char *end;
        errno = 0;
        long v = strtol(s, &end, 10);
        if (end == s || errno || v < 0 || v > INT32_MAX ||
            (*end && *end != ',' && *end != ' ' && *end != '\n'))
            return hd_fail(err, HD_USAGE, "--tokens: '%.20s': ids are numbers with commas between", s);
        HD_TRY(hd_ids_add(out, (int32_t)v, err));
        s = end + strspn(end, ", \n");
    }
fail:
    return st;
}

/* The text's ids, BOS first where plain text starts with it. */
static hd_status ids_from_text(hd_ids *out, int32_t *bos, const hd_source *s, const options *o, hd_err *err)
{
    hd_status st;
    hd_tokenizer *t = NULL;
    hd_buf text;
    hd_buf_init(&text, (size_t)1 << 30);
    HD_TRY(hd_tokenizer_open(&t, s, err));
    if (o->text_file) HD_TRY(hd_file_read(&text, o->text_file, err));
    else HD_TRY(hd_buf_adds(&text, o->text, err));
    if (hd_tokenizer_adds_bos(t) && !o->no_bos && hd_tokenizer_bos(t) >= 0) {
        *bos = hd_tokenizer_bos(t);
        HD_TRY(hd_ids_add(out, *bos, err));
    }
    size_t n = text.len;
    if (o->first_bytes > 0 && (uint64_t)o->first_bytes < n) n = (size_t)o->first_bytes;
    HD_TRY(hd_tokenizer_encode(t, text.data ? text.data : "", n, out, err));
fail:
    hd_tokenizer_close(t);
    hd_buf_free(&text);
    return st;
}

/* ---- Id by id ---- */

typedef struct {
    const hd_ids *ids;
    int64_t n_vocab;
    FILE *logits;
    json_t *list; // NULL: print lines
    double sum;
    int64_t n;
} by_id;

static hd_status score_id(void *arg, int64_t pos, const float *logits, hd_err *err)
{
    by_id *s = arg;
    if (s->logits && fwrite(logits, sizeof *logits, (size_t)s->n_vocab, s->logits) != (size_t)s->n_vocab)
        return hd_fail_errno(err, "score: writing logits");
    if (pos + 1 >= s->ids->n) return HD_OK;
    int32_t next = s->ids->id[pos + 1];
    double lp = hd_log_prob(logits, s->n_vocab, next);
    s->sum += lp;
    s->n++;
    if (!s->list) printf("%lld\t%d\t%.6f\n", (long long)pos + 1, next, lp);
    else if (json_array_append_new(s->list, json_real(isfinite(lp) ? lp : -1e30)) != 0)
        return hd_fail(err, HD_NOMEM, "score: no memory for the report");
    return HD_OK;
}

static hd_status score_ids(hd_model *m, hd_cache_type type, const hd_ids *ids, const options *o, hd_err *err)
{
    hd_status st;
    by_id s = {.ids = ids, .n_vocab = hd_model_config(m)->n_vocab};
    if (o->json && !(s.list = json_array())) return hd_fail(err, HD_NOMEM, "score: no memory");
    if (o->logits && !(s.logits = fopen(o->logits, "we"))) {
        st = hd_fail_errno(err, "score: %s", o->logits);
        goto fail;
    }
    HD_TRY(hd_score_run(m, type, ids->id, ids->n, 0, (int)o->slice, score_id, &s, err));
    if (s.logits) {
        int bad = fclose(s.logits);
        s.logits = NULL;
        if (bad) HD_TRY(hd_fail_errno(err, "score: %s", o->logits));
    }
    double nll = s.n ? -s.sum / (double)s.n : 0;
    if (o->json) {
        json_t *j = json_pack("{s:I, s:f, s:f, s:O}", "ids", (json_int_t)ids->n, "nll", nll, "perplexity",
                              exp(nll), "logprobs", s.list);
        HD_TRY(hd_json_print_take(j, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9), "score: report", err));
    } else printf("%lld ids, %.6f nats an id, perplexity %.4f\n", (long long)ids->n, nll, exp(nll));
fail:
    if (s.logits) fclose(s.logits);
    json_decref(s.list);
    return st;
}

static hd_status score_chunks(hd_model *m, hd_cache_type type, const hd_ids *ids, int32_t bos,
                              const options *o, hd_err *err)
{
    hd_perplexity p;
    hd_status st = hd_perplexity_run(&p, m, type, ids->id, ids->n, o->ctx, bos, o->chunks, err);
    if (st != HD_OK) return st;
    if (o->json)
        printf("{\"perplexity\": %.6f, \"error\": %.6f, \"nll\": %.6f, \"scored\": %lld, \"chunks\": %lld, "
               "\"ctx\": %lld}\n",
               p.perplexity, p.error, p.nll, (long long)p.n_scored, (long long)p.n_chunks, (long long)o->ctx);
    else
        printf("perplexity %.4f +- %.4f, %lld chunks of %lld ids, %lld scored\n", p.perplexity, p.error,
               (long long)p.n_chunks, (long long)o->ctx, (long long)p.n_scored);
    return HD_OK;
}

/* What speed costs: the distributions of this mode beside those of f32 throughout. */
static hd_status score_kl(hd_model *m, hd_cache_type type, const hd_source *s, const hd_ids *ids, int32_t bos, const options *o,
                          hd_err *err)
{
    hd_status st;
    hd_comparison c;
    hd_model *exact = NULL;
    hd_model_opts mo = {.n_threads = (int)o->threads, .exact = true, .pack = o->no_pack ? 0 : -1};
    HD_TRY(hd_model_open(&exact, s, &mo, err));
    HD_TRY(hd_compare(&c, exact, HD_CACHE_F32, m, type, ids->id, ids->n, o->ctx, bos, o->chunks, err));
    if (o->json)
        printf("{\"perplexity_exact\": %.6f, \"perplexity\": %.6f, \"kl\": %.9f, \"kl_error\": %.9f, \"same_top\": %.6f, "
               "\"scored\": %lld, \"chunks\": %lld, \"ctx\": %lld}\n",
               c.perplexity, c.perplexity_of_other, c.kl, c.kl_error, c.same_top, (long long)c.n_scored, (long long)c.n_chunks,
               (long long)o->ctx);
    else
        printf("perplexity %.4f, exact %.4f; KL %.6f +- %.6f nats an id, the same likeliest id at %.2f %%; %lld ids scored\n",
               c.perplexity_of_other, c.perplexity, c.kl, c.kl_error, 100 * c.same_top, (long long)c.n_scored);
fail:
    hd_model_close(exact);
    return st;
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    options o = {0};
    int n = 0;
    const hd_opt opts[] = {
        {"tokens", 0, HD_OPT_STR, &o.tokens, 0, 0},
        {"text", 0, HD_OPT_STR, &o.text, 0, 0},
        {"text-file", 'f', HD_OPT_STR, &o.text_file, 0, 0},
        {"first-bytes", 0, HD_OPT_INT, &o.first_bytes, 1, 1 << 30},
        {"logits", 0, HD_OPT_STR, &o.logits, 0, 0},
        {"ctx", 'c', HD_OPT_INT, &o.ctx, 4, 1 << 24},
        {"chunks", 0, HD_OPT_INT, &o.chunks, 1, 1 << 30},
        {"slice", 0, HD_OPT_INT, &o.slice, 1, 1 << 20},
        {"cache", 0, HD_OPT_STR, &o.cache, 0, 0},
        {"threads", 't', HD_OPT_INT, &o.threads, 1, 1024},
        {"exact", 0, HD_OPT_FLAG, &o.exact, 0, 0},
        {"kl", 0, HD_OPT_FLAG, &o.kl, 0, 0},
        {"no-pack", 0, HD_OPT_FLAG, &o.no_pack, 0, 0},
        {"no-bos", 0, HD_OPT_FLAG, &o.no_bos, 0, 0},
        {"json", 0, HD_OPT_FLAG, &o.json, 0, 0},
    };
    hd_source *s = NULL;
    hd_model *m = NULL;
    hd_ids ids = {0};
    int32_t bos = -1;
    hd_cache_type type = HD_CACHE_BF16;
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n != 1 || !o.tokens + !o.text + !o.text_file != 2)
        return hd_fail(err, HD_USAGE,
                       "score: a model and one of --tokens, --text, --text-file: hadal score MODEL -f FILE");
    if (o.logits && o.ctx)
        return hd_fail(err, HD_USAGE, "score: --logits goes with one sequence, not with chunks (-c)");
    if (o.kl && (!o.ctx || o.exact)) return hd_fail(err, HD_USAGE, "score: --kl goes with -c and without --exact");
    if (o.cache || o.exact) HD_TRY(hd_cache_type_named(&type, o.exact ? "f32" : o.cache, err));
    HD_TRY(hd_hub_open_source(&s, argv[1], true, err));
    if (o.tokens) HD_TRY(ids_from_list(&ids, o.tokens, err));
    else HD_TRY(ids_from_text(&ids, &bos, s, &o, err));
    hd_model_opts mo = {.n_threads = (int)o.threads, .exact = o.exact, .pack = o.no_pack ? 0 : -1};
    HD_TRY(hd_model_open(&m, s, &mo, err));
    if (!o.cache && !o.exact) type = hd_cache_default(hd_model_config(m));
    if (o.kl) HD_TRY(score_kl(m, type, s, &ids, bos, &o, err));
    else if (o.ctx) HD_TRY(score_chunks(m, type, &ids, bos, &o, err));
    else HD_TRY(score_ids(m, type, &ids, &o, err));
fail:
    hd_model_close(m);
    hd_source_close(s);
    hd_ids_free(&ids);
    return st;
}

const hd_command hd_cmd_score = {
    .verb = "score",
    .summary = "how likely a text is: log-probabilities, perplexity",
    .help =
        "usage: hadal score MODEL (--text-file F | --text TEXT | --tokens 1,2,3) [options]\n\n"
        "Prints for every id its place, itself and its log-probability (natural) after those before it.  "
        "With -c the\n"
        "perplexity alone: the text is cut into chunks of N ids and the second half of each is scored, as\n"
        "llama-perplexity does.\n\n"
        "  -f, --text-file F      the text; --first-bytes N reads no further\n"
        "      --text TEXT        the same from the command line\n"
        "      --tokens LIST      ids instead of a text\n"
        "  -c, --ctx N            perplexity by chunks of N ids; --chunks K: of the first K\n"
        "      --logits FILE      write a row of float32 logits for every id, [ids, vocabulary], native byte "
        "order\n"
        "      --exact            f32 activations, sums and cache: slow, for comparing\n"
        "      --cache TYPE       bf16, f16, q8_0 or f32; default: f16, latents bf16\n"
        "      --kl               with -c: the KL divergence from this model in f32 throughout, too\n"
        "      --slice N          rows of one pass (changes no bit of the result)\n"
        "      --no-bos           the text starts without the begin-of-sequence id\n"
        "      --no-pack          read weights from the file's own pages\n"
        "  -t, --threads N        default: physical cores available\n"
        "      --json             one JSON object instead of text\n\n"
        "examples:\n"
        "  hadal score model.gguf --text 'The sky is blue.'\n"
        "  hadal score model.gguf -f wiki.test.raw -c 512\n",
    .run = run,
};
