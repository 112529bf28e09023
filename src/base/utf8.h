/* UTF-8 as it comes from outside: checked, repaired, cut at whole characters. */
#ifndef HD_BASE_UTF8_H
#define HD_BASE_UTF8_H

#include "base/buf.h"

/* Decode one character of s[0..n), n >= 1.  Returns its length and sets *cp; an invalid sequence gives its
 * maximal subpart's length (Unicode 15, 3.9, U+FFFD substitution, as browsers and Rust do) and *cp = -1. */
int hd_utf8_next(const uint8_t *s, size_t n, int32_t *cp);
int hd_utf8_put(char out[4], int32_t cp);
/* Append s with every invalid sequence replaced by U+FFFD. */
hd_status hd_utf8_repair(hd_buf *out, const void *s, size_t n, hd_err *err);
/* Length of the longest prefix that ends with a whole character: at most 3 bytes are held back, and only
 * bytes that could still become one. */
size_t hd_utf8_whole(const void *s, size_t n);

/* A hexadecimal digit's value; -1: it is none. */
static inline int hd_hex_digit(int c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

#endif
