/* A growing byte buffer with a cap: what reads bytes from outside appends here and nowhere else. */
#ifndef HD_BASE_BUF_H
#define HD_BASE_BUF_H

#include "base/mem.h"

typedef struct {
    char *data; // always NUL-terminated once non-NULL
    size_t len, cap, max;
} hd_buf;

void hd_buf_init(hd_buf *b, size_t max_bytes);
void hd_buf_free(hd_buf *b); // back to empty, max kept
hd_status hd_buf_add(hd_buf *b, const void *p, size_t n, hd_err *err);
hd_status hd_buf_adds(hd_buf *b, const char *s, hd_err *err);
hd_status hd_buf_addf(hd_buf *b, hd_err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static inline void hd_buf_clear(hd_buf *b)
{
    b->len = 0;
    if (b->data) b->data[0] = 0;
}

#endif
