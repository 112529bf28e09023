/* JSON from outside, and JSON for machines: jansson, strict (duplicate keys refused, valid UTF-8, at most
 * 2048 levels), with a cap on how many values a text may hold, since a hundred megabytes of "[],[]," would
 * become gigabytes of objects. */
#ifndef HD_MODEL_JSON_H
#define HD_MODEL_JSON_H

#include <jansson.h>

#include "base/err.h"

/* What a text may hold, before it is parsed: commas and opening brackets outside of strings, which are never
 * fewer than its values less one, and the deepest nesting of brackets. */
typedef struct {
    size_t values;
    int depth;
} hd_json_extent;
hd_json_extent hd_json_measure(const char *p, size_t n);
/* Parse all of text[0..n).  kind and where begin the message.  *out: release with json_decref. */
hd_status hd_json_parse(json_t **out, const void *text, size_t n, size_t max_values, const char *kind,
                        const char *where, hd_err *err);
/* Was memory refused to Jansson, on this thread, since hd_json_note?  Values that are built in between
 * may lack a part. */
void hd_json_note(void);
bool hd_json_refused(void);
/* Jansson's json_loadb, which does not stand it when memory is refused to it: NULL then, and
 * hd_json_refused says so. */
json_t *hd_json_load(const char *p, size_t n, size_t flags, json_error_t *at);
/* A text of JSON and a line's end as a file; where that fails, what was there stays. */
hd_status hd_json_save(const char *path, const char *text, hd_err *err);
/* Print j and a line's end on standard output, whole or not at all.  j: taken; NULL (it could not be
 * made) is HD_NOMEM. */
hd_status hd_json_print_take(json_t *j, size_t flags, const char *what, hd_err *err);

#endif
