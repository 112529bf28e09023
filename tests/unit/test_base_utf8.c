/* UTF-8: every code point, every short byte string, and Unicode's own example of maximal subparts. */
#include "base/utf8.h"

#include "test.h"

static hd_err err;

/* Encoding by the definition (Unicode 15, table 3-6), not by the code under test. */
static int encode(uint8_t out[4], uint32_t c)
{
    if (c < 0x80) return out[0] = (uint8_t)c, 1;
    if (c < 0x800) return out[0] = (uint8_t)(0xc0 + c / 64), out[1] = (uint8_t)(0x80 + c % 64), 2;
    if (c < 0x10000) {
        out[0] = (uint8_t)(0xe0 + c / 4096), out[1] = (uint8_t)(0x80 + c / 64 % 64), out[2] = (uint8_t)(0x80 + c % 64);
        return 3;
    }
    out[0] = (uint8_t)(0xf0 + c / 262144), out[1] = (uint8_t)(0x80 + c / 4096 % 64);
    out[2] = (uint8_t)(0x80 + c / 64 % 64), out[3] = (uint8_t)(0x80 + c % 64);
    return 4;
}

/* valid[k]: the set of well-formed sequences' prefixes, asked by search through all code
 * points of a lead byte. */
static bool is_prefix_of_some_char(const uint8_t *s, int n)
{
    static const uint32_t first[5] = {0, 0, 0x80, 0x800, 0x10000}, last[5] = {0, 0x7f, 0x7ff, 0xffff, 0x10ffff};
    for (int len = n; len <= 4; len++) {
        uint32_t lo = 0, hi = 0;
        static const int shift[5] = {0, 0, 6, 12, 18};
        static const uint32_t mark[5] = {0, 0, 0xc0, 0xe0, 0xf0}, span[5] = {0, 0x80, 32, 16, 8};
        if (s[0] < mark[len] || s[0] >= mark[len] + span[len]) continue;
        bool ok = true;
        lo = (uint32_t)(s[0] - mark[len]) << shift[len];
        for (int i = 1; i < n; i++) {
            ok &= s[i] >= 0x80 && s[i] < 0xc0;
            lo |= (uint32_t)(s[i] & 0x3f) << (shift[len] - 6 * i);
        }
        hi = lo | ((1u << (shift[len] - 6 * (n - 1))) - 1); // the code points that the prefix may still become
        if (!ok || hi < first[len] || lo > last[len]) continue;
        if (lo >= 0xd800 && hi <= 0xdfff) continue; // nothing but surrogates
        return true;
    }
    return false;
}

/* The rule itself: the longest prefix of s that begins a well-formed sequence, at least one byte. */
static int maximal_subpart(const uint8_t *s, size_t n, bool *whole)
{
    int best = 0;
    *whole = false;
    for (int k = 1; k <= 4 && (size_t)k <= n && is_prefix_of_some_char(s, k); k++) {
        best = k;
        int len = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
        if (len == k) *whole = true;
    }
    return best ? best : 1;
}

static void code_points(void)
{
    int bad = 0;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        uint8_t want[4];
        char got[4];
        int32_t cp;
        if (c >= 0xd800 && c <= 0xdfff) continue;
        int n = encode(want, c);
        bad += hd_utf8_put(got, (int32_t)c) != n || memcmp(got, want, (size_t)n) != 0;
        bad += hd_utf8_next(want, (size_t)n, &cp) != n || cp != (int32_t)c;
        for (int k = 1; k < n; k++) { // cut short: invalid, all of it, and held back
            bad += hd_utf8_next(want, (size_t)k, &cp) != k || cp != -1;
            bad += hd_utf8_whole(want, (size_t)k) != 0;
        }
        bad += hd_utf8_whole(want, (size_t)n) != (size_t)n;
    }
    CHECK(bad == 0, "%d", bad);
    char out[4];
    CHECK(hd_utf8_put(out, 0xd800) == 3 && memcmp(out, "\xef\xbf\xbd", 3) == 0);
    CHECK(hd_utf8_put(out, -1) == 3 && hd_utf8_put(out, 0x110000) == 3);
}

/* Every string of up to 4 bytes over bytes on both sides of each boundary of the table. */
static void byte_strings(void)
{
    static const uint8_t edge[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1,
                                   0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff};
    const uint32_t k = sizeof edge;
    int bad = 0, bad_hold = 0;
    for (size_t n = 1; n <= 4; n++) {
        uint32_t count = 1;
        for (size_t i = 0; i < n; i++) count *= k;
        for (uint32_t c = 0; c < count; c++) {
            uint8_t s[4];
            uint32_t v = c;
            for (size_t i = 0; i < n; i++, v /= k) s[i] = edge[v % k];
            bool whole;
            int32_t cp;
            int want = maximal_subpart(s, n, &whole), got = hd_utf8_next(s, n, &cp);
            bad += got != want || (cp >= 0) != whole;
            /* Held back: the shortest tail that is an unfinished character; walk forward to find
             * where it starts. */
            size_t at = 0, keep = n;
            while (at < n) {
                int len = maximal_subpart(s + at, n - at, &whole);
                if (!whole && at + (size_t)len == n && is_prefix_of_some_char(s + at, len)) keep = at;
                at += (size_t)len;
            }
            bad_hold += hd_utf8_whole(s, n) != keep;
        }
    }
    CHECK(bad == 0, "%d", bad);
    CHECK(bad_hold == 0, "%d", bad_hold);
}

static void repaired(const char *in, const char *want)
{
    hd_buf b;
    hd_buf_init(&b, 1000);
    CHECK_OK(hd_utf8_repair(&b, in, strlen(in), &err));
    CHECK(b.data && strcmp(b.data, want) == 0, "got %s", b.data ? b.data : "nothing");
    hd_buf_free(&b);
}

static void repairs(void)
{
#define R "\xef\xbf\xbd"
    repaired("plain caf\xc3\xa9 \xe4\xbd\xa0 \xf0\x9f\x98\x80", "plain caf\xc3\xa9 \xe4\xbd\xa0 \xf0\x9f\x98\x80");
    /* Unicode 15, 3.9, tables 3-8 to 3-11. */
    repaired("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41", R R R R R R R R "A");
    repaired("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41", R R R R R R R R "A");
    repaired("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42", R R R R R "A" R R "B");
    repaired("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", R R R R "A");
    hd_buf b;
    hd_buf_init(&b, 5);
    CHECK(hd_utf8_repair(&b, "\xff\xff", 2, &err) == HD_LIMIT);
    hd_buf_free(&b);
    CHECK(hd_utf8_whole("", 0) == 0);
    CHECK(hd_utf8_whole("ab\xe4\xbd", 4) == 2 && hd_utf8_whole("ab\xbd\xbd\xbd\xbd", 6) == 6);
}

int main(void)
{
    code_points();
    byte_strings();
    repairs();
    return hd_test_end();
}
