/* What reaches the person's terminal: text of a model made harmless, dim and plain, lines
 * that are redrawn. */
#ifndef HD_CLI_TERMINAL_H
#define HD_CLI_TERMINAL_H

#include <stdbool.h>
#include <stdio.h>

/* Is this stream a terminal that understands the few escape sequences used here? */
bool hd_terminal_can_style(FILE *f);

/* Print UTF-8 that a model wrote.  A terminal obeys control characters (move the cursor, rename the window,
 * answer as if typed), so all but newline and tab are shown as \x1b or \u009b, and so are the marks that turn
 * the direction of writing, which can make code read as what it is not.  n bytes of whole characters. */
void hd_print_shown(FILE *f, const char *text, size_t n);

/* The same, dim where the stream can. */
void hd_print_dim(FILE *f, const char *text, size_t n);
void hd_printf_dim(FILE *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
