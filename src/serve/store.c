/* The store: opening, transactions, chats and messages.  Search is in store_search.c, export, import and
 * backup in store_carry.c.
 *
 * Tables (version 1, in PRAGMA user_version):
 *
 *   chat     id, owner, title, pinned, system, settings (JSON), head, created_ms, changed_ms
 *   message  id, chat, parent, role, text, thinking, state, info (JSON), created_ms
 *   search   full-text index (FTS5): rowid is a message's id, or minus a chat's id for its title
 *
 * Ids grow and are never used twice, so that a page which still shows a deleted message cannot hit another.
 * An answer is indexed once it is finished; while it runs its text is saved about once a second, and a
 * crash leaves that. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/utf8.h"
#include "model/json.h"
#include "serve/store_impl.h"

static const char schema[] =
    "CREATE TABLE chat(id INTEGER PRIMARY KEY AUTOINCREMENT, owner INTEGER NOT NULL, title TEXT NOT NULL, pinned INTEGER NOT NULL DEFAULT 0,"
    " system TEXT NOT NULL DEFAULT '', settings TEXT NOT NULL DEFAULT '{}', head INTEGER, created_ms INTEGER NOT NULL,"
    " changed_ms INTEGER NOT NULL);"
    "CREATE INDEX chat_order ON chat(owner, pinned DESC, changed_ms DESC);"
    "CREATE TABLE message(id INTEGER PRIMARY KEY AUTOINCREMENT, chat INTEGER NOT NULL REFERENCES chat(id) ON DELETE CASCADE,"
    " parent INTEGER REFERENCES message(id) ON DELETE CASCADE, role TEXT NOT NULL, text TEXT NOT NULL, thinking TEXT NOT NULL DEFAULT '',"
    " state TEXT NOT NULL, info TEXT NOT NULL DEFAULT '{}', created_ms INTEGER NOT NULL);"
    "CREATE INDEX message_chat ON message(chat);"
    "CREATE INDEX message_parent ON message(parent);"
    "CREATE INDEX message_running ON message(state) WHERE state = 'running';"
    "CREATE VIRTUAL TABLE search USING fts5(text, tokenize = 'unicode61 remove_diacritics 2');"
    "PRAGMA user_version = 1;";

int64_t hd_store_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- Statements ---- */

static hd_status status_of(int code)
{
    switch (code & 0xff) {
    case SQLITE_NOMEM: return HD_NOMEM;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: return HD_FORMAT;
    case SQLITE_TOOBIG: return HD_LIMIT;
    default: return HD_IO;
    }
}

hd_status hd_store_fail(hd_store *s, const char *what, hd_err *err)
{
    int code = s->db ? sqlite3_extended_errcode(s->db) : SQLITE_NOMEM;
    const char *why = s->db ? sqlite3_errmsg(s->db) : "no memory";
    return hd_fail(err, status_of(code), "store: %s: %.200s: %.200s", what, s->path, why);
}

static hd_status bind_all(sqlite3_stmt *q, const char *types, va_list ap)
{
    for (int i = 1; *types; i++, types++) {
        int code = SQLITE_OK;
        if (*types == 't') {
            code = sqlite3_bind_text(q, i, va_arg(ap, const char *), -1, SQLITE_STATIC);
        } else {
            int64_t v = va_arg(ap, int64_t);
            code = *types == 'n' && v == 0 ? sqlite3_bind_null(q, i) : sqlite3_bind_int64(q, i, v);
        }
        if (code != SQLITE_OK) return HD_IO;
    }
    return HD_OK;
}

static hd_status query_v(hd_store *s, sqlite3_stmt **out, hd_err *err, const char *sql, const char *types, va_list ap)
{
    *out = NULL;
    if (sqlite3_prepare_v2(s->db, sql, -1, out, NULL) != SQLITE_OK || bind_all(*out, types, ap) != HD_OK) {
        hd_status st = hd_store_fail(s, "query", err);
        sqlite3_finalize(*out);
        *out = NULL;
        return st;
    }
    return HD_OK;
}

hd_status hd_store_query(hd_store *s, sqlite3_stmt **out, hd_err *err, const char *sql, const char *types, ...)
{
    va_list ap;
    va_start(ap, types);
    hd_status st = query_v(s, out, err, sql, types, ap);
    va_end(ap);
    return st;
}

hd_status hd_store_row(hd_store *s, sqlite3_stmt *q, bool *more, hd_err *err)
{
    int code = sqlite3_step(q);
    *more = code == SQLITE_ROW;
    return code == SQLITE_ROW || code == SQLITE_DONE ? HD_OK : hd_store_fail(s, "read or write", err);
}

hd_status hd_store_do(hd_store *s, hd_err *err, const char *sql, const char *types, ...)
{
    sqlite3_stmt *q;
    va_list ap;
    bool more = true;
    va_start(ap, types);
    hd_status st = query_v(s, &q, err, sql, types, ap);
    va_end(ap);
    while (st == HD_OK && more) st = hd_store_row(s, q, &more, err);
    sqlite3_finalize(q);
    return st;
}

static hd_status exec(hd_store *s, const char *sql, const char *what, hd_err *err)
{
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? HD_OK : hd_store_fail(s, what, err);
}

/* ---- Transactions ---- */

hd_status hd_store_begin(hd_store *s, hd_err *err)
{
    hd_status st = exec(s, "BEGIN IMMEDIATE", "begin", err);
    s->group = st == HD_OK;
    return st;
}

void hd_store_rollback(hd_store *s)
{
    if (!sqlite3_get_autocommit(s->db)) sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    s->group = false;
}

hd_status hd_store_commit(hd_store *s, hd_err *err)
{
    /* Some failures (a full disk) undo the whole transaction by themselves: then there is
     * nothing left to commit. */
    if (sqlite3_get_autocommit(s->db)) {
        s->group = false;
        return hd_fail(err, HD_IO, "store: commit: %.200s: the disk refused an earlier write", s->path);
    }
    hd_status st = exec(s, "COMMIT", "commit", err);
    if (st != HD_OK) hd_store_rollback(s);
    s->group = false;
    return st;
}

hd_status hd_store_enter(hd_store *s, hd_err *err)
{
    if (s->group && sqlite3_get_autocommit(s->db))
        return hd_fail(err, HD_IO, "store: write: %.200s: the disk refused an earlier write", s->path);
    return exec(s, s->group ? "SAVEPOINT one" : "BEGIN IMMEDIATE", "begin", err);
}

hd_status hd_store_leave(hd_store *s, hd_status st, hd_err *err)
{
    if (st == HD_OK) st = exec(s, s->group ? "RELEASE one" : "COMMIT", "commit", err);
    if (st != HD_OK && !sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, s->group ? "ROLLBACK TO one; RELEASE one" : "ROLLBACK", NULL, NULL, NULL);
    return st;
}

hd_status hd_store_together(hd_store *s, hd_status (*fn)(void *arg, hd_store *s, hd_err *err), void *arg, hd_err *err)
{
    hd_status st = HD_OK;
    bool own = !s->group;
    if (own) HD_TRY(hd_store_begin(s, err));
    st = exec(s, "SAVEPOINT together", "begin", err);
    if (st == HD_OK) st = fn(arg, s, err);
    if (st != HD_OK && !sqlite3_get_autocommit(s->db)) sqlite3_exec(s->db, "ROLLBACK TO together", NULL, NULL, NULL);
    if (!sqlite3_get_autocommit(s->db)) sqlite3_exec(s->db, "RELEASE together", NULL, NULL, NULL);
    if (!own) goto fail;
    if (st == HD_OK) st = hd_store_commit(s, err);
    else hd_store_rollback(s);
fail:
    return st;
}

/* ---- Opening ---- */

static hd_status prepare_file(hd_store *s, hd_err *err)
{
    hd_status st;
    sqlite3_stmt *q = NULL;
    bool more;
    HD_TRY(exec(s, "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = ON;", "open", err));
    HD_TRY(hd_store_query(s, &q, err, "PRAGMA user_version", ""));
    HD_TRY(hd_store_row(s, q, &more, err));
    int64_t version = more ? sqlite3_column_int64(q, 0) : 0;
    sqlite3_finalize(q);
    q = NULL;
    if (version > 1)
        HD_TRY(hd_fail(err, HD_FORMAT, "store: open: %.200s: made by a newer hadal (version %lld of its tables)", s->path,
                       (long long)version));
    HD_TRY(hd_store_enter(s, err));
    st = version == 0 ? exec(s, schema, "make tables", err) : HD_OK;
    if (st == HD_OK) st = hd_store_do(s, err, "UPDATE message SET state = 'interrupted' WHERE state = 'running'", "");
    st = hd_store_leave(s, st, err);
fail:
    sqlite3_finalize(q);
    return st;
}

hd_status hd_store_open(hd_store **out, const char *path, hd_err *err)
{
    hd_status st;
    hd_store *s = NULL;
    *out = NULL;
    HD_TRY(hd_alloc(&s, sizeof *s, err));
    if (strlen(path) >= sizeof s->path) HD_TRY(hd_fail(err, HD_LIMIT, "store: open: %.100s...: the path is too long", path));
    memcpy(s->path, path, strlen(path) + 1);
    /* Made here and not by SQLite, which would make it readable for others; its -wal and -shm
     * files copy the mode. */
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    struct stat sb;
    if (fd < 0) HD_TRY(hd_fail_errno(err, "store: open: %.200s", path));
    bool regular = fstat(fd, &sb) == 0 && S_ISREG(sb.st_mode);
    close(fd);
    if (!regular) HD_TRY(hd_fail(err, HD_IO, "store: open: %.200s: no regular file", path));
    if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_FULLMUTEX, NULL) != SQLITE_OK)
        HD_TRY(hd_store_fail(s, "open", err));
    sqlite3_extended_result_codes(s->db, 1);
    sqlite3_busy_timeout(s->db, 2000); // `hadal backup` may hold it for a moment
    sqlite3_limit(s->db, SQLITE_LIMIT_LENGTH, 64 << 20);
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    HD_TRY(prepare_file(s, err));
    *out = s;
    return HD_OK;
fail:
    hd_store_close(s);
    return st;
}

void hd_store_close(hd_store *s)
{
    if (!s) return;
    sqlite3_close(s->db);
    free(s);
}

/* ---- Rows to JSON ---- */

static json_t *json_of(sqlite3_stmt *q, int col)
{
    const char *text = hd_store_text(q, col);
    json_t *v = hd_json_load(text, strlen(text), 0, NULL);
    return json_is_object(v) ? v : (json_decref(v), json_object());
}

static json_t *id_or_null(sqlite3_stmt *q, int col)
{
    return sqlite3_column_type(q, col) == SQLITE_NULL ? json_null() : json_integer(sqlite3_column_int64(q, col));
}

/* Text that reached the file through this store is UTF-8; what another program put there may not be, and
 * would make json_pack fail. */
static json_t *text_of(sqlite3_stmt *q, int col)
{
    const char *t = hd_store_text(q, col);
    json_t *v = json_string(t);
    if (v) return v;
    hd_buf b;
    hd_buf_init(&b, SIZE_MAX);
    if (hd_utf8_repair(&b, t, strlen(t), NULL) == HD_OK) v = json_string(b.data ? b.data : "");
    hd_buf_free(&b);
    return v;
}

static hd_status append(json_t *list, json_t *row, hd_err *err)
{
    return json_array_append_new(list, row) == 0 ? HD_OK : hd_fail(err, HD_NOMEM, "store: rows: no memory");
}

#define CHAT_COLUMNS "id, title, pinned, created_ms, changed_ms, system, settings, head"
static json_t *chat_row(sqlite3_stmt *q, bool whole)
{
    json_t *o = json_pack("{s:I, s:o, s:b, s:I, s:I}", "id", (json_int_t)sqlite3_column_int64(q, 0), "title", text_of(q, 1), "pinned",
                          sqlite3_column_int(q, 2), "created", (json_int_t)sqlite3_column_int64(q, 3), "changed",
                          (json_int_t)sqlite3_column_int64(q, 4));
    if (o && whole) {
        json_object_set_new(o, "system", text_of(q, 5));
        json_object_set_new(o, "settings", json_of(q, 6));
        json_object_set_new(o, "head", id_or_null(q, 7));
    }
    return o;
}

#define MESSAGE_COLUMNS "id, parent, role, text, thinking, state, info, created_ms"
static json_t *message_row(sqlite3_stmt *q)
{
    return json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:I}", "id", (json_int_t)sqlite3_column_int64(q, 0), "parent", id_or_null(q, 1),
                     "role", text_of(q, 2), "text", text_of(q, 3), "thinking", text_of(q, 4), "state", text_of(q, 5), "info", json_of(q, 6),
                     "created", (json_int_t)sqlite3_column_int64(q, 7));
}

/* ---- Chats ---- */

hd_status hd_store_chats(hd_store *s, int64_t owner, int64_t offset, int64_t limit, json_t **out, hd_err *err)
{
    hd_status st;
    sqlite3_stmt *q = NULL;
    bool more;
    json_t *list = json_array();
    HD_TRY(hd_store_query(s, &q, err,
                          "SELECT " CHAT_COLUMNS " FROM chat WHERE owner = ? ORDER BY pinned DESC, changed_ms DESC, id DESC LIMIT ? OFFSET ?",
                          "iii", owner, limit, offset));
    for (;;) {
        HD_TRY(hd_store_row(s, q, &more, err));
        if (!more) break;
        HD_TRY(append(list, chat_row(q, false), err));
    }
    *out = json_incref(list);
fail:
    sqlite3_finalize(q);
    json_decref(list);
    return st;
}

/* HD_USAGE unless the chat is this owner's. */
static hd_status own_chat(hd_store *s, int64_t owner, int64_t id, hd_err *err)
{
    sqlite3_stmt *q;
    bool more = false;
    hd_status st = hd_store_query(s, &q, err, "SELECT 1 FROM chat WHERE id = ? AND owner = ?", "ii", id, owner);
    if (st == HD_OK) st = hd_store_row(s, q, &more, err);
    sqlite3_finalize(q);
    return st != HD_OK ? st : more ? HD_OK : hd_fail(err, HD_USAGE, "chat %lld: there is none", (long long)id);
}

/* The chat that a message of this owner's belongs to. */
static hd_status own_message(hd_store *s, int64_t owner, int64_t id, int64_t *chat, hd_err *err)
{
    sqlite3_stmt *q;
    bool more = false;
    hd_status st = hd_store_query(s, &q, err, "SELECT m.chat FROM message m JOIN chat c ON c.id = m.chat WHERE m.id = ? AND c.owner = ?",
                                  "ii", id, owner);
    if (st == HD_OK) st = hd_store_row(s, q, &more, err);
    if (st == HD_OK && more) *chat = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    return st != HD_OK ? st : more ? HD_OK : hd_fail(err, HD_USAGE, "message %lld: there is none", (long long)id);
}

hd_status hd_store_chat_add(hd_store *s, int64_t owner, const char *title, const char *system, const json_t *settings, int64_t *id,
                            hd_err *err)
{
    int64_t now = hd_store_now_ms();
    char *dump = settings ? json_dumps(settings, JSON_COMPACT) : NULL;
    hd_status st = hd_store_enter(s, err);
    if (st != HD_OK) goto out;
    st = hd_store_do(s, err, "INSERT INTO chat(owner, title, system, settings, created_ms, changed_ms) VALUES(?, ?, ?, ?, ?, ?)", "itttii",
                     owner, title ? title : "", system ? system : "", dump ? dump : "{}", now, now);
    *id = sqlite3_last_insert_rowid(s->db);
    if (st == HD_OK && title && *title) st = hd_store_index(s, -*id, title, err);
    st = hd_store_leave(s, st, err);
out:
    free(dump);
    return st;
}

static hd_status add_messages(hd_store *s, int64_t chat, json_t *o, hd_err *err)
{
    hd_status st;
    sqlite3_stmt *q = NULL;
    bool more;
    json_t *list = json_array();
    HD_TRY(hd_store_query(s, &q, err, "SELECT " MESSAGE_COLUMNS " FROM message WHERE chat = ? ORDER BY id", "i", chat));
    for (;;) {
        HD_TRY(hd_store_row(s, q, &more, err));
        if (!more) break;
        HD_TRY(append(list, message_row(q), err));
    }
    json_object_set(o, "messages", list);
fail:
    sqlite3_finalize(q);
    json_decref(list);
    return st;
}

hd_status hd_store_chat_get(hd_store *s, int64_t owner, int64_t id, bool messages, json_t **out, hd_err *err)
{
    hd_status st;
    sqlite3_stmt *q = NULL;
    bool more;
    json_t *o = NULL;
    HD_TRY(hd_store_query(s, &q, err, "SELECT " CHAT_COLUMNS " FROM chat WHERE id = ? AND owner = ?", "ii", id, owner));
    HD_TRY(hd_store_row(s, q, &more, err));
    if (!more) HD_TRY(hd_fail(err, HD_USAGE, "chat %lld: there is none", (long long)id));
    o = chat_row(q, true);
    if (!o) HD_TRY(hd_fail(err, HD_NOMEM, "store: rows: no memory"));
    if (messages) HD_TRY(add_messages(s, id, o, err));
    *out = json_incref(o);
fail:
    sqlite3_finalize(q);
    json_decref(o);
    return st;
}

static hd_status set_one(hd_store *s, int64_t owner, int64_t id, const char *key, const json_t *v, hd_err *err)
{
    hd_status st = HD_OK;
    if (strcmp(key, "title") == 0) {
        const char *t = json_string_value(v);
        if (!t || !*t || strlen(t) > HD_STORE_MAX_TITLE) return hd_fail(err, HD_FORMAT, "title: 1 to %d bytes are expected", HD_STORE_MAX_TITLE);
        HD_TRY(hd_store_do(s, err, "UPDATE chat SET title = ? WHERE id = ?", "ti", t, id));
        HD_TRY(hd_store_index(s, -id, t, err));
    } else if (strcmp(key, "pinned") == 0) {
        if (!json_is_boolean(v)) return hd_fail(err, HD_FORMAT, "pinned: true or false is expected");
        HD_TRY(hd_store_do(s, err, "UPDATE chat SET pinned = ? WHERE id = ?", "ii", (int64_t)json_is_true(v), id));
    } else if (strcmp(key, "system") == 0) {
        if (!json_is_string(v) || json_string_length(v) > HD_STORE_MAX_TEXT) return hd_fail(err, HD_FORMAT, "system: a text of at most 4 MiB is expected");
        HD_TRY(hd_store_do(s, err, "UPDATE chat SET system = ? WHERE id = ?", "ti", json_string_value(v), id));
    } else if (strcmp(key, "settings") == 0) {
        char *dump = json_is_object(v) ? json_dumps(v, JSON_COMPACT) : NULL;
        if (!dump || strlen(dump) > 65536) st = hd_fail(err, HD_FORMAT, "settings: an object of at most 64 KiB is expected");
        else st = hd_store_do(s, err, "UPDATE chat SET settings = ? WHERE id = ?", "ti", dump, id);
        free(dump);
    } else if (strcmp(key, "head") == 0) {
        int64_t chat = 0;
        if (!json_is_integer(v)) return hd_fail(err, HD_FORMAT, "head: the number of a message is expected");
        HD_TRY(own_message(s, owner, json_integer_value(v), &chat, err));
        if (chat != id) return hd_fail(err, HD_FORMAT, "head: message %lld: of another chat", (long long)json_integer_value(v));
        HD_TRY(hd_store_do(s, err, "UPDATE chat SET head = ? WHERE id = ?", "ii", (int64_t)json_integer_value(v), id));
    } // else: not ours, ignored
fail:
    return st;
}

hd_status hd_store_chat_set(hd_store *s, int64_t owner, int64_t id, const json_t *set, hd_err *err)
{
    const char *key;
    json_t *v;
    hd_status st = hd_store_enter(s, err);
    if (st != HD_OK) return st;
    st = own_chat(s, owner, id, err);
    json_object_foreach((json_t *)set, key, v)
    {
        if (st == HD_OK) st = set_one(s, owner, id, key, v, err);
    }
    return hd_store_leave(s, st, err);
}

static hd_status delete_chat_rows(hd_store *s, int64_t id, hd_err *err)
{
    hd_status st;
    HD_TRY(hd_store_do(s, err, "DELETE FROM search WHERE rowid IN (SELECT id FROM message WHERE chat = ?)", "i", id));
    HD_TRY(hd_store_do(s, err, "DELETE FROM search WHERE rowid = ?", "i", -id));
    HD_TRY(hd_store_do(s, err, "DELETE FROM chat WHERE id = ?", "i", id));
fail:
    return st;
}

hd_status hd_store_chat_delete(hd_store *s, int64_t owner, int64_t id, hd_err *err)
{
    hd_status st = hd_store_enter(s, err);
    if (st != HD_OK) return st;
    st = own_chat(s, owner, id, err);
    if (st == HD_OK) st = delete_chat_rows(s, id, err);
    return hd_store_leave(s, st, err);
}

hd_status hd_store_wipe(hd_store *s, int64_t owner, hd_err *err)
{
    hd_status st = hd_store_enter(s, err);
    if (st != HD_OK) return st;
    st = hd_store_do(s, err, "DELETE FROM search WHERE rowid IN (SELECT m.id FROM message m JOIN chat c ON c.id = m.chat WHERE c.owner = ?)",
                     "i", owner);
    if (st == HD_OK) st = hd_store_do(s, err, "DELETE FROM search WHERE rowid IN (SELECT -id FROM chat WHERE owner = ?)", "i", owner);
    if (st == HD_OK) st = hd_store_do(s, err, "DELETE FROM chat WHERE owner = ?", "i", owner);
    return hd_store_leave(s, st, err);
}

/* ---- Messages ---- */

/* A chat's first name: the first line of its first question, cut at a word. */
static hd_status name_chat(hd_store *s, int64_t chat, const char *text, hd_err *err)
{
    enum { MAX = 80 };
    char title[MAX + 4];
    text += strspn(text, " \t\r\n");
    size_t n = strcspn(text, "\r\n"), cut = n;
    if (n > MAX) {
        cut = hd_utf8_whole(text, MAX);
        for (size_t i = cut; i > MAX / 2; i--)
            if (text[i] == ' ') {
                cut = i;
                break;
            }
    }
    memcpy(title, text, cut);
    memcpy(title + cut, cut < n ? "…" : "", cut < n ? 4 : 1);
    if (!title[0]) return HD_OK;
    hd_status st = hd_store_do(s, err, "UPDATE chat SET title = ? WHERE id = ? AND title = ''", "ti", title, chat);
    return st == HD_OK && sqlite3_changes(s->db) ? hd_store_index(s, -chat, title, err) : st;
}

static hd_status check_room(hd_store *s, int64_t chat, hd_err *err)
{
    sqlite3_stmt *q;
    bool more;
    hd_status st = hd_store_query(s, &q, err, "SELECT count(*) FROM message WHERE chat = ?", "i", chat);
    if (st == HD_OK) st = hd_store_row(s, q, &more, err);
    if (st == HD_OK && sqlite3_column_int64(q, 0) >= HD_STORE_MAX_MESSAGES)
        st = hd_fail(err, HD_LIMIT, "chat %lld: it has the %d messages that a chat can have", (long long)chat, HD_STORE_MAX_MESSAGES);
    sqlite3_finalize(q);
    return st;
}

static hd_status add_message(hd_store *s, int64_t owner, int64_t chat, int64_t parent, const char *role, const char *text,
                             const char *state, int64_t *id, hd_err *err)
{
    hd_status st;
    int64_t parent_chat = chat, now = hd_store_now_ms();
    if (strlen(text) > HD_STORE_MAX_TEXT)
        HD_TRY(hd_fail(err, HD_LIMIT, "message: %zu bytes; at most %d are kept", strlen(text), HD_STORE_MAX_TEXT));
    HD_TRY(own_chat(s, owner, chat, err));
    if (parent) HD_TRY(own_message(s, owner, parent, &parent_chat, err));
    if (parent_chat != chat) HD_TRY(hd_fail(err, HD_USAGE, "message %lld: of another chat", (long long)parent));
    HD_TRY(check_room(s, chat, err));
    HD_TRY(hd_store_do(s, err, "INSERT INTO message(chat, parent, role, text, state, created_ms) VALUES(?, ?, ?, ?, ?, ?)", "inttti", chat,
                       parent, role, text, state, now));
    *id = sqlite3_last_insert_rowid(s->db);
    HD_TRY(hd_store_do(s, err, "UPDATE chat SET head = ?, changed_ms = ? WHERE id = ?", "iii", *id, now, chat));
    if (strcmp(state, "running") != 0) HD_TRY(hd_store_index(s, *id, text, err));
    if (strcmp(role, "user") == 0) HD_TRY(name_chat(s, chat, text, err));
fail:
    return st;
}

hd_status hd_store_message_add(hd_store *s, int64_t owner, int64_t chat, int64_t parent, const char *role, const char *text,
                               const char *state, int64_t *id, hd_err *err)
{
    hd_status st = hd_store_enter(s, err);
    if (st != HD_OK) return st;
    return hd_store_leave(s, add_message(s, owner, chat, parent, role, text, state, id, err), err);
}

static hd_status save_message(hd_store *s, int64_t owner, int64_t id, const char *text, const char *thinking, const char *state,
                              const char *info, hd_err *err)
{
    hd_status st;
    int64_t chat;
    bool running = strcmp(state, "running") == 0;
    HD_TRY(own_message(s, owner, id, &chat, err));
    HD_TRY(hd_store_do(s, err, "UPDATE message SET text = ?, thinking = ?, state = ?, info = coalesce(?, info) WHERE id = ?", "tttti", text,
                       thinking ? thinking : "", state, info, id));
    if (running) return HD_OK;
    HD_TRY(hd_store_index(s, id, text, err));
    HD_TRY(hd_store_do(s, err, "UPDATE chat SET changed_ms = ? WHERE id = ?", "ii", hd_store_now_ms(), chat));
fail:
    return st;
}

hd_status hd_store_message_save(hd_store *s, int64_t owner, int64_t id, const char *text, const char *thinking, const char *state,
                                const json_t *info, hd_err *err)
{
    char *dump = info ? json_dumps(info, JSON_COMPACT) : NULL;
    hd_status st = hd_store_enter(s, err);
    if (st == HD_OK) st = hd_store_leave(s, save_message(s, owner, id, text, thinking, state, dump, err), err);
    free(dump);
    return st;
}

#define SUBTREE "WITH RECURSIVE t(id) AS (SELECT ?1 UNION ALL SELECT m.id FROM message m JOIN t ON m.parent = t.id) "

static hd_status delete_message(hd_store *s, int64_t owner, int64_t id, hd_err *err)
{
    hd_status st;
    int64_t chat;
    HD_TRY(own_message(s, owner, id, &chat, err));
    HD_TRY(hd_store_do(s, err,
                       SUBTREE "UPDATE chat SET head = (SELECT parent FROM message WHERE id = ?1) WHERE id = ?2 AND head IN t", "ii", id,
                       chat));
    HD_TRY(hd_store_do(s, err, SUBTREE "DELETE FROM search WHERE rowid IN t", "i", id));
    HD_TRY(hd_store_do(s, err, SUBTREE "DELETE FROM message WHERE id IN t", "i", id));
fail:
    return st;
}

hd_status hd_store_message_delete(hd_store *s, int64_t owner, int64_t id, hd_err *err)
{
    hd_status st = hd_store_enter(s, err);
    if (st != HD_OK) return st;
    return hd_store_leave(s, delete_message(s, owner, id, err), err);
}

hd_status hd_store_path(hd_store *s, int64_t owner, int64_t message, int64_t *chat, json_t **out, hd_err *err)
{
    hd_status st;
    sqlite3_stmt *q = NULL;
    bool more;
    json_t *list = json_array();
    HD_TRY(own_message(s, owner, message, chat, err));
    HD_TRY(hd_store_query(s, &q, err,
                          "WITH RECURSIVE up(id, depth) AS (SELECT ?, 0 UNION ALL SELECT m.parent, depth + 1 FROM message m JOIN up ON"
                          " m.id = up.id WHERE m.parent IS NOT NULL)"
                          " SELECT m.id, m.parent, m.role, m.text, m.thinking, m.state, m.info, m.created_ms FROM up"
                          " JOIN message m ON m.id = up.id ORDER BY up.depth DESC",
                          "i", message));
    for (;;) {
        HD_TRY(hd_store_row(s, q, &more, err));
        if (!more) break;
        HD_TRY(append(list, message_row(q), err));
    }
    *out = json_incref(list);
fail:
    sqlite3_finalize(q);
    json_decref(list);
    return st;
}
