/* In order: the tokenizer (the recipe's, the starting model's, or one learnt from the data), the shards
 * (packed with it, unless a source is packed already), the first weights (published ones, or random). */
#include "train/prepare.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>

#include "base/folder.h"
#include "base/log.h"
#include "model/tokenizer.h"
#include "train/bpe_train.h"
#include "train/checkpoint.h"
#include "train/pack.h"

/* ---- Files of a source --------------------------------------------------------------------------------- */

static bool is_packed(const char *path)
{
    char file[1200];
    snprintf(file, sizeof file, "%s/pack.json", path);
    return hd_is_file(file);
}

static hd_status expand(glob_t *g, const char *pattern, bool more, hd_err *err)
{
    int e = glob(pattern, more ? GLOB_APPEND : 0, NULL, g);
    if (e == 0) return HD_OK;
    if (e == GLOB_NOSPACE) return hd_fail(err, HD_NOMEM, "data: %s: no memory for its files", pattern);
    return hd_fail(err, HD_IO, "data: %s: no such file: set HADAL_DATA to a folder of corpora, or fetch one with `hadal data get`", pattern);
}

/* ---- Tokenizer ----------------------------------------------------------------------------------------- */

static hd_status learn_tokenizer(hd_prepared *p, const hd_recipe *r, const volatile sig_atomic_t *stop, hd_err *err)
{
    hd_status st = HD_OK;
    glob_t g = {0};
    char file[1200];
    bool any = false;
    hd_bpe_report report;
    snprintf(file, sizeof file, "%s/tokenizer.json", p->tokenizer);
    if (hd_is_file(file)) return HD_OK;
    for (int i = 0; i < r->n_sources; i++) {
        if (is_packed(r->source[i].path)) continue;
        HD_TRY(expand(&g, r->source[i].path, any, err));
        any = true;
    }
    if (!any) {
        st = hd_fail(err, HD_USAGE, "recipe: all its data is packed: [tokenizer] path must name the tokenizer that packed it");
        goto fail;
    }
    hd_text_opts text = {.field = r->field[0] ? r->field : NULL, .divider = hd_recipe_divider(r)};
    hd_bpe_opts o = {.n_vocab = r->vocab, .digits = true, .chat_format = r->chat_format[0] ? r->chat_format : NULL, .text = &text,
                     .n_threads = r->n_threads, .progress = true, .stop = stop};
    HD_TRY(hd_bpe_train(p->tokenizer, (const char *const *)g.gl_pathv, (int)g.gl_pathc, &o, &report, err));
fail:
    if (any) globfree(&g);
    return st;
}

static hd_status find_tokenizer(hd_prepared *p, const hd_recipe *r, const volatile sig_atomic_t *stop, hd_err *err)
{
    if (r->tokenizer[0]) snprintf(p->tokenizer, sizeof p->tokenizer, "%s", r->tokenizer);
    else if (r->init[0]) snprintf(p->tokenizer, sizeof p->tokenizer, "%s", r->init);
    else {
        snprintf(p->tokenizer, sizeof p->tokenizer, "%s/tokenizer", r->out);
        return learn_tokenizer(p, r, stop, err);
    }
    return HD_OK;
}

/* ---- Shards -------------------------------------------------------------------------------------------- */

static hd_status pack(const hd_recipe *r, const char *dir, const char *from, double val_share, const hd_source *tokenizer,
                      const volatile sig_atomic_t *stop, hd_err *err)
{
    hd_status st;
    glob_t g = {0};
    hd_pack_report report;
    if (is_packed(dir)) return HD_OK;
    HD_TRY(expand(&g, from, false, err));
    hd_pack_opts o = {.field = r->field[0] ? r->field : NULL, .divider = hd_recipe_divider(r),
                      .chat = r->kind == HD_RUN_SFT, .chat_format = r->chat_format[0] ? r->chat_format : NULL,
                      .val_share = val_share, .n_threads = r->n_threads, .progress = true, .stop = stop};
    st = hd_pack(dir, tokenizer, (const char *const *)g.gl_pathv, (int)g.gl_pathc, &o, &report, NULL, err);
    globfree(&g);
fail:
    return st;
}

/* A recipe without validation data sets a share of its first source aside; a source that was packed
 * so brings its own. */
static const double VAL_SHARE = 0.05;

/* Where source i lies packed. */
static void place(hd_prepared *p, const hd_recipe *r, int i, const char *from, const char *name)
{
    if (is_packed(from)) snprintf(p->path[i], sizeof p->path[i], "%s", from);
    else snprintf(p->path[i], sizeof p->path[i], "%s/data/%s", r->out, name);
}

static void name_sources(hd_prepared *p, const hd_recipe *r)
{
    char name[16];
    for (int i = 0; i < r->n_sources; i++) {
        snprintf(name, sizeof name, "%d", i);
        place(p, r, i, r->source[i].path, name);
        p->source[i] = (hd_data_source){p->path[i], r->source[i].weight};
    }
    p->n_sources = r->n_sources;
    if (r->val[0]) place(p, r, HD_RECIPE_SOURCES, r->val, "val");
}

/* Validation data, now that all is packed: the recipe's, or what was set aside. */
static void name_val(hd_prepared *p, const hd_recipe *r)
{
    char *val = p->path[HD_RECIPE_SOURCES];
    if (!r->val[0]) snprintf(val, sizeof p->path[0], "%.1090s/val", p->path[0]);
    if (is_packed(val)) p->val = (hd_data_source){val, 1};
}

static hd_status make_shards(hd_prepared *p, const hd_recipe *r, const volatile sig_atomic_t *stop, hd_err *err)
{
    hd_status st;
    hd_source *tokenizer = NULL;
    hd_tokenizer *t = NULL;
    HD_TRY(hd_source_open(&tokenizer, p->tokenizer, false, err));
    HD_TRY(hd_tokenizer_open(&t, tokenizer, err));
    for (int i = 0; i < r->n_sources; i++)
        if (!is_packed(r->source[i].path))
            HD_TRY(pack(r, p->path[i], r->source[i].path, i == 0 && !r->val[0] ? VAL_SHARE : 0, tokenizer, stop, err));
    if (r->val[0] && !is_packed(r->val)) HD_TRY(pack(r, p->path[HD_RECIPE_SOURCES], r->val, 0, tokenizer, stop, err));
    for (int i = 0; i < r->n_sources; i++) HD_TRY(hd_pack_check(p->path[i], t, p->tokenizer, err));
    if (r->val[0]) HD_TRY(hd_pack_check(p->path[HD_RECIPE_SOURCES], t, p->tokenizer, err));
fail:
    hd_tokenizer_close(t);
    hd_source_close(tokenizer);
    return st;
}

/* ---- First weights ------------------------------------------------------------------------------------- */

/* The recipe's configuration; where it does not say how many ids there are, the tokenizer does.
 * *c: the caller's. */
static hd_status config_for(json_t **c, const hd_prepared *p, const hd_recipe *r, hd_err *err)
{
    hd_status st = HD_OK;
    hd_source *s = NULL;
    hd_tokenizer *t = NULL;
    *c = json_deep_copy(r->config);
    if (!*c) return hd_fail(err, HD_NOMEM, "recipe: %s: no memory", r->name);
    if (json_object_get(*c, "vocab_size")) return HD_OK;
    HD_TRY(hd_source_open(&s, p->tokenizer, false, err));
    HD_TRY(hd_tokenizer_open(&t, s, err));
    if (json_object_set_new(*c, "vocab_size", json_integer(hd_tokenizer_n_vocab(t))) != 0)
        st = hd_fail(err, HD_NOMEM, "recipe: %s: no memory", r->name);
fail:
    hd_tokenizer_close(t);
    hd_source_close(s);
    return st;
}

static hd_status make_weights(const hd_prepared *p, const hd_recipe *r, hd_err *err)
{
    char file[1200];
    json_t *config = NULL;
    if (r->init[0]) return HD_OK;
    snprintf(file, sizeof file, "%s/config.json", p->init);
    if (hd_is_file(file)) return HD_OK;
    hd_status st = config_for(&config, p, r, err);
    if (st == HD_OK) st = hd_model_init(p->init, config, r->seed, p->tokenizer, err);
    json_decref(config);
    return st;
}

static hd_status make_all(hd_prepared *p, const hd_recipe *r, const volatile sig_atomic_t *stop, hd_err *err)
{
    hd_status st;
    HD_TRY(hd_folder_make(r->out, err));
    HD_TRY(find_tokenizer(p, r, stop, err));
    HD_TRY(make_shards(p, r, stop, err));
    HD_TRY(make_weights(p, r, err));
fail:
    return st;
}

hd_status hd_prepare(hd_prepared *p, const hd_recipe *r, hd_comm *comm, const volatile sig_atomic_t *stop, hd_err *err)
{
    hd_status st;
    if (r->n_sources == 0) return hd_fail(err, HD_USAGE, "recipe: %s: [data] names no source", r->name);
    if (r->init[0]) snprintf(p->init, sizeof p->init, "%s", r->init);
    else snprintf(p->init, sizeof p->init, "%s/init", r->out);
    name_sources(p, r);
    int64_t stopped = 0; // all ranks leave together
    if (hd_comm_rank(comm) == 0) {
        st = make_all(p, r, stop, err);
        if (st != HD_OK && (st != HD_CANCELLED || hd_comm_size(comm) == 1)) return st;
        stopped = st == HD_CANCELLED;
    } else if (!r->tokenizer[0] && !r->init[0]) snprintf(p->tokenizer, sizeof p->tokenizer, "%s/tokenizer", r->out);
    else snprintf(p->tokenizer, sizeof p->tokenizer, "%s", r->tokenizer[0] ? r->tokenizer : r->init);
    hd_err sum_err;
    if (hd_comm_sum_i64(comm, &stopped, 1, &sum_err) != HD_OK) return hd_fail(err, HD_IO, "%s", sum_err.msg);
    if (stopped) return HD_CANCELLED; // rank 0's err says it
    name_val(p, r);
    return HD_OK;
}
