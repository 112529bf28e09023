/* The GGUF writer, read back by the reader. */
#include "model/gguf.h"

#include <unistd.h>

#include "test.h"

static hd_err err;
static char path[128];

static void keys_and_tensors_come_back(void)
{
    hd_gguf_writer *w = NULL;
    const int32_t numbers[3] = {-1, 2, 3};
    const hd_gguf_str words[2] = {{"one", 3}, {"", 0}};
    const int64_t shape_a[2] = {3, 32}, shape_b[1] = {5};
    uint8_t a[3 * 34];
    float b[5] = {1, 2, 3, 4, 5};
    for (size_t i = 0; i < sizeof a; i++) a[i] = (uint8_t)(i * 7);

    CHECK_OK(hd_gguf_writer_open(&w, path, &err));
    CHECK_OK(hd_gguf_put_str(w, "tokenizer.ggml.model", "gpt2", 4, &err));
    CHECK_OK(hd_gguf_put_u32(w, "t.u32", 4000000000u, &err));
    CHECK_OK(hd_gguf_put_f32(w, "t.f32", 0.25f, &err));
    CHECK_OK(hd_gguf_put_bool(w, "t.bool", true, &err));
    CHECK_OK(hd_gguf_put_arr(w, "t.numbers", HD_GGUF_I32, numbers, 3, &err));
    CHECK_OK(hd_gguf_put_arr_str(w, "t.words", words, 2, &err));
    CHECK(hd_gguf_put_arr(w, "t.bad", HD_GGUF_STR, numbers, 1, &err) == HD_USAGE);
    CHECK_OK(hd_gguf_put_tensor(w, "a.weight", HD_Q8_0, 2, shape_a, &err));
    CHECK_OK(hd_gguf_put_tensor(w, "b.bias", HD_F32, 1, shape_b, &err));
    CHECK(hd_gguf_put_tensor(w, "odd.weight", HD_Q8_0, 1, shape_b, &err) == HD_USAGE);
    CHECK(hd_gguf_commit(w, &err) == HD_USAGE, "nothing was written yet");
    CHECK_OK(hd_gguf_begin_data(w, &err));
    CHECK_OK(hd_gguf_write(w, a, 50, &err));
    CHECK_OK(hd_gguf_write(w, a + 50, sizeof a - 50, &err));
    CHECK(access(path, F_OK) != 0, "the file has its name before it is whole");
    CHECK(hd_gguf_commit(w, &err) == HD_USAGE, "a tensor is missing");
    CHECK_OK(hd_gguf_write(w, b, sizeof b, &err));
    CHECK(hd_gguf_write(w, b, 1, &err) == HD_USAGE, "more than was declared");
    CHECK_OK(hd_gguf_commit(w, &err));
    hd_gguf_writer_close(w);

    hd_map map;
    hd_gguf *g = NULL;
    CHECK_OK(hd_map_open(&map, path, &err));
    CHECK_OK(hd_gguf_open(&g, &map, path, &err));
    if (!g) return;
    int64_t i = 0;
    double f = 0;
    bool t = false;
    hd_gguf_str v;
    size_t pos = 0;
    CHECK(hd_gguf_n_kv(g) == 6);
    CHECK(hd_gguf_i64(g, "t.u32", &i) && i == 4000000000);
    CHECK(hd_gguf_f64(g, "t.f32", &f) && f == 0.25);
    CHECK(hd_gguf_bool(g, "t.bool", &t) && t);
    CHECK(hd_gguf_arr_i64(hd_gguf_find(g, "t.numbers"), 0, &i) && i == -1);
    CHECK(hd_gguf_arr_str(hd_gguf_find(g, "t.words"), &pos, &v) && v.n == 3 && memcmp(v.p, "one", 3) == 0);
    CHECK(hd_gguf_arr_str(hd_gguf_find(g, "t.words"), &pos, &v) && v.n == 0);
    const hd_tensor_info *ta = hd_gguf_tensor(g, 0), *tb = hd_gguf_tensor(g, 1);
    CHECK(ta && tb && strcmp(ta->name, "a.weight") == 0 && strcmp(tb->name, "b.bias") == 0);
    CHECK(ta && ta->type == HD_Q8_0 && ta->n_dims == 2 && ta->dim[0] == 3 && ta->dim[1] == 32);
    CHECK(ta && ta->bytes == sizeof a && memcmp(ta->data, a, sizeof a) == 0);
    CHECK(tb && tb->bytes == sizeof b && memcmp(tb->data, b, sizeof b) == 0);

    /* every key copied into another file, bit by bit */
    hd_gguf *copy = NULL;
    hd_map map2;
    CHECK_OK(hd_gguf_writer_open(&w, path, &err));
    for (int64_t k = 0; k < hd_gguf_n_kv(g); k++) CHECK_OK(hd_gguf_put_kv(w, hd_gguf_kv_at(g, k), &err));
    CHECK_OK(hd_gguf_begin_data(w, &err));
    CHECK_OK(hd_gguf_commit(w, &err));
    hd_gguf_writer_close(w);
    CHECK_OK(hd_map_open(&map2, path, &err));
    CHECK_OK(hd_gguf_open(&copy, &map2, path, &err));
    for (int64_t k = 0; copy && k < hd_gguf_n_kv(g); k++) {
        const hd_gguf_kv *x = hd_gguf_kv_at(g, k), *y = hd_gguf_kv_at(copy, k);
        CHECK(y && x->type == y->type && x->n == y->n && x->bytes == y->bytes && memcmp(x->data, y->data, x->bytes) == 0);
    }
    hd_gguf_close(copy);
    hd_gguf_close(g);
    hd_map_close(&map2);
    hd_map_close(&map);
}

static void without_commit_the_old_file_stays(void)
{
    hd_gguf_writer *w = NULL;
    const int64_t shape[1] = {4};
    FILE *f = fopen(path, "wb");
    fputs("old", f);
    fclose(f);
    CHECK_OK(hd_gguf_writer_open(&w, path, &err));
    CHECK_OK(hd_gguf_put_tensor(w, "x", HD_F32, 1, shape, &err));
    CHECK_OK(hd_gguf_begin_data(w, &err));
    CHECK_OK(hd_gguf_write(w, "1234", 4, &err));
    hd_gguf_writer_close(w);
    char back[8] = "";
    f = fopen(path, "rb");
    CHECK(f && fread(back, 1, sizeof back, f) == 3 && memcmp(back, "old", 3) == 0);
    if (f) fclose(f);
}

int main(void)
{
    snprintf(path, sizeof path, "/tmp/hadal-test-gguf-write-%ld.gguf", (long)getpid());
    keys_and_tensors_come_back();
    without_commit_the_old_file_stays();
    unlink(path);
    return hd_test_end();
}
