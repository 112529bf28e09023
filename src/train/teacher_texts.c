/* A teacher's answers to many prompts.
 *
 *   prompts ->  slots: a session each, one pass for all of them  ->  answers that wait for their turn  ->  out, line by line
 *
 * Lines are written in the order of the prompts, each with one call, so that the last whole line of a file
 * says where a run that was broken off goes on. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/utf8.h"
#include "model/chat.h"
#include "model/json.h"
#include "train/teacher.h"
#include "train/text.h"

/* AHEAD: answers a slot that may wait for the slowest. */
enum { MAX_MESSAGES = 4096, MAX_VALUES = 1 << 20, AHEAD = 64 };

typedef struct {
    hd_session *s;
    hd_sampler *p;
    json_t *messages; // NULL: the slot is free
    int64_t index;
    hd_ids ids;    // of the answer
    bool thinking; // the prompt ends inside a thought
} slot;

typedef struct {
    int64_t index;
    char *line;
} waiting;

typedef struct {
    const hd_teacher_texts_opts *o;
    hd_teacher_texts_report *r;
    hd_engine *e;
    const hd_tokenizer *tok;
    int32_t think_begin, think_end;
    hd_text *prompts;
    hd_buf doc;
    int64_t next_prompt, next_line; // to be read; to be written
    int fd;
    json_t *last; // messages of the last line that stands in `out`, or NULL
    slot *slot;
    int n_slots;
    waiting *wait; // by rising index
    int n_wait;
    hd_sample_opts sampling;
    int64_t max_tok;
} maker;

/* ---- Prompts ---- */

/* The messages of a line, up to where the assistant is to speak; new. */
static hd_status read_prompt(json_t **messages, const maker *k, int64_t line, hd_err *err)
{
    hd_status st;
    json_t *o = NULL, *m = NULL;
    size_t i;
    char where[64];
    *messages = NULL;
    snprintf(where, sizeof where, "line %lld", (long long)line + 1);
    HD_TRY(hd_json_parse(&o, k->doc.data, k->doc.len, MAX_VALUES, k->o->prompts, where, err));
    json_t *given = json_object_get(o, "messages"), *text = json_object_get(o, "prompt");
    if (!text) text = json_object_get(o, "question");
    *messages = given                  ? json_copy(given)
                : json_is_string(text) ? json_pack("[{s:s, s:O}]", "role", "user", "content", text)
                                       : NULL;
    if (json_is_array(*messages) && json_array_size(*messages) > 0) {
        json_t *end = json_array_get(*messages, json_array_size(*messages) - 1);
        const char *role = json_string_value(json_object_get(end, "role"));
        if (role && strcmp(role, "assistant") == 0)
            json_array_remove(*messages, json_array_size(*messages) - 1);
    }
    if (hd_json_refused()) HD_TRY(hd_fail(err, HD_NOMEM, "teacher: out of memory"));
    size_t n = json_array_size(*messages);
    if (n < 1 || n > MAX_MESSAGES)
        HD_TRY(hd_fail(err, HD_FORMAT, "teacher: %s: %s: no prompt, question or messages", k->o->prompts,
                       where));
    json_array_foreach(*messages, i, m) if (!json_is_string(json_object_get(m, "role")) ||
                                            !json_is_string(json_object_get(m, "content")))
        HD_TRY(hd_fail(err, HD_FORMAT, "teacher: %s: %s: message %zu has no role or no content",
                       k->o->prompts, where, i));
fail:
    if (st != HD_OK) {
        json_decref(*messages);
        *messages = NULL;
    }
    json_decref(o);
    return st;
}

static hd_status render(hd_ids *ids, const maker *k, const json_t *messages, hd_err *err)
{
    hd_status st;
    hd_message *m = NULL;
    size_t n = json_array_size(messages), i;
    json_t *o;
    HD_TRY(hd_alloc_n(&m, n, sizeof *m, err));
    json_array_foreach(messages, i, o) m[i] =
        (hd_message){.role = json_string_value(json_object_get(o, "role")),
                     .text = json_string_value(json_object_get(o, "content")),
                     .thinking = json_string_value(json_object_get(o, "reasoning_content"))};
    HD_TRY(hd_engine_render(k->e, m, (int)n, k->o->thinking, ids, err));
fail:
    free(m);
    return st;
}

static hd_status count_prompts(int64_t *n, const char *path, hd_err *err)
{
    hd_status st;
    hd_text *t = NULL;
    hd_buf doc;
    bool more = true;
    hd_buf_init(&doc, SIZE_MAX);
    HD_TRY(hd_text_open(&t, path, &(hd_text_opts){.whole_json = true}, err));
    for (*n = 0; HD_OK == (st = hd_text_next(t, &doc, &more, err)) && more;) ++*n;
fail:
    hd_text_close(t);
    hd_buf_free(&doc);
    return st;
}

/* ---- Lines ---- */

static hd_status write_line(maker *k, const char *line, hd_err *err)
{
    size_t n = strlen(line), at = 0;
    while (at < n) {
        ssize_t got = write(k->fd, line + at, n - at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return hd_fail_errno(err, "write: %s", k->o->out);
        at += (size_t)got;
    }
    k->next_line++;
    return HD_OK;
}

/* Take a line (to free) and write all whose turn it is. */
static hd_status give_line(maker *k, int64_t index, char *line, hd_err *err)
{
    hd_status st = HD_OK;
    int at = k->n_wait++;
    for (; at > 0 && k->wait[at - 1].index > index; at--) k->wait[at] = k->wait[at - 1];
    k->wait[at] = (waiting){index, line};
    int n = 0;
    while (n < k->n_wait && k->wait[n].index == k->next_line) HD_TRY(write_line(k, k->wait[n++].line, err));
fail:
    for (int i = 0; i < n; i++) free(k->wait[i].line);
    k->n_wait -= n;
    memmove(k->wait, k->wait + n, (size_t)k->n_wait * sizeof *k->wait);
    return st;
}

/* messages, content: taken; NULL: the prompt has no answer to learn from. */
static hd_status line_of(char **line, int64_t index, const char *finish, json_t *messages_take,
                         json_t *answer_take, hd_err *err)
{
    hd_status st = HD_OK;
    json_t *o = json_pack("{s:I, s:s}", "index", (json_int_t)index, "finish", finish);
    if (answer_take) {
        bool ok = json_array_append_new(messages_take, answer_take) == 0 &&
                  json_object_set(o, "messages", messages_take) == 0;
        if (!ok) st = hd_fail(err, HD_NOMEM, "teacher: out of memory");
    }
    json_decref(messages_take);
    char *text = st == HD_OK ? json_dumps(o, JSON_COMPACT) : NULL;
    *line = NULL;
    if (st == HD_OK && (!text || hd_json_refused() || asprintf(line, "%s\n", text) < 0)) {
        *line = NULL;
        st = hd_fail(err, HD_NOMEM, "teacher: out of memory");
    }
    free(text);
    json_decref(o);
    return st;
}

/* ---- Answers ---- */

static hd_status text_of(json_t **out, const maker *k, const int32_t *id, int64_t n, bool leading,
                         hd_err *err)
{
    hd_status st;
    char *raw = NULL;
    size_t len;
    hd_buf valid;
    hd_buf_init(&valid, SIZE_MAX);
    HD_TRY(hd_tokenizer_text(k->tok, id, n, false, &raw, &len, err));
    HD_TRY(hd_utf8_repair(&valid, raw, len, err));
    const char *s = valid.data ? valid.data : "";
    len = valid.len;
    for (; leading && len && *s == '\n'; len--) s++; // line ends around a thought belong to its marks
    *out = json_stringn(s, len);
    if (!*out) st = hd_fail(err, HD_NOMEM, "teacher: out of memory");
fail:
    free(raw);
    hd_buf_free(&valid);
    return st;
}

static void cut_ends(json_t *text)
{
    size_t n = json_string_length(text);
    while (n && json_string_value(text)[n - 1] == '\n') n--;
    json_t *cut = json_stringn(json_string_value(text), n); // json_string_setn may not read its own text
    if (cut) json_string_setn(text, json_string_value(cut), n);
    json_decref(cut);
}

/* The assistant's message; *answer NULL: it ended inside a thought. */
static hd_status answer_of(json_t **answer, const maker *k, const slot *s, hd_err *err)
{
    hd_status st;
    json_t *thought = NULL, *text = NULL;
    const int32_t *id = s->ids.id;
    int64_t n = s->ids.n, from = 0, end = 0;
    bool thinks = k->think_end >= 0 && (s->thinking || (n > 0 && id[0] == k->think_begin));
    *answer = NULL;
    if (thinks) {
        from = !s->thinking;
        while (end < n && id[end] != k->think_end) end++;
        if (end == n) return HD_OK;
        HD_TRY(text_of(&thought, k, id + from, end - from, true, err));
        cut_ends(thought);
        end++;
    }
    HD_TRY(text_of(&text, k, id + end, n - end, thinks, err));
    *answer = json_pack("{s:s, s:O}", "role", "assistant", "content", text);
    if (!*answer || (thought && json_object_set(*answer, "reasoning_content", thought) != 0))
        st = hd_fail(err, HD_NOMEM, "teacher: out of memory");
fail:
    json_decref(thought);
    json_decref(text);
    if (st != HD_OK) {
        json_decref(*answer);
        *answer = NULL;
    }
    return st;
}

/* A slot's text is over: its line, and the slot is free. */
static hd_status finish(maker *k, slot *s, const char *why, hd_err *err)
{
    hd_status st = HD_OK;
    char *line;
    json_t *answer = NULL;
    if (strcmp(why, "stop") == 0) {
        HD_TRY(answer_of(&answer, k, s, err));
        if (!answer) why = "thought";
    }
    k->r->n_stopped += answer != NULL;
    k->r->n_unfinished += answer == NULL;
    k->r->n_tok += s->ids.n;
    st = line_of(&line, s->index, why, s->messages, answer, err);
    s->messages = NULL;
    s->ids.n = 0;
    if (st == HD_OK) st = give_line(k, s->index, line, err);
fail:
    return st;
}

/* ---- Slots ---- */

/* SplitMix64's mixer: seeds of neighbours have nothing in common. */
static uint64_t mixed(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static hd_status begin(maker *k, slot *s, json_t *messages_take, int64_t index, hd_err *err)
{
    hd_status st;
    hd_ids prompt = {0};
    s->messages = messages_take;
    s->index = index;
    HD_TRY(render(&prompt, k, s->messages, err));
    s->thinking = false;
    for (int64_t i = 0; i < prompt.n && k->think_end >= 0; i++) {
        if (prompt.id[i] == k->think_begin) s->thinking = true;
        if (prompt.id[i] == k->think_end) s->thinking = false;
    }
    if (prompt.n >= hd_engine_ctx_tok(k->e)) {
        HD_TRY(finish(k, s, "context", err));
        goto fail;
    }
    hd_sampler_close(s->p);
    s->p = NULL;
    k->sampling.seed = mixed(k->o->seed + 0x9e3779b97f4a7c15u * ((uint64_t)index + 1));
    HD_TRY(hd_sampler_open(&s->p, &k->sampling, hd_engine_n_vocab(k->e), err));
    hd_sampler_reset(s->p, prompt.id, prompt.n);
    HD_TRY(hd_session_queue(s->s, prompt.id, prompt.n, err));
fail:
    hd_ids_free(&prompt);
    return st;
}

/* Put the next prompts into free slots. */
static hd_status refill(maker *k, hd_progress *bar, hd_err *err)
{
    hd_status st = HD_OK;
    for (int i = 0; i < k->n_slots;) {
        slot *s = &k->slot[i];
        json_t *messages;
        bool more;
        if (s->messages) {
            i++;
            continue;
        }
        if (k->next_prompt >= k->next_line + (int64_t)AHEAD * k->n_slots) return HD_OK;
        HD_TRY(hd_text_next(k->prompts, &k->doc, &more, err));
        if (!more) return HD_OK;
        int64_t index = k->next_prompt++;
        bool answered = index < k->r->n_before;
        if (answered && !(k->last && index == k->r->n_before - 1)) continue;
        HD_TRY(read_prompt(&messages, k, index, err));
        if (!answered) {
            HD_TRY(begin(k, s, messages, index, err));
            continue;
        }
        bool same = json_equal(messages, k->last);
        json_decref(messages);
        if (!same)
            HD_TRY(hd_fail(err, HD_USAGE, "teacher: %s: answers other prompts than %s has: name another file",
                           k->o->out, k->o->prompts));
    }
fail:
    return st;
}

/* The next id of a slot whose logits are there. */
static hd_status step(maker *k, slot *s, hd_err *err)
{
    hd_status st;
    const float *logits;
    HD_TRY(hd_session_logits(s->s, &logits, err));
    int32_t id = hd_sampler_pick(s->p, logits);
    hd_sampler_accept(s->p, id);
    if (hd_engine_is_stop(k->e, id)) return finish(k, s, "stop", err);
    HD_TRY(hd_ids_add(&s->ids, id, err));
    if (s->ids.n >= k->max_tok || hd_session_len(s->s) >= hd_engine_ctx_tok(k->e))
        return finish(k, s, "length", err);
    HD_TRY(hd_session_push(s->s, id, err));
fail:
    return st;
}

static hd_status run(maker *k, hd_progress *bar, hd_err *err)
{
    hd_status st;
    hd_session **busy = NULL;
    HD_TRY(hd_alloc_n(&busy, (size_t)k->n_slots, sizeof(hd_session *), err));
    for (;;) {
        int n = 0;
        int64_t before = k->next_line;
        HD_TRY(refill(k, bar, err));
        for (int i = 0; i < k->n_slots; i++)
            if (k->slot[i].messages) busy[n++] = k->slot[i].s;
        if (n == 0) break;
        if (k->o->stop && *k->o->stop)
            HD_TRY(hd_fail(err, HD_CANCELLED,
                           "teacher: stopped: %s has %lld answers; the same command goes on", k->o->out,
                           (long long)k->next_line));
        HD_TRY(hd_session_pass(busy, n, err));
        for (int i = 0; i < k->n_slots; i++)
            if (k->slot[i].messages && hd_session_ready(k->slot[i].s)) HD_TRY(step(k, &k->slot[i], err));
        if (k->o->progress) hd_progress_add(bar, (uint64_t)(k->next_line - before));
    }
fail:
    free(busy);
    return st;
}

/* ---- Beginning and end ---- */

/* What stands in `out`: whole lines; a last piece of one is cut away. */
static hd_status take_up(maker *k, hd_err *err)
{
    hd_status st = HD_OK;
    hd_map map = {0};
    json_t *o = NULL;
    struct stat sb;
    k->fd = open(k->o->out, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0666);
    if (k->fd < 0) HD_TRY(hd_fail_errno(err, "open: %s", k->o->out));
    if (fstat(k->fd, &sb) != 0 || !S_ISREG(sb.st_mode))
        HD_TRY(hd_fail(err, HD_IO, "open: %s: a regular file is needed", k->o->out));
    if (flock(k->fd, LOCK_EX | LOCK_NB) != 0)
        HD_TRY(hd_fail(err, HD_IO, "teacher: %s: another run is writing it", k->o->out));
    HD_TRY(hd_map_open(&map, k->o->out, err));
    const char *s = (const char *)map.data, *end = s ? memrchr(s, '\n', map.size) : NULL;
    if (end) {
        const char *from = end > s ? memrchr(s, '\n', (size_t)(end - s)) : NULL;
        from = from ? from + 1 : s;
        HD_TRY(hd_json_parse(&o, from, (size_t)(end - from), MAX_VALUES, k->o->out, "last line", err));
        json_t *index = json_object_get(o, "index"), *messages = json_object_get(o, "messages");
        if (!json_is_integer(index) || json_integer_value(index) < 0 ||
            json_integer_value(index) > INT64_MAX / 2)
            HD_TRY(hd_fail(err, HD_FORMAT,
                           "teacher: %s: its last line has no index: not a file of this command", k->o->out));
        k->r->n_before = k->next_line = json_integer_value(index) + 1;
        if (json_array_size(messages) > 1) {
            k->last = json_incref(messages);
            json_array_remove(messages, json_array_size(messages) - 1);
        }
    }
    size_t whole = end ? (size_t)(end - s) + 1 : 0;
    if (whole < map.size && ftruncate(k->fd, (off_t)whole) != 0)
        HD_TRY(hd_fail_errno(err, "cut: %s", k->o->out));
fail:
    hd_map_close(&map);
    json_decref(o);
    return st;
}

static void maker_close(maker *k)
{
    for (int i = 0; k->slot && i < k->n_slots; i++) {
        hd_sampler_close(k->slot[i].p);
        hd_session_close(k->slot[i].s);
        json_decref(k->slot[i].messages);
        hd_ids_free(&k->slot[i].ids);
    }
    for (int i = 0; i < k->n_wait; i++) free(k->wait[i].line);
    free(k->wait);
    free(k->slot);
    json_decref(k->last);
    hd_text_close(k->prompts);
    hd_buf_free(&k->doc);
    if (k->fd >= 0) close(k->fd);
}

static hd_status maker_open(maker *k, hd_err *err)
{
    hd_status st;
    const char *name = hd_engine_chat_name(k->e);
    bool open;
    k->tok = hd_engine_tokenizer(k->e, err);
    if (!k->tok) return HD_UNSUPPORTED; // err says why
    k->think_begin = k->think_end = -1;
    for (int i = 0; name && hd_chat_at(i); i++)
        if (strcmp(hd_chat_name(hd_chat_at(i)), name) == 0)
            hd_chat_think_ids(hd_chat_at(i), k->tok, &k->think_begin, &k->think_end, &open);
    if (k->o->sampling) k->sampling = *k->o->sampling;
    else hd_engine_sampling(k->e, &k->sampling);
    k->n_slots = k->o->n_at_once > 0 ? k->o->n_at_once : 8;
    k->max_tok = k->o->max_tok > 0 ? k->o->max_tok : 1024;
    HD_TRY(count_prompts(&k->r->n_prompts, k->o->prompts, err));
    HD_TRY(take_up(k, err));
    if (k->r->n_before > k->r->n_prompts)
        HD_TRY(hd_fail(err, HD_USAGE, "teacher: %s: has more answers than %s has prompts: name another file",
                       k->o->out, k->o->prompts));
    HD_TRY(hd_text_open(&k->prompts, k->o->prompts, &(hd_text_opts){.whole_json = true}, err));
    HD_TRY(hd_alloc_n(&k->slot, (size_t)k->n_slots, sizeof *k->slot, err));
    HD_TRY(hd_alloc_n(&k->wait, (size_t)(AHEAD + 1) * (size_t)k->n_slots + 1, sizeof *k->wait, err));
    for (int i = 0; i < k->n_slots; i++) HD_TRY(hd_session_open(&k->slot[i].s, k->e, err));
fail:
    return st;
}

hd_status hd_teacher_texts(hd_engine *e, const hd_teacher_texts_opts *o, hd_teacher_texts_report *r,
                           hd_err *err)
{
    hd_status st;
    hd_progress bar = {0};
    double t0 = hd_now_s();
    *r = (hd_teacher_texts_report){0};
    maker k = {.o = o, .r = r, .e = e, .fd = -1};
    hd_buf_init(&k.doc, SIZE_MAX);
    hd_json_note();
    HD_TRY(maker_open(&k, err));
    if (o->progress) {
        hd_progress_begin(&bar, "texts", (uint64_t)r->n_prompts, "prompts");
        hd_progress_add(&bar, (uint64_t)r->n_before);
    }
    HD_TRY(run(&k, &bar, err));
    if (fsync(k.fd) != 0) st = hd_fail_errno(err, "sync: %s", o->out);
fail:
    if (o->progress) hd_progress_end(&bar);
    r->seconds = hd_now_s() - t0;
    maker_close(&k);
    return st;
}

hd_status hd_teacher_make_texts(const char *model, int n_threads, int64_t ctx_tok,
                                const hd_teacher_texts_opts *o, hd_teacher_texts_report *r, hd_err *err)
{
    hd_status st;
    hd_engine *e = NULL;
    const hd_engine_opts eo = {.n_threads = n_threads,
                               .ctx_tok = ctx_tok,
                               .n_sessions = o->n_at_once > 0 ? o->n_at_once : 8,
                               .progress = o->progress};
    HD_TRY(hd_engine_open(&e, model, &eo, err));
    HD_TRY(hd_teacher_texts(e, o, r, err));
fail:
    hd_engine_close(e);
    return st;
}
