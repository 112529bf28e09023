/* The three most frequent patterns by hand, where ASCII alone decides. */
#ifndef HD_MODEL_PRETOK_QUICK_H
#define HD_MODEL_PRETOK_QUICK_H

#include <stddef.h>

typedef enum { HD_QUICK_NONE, HD_QUICK_GPT2, HD_QUICK_DIGITS, HD_QUICK_NUMBERS } hd_quick;

/* The end of the match that begins at s[at], at < n; 0: bytes beyond ASCII or control characters have a say,
 * ask the pattern. */
size_t hd_quick_match(hd_quick kind, const char *s, size_t n, size_t at);

#endif
