/* The Parquet reader against files that pyarrow wrote (tests/golden/make_parquet.py says what is in them),
 * and against the same files damaged at every byte. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) // these bring an allocator of their own
#define NO_FAILURES
#else
#include "failalloc/failalloc.c"
#endif

#include "train/parquet.h"
#include "train/snappy.h"
#include "train/text.h"

#include "test.h"

static hd_err err;

static const char *golden(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, HD_SOURCE_DIR "/tests/golden/parquet/%s.parquet", name);
    return path;
}

/* What make_parquet.py put into row i; false: null. */
static bool row(char *s, int i)
{
    s[0] = 0;
    if (i % 7 == 3) return false;
    if (i % 11 == 5) return true;
    if (i < 90) return sprintf(s, "w%d", i * i % 13), true;
    int n = sprintf(s, "row %d ", i);
    for (int k = 0; k < i % 9; k++) n += sprintf(s + n, "ab");
    return true;
}

static void test_column(const char *name, const char *column, bool nulls)
{
    hd_parquet *p = NULL;
    const char *text;
    size_t n;
    bool more = true;
    int bad = 0, seen = 0;
    char want[64];
    CHECK_OK(hd_parquet_open(&p, golden(name), column, &err));
    if (!p) return;
    CHECK(hd_parquet_rows(p) == 200);
    for (int i = 0; i < 200; i++) {
        bool is = row(want, i);
        if (!is && nulls) continue;
        if (!is) strcpy(want, "-");
        hd_status st = hd_parquet_next(p, &text, &n, &more, &err);
        if (st != HD_OK || !more) break;
        bad += n != strlen(want) || memcmp(text, want, n) != 0;
        seen++;
    }
    CHECK(bad == 0 && seen == (nulls ? 171 : 200), "%s %s: %d bad, %d seen: %s", name, column, bad, seen,
          err.msg);
    CHECK_OK(hd_parquet_next(p, &text, &n, &more, &err));
    CHECK(!more);
    hd_parquet_close(p);
}

static void test_golden(void)
{
    static const char *const codec[] = {"none", "snappy", "zstd"}, *const kind[] = {"plain", "dict", "mixed"};
    char name[64];
    for (int c = 0; c < 3; c++)
        for (int v = 1; v <= 2; v++)
            for (int k = 0; k < 3; k++) {
                snprintf(name, sizeof name, "%s-v%d-%s", codec[c], v, kind[k]);
                test_column(name, "text", true);
                test_column(name, "must", false);
            }
}

static void refused(const char *name, const char *column, hd_status want, const char *why)
{
    hd_parquet *p = NULL;
    const char *text;
    size_t n;
    bool more;
    hd_status st = hd_parquet_open(&p, golden(name), column, &err);
    if (st == HD_OK) st = hd_parquet_next(p, &text, &n, &more, &err);
    CHECK(st == want && strstr(err.msg, why), "%s: %s", name, err.msg);
    hd_parquet_close(p);
}

static void test_refused(void)
{
    refused("none-v1-plain", "texts", HD_USAGE, "no column 'texts'; text columns: text, must");
    refused("none-v1-plain", "", HD_USAGE, "no column ''");
    refused("none-v1-plain", "n", HD_UNSUPPORTED, "column 'n' is no text");
    refused("none-v1-plain", "pair", HD_UNSUPPORTED, "column 'pair' is a group");
    refused("none-v1-plain", "tags", HD_UNSUPPORTED, "column 'tags' is a group");
    refused("gzip", "text", HD_UNSUPPORTED, "compression gzip");
    refused("delta", "text", HD_UNSUPPORTED, "encoding 6");
}

/* As documents: blank rows are passed over like null ones. */
static void test_text(void)
{
    hd_text *t = NULL;
    hd_buf doc;
    bool more = true;
    int seen = 0, bad = 0, i = 0;
    char want[64];
    hd_buf_init(&doc, 1 << 20);
    CHECK_OK(hd_text_open(&t, golden("snappy-v2-dict"), NULL, &err));
    while (t && hd_text_next(t, &doc, &more, &err) == HD_OK && more) {
        while (i < 200 && (!row(want, i) || !want[0])) i++;
        bad += strcmp(doc.data, want) != 0;
        i++, seen++;
    }
    CHECK(!more && bad == 0 && seen > 150, "%d bad, %d seen", bad, seen);
    hd_text_close(t);
    hd_buf_free(&doc);
}

/* Reads all that can be read.  `copy` has exactly the file's size: the sanitizers see a byte
 * read past its end. */
static hd_status read_all(const uint8_t *copy, size_t n)
{
    hd_map m = {copy, n};
    hd_parquet *p = NULL;
    const char *text;
    size_t len, sum = 0;
    bool more = true;
    hd_status st = hd_parquet_open_map(&p, &m, "m", "text", &err);
    while (st == HD_OK && more) {
        st = hd_parquet_next(p, &text, &len, &more, &err);
        for (size_t i = 0; st == HD_OK && more && i < len; i++) sum += (uint8_t)text[i];
    }
    hd_parquet_close(p);
    return sum == 1 ? HD_OK : st; // sum: so that the bytes are read
}

static void test_damaged(const char *name)
{
    hd_map m;
    int wrong = 0, noticed = 0;
    CHECK_OK(hd_map_open(&m, golden(name), &err));
    uint8_t *copy = malloc(m.size);
    memcpy(copy, m.data, m.size);
    CHECK_OK(read_all(copy, m.size));
    for (size_t i = 0; i < m.size; i++)
        for (int k = 0; k < 3; k++) {
            static const uint8_t with[] = {0x00, 0xff, 0x80};
            copy[i] = k == 2 ? copy[i] ^ with[k] : with[k];
            hd_status st = read_all(copy, m.size);
            noticed += st != HD_OK;
            wrong += st != HD_OK && st != HD_FORMAT && st != HD_UNSUPPORTED && st != HD_LIMIT &&
                     st != HD_USAGE && st != HD_NOMEM;
            copy[i] = m.data[i];
        }
    CHECK(wrong == 0 && noticed > 100, "%s: %d strange, %d noticed", name, wrong, noticed);
    free(copy);
    for (size_t n = 0; n < m.size; n += 7) {
        copy = malloc(n ? n : 1);
        memcpy(copy, m.data, n);
        CHECK(read_all(copy, n) == HD_FORMAT, "cut to %zu", n);
        free(copy);
    }
    hd_map_close(&m);
}

#ifndef NO_FAILURES
static void test_failures(const char *name)
{
    hd_map m;
    int bad = 0, n = 1;
    CHECK_OK(hd_map_open(&m, golden(name), &err));
    for (;; n++) {
        atomic_store(&made, 0);
        fail_at = n;
        hd_status st = read_all(m.data, m.size);
        fail_at = 0;
        bad += st != HD_OK && (st != HD_NOMEM || !err.msg[0]);
        if (st == HD_OK || n > 1000) break;
    }
    CHECK(bad == 0 && n > 5 && n < 1000, "%s: %d of %d", name, bad, n);
    hd_map_close(&m);
}
#endif

static void test_snappy(void)
{
    uint8_t out[64];
    static const uint8_t run[] = {12, 0x04, 'a', 'b', 0x15, 2, 0x00, '!'}; // "ab", copy of 9 from 2 back, "!"
    static const uint8_t far[] = {4, 0x00, 'a', 0x0a, 2, 0};
    static const uint8_t big[] = {3, 0xfc, 0xff, 0xff, 0xff, 0xff, 'a'};
    CHECK(hd_snappy_unpack(out, 12, run, sizeof run) && memcmp(out,
                                                               "ababababab"
                                                               "a!",
                                                               12) == 0,
          "%.12s", out);
    CHECK(!hd_snappy_unpack(out, 11, run, sizeof run));
    CHECK(!hd_snappy_unpack(out, 12, run, sizeof run - 1));
    CHECK(!hd_snappy_unpack(out, 4, far, sizeof far));
    CHECK(!hd_snappy_unpack(out, 3, big, sizeof big));
    CHECK(!hd_snappy_unpack(out, 0, NULL, 0));
    CHECK(hd_snappy_unpack(out, 0, (const uint8_t *)"", 1));
}

int main(void)
{
    test_golden();
    test_refused();
    test_text();
    test_snappy();
    test_damaged("none-v1-dict");
    test_damaged("snappy-v1-plain");
    test_damaged("zstd-v2-mixed");
#ifndef NO_FAILURES
    test_failures("none-v1-dict");
    test_failures("snappy-v2-plain");
    test_failures("zstd-v2-mixed");
#endif
    return hd_test_end();
}
