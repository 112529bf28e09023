/* The reader of token shards.  Its checksums would stop nearly every input at the door, so each is tried as
 * it comes and once more with sums that are right. */
#include "base/crc32c.h"
#include "train/shard.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const uint8_t *p, size_t n)
{
    hd_err err = {0};
    hd_map m = {p, n};
    hd_shard *s = NULL;
    int32_t id[64];
    uint8_t learnt[64];
    if (hd_shard_open_map(&s, &m, "fuzz", &err) != HD_OK) return;
    const hd_shard_info *a = hd_shard_about(s);
    int64_t targets = 0;
    for (int64_t i = 0; i < a->n_docs; i++) {
        hd_shard_doc d = hd_shard_doc_at(s, i);
        if (d.at < 0 || d.n < 1 || d.at + d.n > a->n_tok) abort();
        for (int64_t at = 0; at < d.n; at += 64) {
            int64_t k = d.n - at < 64 ? d.n - at : 64;
            if (hd_shard_read(s, d.at + at, k, id, &err) == HD_OK)
                for (int64_t j = 0; j < k; j++)
                    if (id[j] < 0 || id[j] >= a->n_vocab) abort();
            hd_shard_learnt(s, &d, at, k, learnt);
            for (int64_t j = 0; j < k; j++) targets += learnt[j] && at + j > 0;
        }
    }
    if (targets != a->n_targets) abort();
    if (hd_shard_read(s, a->n_tok, 1, id, &err) == HD_OK || hd_shard_read(s, -1, 1, id, &err) == HD_OK)
        abort();
    hd_shard_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = calloc(1, size ? size : 1);
    if (!copy) return 0;
    if (size) memcpy(copy, data, size);
    use(copy, size);
    if (size >= 128 + 12) { // one block: its sum and the sum of that are the last eight bytes
        uint32_t sum = hd_crc32c(0, copy + 128, size - 136);
        memcpy(copy + size - 8, &sum, 4);
        sum = hd_crc32c(0, copy + size - 8, 4);
        memcpy(copy + size - 4, &sum, 4);
        sum = hd_crc32c(0, copy, 124);
        memcpy(copy + 124, &sum, 4);
        use(copy, size);
    }
    free(copy);
    return 0;
}
