#include "model/names.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

bool hd_name_ok(const char *p, size_t n, size_t max)
{
    if (n < 1 || n > max) return false;
    for (size_t i = 0; i < n; i++)
        if (p[i] < 0x20 || p[i] > 0x7e) return false;
    return true;
}

const char *hd_name_show(char *out, size_t cap, const char *p, size_t n)
{
    size_t k = 0;
    for (; k < n && k + 1 < cap; k++) out[k] = p[k] < 0x20 || p[k] > 0x7e ? '?' : p[k];
    out[k] = 0;
    if (k < n && k >= 3) memcpy(out + k - 3, "...", 3);
    return out;
}

hd_status hd_names_init(hd_names *t, size_t n_max, hd_err *err)
{
    size_t n = 16;
    while (n / 2 < n_max) {
        if (!hd_mul(&n, n, 2)) return hd_fail(err, HD_LIMIT, "names: %zu of them: too many", n_max);
    }
    if (sodium_init() < 0) return hd_fail(err, HD_IO, "libsodium: no random numbers to be had");
    hd_status st = hd_alloc_n(&t->slot, n, sizeof *t->slot, err);
    if (st != HD_OK) return st;
    t->mask = n - 1;
    randombytes_buf(t->key, sizeof t->key);
    return HD_OK;
}

void hd_names_free(hd_names *t)
{
    free(t->slot);
    *t = (hd_names){0};
}

/* The slot that holds the name, or the empty one where it would stand. */
static hd_name_slot *slot_of(const hd_names *t, const char *p, size_t n)
{
    uint64_t h;
    crypto_shorthash((unsigned char *)&h, (const unsigned char *)p, n, t->key);
    size_t i = h & t->mask;
    while (t->slot[i].p && (t->slot[i].n != n || memcmp(t->slot[i].p, p, n) != 0)) i = (i + 1) & t->mask;
    return &t->slot[i];
}

bool hd_names_add(hd_names *t, const char *p, size_t n, int64_t id)
{
    hd_name_slot *s = slot_of(t, p, n);
    if (s->p) return false;
    *s = (hd_name_slot){p, n, id};
    return true;
}

int64_t hd_names_find(const hd_names *t, const char *p, size_t n)
{
    if (!t->slot) return -1;
    const hd_name_slot *s = slot_of(t, p, n);
    return s->p ? s->id : -1;
}
