/* The prefix cache: what was computed once for the beginning of a timeline, block by block. */
#ifndef HD_SERVE_PREFIX_H
#define HD_SERVE_PREFIX_H

#include "model/cache.h"

typedef struct hd_prefix hd_prefix;

enum { HD_BLOCK_NAME = 20, HD_PREFIX_KEY = 32 };

/* HD_PAGE_TOK ids behind those of its parent, and the page with their keys and values.  Read
 * only for others. */
typedef struct hd_block hd_block;
struct hd_block {
    hd_block *parent; // NULL: the timeline's beginning
    uint64_t owner;   // 0: anybody's; else only this user finds it
    int32_t page;
    int n_children;
    uint8_t name[HD_BLOCK_NAME]; // keyed hash of all that stands from the beginning to here
    int32_t id[HD_PAGE_TOK];
    bool hit;   // found again after it was made: worth keeping
    bool saved; // is on disk, or on its way there; for the owner of a disk to note
    hd_block *next_in_bucket, *newer, *older;
};

/* key: of the hash, secret.  The cache is borrowed. */
hd_status hd_prefix_open(hd_prefix **out, hd_cache *c, const uint8_t key[HD_PREFIX_KEY], hd_err *err);
void hd_prefix_close(hd_prefix *p); // gives its pages back

/* The name of the block with these ids behind parent. */
void hd_prefix_name(const hd_prefix *p, const hd_block *parent, uint64_t owner, const int32_t *id,
                    uint8_t name[HD_BLOCK_NAME]);
/* That block, or NULL; it counts as used. */
hd_block *hd_prefix_find(hd_prefix *p, const hd_block *parent, uint64_t owner, const int32_t *id);
/* Keep a full page as that block, which is not there yet; the page gets one reference more.  HD_NOMEM. */
hd_status hd_prefix_add(hd_prefix *p, hd_block **out, hd_block *parent, uint64_t owner, const int32_t *id, int32_t page,
                        hd_err *err);

int64_t hd_prefix_n(const hd_prefix *p);
int64_t hd_prefix_idle(const hd_prefix *p); // pages that nobody else holds
/* Forget what was not used for longest until n pages are free that were not, or nothing more can go;
 * returns how many. */
int64_t hd_prefix_evict(hd_prefix *p, int64_t n);
hd_block *hd_prefix_newest(const hd_prefix *p); // then ->older

#endif
