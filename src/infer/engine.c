/* An engine: opens everything that a model's files hold, and decides how long a context memory allows. */
#include "infer/engine.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/avail.h"

const char *hd_version(void) { return HADAL_VERSION; }

/* ---- Opening ---- */

/* A session's positions.  The default leaves a tenth of what is free for everything else. */
static hd_status choose_context(hd_engine *e, int64_t wish, int n_sessions, hd_err *err)
{
    const hd_config *c = hd_model_config(e->model);
    uint64_t tok_bytes = hd_cache_tok_bytes(c, e->cache_type) * (uint64_t)n_sessions;
    uint64_t room = hd_mem_available() / 10 * 9 / (tok_bytes ? tok_bytes : 1);
    int64_t fits = room > INT32_MAX / 2 ? INT32_MAX / 2 : (int64_t)room;
    if (wish < 0)
        return hd_fail(err, HD_USAGE, "context: %lld positions: must be 1 or more", (long long)wish);
    if (wish > 0) {
        if (wish > c->max_pos)
            return hd_fail(err, HD_USAGE, "context: %lld positions: the model was made for at most %lld",
                           (long long)wish, (long long)c->max_pos);
        if (wish > INT32_MAX / 2 / n_sessions)
            return hd_fail(err, HD_USAGE, "context: %lld positions for %d sessions: too many",
                           (long long)wish, n_sessions);
        if (wish > fits)
            return hd_fail(err, HD_LIMIT,
                           "context: %lld positions need %.1f GB, room for %lld is left: ask for fewer, or "
                           "for a q8_0 cache",
                           (long long)wish, (double)tok_bytes * (double)wish / 1e9, (long long)fits);
        e->ctx_tok = wish;
        return HD_OK;
    }
    e->ctx_tok = c->max_pos < fits ? c->max_pos : fits;
    if (e->ctx_tok > INT32_MAX / 2 / n_sessions) e->ctx_tok = INT32_MAX / 2 / n_sessions;
    if (e->ctx_tok < 1) return hd_fail(err, HD_LIMIT, "context: no memory is left for a single position");
    return HD_OK;
}

/* Pages for every session, each rounded up.  The extra layers' positions are pages of their own,
 * since they begin and end elsewhere than the main layers': who drafts has both, and nobody's context
 * gets shorter by it. */
static hd_status open_caches(hd_engine *e, int n_sessions, hd_err *err)
{
    hd_status st;
    const hd_config *c = hd_model_config(e->model);
    int64_t n = (e->ctx_tok + HD_PAGE_TOK - 1) / HD_PAGE_TOK * HD_PAGE_TOK * n_sessions;
    HD_TRY(hd_cache_open_layers(&e->cache, c, e->cache_type, 0, c->n_layers, n, err));
    if (c->n_mtp > 0) HD_TRY(hd_cache_open_layers(&e->mtp_cache, c, e->cache_type, c->n_layers, c->n_mtp, n, err));
fail:
    return st;
}

static void add_stop(hd_engine *e, int32_t id)
{
    if (id < 0 || hd_engine_is_stop(e, id) || e->n_stop == HD_MAX_STOP_IDS) return;
    e->stop[e->n_stop++] = id;
}

static hd_status open_text(hd_engine *e, const char *chat_format, hd_err *err)
{
    const hd_config *c = hd_model_config(e->model);
    int32_t more[8];
    for (int i = 0; i < c->n_eos; i++) add_stop(e, c->eos[i]);
    if (hd_tokenizer_open(&e->tok, e->src, &e->tok_err) != HD_OK) {
        e->tok = NULL;
        e->chat_err = e->tok_err;
        return chat_format ? hd_fail(err, e->tok_err.code, "%s", e->tok_err.msg) : HD_OK;
    }
    if (hd_tokenizer_n_vocab(e->tok) > e->n_vocab)
        return hd_fail(err, HD_FORMAT, "model: %.200s: the tokenizer has %lld ids, the model %lld",
                       hd_source_path(e->src), (long long)hd_tokenizer_n_vocab(e->tok),
                       (long long)e->n_vocab);
    if (hd_chat_pick(&e->chat, e->src, e->tok, chat_format, &e->chat_err) != HD_OK) {
        e->chat = NULL;
        return chat_format ? hd_fail(err, e->chat_err.code, "%s", e->chat_err.msg) : HD_OK;
    }
    int n = hd_chat_stops(e->chat, e->tok, more);
    for (int i = 0; i < n; i++) add_stop(e, more[i]);
    return HD_OK;
}

hd_status hd_engine_open(hd_engine **out, const char *path, const hd_engine_opts *o, hd_err *err)
{
    hd_status st;
    hd_engine *e = NULL;
    hd_engine_opts none = {0};
    if (!o) o = &none;
    enum { MAX_SESSIONS = 1 << 16 };
    int n_sessions = o->n_sessions > 0 ? o->n_sessions : 1;
    hd_model_opts mo = {
        .n_threads = o->n_threads, .exact = o->exact, .pack = o->no_pack ? 0 : -1, .quiet = !o->progress};
    *out = NULL;
    if (o->n_sessions < 0 || n_sessions > MAX_SESSIONS)
        return hd_fail(err, HD_USAGE, "engine: %d sessions: must be 0 to %d", o->n_sessions, MAX_SESSIONS);
    HD_TRY(hd_alloc(&e, sizeof *e, err));
    if (o->cache_type || o->exact)
        HD_TRY(hd_cache_type_named(&e->cache_type, o->cache_type ? o->cache_type : "f32", err));
    HD_TRY(hd_source_open(&e->src, path, true, err));
    HD_TRY(hd_model_open(&e->model, e->src, &mo, err));
    e->n_vocab = hd_model_config(e->model)->n_vocab;
    if (!o->cache_type && !o->exact) e->cache_type = hd_cache_default(hd_model_config(e->model));
    HD_TRY(open_text(e, o->chat_format, err));
    if (!o->no_pack) hd_source_release_all(e->src); // the vocabulary was copied
    HD_TRY(choose_context(e, o->ctx_tok, n_sessions, err));
    HD_TRY(open_caches(e, n_sessions, err));
    *out = e;
    return HD_OK;
fail:
    hd_engine_close(e);
    return st;
}

void hd_engine_close(hd_engine *e)
{
    if (!e) return;
    hd_cache_close(e->cache);
    hd_cache_close(e->mtp_cache);
    hd_tokenizer_close(e->tok);
    hd_model_close(e->model);
    hd_source_close(e->src);
    free(e->hidden.row);
    free(e);
}

hd_status hd_engine_buffer(hd_rows_buffer *b, int64_t n, int64_t width, float **rows, hd_err *err)
{
    size_t bytes;
    if (!hd_mul(&bytes, (size_t)n * sizeof(float), (size_t)width))
        return hd_fail(err, HD_NOMEM, "engine: %lld rows of %lld: size wraps", (long long)n,
                       (long long)width);
    if (bytes > b->bytes) {
        hd_status st = hd_realloc(&b->row, bytes, err);
        if (st != HD_OK) return st;
        b->bytes = bytes;
    }
    *rows = b->row;
    return HD_OK;
}

/* ---- Questions ---- */

const hd_tokenizer *hd_engine_tokenizer(const hd_engine *e, hd_err *err)
{
    if (!e->tok) hd_fail(err, e->tok_err.code, "%s", e->tok_err.msg);
    return e->tok;
}

int64_t hd_engine_ctx_tok(const hd_engine *e) { return e->ctx_tok; }
int64_t hd_engine_n_vocab(const hd_engine *e) { return e->n_vocab; }
const char *hd_engine_chat_name(const hd_engine *e) { return e->chat ? hd_chat_name(e->chat) : NULL; }

bool hd_engine_is_stop(const hd_engine *e, int32_t id)
{
    for (int i = 0; i < e->n_stop; i++)
        if (e->stop[i] == id) return true;
    return false;
}

static bool role_named(hd_role *out, const char *name)
{
    static const char *const names[] = {"system", "user", "assistant", "tool"};
    for (int i = 0; i < 4; i++)
        if (name && strcmp(name, names[i]) == 0) {
            *out = (hd_role)i;
            return true;
        }
    return false;
}

hd_status hd_engine_render(const hd_engine *e, const hd_message *msg, int n_msg, int thinking, hd_ids *out,
                           hd_err *err)
{
    hd_status st;
    hd_msg *m = NULL;
    hd_chat_opts o = {.add_generation_prompt = true, .thinking = thinking};
    if (!e->chat) return hd_fail(err, HD_UNSUPPORTED, "%s", e->chat_err.msg);
    HD_TRY(hd_alloc_n(&m, (size_t)n_msg, sizeof *m, err));
    for (int i = 0; i < n_msg; i++) {
        const hd_message *from = &msg[i];
        if (!role_named(&m[i].role, from->role))
            HD_TRY(hd_fail(err, HD_USAGE,
                           "message %d: role '%.20s': system, user, assistant and tool are known", i,
                           from->role ? from->role : "(none)"));
        m[i].text = from->text ? from->text : "";
        m[i].n = strlen(m[i].text);
        m[i].thinking = from->thinking;
        m[i].n_thinking = from->thinking ? strlen(from->thinking) : 0;
        m[i].call = from->call;
        m[i].n_call = from->n_call;
    }
    HD_TRY(hd_chat_render(e->chat, e->tok, m, n_msg, &o, out, err));
fail:
    free(m);
    return st;
}

/* ---- Sampling as the model wants it ---- */

static uint64_t system_seed(void)
{
    uint64_t s;
    if (getrandom(&s, sizeof s, GRND_NONBLOCK) == (ssize_t)sizeof s) return s;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000007u ^ (uint64_t)t.tv_nsec;
}

/* What the makers of a family recommend, by the beginning of its chat format's name; the
 * first row that fits. */
static const struct {
    const char *format;
    float temperature, top_p;
    int top_k;
} families[] = {
    {"deepseek-r1", 0.6f, 0.95f, 0}, {"deepseek-v3.1", 0.6f, 0.95f, 0},
    {"deepseek", 0.3f, 0.95f, 0},    {"qwen3", 0.6f, 0.95f, 20},
    {"qwen", 0.7f, 0.8f, 20},        {"llama", 0.6f, 0.9f, 0},
    {"smollm", 0.6f, 0.95f, 0},      {"", 0.7f, 0.95f, 0},
};

void hd_engine_sampling(const hd_engine *e, hd_sample_opts *o)
{
    const hd_config *c = hd_model_config(e->model);
    const char *format = e->chat ? hd_chat_name(e->chat) : "";
    int i = 0;
    while (strncmp(format, families[i].format, strlen(families[i].format)) != 0) i++;
    *o = (hd_sample_opts){.temperature = families[i].temperature,
                          .top_p = families[i].top_p,
                          .top_k = families[i].top_k,
                          .repetition_penalty = 1,
                          .seed = system_seed()};
    if (c->sampling.temperature >= 0) o->temperature = c->sampling.temperature;
    if (c->sampling.top_p >= 0) o->top_p = c->sampling.top_p;
    if (c->sampling.top_k >= 0) o->top_k = c->sampling.top_k;
    if (c->sampling.min_p >= 0) o->min_p = c->sampling.min_p;
    if (c->sampling.repetition_penalty > 0) o->repetition_penalty = c->sampling.repetition_penalty;
}

/* ---- Text of ids, for users of the library ---- */

hd_status hd_tokenizer_text(const hd_tokenizer *t, const int32_t *id, int64_t n, bool special, char **text,
                            size_t *n_bytes, hd_err *err)
{
    hd_buf b;
    hd_buf_init(&b, (size_t)1 << 32);
    hd_status st = hd_tokenizer_decode(t, id, n, special, &b, err);
    if (st == HD_OK && !b.data) st = hd_buf_add(&b, "", 0, err);
    if (st == HD_OK && !b.data) st = hd_strdup(&b.data, "", err);
    if (st != HD_OK) {
        hd_buf_free(&b);
        return st;
    }
    *text = b.data; // the buffer's memory goes to the caller
    if (n_bytes) *n_bytes = b.len;
    return HD_OK;
}
