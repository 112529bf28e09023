/* hadal chat: talk with a model in the terminal, or through pipes. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/chat.h"
#include "cli/cmd.h"
#include "cli/terminal.h"

typedef struct {
    const char *system, *resume;
    bool no_history, fold, no_think;
} options;

static void greet(const hd_chat *c, const char *model)
{
    const char *name = strrchr(model, '/') && strrchr(model, '/')[1] ? strrchr(model, '/') + 1 : model;
    fprintf(stderr, "%s: %s, a context of %lld ids\n", name, hd_engine_chat_name(c->model.engine),
            (long long)hd_engine_ctx_tok(c->model.engine));
    if (c->tty) fputs("/help lists what can be typed beside messages\n", stderr);
}

/* A message: a slash command, or something to answer. */
static hd_status take(hd_chat *c, const hd_buf *text, bool block, hd_err *err)
{
    if (text->len == 0) return HD_OK;
    if (text->data[0] == '/' && !block) return hd_chat_slash(c, text->data, err);
    hd_status st = hd_talk_add(&c->talk, "user", text->data, NULL, err);
    if (st != HD_OK) return st;
    c->n_retries = 0;
    return hd_chat_answer(c, err);
}

static hd_status loop(hd_chat *c, hd_err *err)
{
    hd_status st = HD_OK;
    hd_buf text;
    hd_line_event what;
    bool block, asked_twice = false;
    hd_buf_init(&text, (size_t)64 << 20);
    while (!c->quit) {
        HD_TRY(hd_lines_read(c->lines, &text, &block, &what, err));
        if (what == HD_LINE_END) break;
        if (what == HD_LINE_INTERRUPT) {
            if (asked_twice) break;
            asked_twice = true;
            puts("(Ctrl-C again or Ctrl-D leaves)");
            continue;
        }
        asked_twice = false;
        st = take(c, &text, block, err);
        fflush(stdout);
        if (hd_interrupted == SIGTERM || hd_interrupted == SIGHUP) break;
        if (!c->tty && st != HD_OK) goto fail; // nobody is there to do better
        hd_interrupted = 0;
        if (st != HD_OK) fprintf(stderr, "hadal: %s\n", err->msg);
        st = HD_OK;
    }
fail:
    hd_buf_free(&text);
    return st;
}

/* A model that cannot hold a conversation says so before the first question. */
static hd_status check_format(const hd_chat *c, hd_err *err)
{
    hd_ids ids = {0};
    hd_message hello = {.role = "user", .text = "hello"};
    hd_status st = hd_engine_render(c->model.engine, &hello, 1, -1, &ids, err);
    hd_ids_free(&ids);
    return st;
}

static hd_status start(hd_chat *c, const char *model, const options *o, hd_err *err)
{
    hd_status st;
    char history[4096];
    bool keep;
    c->tty = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1;
    c->show_thinking = !o->fold;
    c->thinking = o->no_think ? 0 : -1;
    HD_TRY(hd_load(&c->model, model, &c->load, err));
    HD_TRY(check_format(c, err));
    if (o->resume) HD_TRY(hd_talk_load(&c->talk, o->resume, err));
    if (o->system) HD_TRY(hd_talk_set_system(&c->talk, o->system, err));
    keep = c->tty && !o->no_history && hd_state_path(history, sizeof history, "history");
    HD_TRY(hd_lines_open(&c->lines, c->tty, keep ? history : NULL, err));
    greet(c, model);
fail:
    return st;
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    options o = {0};
    hd_chat c = {.load = HD_LOAD_DEFAULTS, .think_budget = -1};
    const hd_opt opts[] = {
        {"system", 0, HD_OPT_STR, &o.system, 0, 0},
        {"load", 0, HD_OPT_STR, &o.resume, 0, 0},
        {"chat-format", 0, HD_OPT_STR, &c.load.chat_format, 0, 0},
        {"n-predict", 'n', HD_OPT_INT, &c.max_tok, 0, 1 << 30},
        {"think-budget", 0, HD_OPT_INT, &c.think_budget, 0, 1 << 30},
        {"no-think", 0, HD_OPT_FLAG, &o.no_think, 0, 0},
        {"fold", 0, HD_OPT_FLAG, &o.fold, 0, 0},
        {"drop-oldest", 0, HD_OPT_FLAG, &c.drop_oldest, 0, 0},
        {"no-history", 0, HD_OPT_FLAG, &o.no_history, 0, 0},
        HD_MODEL_OPTS(c.load),
        HD_DRAFT_OPTS(c.load),
        HD_SAMPLE_OPTS(c.load),
    };
    int n = 0;
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n != 1) HD_TRY(hd_fail(err, HD_USAGE, "chat: one model is needed: hadal chat MODEL"));
    HD_TRY(start(&c, argv[1], &o, err));
    hd_watch_signals();
    HD_TRY(loop(&c, err));
fail:
    hd_lines_close(c.lines);
    hd_talk_free(&c.talk);
    hd_loaded_close(&c.model);
    return st;
}

const hd_command hd_cmd_chat = {
    .verb = "chat",
    .summary = "talk with a model",
    .help =
        "usage: hadal chat MODEL [options]\n\n"
        "Type messages, /help for what else can be typed.  Through a pipe each line is a message, and the "
        "answers\n"
        "alone are printed.\n\n"
        "      --system TEXT        what the model is told first\n"
        "      --load FILE          go on with a conversation written by /save\n"
        "      --chat-format NAME   instead of the model's own\n"
        "  -n, --n-predict N        at most N ids an answer\n"
        "      --think-budget N     end the thinking after N ids\n"
        "      --no-think           do not think, where the format has a switch\n"
        "      --fold               show thinking as one line (/think shows it)\n"
        "      --drop-oldest        when the context is full drop the oldest turns without asking\n"
        "      --no-history         do not keep what is typed\n" HD_MODEL_HELP HD_DRAFT_HELP HD_SAMPLE_HELP
        "\nexamples:\n"
        "  hadal chat smollm2.gguf\n"
        "  hadal chat r1.gguf --system 'Answer in French.' --fold --ctx 16384\n"
        "  echo 'Name three rivers.' | hadal chat qwen.gguf --temp 0\n",
    .run = run,
};
