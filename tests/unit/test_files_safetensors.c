/* Hugging Face directories: safetensors in one file and in shards, FP8 with block scales, and what is wrong
 * with them. */
#include "test.h"

#include "files_build.h"
#include "model/source.h"

static builder B;
static hd_err err;

static const char *const CONFIG =
    "{\"architectures\":[\"Qwen2ForCausalLM\"],\"hidden_size\":32,\"intermediate_size\":64,"
    "\"num_hidden_layers\":1,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"vocab_size\":8,\"max_position_embeddings\":128}";

/* header text, then n_data bytes 0, 1, 2 ... */
static void build(const char *text, size_t n_data)
{
    B.n = 0;
    B.n_fields = 0;
    put_int(&B, strlen(text), 8);
    put(&B, text, strlen(text));
    for (size_t i = 0; i < n_data; i++) put(&B, &(uint8_t){(uint8_t)i}, 1);
}

static hd_status open_dir(hd_source **s)
{
    *s = NULL;
    err.msg[0] = 0;
    return hd_source_open(s, build_dir, true, &err);
}

static hd_status try_bytes(const builder *b)
{
    hd_source *s;
    build_file("model.safetensors", b->b, b->n);
    hd_status st = open_dir(&s);
    hd_source_close(s);
    return st;
}

#define REFUSED(status, word)                                                                                \
    do {                                                                                                     \
        hd_status st_ = try_bytes(&B);                                                                       \
        CHECK(st_ == (status) && strstr(err.msg, word), "status %d: %s", (int)st_, err.msg);                 \
    } while (0)

/* Padded to 8 with blanks, as the reference writer does. */
static const char *const GOOD = "{\"__metadata__\":{\"format\":\"pt\"},"
                                "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[16,28]},"
                                "\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]},"
                                "\"s\":{\"dtype\":\"F16\",\"shape\":[],\"data_offsets\":[28,30]}}    ";

static void test_reads(void)
{
    hd_source *s;
    build(GOOD, 30);
    build_file("model.safetensors", B.b, B.n);
    CHECK_OK(open_dir(&s));
    if (!s) return;
    CHECK(hd_source_get_kind(s) == HD_SOURCE_HF && hd_source_n_tensors(s) == 3 && !hd_source_gguf(s));
    const hd_tensor_info *t = hd_source_find(s, "b");
    CHECK(t && t->type == HD_BF16 && t->n_dims == 2 && t->dim[0] == 2 && t->dim[1] == 3 && t->bytes == 12 &&
          t->data[0] == 16);
    t = hd_source_find(s, "s");
    CHECK(t && t->type == HD_F16 && t->n_dims == 1 && t->dim[0] == 1 && t->data[1] == 29);
    CHECK(!hd_source_find(s, "__metadata__") && hd_source_weight_bytes(s) == 30);
    CHECK(hd_source_json(s, "config.json") && !hd_source_json(s, "tokenizer.json") &&
          !hd_source_json(s, "x"));
    CHECK(hd_source_config(s) && hd_source_config(s)->n_vocab == 8);
    hd_source_close(s);
}

static void test_truncated(void)
{
    static builder cut;
    build(GOOD, 30);
    int wrong = 0;
    for (size_t n = 0; n < B.n; n++) {
        cut = B;
        cut.n = n;
        hd_status st = try_bytes(&cut);
        if (st == HD_OK || !err.msg[0]) wrong++;
    }
    CHECK(wrong == 0, "%d cuts were not noticed", wrong);
    for (int v = 0; v < BUILD_EVIL; v++) {
        cut = B;
        memcpy(cut.b, &build_evil[v], 8);
        CHECK(try_bytes(&cut) != HD_OK, "header length %llu", (unsigned long long)build_evil[v]);
    }
    put(&B, "x", 1);
    REFUSED(HD_FORMAT, "1 bytes after the last tensor");
}

static void one(const char *dtype, const char *shape, const char *offsets, size_t n_data)
{
    char text[400];
    snprintf(text, sizeof text, "{\"w\":{\"dtype\":%s,\"shape\":%s,\"data_offsets\":%s}}", dtype, shape,
             offsets);
    while (strlen(text) % 8) strcat(text, " ");
    build(text, n_data);
}

/* Every number that a tensor may claim. */
static void test_numbers(void)
{
    static const char *const odd[] = {"0",
                                      "-1",
                                      "1.5",
                                      "1e3",
                                      "1e400",
                                      "null",
                                      "\"4\"",
                                      "[]",
                                      "2147483648",
                                      "4294967295",
                                      "2305843009213693952",
                                      "4611686018427387904",
                                      "9223372036854775807",
                                      "9223372036854775808",
                                      "18446744073709551615"};
    char text[100];
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        snprintf(text, sizeof text, "[%s]", odd[i]);
        one("\"F32\"", text, "[0,16]", 16);
        CHECK(try_bytes(&B) != HD_OK, "dimension %s", odd[i]);
        snprintf(text, sizeof text, "[4,%s]", odd[i]);
        one("\"F32\"", text, "[0,16]", 16);
        CHECK(try_bytes(&B) != HD_OK, "dimension %s", odd[i]);
        snprintf(text, sizeof text, "[0,%s]", odd[i]);
        one("\"F32\"", "[4]", text, 16);
        CHECK(try_bytes(&B) != HD_OK, "end %s", odd[i]);
        if (i) {
            snprintf(text, sizeof text, "[%s,16]", odd[i]);
            one("\"F32\"", "[4]", text, 16);
            CHECK(try_bytes(&B) != HD_OK, "begin %s", odd[i]);
        }
    }
}

static void test_wrong(void)
{
    one("\"F32\"", "[4]", "[16,0]", 16);
    REFUSED(HD_FORMAT, "16 to 0");
    one("\"F32\"", "[4294967296,4294967296,4]", "[0,16]", 16);
    REFUSED(HD_FORMAT, "makes no sense");
    one("\"F32\"", "[1,1,1,2,2]", "[0,16]", 16);
    REFUSED(HD_UNSUPPORTED, "5 dimensions");
    one("\"F8_E5M2\"", "[4]", "[0,4]", 4);
    REFUSED(HD_UNSUPPORTED, "F8_E5M2");
    one("\"x\\u001b[2J\"", "[4]", "[0,4]", 4);
    REFUSED(HD_UNSUPPORTED, "x?[2J");
    one("7", "[4]", "[0,4]", 4);
    REFUSED(HD_FORMAT, "dtype");
    one("\"F32\"", "[4]", "[0,16,0]", 16);
    REFUSED(HD_FORMAT, "data_offsets");
    one("\"F32\"", "{}", "[0,16]", 16);
    REFUSED(HD_FORMAT, "shape");
    build("{\"w\":7}       ", 0);
    REFUSED(HD_FORMAT, "dtype");
    build("{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4);
    REFUSED(HD_FORMAT, "name");
    build("[]", 0);
    REFUSED(HD_FORMAT, "no object");
    build("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
          "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
          8);
    REFUSED(HD_FORMAT, "duplicate");
    build("{\"a\":{\"dtype\":\"I8\",\"shape\":[4],\"data_offsets\":[0,4]},"
          "\"b\":{\"dtype\":\"I8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
          6);
    REFUSED(HD_FORMAT, "does not begin where"); // overlap
    build("{\"a\":{\"dtype\":\"I8\",\"shape\":[4],\"data_offsets\":[0,4]},"
          "\"b\":{\"dtype\":\"I8\",\"shape\":[4],\"data_offsets\":[6,10]}}",
          10);
    REFUSED(HD_FORMAT, "does not begin where"); // gap
    build("{\"a\":{\"dtype\":\"I8\",\"shape\":[4],\"data_offsets\":[2,6]}}", 6);
    REFUSED(HD_FORMAT, "does not begin where"); // gap at the front
    build("{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]},"
          "\"bb\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}} ",
          5);
    REFUSED(HD_UNSUPPORTED, "not aligned");
    build("{\"a\":\"\xff\xfe\"}", 0);
    REFUSED(HD_FORMAT, "decode byte 0xff");
    build("{\"a\\u0000b\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    REFUSED(HD_FORMAT, "JSON");
}

/* A million brackets; gigabytes of tiny values; a hundred thousand honest tensors. */
static void test_large(void)
{
    size_t n = 24 << 20, k = 0;
    char *text = calloc(1, n + 8);
    if (!text) abort();
    hd_source *s;
    double t0 = hd_test_cpu_s();
    uint64_t len = 1000000;
    memset(text + 8, '[', len);
    memcpy(text, &len, 8);
    build_file("model.safetensors", text, 8 + len);
    CHECK(open_dir(&s) == HD_FORMAT && strstr(err.msg, "depth"), "%s", err.msg);
    for (k = 8; k + 3 <= n; k += 3) memcpy(text + k, "[],", 3);
    text[8] = '[';
    len = k - 8;
    memcpy(text, &len, 8);
    build_file("model.safetensors", text, k);
    CHECK(open_dir(&s) == HD_LIMIT, "%s", err.msg);
    CHECK(hd_test_cpu_s() - t0 < 1 * HD_TEST_SLACK, "%.2f s", hd_test_cpu_s() - t0);
    t0 = hd_test_cpu_s();
    k = 8;
    for (int i = 0; i < 100000; i++)
        k += (size_t)sprintf(
            text + k,
            "%s\"model.layers.%d.weight\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
            i ? "," : "{", i, i, i + 1);
    text[k++] = '}';
    len = k - 8;
    memcpy(text, &len, 8);
    build_file("model.safetensors", text, k + 100000);
    CHECK_OK(open_dir(&s));
    CHECK(s && hd_source_n_tensors(s) == 100000 && hd_source_find(s, "model.layers.99999.weight"));
    hd_source_close(s);
    CHECK(hd_test_cpu_s() - t0 < 3 * HD_TEST_SLACK, "%.2f s", hd_test_cpu_s() - t0);
    free(text);
}

/* ---- Shards ---- */

static void shard(const char *file, const char *tensor)
{
    char text[200];
    snprintf(text, sizeof text, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", tensor);
    while (strlen(text) % 8) strcat(text, " ");
    build(text, 8);
    build_file(file, B.b, B.n);
}

static void write_index(const char *map)
{
    char text[1000];
    snprintf(text, sizeof text, "{\"metadata\":{\"total_size\":16},\"weight_map\":%s}", map);
    build_file("model.safetensors.index.json", text, strlen(text));
}

static void test_sharded(void)
{
    hd_source *s;
    unlink(build_path("model.safetensors"));
    shard("model-00001-of-00002.safetensors", "a");
    shard("model-00002-of-00002.safetensors", "b");
    write_index("{\"a\":\"model-00001-of-00002.safetensors\",\"b\":\"model-00002-of-00002.safetensors\"}");
    CHECK_OK(open_dir(&s));
    CHECK(s && hd_source_n_tensors(s) == 2 && hd_source_find(s, "a") && hd_source_find(s, "b")->file == 1);
    hd_source_close(s);
    write_index("{\"a\":\"model-00001-of-00002.safetensors\",\"c\":\"model-00002-of-00002.safetensors\"}");
    CHECK(open_dir(&s) == HD_FORMAT && strstr(err.msg, "2 tensors announced"), "%s", err.msg);
    write_index("{\"a\":\"model-00001-of-00002.safetensors\",\"b\":\"model-00003-of-00002.safetensors\"}");
    CHECK(open_dir(&s) == HD_IO && strstr(err.msg, "missing"), "%s", err.msg);
    static const char *const names[] = {"\"../a.safetensors\"",
                                        "\"/etc/a.safetensors\"",
                                        "\"x/a.safetensors\"",
                                        "\"..\"",
                                        "\"\"",
                                        "\".a.safetensors\"",
                                        "\"passwd\"",
                                        "7",
                                        "null",
                                        "[]",
                                        "\"a\\nb.safetensors\"",
                                        "\"a\\\\b.safetensors\""};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char map[200];
        snprintf(map, sizeof map, "{\"a\":%s}", names[i]);
        write_index(map);
        CHECK(open_dir(&s) == HD_FORMAT && strstr(err.msg, "not named plainly"), "%s: %s", names[i], err.msg);
    }
    write_index("{}");
    CHECK_OK(open_dir(&s)); // no weights announced and none there
    hd_source_close(s);
    write_index("[]");
    CHECK(open_dir(&s) == HD_FORMAT && strstr(err.msg, "weight_map"), "%s", err.msg);
    build_file("model.safetensors.index.json", "{", 1);
    CHECK(open_dir(&s) == HD_FORMAT && strstr(err.msg, "line 1"), "%s", err.msg);
    /* A tensor of two shards belongs to the one that the index names. */
    shard("model-00002-of-00002.safetensors", "a");
    write_index("{\"a\":\"model-00001-of-00002.safetensors\"}");
    CHECK_OK(open_dir(&s));
    CHECK(s && hd_source_n_tensors(s) == 1 && hd_source_find(s, "a")->file == 0);
    hd_source_close(s);
    unlink(build_path("model.safetensors.index.json"));
    CHECK(open_dir(&s) == HD_FORMAT && strstr(err.msg, "neither model.safetensors"), "%s", err.msg);
}

/* ---- FP8 ---- */

static void fp8(const char *scale, const char *shape, size_t n_scale)
{
    char text[400];
    snprintf(text, sizeof text,
             "{\"w.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[129,128],\"data_offsets\":[0,16512]},"
             "\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[16512,%zu]}}",
             scale, shape, 16512 + n_scale);
    while (strlen(text) % 8) strcat(text, " ");
    build(text, 16512 + n_scale);
}

static void test_fp8(void)
{
    fp8("w.weight_scale_inv", "[2,1]", 8); // 129 rows are two blocks
    CHECK(try_bytes(&B) == HD_OK, "%s", err.msg);
    fp8("w.weight_scale_inv", "[1,2]", 8);
    REFUSED(HD_UNSUPPORTED, "w.weight_scale_inv");
    fp8("w.weight_scale_inv", "[1,1]", 4);
    REFUSED(HD_UNSUPPORTED, "w.weight_scale_inv");
    fp8("w.scale", "[2,1]", 8);
    REFUSED(HD_UNSUPPORTED, "w.weight_scale_inv");
}

/* ---- The folder around ---- */

static void test_folder(void)
{
    hd_source *s;
    unlink(build_path("model.safetensors"));
    CHECK(hd_source_open(&s, build_path("model-00001-of-00002.safetensors"), true, &err) == HD_USAGE, "%s",
          err.msg);
    s = NULL;
    CHECK_OK(
        hd_source_open(&s, build_dir, false, &err)); // a configuration is enough when no weights are needed
    CHECK(s && hd_source_n_tensors(s) == 0 && hd_source_config(s));
    hd_source_close(s);
    build_file("config.json", "{\"a\":1,\"a\":2}", 13);
    CHECK(open_dir(&s) == HD_FORMAT && strstr(err.msg, "duplicate"), "%s", err.msg);
    unlink(build_path("config.json"));
    CHECK(open_dir(&s) == HD_FORMAT, "%s", err.msg);
    build_file("tokenizer.json", "{\"model\":{}}", 12);
    CHECK(open_dir(&s) == HD_FORMAT && strstr(err.msg, "config.json is missing"), "%s", err.msg);
    s = NULL;
    CHECK_OK(hd_source_open(&s, build_dir, false, &err)); // a tokenizer alone
    CHECK(s && !hd_source_config(s) && hd_source_json(s, "tokenizer.json"));
    hd_source_close(s);
    s = NULL;
    char *deep = malloc(2000000);
    if (!deep) abort();
    memset(deep, '[', 2000000);
    build_file("tokenizer.json", deep, 2000000);
    free(deep);
    CHECK(hd_source_open(&s, build_dir, false, &err) == HD_FORMAT, "%s", err.msg);
    /* A FIFO where a file should be: absent, not waited for. */
    unlink(build_path("tokenizer.json"));
    if (mkfifo(build_path("tokenizer.json"), 0600) != 0) abort();
    CHECK(open_dir(&s) == HD_FORMAT, "%s", err.msg);
}

int main(void)
{
    build_begin();
    build_file("config.json", CONFIG, strlen(CONFIG));
    test_reads();
    test_truncated();
    test_numbers();
    test_wrong();
    test_large();
    test_sharded();
    test_fp8();
    test_folder();
    build_end();
    return hd_test_end();
}
