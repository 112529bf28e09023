/* HTTP requests: the bytes after the first are read at once, byte by byte, and in pieces of the first
 * byte's length; the three must agree in everything.  What is taken must be framed as only one reading
 * allows: asked again below. */
#include <string.h>
#include <strings.h>

#include "serve/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CAP = 256, MAX_REQUESTS = 16 };

static void must(bool fact)
{
    if (!fact) abort();
}

/* FNV-1a over everything that a handler can see. */
static uint64_t add(uint64_t sum, const char *s)
{
    for (; s && *s; s++) sum = (sum ^ (uint8_t)*s) * 1099511628211u;
    return (sum ^ 1) * 1099511628211u;
}

static void taken(const hd_h1 *h)
{
    int n_length = 0, n_coding = 0, n_host = 0;
    for (int i = 0; i < h->n_fields; i++) {
        n_length += strcasecmp(h->field[i].name, "content-length") == 0;
        n_coding += strcasecmp(h->field[i].name, "transfer-encoding") == 0;
        n_host += strcasecmp(h->field[i].name, "host") == 0;
        must(!strpbrk(h->field[i].name, " \t\r\n:") && !strpbrk(h->field[i].value, "\r\n"));
    }
    must(n_length + n_coding <= 1 && n_host <= 1 && (n_host == 1 || h->minor == 0));
    must(h->path[0] == '/' && !strstr(h->path, "/../") && strlen(h->path) <= HD_H1_TARGET);
    must(h->body.len <= CAP && (h->body.data == NULL || h->body.data[h->body.len] == 0));
    must(n_coding || h->body.len == h->length);
}

/* Read requests until the bytes or the reader's patience end; a sum of all that was seen. */
static uint64_t read_all(const uint8_t *p, size_t n, size_t piece)
{
    hd_h1 h;
    uint64_t sum = 14695981039346656037u;
    size_t at = 0, n_done = 0;
    hd_h1_state st = HD_H1_MORE;
    hd_h1_init(&h);
    while (st != HD_H1_BAD && n_done < MAX_REQUESTS && (at < n || st == HD_H1_HEADED)) {
        size_t used = 0, k = n - at < piece ? n - at : piece;
        st = st == HD_H1_HEADED ? hd_h1_accept(&h, CAP) : hd_h1_feed(&h, p + at, k, &used);
        must(used <= k && (st != HD_H1_MORE || used == k || used == 0));
        at += used;
        if (st != HD_H1_DONE) continue;
        taken(&h);
        sum = add(add(add(sum, h.method), h.path), h.body.data);
        for (int i = 0; i < h.n_fields; i++) sum = add(add(sum, h.field[i].name), h.field[i].value);
        for (int i = 0; i < h.n_params; i++) sum = add(add(sum, h.param[i].name), h.param[i].value);
        hd_h1_reset(&h);
        st = HD_H1_MORE;
        n_done++;
    }
    if (st == HD_H1_BAD) sum = add(sum, h.reason) + (uint64_t)h.status;
    hd_h1_free(&h);
    return sum + at * 31 + n_done;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    uint64_t whole = read_all(data + 1, size - 1, size);
    must(read_all(data + 1, size - 1, 1) == whole);
    must(read_all(data + 1, size - 1, (size_t)data[0] + 2) == whole);
    return 0;
}
