/* The slash commands of a chat: one row each. */
#include <stdio.h>
#include <string.h>

#include "cli/chat.h"
#include "cli/terminal.h"

typedef struct {
    const char *name, *args, *summary;
    hd_status (*run)(hd_chat *c, const char *arg, hd_err *err);
} slash;

static hd_status help(hd_chat *c, const char *arg, hd_err *err);

static hd_status system_message(hd_chat *c, const char *arg, hd_err *err)
{
    const char *now = hd_talk_system(&c->talk);
    if (strcmp(arg, "none") == 0) return hd_talk_set_system(&c->talk, "", err);
    if (*arg) return hd_talk_set_system(&c->talk, arg, err);
    hd_print_shown(stdout, now ? now : "(none)", strlen(now ? now : "(none)"));
    putchar('\n');
    return HD_OK;
}

static hd_status save(hd_chat *c, const char *arg, hd_err *err)
{
    if (!*arg) return hd_fail(err, HD_USAGE, "/save: which file? /save FILE");
    hd_status st = hd_talk_save(&c->talk, arg, err);
    if (st == HD_OK && c->tty) printf("saved %d messages\n", c->talk.n);
    return st;
}

static hd_status load(hd_chat *c, const char *arg, hd_err *err)
{
    if (!*arg) return hd_fail(err, HD_USAGE, "/load: which file? /load FILE");
    hd_status st = hd_talk_load(&c->talk, arg, err);
    if (st == HD_OK && c->tty) printf("loaded %d messages\n", c->talk.n);
    return st;
}

static hd_status retry(hd_chat *c, const char *arg, hd_err *err)
{
    (void)arg;
    hd_status st;
    if (!hd_talk_ends_with(&c->talk, "assistant"))
        return hd_fail(err, HD_USAGE, "/retry: there is no answer yet");
    hd_talk_pop(&c->talk);
    if (!hd_talk_ends_with(&c->talk, "user"))
        return hd_fail(err, HD_USAGE, "/retry: there is no question to answer");
    hd_load_opts o = c->load; // with another seed, or the same words would come
    if (o.seed >= 0) o.seed += ++c->n_retries;
    st = hd_load_sampler(&c->model, &o, err);
    return st == HD_OK ? hd_chat_answer(c, err) : st;
}

static const char *last_thought(const hd_chat *c)
{
    for (int i = c->talk.n - 1; i >= 0; i--)
        if (c->talk.msg[i].thinking && *c->talk.msg[i].thinking) return c->talk.msg[i].thinking;
    return NULL;
}

static hd_status think(hd_chat *c, const char *arg, hd_err *err)
{
    if (!*arg) {
        const char *s = last_thought(c);
        if (!s) s = "(no thought yet)";
        hd_print_dim(stdout, s, strlen(s));
        putchar('\n');
    } else if (strcmp(arg, "on") == 0) c->thinking = 1;
    else if (strcmp(arg, "off") == 0) c->thinking = 0;
    else if (strcmp(arg, "show") == 0) c->show_thinking = true;
    else if (strcmp(arg, "fold") == 0) c->show_thinking = false;
    else return hd_fail(err, HD_USAGE, "/think: on, off, show or fold; alone it shows the last thought");
    return HD_OK;
}

static hd_status drop(hd_chat *c, const char *arg, hd_err *err)
{
    (void)arg;
    return hd_talk_drop_oldest(&c->talk)
               ? HD_OK
               : hd_fail(err, HD_USAGE, "/drop: there is only one exchange: /clear");
}

static hd_status clear(hd_chat *c, const char *arg, hd_err *err)
{
    (void)arg, (void)err;
    hd_talk_clear(&c->talk);
    return HD_OK;
}

static hd_status quit(hd_chat *c, const char *arg, hd_err *err)
{
    (void)arg, (void)err;
    c->quit = true;
    return HD_OK;
}

static const slash commands[] = {
    {"help", "", "this list", help},
    {"system", "[TEXT|none]", "show or set what the model is told first", system_message},
    {"think", "[on|off|show|fold]", "think or not, in full or in one line; alone: the last thought", think},
    {"retry", "", "answer the last question again", retry},
    {"drop", "", "forget the oldest exchange", drop},
    {"clear", "", "forget all but the system message", clear},
    {"save", "FILE", "write the conversation as JSON", save},
    {"load", "FILE", "go on with a saved one", load},
    {"quit", "", "leave (also Ctrl-D, or Ctrl-C twice)", quit},
};
enum { N_COMMANDS = sizeof commands / sizeof commands[0] };

static hd_status help(hd_chat *c, const char *arg, hd_err *err)
{
    (void)c, (void)arg, (void)err;
    for (int i = 0; i < N_COMMANDS; i++) {
        char name[64];
        snprintf(name, sizeof name, "/%s %s", commands[i].name, commands[i].args);
        printf("  %-26s %s\n", name, commands[i].summary);
    }
    puts("A line that ends in \\ goes on in the next; \"\"\" begins and ends a block of lines.\n"
         "Ctrl-C stops an answer; up and down recall what was typed, Ctrl-R searches it.");
    return HD_OK;
}

hd_status hd_chat_slash(hd_chat *c, const char *line, hd_err *err)
{
    size_t n = strcspn(line + 1, " \t\n");
    const char *arg = line + 1 + n;
    arg += strspn(arg, " \t\n");
    for (int i = 0; i < N_COMMANDS; i++)
        if (strlen(commands[i].name) == n && memcmp(commands[i].name, line + 1, n) == 0)
            return commands[i].run(c, arg, err);
    return hd_fail(err, HD_USAGE,
                   "/%.*s: not known: /help lists them; a message that begins with / goes in \"\"\" \"\"\"",
                   (int)(n < 40 ? n : 40), line + 1);
}
