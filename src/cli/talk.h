/* A conversation: turns that can be added, taken back, dropped from the front, saved and loaded. */
#ifndef HD_CLI_TALK_H
#define HD_CLI_TALK_H

#include "base/err.h"

/* Zeros are an empty one.  The strings are the conversation's own; a system message is the first turn, if
 * any. */
typedef struct {
    hd_message *msg;
    int n, cap;
} hd_talk;

void hd_talk_free(hd_talk *t); // back to zeros
/* role: a literal; thinking: may be NULL.  Both texts are copied. */
hd_status hd_talk_add(hd_talk *t, const char *role, const char *text, const char *thinking, hd_err *err);
/* Replaces the system message; an empty text removes it. */
hd_status hd_talk_set_system(hd_talk *t, const char *text, hd_err *err);
const char *hd_talk_system(const hd_talk *t); // NULL: none
void hd_talk_clear(hd_talk *t);               // all but the system message
void hd_talk_pop(hd_talk *t);                 // the last turn, never the system message
bool hd_talk_ends_with(const hd_talk *t, const char *role);
/* Drop the oldest user turn and what answered it; false when only the last user turn is left. */
bool hd_talk_drop_oldest(hd_talk *t);

/* A JSON file: [{"role", "content", "reasoning_content"}], as chat APIs and `hadal tokenize --chat` spell it.
 * Written whole or not at all.  Loading replaces the conversation, or leaves it as it was on an error. */
hd_status hd_talk_save(const hd_talk *t, const char *path, hd_err *err);
hd_status hd_talk_load(hd_talk *t, const char *path, hd_err *err);

#endif
