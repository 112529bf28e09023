/* Tools: how a model is told of them, and how its calls are found in what it writes.
 *
 *   definitions --> hd_tools_text --> the system prompt (Llama 3.1: the user's first message)
 *   the answer  --> hd_tool_parser --> plain text, and calls with their arguments as valid JSON
 *   a call that must come --> hd_tools_schema --> a grammar
 *
 * Pure: text in, text out; no socket, no model. */
#ifndef HD_SERVE_TOOLS_H
#define HD_SERVE_TOOLS_H

#include <jansson.h>

#include "base/buf.h"
#include "serve/json_walk.h"

enum { HD_MAX_TOOLS = 128, HD_MAX_TOOL_NAME = 64 };

typedef enum { HD_TOOLS_AUTO, HD_TOOLS_NONE, HD_TOOLS_REQUIRED, HD_TOOLS_NAMED } hd_tool_choice;

typedef struct {
    const char *name, *description; // description: NULL, none
    const json_t *parameters;       // a JSON schema, or NULL
    bool strict;                    // a schema that cannot be enforced is an error
} hd_tool;

typedef struct {
    hd_tool *tool;
    int n;
    hd_tool_choice choice;
    const char *named; // HD_TOOLS_NAMED
    bool single;       // no more than one call a turn
} hd_tools;

/* Letters, digits, "_", "-" and ".", 1 to 64 of them. */
bool hd_tool_name_ok(const char *name);
const hd_tool *hd_tools_find(const hd_tools *t, const char *name, size_t n);

/* Append the words that tell a model of this chat format about the tools.  chat_name may be NULL. */
hd_status hd_tools_text(hd_buf *out, const hd_tools *t, const char *chat_name, hd_err *err);
/* They belong before the user's first words, not into the system prompt. */
bool hd_tools_in_user(const char *chat_name);
/* Spellings of the special tokens that calls of this format are made of; NULL ends the list. */
const char *const *hd_tools_marks(const char *chat_name);

/* The schema of one call as JSON, {"name": ..., "arguments": ...}, of any allowed tool; or of `else_schema`
 * where that is given.  any_arguments: the tools' own schemas are left out, but for strict ones.  A new
 * reference, NULL without memory. */
json_t *hd_tools_schema(const hd_tools *t, const char *chat_name, bool any_arguments,
                        const json_t *else_schema);

/* ---- The parser ---- */

typedef struct {
    const hd_tools *tools;
    void (*text)(void *arg, const char *s, size_t n);
    /* whole: the arguments are one valid JSON object; else the text was cut off in the middle of them, or
     * went wrong there. */
    void (*call)(void *arg, const char *name, const char *arguments, size_t n, bool whole);
    /* NULL: calls are told whole.  Else the arguments are told while they come, as far as they are JSON (n is
     * 0 where a call begins), and `call` with all of them ends it. */
    void (*part)(void *arg, const char *name, const char *s, size_t n);
    void *arg;

    hd_buf held;     // text that may still become a call
    size_t at;       // of it, bytes already known to be plain
    int inside;      // row of the table of marks that is open, -1: none
    bool line_start; // what is held begins a line
    bool after_call; // white space that follows belongs to the call
    int n_calls;
    bool broken; // arguments that were told in part went wrong: nothing after that is told
    struct {
        const hd_tool *tool; // NULL: no call is being told
        size_t from, n;      // its arguments: where in `held`, and so many were told
        hd_json_walk walk;
        bool ended;
    } live;
    struct {
        size_t pos; // scanned so far, from the value's first byte
        int depth;
        bool in_string, escape;
    } scan;
} hd_tool_parser;

/* Set tools, text, call and arg first. */
void hd_tool_parser_open(hd_tool_parser *p);
void hd_tool_parser_close(hd_tool_parser *p);
/* HD_NOMEM. */
hd_status hd_tool_parser_add(hd_tool_parser *p, const char *s, size_t n, hd_err *err);
/* The end: what is held is told.  cut: the model was stopped by a limit. */
hd_status hd_tool_parser_end(hd_tool_parser *p, bool cut, hd_err *err);

#endif
