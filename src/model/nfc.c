/* See nfc.h.  libutf8proc knows the characters; what is done here is to touch only the parts that may change,
 * and to sort combining marks in linear time (utf8proc_map exchanges neighbours, which a long run of marks
 * turns into n squared).
 *
 * A character is a border when nothing before it can change it and it is itself in the form: text is
 * cut before borders, and only a stretch from the border before a doubtful character up to the next
 * border is worked on. */
#include "model/nfc.h"

#include <string.h>
#include <utf8proc.h>

#include "base/utf8.h"

static bool is_border(hd_normal_form form, int32_t c)
{
    if (c < 0x80) return true;
    if (form != HD_NFC) return false;
    if (c < 0x300) return true;
    if (c >= 0x3400 && c < 0xa000) return true;  // CJK ideographs
    if (c >= 0xac00 && c < 0xd7a4) return true;  // Hangul syllables
    if (c >= 0x1100 && c < 0x1200) return false; // Hangul jamo compose by rule, not by table
    const utf8proc_property_t *p = utf8proc_get_property(c);
    return p->combining_class == 0 && p->comb_index == UINT16_MAX &&
           (p->decomp_seqindex == UINT16_MAX || p->decomp_type != 0);
}

/* Length of the longest prefix that is ASCII. */
static size_t ascii_run(const char *s, size_t n)
{
    size_t i = 0;
    for (uint64_t w; i + 8 <= n; i += 8) {
        memcpy(&w, s + i, 8);
        if (w & 0x8080808080808080u) break;
    }
    while (i < n && !(s[i] & 0x80)) i++;
    return i;
}

/* The first character that is no border, or n; *border: the last border before it, or that same place. */
static size_t find_doubt(const char *s, size_t i, size_t n, hd_normal_form form, size_t *border)
{
    size_t last = SIZE_MAX;
    while (i < n) {
        size_t run = ascii_run(s + i, n - i);
        if (run) last = i + run - 1;
        i += run;
        if (i == n) break;
        int32_t c;
        int len = hd_utf8_next((const uint8_t *)s + i, n - i, &c);
        if (!is_border(form, c)) break;
        last = i;
        i += (size_t)len;
    }
    *border = last == SIZE_MAX ? i : last;
    return i;
}

bool hd_nfc_quick(const char *s, size_t n)
{
    size_t border;
    return find_doubt(s, 0, n, HD_NFC, &border) == n;
}

/* Canonical ordering: a stable counting sort by class of one run of marks (class not 0). */
static hd_status sort_marks(int32_t *cp, size_t n, hd_err *err)
{
    size_t first[257] = {0};
    int32_t *to;
    hd_status st = hd_alloc_n(&to, n, sizeof *to, err);
    if (st != HD_OK) return st;
    for (size_t i = 0; i < n; i++) first[(uint8_t)utf8proc_get_property(cp[i])->combining_class + 1]++;
    for (int c = 0; c < 256; c++) first[c + 1] += first[c];
    for (size_t i = 0; i < n; i++) to[first[(uint8_t)utf8proc_get_property(cp[i])->combining_class]++] = cp[i];
    memcpy(cp, to, n * sizeof *cp);
    free(to);
    return HD_OK;
}

static hd_status order_marks(int32_t *cp, size_t n, hd_err *err)
{
    hd_status st = HD_OK;
    for (size_t i = 0, j; i < n && st == HD_OK; i = j + 1) {
        bool sorted = true;
        int class, before = 0;
        for (j = i; j < n && (class = utf8proc_get_property(cp[j])->combining_class) != 0; j++) {
            sorted &= class >= before;
            before = class;
        }
        if (!sorted) st = sort_marks(cp + i, j - i, err);
    }
    return st;
}

static hd_status normalize_part(hd_buf *out, const char *s, size_t n, hd_normal_form form, hd_err *err)
{
    enum { LONGEST = 18 }; // U+FDFA gives 18 characters under NFKD, the most of all
    hd_status st;
    int32_t *cp = NULL;
    size_t k = 0, cap = 0;
    bool compose = form == HD_NFC || form == HD_NFKC;
    utf8proc_option_t how = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (form == HD_NFKC || form == HD_NFKD) how |= UTF8PROC_COMPAT;

    for (size_t i = 0; i < n;) {
        if (cap - k < LONGEST) {
            cap = cap ? cap * 2 : 64;
            HD_TRY(hd_realloc(&cp, cap * sizeof *cp, err));
        }
        int32_t c;
        int class = 0;
        i += (size_t)hd_utf8_next((const uint8_t *)s + i, n - i, &c);
        if (c < 0) c = 0xfffd;
        utf8proc_ssize_t m = utf8proc_decompose_char(c, cp + k, LONGEST, how, &class);
        if (m < 1 || m > LONGEST) {
            st = hd_fail(err, HD_FORMAT, "tokenizer: normal form: U+%04X: %s", (unsigned)c,
                         m < 0 ? utf8proc_errmsg(m) : "decomposes into too much");
            goto fail;
        }
        k += (size_t)m;
    }
    HD_TRY(order_marks(cp, k, err));
    if (compose && k) k = (size_t)utf8proc_normalize_utf32(cp, (utf8proc_ssize_t)k, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (size_t i = 0; i < k; i++) {
        char u[4];
        HD_TRY(hd_buf_add(out, u, (size_t)hd_utf8_put(u, cp[i]), err));
    }
    st = HD_OK;
fail:
    free(cp);
    return st;
}

hd_status hd_normalize(hd_buf *out, const char *s, size_t n, hd_normal_form form, hd_err *err)
{
    hd_status st;
    for (size_t done = 0; done < n;) {
        size_t from, to = find_doubt(s, done, n, form, &from);
        if (to == n) return hd_buf_add(out, s + done, n - done, err);
        HD_TRY(hd_buf_add(out, s + done, from - done, err));
        while (to < n) { // to the next border
            int32_t c;
            int len = hd_utf8_next((const uint8_t *)s + to, n - to, &c);
            if (is_border(form, c)) break;
            to += (size_t)len;
        }
        HD_TRY(normalize_part(out, s + from, to - from, form, err));
        done = to;
    }
    return HD_OK;
fail:
    return st;
}
