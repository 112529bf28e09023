/* Carrying chats elsewhere: export as JSON and Markdown, import, and the online backup of the whole file. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "serve/store_impl.h"

/* ---- Export ---- */

static hd_status append_chat(hd_store *s, int64_t owner, int64_t id, json_t *list, hd_err *err)
{
    json_t *chat = NULL;
    hd_status st = hd_store_chat_get(s, owner, id, true, &chat, err);
    if (st == HD_OK && json_array_append_new(list, chat) != 0) st = hd_fail(err, HD_NOMEM, "store: export: no memory");
    return st;
}

hd_status hd_store_export(hd_store *s, int64_t owner, int64_t id, json_t **out, hd_err *err)
{
    hd_status st;
    sqlite3_stmt *q = NULL;
    bool more;
    json_t *list = json_array(), *o = json_pack("{s:s, s:i, s:O}", "format", "hadal-chats", "version", 1, "chats", list);
    if (!o) HD_TRY(hd_fail(err, HD_NOMEM, "store: export: no memory"));
    if (id) {
        HD_TRY(append_chat(s, owner, id, list, err));
    } else {
        HD_TRY(hd_store_query(s, &q, err, "SELECT id FROM chat WHERE owner = ? ORDER BY id", "i", owner));
        for (;;) {
            HD_TRY(hd_store_row(s, q, &more, err));
            if (!more) break;
            HD_TRY(append_chat(s, owner, sqlite3_column_int64(q, 0), list, err));
        }
    }
    *out = json_incref(o);
fail:
    sqlite3_finalize(q);
    json_decref(o);
    json_decref(list);
    return st;
}

/* Each line of text behind "> ". */
static hd_status add_quoted(hd_buf *out, const char *text, hd_err *err)
{
    hd_status st = HD_OK;
    while (*text) {
        size_t n = strcspn(text, "\n");
        HD_TRY(hd_buf_adds(out, "> ", err));
        HD_TRY(hd_buf_add(out, text, n, err));
        HD_TRY(hd_buf_adds(out, "\n", err));
        text += n + (text[n] == '\n');
    }
    HD_TRY(hd_buf_adds(out, "\n", err));
fail:
    return st;
}

static hd_status add_md(hd_buf *out, const json_t *m, hd_err *err)
{
    hd_status st;
    const char *role = json_string_value(json_object_get(m, "role")), *thinking = json_string_value(json_object_get(m, "thinking"));
    HD_TRY(hd_buf_addf(out, err, "## %s\n\n", strcmp(role, "user") == 0 ? "User" : "Assistant"));
    if (*thinking) HD_TRY(add_quoted(out, thinking, err));
    HD_TRY(hd_buf_adds(out, json_string_value(json_object_get(m, "text")), err));
    HD_TRY(hd_buf_adds(out, "\n\n", err));
fail:
    return st;
}

hd_status hd_store_export_md(hd_store *s, int64_t owner, int64_t id, hd_buf *out, hd_err *err)
{
    hd_status st;
    json_t *chat = NULL, *path = NULL;
    int64_t of;
    char day[32] = "";
    struct tm tm;
    HD_TRY(hd_store_chat_get(s, owner, id, false, &chat, err));
    const char *title = json_string_value(json_object_get(chat, "title")), *system = json_string_value(json_object_get(chat, "system"));
    const json_t *head = json_object_get(chat, "head");
    time_t created = (time_t)(json_integer_value(json_object_get(chat, "created")) / 1000);
    if (gmtime_r(&created, &tm)) strftime(day, sizeof day, "%Y-%m-%d %H:%M UTC", &tm);
    HD_TRY(hd_buf_addf(out, err, "# %s\n\n%s\n\n", *title ? title : "Chat", day));
    if (*system) {
        HD_TRY(hd_buf_adds(out, "## System\n\n", err));
        HD_TRY(hd_buf_adds(out, system, err));
        HD_TRY(hd_buf_adds(out, "\n\n", err));
    }
    if (json_is_integer(head)) HD_TRY(hd_store_path(s, owner, json_integer_value(head), &of, &path, err));
    for (size_t i = 0; i < json_array_size(path); i++) HD_TRY(add_md(out, json_array_get(path, i), err));
fail:
    json_decref(chat);
    json_decref(path);
    return st;
}

/* ---- Import ---- */

/* Old ids of one chat's messages and the ids they got. */
typedef struct {
    int64_t from, to;
} renamed;

static int64_t new_id(const renamed *r, size_t n, int64_t from)
{
    for (size_t i = n; i-- > 0;) // a parent is nearly always the one before
        if (r[i].from == from) return r[i].to;
    return 0;
}

static bool is_state(const char *s)
{
    static const char *const known[] = {"done", "stopped", "length", "failed", "interrupted", "running"};
    for (size_t i = 0; s && i < sizeof known / sizeof known[0]; i++)
        if (strcmp(s, known[i]) == 0) return true;
    return false;
}

static hd_status import_message(hd_store *s, int64_t owner, int64_t chat, const json_t *m, renamed *r, size_t n, hd_err *err)
{
    hd_status st;
    const json_t *parent = json_object_get(m, "parent"), *info = json_object_get(m, "info"), *created = json_object_get(m, "created");
    const char *role = json_string_value(json_object_get(m, "role")), *text = json_string_value(json_object_get(m, "text"));
    const char *thinking = json_string_value(json_object_get(m, "thinking")), *state = json_string_value(json_object_get(m, "state"));
    int64_t up = 0;
    if (!role || !text || (strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0))
        return hd_fail(err, HD_FORMAT, "message %zu: role (user or assistant) and text are needed", n);
    if (!json_is_integer(json_object_get(m, "id"))) return hd_fail(err, HD_FORMAT, "message %zu: id is no number", n);
    if (thinking && strlen(thinking) > HD_STORE_MAX_TEXT) return hd_fail(err, HD_FORMAT, "message %zu: its thinking is over 4 MiB", n);
    if (info && json_is_object(info) && json_dumpb(info, NULL, 0, JSON_COMPACT) > 65536)
        return hd_fail(err, HD_FORMAT, "message %zu: its info is over 64 KiB", n);
    if (json_is_integer(parent)) {
        up = new_id(r, n, json_integer_value(parent));
        if (!up) return hd_fail(err, HD_FORMAT, "message %zu: its parent %lld does not come before it", n, (long long)json_integer_value(parent));
    }
    bool known = is_state(state) && strcmp(state, "running") != 0;
    r[n].from = json_integer_value(json_object_get(m, "id"));
    HD_TRY(hd_store_message_add(s, owner, chat, up, role, text, "done", &r[n].to, err));
    HD_TRY(hd_store_message_save(s, owner, r[n].to, text, thinking ? thinking : "", known ? state : state ? "interrupted" : "done",
                                 json_is_object(info) ? info : NULL, err));
    if (json_is_integer(created))
        HD_TRY(hd_store_do(s, err, "UPDATE message SET created_ms = ? WHERE id = ?", "ii", (int64_t)json_integer_value(created), r[n].to));
fail:
    return st;
}

static hd_status import_chat(hd_store *s, int64_t owner, const json_t *c, hd_err *err)
{
    hd_status st;
    const json_t *list = json_object_get(c, "messages"), *head = json_object_get(c, "head"), *settings = json_object_get(c, "settings");
    const json_t *created = json_object_get(c, "created"), *changed = json_object_get(c, "changed");
    const char *title = json_string_value(json_object_get(c, "title")), *system = json_string_value(json_object_get(c, "system"));
    size_t n = json_array_size(list);
    int64_t id = 0;
    renamed *r = NULL;
    if (!json_is_array(list) || n > HD_STORE_MAX_MESSAGES)
        HD_TRY(hd_fail(err, HD_FORMAT, "messages: a list of at most %d is expected", HD_STORE_MAX_MESSAGES));
    if (title && strlen(title) > HD_STORE_MAX_TITLE) HD_TRY(hd_fail(err, HD_FORMAT, "title: too long"));
    if (system && strlen(system) > HD_STORE_MAX_TEXT) HD_TRY(hd_fail(err, HD_FORMAT, "system: over 4 MiB"));
    if (settings && json_dumpb(settings, NULL, 0, JSON_COMPACT) > 65536) HD_TRY(hd_fail(err, HD_FORMAT, "settings: over 64 KiB"));
    HD_TRY(hd_alloc_n(&r, n, sizeof *r, err));
    HD_TRY(hd_store_chat_add(s, owner, title, system, json_is_object(settings) ? settings : NULL, &id, err));
    for (size_t i = 0; i < n; i++) HD_TRY(import_message(s, owner, id, json_array_get(list, i), r, i, err));
    int64_t to = json_is_integer(head) ? new_id(r, n, json_integer_value(head)) : 0;
    HD_TRY(hd_store_do(s, err, "UPDATE chat SET pinned = ?, head = coalesce(?, head) WHERE id = ?", "ini",
                       (int64_t)json_is_true(json_object_get(c, "pinned")), to, id));
    if (json_is_integer(created) && json_is_integer(changed))
        HD_TRY(hd_store_do(s, err, "UPDATE chat SET created_ms = ?, changed_ms = ? WHERE id = ?", "iii",
                           (int64_t)json_integer_value(created), (int64_t)json_integer_value(changed), id));
fail:
    free(r);
    return st;
}

typedef struct {
    int64_t owner;
    const json_t *all;
} importing;

static hd_status import_chats(void *arg, hd_store *s, hd_err *err)
{
    const importing *in = arg;
    hd_err why = {0};
    hd_status st = HD_OK;
    const json_t *chats = json_object_get(in->all, "chats");
    for (size_t i = 0; i < json_array_size(chats) && st == HD_OK; i++) {
        st = import_chat(s, in->owner, json_array_get(chats, i), &why);
        if (st == HD_FORMAT || st == HD_LIMIT) hd_fail(err, st, "import: chat %zu: %.300s", i, why.msg);
        else if (st != HD_OK && err) *err = why; // the disk's own words
    }
    return st;
}

hd_status hd_store_import(hd_store *s, int64_t owner, const json_t *all, int64_t *n_chats, hd_err *err)
{
    const json_t *chats = json_object_get(all, "chats");
    const char *format = json_string_value(json_object_get(all, "format"));
    importing in = {owner, all};
    *n_chats = 0;
    if (!format || strcmp(format, "hadal-chats") != 0 || json_integer_value(json_object_get(all, "version")) != 1 || !json_is_array(chats))
        return hd_fail(err, HD_FORMAT, "import: this is no export of hadal's chats (format hadal-chats, version 1)");
    hd_status st = hd_store_together(s, import_chats, &in, err);
    if (st == HD_OK) *n_chats = (int64_t)json_array_size(chats);
    return st;
}

/* ---- Backup ---- */

static hd_status copy(sqlite3 *from, sqlite3 *to, const char *path, hd_err *err)
{
    sqlite3_backup *b = sqlite3_backup_init(to, "main", from, "main");
    if (!b) return hd_fail(err, HD_IO, "backup: %.200s: %.200s", path, sqlite3_errmsg(to));
    int code, tries = 0;
    /* In pieces, so that the server can write in between; SQLite starts over when it did, hence all at once
     * after some rounds. */
    do {
        code = sqlite3_backup_step(b, tries < 8 ? 4096 : -1);
        if (code == SQLITE_BUSY || code == SQLITE_LOCKED) sqlite3_sleep(20);
        tries++;
    } while (code == SQLITE_OK || ((code == SQLITE_BUSY || code == SQLITE_LOCKED) && tries < 500));
    sqlite3_backup_finish(b);
    if (code != SQLITE_DONE) return hd_fail(err, HD_IO, "backup: %.200s: %.200s", path, sqlite3_errstr(code));
    return HD_OK;
}

static hd_status check_whole(sqlite3 *db, const char *path, hd_err *err)
{
    sqlite3_stmt *q = NULL;
    bool good = sqlite3_prepare_v2(db, "PRAGMA quick_check", -1, &q, NULL) == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW &&
                strcmp(hd_store_text(q, 0), "ok") == 0;
    sqlite3_finalize(q);
    return good ? HD_OK : hd_fail(err, HD_FORMAT, "backup: %.200s: the copy is damaged, as the original must be", path);
}

hd_status hd_store_backup(const char *from, const char *to, hd_err *err)
{
    hd_status st = HD_OK;
    char tmp[600];
    sqlite3 *in = NULL, *out = NULL;
    int fd = -1;
    struct stat sb;
    tmp[0] = 0;
    if (strlen(to) > 500) HD_TRY(hd_fail(err, HD_LIMIT, "backup: %.100s...: the path is too long", to));
    if (stat(from, &sb) != 0) HD_TRY(hd_fail_errno(err, "backup: %.200s", from));
    if (!S_ISREG(sb.st_mode)) HD_TRY(hd_fail(err, HD_IO, "backup: %.200s: no regular file", from));
    snprintf(tmp, sizeof tmp, "%s.part-%ld", to, (long)getpid());
    fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        st = hd_fail_errno(err, "backup: %.200s", tmp);
        tmp[0] = 0; // not ours to remove
        goto fail;
    }
    if (sqlite3_open_v2(from, &in, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
        HD_TRY(hd_fail(err, HD_IO, "backup: %.200s: %.200s", from, in ? sqlite3_errmsg(in) : "no memory"));
    sqlite3_busy_timeout(in, 2000);
    if (sqlite3_open_v2(tmp, &out, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
        HD_TRY(hd_fail(err, HD_IO, "backup: %.200s: %.200s", tmp, out ? sqlite3_errmsg(out) : "no memory"));
    HD_TRY(copy(in, out, from, err));
    /* A copy of a WAL file says so in its head; alone it is better off with the old kind of journal, which
     * needs no second file. */
    sqlite3_exec(out, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL);
    HD_TRY(check_whole(out, from, err));
    sqlite3_close(out);
    out = NULL;
    if (fsync(fd) != 0 || rename(tmp, to) != 0) HD_TRY(hd_fail_errno(err, "backup: %.200s", to));
    tmp[0] = 0;
fail:
    sqlite3_close(out);
    sqlite3_close(in);
    if (fd >= 0) close(fd);
    if (tmp[0]) unlink(tmp);
    return st;
}
