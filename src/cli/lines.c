/* Lines from a terminal through libedit, or from a pipe through getline.
 *
 * libedit asks for characters through get_char() below, ours, for three reasons: a byte that is no UTF-8
 * becomes U+FFFD instead of ending the input; a signal that arrives at the prompt is seen at once (libedit
 * would try again); and Ctrl-C may come as a signal or as a character, and means the same. */
#include "cli/lines.h"

#include <errno.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#include "base/file.h"
#include "base/utf8.h"
#include "cli/edit.h"
#include "cli/load.h"
#include "cli/terminal.h"

enum { MAX_MESSAGE = 16 << 20, MAX_HISTORY = 4 << 20, HISTORY_LINES = 1000 };
#define CTRL_C L'\003'

struct hd_lines {
    const hd_edit *lib;
    EditLine *el; // NULL: plain lines
    History *hist;
    const char *prompt;
    char *history; // file
    hd_buf plain;  // the last line from a pipe
    bool interrupted, ended, too_long;
    bool ask_paste; // the terminal is to mark pastes, once it is in libedit's hands
    uint8_t held[4]; // bytes of a character that is not whole yet
    size_t n_held;
};

static char *prompt_of(EditLine *el)
{
    hd_lines *l = NULL;
    hd_edit_open(NULL)->el_get(el, EL_CLIENTDATA, &l); // open since there is an el
    return (char *)(uintptr_t)l->prompt; // libedit wants char *, and does not write
}

/* Take one character off the front of `held`; false: more bytes are needed. */
static bool take_char(hd_lines *l, wchar_t *c)
{
    int32_t cp;
    if (l->n_held == 0 || (hd_utf8_whole(l->held, l->n_held) == 0 && l->n_held < 4)) return false;
    size_t len = (size_t)hd_utf8_next(l->held, l->n_held, &cp);
    *c = cp < 0 ? 0xfffd : (wchar_t)cp;
    l->n_held -= len;
    memmove(l->held, l->held + len, l->n_held);
    return true;
}

/* One byte more.  A signal that comes between two reads must not be slept through: signals are let in
 * only while waiting (ppoll), so that one is either seen before or interrupts the wait.  -1 with
 * EINTR: there was one. */
static ssize_t read_byte(uint8_t *b)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    sigset_t block, old;
    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    sigaddset(&block, SIGTERM);
    sigaddset(&block, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &block, &old);
    int ready = hd_interrupted ? -1 : ppoll(&p, 1, NULL, &old);
    int why = hd_interrupted ? EINTR : errno;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (ready > 0) return read(STDIN_FILENO, b, 1);
    errno = why;
    return -1;
}

static int get_char(EditLine *el, wchar_t *c)
{
    hd_lines *l = NULL;
    hd_edit_open(NULL)->el_get(el, EL_CLIENTDATA, &l); // open since there is an el
    if (l->ask_paste) { // not before the prompt: until here the terminal edits lines itself
        fputs("\033[?2004h", stdout);
        fflush(stdout);
        l->ask_paste = false;
    }
    while (!take_char(l, c)) {
        ssize_t n = read_byte(&l->held[l->n_held]);
        if (n == 1) l->n_held++;
        else if (n < 0 && errno == EINTR && hd_interrupted == SIGINT) {
            hd_interrupted = 0;
            *c = CTRL_C;
            return 1;
        } else if (n < 0 && errno == EINTR && !hd_interrupted) continue;
        else {
            l->ended = true;
            return 0;
        }
    }
    return 1;
}

static unsigned char on_interrupt(EditLine *el, int c)
{
    hd_lines *l = NULL;
    (void)c;
    hd_edit_open(NULL)->el_get(el, EL_CLIENTDATA, &l); // open since there is an el
    l->interrupted = true;
    return CC_EOF;
}

/* A terminal marks pasted text (ESC [ 200 ~ ... ESC [ 201 ~) when asked to, so that its newlines do not send
 * it line by line: they become part of the line. */
static unsigned char on_paste(EditLine *el, int c)
{
    static const char end[] = "\033[201~";
    hd_buf b;
    wchar_t w;
    char utf8[4];
    (void)c;
    hd_buf_init(&b, MAX_MESSAGE);
    while (get_char(el, &w) == 1 && w != CTRL_C) {
        if (w == '\r') w = '\n';
        if (hd_buf_add(&b, utf8, (size_t)hd_utf8_put(utf8, w ? (int32_t)w : 0xfffd), NULL) != HD_OK) break;
        if (b.len < sizeof end - 1 || memcmp(b.data + b.len - (sizeof end - 1), end, sizeof end - 1) != 0)
            continue;
        b.data[b.len - (sizeof end - 1)] = 0;
        hd_edit_open(NULL)->el_insertstr(el, b.data);
        break;
    }
    hd_buf_free(&b);
    return CC_REFRESH;
}

bool hd_state_path(char *path, size_t size, const char *name)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char dir[3072];
    int n = -1;
    if (state && *state == '/') n = snprintf(dir, sizeof dir, "%s/hadal", state);
    else if (home && *home == '/') n = snprintf(dir, sizeof dir, "%s/.local/state/hadal", home);
    if (n < 0 || (size_t)n >= sizeof dir) return false;
    for (char *s = dir + 1;; s++) { // each folder on the way; private, as the XDG rules ask
        if (*s && *s != '/') continue;
        char was = *s;
        *s = 0;
        if (mkdir(dir, 0700) != 0 && errno != EEXIST) return false;
        *s = was;
        if (!was) break;
    }
    n = snprintf(path, size, "%s/%s", dir, name);
    return n > 0 && (size_t)n < size && hd_is_dir(dir);
}

/* The history is a convenience: what is wrong with its file must not keep anybody from talking. */
static void load_history(hd_lines *l)
{
    HistEvent ev;
    struct stat st;
    if (!l->history || stat(l->history, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > MAX_HISTORY) return;
    l->lib->history(l->hist, &ev, H_LOAD, l->history);
}

static void save_history(hd_lines *l)
{
    HistEvent ev;
    char tmp[4096];
    if (!l->history || snprintf(tmp, sizeof tmp, "%s.%ld", l->history, (long)getpid()) >= (int)sizeof tmp)
        return;
    mode_t old = umask(077);
    if (l->lib->history(l->hist, &ev, H_SAVE, tmp) < 0 || rename(tmp, l->history) != 0) unlink(tmp);
    umask(old);
}

static hd_status open_editor(hd_lines *l, hd_err *err)
{
    HistEvent ev;
    const hd_edit *lib = l->lib = hd_edit_open(err);
    if (!lib) return HD_IO;
    /* libedit draws in the locale's encoding; every terminal of today is UTF-8, whatever LANG says. */
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
    l->el = lib->el_init("hadal", stdin, stdout, stderr);
    l->hist = lib->history_init();
    if (!l->el || !l->hist)
        return hd_fail(err, HD_NOMEM, "chat: no memory, or no terminal, for line editing");
    l->lib->history(l->hist, &ev, H_SETSIZE, HISTORY_LINES);
    l->lib->history(l->hist, &ev, H_SETUNIQUE, 1);
    load_history(l);
    lib->el_set(l->el, EL_CLIENTDATA, l);
    lib->el_set(l->el, EL_EDITOR, "emacs");
    lib->el_set(l->el, EL_SIGNAL, 0);
    lib->el_set(l->el, EL_PROMPT, prompt_of);
    lib->el_set(l->el, EL_HIST, lib->history, l->hist);
    lib->el_set(l->el, EL_GETCFN, get_char);
    lib->el_wset(l->el, EL_ADDFN, L"hadal-interrupt", L"forget the line",
            on_interrupt); // el_set would leak the names
    lib->el_wset(l->el, EL_ADDFN, L"hadal-paste", L"insert a paste", on_paste);
    lib->el_set(l->el, EL_BIND, "^C", "hadal-interrupt", NULL);
    lib->el_set(l->el, EL_BIND, "\033[200~", "hadal-paste", NULL);
    lib->el_set(l->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    lib->el_source(l->el, NULL); // the person's ~/.editrc, last
    return HD_OK;
}

hd_status hd_lines_open(hd_lines **out, bool edit, const char *history, hd_err *err)
{
    hd_status st;
    hd_lines *l = NULL;
    *out = NULL;
    HD_TRY(hd_alloc(&l, sizeof *l, err));
    hd_buf_init(&l->plain, MAX_MESSAGE);
    if (edit && history) HD_TRY(hd_strdup(&l->history, history, err));
    if (edit) HD_TRY(open_editor(l, err));
    *out = l;
    return HD_OK;
fail:
    hd_lines_close(l);
    return st;
}

void hd_lines_close(hd_lines *l)
{
    if (!l) return;
    if (l->hist) {
        save_history(l);
        l->lib->history_end(l->hist);
    }
    if (l->el) l->lib->el_end(l->el);
    free(l->history);
    hd_buf_free(&l->plain);
    free(l);
}

/* A line from a pipe: not getline, which would take a gigabyte of anything for a line. */
static const char *read_plain(hd_lines *l, size_t *n)
{
    int c;
    hd_buf_clear(&l->plain);
    while ((c = getc_unlocked(stdin)) != EOF && c != '\n') {
        char b = (char)c;
        if (hd_buf_add(&l->plain, &b, 1, NULL) == HD_OK) continue;
        l->too_long = true;
        return NULL;
    }
    *n = l->plain.len;
    if (c != EOF || *n > 0) return l->plain.data ? l->plain.data : "";
    l->ended = true;
    return NULL;
}

/* One line without its newline; NULL at the end or after Ctrl-C.  Valid until the next. */
static const char *read_line(hd_lines *l, const char *prompt, size_t *n)
{
    l->interrupted = false;
    if (!l->el) return read_plain(l, n);
    int got = 0;
    bool paste = hd_terminal_can_style(stdout);
    l->prompt = prompt;
    l->lib->el_resize(l->el);
    l->ask_paste = paste;
    fflush(stdout);
    const char *s = l->lib->el_gets(l->el, &got);
    if (paste) fputs("\033[?2004l", stdout);
    if (!s || got <= 0) {
        if (!l->interrupted) l->ended = true;
        fputs(l->interrupted ? "^C\n" : "\n", stdout);
        return NULL;
    }
    *n = (size_t)got - (s[got - 1] == '\n');
    return s;
}

static bool ends_with(const char *s, size_t n, const char *end)
{
    size_t m = strlen(end);
    return n >= m && memcmp(s + n - m, end, m) == 0;
}

/* Lines up to one that ends in """; `s` is what follows the opening mark. */
static hd_status read_block(hd_lines *l, hd_buf *b, const char *s, size_t n, hd_err *err)
{
    hd_status st = HD_OK;
    bool first = true;
    while (s) {
        bool last = ends_with(s, n, "\"\"\"");
        if (last) n -= 3;
        if (!first) HD_TRY(hd_buf_add(b, "\n", 1, err));
        HD_TRY(hd_buf_add(b, s, n, err));
        first = first && n == 0; // nothing behind the opening mark: the text begins on the next line
        if (last) break;
        s = read_line(l, "... ", &n);
    }
fail:
    return st;
}

static hd_status read_message(hd_lines *l, hd_buf *b, bool *block, hd_err *err)
{
    hd_status st = HD_OK;
    size_t n = 0;
    const char *s = read_line(l, "> ", &n);
    if (s && n >= 3 && memcmp(s, "\"\"\"", 3) == 0) {
        *block = true;
        return read_block(l, b, s + 3, n - 3, err);
    }
    for (; s; s = read_line(l, "... ", &n)) {
        bool more = n > 0 && s[n - 1] == '\\';
        HD_TRY(hd_buf_add(b, s, n - more, err));
        if (!more) break;
        HD_TRY(hd_buf_add(b, "\n", 1, err));
    }
fail:
    return st;
}

hd_status hd_lines_read(hd_lines *l, hd_buf *text, bool *block, hd_line_event *what, hd_err *err)
{
    hd_status st;
    hd_buf raw;
    HistEvent ev;
    hd_buf_init(&raw, MAX_MESSAGE);
    hd_buf_clear(text);
    *block = false;
    *what = HD_LINE_TEXT;
    HD_TRY(read_message(l, &raw, block, err));
    if (l->too_long) HD_TRY(hd_fail(err, HD_LIMIT, "chat: input: a line of over %d bytes", MAX_MESSAGE));
    if (l->interrupted) *what = HD_LINE_INTERRUPT;
    else if (l->ended && raw.len == 0) *what = HD_LINE_END;
    for (size_t i = 0; i < raw.len; i++)
        if (raw.data[i] == 0) raw.data[i] = (char)0xff; // repaired below like any byte that is no text
    HD_TRY(hd_utf8_repair(text, raw.data ? raw.data : "", raw.len, err));
    if (*what == HD_LINE_TEXT && l->hist && text->len > 0) l->lib->history(l->hist, &ev, H_ENTER, text->data);
fail:
    hd_buf_free(&raw);
    return st;
}

bool hd_lines_ask(hd_lines *l, const char *question)
{
    size_t n = 0;
    const char *s = read_line(l, question, &n);
    return s && n > 0 && (s[0] == 'y' || s[0] == 'Y');
}
