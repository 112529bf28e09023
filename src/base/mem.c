/* Heap memory that fails with an error.  Large blocks come from mmap directly: zeroed without being
 * touched, so that only what is used is resident; aligned, from 2 MB on to the huge page; and given back to
 * the system when freed. */
#include "base/mem.h"

#include <string.h>
#include <sys/mman.h>

#define HUGE  ((size_t)2 << 20) // a huge page on x86-64 and on most arm64 kernels
#define LARGE ((size_t)256 << 10)
#define PAGE  ((size_t)64 << 10) // no system here has larger ones

hd_status hd_alloc(void *out, size_t n_bytes, hd_err *err)
{
    void *p = calloc(1, n_bytes ? n_bytes : 1);
    memcpy(out, &p, sizeof p); // through memcpy: `out` may be the address of any pointer type
    if (!p) return hd_fail(err, HD_NOMEM, "memory: %zu bytes refused by the system", n_bytes);
    return HD_OK;
}

hd_status hd_alloc_n(void *out, size_t n, size_t size, hd_err *err)
{
    size_t bytes;
    if (!hd_mul(&bytes, n, size)) {
        memset(out, 0, sizeof(void *));
        return hd_fail(err, HD_NOMEM, "memory: %zu x %zu bytes: more than a size can hold", n, size);
    }
    return hd_alloc(out, bytes, err);
}

hd_status hd_realloc(void *inout, size_t n_bytes, hd_err *err)
{
    void *p;
    memcpy(&p, inout, sizeof p);
    p = realloc(p, n_bytes ? n_bytes : 1);
    if (!p) return hd_fail(err, HD_NOMEM, "memory: %zu bytes refused by the system", n_bytes);
    memcpy(inout, &p, sizeof p);
    return HD_OK;
}

/* What hd_free_aligned must be able to recompute from n alone: whether mmap served it, and the
 * mapping's length. */
static bool large_bytes(size_t *r, size_t n_bytes)
{
    if (n_bytes < LARGE || !hd_add(r, n_bytes, PAGE - 1)) return false;
    *r &= ~(PAGE - 1);
    return true;
}

/* mmap aligns to 4 KiB only: map one (huge) page more than needed and unmap both ends. */
static void *map_large(size_t bytes, int flags)
{
    size_t all, align = bytes < HUGE ? PAGE : HUGE;
    if (!hd_add(&all, bytes, align)) return NULL;
    uint8_t *p = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    if (p == MAP_FAILED) return NULL;
    size_t head = -(uintptr_t)p & (align - 1);
    if (head) munmap(p, head);
    munmap(p + head + bytes, align - head);
    /* Advice only: without huge pages everything still works.  The end stays small, so that no unused
     * megabyte is held. */
    if (bytes >= HD_HUGE_FROM) madvise(p + head, bytes & ~(HUGE - 1), MADV_HUGEPAGE);
    return p + head;
}

static hd_status aligned(void *out, size_t n_bytes, int flags, hd_err *err)
{
    void *p = NULL;
    size_t bytes;
    if (large_bytes(&bytes, n_bytes)) {
        p = map_large(bytes, flags);
    } else if (n_bytes < LARGE) {
        if (posix_memalign(&p, 64, n_bytes ? n_bytes : 1) != 0) p = NULL;
        if (p) memset(p, 0, n_bytes);
    }
    memcpy(out, &p, sizeof p);
    if (!p) return hd_fail(err, HD_NOMEM, "memory: %zu bytes refused by the system", n_bytes);
    return HD_OK;
}

hd_status hd_alloc_aligned(void *out, size_t n_bytes, hd_err *err) { return aligned(out, n_bytes, 0, err); }
hd_status hd_reserve_aligned(void *out, size_t n_bytes, hd_err *err) { return aligned(out, n_bytes, MAP_NORESERVE, err); }

void hd_free_aligned(void *p, size_t n_bytes)
{
    size_t bytes;
    if (!p) return;
    if (large_bytes(&bytes, n_bytes)) munmap(p, bytes);
    else free(p);
}

hd_status hd_strdup(char **out, const char *s, hd_err *err)
{
    size_t n = strlen(s) + 1;
    hd_status st = hd_alloc(out, n, err);
    if (st == HD_OK) memcpy(*out, s, n);
    return st;
}
