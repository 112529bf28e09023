/* The terminal is an interpreter, and a model's text is a program nobody has read: nothing of it may be
 * obeyed. */
#include "cli/terminal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/utf8.h"

bool hd_terminal_can_style(FILE *f)
{
    const char *term = getenv("TERM");
    return isatty(fileno(f)) == 1 && term && *term && strcmp(term, "dumb") != 0;
}

static bool is_obeyed(int32_t cp)
{
    if (cp < 0x20) return cp != '\n' && cp != '\t';
    return (cp >= 0x7f && cp < 0xa0)          // DEL and the C1 controls, which 8-bit terminals obey
           || (cp >= 0x202a && cp <= 0x202e)  // embedding and override of direction
           || (cp >= 0x2066 && cp <= 0x2069); // isolates
}

void hd_print_shown(FILE *f, const char *text, size_t n)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t start = 0;
    for (size_t i = 0; i < n;) {
        int32_t cp;
        int len = hd_utf8_next(s + i, n - i, &cp);
        if (cp >= 0 && !is_obeyed(cp)) {
            i += (size_t)len;
            continue;
        }
        fwrite(s + start, 1, i - start, f);
        if (cp >= 0x80) fprintf(f, "\\u%04x", (unsigned)cp);
        else if (cp >= 0) fprintf(f, "\\x%02x", (unsigned)cp);
        else fputs("\xef\xbf\xbd", f); // bytes that are no character
        i += (size_t)len;
        start = i;
    }
    fwrite(s + start, 1, n - start, f);
}

void hd_print_dim(FILE *f, const char *text, size_t n)
{
    /* Ended with every piece: whatever happens next, the terminal is left as it was. */
    bool style = hd_terminal_can_style(f) && !getenv("NO_COLOR");
    if (style) fputs("\033[2m", f);
    hd_print_shown(f, text, n);
    if (style) fputs("\033[0m", f);
}

void hd_printf_dim(FILE *f, const char *fmt, ...)
{
    char s[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(s, sizeof s, fmt, ap);
    va_end(ap);
    if (n > 0) hd_print_dim(f, s, (size_t)n < sizeof s ? (size_t)n : sizeof s - 1);
}
