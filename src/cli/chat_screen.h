/* The terminal of a chat: what is safe to show, thinking in its own look, lines from the keyboard. */
#ifndef HD_CLI_CHAT_SCREEN_H
#define HD_CLI_CHAT_SCREEN_H

#include "base/buf.h"

typedef enum { HD_THINK_SHOW, HD_THINK_FOLD } hd_think_view;

typedef struct {
    bool tty_in, tty_out, color;
    hd_think_view think;
    hd_text_kind kind; // of what was shown last
    bool begun, dim;
    int64_t folded; // characters of thinking that were not shown
    double t_folded;
} hd_screen;

void hd_screen_open(hd_screen *s);
void hd_screen_begin(hd_screen *s);                                               // an answer begins
void hd_screen_text(hd_screen *s, hd_text_kind kind, const char *text, size_t n); // a piece of it
void hd_screen_end(hd_screen *s);                                                 // it is over
/* A line about the chat rather than of it: dim, on stdout at a terminal, else on stderr. */
void hd_screen_note(hd_screen *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Model text with every control character but line end and tab made visible: it must not steer the terminal.
 */
hd_status hd_screen_clean(hd_buf *out, const char *text, size_t n, hd_err *err);

/* Lines from the keyboard, edited (libedit) and remembered, or from a pipe as they are. */
typedef struct hd_keyboard hd_keyboard;
hd_status hd_keyboard_open(hd_keyboard **out, const hd_screen *s, hd_err *err);
void hd_keyboard_close(hd_keyboard *k);
/* One message: a line; lines while each ends with a backslash; or lines between two lines of """.
 * *end: no more input.  HD_CANCELLED: Ctrl-C. */
hd_status hd_keyboard_read(hd_keyboard *k, hd_buf *out, bool *end, hd_err *err);

#endif
