/* Between store.c (opening, transactions, rows) and its neighbours: how a statement is run. */
#ifndef HD_SERVE_STORE_IMPL_H
#define HD_SERVE_STORE_IMPL_H

#include <sqlite3.h>

#include "serve/store.h"

struct hd_store {
    sqlite3 *db;
    bool group;  // between begin and commit
    char path[512];
};

/* err from the connection's last failure: "store: what: why". */
hd_status hd_store_fail(hd_store *s, const char *what, hd_err *err);
/* A statement with its values bound: types is one letter a value: i int64_t, t const char * (NULL is NULL), n
 * int64_t with 0 as NULL.  Text is borrowed until the statement ends. */
hd_status hd_store_query(hd_store *s, sqlite3_stmt **out, hd_err *err, const char *sql, const char *types, ...);
/* The next row: *more says whether there is one. */
hd_status hd_store_row(hd_store *s, sqlite3_stmt *q, bool *more, hd_err *err);
/* For statements without rows. */
hd_status hd_store_do(hd_store *s, hd_err *err, const char *sql, const char *types, ...);
/* Everything between enter and leave happens or does not: leave(st) commits when st is HD_OK, else undoes,
 * and returns what became of it. */
hd_status hd_store_enter(hd_store *s, hd_err *err);
hd_status hd_store_leave(hd_store *s, hd_status st, hd_err *err);
/* Text of a column, never NULL. */
static inline const char *hd_store_text(sqlite3_stmt *q, int col)
{
    const char *t = (const char *)sqlite3_column_text(q, col);
    return t ? t : "";
}

/* ---- store_search.c ---- */
/* The text under which a row is found: what has no spaces between words (Chinese, Japanese) gets U+200B
 * between characters. */
hd_status hd_store_index(hd_store *s, int64_t row, const char *text, hd_err *err); // replaces the row's entry
int64_t hd_store_now_ms(void);

#endif
