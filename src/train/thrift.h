/* Thrift's compact protocol, read: what Parquet writes its footer and page headers in.
 * (github.com/apache/thrift, doc/specs/thrift-compact-protocol.md)
 *
 * A cursor remembers its first error (`bad`), after which every call gives nothing, so that a reader may go
 * through a whole structure and ask once:
 *
 *     hd_thrift_field f = {0};
 *     while (hd_thrift_next(c, &f)) {
 *         if (f.id == 1) x = hd_thrift_int(c, &f);
 *         else hd_thrift_skip(c, &f);
 *     }
 *     if (c->bad) ... */
#ifndef HD_TRAIN_THRIFT_H
#define HD_TRAIN_THRIFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *p, *end;
    bool bad;
} hd_thrift;

typedef enum { // of the wire
    HD_THRIFT_TRUE = 1,
    HD_THRIFT_FALSE,
    HD_THRIFT_BYTE,
    HD_THRIFT_I16,
    HD_THRIFT_I32,
    HD_THRIFT_I64,
    HD_THRIFT_DOUBLE,
    HD_THRIFT_BINARY,
    HD_THRIFT_LIST,
    HD_THRIFT_SET,
    HD_THRIFT_MAP,
    HD_THRIFT_STRUCT,
} hd_thrift_type;

typedef struct {
    int id, type;
} hd_thrift_field;

bool hd_thrift_next(hd_thrift *c, hd_thrift_field *f); // false: the structure ended, or bad
void hd_thrift_skip(hd_thrift *c, const hd_thrift_field *f);
/* The field's value; another type than this is bad. */
int64_t hd_thrift_int(hd_thrift *c, const hd_thrift_field *f);
bool hd_thrift_bool(hd_thrift *c, const hd_thrift_field *f);
const char *hd_thrift_text(hd_thrift *c, const hd_thrift_field *f, size_t *n); // borrowed, no NUL
void hd_thrift_struct(hd_thrift *c, const hd_thrift_field *f);                 // checks; its fields come next
/* Elements of a list of structures, never more than bytes are left; each element's fields come next. */
int64_t hd_thrift_structs(hd_thrift *c, const hd_thrift_field *f);

#endif
