/* GGUF files, right ones and wrong ones.  The comments name the published weaknesses of other readers that a
 * case repeats. */
#include "test.h"

#include "files_build.h"
#include "model/source.h"

static builder B;
static hd_err err;

/* A llama of two layers' worth of keys, three tensors and a vocabulary of four. */
static void build_small(builder *b, uint32_t version)
{
    static const char *const tokens[] = {"<s>", "</s>", "a", "b"};
    header(b, version, 3, 14);
    kv_str(b, "general.architecture", "llama");
    kv_u32(b, "general.alignment", 32);
    kv_u32(b, "llama.block_count", 2);
    kv_u32(b, "llama.context_length", 128);
    kv_u32(b, "llama.embedding_length", 32);
    kv_u32(b, "llama.feed_forward_length", 64);
    kv_u32(b, "llama.attention.head_count", 4);
    kv_u32(b, "llama.attention.head_count_kv", 2);
    kv_f32(b, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    kv_strs(b, "tokenizer.ggml.tokens", tokens, 4);
    kv_u32(b, "tokenizer.ggml.eos_token_id", 1);
    kv_bool(b, "tokenizer.ggml.add_bos_token", true);
    put_key(b, "test.numbers", HD_GGUF_ARR);
    put_int(b, HD_GGUF_I16, 4);
    put_int(b, 3, 8);
    put(b, (int16_t[]){-1, 0, 32767}, 6);
    put_key(b, "test.big", HD_GGUF_U64);
    put_value(b, 1ull << 40, 8);
    tensor_info(b, "token_embd.weight", 2, (uint64_t[]){32, 4}, HD_Q8_0, 0);     // 4 x 34 bytes
    tensor_info(b, "output_norm.weight", 1, (uint64_t[]){32}, HD_F32, 160);      // 128
    tensor_info(b, "blk.0.attn_q.weight", 2, (uint64_t[]){32, 32}, HD_F16, 288); // 2048
    pad(b, 32);
    for (int i = 0; i < 288 + 2048; i++) put(b, &(uint8_t){(uint8_t)i}, 1);
}

/* Open what stands in b; the status, and the source when it worked. */
static hd_status open_bytes(const builder *b, bool need_weights, hd_source **s)
{
    *s = NULL;
    return hd_source_open(s, build_file("m.gguf", b->b, b->n), need_weights, &err);
}

static hd_status try_bytes(const builder *b)
{
    hd_source *s;
    err.msg[0] = 0;
    hd_status st = open_bytes(b, true, &s);
    hd_source_close(s);
    return st;
}

static void test_reads(void)
{
    hd_source *s;
    for (uint32_t version = 2; version <= 3; version++) {
        build_small(&B, version);
        CHECK_OK(open_bytes(&B, true, &s));
        if (!s) return;
        const hd_gguf *g = hd_source_gguf(s);
        int64_t i;
        double f;
        bool b;
        hd_gguf_str str;
        CHECK(hd_source_get_kind(s) == HD_SOURCE_GGUF);
        CHECK(hd_gguf_n_kv(g) == 14 && hd_source_n_tensors(s) == 3);
        CHECK(hd_gguf_i64(g, "test.big", &i) && i == 1ll << 40);
        CHECK(hd_gguf_f64(g, "llama.block_count", &f) && f == 2);
        CHECK(hd_gguf_f64(g, "llama.attention.layer_norm_rms_epsilon", &f) && f == (double)1e-5f);
        CHECK(!hd_gguf_i64(g, "llama.attention.layer_norm_rms_epsilon", &i), "a float is no integer");
        CHECK(hd_gguf_bool(g, "tokenizer.ggml.add_bos_token", &b) && b);
        CHECK(!hd_gguf_i64(g, "tokenizer.ggml.add_bos_token", &i), "a boolean is no integer");
        CHECK(hd_gguf_string(g, "general.architecture", &str) && str.n == 5 && !memcmp(str.p, "llama", 5));
        CHECK(!hd_gguf_find(g, "general.architectur") && !hd_gguf_find(g, ""));
        const hd_gguf_kv *kv = hd_gguf_find(g, "test.numbers");
        CHECK(kv && kv->n == 3 && kv->bytes == 6 && hd_gguf_arr_i64(kv, 0, &i) && i == -1);
        CHECK(hd_gguf_arr_f64(kv, 2, &f) && f == 32767 && !hd_gguf_arr_i64(kv, 3, &i));
        kv = hd_gguf_find(g, "tokenizer.ggml.tokens");
        size_t pos = 0;
        int n = 0;
        while (hd_gguf_arr_str(kv, &pos, &str)) n++;
        CHECK(n == 4 && str.n == 1 && str.p[0] == 'b');
        CHECK(!hd_gguf_arr_i64(kv, 0, &i), "strings are no numbers");

        const hd_tensor_info *t = hd_source_find(s, "blk.0.attn_q.weight");
        CHECK(t && t->n_dims == 2 && t->dim[0] == 32 && t->dim[1] == 32 && t->type == HD_F16 &&
              t->bytes == 2048);
        CHECK(t->data[0] == (uint8_t)288);
        t = hd_source_find(s, "token_embd.weight");
        CHECK(t && t->dim[0] == 4 && t->dim[1] == 32 && t->bytes == 4 * 34, "outermost first");
        CHECK(!hd_source_find(s, "nothing") && !hd_source_tensor(s, 3) && !hd_source_tensor(s, -1));
        CHECK(hd_source_weight_bytes(s) == 4 * 34 + 128 + 2048);
        const hd_config *c = hd_source_config(s);
        CHECK(c && c->n_layers == 2 && c->n_vocab == 4 && c->tie_embeddings && c->rope.pairs &&
              c->n_eos == 1);
        hd_source_release(s, t);
        CHECK(t->data[5] == 5, "released pages come back from the file");
        hd_source_close(s);
    }
}

/* Cut after every byte: an error each time (CVE-2024-41130, CVE-2024-39720). */
static void test_truncated(void)
{
    static builder cut;
    build_small(&B, 3);
    int wrong = 0;
    for (size_t n = 0; n < B.n; n++) {
        cut = B;
        cut.n = n;
        hd_status st = try_bytes(&cut);
        if (st == HD_OK || !err.msg[0]) wrong++;
    }
    CHECK(wrong == 0, "%d cuts were not noticed", wrong);
}

/* Every integer replaced by hostile values: lengths, counts, types, dimensions and offsets past 2^31 are
 * refused, all else is refused or harmless, quickly (CVE-2024-23496, -21836, -23605, -21825, -21802, -32878,
 * CVE-2025-53630, -0312, -0315, -0317, CVE-2026-27940, -33298, -7482). */
static void test_every_integer(void)
{
    static builder evil;
    build_small(&B, 3);
    double t0 = hd_test_cpu_s();
    int silent = 0, taken = 0;
    for (int f = 0; f < B.n_fields; f++)
        for (int v = 0; v < BUILD_EVIL; v++) {
            uint64_t seen = B.width[f] == 8 ? build_evil[v] : (uint32_t)build_evil[v];
            evil = B;
            memcpy(evil.b + B.at[f], &seen, (size_t)B.width[f]);
            hd_status st = try_bytes(&evil);
            if (st == HD_OK && !B.loose[f] && seen >= 0x7fffffff) taken++;
            if (st != HD_OK && strncmp(err.msg, "gguf: ", 6) && strncmp(err.msg, "config: ", 8)) silent++;
        }
    CHECK(silent == 0, "%d failures without a proper message", silent);
    CHECK(taken == 0, "%d hostile files were taken", taken);
    CHECK(hd_test_cpu_s() - t0 < 20 * HD_TEST_SLACK, "%.1f s for %d files", hd_test_cpu_s() - t0, B.n_fields * BUILD_EVIL);
}

/* Every byte flipped in turn: nothing but an error or a readable file. */
static void test_every_byte(void)
{
    static builder evil;
    build_small(&B, 3);
    int silent = 0;
    for (size_t i = 0; i < B.n - 2336; i++)
        for (int bit = 0; bit < 8; bit += 7) {
            evil = B;
            evil.b[i] ^= (uint8_t)(1 << bit);
            if (try_bytes(&evil) != HD_OK && !err.msg[0]) silent++;
        }
    CHECK(silent == 0);
}

/* One thing wrong: the status and a word of the message. */
#define REFUSED(status, word)                                                                                \
    do {                                                                                                     \
        hd_status st_ = try_bytes(&B);                                                                       \
        CHECK(st_ == (status) && strstr(err.msg, word), "status %d: %s", (int)st_, err.msg);                 \
    } while (0)

static void minimal(uint64_t n_tensors, uint64_t n_extra_kv)
{
    header(&B, 3, n_tensors, 1 + n_extra_kv);
    kv_str(&B, "general.architecture", "llama");
}

static void test_header(void)
{
    B.n = 0;
    REFUSED(HD_FORMAT, "needs 4 bytes");
    build_small(&B, 1);
    REFUSED(HD_UNSUPPORTED, "version 1");
    build_small(&B, 4);
    REFUSED(HD_UNSUPPORTED, "version 4");
    build_small(&B, 0x03000000);
    REFUSED(HD_UNSUPPORTED, "big-endian");
    build_small(&B, 3);
    memcpy(B.b, "GGML", 4);
    REFUSED(HD_FORMAT, "no GGUF");
    header(&B, 3, 0x1d1d1d1d1d1d1d1d, 0);
    REFUSED(HD_LIMIT, "declared");
    header(&B, 3, 1000000, 65536); // counts within the caps, and nothing behind them
    REFUSED(HD_FORMAT, "needs 8 bytes");
}

static void test_keys(void)
{
    minimal(0, 1);
    kv_str(&B, "general.architecture", "llama");
    REFUSED(HD_FORMAT, "twice");
    minimal(0, 1);
    kv_u32(&B, "", 1);
    REFUSED(HD_FORMAT, "not printable");
    minimal(0, 1);
    kv_u32(&B, "a\033[2Jb", 1); // would clear the reader's terminal
    REFUSED(HD_FORMAT, "not printable");
    minimal(0, 1);
    put_key(&B, "nested", HD_GGUF_ARR);
    put_int(&B, HD_GGUF_ARR, 4);
    put_int(&B, 1, 8);
    REFUSED(HD_UNSUPPORTED, "arrays of arrays");
    minimal(0, 1);
    put_key(&B, "odd", 13);
    put_int(&B, 0, 8);
    REFUSED(HD_FORMAT, "value type 13");
    minimal(0, 1);
    put_key(&B, "wraps", HD_GGUF_ARR);
    put_int(&B, HD_GGUF_U64, 4);
    put_int(&B, 1ull << 61, 8); // x 8 bytes = 2^64
    REFUSED(HD_FORMAT, "wraps");
    static const uint64_t bad[] = {0, 1, 3, 4, 48, 1ull << 31, 0xffffffff};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        minimal(0, 1);
        kv_u32(&B, "general.alignment", (uint32_t)bad[i]);
        REFUSED(HD_FORMAT, "general.alignment");
    }
    minimal(0, 1);
    kv_str(&B, "general.alignment", "32");
    REFUSED(HD_FORMAT, "general.alignment");
    minimal(0, 0);
    pad(&B, 32);
    REFUSED(HD_FORMAT, "no weights");
}

static void one_tensor(const char *name, int n_dims, const uint64_t *dim, uint32_t type, uint64_t offset)
{
    minimal(1, 0);
    tensor_info(&B, name, n_dims, dim, type, offset);
    pad(&B, 32);
    for (int i = 0; i < 1024; i++) put(&B, "x", 1);
}

static void test_tensors(void)
{
    one_tensor("t", 0, NULL, HD_F32, 0);
    REFUSED(HD_FORMAT, "0 dimensions");
    one_tensor("t", 5, (uint64_t[]){1, 1, 1, 1, 1}, HD_F32, 0);
    REFUSED(HD_FORMAT, "5 dimensions");
    one_tensor("t", 2, (uint64_t[]){4, 0}, HD_F32, 0);
    REFUSED(HD_FORMAT, "dimension 1 is 0");
    one_tensor("t", 2, (uint64_t[]){0, 4}, HD_F32, 0);
    REFUSED(HD_FORMAT, "dimension 0 is 0");
    one_tensor("t", 4, (uint64_t[]){1ull << 32, 1ull << 32, 1ull << 32, 4}, HD_F32, 0);
    REFUSED(HD_FORMAT, "dimension 2");
    one_tensor("t", 2, (uint64_t[]){1ull << 62, 4}, HD_F32, 0);
    REFUSED(HD_FORMAT, "do not make blocks");
    one_tensor("t", 2, (uint64_t[]){1ull << 40, 1ull << 21}, HD_F32,
               0); // 2^63 bytes in a file of one kilobyte
    REFUSED(HD_FORMAT, "past the file");
    one_tensor("t", 1, (uint64_t[]){33}, HD_Q8_0, 0);
    REFUSED(HD_FORMAT, "blocks of q8_0");
    one_tensor("t", 1, (uint64_t[]){8}, 4, 0); // a type that was removed
    REFUSED(HD_UNSUPPORTED, "type 4");
    one_tensor("t", 1, (uint64_t[]){8}, 1000, 0); // an id of this program, not of the format
    REFUSED(HD_UNSUPPORTED, "type 1000");
    one_tensor("t", 1, (uint64_t[]){8}, 0xffffffff, 0);
    REFUSED(HD_UNSUPPORTED, "unknown");
    one_tensor("t", 1, (uint64_t[]){8}, HD_F32, 16);
    REFUSED(HD_FORMAT, "no multiple of 32");
    one_tensor("t", 1, (uint64_t[]){8}, HD_F32, 1024);
    REFUSED(HD_FORMAT, "past the file");
    one_tensor("t", 1, (uint64_t[]){256}, HD_F32, 32);
    REFUSED(HD_FORMAT, "past the file");
    one_tensor("t", 1, (uint64_t[]){8}, HD_F32, ~0ull - 31); // offset + size wraps
    REFUSED(HD_FORMAT, "past the file");
    one_tensor("", 1, (uint64_t[]){8}, HD_F32, 0);
    REFUSED(HD_FORMAT, "name");
    one_tensor("t\n", 1, (uint64_t[]){8}, HD_F32, 0);
    REFUSED(HD_FORMAT, "name");
    minimal(2, 0);
    tensor_info(&B, "t", 1, (uint64_t[]){8}, HD_F32, 0);
    tensor_info(&B, "t", 1, (uint64_t[]){8}, HD_F32, 32);
    pad(&B, 32);
    for (int i = 0; i < 64; i++) put(&B, "", 1);
    REFUSED(HD_FORMAT, "twice");
    minimal(2, 0);
    tensor_info(&B, "late", 1, (uint64_t[]){8}, HD_F32, 32);
    tensor_info(&B, "early", 1, (uint64_t[]){9}, HD_F32, 0);
    pad(&B, 32);
    for (int i = 0; i < 64; i++) put(&B, "", 1);
    REFUSED(HD_FORMAT, "'early' and 'late' overlap");
}

/* Sums past SIZE_MAX, with and without the padding that once hid them (CVE-2025-53630, CVE-2026-27940). */
static void test_sums(void)
{
    minimal(2, 0);
    tensor_info(&B, "a", 1, (uint64_t[]){(1ull << 62) - 8}, HD_F32, 0);
    tensor_info(&B, "b", 1, (uint64_t[]){264}, HD_F32, (1ull << 63) - 32);
    pad(&B, 32);
    for (int i = 0; i < 1024; i++) put(&B, "", 1);
    REFUSED(HD_FORMAT, "past the file");
}

/* What is no model at all: each is refused at once. */
static void test_not_files(void)
{
    hd_source *s = NULL;
    double t0 = hd_test_cpu_s();
    CHECK(hd_source_open(&s, build_dir, true, &err) == HD_FORMAT && strstr(err.msg, "config.json"), "%s",
          err.msg);
    CHECK(hd_source_open(&s, build_path("absent"), true, &err) == HD_IO && strstr(err.msg, "absent"), "%s",
          err.msg);
    const char *fifo = build_path("fifo.gguf");
    if (mkfifo(fifo, 0600) != 0) abort();
    CHECK(hd_source_open(&s, fifo, true, &err) == HD_IO && strstr(err.msg, "pipe"), "%s", err.msg);
    unlink(fifo);
    CHECK(hd_source_open(&s, "/dev/random", true, &err) == HD_IO && strstr(err.msg, "device"), "%s", err.msg);
    CHECK(hd_source_open(&s, build_file("empty.gguf", "", 0), true, &err) == HD_FORMAT, "%s", err.msg);
    CHECK(hd_source_open(&s, build_file("four.gguf", "GGUF", 4), true, &err) == HD_FORMAT, "%s", err.msg);
    CHECK(hd_source_open(&s, "", true, &err) != HD_OK);
    CHECK(hd_test_cpu_s() - t0 < 1 * HD_TEST_SLACK);
    unlink(build_path("empty.gguf"));
    unlink(build_path("four.gguf"));
}

/* A terabyte of declared strings over a hole in the file must not be walked. */
static void test_hole(void)
{
    minimal(0, 1);
    put_key(&B, "tokenizer.ggml.tokens", HD_GGUF_ARR);
    put_int(&B, HD_GGUF_STR, 4);
    put_int(&B, 1ull << 36, 8);
    const char *path = build_file("hole.gguf", B.b, B.n);
    CHECK(truncate(path, 1ll << 40) == 0);
    hd_source *s = NULL;
    double t0 = hd_test_cpu_s();
    CHECK(hd_source_open(&s, path, true, &err) == HD_FORMAT, "%s", err.msg);
    CHECK(hd_test_cpu_s() - t0 < 1 * HD_TEST_SLACK, "%.2f s", hd_test_cpu_s() - t0);
    unlink(path);
}

/* ---- Split files ---- */

static void build_part(const char *file, int no, int count, const char *tensor, int total)
{
    header(&B, 3, 1, no == 0 ? 12 : 3);
    if (no == 0) {
        kv_str(&B, "general.architecture", "qwen2");
        kv_u32(&B, "qwen2.block_count", 1);
        kv_u32(&B, "qwen2.context_length", 128);
        kv_u32(&B, "qwen2.embedding_length", 32);
        kv_u32(&B, "qwen2.feed_forward_length", 64);
        kv_u32(&B, "qwen2.attention.head_count", 4);
        kv_f32(&B, "qwen2.attention.layer_norm_rms_epsilon", 1e-6f);
        kv_u32(&B, "qwen2.vocab_size", 7);
        kv_f32(&B, "qwen2.rope.freq_base", 1e6f);
    }
    kv_u32(&B, "split.no", (uint32_t)no);
    kv_u32(&B, "split.count", (uint32_t)count);
    kv_u32(&B, "split.tensors.count", (uint32_t)total);
    tensor_info(&B, tensor, 1, (uint64_t[]){8}, HD_F32, 0);
    pad(&B, 32);
    for (int i = 0; i < 32; i++) put(&B, &(uint8_t){(uint8_t)(no + 1)}, 1);
    build_file(file, B.b, B.n);
}

static void test_split(void)
{
    hd_source *s = NULL;
    build_part("p-00001-of-00003.gguf", 0, 3, "a", 3);
    build_part("p-00002-of-00003.gguf", 1, 3, "b", 3);
    CHECK(hd_source_open(&s, build_path("p-00001-of-00003.gguf"), true, &err) == HD_IO);
    CHECK(strstr(err.msg, "part 3 of 3 is missing"), "%s", err.msg);
    build_part("p-00003-of-00003.gguf", 2, 3, "c", 3);
    for (int part = 1; part <= 3; part++) {
        char name[32];
        snprintf(name, sizeof name, "p-%05d-of-00003.gguf", part);
        s = NULL;
        CHECK_OK(hd_source_open(&s, build_path(name), true, &err));
        if (!s) continue;
        CHECK(hd_source_n_tensors(s) == 3 && hd_source_config(s)->n_vocab == 7);
        const hd_tensor_info *t = hd_source_find(s, "c");
        CHECK(t && t->file == 2 && t->data[0] == 3);
        hd_source_close(s);
    }
    s = NULL;
    CHECK_OK(hd_source_open(&s, build_dir, true, &err)); // the folder's one model
    hd_source_close(s);
    s = NULL;
    build_part("p-00003-of-00003.gguf", 2, 3, "b", 3);
    CHECK(hd_source_open(&s, build_path("p-00001-of-00003.gguf"), true, &err) == HD_FORMAT &&
              strstr(err.msg, "twice"),
          "%s", err.msg);
    build_part("p-00003-of-00003.gguf", 1, 3, "c", 3);
    CHECK(hd_source_open(&s, build_path("p-00001-of-00003.gguf"), true, &err) == HD_FORMAT &&
              strstr(err.msg, "part 2 of 3"),
          "%s", err.msg);
    build_part("p-00003-of-00003.gguf", 2, 3, "c", 4);
    build_part("p-00001-of-00003.gguf", 0, 3, "a", 4);
    CHECK(hd_source_open(&s, build_path("p-00001-of-00003.gguf"), true, &err) == HD_FORMAT &&
              strstr(err.msg, "4 tensors"),
          "%s", err.msg);
    build_part("renamed.gguf", 0, 3, "a", 3);
    CHECK(hd_source_open(&s, build_path("renamed.gguf"), true, &err) == HD_FORMAT &&
              strstr(err.msg, "00001-of-000NN"),
          "%s", err.msg);
    build_part("q-00000-of-00000.gguf", 0, 1, "a", 1); // no such part: an ordinary name
    CHECK_OK(hd_source_open(&s, build_path("q-00000-of-00000.gguf"), true, &err));
    hd_source_close(s);
}

int main(void)
{
    build_begin();
    test_not_files();
    test_reads();
    test_header();
    test_keys();
    test_tensors();
    test_sums();
    test_truncated();
    test_every_integer();
    test_every_byte();
    test_hole();
    unlink(build_path("m.gguf"));
    test_split();
    build_end();
    return hd_test_end();
}
