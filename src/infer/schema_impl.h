/* Inside the compiler of JSON schemas.  Private to src/infer.
 *
 *   schema.c          values: which keywords there are, types, references, enum, anyOf, objects, arrays
 *   schema_string.c   lengths, formats, keys          schema_pattern.c  regular expressions
 *   schema_number.c   ranges of numbers, as digits    schema_merge.c    two schemas at once; can two both hold? */
#ifndef HD_INFER_SCHEMA_IMPL_H
#define HD_INFER_SCHEMA_IMPL_H

#include "infer/grammar_impl.h"

/* Where in the schema something stands: the way back to its root, for messages. */
typedef struct hd_where {
    const struct hd_where *up;
    const char *key; // NULL: index counts
    size_t index;
    int depth;
} hd_where;

typedef struct {
    hd_builder *b;
    const json_t *root;
    int steps;          // schemas that may still be read
    const json_t **ref; // targets of references whose rules have no body yet ...
    int32_t *ref_rule;  // ... and those rules
    int n_ref, cap_ref;
} hd_schema;

enum {
    HD_TYPE_NULL = 1,
    HD_TYPE_BOOLEAN = 2,
    HD_TYPE_INTEGER = 4,
    HD_TYPE_NUMBER = 8, // with HD_TYPE_INTEGER: all numbers
    HD_TYPE_STRING = 16,
    HD_TYPE_ARRAY = 32,
    HD_TYPE_OBJECT = 64,
    HD_TYPE_ALL = 127,
};

hd_status hd_schema_fail(hd_schema *s, const hd_where *w, hd_status st, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static inline hd_where hd_where_key(const hd_where *up, const char *key)
{
    return (hd_where){up, key, 0, up->depth + 1};
}
static inline hd_where hd_where_index(const hd_where *up, size_t i)
{
    return (hd_where){up, NULL, i, up->depth + 1};
}

/* The node of the values that a schema accepts. */
int32_t hd_schema_value(hd_schema *s, const json_t *j, const hd_where *w);
/* A rule of this name; true when it is new and wants a body. */
bool hd_schema_rule(hd_schema *s, const char *name, int32_t *rule);
void hd_schema_body(hd_schema *s, int32_t rule, int32_t body);
/* keyword's value as a count: 0 <= *v; absent: untouched.  One above HD_GRAMMAR_REPEAT becomes
 * HD_GRAMMAR_REPEAT + 1. */
bool hd_schema_count(hd_schema *s, const json_t *j, const char *keyword, int32_t *v, const hd_where *w);
/* The types that `type` and `nullable` allow; HD_TYPE_ALL without `type`. */
int hd_schema_types(hd_schema *s, const json_t *j, const hd_where *w);
/* The target of a reference: borrowed, NULL after an error. */
const json_t *hd_schema_target(hd_schema *s, const json_t *ref, const hd_where *w);

int32_t hd_schema_string(hd_schema *s, const json_t *j, const hd_where *w);
int32_t hd_schema_any_string(hd_schema *s); // with its quotes
int32_t hd_schema_any_char(hd_schema *s);   // a call
/* A key that is none of these n names. */
int32_t hd_schema_other_key(hd_schema *s, const char *const *name, size_t n);
/* The strings a regular expression matches anywhere, of min to max characters (max < 0: any
 * number), with quotes. */
int32_t hd_schema_pattern(hd_schema *s, const char *text, size_t n, int32_t min, int32_t max,
                          const hd_where *w);
int32_t hd_schema_number(hd_schema *s, const json_t *j, bool integer, const hd_where *w);

json_t *hd_schema_copy(hd_schema *s, json_t *j); // a new reference
/* The schema of what both accept: a new reference, NULL after an error. */
json_t *hd_schema_both(hd_schema *s, json_t *x, json_t *y, const hd_where *w);
/* j without $ref and allOf: what they say is merged in.  A new reference, NULL after an error. */
json_t *hd_schema_flat(hd_schema *s, json_t *j, const hd_where *w);
/* No value can be accepted by both: true when that is certain. */
bool hd_schema_apart(hd_schema *s, json_t *x, json_t *y, const hd_where *w);

#endif
