/* The paged cache: one mapping that holds every page, and who uses which.
 *
 *   pool   [page 0: layer 0, layer 1, ...][page 1: layer 0, ...]...    pages stand in the order they are
 *          first used
 *   seq    len, page[0 .. n_pages)     position t lies in page[t / 64], slot t % 64
 *
 * Invariants:
 *   1. refs[p] = number of sequences that list page p, and of others who keep it; free pages have 0 and stand
 *      on the free stack.
 *   2. a sequence lists ceil(len / 64) pages or more (reserved ones follow).
 *   3. only a page with refs == 1 is written: hd_seq_reserve copies the page of position len
 *      when it is shared.
 * The mapping is reserved as a whole and backed by the system page by page when first written, so an unused
 * context costs address space only.  Not for several threads at once: one engine owns a cache (within a pass,
 * threads only read it). */
#include "model/cache.h"

#include <assert.h>
#include <limits.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>

#include "base/mem.h"

struct hd_cache {
    hd_kv_shape shape;
    int first_layer, n_layers;
    size_t layer_bytes, page_bytes; // one layer's part of a page; the page
    uint8_t *base;
    size_t map_bytes;
    int32_t n_pages, n_free, n_fresh; // fresh: pages from here on were never used
    int32_t *refs, *free_page;        // [n_pages]; free_page: a stack of n_free
};

struct hd_seq {
    hd_cache *c;
    int64_t len;
    int32_t n_pages, cap; // listed; room in the tables
    int32_t *page;        // [cap]
    uint8_t **ptr;        // [n_layers][cap]
};

hd_kv_shape hd_cache_shape(const hd_config *c, hd_cache_type type)
{
    hd_kv_shape s = {.type = type, .n_kv = c->n_kv_heads, .dk = c->head_dim, .dv = c->head_dim};
    if (c->kv_lora_rank > 0) {
        s.n_kv = 1;
        s.dk = c->kv_lora_rank + c->qk_rope_head_dim;
        s.dv = c->kv_lora_rank;
        s.v_in_k = true;
    }
    return s;
}

hd_cache_type hd_cache_default(const hd_config *c) { return c->kv_lora_rank > 0 ? HD_CACHE_BF16 : HD_CACHE_F16; }

hd_status hd_cache_type_named(hd_cache_type *out, const char *name, hd_err *err)
{
    static const char *const names[HD_N_CACHE_TYPE] = {"f32", "f16", "bf16", "q8_0"};
    for (int i = 0; i < HD_N_CACHE_TYPE; i++)
        if (strcasecmp(name, names[i]) == 0) {
            *out = (hd_cache_type)i;
            return HD_OK;
        }
    return hd_fail(err, HD_USAGE, "cache type %.20s: not known: f16, bf16, q8_0 and f32 are", name);
}

size_t hd_cache_tok_bytes(const hd_config *c, hd_cache_type type)
{
    hd_kv_shape s = hd_cache_shape(c, type);
    return hd_kv_page_bytes(&s) / HD_PAGE_TOK * (size_t)(c->n_layers + c->n_mtp);
}

/* ---- The pool ---- */

hd_status hd_cache_open(hd_cache **out, const hd_config *config, hd_cache_type type, int64_t max_tok, hd_err *err)
{
    return hd_cache_open_layers(out, config, type, 0, (int64_t)config->n_layers + config->n_mtp, max_tok, err);
}

hd_status hd_cache_open_layers(hd_cache **out, const hd_config *config, hd_cache_type type, int first, int64_t n_layers,
                               int64_t max_tok, hd_err *err)
{
    enum { MAX_DIM = 1 << 20 }; // keeps hd_kv_page_bytes far from wrapping
    hd_status st;
    hd_cache *c = NULL;
    hd_kv_shape s = hd_cache_shape(config, type);
    size_t n;

    if ((unsigned)type >= HD_N_CACHE_TYPE) {
        st = hd_fail(err, HD_USAGE, "cache: unknown type %d", (int)type);
        goto fail;
    }
    if (max_tok <= 0 || max_tok > (int64_t)INT32_MAX) {
        st = hd_fail(err, HD_USAGE, "cache: %lld positions: must be 1 to %d", (long long)max_tok, INT32_MAX);
        goto fail;
    }
    if (n_layers < 1 || n_layers > MAX_DIM || s.n_kv < 1 || s.n_kv > MAX_DIM || s.dk < 1 || s.dk > MAX_DIM ||
        s.dv < 1 || s.dv > MAX_DIM || (s.v_in_k && s.dv > s.dk)) {
        st = hd_fail(err, HD_USAGE, "cache: %lld layers of %d heads of %d + %d numbers: no sensible shape",
                     (long long)n_layers, s.n_kv, s.dk, s.dv);
        goto fail;
    }
    HD_TRY(hd_alloc(&c, sizeof *c, err));
    c->base = MAP_FAILED;
    c->shape = s;
    c->first_layer = first;
    c->n_layers = (int)n_layers;
    c->n_pages = (int32_t)((max_tok + HD_PAGE_TOK - 1) / HD_PAGE_TOK);
    c->layer_bytes = hd_kv_page_bytes(&s);
    if (!hd_mul(&c->page_bytes, c->layer_bytes, (size_t)n_layers) ||
        !hd_mul(&c->map_bytes, c->page_bytes, (size_t)c->n_pages) || !hd_add(&n, c->map_bytes, 1 << 21) ||
        c->map_bytes > PTRDIFF_MAX) {
        st = hd_fail(err, HD_LIMIT, "cache: %lld positions: more bytes than addresses", (long long)max_tok);
        goto fail;
    }
    HD_TRY(hd_alloc_n(&c->refs, (size_t)c->n_pages, sizeof *c->refs, err));
    HD_TRY(hd_alloc_n(&c->free_page, (size_t)c->n_pages, sizeof *c->free_page, err));
    c->base = mmap(NULL, c->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (c->base == MAP_FAILED) {
        st = hd_fail_errno(err, "cache: reserving %.1f GB for %lld positions (try a shorter context)",
                           (double)c->map_bytes * 1e-9, (long long)max_tok);
        goto fail;
    }
    if (c->map_bytes > HD_HUGE_FROM) // a wish, not a need; not for the first, which may be all that is ever used
        (void)madvise(c->base + HD_HUGE_FROM, c->map_bytes - HD_HUGE_FROM, MADV_HUGEPAGE);
    *out = c;
    return HD_OK;
fail:
    hd_cache_close(c);
    return st;
}

void hd_cache_close(hd_cache *c)
{
    if (!c) return;
    if (c->base != MAP_FAILED) munmap(c->base, c->map_bytes);
    free(c->refs);
    free(c->free_page);
    free(c);
}

static int64_t free_pages(const hd_cache *c) { return (int64_t)c->n_free + c->n_pages - c->n_fresh; }
int64_t hd_cache_free_tok(const hd_cache *c) { return free_pages(c) * HD_PAGE_TOK; }
const hd_kv_shape *hd_cache_get_shape(const hd_cache *c) { return &c->shape; }

/* Used pages come back first: they are in memory already.  The caller has checked that there is one. */
static int32_t page_take(hd_cache *c)
{
    int32_t p = c->n_free ? c->free_page[--c->n_free] : c->n_fresh++;
    assert(p < c->n_pages && c->refs[p] == 0);
    c->refs[p] = 1;
    return p;
}

static void page_drop(hd_cache *c, int32_t p)
{
    assert(c->refs[p] > 0);
    if (--c->refs[p] == 0) c->free_page[c->n_free++] = p;
}

int32_t hd_cache_n_pages(const hd_cache *c) { return c->n_pages; }
int hd_cache_page_refs(const hd_cache *c, int32_t page) { return c->refs[page]; }

void hd_cache_page_keep(hd_cache *c, int32_t page)
{
    assert(c->refs[page] > 0);
    c->refs[page]++;
}

void hd_cache_page_drop(hd_cache *c, int32_t page) { page_drop(c, page); }

hd_status hd_cache_page_new(hd_cache *c, int32_t *page, hd_err *err)
{
    if (free_pages(c) < 1) return hd_fail(err, HD_LIMIT, "cache: full: no page is free");
    *page = page_take(c);
    return HD_OK;
}

static uint8_t *page_at(const hd_cache *c, int32_t p) { return c->base + (size_t)p * c->page_bytes; }

uint8_t *hd_cache_page_bytes(hd_cache *c, int32_t page) { return page_at(c, page); }
size_t hd_cache_layer_bytes(const hd_cache *c) { return c->layer_bytes; }

/* ---- Sequences ---- */

/* Room for n pages in the tables; they double, so that a long answer grows them rarely. */
static hd_status seq_grow(hd_seq *s, int64_t n, hd_err *err)
{
    hd_status st;
    int32_t cap = s->cap ? s->cap : 16;
    int32_t *page = NULL;
    uint8_t **ptr = NULL;
    size_t entries;

    if (n <= s->cap) return HD_OK;
    while (cap < n) cap *= 2; // n <= INT32_MAX / 64: does not wrap
    if (!hd_mul(&entries, (size_t)cap, (size_t)s->c->n_layers)) {
        st = hd_fail(err, HD_LIMIT, "cache: page table: too large");
        goto fail;
    }
    HD_TRY(hd_alloc_n(&page, (size_t)cap, sizeof *page, err));
    HD_TRY(hd_alloc_n(&ptr, entries, sizeof *ptr, err));
    for (int32_t i = 0; i < s->n_pages; i++) page[i] = s->page[i];
    for (int l = 0; l < s->c->n_layers; l++)
        for (int32_t i = 0; i < s->n_pages; i++)
            ptr[(size_t)l * (size_t)cap + (size_t)i] = s->ptr[(size_t)l * (size_t)s->cap + (size_t)i];
    free(s->page);
    free(s->ptr);
    s->page = page;
    s->ptr = ptr;
    s->cap = cap;
    return HD_OK;
fail:
    free(page);
    free(ptr);
    return st;
}

static void seq_set(hd_seq *s, int32_t i, int32_t page)
{
    s->page[i] = page;
    for (int l = 0; l < s->c->n_layers; l++)
        s->ptr[(size_t)l * (size_t)s->cap + (size_t)i] = page_at(s->c, page) + (size_t)l * s->c->layer_bytes;
}

hd_status hd_seq_open(hd_seq **out, hd_cache *c, hd_err *err)
{
    hd_status st;
    hd_seq *s = NULL;
    HD_TRY(hd_alloc(&s, sizeof *s, err));
    s->c = c;
    HD_TRY(seq_grow(s, 1, err));
    *out = s;
    return HD_OK;
fail:
    hd_seq_close(s);
    return st;
}

void hd_seq_close(hd_seq *s)
{
    if (!s) return;
    for (int32_t i = 0; i < s->n_pages; i++) page_drop(s->c, s->page[i]);
    free(s->page);
    free(s->ptr);
    free(s);
}

hd_status hd_seq_fork(hd_seq **out, hd_seq *from, hd_err *err)
{
    hd_status st;
    hd_seq *s = NULL;
    int32_t n = (int32_t)((from->len + HD_PAGE_TOK - 1) / HD_PAGE_TOK); // reserved pages stay with `from`
    HD_TRY(hd_seq_open(&s, from->c, err));
    HD_TRY(seq_grow(s, n, err));
    for (int32_t i = 0; i < n; i++) {
        s->c->refs[from->page[i]]++;
        seq_set(s, i, from->page[i]);
    }
    s->n_pages = n;
    s->len = from->len;
    *out = s;
    return HD_OK;
fail:
    hd_seq_close(s);
    return st;
}

int64_t hd_seq_len(const hd_seq *s) { return s->len; }

const hd_kv_shape *hd_seq_shape(const hd_seq *s) { return &s->c->shape; }

hd_status hd_seq_reserve(hd_seq *s, int64_t n, hd_err *err)
{
    hd_status st;
    hd_cache *c = s->c;
    int64_t max_tok = (int64_t)c->n_pages * HD_PAGE_TOK;
    if (n < 0 || n > max_tok - s->len) {
        st = hd_fail(err, HD_LIMIT, "cache: %lld + %lld positions: the cache holds %lld", (long long)s->len,
                     (long long)n, (long long)max_tok);
        goto fail;
    }
    if (n == 0) return HD_OK;
    int32_t first = (int32_t)(s->len / HD_PAGE_TOK), end = (int32_t)((s->len + n - 1) / HD_PAGE_TOK) + 1;

    /* All or nothing: count the pages needed before any is taken. */
    int64_t need = end > s->n_pages ? end - s->n_pages : 0;
    for (int32_t i = first; i < end && i < s->n_pages; i++) need += c->refs[s->page[i]] > 1;
    if (need > free_pages(c)) {
        st = hd_fail(err, HD_LIMIT, "cache: full: %lld pages of %d positions needed, %lld free", (long long)need,
                     (int)HD_PAGE_TOK, (long long)free_pages(c));
        goto fail;
    }
    HD_TRY(seq_grow(s, end, err));
    for (int32_t i = first; i < end && i < s->n_pages; i++) {
        int32_t old = s->page[i];
        if (c->refs[old] == 1) continue;
        int32_t copy = page_take(c);
        if ((int64_t)i * HD_PAGE_TOK < s->len) memcpy(page_at(c, copy), page_at(c, old), c->page_bytes);
        page_drop(c, old);
        seq_set(s, i, copy);
    }
    for (; s->n_pages < end; s->n_pages++) seq_set(s, s->n_pages, page_take(c));
    return HD_OK;
fail:
    return st;
}

void hd_seq_advance(hd_seq *s, int64_t n)
{
    assert(n >= 0 && s->len + n <= (int64_t)s->n_pages * HD_PAGE_TOK);
    s->len += n;
}

int32_t hd_seq_page(const hd_seq *s, int64_t i)
{
    assert(i >= 0 && i < s->n_pages);
    return s->page[i];
}

hd_status hd_seq_adopt(hd_seq *s, int32_t page, hd_err *err)
{
    assert(s->len % HD_PAGE_TOK == 0 && s->c->refs[page] > 0);
    hd_seq_trim(s, s->len); // reserved pages go back
    hd_status st = seq_grow(s, s->n_pages + 1, err);
    if (st != HD_OK) return st;
    s->c->refs[page]++;
    seq_set(s, s->n_pages++, page);
    s->len += HD_PAGE_TOK;
    return HD_OK;
}

void hd_seq_share(hd_seq *s, int64_t i, int32_t page)
{
    assert(i >= 0 && (i + 1) * HD_PAGE_TOK <= s->len && s->c->refs[page] > 0);
    if (s->page[i] == page) return;
    page_drop(s->c, s->page[i]);
    s->c->refs[page]++;
    seq_set(s, (int32_t)i, page);
}

void hd_seq_trim(hd_seq *s, int64_t len)
{
    assert(len >= 0 && len <= s->len);
    int32_t keep = (int32_t)((len + HD_PAGE_TOK - 1) / HD_PAGE_TOK);
    while (s->n_pages > keep) page_drop(s->c, s->page[--s->n_pages]);
    s->len = len;
}

uint8_t *const *hd_seq_pages(hd_seq *s, int layer)
{
    layer -= s->c->first_layer;
    assert(layer >= 0 && layer < s->c->n_layers);
    return s->ptr + (size_t)layer * (size_t)s->cap;
}

void hd_seq_store(hd_seq *s, const hd_kernels *kn, int layer, int64_t position, int n, const float *k, const float *v)
{
    const hd_kv_shape *kv = &s->c->shape;
    assert(position >= 0 && position + n <= (int64_t)s->n_pages * HD_PAGE_TOK);
    while (n > 0) { // a page at a time
        int slot = (int)(position % HD_PAGE_TOK), here = n < HD_PAGE_TOK - slot ? n : HD_PAGE_TOK - slot;
        assert(s->c->refs[s->page[position / HD_PAGE_TOK]] == 1);
        kn->attn->store(kv, hd_seq_pages(s, layer)[position / HD_PAGE_TOK], slot, here, k, v);
        k += (int64_t)here * kv->n_kv * kv->dk;
        if (!kv->v_in_k) v += (int64_t)here * kv->n_kv * kv->dv;
        position += here;
        n -= here;
    }
}
