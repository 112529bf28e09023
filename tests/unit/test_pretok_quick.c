/* Patterns matched by hand cut every text as PCRE2 does: all short texts over an awkward alphabet, and
 * long random ones. */
#include "base/rng.h"
#include "model/pretok.h"
#include "test.h"

static hd_err err;
enum { MAX_PIECES = 4096 };

typedef struct {
    const char *s;
    size_t end[MAX_PIECES];
    int n;
} cuts;

static hd_status note(void *arg, const char *s, size_t n, hd_err *e)
{
    (void)e;
    cuts *c = arg;
    if (c->n < MAX_PIECES) c->end[c->n++] = (size_t)(s - c->s) + n;
    return HD_OK;
}

static const char *const piece[] = {"a",      "S",      "s",      "l",      "e",    "'",     "7",
                                    " ",      "\n",     "\t",     ".",      "\r",   "T",     "v",
                                    "\u00e9", "\u017f", "\u00a0", "\u0301", "\x1f", "\u0663"};
enum { N_PIECES = sizeof piece / sizeof piece[0] };

typedef struct {
    hd_pretok quick, slow;
    hd_pretok_work wq, ws;
    int n_differ;
    int64_t n_by_hand;
} pair;

static void compare(pair *p, const char *s, size_t n)
{
    static cuts a, b;
    a = (cuts){.s = s};
    b = (cuts){.s = s};
    hd_pretok_begin(&p->wq, n);
    hd_pretok_begin(&p->ws, n);
    hd_status st = hd_pretok_run(&p->quick, &p->wq, s, n, note, &a, &err);
    if (st == HD_OK) st = hd_pretok_run(&p->slow, &p->ws, s, n, note, &b, &err);
    bool same = st == HD_OK && a.n == b.n && memcmp(a.end, b.end, (size_t)a.n * sizeof *a.end) == 0;
    if (!same && p->n_differ++ < 5) fprintf(stderr, "differs: '%.*s' (%d, %d pieces)\n", (int)n, s, a.n, b.n);
    for (size_t at = 0; at < n;
         at = a.end[0], a.n--, memmove(a.end, a.end + 1, (size_t)a.n * sizeof *a.end)) {
        p->n_by_hand += hd_quick_match(p->quick.split[0].quick, s, n, at) != 0;
        if (a.n == 0) break;
    }
}

static void pair_open(pair *p, const char *name)
{
    bool nfc, whole;
    *p = (pair){0};
    CHECK_OK(hd_pretok_named(&p->quick, name, &nfc, &whole, &err));
    CHECK_OK(hd_pretok_named(&p->slow, name, &nfc, &whole, &err));
    CHECK(p->quick.split[p->quick.n - 1].quick != HD_QUICK_NONE, "%s", name);
    for (int i = 0; i < p->slow.n; i++) p->slow.split[i].quick = HD_QUICK_NONE;
    CHECK_OK(hd_pretok_work_open(&p->wq, &p->quick, &err));
    CHECK_OK(hd_pretok_work_open(&p->ws, &p->slow, &err));
}

static void pair_close(pair *p)
{
    hd_pretok_work_close(&p->wq);
    hd_pretok_work_close(&p->ws);
    hd_pretok_close(&p->quick);
    hd_pretok_close(&p->slow);
}

static void test_short(const char *name)
{
    pair p;
    pair_open(&p, name);
    for (int len = 1; len <= 4; len++) {
        int64_t all = 1;
        for (int i = 0; i < len; i++) all *= N_PIECES;
        for (int64_t k = 0; k < all; k++) {
            char s[32];
            size_t n = 0;
            int64_t x = k;
            for (int i = 0; i < len; i++, x /= N_PIECES) {
                size_t m = strlen(piece[x % N_PIECES]);
                memcpy(s + n, piece[x % N_PIECES], m);
                n += m;
            }
            compare(&p, s, n);
        }
    }
    CHECK(p.n_differ == 0, "%s: %d texts", name, p.n_differ);
    CHECK(p.n_by_hand > 50000, "%s: %lld by hand", name, (long long)p.n_by_hand);
    pair_close(&p);
}

static void test_long(const char *name)
{
    static char s[3000];
    pair p;
    hd_rng r;
    pair_open(&p, name);
    hd_rng_seed(&r, 4, 4);
    for (int k = 0; k < 3000; k++) {
        size_t n = 0, want = 1 + hd_rng_u32(&r) % 500;
        int kinds = 3 + (int)(hd_rng_u32(&r) % (N_PIECES - 2));
        while (n < want) {
            uint32_t x = hd_rng_u32(&r);
            if (x % 8 == 0) s[n++] = (char)(0x20 + (x >> 8) % 0x5f); // all of printable ASCII
            else {
                const char *q = piece[(x >> 8) % (uint32_t)kinds];
                memcpy(s + n, q, strlen(q));
                n += strlen(q);
            }
        }
        compare(&p, s, n);
    }
    CHECK(p.n_differ == 0, "%s: %d texts", name, p.n_differ);
    pair_close(&p);
}

int main(void)
{
    static const char *const names[] = {"gpt-2", "qwen2", "llama-bpe", "smollm"};
    for (int i = 0; i < 4; i++) {
        if (i < 3) test_short(names[i]);
        test_long(names[i]);
    }
    /* Nothing is read behind the end. */
    CHECK(hd_quick_match(HD_QUICK_NUMBERS, "12\xc3", 2, 0) == 2 &&
          hd_quick_match(HD_QUICK_NUMBERS, "12\xc3", 3, 0) == 0);
    CHECK(hd_quick_match(HD_QUICK_DIGITS, "'ll", 2, 0) == 2 &&
          hd_quick_match(HD_QUICK_DIGITS, "'ll", 3, 0) == 3);
    CHECK(hd_quick_match(HD_QUICK_NONE, "a", 1, 0) == 0);
    return hd_test_end();
}
