/* UTF-8 after the table of well-formed sequences (Unicode 15, table 3-7): the lead byte fixes the
 * length and the range of the second byte, which alone excludes overlong forms, surrogates and code
 * points past U+10FFFF. */
#include "base/utf8.h"

/* Length for a lead byte (0: none) and the allowed range of the byte after it. */
static int lead(uint8_t b, uint8_t *lo, uint8_t *hi)
{
    *lo = 0x80, *hi = 0xbf;
    if (b < 0x80) return 1;
    if (b < 0xc2) return 0; // continuation bytes; c0 and c1 would only spell overlong forms
    if (b < 0xe0) return 2;
    if (b < 0xf0) {
        if (b == 0xe0) *lo = 0xa0; // below: overlong
        if (b == 0xed) *hi = 0x9f; // above: surrogates
        return 3;
    }
    if (b < 0xf5) {
        if (b == 0xf0) *lo = 0x90; // below: overlong
        if (b == 0xf4) *hi = 0x8f; // above: past U+10FFFF
        return 4;
    }
    return 0;
}

/* How many bytes of s[0..n) begin one well-formed sequence of `len` bytes (at least 1: the lead itself). */
static int matched(const uint8_t *s, size_t n, int len, uint8_t lo, uint8_t hi)
{
    int i = 1;
    for (; i < len && (size_t)i < n; i++) {
        if (s[i] < lo || s[i] > hi) break;
        lo = 0x80, hi = 0xbf;
    }
    return i;
}

int hd_utf8_next(const uint8_t *s, size_t n, int32_t *cp)
{
    uint8_t lo, hi;
    int len = lead(s[0], &lo, &hi);
    *cp = -1;
    if (len == 0) return 1;
    int got = matched(s, n, len, lo, hi);
    if (got < len) return got; // the maximal subpart: as much as could have begun a character
    if (len == 1) {
        *cp = s[0];
    } else {
        int32_t c = s[0] & (0x7f >> len);
        for (int i = 1; i < len; i++) c = c << 6 | (s[i] & 0x3f);
        *cp = c;
    }
    return len;
}

int hd_utf8_put(char out[4], int32_t cp)
{
    if (cp < 0 || cp > 0x10ffff || (cp >= 0xd800 && cp <= 0xdfff)) cp = 0xfffd;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    int len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (int i = len - 1; i > 0; i--, cp >>= 6) out[i] = (char)(0x80 | (cp & 0x3f));
    out[0] = (char)(0xf00 >> len | cp); // 0xf00 >> 2 = ..c0, >> 3 = ..e0, >> 4 = ..f0 in the low byte
    return len;
}

hd_status hd_utf8_repair(hd_buf *out, const void *bytes, size_t n, hd_err *err)
{
    hd_status st = HD_OK;
    const uint8_t *s = bytes;
    size_t good = 0, i = 0; // s[good..i) is well-formed and not yet appended
    while (i < n) {
        int32_t cp;
        int len = hd_utf8_next(s + i, n - i, &cp);
        if (cp < 0) {
            HD_TRY(hd_buf_add(out, s + good, i - good, err));
            HD_TRY(hd_buf_add(out, "\xef\xbf\xbd", 3, err));
            good = i + (size_t)len;
        }
        i += (size_t)len;
    }
    HD_TRY(hd_buf_add(out, s + good, n - good, err));
fail:
    return st;
}

size_t hd_utf8_whole(const void *bytes, size_t n)
{
    const uint8_t *s = bytes;
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        const uint8_t *p = s + n - back;
        if ((*p & 0xc0) == 0x80) continue; // a continuation byte: its lead is further left
        uint8_t lo, hi;
        int len = lead(*p, &lo, &hi);
        bool begun = (size_t)len > back && (size_t)matched(p, back, len, lo, hi) == back;
        return begun ? n - back : n;
    }
    return n;
}
