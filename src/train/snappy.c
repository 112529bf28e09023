/* Snappy's raw format (github.com/google/snappy, format_description.txt): the unpacked length as a varint,
 * then elements.  The low two bits of an element's first byte tell its kind:
 *
 *   0  literal: length - 1 in the upper six bits; 60 to 63 there: in 1 to 4 more bytes.  The bytes follow.
 *   1  copy: length - 4 in three bits, offset in the upper three and one more byte
 *   2  copy: length - 1 in six bits, offset in two more bytes
 *   3  copy: length - 1 in six bits, offset in four more bytes
 *
 * libsnappy would do the same three times as fast, but is C++: its run-time library costs every start of the
 * program half a millisecond and 1.5 MB, for a file that is read once. */
#include "train/snappy.h"

#include <string.h>

static bool number(uint64_t *v, const uint8_t **p, const uint8_t *end, int n_bytes)
{
    if (end - *p < n_bytes) return false;
    *v = 0;
    for (int i = 0; i < n_bytes; i++) *v |= (uint64_t) * (*p)++ << 8 * i;
    return true;
}

static bool varint(uint64_t *v, const uint8_t **p, const uint8_t *end)
{
    *v = 0;
    for (int shift = 0; shift < 35 && *p < end; shift += 7) {
        uint8_t b = *(*p)++;
        *v |= (uint64_t)(b & 127) << shift;
        if (b < 128) return true;
    }
    return false;
}

bool hd_snappy_unpack(uint8_t *out, size_t n_out, const uint8_t *src, size_t n)
{
    size_t at = 0;
    uint64_t total, len, off;
    if (!n) return false;
    const uint8_t *p = src, *end = src + n;
    if (!varint(&total, &p, end) || total != n_out) return false;
    while (p < end) {
        uint8_t tag = *p++;
        if ((tag & 3) == 0) {
            len = tag >> 2;
            if (len >= 60 && !number(&len, &p, end, (int)len - 59)) return false;
            if (++len > (size_t)(end - p) || len > n_out - at) return false;
            memcpy(out + at, p, len);
            p += len, at += len;
            continue;
        }
        if ((tag & 3) == 1) {
            if (!number(&off, &p, end, 1)) return false;
            off |= (uint64_t)(tag >> 5) << 8;
            len = (tag >> 2 & 7) + 4;
        } else {
            if (!number(&off, &p, end, (tag & 3) == 2 ? 2 : 4)) return false;
            len = (tag >> 2) + 1;
        }
        if (!off || off > at || len > n_out - at) return false;
        if (off >= len) memcpy(out + at, out + at - off, len);
        else
            for (size_t i = 0; i < len; i++) out[at + i] = out[at - off + i]; // overlapping: a repetition
        at += len;
    }
    return at == n_out;
}
