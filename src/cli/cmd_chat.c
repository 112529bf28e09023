/* hadal chat: a conversation in the terminal.
 *
 * The conversation is a list of messages; each turn renders all of it and syncs the session, which computes
 * only what is new.  Nothing is ever dropped silently: when the context is full the person is asked. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/chat_screen.h"
#include "cli/cmd.h"
#include "cli/load.h"

enum { MAX_MESSAGES = 100000, MAX_TEXT = 64 << 20, ANSWER_ROOM = 64 };

typedef struct {
    char *role, *text, *thinking; // owned
} message;

typedef struct {
    hd_loaded l;
    hd_screen screen;
    hd_keyboard *keyboard;
    message *msg;
    int n;
    hd_buf answer, thinking; // of the turn under way
    bool lost;               // no memory for a piece of it
    int64_t max_tok, think_budget;
    int think; // 1 on, 0 off, -1: the format's default
} chat;

/* ---- The conversation
 * --------------------------------------------------------------------------------------------- */

static void message_free(message *m)
{
    free(m->role);
    free(m->text);
    free(m->thinking);
    *m = (message){0};
}

static void drop(chat *c, int first, int n)
{
    for (int i = first; i < first + n; i++) message_free(&c->msg[i]);
    memmove(c->msg + first, c->msg + first + n, (size_t)(c->n - first - n) * sizeof *c->msg);
    c->n -= n;
}

static hd_status add(chat *c, const char *role, const char *text, const char *thinking, hd_err *err)
{
    hd_status st;
    message m = {0};
    if (c->n >= MAX_MESSAGES) return hd_fail(err, HD_LIMIT, "chat: %d messages: /clear begins anew", c->n);
    HD_TRY(hd_strdup(&m.role, role, err));
    HD_TRY(hd_strdup(&m.text, text, err));
    if (thinking && *thinking) HD_TRY(hd_strdup(&m.thinking, thinking, err));
    HD_TRY(hd_realloc(&c->msg, ((size_t)c->n + 1) * sizeof *c->msg, err));
    c->msg[c->n++] = m;
    return HD_OK;
fail:
    message_free(&m);
    return st;
}

static bool is_role(const message *m, const char *role) { return strcmp(m->role, role) == 0; }
static int first_turn(const chat *c) { return c->n > 0 && is_role(&c->msg[0], "system"); }

static hd_status render(const chat *c, hd_ids *ids, hd_err *err)
{
    hd_message *m;
    hd_status st = hd_alloc_n(&m, (size_t)c->n, sizeof *m, err);
    if (st != HD_OK) return st;
    for (int i = 0; i < c->n; i++) m[i] = (hd_message){c->msg[i].role, c->msg[i].text, c->msg[i].thinking};
    ids->n = 0;
    st = hd_engine_render(c->l.engine, m, c->n, c->think, ids, err);
    free(m);
    return st;
}

/* ---- A full context
 * ----------------------------------------------------------------------------------------------- */

/* Messages of the oldest turn: what a user said and all that followed, up to the next user's. */
static int oldest_turn(const chat *c)
{
    int first = first_turn(c), n = 0;
    for (int i = first; i < c->n - 1; i++, n++)
        if (i > first && is_role(&c->msg[i], "user")) break;
    return n;
}

/* Ask whether the oldest turns may go until the rest fits.  *fits: there is room now. */
static hd_status make_room(chat *c, hd_ids *ids, bool *fits, hd_err *err)
{
    hd_status st = HD_OK;
    bool end;
    hd_buf reply;
    int64_t ctx = hd_engine_ctx_tok(c->l.engine), room = ctx - (ctx > 4 * ANSWER_ROOM ? ANSWER_ROOM : 1);
    *fits = ids->n <= room;
    if (*fits) return HD_OK;
    hd_buf_init(&reply, MAX_TEXT);
    hd_screen_note(&c->screen, "The context is full: the conversation has %lld ids, %lld fit.",
                   (long long)ids->n, (long long)room);
    if (oldest_turn(c) == 0) {
        hd_screen_note(&c->screen,
                       "This message alone is too long: shorten it, or start with a larger --ctx.");
        goto fail;
    }
    hd_screen_note(&c->screen, "Drop the oldest turns? [y/N]");
    HD_TRY(hd_keyboard_read(c->keyboard, &reply, &end, err));
    if (reply.len == 0 || (reply.data[0] != 'y' && reply.data[0] != 'Y')) goto fail;
    int dropped = 0;
    while (ids->n > room && oldest_turn(c) > 0) {
        drop(c, first_turn(c), oldest_turn(c));
        dropped++;
        HD_TRY(render(c, ids, err));
    }
    *fits = ids->n <= room;
    hd_screen_note(&c->screen, "Dropped %d turns; the conversation has %lld ids now.", dropped,
                   (long long)ids->n);
fail:
    hd_buf_free(&reply);
    return st;
}

/* ---- One answer
 * --------------------------------------------------------------------------------------------------- */

static void on_text(void *arg, hd_text_kind kind, const char *text, size_t n)
{
    chat *c = arg;
    if (hd_buf_add(kind == HD_TEXT_ANSWER ? &c->answer : &c->thinking, text, n, NULL) != HD_OK)
        c->lost = true;
    hd_screen_text(&c->screen, kind, text, n);
}

static void on_progress(void *arg, int64_t done, int64_t total)
{
    chat *c = arg;
    if (c->screen.tty_out && total > 1024)
        printf("\r(reading %lld of %lld ids)%s", (long long)done, (long long)total,
               done == total ? "\r\033[K" : "");
    fflush(stdout);
}

static void after_answer(chat *c, const hd_generated *r, int64_t n_new, double prompt_s)
{
    int64_t left = hd_engine_ctx_tok(c->l.engine) - hd_session_len(c->l.session);
    char guesses[64] = "";
    if (r->n_drafted > 0)
        snprintf(guesses, sizeof guesses, ", %.2f ids a pass",
                 (double)r->n_tok / (double)(r->n_passes > 0 ? r->n_passes : 1));
    hd_screen_note(&c->screen, "(%lld ids, %.1f/s%s; %lld read in %.1f s; %lld left%s)", (long long)r->n_tok,
                   r->seconds > 0 ? (double)r->n_tok / r->seconds : 0, guesses, (long long)n_new, prompt_s,
                   (long long)left,
                   r->why == HD_STOP_FLAG     ? "; interrupted"
                   : r->why == HD_STOP_LENGTH ? "; stopped at --n-predict"
                                              : "");
    if (r->why == HD_STOP_CONTEXT)
        hd_screen_note(&c->screen,
                       "The context is full: the next message will offer to drop the oldest turns.");
}

/* Answer the conversation as it stands; the answer joins it. */
static hd_status answer(chat *c, hd_err *err)
{
    hd_status st;
    hd_ids ids = {0};
    hd_generated r = {0};
    bool fits;
    hd_watch watch = {.progress = on_progress, .arg = c, .stop = &hd_interrupted};
    hd_generate_opts g = {
        .max_tok = c->max_tok, .chat = true, .text = on_text, .arg = c, .stop_flag = &hd_interrupted};
    g.limit_thinking = c->think_budget >= 0;
    g.think_tok = c->think_budget;
    HD_TRY(render(c, &ids, err));
    HD_TRY(make_room(c, &ids, &fits, err));
    if (!fits) {
        drop(c, c->n - 1, 1); // the message that does not fit
        goto fail;
    }
    hd_buf_clear(&c->answer);
    hd_buf_clear(&c->thinking);
    int64_t before = hd_session_len(c->l.session);
    double t0 = hd_now_s();
    st = hd_session_sync(c->l.session, ids.id, ids.n, &watch, err);
    if (st == HD_CANCELLED) {
        hd_screen_note(&c->screen, "(interrupted while reading)");
        drop(c, c->n - 1, 1);
        st = HD_OK;
        goto fail;
    }
    HD_TRY(st);
    double prompt_s = hd_now_s() - t0;
    hd_sampler_reset(c->l.sampler, ids.id, ids.n);
    hd_screen_begin(&c->screen);
    st = hd_generate(c->l.session, c->l.sampler, &g, &r, err);
    hd_screen_end(&c->screen);
    HD_TRY(st);
    if (c->lost) HD_TRY(hd_fail(err, HD_NOMEM, "chat: no memory to keep the answer"));
    HD_TRY(add(c, "assistant", c->answer.data ? c->answer.data : "", c->thinking.data, err));
    after_answer(c, &r, ids.n > before ? ids.n - before : ids.n, prompt_s);
fail:
    hd_ids_free(&ids);
    return st;
}

/* ---- Commands
 * ----------------------------------------------------------------------------------------------------- */

static hd_status cmd_help(chat *c, const char *arg, hd_err *err);

static hd_status cmd_system(chat *c, const char *arg, hd_err *err)
{
    if (first_turn(c)) drop(c, 0, 1);
    if (!*arg) {
        hd_screen_note(&c->screen, "No system prompt.");
        return HD_OK;
    }
    hd_status st = add(c, "system", arg, NULL, err);
    if (st != HD_OK) return st;
    message m = c->msg[c->n - 1];
    memmove(c->msg + 1, c->msg, (size_t)(c->n - 1) * sizeof *c->msg);
    c->msg[0] = m;
    hd_screen_note(&c->screen, "System prompt set.");
    return HD_OK;
}

static hd_status cmd_clear(chat *c, const char *arg, hd_err *err)
{
    int first = first_turn(c);
    (void)arg, (void)err;
    drop(c, first, c->n - first);
    hd_screen_note(&c->screen, "A new conversation.");
    return HD_OK;
}

static hd_status cmd_retry(chat *c, const char *arg, hd_err *err)
{
    (void)arg;
    if (c->n > 0 && is_role(&c->msg[c->n - 1], "assistant")) drop(c, c->n - 1, 1);
    if (c->n > 0 && is_role(&c->msg[c->n - 1], "user")) return answer(c, err);
    hd_screen_note(&c->screen, "Nothing to answer again.");
    return HD_OK;
}

static hd_status cmd_think(chat *c, const char *arg, hd_err *err)
{
    (void)err;
    if (strcmp(arg, "on") == 0 || strcmp(arg, "off") == 0) {
        c->think = arg[1] == 'n';
        hd_screen_note(&c->screen, "Thinking %s, for models that have a switch.", arg);
        return HD_OK;
    }
    c->screen.think = c->screen.think == HD_THINK_SHOW ? HD_THINK_FOLD : HD_THINK_SHOW;
    if (c->screen.think == HD_THINK_SHOW && c->n > 0 && c->msg[c->n - 1].thinking) {
        hd_buf clean;
        hd_buf_init(&clean, 3 * (size_t)MAX_TEXT);
        if (hd_screen_clean(&clean, c->msg[c->n - 1].thinking, strlen(c->msg[c->n - 1].thinking), NULL) ==
                HD_OK &&
            clean.data)
            hd_screen_note(&c->screen, "%s", clean.data);
        hd_buf_free(&clean);
    }
    hd_screen_note(&c->screen, "Thoughts are %s from now on.",
                   c->screen.think == HD_THINK_SHOW ? "shown" : "folded");
    return HD_OK;
}

/* The conversation as JSON, which `hadal tokenize --chat` and others read too. */
static hd_status cmd_save(chat *c, const char *arg, hd_err *err)
{
    hd_status st;
    hd_newfile f = {.fd = -1};
    char *text = NULL;
    json_t *list = json_array();
    if (!*arg) {
        json_decref(list);
        return hd_fail(err, HD_USAGE, "/save: needs a file name");
    }
    for (int i = 0; i < c->n; i++) {
        json_t *m = json_pack("{s:s, s:s}", "role", c->msg[i].role, "content", c->msg[i].text);
        if (m && c->msg[i].thinking)
            json_object_set_new(m, "reasoning_content", json_string(c->msg[i].thinking));
        json_array_append_new(list, m);
    }
    text = (int)json_array_size(list) == c->n ? json_dumps(list, JSON_INDENT(1) | JSON_PRESERVE_ORDER) : NULL;
    if (!text)
        HD_TRY(hd_fail(err, HD_FORMAT, "/save: %.200s: no memory, or a message that is no UTF-8", arg));
    HD_TRY(hd_newfile_begin(&f, arg, err));
    HD_TRY(hd_newfile_write(&f, text, strlen(text), err));
    HD_TRY(hd_newfile_write(&f, "\n", 1, err));
    HD_TRY(hd_newfile_commit(&f, err));
    hd_screen_note(&c->screen, "Saved %d messages.", c->n);
fail:
    hd_newfile_abort(&f);
    free(text);
    json_decref(list);
    return st;
}

static hd_status cmd_load(chat *c, const char *arg, hd_err *err)
{
    hd_status st;
    hd_buf text;
    json_t *list = NULL, *m;
    json_error_t why;
    size_t i;
    chat fresh = {0};
    hd_buf_init(&text, MAX_TEXT);
    if (!*arg) return hd_fail(err, HD_USAGE, "/load: needs a file name");
    HD_TRY(hd_file_read(&text, arg, err));
    list = json_loadb(text.data ? text.data : "", text.len, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_array(list)) HD_TRY(hd_fail(err, HD_FORMAT, "/load: %.200s: no list of messages", arg));
    json_array_foreach(list, i, m)
    {
        const char *role = json_string_value(json_object_get(m, "role")),
                   *said = json_string_value(json_object_get(m, "content"));
        const char *thought = json_string_value(json_object_get(m, "reasoning_content"));
        if (!role || !said ||
            (strcmp(role, "system") && strcmp(role, "user") && strcmp(role, "assistant") &&
             strcmp(role, "tool")))
            HD_TRY(hd_fail(err, HD_FORMAT, "/load: %.200s: message %zu: needs role and content", arg, i));
        HD_TRY(add(&fresh, role, said, thought, err));
    }
    drop(c, 0, c->n);
    free(c->msg);
    c->msg = fresh.msg;
    c->n = fresh.n;
    fresh = (chat){0};
    hd_screen_note(&c->screen, "Loaded %d messages.", c->n);
fail:
    drop(&fresh, 0, fresh.n);
    free(fresh.msg);
    json_decref(list);
    hd_buf_free(&text);
    return st;
}

static const struct {
    const char *name, *what;
    hd_status (*run)(chat *c, const char *arg, hd_err *err); // NULL: leave
} commands[] = {
    {"/help", "this list", cmd_help},
    {"/system", "TEXT: set the system prompt (none: remove it)", cmd_system},
    {"/save", "FILE: keep the conversation as JSON", cmd_save},
    {"/load", "FILE: take it up again", cmd_load},
    {"/retry", "answer the last message again", cmd_retry},
    {"/think", "show or fold thoughts; on, off: switch thinking", cmd_think},
    {"/clear", "a new conversation", cmd_clear},
    {"/quit", "leave (also Ctrl-D)", NULL},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static hd_status cmd_help(chat *c, const char *arg, hd_err *err)
{
    (void)arg, (void)err;
    for (int i = 0; i < N_COMMANDS; i++)
        hd_screen_note(&c->screen, "  %-8s %s", commands[i].name, commands[i].what);
    hd_screen_note(
        &c->screen,
        "Several lines: end a line with \\, or write between two lines of \"\"\".  Ctrl-C stops an answer.");
    return HD_OK;
}

static hd_status command(chat *c, const char *line, bool *quit, hd_err *err)
{
    size_t n = strcspn(line, " \t\n");
    for (int i = 0; i < N_COMMANDS; i++) {
        if (strlen(commands[i].name) != n || memcmp(commands[i].name, line, n) != 0) continue;
        *quit = !commands[i].run;
        return *quit ? HD_OK : commands[i].run(c, line + n + strspn(line + n, " \t\n"), err);
    }
    hd_screen_note(&c->screen, "No such command: /help lists them.");
    return HD_OK;
}

/* ---- The loop
 * ----------------------------------------------------------------------------------------------------- */

static hd_status converse(chat *c, hd_err *err)
{
    hd_status st;
    hd_buf line;
    bool end = false, quit = false;
    int interrupts = 0;
    hd_buf_init(&line, MAX_TEXT);
    while (!quit) {
        st = hd_keyboard_read(c->keyboard, &line, &end, err);
        if (st == HD_CANCELLED) { // Ctrl-C at the prompt: once is forgiven
            hd_interrupted = 0;
            st = HD_OK;
            if (++interrupts > 1 || !c->screen.tty_in) break;
            putchar('\n');
            hd_screen_note(&c->screen, "(Ctrl-C again, Ctrl-D or /quit leaves)");
            continue;
        }
        if (st != HD_OK || end) break;
        interrupts = 0;
        if (line.len == 0 || strspn(line.data, " \t\n") == line.len) continue;
        if (line.data[0] == '/') st = command(c, line.data, &quit, err);
        else {
            st = add(c, "user", line.data, NULL, err);
            if (st == HD_OK) st = answer(c, err);
        }
        hd_interrupted = 0;
        if (st == HD_NOMEM) break;
        if (st != HD_OK) { // said, and the chat goes on
            fprintf(stderr, "hadal: %s\n", err->msg);
            *err = (hd_err){0};
            st = HD_OK;
        }
    }
    if (c->screen.tty_in && end) putchar('\n');
    hd_buf_free(&line);
    return st;
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    chat c = {.think = -1, .think_budget = -1};
    const char *system = NULL;
    bool fold = false;
    int n = 0;
    hd_load_opts load = HD_LOAD_DEFAULTS;
    const hd_opt opts[] = {
        {"system", 0, HD_OPT_STR, &system, 0, 0},
        {"chat-format", 0, HD_OPT_STR, &load.chat_format, 0, 0},
        {"n-predict", 'n', HD_OPT_INT, &c.max_tok, 0, 1 << 30},
        {"think-budget", 0, HD_OPT_INT, &c.think_budget, 0, 1 << 30},
        {"fold", 0, HD_OPT_FLAG, &fold, 0, 0},
        HD_MODEL_OPTS(load),
        HD_DRAFT_OPTS(load),
        HD_SAMPLE_OPTS(load),
    };
    hd_buf_init(&c.answer, MAX_TEXT);
    hd_buf_init(&c.thinking, MAX_TEXT);
    hd_screen_open(&c.screen);
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n != 1) HD_TRY(hd_fail(err, HD_USAGE, "chat: one model is needed: hadal chat MODEL"));
    if (fold) c.screen.think = HD_THINK_FOLD;
    HD_TRY(hd_load(&c.l, argv[1], &load, err));
    hd_ids none = {0}; // a model without a chat format is refused here, not at the first message
    HD_TRY(hd_engine_render(c.l.engine, &(hd_message){.role = "user", .text = ""}, 1, -1, &none, err));
    hd_ids_free(&none);
    HD_TRY(hd_keyboard_open(&c.keyboard, &c.screen, err));
    hd_watch_signals();
    if (system) HD_TRY(add(&c, "system", system, NULL, err));
    hd_screen_note(&c.screen, "%s: chat format %s, context %lld ids.  /help lists commands.", argv[1],
                   hd_engine_chat_name(c.l.engine), (long long)hd_engine_ctx_tok(c.l.engine));
    HD_TRY(converse(&c, err));
fail:
    hd_keyboard_close(c.keyboard);
    drop(&c, 0, c.n);
    free(c.msg);
    hd_buf_free(&c.answer);
    hd_buf_free(&c.thinking);
    hd_loaded_close(&c.l);
    return st;
}

const hd_command hd_cmd_chat = {
    .verb = "chat",
    .summary = "talk with a model in the terminal",
    .help = "usage: hadal chat MODEL [options]\n\n"
            "      --system TEXT        a system prompt\n"
            "      --chat-format NAME   instead of the model's own\n"
            "  -n, --n-predict N        at most N ids an answer\n"
            "      --think-budget N     end the thinking after N ids\n"
            "      --fold               do not show thoughts, count them\n" HD_MODEL_HELP HD_DRAFT_HELP
                HD_SAMPLE_HELP "\nIn the chat: /help lists commands; \\ at a line's end or \"\"\" for "
                               "several lines; Ctrl-C stops an answer.\n\n"
            "examples:\n"
            "  hadal chat smollm2.gguf\n"
            "  hadal chat DeepSeek-R1-Distill-Qwen-1.5B --think-budget 1000\n"
            "  echo 'What is a mutex?' | hadal chat qwen.gguf --temp 0\n",
    .run = run,
};
