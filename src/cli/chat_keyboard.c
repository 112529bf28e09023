/* Lines from a person: libedit at a terminal, with a history kept in the user's state folder; plain lines
 * from a pipe. */
#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/chat_screen.h"
#include "cli/load.h"

enum { HISTORY_LINES = 1000 };

struct hd_keyboard {
    EditLine *el; // NULL: a pipe
    History *history;
    char *history_file; // NULL: nowhere to keep it
    bool more;          // inside a message of several lines
    char *line;         // getline's, of a pipe
    size_t cap;
};

static char *prompt(EditLine *el)
{
    static char first[] = "> ", more[] = ". "; // libedit wants char *; neither is written
    hd_keyboard *k = NULL;
    el_get(el, EL_CLIENTDATA, &k);
    return k && k->more ? more : first;
}

/* $XDG_STATE_HOME/hadal/history, else ~/.local/state/hadal/history; the folders are made, for the owner
 * alone. */
static char *history_path(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char path[4096];
    int n = state && *state ? snprintf(path, sizeof path, "%s/hadal/history", state)
            : home && *home ? snprintf(path, sizeof path, "%s/.local/state/hadal/history", home)
                            : -1;
    if (n < 0 || (size_t)n >= sizeof path) return NULL;
    for (char *p = path + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        if (mkdir(path, 0700) != 0 && errno != EEXIST) return NULL;
        *p = '/';
    }
    return strdup(path);
}

hd_status hd_keyboard_open(hd_keyboard **out, const hd_screen *s, hd_err *err)
{
    hd_status st;
    hd_keyboard *k = NULL;
    HistEvent ev;
    *out = NULL;
    HD_TRY(hd_alloc(&k, sizeof *k, err));
    if (s->tty_in && s->tty_out) {
        setlocale(LC_CTYPE, ""); // libedit counts columns by it
        k->el = el_init("hadal", stdin, stdout, stderr);
        k->history = history_init();
        if (!k->el || !k->history) HD_TRY(hd_fail(err, HD_NOMEM, "chat: line editing: no memory"));
        history(k->history, &ev, H_SETSIZE, HISTORY_LINES);
        history(k->history, &ev, H_SETUNIQUE, 1);
        k->history_file = history_path();
        if (k->history_file) history(k->history, &ev, H_LOAD, k->history_file); // none yet: no harm
        el_set(k->el, EL_CLIENTDATA, k);
        el_set(k->el, EL_PROMPT, prompt);
        el_set(k->el, EL_EDITOR, "emacs");
        el_set(k->el, EL_HIST, history, k->history);
        el_set(k->el, EL_SIGNAL, 0); // Ctrl-C is ours
        el_source(k->el, NULL);
    }
    *out = k;
    return HD_OK;
fail:
    hd_keyboard_close(k);
    return st;
}

void hd_keyboard_close(hd_keyboard *k)
{
    HistEvent ev;
    if (!k) return;
    if (k->history) {
        if (k->history_file) {
            history(k->history, &ev, H_SAVE, k->history_file);
            chmod(k->history_file, 0600);
        }
        history_end(k->history);
    }
    if (k->el) el_end(k->el);
    free(k->history_file);
    free(k->line);
    free(k);
}

/* The next line without its end; NULL: no more, or a signal. */
static const char *read_line(hd_keyboard *k, size_t *n, bool *interrupted)
{
    *interrupted = false;
    if (!k->el) {
        errno = 0;
        ssize_t got = getline(&k->line, &k->cap, stdin);
        *interrupted = got < 0 && errno == EINTR;
        if (got < 0) return NULL;
        *n = (size_t)got;
        while (*n > 0 && (k->line[*n - 1] == '\n' || k->line[*n - 1] == '\r')) k->line[--*n] = 0;
        return k->line;
    }
    int count = 0;
    const char *s = el_gets(k->el, &count);
    if (!s || count <= 0) {
        *interrupted = hd_interrupted != 0;
        return NULL;
    }
    *n = (size_t)count;
    while (*n > 0 && (s[*n - 1] == '\n' || s[*n - 1] == '\r')) --*n;
    return s;
}

hd_status hd_keyboard_read(hd_keyboard *k, hd_buf *out, bool *end, hd_err *err)
{
    hd_status st = HD_OK;
    bool block = false, interrupted;
    HistEvent ev;
    *end = k->more = false;
    hd_buf_clear(out);
    for (;;) {
        size_t n = 0;
        const char *s = read_line(k, &n, &interrupted);
        if (!s) {
            k->more = false;
            if (interrupted) return hd_fail(err, HD_CANCELLED, "chat: interrupted");
            *end = out->len == 0;
            return HD_OK;
        }
        bool mark = n == 3 && memcmp(s, "\"\"\"", 3) == 0;
        if (mark && block) break;
        if (mark && out->len == 0) {
            block = k->more = true;
            continue;
        }
        bool goes_on = !block && n > 0 && s[n - 1] == '\\';
        HD_TRY(hd_buf_add(out, s, n - goes_on, err));
        if (!goes_on && !block) break;
        HD_TRY(hd_buf_add(out, "\n", 1, err));
        k->more = true;
    }
    k->more = false;
    if (block && out->len > 0 && out->data[out->len - 1] == '\n') out->data[--out->len] = 0;
    if (k->history && out->len > 0) history(k->history, &ev, H_ENTER, out->data);
fail:
    return st;
}
