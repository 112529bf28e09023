/* See recipe.h.  One table says what keys there are, where their values go and what they may be; reading,
 * writing and the suggestion for a misspelt key walk it.  Keys of a new model are model/config_write.h's. */
#include "train/recipe.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "model/config_write.h"
#include "train/recipe_parts.h"

typedef enum { TEXT, PATH, SOURCE, INT, INT64, FLOAT, DOUBLE, BOOL, WORD, STEPS } key_kind;

typedef struct {
    const char *section, *key;
    key_kind kind;
    size_t at, size;   // in hd_recipe
    double min, max;   // of numbers
    const char *words; // WORD: in the order of its enum
} row;

#define FIELD(f) offsetof(hd_recipe, f), sizeof(((hd_recipe *)0)->f)
#define BIG      9e15

static const row rows[] = {
    {"run", "name", TEXT, FIELD(name), 0, 0, NULL},
    {"run", "out", PATH, FIELD(out), 0, 0, NULL},
    {"run", "seed", INT64, FIELD(seed), 0, BIG, NULL},
    {"run", "threads", INT, FIELD(n_threads), 0, 1024, NULL},
    {"model", "init", PATH, FIELD(init), 0, 0, NULL},
    {"tokenizer", "path", PATH, FIELD(tokenizer), 0, 0, NULL},
    {"tokenizer", "vocab", INT64, FIELD(vocab), 257, 1 << 24, NULL},
    {"data", "source", SOURCE, FIELD(source), 0, 0, NULL},
    {"data", "val", PATH, FIELD(val), 0, 0, NULL},
    {"data", "field", TEXT, FIELD(field), 0, 0, NULL},
    {"data", "divider", TEXT, FIELD(divider), 0, 0, NULL},
    {"data", "chat_format", TEXT, FIELD(chat_format), 0, 0, NULL},
    {"data", "seq", INT, FIELD(seq), 2, 1 << 20, NULL},
    {"train", "steps", INT64, FIELD(steps), 1, 1e12, NULL},
    {"train", "batch", INT, FIELD(batch), 1, 1 << 24, NULL},
    {"train", "micro", INT, FIELD(micro), 0, 1 << 24, NULL},
    {"train", "precision", WORD, FIELD(precision), 0, 0, "bf16 f32 fp8"},
    {"train", "recompute", BOOL, FIELD(recompute), 0, 0, NULL},
    {"train", "expert_parallel", BOOL, FIELD(expert_parallel), 0, 0, NULL},
    {"train", "mtp_weight", FLOAT, FIELD(mtp_weight), 0, 100, NULL},
    {"train", "balance_alpha", FLOAT, FIELD(balance_alpha), 0, 100, NULL},
    {"train", "bias_speed", FLOAT, FIELD(bias_speed), 0, 1, NULL},
    {"train", "zloss", FLOAT, FIELD(zloss), 0, 1, NULL},
    {"train", "clip", FLOAT, FIELD(clip), 0, 1e9, NULL},
    {"train", "spike_sigmas", DOUBLE, FIELD(spike_sigmas), 0, 1e9, NULL},
    {"optim", "optimizer", WORD, FIELD(optim.matrices), 0, 0, "adamw muon"},
    {"optim", "schedule", WORD, FIELD(schedule.kind), 0, 0, "wsd cosine constant"},
    {"optim", "lr", FLOAT, FIELD(schedule.lr), 0, 100, NULL},
    {"optim", "min_lr", FLOAT, FIELD(schedule.min_lr), 0, 1, NULL},
    {"optim", "warmup", STEPS, FIELD(schedule.warmup), 0, 1e12, NULL},
    {"optim", "decay", STEPS, FIELD(schedule.decay), 0, 1e12, NULL},
    {"optim", "batch_ramp", STEPS, FIELD(schedule.batch_ramp), 0, 1e12, NULL},
    {"optim", "beta1", DOUBLE, FIELD(optim.beta1), 0, 0.999999, NULL},
    {"optim", "beta2", DOUBLE, FIELD(optim.beta2), 0, 0.999999, NULL},
    {"optim", "eps", DOUBLE, FIELD(optim.eps), 1e-30, 1, NULL},
    {"optim", "weight_decay", FLOAT, FIELD(optim.weight_decay), 0, 100, NULL},
    {"optim", "muon_momentum", FLOAT, FIELD(optim.muon_momentum), 0, 0.9999, NULL},
    {"optim", "muon_steps", INT, FIELD(optim.muon_steps), 1, 100, NULL},
    {"optim", "muon_lr_scale", FLOAT, FIELD(optim.muon_lr_scale), 0, 1000, NULL},
    {"optim", "embed_lr_scale", FLOAT, FIELD(optim.embed_lr_scale), 0, 1000, NULL},
    {"optim", "moments_bf16", BOOL, FIELD(optim.moments_bf16), 0, 0, NULL},
    {"distil", "teacher", PATH, FIELD(teacher), 0, 0, NULL},
    {"distil", "teacher_cache", PATH, FIELD(teacher_cache), 0, 0, NULL},
    {"distil", "distil_weight", FLOAT, FIELD(distil_weight), 0, 1, NULL},
    {"distil", "temperature", FLOAT, FIELD(temperature), 0.01, 100, NULL},
    {"distil", "distil_top", INT, FIELD(distil_top), 1, 1 << 16, NULL},
    {"lora", "lora_rank", INT, FIELD(lora_rank), 0, 4096, NULL},
    {"lora", "lora_alpha", FLOAT, FIELD(lora_alpha), 0, 1e6, NULL},
    {"log", "eval_every", INT64, FIELD(eval_every), 0, 1e12, NULL},
    {"log", "eval_tokens", INT64, FIELD(eval_tokens), 1, 1e12, NULL},
    {"log", "save_every", INT64, FIELD(save_every), 0, 1e12, NULL},
    {"log", "keep", INT, FIELD(keep), 1, 10000, NULL},
    {"log", "sample_every", INT64, FIELD(sample_every), 0, 1e12, NULL},
    {"log", "sample_prompt", TEXT, FIELD(sample_prompt), 0, 0, NULL},
    {"cost", "watts", DOUBLE, FIELD(watts), 0, 1e9, NULL},
    {"cost", "usd_per_kwh", DOUBLE, FIELD(usd_per_kwh), 0, 1e6, NULL},
    {"cost", "usd_per_hour", DOUBLE, FIELD(usd_per_hour), 0, 1e6, NULL},
};
enum { N_ROWS = sizeof rows / sizeof *rows, MAX_SETTINGS = 256, MICRO_ROWS = 1024, DENSE_ROWS = 512 };

static bool is_model(const char *section) { return strcmp(section, "model") == 0; }

/* ---- Defaults ---- */

static void defaults(hd_recipe *r, hd_run_kind k)
{
    *r = (hd_recipe){
        .kind = k,
        .vocab = 4096,
        .seq = 256,
        .seed = 1,
        .steps = 1000,
        .batch = 32,
        .mtp_weight = 0.3f,
        .balance_alpha = 1e-4f,
        .bias_speed = 1e-3f,
        .clip = 1,
        .distil_weight = 0.5f,
        .temperature = 1,
        .distil_top = 32,
        .spike_sigmas = 8,
        .lora_alpha = 16,
        .eval_every = 100,
        .save_every = 500,
        .sample_every = 500,
        .keep = 2,
        .eval_tokens = 65536,
        .optim = hd_optim_defaults,
        .schedule = {.kind = HD_SCHED_WSD, .lr = 2e-3f, .min_lr = 0},
    };
    if (k == HD_RUN_PRETRAIN) return;
    r->optim.matrices = HD_OPT_ADAMW; // weights that AdamW made are moved by AdamW
    r->optim.weight_decay = 0;
    r->schedule = (hd_schedule){.kind = HD_SCHED_COSINE, .lr = k == HD_RUN_SFT ? 2e-5f : 5e-4f, .min_lr = 0.1f};
}

/* ---- One key ---- */

typedef struct {
    char section[32], key[64];
    char value[2048];
    char where[80];
} setting;

typedef struct {
    hd_recipe *r;
    double share[N_ROWS]; // STEPS given as a share of the run's; -1: not
    bool seen[N_ROWS];
    json_t *model_seen;   // keys of [model] in the file
    setting *set;         // of the command line: these win, the file's values are not even looked at
    int n_set;
} reading;

static int find_row(const char *section, const char *key)
{
    for (int i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].section, section) == 0 && strcmp(rows[i].key, key) == 0) return i;
    return -1;
}

static bool known_section(const char *s)
{
    for (int i = 0; i < N_ROWS; i++)
        if (strcmp(rows[i].section, s) == 0) return true;
    return false;
}

/* Insertions, deletions and changes of a letter that make a from b (Levenshtein 1966); long texts
 * are far from all. */
static int distance(const char *a, const char *b)
{
    int row_of[65], n = (int)strlen(a), m = (int)strlen(b);
    if (n > 64 || m > 64) return 1000;
    for (int j = 0; j <= m; j++) row_of[j] = j;
    for (int i = 1; i <= n; i++) {
        int diagonal = row_of[0];
        row_of[0] = i;
        for (int j = 1; j <= m; j++) {
            int d = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row_of[j];
            if (row_of[j] + 1 < d) d = row_of[j] + 1;
            if (row_of[j - 1] + 1 < d) d = row_of[j - 1] + 1;
            row_of[j] = d;
        }
    }
    return row_of[m];
}

/* HD_USAGE, with the nearest key that there is; section NULL: any. */
static hd_status unknown(const char *section, const char *key, const char *where, hd_err *err)
{
    const char *best = NULL, *of = "";
    int least = (int)strlen(key) / 3 + 2;
    for (int i = 0; i < N_ROWS; i++) {
        int d = distance(key, rows[i].key) + (section && strcmp(section, rows[i].section) != 0);
        if (d < least) least = d, best = rows[i].key, of = rows[i].section;
    }
    for (int i = 0; hd_config_key_at(i); i++) {
        int d = distance(key, hd_config_key_at(i)) + (section && !is_model(section));
        if (d < least) least = d, best = hd_config_key_at(i), of = "model";
    }
    if (!best) return hd_fail(err, HD_USAGE, "%s: '%.60s': no key of a recipe", where, key);
    return hd_fail(err, HD_USAGE, "%s: '%.60s': no key of a recipe: did you mean %s.%s?", where, key, of, best);
}

static hd_status number(double *v, const row *w, const char *text, const char *where, hd_err *err)
{
    char *end;
    errno = 0;
    *v = strtod(text, &end);
    bool whole = w->kind == INT || w->kind == INT64 || w->kind == STEPS;
    if (end == text || *end || errno || (whole && *v != (double)(int64_t)(*v > BIG ? 0 : *v)))
        return hd_fail(err, HD_USAGE, "%s: %s: '%.40s' is no %s", where, w->key, text, whole ? "whole number" : "number");
    if (!(*v >= w->min && *v <= w->max))
        return hd_fail(err, HD_USAGE, "%s: %s: %.40s is not between %.12g and %.12g", where, w->key, text, w->min, w->max);
    return HD_OK;
}

static hd_status put_number(reading *g, const row *w, const char *text, const char *where, hd_err *err)
{
    char *to = (char *)g->r + w->at;
    double v;
    size_t n = strlen(text);
    if (w->kind == STEPS && n > 1 && text[n - 1] == '%') { // resolved when the run's steps are known
        const row share = {.key = w->key, .kind = DOUBLE, .min = 0, .max = 100};
        char digits[40];
        snprintf(digits, sizeof digits, "%.*s", (int)(n - 1 < 39 ? n - 1 : 39), text);
        hd_status st = number(&v, &share, digits, where, err);
        if (st == HD_OK) g->share[w - rows] = v / 100;
        return st;
    }
    hd_status st = number(&v, w, text, where, err);
    if (st != HD_OK) return st;
    switch (w->kind) {
    case INT: *(int *)(void *)to = (int)v; break;
    case FLOAT: *(float *)(void *)to = (float)v; break;
    case DOUBLE: *(double *)(void *)to = v; break;
    default: *(int64_t *)(void *)to = (int64_t)v; break;
    }
    g->share[w - rows] = -1;
    return HD_OK;
}

static hd_status put_word(hd_recipe *r, const row *w, const char *text, const char *where, hd_err *err)
{
    const char *p = w->words;
    size_t n = strlen(text);
    for (int i = 0; *p; i++) {
        size_t len = strcspn(p, " ");
        if (len == n && memcmp(p, text, n) == 0) {
            *(int *)(void *)((char *)r + w->at) = i; // an enum's size, asserted below
            return HD_OK;
        }
        p += len + (p[len] == ' ');
    }
    return hd_fail(err, HD_USAGE, "%s: %s: '%.40s' is none of: %s", where, w->key, text, w->words);
}
_Static_assert(sizeof(hd_train_precision) == sizeof(int) && sizeof(hd_optim_kind) == sizeof(int) && sizeof(hd_sched_kind) == sizeof(int),
               "words are stored as int");

static hd_status put_bool(hd_recipe *r, const row *w, const char *text, const char *where, hd_err *err)
{
    bool yes = !strcmp(text, "yes") || !strcmp(text, "true") || !strcmp(text, "1");
    bool no = !strcmp(text, "no") || !strcmp(text, "false") || !strcmp(text, "0");
    if (!yes && !no) return hd_fail(err, HD_USAGE, "%s: %s: '%.40s' is neither yes nor no", where, w->key, text);
    *(bool *)((char *)r + w->at) = yes;
    return HD_OK;
}

/* PATH, or PATH @ SHARE. */
static hd_status put_source(hd_recipe *r, const char *text, const char *where, hd_err *err)
{
    static const row share = {.key = "source", .kind = DOUBLE, .min = 1e-9, .max = 1e9};
    char path[2048];
    double weight = 1;
    snprintf(path, sizeof path, "%s", text);
    char *at = NULL, *p = path;
    while ((p = strstr(p, " @ "))) at = p, p += 3;
    if (at) {
        hd_status st = number(&weight, &share, at + 3, where, err);
        if (st != HD_OK) return st;
        *at = 0;
    }
    if (r->n_sources == HD_RECIPE_SOURCES) return hd_fail(err, HD_USAGE, "%s: source: more than %d", where, HD_RECIPE_SOURCES);
    if (!*path) return hd_fail(err, HD_USAGE, "%s: source: no path", where);
    r->source[r->n_sources].weight = weight;
    return hd_expand(r->source[r->n_sources++].path, sizeof r->source[0].path, path, where, err);
}

static hd_status put(reading *g, const row *w, const char *text, const char *where, hd_err *err)
{
    char *to = (char *)g->r + w->at;
    switch (w->kind) {
    case TEXT:
        if (strlen(text) >= w->size) return hd_fail(err, HD_USAGE, "%s: %s: longer than %zu bytes", where, w->key, w->size - 1);
        snprintf(to, w->size, "%s", text);
        return HD_OK;
    case PATH: return hd_expand(to, w->size, text, where, err);
    case SOURCE: return put_source(g->r, text, where, err);
    case BOOL: return put_bool(g->r, w, text, where, err);
    case WORD: return put_word(g->r, w, text, where, err);
    default: return put_number(g, w, text, where, err);
    }
}

static hd_status put_model(reading *g, const char *key, const char *text, const char *where, hd_err *err)
{
    for (int i = 0; hd_config_key_at(i); i++) {
        if (strcmp(hd_config_key_at(i), key) != 0 && strcmp(key, "architecture") != 0) continue;
        if (!g->r->config && !(g->r->config = json_object())) return hd_fail(err, HD_NOMEM, "%s: no memory", where);
        return hd_config_set(g->r->config, key, text, where, err);
    }
    return unknown("model", key, where, err);
}

/* ---- The file ---- */

static bool is_set(const reading *g, const char *section, const char *key)
{
    for (int i = 0; i < g->n_set; i++)
        if (strcmp(g->set[i].section, section) == 0 && strcmp(g->set[i].key, key) == 0) return true;
    return false;
}

static hd_status take(void *arg, const char *section, const char *key, const char *value, const char *where, hd_err *err)
{
    reading *g = arg;
    int i = find_row(section, key);
    if (!*section) return hd_fail(err, HD_USAGE, "%s: '%.60s': before the first [section]", where, key);
    if (!known_section(section))
        return hd_fail(err, HD_USAGE, "%s: [%.40s]: no section of a recipe: run model tokenizer data train optim distil lora log cost",
                       where, section);
    if (i < 0 && !is_model(section)) return unknown(section, key, where, err);
    bool again = i >= 0 ? g->seen[i] && rows[i].kind != SOURCE : json_object_get(g->model_seen, key) != NULL;
    if (again) return hd_fail(err, HD_USAGE, "%s: %s: this key is there twice", where, key);
    if (i >= 0) g->seen[i] = true;
    else if (json_object_set_new(g->model_seen, key, json_true()) != 0) return hd_fail(err, HD_NOMEM, "%s: no memory", where);
    if (is_set(g, section, key)) return HD_OK;
    return i >= 0 ? put(g, &rows[i], value, where, err) : put_model(g, key, value, where, err);
}

/* ---- Settings ---- */

/* Which key a bare name means. */
static hd_status whose(setting *s, hd_err *err)
{
    char all[200] = "";
    int n = 0;
    for (int i = 0; i < N_ROWS; i++) {
        if (strcmp(rows[i].key, s->key) != 0) continue;
        size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, " %s.%s", rows[i].section, rows[i].key);
        if (n++ == 0) snprintf(s->section, sizeof s->section, "%s", rows[i].section);
    }
    if (n == 1) return HD_OK;
    if (n > 1) return hd_fail(err, HD_USAGE, "%s: '%s': one of%s", s->where, s->key, all);
    for (int i = 0; hd_config_key_at(i); i++) {
        if (strcmp(hd_config_key_at(i), s->key) != 0) continue;
        snprintf(s->section, sizeof s->section, "model");
        return HD_OK;
    }
    return unknown(NULL, s->key, s->where, err);
}

static hd_status split(setting *s, const char *text, hd_err *err)
{
    const char *eq = strchr(text, '='), *dot = strchr(text, '.');
    snprintf(s->where, sizeof s->where, "-s %.70s", text);
    if (!eq || eq == text) return hd_fail(err, HD_USAGE, "%s: no key=value", s->where);
    const char *key = text;
    if (dot && dot < eq) { // section.key; a key of the model may have a dot of its own
        snprintf(s->section, sizeof s->section, "%.*s", (int)(dot - text), text);
        if (known_section(s->section)) key = dot + 1;
        else s->section[0] = 0;
    }
    if (eq - key >= (int)sizeof s->key || strlen(eq + 1) >= sizeof s->value) return hd_fail(err, HD_USAGE, "%s: too long", s->where);
    snprintf(s->key, sizeof s->key, "%.*s", (int)(eq - key), key);
    snprintf(s->value, sizeof s->value, "%s", eq + 1);
    if (!s->section[0]) return whose(s, err);
    if (!is_model(s->section) && find_row(s->section, s->key) < 0) return unknown(s->section, s->key, s->where, err);
    return HD_OK;
}

/* ---- The whole ---- */

int hd_recipe_micro(int batch, int seq, bool dense)
{
    int n = (dense ? DENSE_ROWS : MICRO_ROWS) / seq;
    if (n < 1) n = 1;
    if (n > batch) n = batch;
    while (batch % n) n--;
    return n;
}

static void name_of(char *name, size_t size, const char *path)
{
    const char *slash = strrchr(path, '/');
    snprintf(name, size, "%s", slash ? slash + 1 : path);
    char *dot = strrchr(name, '.');
    if (dot && dot > name) *dot = 0;
}

/* What the model's keys leave to the rest of the recipe. */
static hd_status finish_model(hd_recipe *r, const char *path, hd_err *err)
{
    hd_config c;
    bool ok = true;
    if (r->init[0] && r->config)
        return hd_fail(err, HD_USAGE, "%s: [model]: init, or the keys of a new model: not both", path);
    if (!r->init[0] && !r->config)
        return hd_fail(err, HD_USAGE, "%s: [model]: says neither init nor the keys of a new model", path);
    if (!r->config) return HD_OK;
    if (!json_object_get(r->config, "max_position_embeddings"))
        ok = json_object_set_new(r->config, "max_position_embeddings", json_integer(r->seq)) == 0;
    if (!json_object_get(r->config, "vocab_size") && !r->tokenizer[0])
        ok = ok && json_object_set_new(r->config, "vocab_size", json_integer(r->vocab)) == 0;
    if (!ok) return hd_fail(err, HD_NOMEM, "%s: no memory", path);
    const json_t *vocab = json_object_get(r->config, "vocab_size");
    if (!vocab) return HD_OK; // the tokenizer's, when it is read: nothing can be checked before
    if (!r->tokenizer[0] && json_integer_value(vocab) < r->vocab)
        return hd_fail(err, HD_USAGE, "%s: model.vocab_size: %lld ids are fewer than tokenizer.vocab, %lld", path,
                       (long long)json_integer_value(vocab), (long long)r->vocab);
    hd_status st = hd_config_from_json(&c, r->config, NULL, path, err);
    if (st == HD_OK && c.max_pos < r->seq)
        st = hd_fail(err, HD_USAGE, "%s: data.seq: %d positions are more than the model's %lld", path, r->seq, (long long)c.max_pos);
    return st;
}

static hd_status finish(reading *g, const char *path, hd_err *err)
{
    hd_recipe *r = g->r;
    if (!r->name[0]) name_of(r->name, sizeof r->name, path);
    if (strchr(r->name, '/')) return hd_fail(err, HD_USAGE, "%s: run.name: '%s': a name, not a path", path, r->name);
    if (!r->out[0]) snprintf(r->out, sizeof r->out, "runs/%s", r->name);
    r->schedule.steps = r->steps;
    for (int i = 0; i < N_ROWS; i++)
        if (g->share[i] >= 0) *(int64_t *)(void *)((char *)r + rows[i].at) = (int64_t)(g->share[i] * (double)r->steps + 0.5);
    if (r->n_sources == 0) return hd_fail(err, HD_USAGE, "%s: [data]: no source", path);
    if (r->kind == HD_RUN_DISTIL && !r->teacher[0] && !r->teacher_cache[0]) return hd_fail(err, HD_USAGE, "%s: [distil]: no teacher", path);
    if (r->lora_rank > 0 && !r->init[0])
        return hd_fail(err, HD_USAGE, "%s: lora.lora_rank: adapts published weights: [model] must name them, init = DIR or GGUF", path);
    if (r->lora_rank > 0 && r->expert_parallel)
        return hd_fail(err, HD_USAGE, "%s: train.expert_parallel: adapters are trained beside all experts: not with lora.lora_rank", path);
    const bool dense = r->config && json_integer_value(json_object_get(r->config, "n_routed_experts")) == 0;
    if (r->micro == 0) r->micro = hd_recipe_micro(r->batch, r->seq, dense);
    if (r->batch % r->micro)
        return hd_fail(err, HD_USAGE, "%s: train.micro: a batch of %d does not divide into parts of %d", path, r->batch, r->micro);
    if ((int64_t)r->micro * r->seq > INT32_MAX / 4)
        return hd_fail(err, HD_USAGE, "%s: train.micro: %d sequences of %d rows are too many", path, r->micro, r->seq);
    return finish_model(r, path, err);
}

hd_status hd_recipe_read(hd_recipe *r, hd_run_kind kind, const char *path, const char *const *settings, int n_settings, hd_err *err)
{
    hd_status st;
    reading g = {.r = r};
    defaults(r, kind);
    for (int i = 0; i < N_ROWS; i++) g.share[i] = -1;
    g.share[find_row("optim", "warmup")] = 0.02;
    g.share[find_row("optim", "decay")] = 0.2;
    if (n_settings > MAX_SETTINGS) return hd_fail(err, HD_USAGE, "-s: more than %d settings", MAX_SETTINGS);
    if (!(g.model_seen = json_object())) return hd_fail(err, HD_NOMEM, "recipe: no memory");
    HD_TRY(hd_alloc_n(&g.set, (size_t)n_settings, sizeof *g.set, err));
    for (; g.n_set < n_settings; g.n_set++) HD_TRY(split(&g.set[g.n_set], settings[g.n_set], err));
    HD_TRY(hd_ini_read(path, take, &g, err));
    for (int i = 0; i < g.n_set; i++) {
        const setting *s = &g.set[i];
        int w = find_row(s->section, s->key);
        if (w >= 0) HD_TRY(put(&g, &rows[w], s->value, s->where, err));
        else HD_TRY(put_model(&g, s->key, s->value, s->where, err));
    }
    HD_TRY(finish(&g, path, err));
fail:
    free(g.set);
    json_decref(g.model_seen);
    if (st != HD_OK) hd_recipe_free(r);
    return st;
}

void hd_recipe_free(hd_recipe *r)
{
    json_decref(r->config);
    r->config = NULL;
}

const char *hd_recipe_divider(const hd_recipe *r)
{
    if (!r->divider[0] || strcmp(r->divider, "none") == 0) return NULL;
    if (strcmp(r->divider, "blank") == 0) return "";
    return strcmp(r->divider, "line") == 0 ? "\n" : r->divider;
}

/* ---- Writing ---- */

/* The shortest text that reads back to the same number. */
static void shortest(char out[40], double v, bool f32)
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(out, 40, "%.*g", digits, v);
        double back = strtod(out, NULL);
        if (f32 ? (float)back == (float)v : back == v) return;
    }
}

static void paths_dollar(char *out, size_t size, const char *path)
{
    size_t n = 0;
    for (; *path && n + 2 < size; path++) {
        if (*path == '$') out[n++] = '$';
        out[n++] = *path;
    }
    out[n] = 0;
}

static hd_status write_text(hd_buf *out, const char *key, const char *text, hd_err *err)
{
    char quoted[4096];
    if (!hd_ini_quote(quoted, sizeof quoted, text)) return hd_fail(err, HD_LIMIT, "recipe: %s: too long", key);
    return hd_buf_addf(out, err, "%s = %s\n", key, quoted);
}

static hd_status write_sources(hd_buf *out, const hd_recipe *r, hd_err *err)
{
    hd_status st = HD_OK;
    char path[2060], weight[40], line[2200];
    for (int i = 0; i < r->n_sources; i++) {
        paths_dollar(path, sizeof path, r->source[i].path);
        shortest(weight, r->source[i].weight, false);
        snprintf(line, sizeof line, "%s @ %s", path, weight);
        HD_TRY(write_text(out, "source", line, err));
    }
fail:
    return st;
}

static hd_status write_row(hd_buf *out, const hd_recipe *r, const row *w, hd_err *err)
{
    const char *from = (const char *)r + w->at;
    char text[2060];
    switch (w->kind) {
    case SOURCE: return write_sources(out, r, err);
    case TEXT:
        if (!*from) return HD_OK;
        return write_text(out, w->key, from, err);
    case PATH:
        if (!*from) return HD_OK;
        paths_dollar(text, sizeof text, from);
        return write_text(out, w->key, text, err);
    case INT: return hd_buf_addf(out, err, "%s = %d\n", w->key, *(const int *)(const void *)from);
    case INT64:
    case STEPS: return hd_buf_addf(out, err, "%s = %lld\n", w->key, (long long)*(const int64_t *)(const void *)from);
    case FLOAT:
    case DOUBLE:
        if (w->kind == FLOAT) shortest(text, (double)*(const float *)(const void *)from, true);
        else shortest(text, *(const double *)(const void *)from, false);
        return hd_buf_addf(out, err, "%s = %s\n", w->key, text);
    case BOOL: return hd_buf_addf(out, err, "%s = %s\n", w->key, *(const bool *)from ? "yes" : "no");
    case WORD: {
        const char *p = w->words;
        for (int i = *(const int *)(const void *)from; i > 0; i--) p = strchr(p, ' ') + 1;
        return hd_buf_addf(out, err, "%s = %.*s\n", w->key, (int)strcspn(p, " "), p);
    }
    }
    return HD_OK;
}

/* A value of config.json as hd_config_set reads it. */
static hd_status write_value(hd_buf *out, const char *prefix, const char *key, const json_t *v, hd_err *err)
{
    hd_status st;
    char text[40];
    size_t i;
    const json_t *one;
    HD_TRY(hd_buf_addf(out, err, "%s%s = ", prefix, key));
    if (json_is_array(v)) {
        json_array_foreach(v, i, one)
        {
            if (json_is_string(one)) HD_TRY(hd_buf_adds(out, json_string_value(one), err));
            else HD_TRY(hd_buf_addf(out, err, "%s%lld", i ? "," : "", (long long)json_integer_value(one)));
        }
    } else if (json_is_string(v)) HD_TRY(hd_buf_adds(out, json_string_value(v), err));
    else if (json_is_boolean(v)) HD_TRY(hd_buf_adds(out, json_is_true(v) ? "true" : "false", err));
    else if (json_is_integer(v)) HD_TRY(hd_buf_addf(out, err, "%lld", (long long)json_integer_value(v)));
    else {
        shortest(text, json_real_value(v), false);
        HD_TRY(hd_buf_adds(out, text, err));
    }
    HD_TRY(hd_buf_adds(out, "\n", err));
fail:
    return st;
}

static hd_status write_model(hd_buf *out, const hd_recipe *r, hd_err *err)
{
    hd_status st = HD_OK;
    const char *key, *inner;
    json_t *v, *w;
    json_object_foreach(r->config, key, v)
    {
        if (!json_is_object(v)) HD_TRY(write_value(out, "", key, v, err));
        else json_object_foreach(v, inner, w) HD_TRY(write_value(out, "rope_scaling.", inner, w, err));
    }
fail:
    return st;
}

hd_status hd_recipe_write(const hd_recipe *r, hd_buf *out, hd_err *err)
{
    hd_status st = HD_OK;
    const char *section = "";
    for (int i = 0; i < N_ROWS; i++) {
        if (strcmp(section, rows[i].section) != 0) {
            section = rows[i].section;
            HD_TRY(hd_buf_addf(out, err, "%s[%s]\n", i ? "\n" : "", section));
            if (is_model(section)) HD_TRY(write_model(out, r, err));
        }
        HD_TRY(write_row(out, r, &rows[i], err));
    }
fail:
    return st;
}
