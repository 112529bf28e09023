/* A tree of blocks.  A timeline's blocks form a path; timelines that begin alike share the path's beginning:
 *
 *      [system prompt 0..63] - [64..127] --- [user 1: 128..191] - ...
 *                                        \-- [user 2: 128..191]
 *
 * A block is found by a keyed hash of its parent's name, its owner and its ids, and then compared id by id:
 * nobody can make two texts collide, and a collision would not harm.  A block of one user is not found for
 * another, so what is fast tells nobody what others have asked; the owner 0 is for prefixes that the operator
 * shares on purpose.
 *
 * Pages are held by reference.  A block whose page a living sequence lists as well frees nothing when it
 * goes, so it stays; of the others the one goes first that was not used for longest and has no children.
 * As a sequence that lists a block's page lists those of all its ancestors, whoever works with a path need
 * not fear for it. */
#include "serve/prefix.h"

#include <sodium.h>
#include <string.h>

#include "base/mem.h"

struct hd_prefix {
    hd_cache *c;
    uint8_t key[HD_PREFIX_KEY];
    hd_block **bucket;
    size_t n_buckets; // a power of two
    hd_block *newest, *oldest;
    int64_t n;
};

hd_status hd_prefix_open(hd_prefix **out, hd_cache *c, const uint8_t key[HD_PREFIX_KEY], hd_err *err)
{
    hd_status st;
    hd_prefix *p = NULL;
    *out = NULL;
    HD_TRY(hd_alloc(&p, sizeof *p, err));
    p->c = c;
    memcpy(p->key, key, sizeof p->key);
    p->n_buckets = 16; // a page is one block's at most, so the table need not grow
    while (p->n_buckets < (size_t)hd_cache_n_pages(c)) p->n_buckets *= 2;
    HD_TRY(hd_alloc_n(&p->bucket, p->n_buckets, sizeof *p->bucket, err));
    *out = p;
    return HD_OK;
fail:
    hd_prefix_close(p);
    return st;
}

void hd_prefix_close(hd_prefix *p)
{
    if (!p) return;
    for (hd_block *b = p->newest, *older; b; b = older) {
        older = b->older;
        hd_cache_page_drop(p->c, b->page);
        free(b);
    }
    free(p->bucket);
    free(p);
}

void hd_prefix_name(const hd_prefix *p, const hd_block *parent, uint64_t owner, const int32_t *id,
                    uint8_t name[HD_BLOCK_NAME])
{
    crypto_generichash_state h;
    crypto_generichash_init(&h, p->key, sizeof p->key, HD_BLOCK_NAME);
    if (parent) crypto_generichash_update(&h, parent->name, sizeof parent->name);
    crypto_generichash_update(&h, (const uint8_t *)&owner, sizeof owner);
    crypto_generichash_update(&h, (const uint8_t *)id, HD_PAGE_TOK * sizeof *id);
    crypto_generichash_final(&h, name, HD_BLOCK_NAME);
}

static hd_block **bucket_of(const hd_prefix *p, const uint8_t name[HD_BLOCK_NAME])
{
    size_t h;
    memcpy(&h, name, sizeof h);
    return &p->bucket[h & (p->n_buckets - 1)];
}

/* ---- The order of use ---- */

static void unlink_block(hd_prefix *p, hd_block *b)
{
    *(b->newer ? &b->newer->older : &p->newest) = b->older;
    *(b->older ? &b->older->newer : &p->oldest) = b->newer;
}

static void link_newest(hd_prefix *p, hd_block *b)
{
    b->newer = NULL;
    b->older = p->newest;
    *(p->newest ? &p->newest->newer : &p->oldest) = b;
    p->newest = b;
}

/* ---- */

hd_block *hd_prefix_find(hd_prefix *p, const hd_block *parent, uint64_t owner, const int32_t *id)
{
    uint8_t name[HD_BLOCK_NAME];
    hd_prefix_name(p, parent, owner, id, name);
    hd_block *b = *bucket_of(p, name);
    while (b && (b->parent != parent || b->owner != owner || memcmp(b->id, id, sizeof b->id) != 0)) b = b->next_in_bucket;
    if (!b) return NULL;
    unlink_block(p, b);
    link_newest(p, b);
    return b;
}

hd_status hd_prefix_add(hd_prefix *p, hd_block **out, hd_block *parent, uint64_t owner, const int32_t *id, int32_t page,
                        hd_err *err)
{
    hd_block *b = NULL;
    hd_status st = hd_alloc(&b, sizeof *b, err);
    *out = b;
    if (st != HD_OK) return st;
    b->parent = parent;
    b->owner = owner;
    b->page = page;
    memcpy(b->id, id, sizeof b->id);
    hd_prefix_name(p, parent, owner, id, b->name);
    hd_block **at = bucket_of(p, b->name);
    b->next_in_bucket = *at;
    *at = b;
    link_newest(p, b);
    if (parent) parent->n_children++;
    hd_cache_page_keep(p->c, page);
    p->n++;
    return HD_OK;
}

static void forget(hd_prefix *p, hd_block *b)
{
    hd_block **at = bucket_of(p, b->name);
    while (*at != b) at = &(*at)->next_in_bucket;
    *at = b->next_in_bucket;
    unlink_block(p, b);
    if (b->parent) b->parent->n_children--;
    hd_cache_page_drop(p->c, b->page);
    p->n--;
    free(b);
}

int64_t hd_prefix_n(const hd_prefix *p) { return p->n; }
hd_block *hd_prefix_newest(const hd_prefix *p) { return p->newest; }

int64_t hd_prefix_idle(const hd_prefix *p)
{
    int64_t n = 0;
    for (const hd_block *b = p->newest; b; b = b->older) n += hd_cache_page_refs(p->c, b->page) == 1;
    return n;
}

int64_t hd_prefix_evict(hd_prefix *p, int64_t n)
{
    int64_t freed = 0, before;
    do { // mostly children are older than their parents, then one round is all it takes
        before = freed;
        for (hd_block *b = p->oldest, *newer; b && freed < n; b = newer) {
            newer = b->newer;
            if (b->n_children > 0 || hd_cache_page_refs(p->c, b->page) > 1) continue;
            forget(p, b);
            freed++;
        }
    } while (freed < n && freed > before);
    return freed;
}
