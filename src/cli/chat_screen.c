/* Showing an answer as it comes.  Models can be made to say anything, escape sequences too, so control
 * characters are written as the pictures of Unicode's block at U+2400. */
#include "cli/chat_screen.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/utf8.h"

#define DIM   "\033[2m"
#define PLAIN "\033[0m"

void hd_screen_open(hd_screen *s)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM"); // no-color.org
    *s = (hd_screen){.tty_in = isatty(STDIN_FILENO) == 1, .tty_out = isatty(STDOUT_FILENO) == 1};
    s->color = s->tty_out && !(no_color && *no_color) && !(term && strcmp(term, "dumb") == 0);
}

hd_status hd_screen_clean(hd_buf *out, const char *text, size_t n, hd_err *err)
{
    hd_status st;
    for (size_t i = 0; i < n;) {
        int32_t cp;
        char picture[4];
        int len = hd_utf8_next((const uint8_t *)text + i, n - i, &cp);
        int32_t show = cp;
        if (cp < 0) show = 0xfffd;
        else if (cp < 0x20 && cp != '\n' && cp != '\t') show = 0x2400 + cp;
        else if (cp == 0x7f) show = 0x2421;
        else if (cp >= 0x80 && cp < 0xa0) show = 0xfffd; // C1 controls: some terminals obey them
        if (show == cp) HD_TRY(hd_buf_add(out, text + i, (size_t)len, err));
        else HD_TRY(hd_buf_add(out, picture, (size_t)hd_utf8_put(picture, show), err));
        i += (size_t)len;
    }
    return HD_OK;
fail:
    return st;
}

static void look(hd_screen *s, bool dim)
{
    if (s->dim != dim && s->color) fputs(dim ? DIM : PLAIN, stdout);
    s->dim = dim;
}

void hd_screen_begin(hd_screen *s)
{
    s->begun = false;
    s->folded = 0;
    s->t_folded = 0;
}

/* A folded thought is one line that counts. */
static void fold(hd_screen *s, size_t n)
{
    double now = hd_now_s();
    s->folded += (int64_t)n;
    if (!s->tty_out || now - s->t_folded < 0.2) return;
    s->t_folded = now;
    look(s, true);
    printf("\r(thinking, %lld characters: /think shows it)", (long long)s->folded);
    fflush(stdout);
}

void hd_screen_text(hd_screen *s, hd_text_kind kind, const char *text, size_t n)
{
    hd_buf clean;
    if (kind == HD_TEXT_THINKING && s->think == HD_THINK_FOLD) {
        s->kind = kind;
        s->begun = true;
        fold(s, n);
        return;
    }
    if (s->begun && s->kind != kind && s->kind == HD_TEXT_THINKING) {
        look(s, false);
        if (s->think == HD_THINK_SHOW) fputs("\n\n", stdout);
        else if (s->tty_out) fputs("\r\033[K", stdout);
    }
    hd_buf_init(&clean, 64 << 20);
    if (hd_screen_clean(&clean, text, n, NULL) == HD_OK && clean.len > 0) {
        look(s, kind == HD_TEXT_THINKING);
        fwrite(clean.data, 1, clean.len, stdout);
        fflush(stdout);
    }
    hd_buf_free(&clean);
    s->kind = kind;
    s->begun = true;
}

void hd_screen_end(hd_screen *s)
{
    look(s, false);
    putchar('\n');
    fflush(stdout);
}

void hd_screen_note(hd_screen *s, const char *fmt, ...)
{
    va_list ap;
    FILE *f = s->tty_out ? stdout : stderr;
    va_start(ap, fmt);
    if (s->color) fputs(DIM, f);
    vfprintf(f, fmt, ap);
    if (s->color) fputs(PLAIN, f);
    fputc('\n', f);
    fflush(f);
    va_end(ap);
}
