/* What the person types: lines edited on a terminal, plain lines otherwise, joined to messages. */
#ifndef HD_CLI_LINES_H
#define HD_CLI_LINES_H

#include "base/buf.h"

typedef struct hd_lines hd_lines;

typedef enum {
    HD_LINE_TEXT,      // a message
    HD_LINE_END,       // Ctrl-D, the end of the input, or a polite kill
    HD_LINE_INTERRUPT, // Ctrl-C: what was typed is forgotten
} hd_line_event;

/* edit: stdin and stdout are a terminal.  history: the file that keeps it, NULL: none. */
hd_status hd_lines_open(hd_lines **out, bool edit, const char *history, hd_err *err);
void hd_lines_close(hd_lines *l); // writes the history

/* One message into `text` (cleared first), valid UTF-8 without NULs.  A line that ends in a backslash goes on
 * in the next; a block from """ to """ may hold any lines; a paste is one message.  *block: written as a
 * block, so that a slash at its beginning is text. */
hd_status hd_lines_read(hd_lines *l, hd_buf *text, bool *block, hd_line_event *what, hd_err *err);

/* A yes/no question; anything but y is no. */
bool hd_lines_ask(hd_lines *l, const char *question);

/* $XDG_STATE_HOME/hadal/NAME (or ~/.local/state/...), its folder made when it is not there; false: no home,
 * or no right to make it. */
bool hd_state_path(char *path, size_t size, const char *name);

#endif
