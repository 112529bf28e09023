/* Opening a model for a command. */
#include "cli/load.h"
#include "cli/hub.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

volatile sig_atomic_t hd_interrupted; // the one thing that a signal handler can reach

static void on_signal(int sig)
{
    if (hd_interrupted) _exit(128 + sig); // asked twice: whoever should have stopped does not
    hd_interrupted = sig;
}

void hd_watch_signals(void)
{
    struct sigaction a = {.sa_handler = on_signal};
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

volatile sig_atomic_t hd_hung_up;

static void on_hangup(int sig) { hd_hung_up = sig; }

void hd_watch_hangup(void)
{
    struct sigaction a = {.sa_handler = on_hangup, .sa_flags = SA_RESTART};
    sigemptyset(&a.sa_mask);
    sigaction(SIGHUP, &a, NULL);
}

/* "ID=NUMBER" */
static hd_status parse_bias(hd_bias *b, const char *text, hd_err *err)
{
    char *end, *end2;
    long id = strtol(text, &end, 10);
    double v = end != text && *end == '=' ? strtod(end + 1, &end2) : NAN;
    if (isnan(v) || end2 == end + 1 || *end2 || id < 0 || id > INT32_MAX)
        return hd_fail(err, HD_USAGE, "option --logit-bias: '%.40s': needs ID=NUMBER", text);
    *b = (hd_bias){(int32_t)id, (float)v};
    return HD_OK;
}

hd_status hd_load_sampler(hd_loaded *l, const hd_load_opts *o, hd_err *err)
{
    hd_status st;
    hd_sample_opts s;
    hd_bias bias[HD_OPT_LIST_MAX];
    hd_engine_sampling(l->engine, &s);
    if (o->temp >= 0) s.temperature = (float)o->temp;
    if (o->top_k >= 0) s.top_k = o->top_k > INT32_MAX ? INT32_MAX : (int)o->top_k;
    if (o->top_p >= 0) s.top_p = (float)o->top_p;
    if (o->min_p >= 0) s.min_p = (float)o->min_p;
    if (o->repeat_penalty >= 0) s.repetition_penalty = (float)o->repeat_penalty;
    if (o->presence_penalty > -1000) s.presence_penalty = (float)o->presence_penalty;
    if (o->frequency_penalty > -1000) s.frequency_penalty = (float)o->frequency_penalty;
    if (o->seed >= 0) s.seed = (uint64_t)o->seed;
    for (int i = 0; i < o->bias.n; i++) HD_TRY(parse_bias(&bias[i], o->bias.v[i], err));
    s.bias = bias;
    s.n_bias = o->bias.n;
    hd_sampler_close(l->sampler);
    l->sampler = NULL;
    HD_TRY(hd_sampler_open(&l->sampler, &s, hd_engine_n_vocab(l->engine), err));
fail:
    return st;
}

hd_draft_kind hd_load_draft_kind(const hd_load_opts *o)
{
    const char *draft = o->draft;
    if (!draft || strcmp(draft, "none") == 0) return HD_DRAFT_NONE;
    if (strcmp(draft, "lookup") == 0) return HD_DRAFT_LOOKUP;
    return strcmp(draft, "mtp") == 0 ? HD_DRAFT_MTP : HD_DRAFT_MODEL;
}

hd_status hd_load_small(hd_engine **out, const hd_load_opts *o, const hd_engine_opts *eo, hd_err *err)
{
    hd_engine_opts so = *eo;
    so.chat_format = NULL;
    so.ctx_tok = 0;
    *out = NULL;
    return hd_load_draft_kind(o) == HD_DRAFT_MODEL ? hd_hub_open_engine(out, o->draft, &so, err) : HD_OK;
}

hd_status hd_load_session(hd_loaded *l, const hd_load_opts *o, hd_session **out, hd_err *err)
{
    hd_draft_kind kind = hd_load_draft_kind(o);
    hd_status st = hd_session_open(out, l->engine, err);
    if (st != HD_OK || kind == HD_DRAFT_NONE) return st;
    st = hd_session_draft(*out, kind, l->small, (int)o->draft_max, err);
    if (st != HD_OK) {
        hd_session_close(*out);
        *out = NULL;
    }
    return st;
}

hd_status hd_load(hd_loaded *l, const char *model, const hd_load_opts *o, hd_err *err)
{
    hd_status st;
    hd_engine_opts eo = {.n_threads = (int)o->threads,
                         .exact = o->exact,
                         .no_pack = o->no_pack,
                         .cache_type = o->cache_type,
                         .ctx_tok = o->ctx,
                         .n_sessions = (int)o->n_sessions,
                         .chat_format = o->chat_format,
                         .progress = true};
    *l = (hd_loaded){0};
    HD_TRY(hd_load_small(&l->small, o, &eo, err)); // first, so that the context's plan sees what it leaves
    HD_TRY(hd_hub_open_engine(&l->engine, model, &eo, err));
    HD_TRY(hd_load_sampler(l, o, err));
    HD_TRY(hd_load_session(l, o, &l->session, err));
fail:
    return st;
}

void hd_loaded_close(hd_loaded *l)
{
    hd_session_close(l->session);
    hd_sampler_close(l->sampler);
    hd_engine_close(l->engine);
    hd_engine_close(l->small);
    *l = (hd_loaded){0};
}
