/* From texts to what the loader gives: ids and ends, the same for any number of threads, duplicates and
 * evaluations left out, validation set aside, conversations masked; a failing allocation, a bad line or
 * Ctrl-C leaves nothing. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) // these bring an allocator of their own
#define NO_FAILURES
#else
#include "failalloc/failalloc.c"
#endif

#include <dirent.h>
#include <unistd.h>

#include "base/rng.h"
#include "train/bpe_train.h"
#include "train/chat_data.h"
#include "train/pack.h"
#include "train/shard_dir.h"

#include "test.h"

static hd_err err;
static char dir[] = "/tmp/hadal-pack-XXXXXX";
static hd_source *src;
static hd_tokenizer *tok;
static int32_t end_id;

/* dir/name; stays good. */
static const char *place(const char *name)
{
    static char path[64][100];
    static int n;
    char want[100];
    snprintf(want, sizeof want, "%s/%s", dir, name);
    for (int i = 0; i < n; i++)
        if (strcmp(path[i], want) == 0) return path[i];
    if (n == 64) abort();
    return strcpy(path[n++], want);
}

static const char *put(const char *name, const char *text)
{
    const char *path = place(name);
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0) abort();
    return path;
}

static hd_status pack(const char *to, const char *file, hd_pack_opts o, hd_pack_report *r)
{
    hd_pack_report none;
    if (!o.n_threads) o.n_threads = 1;
    return hd_pack(place(to), src, &file, 1, &o, r ? r : &none, NULL, &err);
}

/* Document i of a packed folder as text with its special tokens; "" past the end. */
static const char *text_of(const char *name, int64_t i)
{
    static char out[1000];
    hd_shard_dir d;
    hd_shard_doc doc;
    int32_t id[400];
    hd_buf b;
    hd_buf_init(&b, 1 << 20);
    out[0] = 0;
    CHECK_OK(hd_shard_dir_open(&d, place(name), &err));
    if (d.n && i < hd_shard_dir_docs(&d)) {
        hd_shard *s = hd_shard_dir_doc(&d, i, &doc);
        CHECK_OK(hd_shard_read(s, doc.at, doc.n, id, &err));
        CHECK_OK(hd_tokenizer_decode(tok, id, doc.n, true, &b, &err));
        snprintf(out, sizeof out, "%s", b.data);
    }
    hd_buf_free(&b);
    hd_shard_dir_close(&d);
    return out;
}

static void train_tokenizer(void)
{
    char text[8000], *s = text;
    hd_bpe_report r;
    for (int i = 0; i < 100; i++)
        s += sprintf(s, "the weather of day %d is like the weather of the other day\n", i);
    const char *file = put("text", text);
    const hd_bpe_opts o = {.n_vocab = 320, .chat_format = "chatml", .n_threads = 1};
    CHECK_OK(hd_bpe_train(place("tok"), &file, 1, &o, &r, &err));
    CHECK_OK(hd_source_open(&src, place("tok"), false, &err));
    CHECK_OK(hd_tokenizer_open(&tok, src, &err));
    end_id = hd_pack_end(src, tok);
    CHECK(end_id >= 0 && hd_tokenizer_is_special(tok, end_id));
}

static void test_ends(void)
{
    hd_pack_report r;
    size_t n;
    char want[100];
    CHECK_OK(pack("a", put("a.txt", "the weather\n--\nday 3 <|im_end|> \xff\n--\n"),
                  (hd_pack_opts){.divider = "--"}, &r));
    const char *end = hd_tokenizer_bytes(tok, end_id, &n);
    bool bos = hd_tokenizer_adds_bos(tok);
    CHECK(!bos); // what follows counts on it
    snprintf(want, sizeof want, "the weather%.*s", (int)n, end);
    CHECK(strcmp(text_of("a", 0), want) == 0, "%s", text_of("a", 0));
    snprintf(want, sizeof want, "day 3 <|im_end|> \xef\xbf\xbd%.*s", (int)n, end);
    CHECK(strcmp(text_of("a", 1), want) == 0, "%s", text_of("a", 1));
    CHECK(r.n_read == 2 && r.n_docs == 2 && r.read_bytes == 11 + 18, "%lld bytes", (long long)r.read_bytes);
    /* bytes that targets spell: all but each first id, and the end spells none */
    hd_ids ids = {0};
    CHECK_OK(hd_tokenizer_encode(tok, "the weather", 11, &ids, &err));
    size_t first, second;
    hd_tokenizer_bytes(tok, ids.id[0], &first);
    ids.n = 0;
    CHECK_OK(hd_tokenizer_encode(tok, "day", 3, &ids, &err));
    hd_tokenizer_bytes(tok, ids.id[0], &second);
    CHECK(r.text_bytes == (int64_t)(11 - first + 20 - second), "%lld",
          (long long)r.text_bytes); // the bad byte became three
    CHECK(r.n_targets == r.n_ids - 2);
    /* what a text spells is never the token */
    hd_shard_dir d;
    hd_shard_doc doc;
    int32_t id[100];
    int specials = 0;
    CHECK_OK(hd_shard_dir_open(&d, place("a"), &err));
    hd_shard *s = hd_shard_dir_doc(&d, 1, &doc);
    CHECK_OK(hd_shard_read(s, doc.at, doc.n, id, &err));
    for (int64_t i = 0; i < doc.n; i++) specials += hd_tokenizer_is_special(tok, id[i]);
    CHECK(specials == 1 && id[doc.n - 1] == end_id);
    hd_shard_dir_close(&d);
    hd_ids_free(&ids);
}

/* Many documents, some of them twice, through several batches. */
static void make_many(char *s, int n)
{
    hd_rng r;
    hd_rng_seed(&r, 4, 4);
    for (int i = 0; i < n; i++) {
        int from = i % 10 == 9 ? i - 5 : i, words = 3 + from % 60;
        s += sprintf(s, "{\"text\": \"");
        for (int k = 0; k < words; k++) s += sprintf(s, "day %d weather ", from * 31 + k);
        s += sprintf(s, "\"}\n");
    }
}

static bool same_files(const char *a, const char *b)
{
    char cmd[300];
    snprintf(cmd, sizeof cmd, "diff -rq %s %s >/dev/null", place(a), place(b));
    return system(cmd) == 0;
}

static void test_threads(void)
{
    static char text[12 << 20];
    hd_pack_report r;
    make_many(text, 9000);
    const char *file = put("many.jsonl", text);
    hd_pack_opts o = {.near = 0.8, .val_share = 0.1, .max_tok = 40000};
    CHECK_OK(pack("one", file, o, &r));
    CHECK(r.n_read == 9000 && r.n_same + r.n_near >= 900, "%lld, %lld", (long long)r.n_same,
          (long long)r.n_near);
    CHECK(r.n_docs + r.n_val_docs == 9000 - r.n_same - r.n_near);
    double share = (double)r.n_val_docs / (double)(r.n_docs + r.n_val_docs);
    CHECK(share > 0.07 && share < 0.13, "%g", share);
    o.n_threads = 2;
    CHECK_OK(pack("two", file, o, NULL));
    CHECK(same_files("one", "two"));
    CHECK_OK(pack("two", file, (hd_pack_opts){.replace = true, .near = 2}, &r));
    CHECK(r.n_same == 900 && r.n_near == 0, "%lld, %lld", (long long)r.n_same, (long long)r.n_near);
    CHECK(pack("two", file, o, NULL) == HD_USAGE && strstr(err.msg, "--replace"), "%s", err.msg);
    hd_shard_dir d;
    CHECK_OK(hd_shard_dir_open(&d, place("one"), &err));
    CHECK(d.n > 3);
    hd_shard_dir_close(&d);
}

/* Of a long document the end is set aside. */
static void test_long(void)
{
    static char text[2 << 20];
    hd_pack_report r;
    char *s = text;
    for (int i = 0; i < 20000; i++) s += sprintf(s, "the weather of day %d\n", i * 7919 % 20000);
    CHECK_OK(pack("long", put("long.txt", text), (hd_pack_opts){.val_share = 0.25}, &r));
    CHECK(r.n_docs == 1 && r.n_val_docs == 1, "%lld, %lld", (long long)r.n_docs, (long long)r.n_val_docs);
    double share = (double)r.n_val_ids / (double)(r.n_ids + r.n_val_ids);
    CHECK(share > 0.2499 && share < 0.2501, "%g", share);
}

/* However little there is, both have something; one sentence alone is for training. */
static void test_little(void)
{
    hd_pack_report r;
    const char *file =
        put("little.txt", "the weather of day 1\nthe weather of day 2\nday 3 is like the other day\n");
    CHECK_OK(pack("lv", file, (hd_pack_opts){.val_share = 0.05, .divider = "\n"}, &r));
    CHECK(r.n_docs >= 2 && r.n_val_docs >= 1 && r.n_val_ids >= 2, "%lld, %lld", (long long)r.n_docs,
          (long long)r.n_val_docs);
    CHECK_OK(pack("lv", file, (hd_pack_opts){.val_share = 0.5, .replace = true}, &r));
    CHECK(r.n_docs == 1 && r.n_val_docs == 1 && r.n_val_ids <= r.n_ids + 1, "%lld, %lld", (long long)r.n_ids,
          (long long)r.n_val_ids);
    CHECK_OK(pack("lone", put("lone.txt", "a"), (hd_pack_opts){.val_share = 0.05}, &r));
    CHECK(r.n_docs == 1 && r.n_val_docs == 0 && access(place("lone/pack.json"), F_OK) == 0 &&
          access(place("lone/val"), F_OK) != 0);
    file = put("talk.jsonl",
               "{\"question\": \"a\", \"answer\": \"b\"}\n{\"question\": \"c\", \"answer\": \"d\"}\n");
    CHECK_OK(pack("talk", file, (hd_pack_opts){.val_share = 0.01, .chat = true}, &r));
    CHECK(r.n_docs == 1 && r.n_val_docs == 1, "%lld, %lld", (long long)r.n_docs, (long long)r.n_val_docs);
    file = put("talk1.jsonl", "{\"question\": \"a\", \"answer\": \"b\"}\n");
    CHECK_OK(pack("talk1", file, (hd_pack_opts){.val_share = 0.5, .chat = true}, &r));
    CHECK(r.n_docs == 1 && r.n_val_docs == 0 && access(place("talk1/val"), F_OK) != 0);
}

static void test_against(void)
{
    hd_pack_report r;
    json_t *j = NULL;
    const char *file = put(
        "mix.jsonl", "{\"text\": \"the first text of these is a plain and harmless one with many words\"}\n"
                     "{\"text\": \"here it says: how many apples does the old man sell on the market in the "
                     "town of Ulm\"}\n"
                     "{\"text\": \"the last text\"}\n");
    const char *eval =
        put("eval.jsonl",
            "{\"question\": \"How many apples does the old man sell on the market in the town?\"}\n");
    const hd_pack_opts o = {.against = &eval, .n_against = 1, .n_threads = 1};
    CHECK_OK(hd_pack(place("clean"), src, &file, 1, &o, &r, &j, &err));
    CHECK(r.n_overlap == 1 && r.n_docs == 2);
    const json_t *ex = json_array_get(json_object_get(j, "examples"), 0);
    CHECK(json_integer_value(json_object_get(ex, "document")) == 2 &&
          json_integer_value(json_object_get(ex, "text")) == 1);
    json_decref(j);
    CHECK(strncmp(text_of("clean", 1), "the last text", 13) == 0, "%s", text_of("clean", 1));
}

static void test_chat(void)
{
    static const char lines[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"the day?\"}, {\"role\": "
                                "\"assistant\", \"content\": \"day 3\"}]}\n"
                                "{\"question\": \"weather?\", \"answer\": \"like day 3\"}\n";
    hd_pack_report r;
    hd_shard_dir d;
    hd_shard_doc doc;
    const hd_chat_format *f = NULL;
    int32_t id[200];
    uint8_t learnt[200];
    int64_t bytes = 0, targets = 0;
    CHECK_OK(pack("chat", put("chat.jsonl", lines), (hd_pack_opts){.chat = true}, &r));
    CHECK_OK(hd_chat_pick(&f, src, tok, NULL, &err));
    CHECK_OK(hd_shard_dir_open(&d, place("chat"), &err));
    CHECK(hd_shard_dir_docs(&d) == 2);
    const char *line = lines;
    for (int i = 0; i < 2; i++) {
        size_t n = strcspn(line, "\n");
        hd_ids want = {0};
        hd_buf mask;
        hd_buf_init(&mask, 1000);
        CHECK_OK(hd_chat_data_line(f, tok, line, n, &want, &mask, &err));
        hd_shard *s = hd_shard_dir_doc(&d, i, &doc);
        CHECK_OK(hd_shard_read(s, doc.at, doc.n, id, &err));
        hd_shard_learnt(s, &doc, 0, doc.n, learnt);
        CHECK(doc.n == want.n && memcmp(id, want.id, (size_t)doc.n * 4) == 0 &&
              memcmp(learnt, mask.data, (size_t)doc.n) == 0);
        for (int64_t k = 1; k < doc.n; k++) targets += learnt[k];
        hd_ids_free(&want);
        hd_buf_free(&mask);
        line += n + 1;
    }
    bytes = 5 + 10; // of the two answers; what closes them is no text
    CHECK(r.n_targets == targets && r.text_bytes >= bytes && r.text_bytes <= bytes + 2, "%lld bytes",
          (long long)r.text_bytes);
    hd_shard_dir_close(&d);
    CHECK(pack("bad", put("bad.jsonl", "{\"question\": \"a\", \"answer\": \"b\"}\n\n{\"question\": \"c\"}\n"),
               (hd_pack_opts){.chat = true}, NULL) == HD_FORMAT &&
              strstr(err.msg, "bad.jsonl: document 2: "),
          "%s", err.msg);
    CHECK(access(place("bad"), F_OK) != 0);
}

static void test_nothing(void)
{
    static volatile sig_atomic_t stop = 1;
    CHECK(pack("none", put("blank.txt", " \n\n"), (hd_pack_opts){0}, NULL) == HD_FORMAT &&
              strstr(err.msg, "no document"),
          "%s", err.msg);
    CHECK(pack("none", place("not-there"), (hd_pack_opts){0}, NULL) == HD_IO && strstr(err.msg, "not-there"),
          "%s", err.msg);
    CHECK(pack("none", place("many.jsonl"), (hd_pack_opts){.stop = &stop}, NULL) == HD_CANCELLED);
    CHECK(pack("none", place("many.jsonl"), (hd_pack_opts){.field = "nofield"}, NULL) == HD_FORMAT &&
              strstr(err.msg, "many.jsonl:1"),
          "%s", err.msg);
    CHECK(access(place("none"), F_OK) != 0);
    /* a failure late in the work: finished shards go too */
    char cmd[200];
    snprintf(cmd, sizeof cmd, "head -n 5000 %s > %s; echo '{}' >> %s", place("many.jsonl"),
             place("late.jsonl"), place("late.jsonl"));
    CHECK(system(cmd) == 0);
    CHECK(pack("none", place("late.jsonl"), (hd_pack_opts){.max_tok = 20000, .val_share = 0.1}, NULL) ==
                  HD_FORMAT &&
              strstr(err.msg, "late.jsonl:5001"),
          "%s", err.msg);
    CHECK(access(place("none"), F_OK) != 0);
}

#ifndef NO_FAILURES
static void test_failures(void)
{
    int n = 1, bad = 0, runs = 0;
    const char *file = put("few.jsonl", "{\"question\": \"the weather\", \"answer\": "
                                        "\"day\"}\n{\"question\": \"the day\", \"answer\": \"3\"}\n");
    const char *eval = put("eval.txt", "a line of text that has eight words\n");
    for (;; n += 1 + n / 100, runs++) {
        hd_err why = {0};
        hd_pack_report r;
        const hd_pack_opts o = {.chat = true, .near = 0.8, .against = &eval, .n_against = 1, .n_threads = 1};
        atomic_store(&made, 0);
        fail_at = n;
        hd_status st = hd_pack(place("fail"), src, &file, 1, &o, &r, NULL, &why);
        fail_at = 0;
        bad += st != HD_OK && (st != HD_NOMEM || !why.msg[0]);
        bool there = access(place("fail"), F_OK) == 0;
        if (st != HD_OK && there) bad++;
        if (st == HD_OK && atomic_load(&made) < n) break;
        if (st == HD_OK) { // an allocation that was done without
            char cmd[100];
            snprintf(cmd, sizeof cmd, "rm -r %s/fail", dir);
            bad += system(cmd) != 0;
        }
        if (runs > 5000) break;
    }
    CHECK(bad == 0 && runs > 100 && runs <= 5000, "%d of %d", bad, runs);
}
#endif

int main(void)
{
    if (!mkdtemp(dir)) abort();
    train_tokenizer();
    test_ends();
    test_threads();
    test_long();
    test_little();
    test_against();
    test_chat();
    test_nothing();
#ifndef NO_FAILURES
    test_failures();
#endif
    hd_tokenizer_close(tok);
    hd_source_close(src);
    char rm[64];
    snprintf(rm, sizeof rm, "rm -r %s", dir);
    CHECK(system(rm) == 0);
    return hd_test_end();
}
