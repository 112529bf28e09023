/* hadal bench: how fast a model runs here, as llama-bench measures it: a prompt of random ids, then ids one
 * at a time. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/pool.h"
#include "base/rng.h"
#include "cli/bench_cost.h"
#include "cli/hub.h"
#include "cli/cmd.h"
#include "cli/load.h"
#include "infer/engine.h"
#include "kernels/kernels.h"
#include "model/json.h"

enum { MAX_REPS = 100 };

typedef struct {
    int64_t p, n, seqs, reps, depth;
    bool alike, json;
    hd_load_opts load;
} options;

typedef struct {
    double mean, dev, best;
} rate;

typedef struct {
    rate prompt, gen;
    double prompt_cpu,
        gen_cpu;            // the same per second of processor time: steady where others share the machine
    double load_s, first_s; // from start to a model in memory; to the first id of the prompt's answer
    hd_bench_cost cost;
    uint64_t rss_bytes, peak_bytes; // resident at the end, and at most
    uint64_t cache_bytes;           // of the pages that were filled
    double bandwidth;               // bytes a second this machine reads
} report;

static rate rate_of(const double *v, int64_t n)
{
    rate r = {0};
    for (int64_t i = 0; i < n; i++) {
        r.mean += v[i] / (double)n;
        r.best = v[i] > r.best ? v[i] : r.best;
    }
    for (int64_t i = 0; i < n; i++) r.dev += (v[i] - r.mean) * (v[i] - r.mean);
    r.dev = n > 1 ? sqrt(r.dev / (double)(n - 1)) : 0;
    return r;
}

static double cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static hd_status random_ids(hd_ids *out, int64_t n, int64_t n_vocab, uint64_t seed, hd_err *err)
{
    hd_rng r;
    hd_status st = HD_OK;
    hd_rng_seed(&r, seed, 7);
    for (int64_t i = 0; i < n && st == HD_OK; i++)
        st = hd_ids_add(out, (int32_t)(hd_rng_unit(&r) * (double)n_vocab), err);
    return st;
}

/* Passes until every session has logits. */
static hd_status run_passes(hd_session **s, int n, hd_err *err)
{
    for (;;) {
        bool all = true;
        for (int i = 0; i < n; i++) all = all && hd_session_ready(s[i]);
        if (all) return HD_OK;
        if (hd_interrupted) return hd_fail(err, HD_CANCELLED, "bench: interrupted");
        hd_status st = hd_session_pass(s, n, err);
        if (st != HD_OK) return st;
    }
}

/* All sequences get their own prompt of n ids behind what they hold, or the same one. */
static hd_status prompts(const hd_engine *e, hd_session **s, const options *o, int64_t n, uint64_t seed, hd_err *err)
{
    hd_status st = HD_OK;
    for (int i = 0; i < o->seqs && st == HD_OK; i++) {
        hd_ids ids = {0};
        for (int64_t k = 0; k < hd_session_len(s[i]) && st == HD_OK; k++)
            st = hd_ids_add(&ids, hd_session_ids(s[i])[k], err);
        if (st == HD_OK) st = random_ids(&ids, n, hd_engine_n_vocab(e), seed + (uint64_t)(o->alike ? 0 : i), err);
        if (st == HD_OK) st = hd_session_queue(s[i], ids.id, ids.n, err);
        hd_ids_free(&ids);
    }
    return st == HD_OK ? run_passes(s, (int)o->seqs, err) : st;
}

static hd_status generate(const hd_engine *e, hd_session **s, const options *o, int64_t n, hd_err *err)
{
    hd_rng r;
    hd_rng_seed(&r, 1, 9);
    for (int64_t k = 0; k < n; k++) {
        int32_t id = 0;
        for (int i = 0; i < o->seqs; i++) {
            if (i == 0 || !o->alike) id = (int32_t)(hd_rng_unit(&r) * (double)hd_engine_n_vocab(e));
            hd_status st = hd_session_push(s[i], id, err);
            if (st != HD_OK) return st;
        }
        hd_status st = run_passes(s, (int)o->seqs, err);
        if (st != HD_OK) return st;
    }
    return HD_OK;
}

static hd_status measure(report *r, const hd_engine *e, hd_session **s, const options *o, double t_start,
                         hd_err *err)
{
    hd_status st;
    double prompt[MAX_REPS], gen[MAX_REPS];
    int seqs = (int)o->seqs;
    hd_progress bar;
    double t = hd_now_s(), cpu, prompt_cpu = 0, gen_cpu = 0;
    /* The first one warms up, and is what a user waits for. */
    HD_TRY(prompts(e, s, o, o->p > 0 ? o->p : 1, 0, err));
    r->first_s = hd_now_s() - t_start;
    HD_TRY(generate(e, s, o, 1, err));
    hd_progress_begin(&bar, "measuring", (uint64_t)o->reps, "runs");
    for (int64_t i = 0; i < o->reps; i++) {
        for (int k = 0; k < seqs; k++) hd_session_rewind(s[k], 0);
        if (o->depth > 0) HD_TRY(prompts(e, s, o, o->depth, 100 + (uint64_t)i, err));
        t = hd_now_s();
        cpu = cpu_now();
        if (o->p > 0) HD_TRY(prompts(e, s, o, o->p, 1 + (uint64_t)i, err));
        prompt[i] = (double)(o->p * seqs) / (hd_now_s() - t);
        prompt_cpu += cpu_now() - cpu;
        /* Generation starts behind `depth`, not behind the prompt: as llama-bench does, so that figures
         * compare. */
        for (int k = 0; k < seqs; k++) hd_session_rewind(s[k], o->depth);
        if (o->depth == 0) HD_TRY(prompts(e, s, o, 1, 50, err));
        t = hd_now_s();
        cpu = cpu_now();
        HD_TRY(generate(e, s, o, o->n, err));
        gen[i] = (double)(o->n * seqs) / (hd_now_s() - t);
        gen_cpu += cpu_now() - cpu;
        hd_progress_add(&bar, 1);
    }
    hd_progress_end(&bar);
    r->prompt = rate_of(prompt, o->p > 0 ? o->reps : 0);
    r->gen = rate_of(gen, o->n > 0 ? o->reps : 0);
    r->prompt_cpu = o->p > 0 ? (double)(o->p * seqs * o->reps) / prompt_cpu : 0;
    r->gen_cpu = o->n > 0 ? (double)(o->n * seqs * o->reps) / gen_cpu : 0;
fail:
    return st;
}

/* "VmRSS" or "VmHWM" of this process, in bytes; 0 where there is no /proc. */
static uint64_t memory_bytes(const char *what)
{
    char line[256];
    unsigned long long kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, what, strlen(what)) == 0 && sscanf(line + strlen(what), ": %llu", &kb) == 1) break;
    if (f) fclose(f);
    return kb * 1024;
}

/* Bytes of weights a second while tokens are generated. */
static double read_rate(const report *r, const options *o) { return r->gen.mean / (double)o->seqs * r->cost.pass_bytes; }

static const char *level(void)
{
    const hd_kernels *k;
    return hd_kernels_get(&k, NULL) == HD_OK ? k->level : "?";
}

static hd_status print_json(const char *model, const report *r, const options *o, int threads, hd_err *err)
{
    json_t *j = json_pack(
        "{s:s, s:s, s:i, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:I, "
        "s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f}",
        "model", model, "level", level(), "threads", threads, "sequences", (json_int_t)o->seqs, "prompt_tok",
        (json_int_t)o->p, "gen_tok", (json_int_t)o->n, "depth_tok", (json_int_t)o->depth, "repetitions",
        (json_int_t)o->reps, "prompt_tok_s", r->prompt.mean, "prompt_tok_s_dev", r->prompt.dev, "gen_tok_s",
        r->gen.mean, "gen_tok_s_dev", r->gen.dev, "load_s", r->load_s, "first_token_s", r->first_s,
        "weight_bytes", (json_int_t)r->cost.weight_bytes, "rss_bytes", (json_int_t)r->rss_bytes,
        "peak_rss_bytes", (json_int_t)r->peak_bytes, "cache_bytes", (json_int_t)r->cache_bytes, "token_bytes", r->cost.token_bytes, "token_weights",
        r->cost.token_weights, "prompt_weights", r->cost.prompt_weights, "read_bytes_s", r->bandwidth, "read_share", read_rate(r, o) / r->bandwidth,
        "prompt_tok_cpu_s", r->prompt_cpu, "gen_tok_cpu_s", r->gen_cpu);
    return hd_json_print_take(j, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6), "bench", err);
}

static void print_text(const char *model, const report *r, const options *o, int threads)
{
    const hd_bench_cost *c = &r->cost;
    printf("%s, %d threads, level %s, %lld %s, %lld repetitions\n", model, threads, level(),
           (long long)o->seqs, o->seqs == 1 ? "sequence" : "sequences at once", (long long)o->reps);
    if (o->p > 0)
        printf("  prompt of %-7lld  %9.1f tok/s +- %-6.1f  %.0f G operations/s\n", (long long)o->p,
               r->prompt.mean, r->prompt.dev, 2e-9 * r->prompt.mean * c->prompt_weights);
    if (o->n > 0)
        printf("  generating %-6lld  %9.1f tok/s +- %-6.1f", (long long)o->n, r->gen.mean, r->gen.dev);
    if (o->n > 0)
        printf("  %.1f GB/s of weights, %.0f %% of the %.1f GB/s this machine reads\n", 1e-9 * read_rate(r, o),
               100 * read_rate(r, o) / r->bandwidth, 1e-9 * r->bandwidth);
    printf("  start to model     %9.2f s, to the first id %.2f s\n", r->load_s, r->first_s);
    printf("  memory             %9.3f GB at most, %.3f of it cache; the rest is %.2f x the weights' %.3f GB\n",
           1e-9 * (double)r->peak_bytes, 1e-9 * (double)r->cache_bytes,
           (double)(r->peak_bytes - r->cache_bytes) / (double)c->weight_bytes, 1e-9 * (double)c->weight_bytes);
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    double t0 = hd_now_s();
    options o = {.p = 512, .n = 64, .seqs = 1, .reps = 3, .load = HD_LOAD_DEFAULTS};
    const hd_opt opts[] = {
        {"prompt", 'p', HD_OPT_INT, &o.p, 0, 1 << 24},
        {"gen", 'n', HD_OPT_INT, &o.n, 0, 1 << 24},
        {"batch", 'b', HD_OPT_INT, &o.seqs, 1, 256},
        {"reps", 'r', HD_OPT_INT, &o.reps, 1, MAX_REPS},
        {"depth", 'd', HD_OPT_INT, &o.depth, 0, 1 << 24},
        {"alike", 0, HD_OPT_FLAG, &o.alike, 0, 0},
        {"json", 0, HD_OPT_FLAG, &o.json, 0, 0},
        HD_MODEL_OPTS(o.load),
    };
    int n = 0, made = 0;
    hd_engine *e = NULL;
    hd_session *s[256] = {NULL};
    report r = {0};
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n != 1) HD_TRY(hd_fail(err, HD_USAGE, "bench: one model is needed: hadal bench MODEL"));
    hd_watch_signals();
    int64_t need = o.depth + (o.p > o.n ? o.p : o.n) + 2;
    hd_engine_opts eo = {.n_threads = (int)o.load.threads,
                         .exact = o.load.exact,
                         .no_pack = o.load.no_pack,
                         .cache_type = o.load.cache_type,
                         .ctx_tok = o.load.ctx > need ? o.load.ctx : need,
                         .n_sessions = (int)o.seqs,
                         .progress = true};
    HD_TRY(hd_hub_open_engine(&e, argv[1], &eo, err));
    r.load_s = hd_now_s() - t0;
    for (; made < o.seqs; made++) HD_TRY(hd_session_open(&s[made], e, err));
    HD_TRY(measure(&r, e, s, &o, t0, err));
    r.rss_bytes = memory_bytes("VmRSS");
    r.peak_bytes = memory_bytes("VmHWM");
    int64_t pages = (need + HD_PAGE_TOK - 1) / HD_PAGE_TOK;
    r.cache_bytes = hd_cache_tok_bytes(hd_model_config(e->model), e->cache_type) * (uint64_t)(pages * HD_PAGE_TOK * o.seqs);
    HD_TRY(hd_bench_cost_of(&r.cost, argv[1], o.alike ? 1 : o.seqs, err));
    r.cost.token_bytes *= hd_model_packed_share(e->model);
    r.cost.pass_bytes *= hd_model_packed_share(e->model);
    HD_TRY(hd_bench_bandwidth(&r.bandwidth, (int)o.load.threads, err));
    int threads = eo.n_threads > 0 ? eo.n_threads : hd_cpu_threads();
    if (o.json) HD_TRY(print_json(argv[1], &r, &o, threads, err));
    else print_text(argv[1], &r, &o, threads);
fail:
    for (int i = 0; i < made; i++) hd_session_close(s[i]);
    hd_engine_close(e);
    return st;
}

const hd_command hd_cmd_bench = {
    .verb = "bench",
    .summary = "measure a model's speed here",
    .help = "usage: hadal bench MODEL [options]\n\n"
            "Random ids: a prompt at once, then ids one at a time, as llama-bench does it.\n\n"
            "  -p, --prompt N           ids of the prompt (512)\n"
            "  -n, --gen N              ids generated (64)\n"
            "  -b, --batch N            sequences at once (1); speeds are of all together\n"
            "  -d, --depth N            ids that stand before, not measured (0)\n"
            "      --alike              all sequences hold the same ids: of experts, they choose the same\n"
            "  -r, --reps N             repetitions (3)\n"
            "      --json               one JSON object\n" HD_MODEL_HELP "\nexamples:\n"
            "  hadal bench smollm2.gguf\n"
            "  hadal bench r1.gguf -p 512 -n 64 -t 2 --json\n"
            "  hadal bench r1.gguf -b 16\n",
    .run = run,
};
