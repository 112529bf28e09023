/* Snappy's raw format, read: what most Parquet files are packed with. */
#ifndef HD_TRAIN_SNAPPY_H
#define HD_TRAIN_SNAPPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Unpack src[0..n) into exactly n_out bytes; false when the bytes are malformed or give another size.
 * Any input is safe. */
bool hd_snappy_unpack(uint8_t *out, size_t n_out, const uint8_t *src, size_t n);

#endif
