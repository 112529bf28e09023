/* Patterns: the first byte says what becomes of a match, then a pattern up to a NUL, then a text.  Pieces
 * come in order out of the text, and unless matches are dropped they are the whole of it. */
#include <string.h>

#include "base/utf8.h"
#include "model/pretok.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    const char *s;
    size_t done, n;
    bool whole;
} reader;

static hd_status take(void *arg, const char *s, size_t n, hd_err *err)
{
    reader *r = arg;
    size_t at = (size_t)(s - r->s);
    if (n == 0 || at < r->done || at + n > r->n || (r->whole && at != r->done)) abort();
    r->done = at + n;
    return HD_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hd_err err = {0};
    hd_pretok p = {0};
    hd_pretok_work w = {0};
    hd_buf text;
    const uint8_t *nul = size > 2 ? memchr(data + 1, 0, size - 1) : NULL;
    if (!nul) return 0;
    size_t n_pattern = (size_t)(nul - data) - 1;
    hd_split_how how = (hd_split_how)(data[0] % 5);
    hd_buf_init(&text, SIZE_MAX);
    if (hd_utf8_repair(&text, nul + 1, size - n_pattern - 2, &err) == HD_OK && text.len &&
        hd_pretok_split(&p, (const char *)data + 1, n_pattern, data[0] & 64, how, data[0] & 32, &err) ==
            HD_OK &&
        hd_pretok_work_open(&w, &p, &err) == HD_OK) {
        reader r = {text.data, 0, text.len, how != HD_SPLIT_REMOVED};
        hd_pretok_begin(&w, text.len);
        if (hd_pretok_run(&p, &w, text.data, text.len, take, &r, &err) == HD_OK && r.whole && r.done != r.n)
            abort();
        hd_pretok_work_close(&w);
    }
    hd_pretok_close(&p);
    hd_buf_free(&text);
    return 0;
}
