/* Full-text search over titles and messages.
 *
 * FTS5's unicode61 tokenizer cuts words at spaces and punctuation and forgets case and accents; Chinese
 * and Japanese have no spaces, so there each character is made a word of its own by U+200B (which is no
 * letter, and shows as nothing) on both sides of the comparison: in the index, and in the question, where
 * what was written together becomes a phrase.  The question's words are quoted, so that none of FTS5's
 * own syntax reaches it. */
#include <ctype.h>
#include <string.h>

#include "base/utf8.h"
#include "serve/store_impl.h"

static const char ZWSP[] = "\xe2\x80\x8b";

/* Scripts written without spaces: kana, CJK, and the supplementary ideographs.  (Thai and Khmer need a
 * dictionary; they are found by the beginning of a phrase only.) */
static bool is_alone(int32_t c)
{
    return (c >= 0x3040 && c <= 0x30ff) || (c >= 0x3400 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0x20000 && c <= 0x3ffff);
}

static hd_status fold(hd_buf *out, const char *text, size_t n, hd_err *err)
{
    hd_status st = HD_OK;
    bool alone_before = false;
    for (size_t i = 0; i < n;) {
        int32_t c;
        int len = hd_utf8_next((const uint8_t *)text + i, n - i, &c);
        bool alone = is_alone(c), control = c >= 0 && c < 32 && c != '\n' && c != '\t';
        if (i && (alone || alone_before)) HD_TRY(hd_buf_adds(out, ZWSP, err));
        if (c < 0 || control) HD_TRY(hd_buf_adds(out, " ", err)); // U+0002 and U+0003 mark matches
        else HD_TRY(hd_buf_add(out, text + i, (size_t)len, err));
        alone_before = alone;
        i += (size_t)len;
    }
fail:
    return st;
}

hd_status hd_store_index(hd_store *s, int64_t row, const char *text, hd_err *err)
{
    hd_status st;
    hd_buf b;
    hd_buf_init(&b, (size_t)HD_STORE_MAX_TEXT * 4);
    HD_TRY(hd_store_do(s, err, "DELETE FROM search WHERE rowid = ?", "i", row));
    HD_TRY(fold(&b, text, strlen(text), err));
    if (b.len) HD_TRY(hd_store_do(s, err, "INSERT INTO search(rowid, text) VALUES(?, ?)", "it", row, b.data));
fail:
    hd_buf_free(&b);
    return st;
}

/* FTS5's form of the words: "one" "two" "thr"* */
static hd_status match_of(hd_buf *out, const char *words, hd_err *err)
{
    hd_status st = HD_OK;
    int n_words = 0;
    for (const char *w = words; *w && n_words < 16;) {
        w += strspn(w, " \t\r\n\"");
        size_t n = strcspn(w, " \t\r\n\"");
        bool letters = false;
        for (size_t i = 0; i < n; i++) letters |= isalnum((unsigned char)w[i]) || (unsigned char)w[i] >= 0x80;
        if (letters) {
            HD_TRY(hd_buf_adds(out, n_words++ ? " \"" : "\"", err));
            HD_TRY(fold(out, w, n, err));
            HD_TRY(hd_buf_adds(out, "\"", err));
        }
        w += n;
        if (!*w && letters) HD_TRY(hd_buf_adds(out, " *", err)); // still being typed
    }
fail:
    return st;
}

/* An excerpt without the characters that fold put in. */
static json_t *unfolded(const char *t)
{
    hd_buf b;
    hd_buf_init(&b, 1 << 16);
    hd_status st = HD_OK;
    while (*t && st == HD_OK) {
        const char *next = strstr(t, ZWSP);
        size_t n = next ? (size_t)(next - t) : strlen(t);
        st = hd_buf_add(&b, t, n, NULL);
        t += n + (next ? 3 : 0);
    }
    json_t *v = st == HD_OK ? json_string(b.data ? b.data : "") : NULL;
    hd_buf_free(&b);
    return v;
}

hd_status hd_store_search(hd_store *s, int64_t owner, const char *words, json_t **out, hd_err *err)
{
    enum { MAX_WORDS_BYTES = 1000, MAX_ROWS = 300, MAX_CHATS = 50 };
    hd_status st;
    sqlite3_stmt *q = NULL;
    bool more;
    hd_buf match;
    hd_buf_init(&match, MAX_WORDS_BYTES * 5);
    json_t *list = json_array(), *seen = json_object();
    if (strlen(words) > MAX_WORDS_BYTES) HD_TRY(hd_fail(err, HD_LIMIT, "search: %zu bytes; at most %d", strlen(words), MAX_WORDS_BYTES));
    HD_TRY(match_of(&match, words, err));
    if (match.len) {
        HD_TRY(hd_store_query(s, &q, err,
                              "SELECT c.id, c.title, CASE WHEN search.rowid > 0 THEN search.rowid END,"
                              " snippet(search, 0, char(2), char(3), '…', 16)"
                              " FROM search LEFT JOIN message m ON m.id = search.rowid"
                              " JOIN chat c ON c.id = coalesce(m.chat, -search.rowid)"
                              " WHERE search MATCH ? AND c.owner = ? ORDER BY search.rowid > 0, rank LIMIT ?",
                              "tii", match.data, owner, (int64_t)MAX_ROWS));
        for (;;) {
            HD_TRY(hd_store_row(s, q, &more, err));
            if (!more || json_array_size(list) >= MAX_CHATS) break;
            char key[32];
            snprintf(key, sizeof key, "%lld", (long long)sqlite3_column_int64(q, 0));
            if (json_object_get(seen, key)) continue;
            json_object_set_new(seen, key, json_true());
            bool titled = sqlite3_column_type(q, 2) == SQLITE_NULL;
            json_t *row = json_pack("{s:I, s:s, s:o, s:o}", "chat", (json_int_t)sqlite3_column_int64(q, 0), "title", hd_store_text(q, 1),
                                    "message", titled ? json_null() : json_integer(sqlite3_column_int64(q, 2)), "excerpt",
                                    unfolded(hd_store_text(q, 3)));
            if (json_array_append_new(list, row) != 0) HD_TRY(hd_fail(err, HD_NOMEM, "store: search: no memory"));
        }
    }
    *out = json_incref(list);
fail:
    sqlite3_finalize(q);
    json_decref(seen);
    json_decref(list);
    hd_buf_free(&match);
    return st;
}
