/* Words, duplicates, and texts that share words with an evaluation. */
#include <unistd.h>

#include "base/rng.h"
#include "train/dedup.h"
#include "train/overlap.h"

#include "test.h"

static hd_err err;
static char dir[] = "/tmp/hadal-dedup-XXXXXX";

static hd_wordhash words_of(const char *text)
{
    hd_wordhash w = {0};
    CHECK_OK(hd_wordhash_add(&w, text, strlen(text), &err));
    return w;
}

static bool same_words(const char *a, const char *b)
{
    hd_wordhash x = words_of(a), y = words_of(b);
    bool same = x.n == y.n && (!x.n || memcmp(x.hash, y.hash, (size_t)x.n * sizeof *x.hash) == 0);
    hd_wordhash_free(&x);
    hd_wordhash_free(&y);
    return same;
}

static int64_t count(const char *text)
{
    hd_wordhash w = words_of(text);
    int64_t n = w.n;
    hd_wordhash_free(&w);
    return n;
}

static void test_words(void)
{
    CHECK(count("") == 0 && count(" ,.\n") == 0 && count("a") == 1 && count("It's 3.5 km") == 5);
    CHECK(same_words("Hello, WORLD!", "hello world"));
    CHECK(!same_words("hello world", "world hello") && !same_words("ab c", "a bc"));
    CHECK(count("\xc3\xa9t\xc3\xa9 na\xc3\xafve") == 2); // accents are inside of words
    CHECK(count("\xe4\xbd\xa0\xe5\xa5\xbd") == 2);       // each Chinese character is one
    CHECK(count("a\xe4\xbd\xa0"
                "b") == 3 &&
          count("\xff\xfe"
                "a \xe4") == 2);           // and what is no UTF-8 does no harm
    CHECK(count("caf\xe2\x80\x99s") == 1); // below U+2E80: a letter like others
    hd_buf b;
    hd_buf_init(&b, 1000);
    const char *json = "{\"k\": [\"a b\", {\"x\": \"c\"}], \"n\": 1, \"d\": \"e\\n\"}";
    CHECK(hd_json_strings(&b, json, strlen(json)) && strcmp(b.data, "a b\nc\ne\n\n") == 0, "%s", b.data);
    CHECK(!hd_json_strings(&b, "{", 1));
    hd_buf_free(&b);
}

/* n words out of 1000, of which every `step`-th is another one when `step` > 0. */
static void make_text(char *s, int n, uint64_t seed, int step)
{
    hd_rng r;
    hd_rng_seed(&r, seed, 1);
    for (int i = 0; i < n; i++) {
        int w = (int)(hd_rng_u32(&r) % 1000);
        s += sprintf(s, "%s%d%s", step && i % step == step - 1 ? "other" : "word", w,
                     i % 9 == 8 ? ".\n" : " ");
    }
}

static hd_dedup_kind see(hd_dedup *d, const char *text)
{
    hd_dedup_sign s = {.text = hd_dedup_text(text, strlen(text))};
    hd_dedup_kind kind = HD_DEDUP_NEW;
    hd_wordhash w = words_of(text);
    hd_dedup_words(&s, &w);
    CHECK_OK(hd_dedup_seen(d, &s, &kind, &err));
    hd_wordhash_free(&w);
    return kind;
}

static void test_dedup(void)
{
    static char text[40000];
    hd_dedup *d = NULL, *exact = NULL;
    CHECK_OK(hd_dedup_open(&d, 0.8, &err));
    CHECK_OK(hd_dedup_open(&exact, 2, &err));
    int fresh = 0, same = 0, near = 0, far = 0, apart = 0;
    for (int i = 0; i < 500; i++) { // also while the tables grow
        make_text(text, 200, (uint64_t)i, 0);
        fresh += see(d, text) == HD_DEDUP_NEW && see(exact, text) == HD_DEDUP_NEW;
    }
    for (int i = 0; i < 500; i++) {
        make_text(text, 200, (uint64_t)i, 0);
        same += see(d, text) == HD_DEDUP_SAME && see(exact, text) == HD_DEDUP_SAME;
        /* one word in 100: two of 200 words spoil ten of 196 5-grams: similarity 0.9 */
        make_text(text, 200, (uint64_t)i, 100);
        near += see(d, text) == HD_DEDUP_NEAR;
        apart += see(exact, text) == HD_DEDUP_NEW;
        /* one word in 12: 16 words spoil 80: similarity 0.42 */
        make_text(text, 200, (uint64_t)i, 12);
        far += see(d, text) == HD_DEDUP_NEW;
    }
    CHECK(fresh == 500 && same == 500 && apart == 500, "%d, %d, %d", fresh, same, apart);
    CHECK(near > 480, "%d of 500 near-duplicates are seen", near);
    CHECK(far > 495, "%d of 500 others are kept", far);
    CHECK(see(d, "Go.") == HD_DEDUP_NEW && see(d, "go!") == HD_DEDUP_NEAR && see(d, "Go.") == HD_DEDUP_SAME);
    CHECK(see(d, "...") == HD_DEDUP_NEW && see(d, "???") == HD_DEDUP_NEW &&
          see(d, "...") == HD_DEDUP_SAME); // no words at all
    hd_dedup_close(d);
    hd_dedup_close(exact);
}

static const char *put(const char *name, const char *text)
{
    static char path[100];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0) abort();
    return path;
}

static int found(const hd_overlap *o, const char *text, int64_t *item)
{
    int file = -1;
    hd_wordhash w = words_of(text);
    if (!hd_overlap_find(o, &w, &file, item)) file = -1;
    hd_wordhash_free(&w);
    return file;
}

static void test_overlap(void)
{
    static const char a[] = "{\"question\": \"one two three four five six seven eight nine ten eleven twelve "
                            "thirteen fourteen\", \"n\": 3}\n"
                            "{\"question\": \"red green blue black white brown pink grey\"}\n"
                            "{\"question\": \"too short to be\", \"answer\": \"looked for\"}\n";
    static const char b[] = "[{\"q\": \"alpha beta gamma delta epsilon zeta eta\", \"a\": \"theta iota\"}, "
                            "\"a list may hold mere strings as long as this one\"]";
    hd_overlap *o = NULL;
    int64_t item = -1;
    CHECK_OK(hd_overlap_open(&o, &err));
    CHECK(found(o, "anything at all", &item) == -1);
    CHECK_OK(hd_overlap_add(o, put("a.jsonl", a), NULL, &err));
    CHECK_OK(hd_overlap_add(o, put("b.json", b), NULL, &err));
    CHECK_OK(hd_overlap_add(o, put("c.txt", "a line of a text that is an evaluation too\n\nshort one\n"),
                            NULL, &err));
    CHECK(hd_overlap_n_files(o) == 3 && hd_overlap_file_at(o, 0).n_items == 3 &&
          hd_overlap_file_at(o, 0).n_short == 1);
    CHECK(hd_overlap_file_at(o, 1).n_items == 2 && hd_overlap_file_at(o, 1).n_short == 0);
    CHECK(hd_overlap_file_at(o, 2).n_items == 2 && hd_overlap_file_at(o, 2).n_short == 1);
    CHECK(found(o, "x One, two, three: four five six seven eight nine ten eleven twelve THIRTEEN y", &item) ==
              0 &&
          item == 0);
    CHECK(found(o, "two three four five six seven eight nine ten eleven twelve thirteen fourteen", &item) ==
              0 &&
          item == 0);
    CHECK(found(o, "two three four five six seven eight nine ten eleven twelve thirteen fifteen", &item) ==
          -1);
    CHECK(found(o, "the red green blue black white brown pink grey of it", &item) == 0 && item == 1);
    CHECK(found(o, "red green blue black white brown pink", &item) == -1);
    CHECK(found(o, "too short to be looked for", &item) == -1);
    CHECK(found(o, "alpha beta gamma delta epsilon zeta eta theta iota", &item) == 1 &&
          item == 0); // strings are joined
    CHECK(found(o, "here: a list may hold mere strings as long as this one", &item) == 1 && item == 1);
    CHECK(found(o, "it is a line of a text that is an evaluation too", &item) == 2 && item == 0);
    CHECK(hd_overlap_add(o, put("d.jsonl", "{\"a\": \n"), NULL, &err) == HD_FORMAT &&
              strstr(err.msg, "d.jsonl"),
          "%s", err.msg);
    CHECK(hd_overlap_add(o, "/none.txt", NULL, &err) == HD_IO);
    CHECK(hd_overlap_n_files(o) == 3);
    hd_overlap_close(o);
}

/* Thousands of texts: the table grows, and rolling hashes are those of a fresh start. */
static void test_overlap_many(void)
{
    enum { N = 3000 };
    static char text[N * 400], one[4000];
    char *s = text;
    hd_overlap *o = NULL;
    int64_t item;
    int hit = 0, miss = 0;
    for (int i = 0; i < N; i++) {
        make_text(one, 30, (uint64_t)i, 0);
        for (char *p = one; *p; p++) *p = *p == '\n' ? ' ' : *p;
        s += sprintf(s, "%s\n", one);
    }
    CHECK_OK(hd_overlap_open(&o, &err));
    CHECK_OK(hd_overlap_add(o, put("many.txt", text), NULL, &err));
    for (int i = 0; i < N; i++) {
        char *at = one + sprintf(one, "before and before ");
        make_text(at, 30, (uint64_t)i, 0);
        hit += found(o, one, &item) == 0 && item == i;
        make_text(at, 30, (uint64_t)i, 12); // never 13 of the same in a row
        miss += found(o, one, &item) == -1;
    }
    CHECK(hit == N && miss == N, "%d, %d of %d", hit, miss, N);
    hd_overlap_close(o);
}

int main(void)
{
    if (!mkdtemp(dir)) abort();
    test_words();
    test_dedup();
    test_overlap();
    test_overlap_many();
    char rm[64];
    snprintf(rm, sizeof rm, "rm -r %s", dir);
    CHECK(system(rm) == 0);
    return hd_test_end();
}
