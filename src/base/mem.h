/* Memory from the heap, with errors instead of aborts, and sizes that cannot wrap. */
#ifndef HD_BASE_MEM_H
#define HD_BASE_MEM_H

#include <stdlib.h>

#include "base/err.h"

/* a+b, a*b into *r; false (and *r untouched) when the result does not fit. */
static inline bool hd_add(size_t *r, size_t a, size_t b)
{
    size_t v;
    if (__builtin_add_overflow(a, b, &v)) return false;
    *r = v;
    return true;
}
static inline bool hd_mul(size_t *r, size_t a, size_t b)
{
    size_t v;
    if (__builtin_mul_overflow(a, b, &v)) return false;
    *r = v;
    return true;
}

/* Zeroed bytes; `out` is the address of any object pointer.  Pair with free().  n == 0 gives
 * a valid pointer. */
hd_status hd_alloc(void *out, size_t n_bytes, hd_err *err);
/* n * size zeroed bytes, refused when the product wraps. */
hd_status hd_alloc_n(void *out, size_t n, size_t size, hd_err *err);
/* Grow or shrink *inout; on failure it is left as it was.  New bytes are not zeroed. */
hd_status hd_realloc(void *inout, size_t n_bytes, hd_err *err);
#define HD_HUGE_FROM ((size_t)32 << 20) // below, huge pages would waste more memory than they save time

/* 64-byte aligned, zeroed; 2 MiB aligned, and from HD_HUGE_FROM on in huge pages, when large.  Pair with
 * hd_free_aligned(p, n). */
hd_status hd_alloc_aligned(void *out, size_t n_bytes, hd_err *err);
/* The same for a most that is hardly ever used: when large, addresses alone are set aside, and memory comes
 * as it is touched. */
hd_status hd_reserve_aligned(void *out, size_t n_bytes, hd_err *err);
void hd_free_aligned(void *p, size_t n_bytes);
hd_status hd_strdup(char **out, const char *s, hd_err *err);

#endif
