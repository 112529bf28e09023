/* A growing byte buffer with a cap.  Doubling keeps appends linear in total; the cap keeps a hostile sender
 * from filling the machine. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void hd_buf_init(hd_buf *b, size_t max_bytes)
{
    *b = (hd_buf){.max = max_bytes};
}

void hd_buf_free(hd_buf *b)
{
    free(b->data);
    *b = (hd_buf){.max = b->max};
}

/* Room for n more bytes and the final NUL (which does not count towards the cap). */
static hd_status reserve(hd_buf *b, size_t n, hd_err *err)
{
    size_t need;
    if (!hd_add(&need, b->len, n) || need > b->max || !hd_add(&need, need, 1))
        return hd_fail(err, HD_LIMIT, "buffer: %zu more bytes: over its limit of %zu", n, b->max);
    if (need <= b->cap) return HD_OK;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need && hd_mul(&cap, cap, 2)) continue;
    if (cap < need || cap - 1 > b->max) cap = b->max + 1 > need ? b->max + 1 : need;
    hd_status st = hd_realloc(&b->data, cap, err);
    if (st == HD_OK) b->cap = cap;
    return st;
}

hd_status hd_buf_add(hd_buf *b, const void *p, size_t n, hd_err *err)
{
    hd_status st = reserve(b, n, err);
    if (st != HD_OK) return st;
    if (n) memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = 0;
    return HD_OK;
}

hd_status hd_buf_adds(hd_buf *b, const char *s, hd_err *err)
{
    return hd_buf_add(b, s, strlen(s), err);
}

hd_status hd_buf_addf(hd_buf *b, hd_err *err, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    hd_status st = n < 0 ? hd_fail(err, HD_LIMIT, "buffer: formatted text too long") : reserve(b, (size_t)n, err);
    if (st == HD_OK) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return st;
}
