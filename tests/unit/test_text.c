/* Documents from text and JSONL files, plain and behind zstd: what a document is, what is passed over,
 * what is refused. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) // these bring an allocator of their own
#define NO_FAILURES
#else
#include "failalloc/failalloc.c"
#endif

#include <unistd.h>
#include <zstd.h>

#include "train/text.h"

#include "test.h"

static char dir[] = "/tmp/hadal-text-XXXXXX";
static char path[64];
static hd_err err;

static void put(const char *name, const void *p, size_t n)
{
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, n, f) != n || fclose(f) != 0) abort();
}

static void put_zst(const char *name, const char *text, size_t n, size_t cut)
{
    size_t cap = ZSTD_compressBound(n);
    char *z = malloc(cap);
    size_t k = ZSTD_compress(z, cap, text, n, 3);
    put(name, z, k - cut);
    free(z);
}

/* All documents, each in brackets; an error as its message. */
static const char *all(const hd_text_opts *o)
{
    static char out[4096];
    hd_text *t = NULL;
    hd_buf doc;
    bool more = true;
    size_t at = 0;
    hd_buf_init(&doc, 64 << 20);
    out[0] = 0;
    hd_status st = hd_text_open(&t, path, o, &err);
    while (st == HD_OK && (st = hd_text_next(t, &doc, &more, &err)) == HD_OK && more)
        at += (size_t)snprintf(out + at, sizeof out - at, "[%.*s]", (int)doc.len, doc.data);
    if (st != HD_OK)
        snprintf(out + at, sizeof out - at, "!%s",
                 strstr(err.msg, dir) ? strstr(err.msg, dir) + sizeof dir : err.msg);
    hd_text_close(t);
    hd_buf_free(&doc);
    return out;
}

#define GIVES(o, want) CHECK(strcmp(all(o), want) == 0, "%s", all(o))

static void test_text(void)
{
    static const char two[] = "\xef\xbb\xbf"
                              "a\nb\n<|end|>\n\n\nc\r\n<|end|>\r\n \n<|end|>\nd";
    const hd_text_opts end = {.divider = "<|end|>"}, empty = {.divider = ""}, lines = {.divider = "\n"};
    put("a.txt", two, sizeof two - 1);
    GIVES(NULL, "[a\nb\n<|end|>\n\n\nc\r\n<|end|>\r\n \n<|end|>\nd]");
    GIVES(&end, "[a\nb][c][d]");
    GIVES(&empty, "[a\nb\n<|end|>][c\r\n<|end|>\r\n \n<|end|>\nd]");
    GIVES(&lines, "[a][b][<|end|>][c][<|end|>][<|end|>][d]");
    put("empty.txt", "", 0);
    GIVES(NULL, "");
    GIVES(&end, "");
    put("blank.txt", " \n\n", 3);
    GIVES(NULL, "");
    put_zst("a.txt.zst", two, sizeof two - 1, 0);
    GIVES(&end, "[a\nb][c][d]");
}

/* What is longer than a document may be goes in pieces: at a line's end, else behind a whole character. */
static void test_long(void)
{
    const hd_text_opts o = {.max_doc = 16}, d = {.max_doc = 16, .divider = "--"};
    put("long.txt", "0123456789\nabcdef\nx", 19);
    GIVES(&o, "[0123456789\n][abcdef\nx]");
    put("long.txt", "0123456789abcd\xc3\xa4\xc3\xa4\xc3\xa4zz\n--\ny", 28);
    GIVES(&o, "[0123456789abcd\xc3\xa4][\xc3\xa4\xc3\xa4zz\n--\ny]");
    GIVES(&d, "[0123456789abcd\xc3\xa4][\xc3\xa4\xc3\xa4zz][y]");
    put("long.txt", "0123456789abcde\xc3\xa4z", 18);
    GIVES(&o, "[0123456789abcde][\xc3\xa4z]");
}

static void test_json(void)
{
    static const char two[] =
        "{\"text\": \"a\\nb\", \"n\": 1}\n\n{\"text\": \"\"}\r\n{\"n\": 2, \"text\": \"\\u00e4\"}";
    const hd_text_opts whole = {.whole_json = true}, other = {.field = "n"};
    put("a.jsonl", two, sizeof two - 1);
    GIVES(NULL, "[a\nb][\xc3\xa4]");
    GIVES(&whole, "[{\"text\": \"a\\nb\", \"n\": 1}][{\"text\": \"\"}][{\"n\": 2, \"text\": \"\\u00e4\"}]");
    GIVES(&other, "!a.jsonl:1: field 'n' is no text: --field names another");
    put_zst("a.jsonl.zst", two, sizeof two - 1, 0);
    GIVES(NULL, "[a\nb][\xc3\xa4]");
    put("b.jsonl", "{\"text\": \"a\"}\n{\"text\": \n", 24);
    CHECK(strncmp(all(NULL), "[a]!b.jsonl:2: JSON, line 1: ", 29) == 0, "%s", all(NULL));
    put("b.jsonl", "[1]\n", 4);
    GIVES(NULL, "!b.jsonl:1: no JSON object");
    put("b.jsonl", "{\"x\": 1}", 8);
    GIVES(NULL, "!b.jsonl:1: field 'text' is not there: --field names another");
    put("b.jsonl", "{\"text\": \"\xff\"}", 13);
    CHECK(strncmp(all(NULL), "!b.jsonl:1: JSON", 16) == 0, "%s", all(NULL));
    const hd_text_opts o = {.max_doc = 20};
    put("b.jsonl", "{\"text\": \"a\"}\n{\"text\": \"aaaaaaaaaaaaaaaaaaaaaaaaa\"}\n", 52);
    GIVES(&o, "[a]!b.jsonl:2: a line of more than 20 bytes");
}

static void test_bad(void)
{
    static char noise[100000];
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)('a' + (i * i * 31 + i / 7) % 26);
    put_zst("cut.txt.zst", noise, sizeof noise, 5);
    CHECK(strstr(all(NULL), "!cut.txt.zst: cut short") != NULL, "%.99s", all(NULL));
    put("bad.txt.zst", "no zstd at all", 14);
    CHECK(strstr(all(NULL), "!bad.txt.zst: zstd") != NULL, "%s", all(NULL));
    snprintf(path, sizeof path, "%s/none", dir);
    CHECK(strncmp(all(NULL), "!none: ", 7) == 0, "%s", all(NULL));
    snprintf(path, sizeof path, "%s", dir);
    CHECK(strstr(all(NULL), "a folder") != NULL, "%s", all(NULL));
}

/* Many megabytes: whole, in order, through either reader, and the bar's figure ends at the file's size. */
static void test_big(void)
{
    size_t n = 0, cap = 6 << 20;
    char *text = malloc(cap);
    int lines = 0, seen = 0, bad = 0;
    while (n < cap - 64) n += (size_t)sprintf(text + n, "line %d of this file\n", lines++);
    put("big.txt", text, n);
    put_zst("big.txt.zst", text, n, 0);
    for (int z = 0; z < 2; z++) {
        const hd_text_opts o = {.divider = "\n"};
        hd_text *t = NULL;
        hd_buf doc;
        bool more;
        char want[64];
        hd_buf_init(&doc, 1000);
        snprintf(path, sizeof path, "%s/big.txt%s", dir, z ? ".zst" : "");
        CHECK_OK(hd_text_open(&t, path, &o, &err));
        for (seen = 0; hd_text_next(t, &doc, &more, &err) == HD_OK && more; seen++) {
            snprintf(want, sizeof want, "line %d of this file", seen);
            bad += strcmp(want, doc.data) != 0;
        }
        CHECK(seen == lines && bad == 0, "%d of %d lines, %d bad", seen, lines, bad);
        CHECK(z || hd_text_done(t) == n);
        hd_text_close(t);
        hd_buf_free(&doc);
    }
    free(text);
}

#ifndef NO_FAILURES
static void test_failures(const char *name, const hd_text_opts *o)
{
    int bad = 0, n = 1;
    char want[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    snprintf(want, sizeof want, "%s", all(o));
    for (;; n++) {
        atomic_store(&made, 0);
        fail_at = n;
        err = (hd_err){0};
        const char *got = all(o);
        fail_at = 0;
        bool same = strcmp(got, want) == 0;
        bad += !same && err.code != HD_NOMEM;
        if (same || n > 1000) break;
    }
    CHECK(bad == 0 && n > 3 && n < 1000, "%s: %d of %d", name, bad, n);
}
#endif

int main(void)
{
    if (!mkdtemp(dir)) abort();
    test_text();
    test_long();
    test_json();
    test_bad();
    test_big();
#ifndef NO_FAILURES
    const hd_text_opts end = {.divider = "<|end|>"};
    test_failures("a.txt", &end);
    test_failures("a.txt.zst", &end);
    test_failures("a.jsonl", NULL);
    test_failures("a.jsonl.zst", NULL);
#endif
    char rm[64];
    snprintf(rm, sizeof rm, "rm -r %s", dir);
    CHECK(system(rm) == 0);
    return hd_test_end();
}
