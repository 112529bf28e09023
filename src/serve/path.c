/* A job's way through the prefix cache.
 *
 *   ids      [ block ][ block ][ block ][ block ]...        the job's timeline
 *   known     last --------------^                          n_known blocks: found, or computed and added
 *   cache    [ computed                  ]                  hd_seq_len
 *
 * Invariant: a living job's sequence lists the pages of the blocks on its path (added ones are its own
 * pages, found ones are shared), so none of them can be evicted under it.  The block of the last id of a
 * timeline is never taken from the cache: its logits are wanted, so it is computed, and nobody may write
 * into a shared page.
 *
 * Two jobs that compute the same block find each other by hd_path_same_next; the second waits for what
 * the first computes.  If both have computed it nevertheless, the second takes the first one's page: the
 * bits are the same. */
#include <string.h>

#include "serve/sched_parts.h"

/* Whose is the next block: shared when the operator's prefix covers it. */
static uint64_t next_owner(const hd_job *j)
{
    return (j->n_known + 1) * HD_PAGE_TOK <= j->o.shared_tok ? 0 : j->o.user;
}

static const int32_t *next_ids(const hd_job *j) { return j->s->ids.id + j->n_known * HD_PAGE_TOK; }

/* The next block read from disk into a new page; NULL when that is not to be had. */
static hd_block *from_disk(hd_sched *s, hd_job *j, bool *later)
{
    hd_block *b = NULL;
    int32_t page;
    uint8_t name[HD_BLOCK_NAME];
    if (!s->disk) return NULL;
    hd_prefix_name(s->prefix, j->last, next_owner(j), next_ids(j), name);
    if (!hd_disk_has(s->disk, name)) return NULL;
    if (s->disk_budget < hd_disk_block_bytes(s->disk)) {
        *later = true;
        return NULL;
    }
    s->disk_budget -= hd_disk_block_bytes(s->disk);
    if (hd_free_pages(s) < 1) hd_prefix_evict(s->prefix, 1);
    if (hd_cache_page_new(s->e->cache, &page, NULL) != HD_OK) return NULL;
    if (hd_disk_read(s->disk, name, next_owner(j), next_ids(j), page, NULL) == HD_OK &&
        hd_prefix_add(s->prefix, &b, j->last, next_owner(j), next_ids(j), page, NULL) == HD_OK)
        b->saved = true;
    hd_cache_page_drop(s->e->cache, page); // the block holds it now, or nobody
    return b;
}

hd_status hd_path_find(hd_sched *s, hd_job *j, bool *later, hd_err *err)
{
    hd_seq *q = j->s->seq;
    int64_t full = (j->s->ids.n - 1) / HD_PAGE_TOK;
    *later = false;
    if (j->s->ready) return HD_OK;
    while (j->n_known < full && hd_seq_len(q) < (j->n_known + 1) * HD_PAGE_TOK) {
        hd_block *b = hd_prefix_find(s->prefix, j->last, next_owner(j), next_ids(j));
        if (!b) b = from_disk(s, j, later);
        if (!b) break;
        b->hit = true;
        if (hd_seq_len(q) > j->n_known * HD_PAGE_TOK) hd_seq_trim(q, j->n_known * HD_PAGE_TOK);
        hd_status st = hd_seq_adopt(q, b->page, err);
        if (st != HD_OK) return st;
        j->last = b;
        j->n_known++;
        if (!j->stepping && j->cached_tok < j->prompt_tok - 1) j->cached_tok += HD_PAGE_TOK;
    }
    if (j->cached_tok > j->prompt_tok - 1) j->cached_tok = j->prompt_tok - 1;
    return HD_OK;
}

void hd_path_keep(hd_sched *s, hd_job *j)
{
    hd_seq *q = j->s->seq;
    for (;;) {
        int64_t end = (j->n_known + 1) * HD_PAGE_TOK;
        if (end > hd_seq_len(q) || end > j->s->ids.n) break;
        hd_block *b = hd_prefix_find(s->prefix, j->last, next_owner(j), next_ids(j));
        if (b) hd_seq_share(q, j->n_known, b->page);
        else if (hd_prefix_add(s->prefix, &b, j->last, next_owner(j), next_ids(j), hd_seq_page(q, j->n_known), NULL) != HD_OK)
            break;
        j->last = b;
        j->n_known++;
    }
}

bool hd_path_same_next(const hd_job *a, const hd_job *b)
{
    int64_t end = (a->n_known + 1) * HD_PAGE_TOK;
    return a->n_known == b->n_known && a->last == b->last && next_owner(a) == next_owner(b) && end < a->s->ids.n &&
           end < b->s->ids.n && memcmp(next_ids(a), next_ids(b), HD_PAGE_TOK * sizeof(int32_t)) == 0;
}

/* ---- To the disk ---- */

/* b and what stands before it, from the beginning on.  False: the disk takes no more now. */
static bool save(hd_sched *s, hd_block *b)
{
    if (!b || b->saved) return true;
    if (!save(s, b->parent) || !hd_disk_write(s->disk, b)) return false;
    s->flush_left--;
    return b->saved = true;
}

/* A text that was never asked for again is not worth the disk's wear; the page of one that was is written at
 * once, so that it outlives a crash. */
void hd_path_save(hd_sched *s, hd_job *j)
{
    if (!s->disk) return;
    for (hd_block *b = j->last; b; b = b->parent)
        if (b->hit) {
            save(s, b);
            return;
        }
}

bool hd_path_flush(hd_sched *s)
{
    if (!s->disk) return false;
    for (hd_block *b = hd_prefix_newest(s->prefix); b && s->flush_left > 0; b = b->older)
        if (!save(s, b)) return true;
    return false;
}
