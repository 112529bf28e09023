/* Errors, memory, arenas and buffers. */
#include <errno.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/buf.h"
#include "test.h"

static hd_err err;

static void errors(void)
{
    CHECK(hd_fail(NULL, HD_FORMAT, "x") == HD_FORMAT);
    CHECK(hd_fail(&err, HD_LIMIT, "read: %s: %d", "a\033[2Jb\nc", 7) == HD_LIMIT);
    CHECK(err.code == HD_LIMIT && strcmp(err.msg, "read: a?[2Jb?c: 7") == 0, "%s", err.msg);
    hd_fail(&err, HD_LIMIT, "outer: %s", err.msg); // wrapping a message in place
    CHECK(strcmp(err.msg, "outer: read: a?[2Jb?c: 7") == 0, "%s", err.msg);

    char name[2000];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    hd_fail(&err, HD_IO, "%s", name);
    CHECK(strlen(err.msg) == sizeof err.msg - 1);

    errno = ENOENT;
    CHECK(hd_fail_errno(&err, "open: %s", "f") == HD_IO && strcmp(err.msg, "open: f: No such file or directory") == 0);
    errno = ENOMEM;
    CHECK(hd_fail_errno(&err, "map: %s", "f") == HD_NOMEM);
    errno = ENOENT;
    hd_fail_errno(&err, "open: %s", name); // the reason survives a name that fills the message
    CHECK(strstr(err.msg, ": No such file or directory") != NULL, "%s", err.msg);
}

static void sizes(void)
{
    size_t r = 42;
    CHECK(hd_add(&r, SIZE_MAX - 1, 1) && r == SIZE_MAX);
    CHECK(!hd_add(&r, SIZE_MAX, 1) && r == SIZE_MAX);
    CHECK(hd_mul(&r, SIZE_MAX, 1) && r == SIZE_MAX);
    CHECK(!hd_mul(&r, SIZE_MAX / 2 + 1, 2) && r == SIZE_MAX);
}

static bool all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i]) return false;
    }
    return true;
}

static void heap(void)
{
    uint8_t *p = NULL;
    CHECK_OK(hd_alloc(&p, 1000, &err));
    CHECK(all_zero(p, 1000));
    free(p);
    CHECK_OK(hd_alloc(&p, 0, &err));
    CHECK(p != NULL);
    free(p);
    CHECK(hd_alloc(&p, SIZE_MAX / 2, &err) == HD_NOMEM && p == NULL);
    CHECK(hd_alloc_n(&p, SIZE_MAX / 4, 8, &err) == HD_NOMEM && p == NULL);
    CHECK_OK(hd_alloc_n(&p, 10, 8, &err));
    memset(p, 7, 80);
    CHECK_OK(hd_realloc(&p, 4000, &err));
    CHECK(p[0] == 7 && p[79] == 7);
    uint8_t *before = p;
    CHECK(hd_realloc(&p, SIZE_MAX / 2, &err) == HD_NOMEM && p == before && p[79] == 7);
    free(p);

    char *s;
    CHECK_OK(hd_strdup(&s, "text", &err));
    CHECK(strcmp(s, "text") == 0);
    free(s);
}

static void aligned(void)
{
    const size_t mib = 1 << 20, n[] = {0, 1, 63, 64, 100000, mib / 4 - 1, mib / 4, mib / 4 + 1, 2 * mib - 1, 2 * mib, 2 * mib + 1, 5 * mib};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        uint8_t *p = NULL;
        CHECK_OK(hd_alloc_aligned(&p, n[i], &err));
        size_t to = n[i] >= 2 * mib ? 2 * mib : 64;
        CHECK(p && (uintptr_t)p % to == 0, "%zu bytes at %p", n[i], (void *)p);
        CHECK(all_zero(p, n[i]));
        memset(p, 1, n[i]);
        hd_free_aligned(p, n[i]);
    }
    uint8_t *p = NULL;
    CHECK(hd_alloc_aligned(&p, SIZE_MAX, &err) == HD_NOMEM && !p);
    CHECK(hd_alloc_aligned(&p, SIZE_MAX / 2, &err) == HD_NOMEM && !p);
    hd_free_aligned(NULL, 5);
}

static void reserved(void)
{
    const size_t n[] = {100, (size_t)8 << 30}; // the last: far more than is touched
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        uint8_t *p = NULL;
        CHECK_OK(hd_reserve_aligned(&p, n[i], &err));
        CHECK(p && (uintptr_t)p % 64 == 0 && p[0] == 0 && p[n[i] - 1] == 0);
        if (p) p[0] = p[n[i] - 1] = 1;
        hd_free_aligned(p, n[i]);
    }
    uint8_t *p = NULL;
    CHECK(hd_reserve_aligned(&p, SIZE_MAX / 2, &err) == HD_NOMEM && !p);
}

static void arenas(void)
{
    hd_arena a;
    CHECK_OK(hd_arena_open(&a, "work", 1000, &err));
    uint8_t *p = hd_arena_take(&a, 1), *q = hd_arena_take(&a, 100);
    CHECK(p == a.base && q == a.base + 64);
    uint8_t *last = hd_arena_take(&a, 1000 - 192);
    CHECK(last == a.base + 192);
    if (last) memset(last, 1, 1000 - 192);
    CHECK(hd_arena_take(&a, 1) == NULL);
    CHECK(a.peak == 1000);
    hd_arena_reset(&a);
    CHECK(a.used == 0 && a.peak == 1000);
    CHECK(hd_arena_take(&a, SIZE_MAX) == NULL && hd_arena_take(&a, SIZE_MAX - 63) == NULL);
    CHECK(hd_arena_take(&a, 1001) == NULL && hd_arena_take(&a, 1000) == a.base);
    hd_arena_close(&a);
    hd_arena_close(&a); // closing twice is harmless
    CHECK(hd_arena_open(&a, "cache", SIZE_MAX, &err) == HD_NOMEM && strstr(err.msg, "cache") != NULL);
    hd_arena_close(&a);
}

static void buffers(void)
{
    hd_buf b;
    hd_buf_init(&b, 100);
    CHECK(b.data == NULL);
    CHECK_OK(hd_buf_adds(&b, "ab", &err));
    CHECK_OK(hd_buf_addf(&b, &err, "%d-%s", 12, "x"));
    CHECK(b.len == 6 && strcmp(b.data, "ab12-x") == 0);
    CHECK_OK(hd_buf_add(&b, "\0z", 2, &err));
    CHECK(b.len == 8 && b.data[6] == 0 && b.data[8] == 0);
    char fill[100];
    memset(fill, 'f', sizeof fill);
    CHECK(hd_buf_add(&b, fill, 93, &err) == HD_LIMIT && b.len == 8); // refused whole
    CHECK(hd_buf_add(&b, fill, SIZE_MAX, &err) == HD_LIMIT && b.len == 8);
    CHECK_OK(hd_buf_add(&b, fill, 92, &err)); // exactly full
    CHECK(b.len == 100 && b.data[100] == 0);
    CHECK(hd_buf_addf(&b, &err, "%c", 'x') == HD_LIMIT);
    CHECK_OK(hd_buf_add(&b, NULL, 0, &err));
    hd_buf_clear(&b);
    CHECK(b.len == 0 && b.data[0] == 0);
    hd_buf_free(&b);
    CHECK(b.data == NULL && b.max == 100);

    hd_buf_init(&b, SIZE_MAX); // no cap: growth by doubling, many small pieces
    for (int i = 0; i < 10000; i++) hd_buf_add(&b, &i, sizeof i, &err);
    int bad = b.len != 10000 * sizeof(int);
    for (int i = 0; i < 10000 && !bad; i++) bad |= memcmp(b.data + (size_t)i * sizeof i, &i, sizeof i) != 0;
    CHECK(!bad);
    CHECK(b.cap < 4 * b.len);
    hd_buf_free(&b);
}

int main(void)
{
    errors();
    sizes();
    heap();
    aligned();
    reserved();
    arenas();
    buffers();
    return hd_test_end();
}
