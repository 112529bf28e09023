/* The page's conversations in one SQLite file: chats, messages as a tree, full-text search.
 *
 * Ownership of rows: every chat belongs to one owner (a number: HD_STORE_LOCAL until there are accounts), and
 * a call names the owner it acts for; another owner's chat is "no such chat".
 *
 * A chat's messages are a tree: `parent` is the message before (none: the first).  Two answers with one
 * parent are versions of an answer, two questions with one parent are branches.  `head` is the last message
 * of the branch that is shown.
 *
 * Threads: one connection, one thread at a time; calls block on the disk.  Durability: WAL with
 * synchronous=FULL, so what a call (or hd_store_commit, between hd_store_begin and it) has acknowledged
 * survives kill -9 and power loss.  A failed call changes nothing.
 *
 * Rows travel as JSON values, as the page will see them.  Errors: HD_USAGE no such chat or message; HD_FORMAT
 * a value that makes no sense, or not such a database; HD_IO full disk, read-only, failing fsync; HD_LIMIT
 * over a cap.  What the disk says begins with "store:". */
#ifndef HD_SERVE_STORE_H
#define HD_SERVE_STORE_H

#include <jansson.h>

#include "base/buf.h"

typedef struct hd_store hd_store;

enum {
    HD_STORE_LOCAL = 1,             // the one owner there is without accounts
    HD_STORE_MAX_TEXT = 4 << 20,    // bytes of a message
    HD_STORE_MAX_MESSAGES = 20000,  // in one chat
    HD_STORE_MAX_TITLE = 600,       // bytes
};

/* Opens or makes the file (mode 0600).  Answers that a crash cut short become `interrupted`; their
 * text so far stays. */
hd_status hd_store_open(hd_store **out, const char *path, hd_err *err);
void hd_store_close(hd_store *s);

/* Several calls, one fsync.  Each call in between still happens whole or not at all. */
hd_status hd_store_begin(hd_store *s, hd_err *err);
hd_status hd_store_commit(hd_store *s, hd_err *err); // on failure everything since begin is undone
void hd_store_rollback(hd_store *s);
/* All of fn's calls or none of them, also inside a group. */
hd_status hd_store_together(hd_store *s, hd_status (*fn)(void *arg, hd_store *s, hd_err *err), void *arg, hd_err *err);

/* ---- Chats ---- */

/* Newest first, pinned ones before: [{id, title, pinned, created, changed}], at most `limit`
 * from `offset` on. */
hd_status hd_store_chats(hd_store *s, int64_t owner, int64_t offset, int64_t limit, json_t **out, hd_err *err);
/* Words (all of them, the last one as a prefix; accents and case do not count; Chinese by characters) in
 * titles and messages: [{chat, title, message, excerpt}], best first, one row a chat.  Matches in `excerpt`
 * stand between U+0002 and U+0003. */
hd_status hd_store_search(hd_store *s, int64_t owner, const char *words, json_t **out, hd_err *err);
/* settings: a JSON object or NULL. */
hd_status hd_store_chat_add(hd_store *s, int64_t owner, const char *title, const char *system, const json_t *settings, int64_t *id,
                            hd_err *err);
/* {id, title, pinned, system, settings, head, created, changed}, with `messages` when asked:
 * [{id, parent, role, text, thinking, state, info, created}]. */
hd_status hd_store_chat_get(hd_store *s, int64_t owner, int64_t id, bool messages, json_t **out, hd_err *err);
/* Takes over those of title, pinned, system, settings, head that `set` has. */
hd_status hd_store_chat_set(hd_store *s, int64_t owner, int64_t id, const json_t *set, hd_err *err);
hd_status hd_store_chat_delete(hd_store *s, int64_t owner, int64_t id, hd_err *err);
hd_status hd_store_wipe(hd_store *s, int64_t owner, hd_err *err); // all of an owner's chats

/* ---- Messages ---- */

/* role: "user" or "assistant".  parent 0: none.  state: "done", "running", "stopped", "length", "failed",
 * "interrupted".  Becomes the chat's head; a chat without a title gets its first question's first words. */
hd_status hd_store_message_add(hd_store *s, int64_t owner, int64_t chat, int64_t parent, const char *role, const char *text,
                               const char *state, int64_t *id, hd_err *err);
/* What an answer has become.  info: an object or NULL (unchanged). */
hd_status hd_store_message_save(hd_store *s, int64_t owner, int64_t id, const char *text, const char *thinking, const char *state,
                                const json_t *info, hd_err *err);
/* With everything that follows it; the head moves to its parent when it was among that. */
hd_status hd_store_message_delete(hd_store *s, int64_t owner, int64_t id, hd_err *err);
/* From the first message to this one: [{id, role, text, thinking, state}], and the chat it belongs to. */
hd_status hd_store_path(hd_store *s, int64_t owner, int64_t message, int64_t *chat, json_t **out, hd_err *err);

/* ---- Carrying chats elsewhere ---- */

/* {"format": "hadal-chats", "version": 1, "chats": [...]}: one chat, or all with id 0. */
hd_status hd_store_export(hd_store *s, int64_t owner, int64_t id, json_t **out, hd_err *err);
/* The shown branch as Markdown. */
hd_status hd_store_export_md(hd_store *s, int64_t owner, int64_t id, hd_buf *out, hd_err *err);
/* Adds what an export holds, all of it or nothing.  HD_FORMAT says which chat and message is wrong. */
hd_status hd_store_import(hd_store *s, int64_t owner, const json_t *all, int64_t *n_chats, hd_err *err);
/* A consistent copy while others read and write (SQLite's online backup), written beside `to` and
 * renamed over it. */
hd_status hd_store_backup(const char *from, const char *to, hd_err *err);

#endif
