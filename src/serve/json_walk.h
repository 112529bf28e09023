/* Is this the beginning of a JSON object?  Asked byte by byte, so that what is passed on while it is written
 * never has to be taken back.  RFC 8259 to the letter, in UTF-8, and surrogates come in pairs. */
#ifndef HD_SERVE_JSON_WALK_H
#define HD_SERVE_JSON_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HD_WALK_DEPTH = 256 };

typedef enum { HD_WALK_GOING, HD_WALK_ENDED, HD_WALK_BAD } hd_walk_verdict;

/* Start from zeros. */
typedef struct {
    int at;               // what may come: json_walk.c
    int depth;            // open brackets
    uint8_t is_object[HD_WALK_DEPTH / 8]; // ... which of them are braces
    const char *rest;     // of true, false, null
    bool key;             // the string is one
    int digits;           // of \uXXXX
    unsigned code, high;  // high: the first half of a pair
    int more;             // bytes that a character beyond ASCII still needs,
    uint8_t least, most;  // ... and what the next may be
} hd_json_walk;

/* Take bytes up to the object's end or the first that cannot be; *used says how many were good. */
hd_walk_verdict hd_json_walk_feed(hd_json_walk *w, const char *p, size_t n, size_t *used);

#endif
