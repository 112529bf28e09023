/* CRC-32C (Castagnoli's polynomial, RFC 3720 appendix B.4): what shards and checkpoints are checked with. */
#ifndef HD_BASE_CRC32C_H
#define HD_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* crc: 0 to begin with, or what the bytes before gave: hd_crc32c(hd_crc32c(0, a, n), b, m) is
 * that of a then b. */
uint32_t hd_crc32c(uint32_t crc, const void *p, size_t n_bytes);
/* The same by table alone: for machines without the instruction, and for the test of the instruction. */
uint32_t hd_crc32c_table(uint32_t crc, const void *p, size_t n_bytes);

#endif
