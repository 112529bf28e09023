/* What commands that run a model have in common: its options, opening it, and Ctrl-C. */
#ifndef HD_CLI_LOAD_H
#define HD_CLI_LOAD_H

#include "cli/opts.h"

typedef struct {
    /* the model */
    int64_t threads, ctx, n_sessions;
    const char *cache_type, *chat_format, *draft; // draft: "lookup", "mtp" or a smaller model
    int64_t draft_max;
    bool exact, no_pack;
    /* sampling; what was not given (negative) comes from the model's own files */
    double temp, top_p, min_p, repeat_penalty, presence_penalty, frequency_penalty;
    int64_t top_k, seed;
    hd_opt_list bias; // "ID=NUMBER"
} hd_load_opts;

#define HD_LOAD_DEFAULTS                                                                                     \
    (hd_load_opts)                                                                                           \
    {                                                                                                        \
        .temp = -1, .top_p = -1, .min_p = -1, .repeat_penalty = -1, .presence_penalty = -1000,               \
        .frequency_penalty = -1000, .top_k = -1, .seed = -1                                                  \
    }

/* Rows for a command's table; `o` is a hd_load_opts. */
#define HD_MODEL_OPTS(o)                                                                                     \
    {"threads", 't', HD_OPT_INT, &(o).threads, 1, 1024}, {"ctx", 'c', HD_OPT_INT, &(o).ctx, 1, 1 << 30},     \
        {"cache-type", 0, HD_OPT_STR, &(o).cache_type, 0, 0}, {"exact", 0, HD_OPT_FLAG, &(o).exact, 0, 0},   \
    {                                                                                                        \
        "no-pack", 0, HD_OPT_FLAG, &(o).no_pack, 0, 0                                                        \
    }
#define HD_DRAFT_OPTS(o)                                                                                     \
    {"draft", 0, HD_OPT_STR, &(o).draft, 0, 0}, { "draft-max", 0, HD_OPT_INT, &(o).draft_max, 1, 16 }
#define HD_SAMPLE_OPTS(o)                                                                                    \
    {"temp", 0, HD_OPT_FLOAT, &(o).temp, 0, 100}, {"top-k", 0, HD_OPT_INT, &(o).top_k, 0, 1 << 30},          \
        {"top-p", 0, HD_OPT_FLOAT, &(o).top_p, 0, 1}, {"min-p", 0, HD_OPT_FLOAT, &(o).min_p, 0, 1},          \
        {"repeat-penalty", 0, HD_OPT_FLOAT, &(o).repeat_penalty, 0, 100},                                    \
        {"presence-penalty", 0, HD_OPT_FLOAT, &(o).presence_penalty, -100, 100},                             \
        {"frequency-penalty", 0, HD_OPT_FLOAT, &(o).frequency_penalty, -100, 100},                           \
        {"seed", 's', HD_OPT_INT, &(o).seed, 0, 9e18},                                                       \
    {                                                                                                        \
        "logit-bias", 0, HD_OPT_LIST, &(o).bias, 0, 0                                                        \
    }

#define HD_MODEL_HELP                                                                                        \
    "  -t, --threads N          default: physical cores available\n"                                         \
    "  -c, --ctx N              context in ids; default: the model's, as far as memory allows\n"             \
    "      --cache-type TYPE    bf16, f16, q8_0 or f32; default: f16, latents bf16\n"                                          \
    "      --exact              f32 throughout: slow, for comparing\n"                                       \
    "      --no-pack            keep the file's own pages: less memory, slower, the same bits\n"
#define HD_DRAFT_HELP                                                                                        \
    "      --draft WHAT         guess ahead, text unchanged: lookup (repeated words), mtp (the model's\n"    \
    "                           own layer) or a smaller MODEL\n"                                             \
    "      --draft-max N        guesses a pass\n"
#define HD_SAMPLE_HELP                                                                                       \
    "      --temp T             0: always the likeliest; default: the model's own, else 0.6\n"               \
    "      --top-k K  --top-p P  --min-p P  --repeat-penalty R  --presence-penalty R  --frequency-penalty "  \
    "R\n"                                                                                                    \
    "  -s, --seed N             the same seed gives the same text\n"                                         \
    "      --logit-bias ID=N    added to an id's logit (may be repeated); -inf forbids it\n"

typedef struct {
    hd_engine *engine, *small; // small: of --draft, or NULL
    hd_session *session;       // with drafting set up
    hd_sampler *sampler;
} hd_loaded;

/* Open everything; close with hd_loaded_close, also after a failure. */
hd_status hd_load(hd_loaded *l, const char *model, const hd_load_opts *o, hd_err *err);
void hd_loaded_close(hd_loaded *l);
/* The sampler again, with other options. */
hd_status hd_load_sampler(hd_loaded *l, const hd_load_opts *o, hd_err *err);
hd_draft_kind hd_load_draft_kind(const hd_load_opts *o);
/* The smaller model of --draft in an engine like the other; *out NULL: none was asked for. */
hd_status hd_load_small(hd_engine **out, const hd_load_opts *o, const hd_engine_opts *eo, hd_err *err);
/* A fresh session with the drafting that was asked for. */
hd_status hd_load_session(hd_loaded *l, const hd_load_opts *o, hd_session **out, hd_err *err);

/* The signal's number after Ctrl-C (or SIGTERM) once hd_watch_signals was called; a second one while it is
 * set ends the program. */
extern volatile sig_atomic_t hd_interrupted;
void hd_watch_signals(void);
/* Set by SIGHUP once hd_watch_hangup was called; who has seen it sets it to zero. */
extern volatile sig_atomic_t hd_hung_up;
void hd_watch_hangup(void);

#endif
