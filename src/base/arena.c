/* An arena: a bump pointer over one aligned block. */
#include "base/arena.h"

static hd_status open_by(hd_status (*alloc)(void *, size_t, hd_err *), hd_arena *a, const char *name, size_t cap_bytes, hd_err *err)
{
    *a = (hd_arena){.name = name};
    hd_err why = {0};
    hd_status st = alloc(&a->base, cap_bytes, &why);
    if (st != HD_OK) return hd_fail(err, st, "%s: %s", name, why.msg);
    a->cap = cap_bytes;
    return HD_OK;
}

hd_status hd_arena_open(hd_arena *a, const char *name, size_t cap_bytes, hd_err *err)
{
    return open_by(hd_alloc_aligned, a, name, cap_bytes, err);
}

hd_status hd_arena_reserve(hd_arena *a, const char *name, size_t cap_bytes, hd_err *err)
{
    return open_by(hd_reserve_aligned, a, name, cap_bytes, err);
}

void hd_arena_close(hd_arena *a)
{
    hd_free_aligned(a->base, a->cap);
    *a = (hd_arena){0};
}

void *hd_arena_take(hd_arena *a, size_t n_bytes)
{
    size_t need;
    if (!hd_add(&need, n_bytes, 63)) return NULL;
    need &= ~(size_t)63; // every piece starts on a cache line because the block does and all sizes are whole lines
    /* The last piece need not fill its line. */
    if (n_bytes > a->cap - a->used) return NULL;
    void *p = a->base + a->used;
    a->used = need > a->cap - a->used ? a->cap : a->used + need;
    if (a->used > a->peak) a->peak = a->used;
    return p;
}
