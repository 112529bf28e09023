/* From a job's events to a reply: what every dialect has in common.
 *
 *   HD_JOB_TEXT --thought--> text hook                   HD_JOB_DONE --> rest of the text --> choice_end
 *               --answer --> tool parser --> text hook               last choice --> end
 *                                       \--> call hooks  HD_JOB_ERROR --> stream_error
 *
 * Of a whole reply the texts are kept until its end; of a stream nothing is kept but what its
 * dialect repeats.  The first failure (memory) stays in `st` and silences the rest, so that
 * dialects read straight. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/utf8.h"
#include "model/json.h"
#include "model/tokenizer.h"
#include "serve/api.h"

static const size_t MAX_OUT = (size_t)1 << 30;

static void note(hd_writer *w, hd_status st)
{
    if (w->st == HD_OK) w->st = st;
}

/* ---- Small parts ---- */

json_t *hd_text_json(const char *s, size_t n) { return json_stringn(s ? s : "", s ? n : 0); }

json_t *hd_time_json(int64_t seconds)
{
    char when[40] = "";
    time_t t = (time_t)seconds;
    struct tm tm;
    if (gmtime_r(&t, &tm)) strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_string(when);
}

json_t *hd_call_object(const hd_call_out *c)
{
    json_t *j = hd_json_load(c->arguments, strlen(c->arguments), 0, NULL);
    if (json_is_object(j)) return j;
    json_decref(j);
    return json_object();
}

json_t *hd_take(json_t **j)
{
    json_t *v = *j;
    *j = NULL;
    return v;
}

void hd_writer_put(hd_writer *w, const char *before, json_t *j, const char *after)
{
    char *text = j && w->st == HD_OK ? json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    if (!text) note(w, hd_fail(&w->err, HD_NOMEM, "reply: no memory"));
    if (w->st == HD_OK) note(w, hd_buf_adds(&w->out, before, &w->err));
    if (w->st == HD_OK) note(w, hd_buf_adds(&w->out, text, &w->err));
    if (w->st == HD_OK) note(w, hd_buf_adds(&w->out, after, &w->err));
    free(text);
    json_decref(j);
}

/* ---- Usage ---- */

json_t *hd_usage_openai(const hd_writer *w)
{
    int64_t out = 0, thinking = 0;
    for (int i = 0; i < w->n_choice; i++) out += w->choice[i].gen_tok, thinking += w->choice[i].thinking_tok;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:{s:I}, s:{s:I}}", "prompt_tokens",
                     (json_int_t)w->prompt_tok, "completion_tokens", (json_int_t)out, "total_tokens",
                     (json_int_t)(w->prompt_tok + out), "prompt_cache_hit_tokens", (json_int_t)w->cached_tok,
                     "prompt_cache_miss_tokens", (json_int_t)(w->prompt_tok - w->cached_tok),
                     "prompt_tokens_details", "cached_tokens", (json_int_t)w->cached_tok,
                     "completion_tokens_details", "reasoning_tokens", (json_int_t)thinking);
}

json_t *hd_timings(const hd_writer *w)
{
    int64_t out = 0;
    for (int i = 0; i < w->n_choice; i++) out += w->choice[i].gen_tok;
    return json_pack("{s:f, s:I, s:I, s:f, s:I, s:f, s:f}", "queue_ms", w->queue_s * 1e3, "prompt_n",
                     (json_int_t)(w->prompt_tok - w->cached_tok), "cache_n", (json_int_t)w->cached_tok,
                     "prompt_ms", w->prefill_s * 1e3, "predicted_n", (json_int_t)out, "predicted_ms",
                     w->gen_s * 1e3, "predicted_per_second", w->gen_s > 0 ? (double)out / w->gen_s : 0.0);
}

/* ---- Log-probabilities ---- */

/* The token's text as JSON can hold it, and its exact bytes. */
static json_t *token_json(const hd_writer *w, int32_t id, float logprob)
{
    hd_buf text;
    size_t n = 0;
    const char *p = w->tok ? hd_tokenizer_bytes(w->tok, id, &n) : NULL;
    json_t *bytes = json_array(), *j = NULL;
    hd_buf_init(&text, 1 << 20);
    if (bytes && (!n || hd_utf8_repair(&text, p, n, NULL) == HD_OK)) {
        for (size_t i = 0; i < n; i++) json_array_append_new(bytes, json_integer((uint8_t)p[i]));
        j = json_pack("{s:o, s:f, s:O}", "token", hd_text_json(text.data, text.len), "logprob",
                      (double)(logprob > -9999 ? logprob : -9999), "bytes", bytes);
    }
    json_decref(bytes);
    hd_buf_free(&text);
    return j;
}

static void add_logprobs(hd_writer *w, json_t **list, const hd_job_event *e)
{
    if (!*list) *list = json_array();
    for (int i = 0; i < e->n_token; i++) {
        const hd_token_info *t = &e->token[i];
        json_t *j = token_json(w, t->id, t->logprob), *top = json_array();
        for (int k = 0; k < t->n_top && k < w->q->n_top; k++)
            json_array_append_new(top, token_json(w, t->top_id[k], t->top_logprob[k]));
        json_object_set_new(j, "top_logprobs", top);
        if (json_array_append_new(*list, j)) note(w, hd_fail(&w->err, HD_NOMEM, "reply: no memory"));
    }
}

/* ---- Text and calls ---- */

static void tell_text(hd_writer *w, int i, bool thinking, const char *s, size_t n)
{
    hd_choice *c = &w->choice[i];
    if (w->st != HD_OK || n == 0) return;
    note(w, hd_buf_add(thinking ? &c->thinking : &c->text, s, n, &w->err));
    if (w->q->stream && w->d->text) w->d->text(w, i, thinking, s, n);
    c->begun = true;
}

static void plain_text(void *arg, const char *s, size_t n)
{
    hd_choice *c = arg;
    tell_text(c->w, c->i, false, s, n);
}

static void make_call_id(char out[40], const char *prefix)
{
    uint8_t random[12];
    int n = snprintf(out, 16, "%s", prefix);
    if (getrandom(random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        memset(random, 0, sizeof random);
        memcpy(random, &t.tv_nsec, sizeof random < sizeof t.tv_nsec ? sizeof random : sizeof t.tv_nsec);
    }
    for (size_t k = 0; k < sizeof random && n < 38; k++)
        n += snprintf(out + n, 40 - (size_t)n, "%02x", random[k]);
}

static hd_call_out *begin_call(hd_choice *c, const char *name)
{
    hd_writer *w = c->w;
    if (w->st == HD_OK) note(w, hd_realloc(&c->call, (size_t)(c->n_call + 1) * sizeof *c->call, &w->err));
    if (w->st != HD_OK) return NULL;
    hd_call_out *out = &c->call[c->n_call];
    *out = (hd_call_out){.name = strdup(name), .arguments = strdup("")};
    make_call_id(out->id, w->d->call_prefix);
    c->n_call++;
    c->calling = true;
    if (!out->name || !out->arguments) {
        note(w, hd_fail(&w->err, HD_NOMEM, "reply: no memory"));
        return NULL;
    }
    if (w->q->stream && w->d->call_begin) w->d->call_begin(w, c->i, out);
    c->begun = true;
    return out;
}

/* In a stream only: more of a call's arguments. */
static void part_of_call(void *arg, const char *name, const char *s, size_t n)
{
    hd_choice *c = arg;
    hd_writer *w = c->w;
    hd_call_out *out = c->calling ? &c->call[c->n_call - 1] : begin_call(c, name);
    if (out && n && w->st == HD_OK && w->d->call_part) w->d->call_part(w, c->i, out, s, n);
}

/* whole: the reason why the text ended says it, too. */
static void found_call(void *arg, const char *name, const char *arguments, size_t n, bool whole)
{
    hd_choice *c = arg;
    hd_writer *w = c->w;
    bool in_parts = c->calling;
    hd_call_out *out = in_parts ? &c->call[c->n_call - 1] : begin_call(c, name);
    c->calling = false;
    if (!out || w->st != HD_OK) return;
    free(out->arguments);
    out->arguments = strndup(arguments, n);
    if (!out->arguments) {
        note(w, hd_fail(&w->err, HD_NOMEM, "reply: no memory"));
        return;
    }
    if (!w->q->stream) return;
    if (!in_parts && n && w->d->call_part) w->d->call_part(w, c->i, out, arguments, n);
    if (w->d->call_end) w->d->call_end(w, c->i, out);
}

static bool has_tools(const hd_chat_request *q) { return q->tools.n > 0 && q->tools.choice != HD_TOOLS_NONE; }

/* ---- The writer ---- */

void hd_writer_open(hd_writer *w, const hd_chat_request *q, const hd_tokenizer *tok, const char *id,
                    int n_choice, int64_t prompt_tok)
{
    memset(w, 0, sizeof *w);
    w->q = q;
    w->d = q->dialect;
    w->tok = tok;
    w->id = id;
    w->created = (int64_t)time(NULL);
    w->n_choice = n_choice;
    w->prompt_tok = prompt_tok;
    hd_buf_init(&w->out, MAX_OUT);
    for (int i = 0; i < n_choice; i++) {
        hd_choice *c = &w->choice[i];
        hd_buf_init(&c->text, MAX_OUT);
        hd_buf_init(&c->thinking, MAX_OUT);
        c->w = w;
        c->i = i;
        c->tools = (hd_tool_parser){.tools = &q->tools, .text = plain_text, .call = found_call, .arg = c};
        if (q->stream && w->d->call_part) c->tools.part = part_of_call;
        hd_tool_parser_open(&c->tools);
    }
}

void hd_writer_close(hd_writer *w)
{
    hd_buf_free(&w->out);
    for (int i = 0; i < w->n_choice; i++) {
        hd_choice *c = &w->choice[i];
        for (int k = 0; k < c->n_call; k++) free(c->call[k].name), free(c->call[k].arguments);
        free(c->call);
        hd_buf_free(&c->text);
        hd_buf_free(&c->thinking);
        json_decref(c->logprobs);
        json_decref(c->logprobs_thinking);
        hd_tool_parser_close(&c->tools);
    }
    w->n_choice = 0;
}

void hd_writer_begin(hd_writer *w)
{
    if (!w->q->stream || !w->d->begin) return;
    hd_json_note();
    w->d->begin(w);
    if (hd_json_refused()) note(w, hd_fail(&w->err, HD_NOMEM, "reply: no memory"));
}

static void take_text(hd_writer *w, int i, const hd_job_event *e)
{
    hd_choice *c = &w->choice[i];
    bool thinking = e->text_kind == HD_TEXT_THINKING;
    if (w->q->logprobs && e->n_token > 0) add_logprobs(w, thinking ? &c->logprobs_thinking : &c->logprobs, e);
    if (thinking || !has_tools(w->q)) {
        tell_text(w, i, thinking, e->text, e->n);
        return;
    }
    if (e->n) note(w, hd_tool_parser_add(&c->tools, e->text, e->n, &w->err));
}

static void take_end(hd_writer *w, int i, const hd_job_event *e)
{
    hd_choice *c = &w->choice[i];
    if (c->ended) return;
    if (w->q->logprobs && e->n_token > 0) add_logprobs(w, &c->logprobs, e);
    c->reason = e->reason;
    c->gen_tok = e->gen_tok;
    c->thinking_tok = e->thinking_tok;
    for (int k = 0; e->stop_string && k < w->q->n_stop; k++)
        if (strcmp(w->q->stop[k], e->stop_string) == 0) c->stop_string = w->q->stop[k];
    if (i % w->q->n == 0) w->cached_tok += e->cached_tok; // the answers of one prompt share it
    if (e->queue_s > w->queue_s) w->queue_s = e->queue_s;
    if (e->prefill_s > w->prefill_s) w->prefill_s = e->prefill_s;
    if (e->gen_s > w->gen_s) w->gen_s = e->gen_s;
    if (w->st == HD_OK)
        note(w, hd_tool_parser_end(&c->tools, e->reason == HD_END_LENGTH || e->reason == HD_END_CONTEXT,
                                   &w->err));
    if (c->tools.broken) c->reason = HD_END_LENGTH; // half a call is told, and its end will not come
    c->ended = true;
    w->n_ended++;
    if (!w->q->stream) return;
    if (w->d->choice_end) w->d->choice_end(w, i);
    if (w->n_ended == w->n_choice && w->d->end) w->d->end(w);
}

void hd_writer_event(hd_writer *w, int i, const hd_job_event *e)
{
    hd_api_error why = {0};
    if (w->failed) return;
    hd_json_note();
    switch (e->kind) {
    case HD_JOB_QUEUED:
    case HD_JOB_PREFILL: break;
    case HD_JOB_TEXT: take_text(w, i, e); break;
    case HD_JOB_DONE:
        if (e->reason != HD_END_CANCELLED) {
            take_end(w, i, e);
            break;
        }
        hd_refuse(&why, 503, "server_stopping", NULL, "the server is stopping; the answer is not complete");
        hd_writer_fail(w, &why);
        break;
    case HD_JOB_ERROR:
        hd_refuse_for(&why, e->err, NULL);
        hd_writer_fail(w, &why);
        break;
    }
    if (hd_json_refused()) note(w, hd_fail(&w->err, HD_NOMEM, "reply: no memory"));
}

void hd_writer_whole(hd_writer *w)
{
    hd_json_note();
    hd_writer_put(w, "", w->d->whole(w), "\n");
    if (hd_json_refused()) note(w, hd_fail(&w->err, HD_NOMEM, "reply: no memory"));
}

void hd_writer_fail(hd_writer *w, const hd_api_error *e)
{
    w->failed = true;
    w->why = *e;
    if (w->q->stream && w->d->stream_error) w->d->stream_error(w, w->d->error(e, w->id));
}
