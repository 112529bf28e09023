/* Blocks of the prefix cache on disk, for the time after a restart. */
#ifndef HD_SERVE_DISK_H
#define HD_SERVE_DISK_H

#include "serve/prefix.h"

typedef struct hd_disk hd_disk;

/* The folder is made if need be; its files are readable by their owner alone.  model: the fingerprint of what
 * the bytes depend on.  n_layers: of a page, so many are kept.  key: filled in, for the names of blocks; the
 * same for the same folder and model.  max_bytes: of all
 * files together.  HD_IO. */
hd_status hd_disk_open(hd_disk **out, const char *dir, uint64_t max_bytes, hd_cache *c, int n_layers, const uint8_t model[32],
                       uint8_t key[HD_PREFIX_KEY], hd_err *err);
void hd_disk_close(hd_disk *d); // waits for what is being written; then drops the pages it holds

uint64_t hd_disk_block_bytes(const hd_disk *d);
bool hd_disk_has(hd_disk *d, const uint8_t name[HD_BLOCK_NAME]);
/* Read a block into a page.  owner and id are compared with the file's; a file that is not what it should be
 * is removed.  HD_FORMAT, HD_IO. */
hd_status hd_disk_read(hd_disk *d, const uint8_t name[HD_BLOCK_NAME], uint64_t owner, const int32_t *id, int32_t page,
                       hd_err *err);
/* Write a block, later, by a thread of its own; its page is held until hd_disk_reap.  False: too
 * many wait already. */
bool hd_disk_write(hd_disk *d, const hd_block *b);
void hd_disk_reap(hd_disk *d); // let go of the pages that are written
bool hd_disk_busy(hd_disk *d);
void hd_disk_wait(hd_disk *d);   // until a block is written, if any is to be, and reap
void hd_disk_settle(hd_disk *d); // wait until nothing is being written, and reap
void hd_disk_totals(hd_disk *d, uint64_t *bytes, int64_t *blocks);

#endif
