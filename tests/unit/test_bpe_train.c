/* Training a tokenizer: merges worked out by hand, the same files from any number of threads, special tokens,
 * the memory's cap, what is refused, a stop, failing allocations. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) // these bring an allocator of their own
#define NO_FAILURES
#else
#include "failalloc/failalloc.c"
#endif

#include <jansson.h>
#include <unistd.h>

#include "base/file.h"
#include "base/rng.h"
#include "model/chat.h"
#include "model/export.h"
#include "model/tokenizer_impl.h"
#include "model/vocab.h"
#include "test.h"
#include "train/bpe_impl.h"

static char dir[64]; // for files

static const char *in_dir(const char *name)
{
    static char path[4][128];
    static int k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
    return path[k];
}

static void write_file(const char *name, const char *text, size_t n)
{
    FILE *f = fopen(in_dir(name), "wb");
    CHECK(f && fwrite(text, 1, n, f) == n);
    if (f) fclose(f);
}

static hd_status train(const char *out, const char *file, const hd_bpe_opts *o, hd_bpe_report *r, hd_err *err)
{
    const char *files[] = {in_dir(file)};
    return hd_bpe_train(in_dir(out), files, 1, o, r, err);
}

static hd_tokenizer *open_tokenizer(const char *name, hd_source **s)
{
    hd_err err = {0};
    hd_tokenizer *t = NULL;
    CHECK_OK(hd_source_open(s, in_dir(name), false, &err));
    CHECK_OK(hd_tokenizer_open(&t, *s, &err));
    return t;
}

static json_t *load(const char *out, const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", in_dir(out), name);
    json_t *j = json_load_file(path, 0, NULL);
    CHECK(j != NULL, "%s", path);
    return j;
}

static bool same_file(const char *a, const char *b, const char *name)
{
    json_t *x = load(a, name), *y = load(b, name);
    bool same = x && json_equal(x, y);
    json_decref(x);
    json_decref(y);
    return same;
}

/* ---- Merges ---- */

/* The paper's example (arXiv:1508.07909, 3.2): low 5, lower 2, newest 6, widest 3. */
static void test_known(void)
{
    static const char *const word[] = {"low", "lower", "newest", "widest"};
    static const int times[] = {5, 2, 6, 3};
    static const char *const want[] = {"e s",     "es t",  "l o",    "lo w",    "e w", "n ew",
                                       "new est", "d est", "i dest", "w idest", "e r", "low er"};
    char text[256] = "";
    hd_err err = {0};
    hd_bpe_report r;
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < times[i]; k++) strcat(strcat(text, word[i]), "\n");
    write_file("known.txt", text, strlen(text));
    CHECK_OK(train("known", "known.txt", &(hd_bpe_opts){.n_vocab = 300, .digits = true, .n_threads = 1}, &r,
                   &err));
    json_t *j = load("known", "tokenizer.json"),
           *merges = json_object_get(json_object_get(j, "model"), "merges");
    CHECK(json_array_size(merges) == 12, "%zu", json_array_size(merges));
    for (size_t i = 0; i < 12; i++) {
        const char *got = json_string_value(json_array_get(merges, i));
        CHECK(got && strcmp(got, want[i]) == 0, "merge %zu: %s, not %s", i, got, want[i]);
    }
    CHECK(r.n_vocab == 256 + 12 + 1 && r.merges == 12 && r.bytes == (int64_t)strlen(text) &&
          r.distinct == 5 && r.words == 32);
    /* 16 words of one token and 16 line ends */
    CHECK(r.bytes_per_token == (double)strlen(text) / 32, "%g", r.bytes_per_token);
    json_decref(j);
    /* "low est" is no merge: "lowest" is low and est; ids are those of the order in which they were made. */
    hd_source *s = NULL;
    hd_tokenizer *t = open_tokenizer("known", &s);
    hd_ids ids = {0};
    CHECK_OK(hd_tokenizer_encode(t, "lowest", 6, &ids, &err));
    CHECK(ids.n == 2 && ids.id[0] == 259 && ids.id[1] == 257);
    CHECK(hd_tokenizer_find(t, "<|endoftext|>") == 268 && hd_tokenizer_is_special(t, 268) &&
          hd_tokenizer_n_vocab(t) == 269);
    CHECK(hd_tokenizer_bos(t) == 268 && !hd_tokenizer_adds_bos(t));
    hd_ids_free(&ids);
    hd_tokenizer_close(t);
    hd_source_close(s);
    /* A vocabulary of bytes alone; one merge; pairs seen thrice at least. */
    CHECK_OK(train("known", "known.txt", &(hd_bpe_opts){.n_vocab = 257, .n_threads = 1}, &r, &err));
    CHECK(r.merges == 0 && r.bytes_per_token == 1);
    CHECK_OK(train("known", "known.txt", &(hd_bpe_opts){.n_vocab = 258, .n_threads = 1}, &r, &err));
    CHECK(r.merges == 1 && r.n_vocab == 258);
    CHECK_OK(train("known", "known.txt", &(hd_bpe_opts){.n_vocab = 300, .min_count = 3, .n_threads = 1}, &r,
                   &err));
    CHECK(r.merges == 10, "%lld", (long long)r.merges);
}

static void test_spelling(void)
{
    bool seen[256] = {false};
    hd_err err = {0};
    hd_buf spelled;
    hd_buf_init(&spelled, 4096);
    for (int i = 0; i < 256; i++) {
        char back[8], b = (char)hd_bpe_byte(i);
        size_t n;
        seen[hd_bpe_byte(i)] = true;
        size_t at = spelled.len;
        CHECK_OK(hd_bpe_spell(&spelled, &b, 1, &err));
        CHECK(hd_unspell(back, &n, spelled.data + at, spelled.len - at) && n == 1 && back[0] == b, "byte %d",
              i);
        /* by rising code point, which for UTF-8 is the order of the bytes */
        CHECK(i == 0 || strcmp(spelled.data + at,
                               spelled.data + at - (at > 1 && (spelled.data[at - 1] & 0x80) ? 2 : 1)) > 0,
              "%d", i);
    }
    for (int i = 0; i < 256; i++) CHECK(seen[i]);
    hd_buf_free(&spelled);
}

/* ---- Text ---- */

/* Words of a made-up language, by frequency as languages have them; numbers, accents, characters, lines. */
static char *made_up(size_t n, uint64_t seed)
{
    static const char *const part[] = {"ka",      "lo", "mi",  "tu",     "ren", "sha",
                                       "\u00e9t", "zo", "qui", "\u4e2d", "b",   "ng"};
    char *s = malloc(n + 64);
    size_t k = 0;
    hd_rng r;
    hd_rng_seed(&r, seed, 7);
    while (k < n) {
        uint32_t rank = (uint32_t)(3000 * hd_rng_unit(&r) * hd_rng_unit(&r) * hd_rng_unit(&r));
        for (uint32_t x = rank + 1; x; x /= 12) {
            size_t len = strlen(part[x % 12]);
            memcpy(s + k, part[x % 12], len);
            k += len;
        }
        uint32_t end = hd_rng_u32(&r) % 40;
        k += (size_t)sprintf(s + k, "%s",
                             end == 0   ? ".\n"
                             : end == 1 ? ", "
                             : end == 2 ? "  1984 "
                             : end == 3 ? "'s "
                             : end == 4 ? " \U0001f600\n\n"
                                        : " ");
    }
    s[k] = 0;
    return s;
}

static void test_threads(void)
{
    hd_err err = {0};
    hd_bpe_report r[4];
    char *text = made_up(3 << 20, 1);
    size_t n = strlen(text);
    write_file("made.txt", text, n);
    for (int i = 0; i < 4; i++) {
        char out[16];
        snprintf(out, sizeof out, "made%d", i);
        CHECK_OK(train(out, "made.txt",
                       &(hd_bpe_opts){.n_vocab = 2000, .digits = true, .n_threads = i == 3 ? 7 : i + 1},
                       &r[i], &err));
        CHECK(r[i].n_vocab == 2000 && r[i].bytes == (int64_t)n && r[i].dropped == 0);
        CHECK(r[i].bytes_per_token == r[0].bytes_per_token && r[i].words == r[0].words &&
              r[i].distinct == r[0].distinct);
        CHECK(same_file(out, "made0", "tokenizer.json") && same_file(out, "made0", "tokenizer_config.json"),
              "%s", out);
    }
    /* What it says about itself is what the tokenizer does. */
    hd_source *s = NULL;
    hd_tokenizer *t = open_tokenizer("made0", &s);
    hd_ids ids = {0};
    hd_buf back;
    hd_buf_init(&back, SIZE_MAX);
    CHECK_OK(hd_tokenizer_encode(t, text, n, &ids, &err));
    CHECK((double)n / (double)ids.n == r[0].bytes_per_token, "%g, %g", (double)n / (double)ids.n,
          r[0].bytes_per_token);
    CHECK_OK(hd_tokenizer_decode(t, ids.id, ids.n, true, &back, &err));
    CHECK(back.len == n && memcmp(back.data, text, n) == 0);
    /* Digits are by themselves. */
    ids.n = 0;
    CHECK_OK(hd_tokenizer_encode(t, "1984", 4, &ids, &err));
    CHECK(ids.n == 4);
    hd_ids_free(&ids);
    hd_buf_free(&back);
    hd_tokenizer_close(t);
    hd_source_close(s);
    CHECK_OK(train("numbers", "made.txt", &(hd_bpe_opts){.n_vocab = 2000, .digits = false}, &r[0], &err));
    t = open_tokenizer("numbers", &s);
    CHECK_OK(hd_tokenizer_encode(t, "1984", 4, &ids, &err));
    CHECK(ids.n == 2, "%lld", (long long)ids.n); // 198 4
    hd_ids_free(&ids);
    hd_tokenizer_close(t);
    hd_source_close(s);
    free(text);
}

static void test_files(void)
{
    /* Two documents of JSONL are the two files. */
    hd_err err = {0};
    hd_bpe_report r;
    static const char json[] = "{\"text\": \"hello there, hello\"}\n{\"text\": \"hello th\\u00e9\"}\n";
    write_file("a.jsonl", json, sizeof json - 1);
    write_file("a.txt", "hello there, hello", 18);
    write_file("b.txt", "hello th\u00e9", 9);
    CHECK_OK(train("json", "a.jsonl", &(hd_bpe_opts){.n_vocab = 270}, &r, &err));
    const char *files[] = {in_dir("a.txt"), in_dir("b.txt")};
    CHECK_OK(hd_bpe_train(in_dir("texts"), files, 2, &(hd_bpe_opts){.n_vocab = 270}, &r, &err));
    CHECK(r.bytes == 27 && same_file("json", "texts", "tokenizer.json"));
    /* Bytes that are no UTF-8 count as U+FFFD; a word of 5000 letters teaches nothing. */
    char bad[5100];
    memset(bad, 'x', sizeof bad);
    memcpy(bad, "ab\xff ab\xc3 ab\xff ", 12);
    write_file("bad.txt", bad, 5012);
    CHECK_OK(train("bad", "bad.txt", &(hd_bpe_opts){.n_vocab = 262}, &r, &err));
    json_t *j = load("bad", "tokenizer.json"), *m = json_object_get(json_object_get(j, "model"), "merges");
    bool long_x = false;
    for (size_t i = 0; i < json_array_size(m); i++)
        long_x |= strcmp(json_string_value(json_array_get(m, i)), "x x") == 0;
    CHECK(!long_x && r.dropped == 1 && json_array_size(m) == 4, "%lld, %zu", (long long)r.dropped,
          json_array_size(m));
    json_decref(j);
}

/* ---- Memory ---- */

static void test_memory(void)
{
    hd_err err = {0};
    hd_bpe_report r[2];
    size_t n = 0, room = 80 << 20; // over two batches
    char *s = malloc(room + 64);
    hd_rng g;
    hd_rng_seed(&g, 3, 1);
    for (int i = 0; n < room; i++) { // a few words often, all others once
        if (i % 3) n += (size_t)sprintf(s + n, "often%c ", 'a' + i % 7);
        else {
            for (int k = 0; k < 60; k++) s[n++] = (char)('a' + hd_rng_u32(&g) % 26);
            s[n++] = '\n';
        }
    }
    write_file("many.txt", s, n);
    free(s);
    for (int i = 0; i < 2; i++)
        CHECK_OK(train(i ? "many1" : "many0", "many.txt",
                       &(hd_bpe_opts){.n_vocab = 280, .n_threads = i + 1, .max_bytes = 8 << 20}, &r[i],
                       &err));
    CHECK(r[0].dropped > 300000 && r[0].distinct < (8 << 20) / 48, "%lld dropped, %lld kept",
          (long long)r[0].dropped, (long long)r[0].distinct);
    CHECK(r[0].dropped == r[1].dropped && r[0].distinct == r[1].distinct &&
          same_file("many0", "many1", "tokenizer.json"));
    hd_source *src = NULL;
    hd_tokenizer *t = open_tokenizer("many0", &src);
    CHECK(hd_tokenizer_find(t, "often") >= 256 && hd_tokenizer_find(t, " often") >= 256);
    hd_tokenizer_close(t);
    hd_source_close(src);
    unlink(in_dir("many.txt"));
}

/* ---- Special tokens and chat formats ---- */

static void test_specials(void)
{
    hd_err err = {0};
    hd_bpe_report r;
    static const char text[] = "hello hello hello hello\nyellow yellow <think> <think> <think>\n";
    const char *special[] = {"hello", "<think>", "\u4e2d\u6587", "<think>", "two words"};
    write_file("special.txt", text, sizeof text - 1);
    CHECK_OK(train("special", "special.txt",
                   &(hd_bpe_opts){.n_vocab = 320, .special = special, .n_special = 5}, &r, &err));
    hd_source *s = NULL;
    hd_tokenizer *t = open_tokenizer("special", &s);
    int32_t first = (int32_t)r.n_vocab - 4; // <think> was asked for twice
    hd_ids ids = {0};
    CHECK(hd_tokenizer_find(t, "hello") == first && hd_tokenizer_find(t, "<think>") == first + 1 &&
          hd_tokenizer_find(t, "\u4e2d\u6587") == first + 2 &&
          hd_tokenizer_find(t, "two words") == first + 3);
    for (int i = 0; i < 4; i++) CHECK(hd_tokenizer_is_special(t, first + i));
    CHECK_OK(hd_tokenizer_encode(t, text, sizeof text - 1, &ids, &err));
    for (int64_t i = 0; i < ids.n; i++) CHECK(ids.id[i] < first);
    hd_ids_free(&ids);
    hd_tokenizer_close(t);
    hd_source_close(s);
}

static void test_chat_formats(void)
{
    hd_err err = {0};
    hd_bpe_report r;
    for (int i = 0; hd_chat_template_at(i); i++) {
        const hd_chat_template *c = hd_chat_template_at(i);
        const char *extra[] = {"<|more|>"};
        bool sure = false;
        CHECK_OK(
            train("chat", "made.txt",
                  &(hd_bpe_opts){.n_vocab = 400, .chat_format = c->name, .special = extra, .n_special = 1},
                  &r, &err));
        hd_source *s = NULL;
        hd_tokenizer *t = open_tokenizer("chat", &s);
        const hd_chat_format *f = hd_chat_told(c->text, strlen(c->text), &sure), *picked = NULL;
        CHECK(f && sure && strcmp(hd_chat_name(f), c->name) == 0, "%s", c->name);
        CHECK_OK(hd_chat_pick(&picked, s, t, NULL, &err));
        CHECK(picked == f);
        CHECK(hd_tokenizer_bos(t) == hd_tokenizer_find(t, c->bos) && hd_tokenizer_adds_bos(t) == c->adds_bos,
              "%s", c->name);
        CHECK(hd_tokenizer_find(t, "<|more|>") == 399 && r.n_vocab == 400);
        CHECK(hd_tokenizer_find(t, c->eos) > 256 && hd_tokenizer_find(t, c->pad) > 256);
        hd_tokenizer_close(t);
        hd_source_close(s);
    }
    CHECK(train("chat", "made.txt", &(hd_bpe_opts){.n_vocab = 400, .chat_format = "klingon"}, &r, &err) ==
              HD_USAGE &&
          strstr(err.msg, "chatml, deepseek-v3"));
}

/* Through GGUF and back: the same ids.  llama.cpp knows the pattern by the name that is written. */
static void test_gguf(bool digits, const char *pre)
{
    static const char config[] =
        "{\"architectures\": [\"LlamaForCausalLM\"], \"model_type\": \"llama\", \"hidden_size\": 64, "
        "\"intermediate_size\": 64, \"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"vocab_size\": "
        "700, "
        "\"max_position_embeddings\": 128, \"rms_norm_eps\": 1e-5}";
    hd_err err = {0};
    hd_bpe_report r;
    hd_gguf_writer *w = NULL;
    hd_source *s = NULL;
    hd_gguf_str name;
    CHECK_OK(train("gguf", "made.txt",
                   &(hd_bpe_opts){.n_vocab = 690, .digits = digits, .chat_format = "deepseek-r1"}, &r, &err));
    write_file("gguf/config.json", config, sizeof config - 1);
    hd_tokenizer *a = open_tokenizer("gguf", &s), *b = NULL;
    CHECK_OK(hd_gguf_writer_open(&w, in_dir("vocab.gguf"), &err));
    CHECK_OK(hd_gguf_put_str(w, "general.architecture", "llama", 5, &err));
    CHECK_OK(hd_export_vocab(w, s, &err));
    CHECK_OK(hd_gguf_begin_data(w, &err));
    CHECK_OK(hd_gguf_commit(w, &err));
    hd_gguf_writer_close(w);
    hd_gguf *file = NULL;
    hd_map map = {0};
    CHECK_OK(hd_map_open(&map, in_dir("vocab.gguf"), &err));
    CHECK_OK(hd_gguf_open(&file, &map, "vocab.gguf", &err));
    CHECK(file && hd_gguf_string(file, "tokenizer.ggml.pre", &name) && name.n == strlen(pre) &&
          memcmp(name.p, pre, name.n) == 0);
    CHECK_OK(hd_tokenizer_from_gguf(&b, file, &err));
    char *text = made_up(20000, 9);
    hd_ids x = {0}, y = {0};
    CHECK_OK(hd_tokenizer_encode(a, text, strlen(text), &x, &err));
    CHECK_OK(hd_tokenizer_encode(b, text, strlen(text), &y, &err));
    CHECK(x.n == y.n && memcmp(x.id, y.id, (size_t)x.n * sizeof *x.id) == 0);
    CHECK(hd_tokenizer_bos(a) == hd_tokenizer_bos(b) && hd_tokenizer_adds_bos(b) &&
          hd_tokenizer_is_special(b, hd_tokenizer_bos(b)));
    free(text);
    hd_ids_free(&x);
    hd_ids_free(&y);
    hd_tokenizer_close(a);
    hd_tokenizer_close(b);
    hd_gguf_close(file);
    hd_map_close(&map);
    hd_source_close(s);
}

/* ---- What is refused ---- */

static void test_refused(void)
{
    hd_err err = {0};
    hd_bpe_report r;
    const char *one[] = {"x"}, *bad[] = {"a\xff"}, *empty[] = {""};
    write_file("empty.txt", "", 0);
    CHECK(hd_bpe_train(in_dir("no"), NULL, 0, &(hd_bpe_opts){.n_vocab = 300}, &r, &err) == HD_USAGE);
    CHECK(train("no", "known.txt", &(hd_bpe_opts){.n_vocab = 256}, &r, &err) == HD_USAGE &&
              strstr(err.msg, "257"),
          "%s", err.msg);
    CHECK(train("no", "known.txt", &(hd_bpe_opts){.n_vocab = INT64_MAX}, &r, &err) == HD_USAGE);
    CHECK(train("no", "known.txt", &(hd_bpe_opts){.n_vocab = 300, .special = one, .n_special = 1}, &r,
                &err) == HD_USAGE);
    CHECK(train("no", "known.txt", &(hd_bpe_opts){.n_vocab = 300, .special = bad, .n_special = 1}, &r,
                &err) == HD_USAGE);
    CHECK(train("no", "known.txt", &(hd_bpe_opts){.n_vocab = 300, .special = empty, .n_special = 1}, &r,
                &err) == HD_USAGE);
    CHECK(train("no", "missing.txt", &(hd_bpe_opts){.n_vocab = 300}, &r, &err) == HD_IO);
    CHECK(train("no", "empty.txt", &(hd_bpe_opts){.n_vocab = 300}, &r, &err) == HD_FORMAT &&
              strstr(err.msg, "no text"),
          "%s", err.msg);
    volatile sig_atomic_t stop = 1;
    CHECK(train("no", "made.txt", &(hd_bpe_opts){.n_vocab = 300, .stop = &stop}, &r, &err) == HD_CANCELLED);
    CHECK(!hd_is_dir(in_dir("no")), "nothing is written");
    /* A folder that cannot be: what was there stays. */
    CHECK(train("known.txt", "known.txt", &(hd_bpe_opts){.n_vocab = 300}, &r, &err) == HD_IO, "%s", err.msg);
    CHECK(train("nowhere/deep", "known.txt", &(hd_bpe_opts){.n_vocab = 300}, &r, &err) == HD_IO, "%s",
          err.msg);
}

#ifndef NO_FAILURES
static void test_failures(void)
{
    hd_bpe_report r;
    int n = 1, bad = 0;
    for (;; n++) {
        hd_err why = {0};
        atomic_store(&made, 0);
        fail_at = n;
        hd_status st =
            train("fail", "known.txt",
                  &(hd_bpe_opts){.n_vocab = 300, .n_threads = 2, .chat_format = "chatml"}, &r, &why);
        fail_at = 0;
        if (st == HD_OK && atomic_load(&made) < n) break;
        bad += st != HD_NOMEM &&
               st != HD_OK; // a thread less, no machine code for patterns: the work is done all the same
        bad += st != HD_OK && !why.msg[0];
        if (st == HD_OK) bad += r.merges != 12;
        if (bad > 3) break;
    }
    CHECK(bad == 0 && n > 100, "%d bad of %d", bad, n);
}
#endif

int main(void)
{
    strcpy(dir, "/tmp/hadal-bpe-XXXXXX");
    if (!mkdtemp(dir)) return 1;
    test_known();
    test_spelling();
    test_threads();
    test_files();
    test_memory();
    test_specials();
    test_chat_formats();
    test_gguf(true, "stablelm2");
    test_gguf(false, "llama-bpe");
    test_refused();
#ifndef NO_FAILURES
    test_failures();
#endif
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    CHECK(system(command) == 0);
    return hd_test_end();
}
