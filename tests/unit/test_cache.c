/* The paged cache: lengths, sharing, copy on write, limits, hostile sizes. */
#include <math.h>

#include "model/cache.h"
#include "test.h"

enum { LAYERS = 3, HEADS = 2, DIM = 8 };

static hd_err err;

static hd_config small_config(void)
{
    hd_config c = {.n_layers = LAYERS - 1, .n_mtp = 1, .n_heads = 4, .n_kv_heads = HEADS, .head_dim = DIM};
    return c;
}

/* Every position holds numbers that tell its layer, position and author. */
static void write_row(hd_seq *s, int64_t position, int author)
{
    float k[HEADS * DIM], v[HEADS * DIM];
    for (int l = 0; l < LAYERS; l++) {
        for (int i = 0; i < HEADS * DIM; i++) {
            k[i] = (float)(author * 1000 + l * 100 + i);
            v[i] = (float)position;
        }
        hd_seq_store(s, hd_kernels_at(0), l, position, 1, k, v);
    }
}

static bool holds_row(hd_seq *s, int64_t position, int author)
{
    float k[HEADS * DIM], v[HEADS * DIM];
    bool good = true;
    for (int l = 0; l < LAYERS; l++) {
        hd_kv_load(hd_seq_shape(s), hd_seq_pages(s, l)[position / HD_PAGE_TOK], (int)(position % HD_PAGE_TOK), k, v);
        for (int i = 0; i < HEADS * DIM; i++)
            good = good && k[i] == (float)(author * 1000 + l * 100 + i) && v[i] == (float)position;
    }
    return good;
}

static void append(hd_seq *s, int n, int author)
{
    CHECK_OK(hd_seq_reserve(s, n, &err));
    for (int i = 0; i < n; i++) write_row(s, hd_seq_len(s) + i, author);
    hd_seq_advance(s, n);
}

static bool holds_rows(hd_seq *s, int64_t from, int64_t to, int author)
{
    bool good = true;
    for (int64_t i = from; i < to; i++) good = good && holds_row(s, i, author);
    return good;
}

static void test_sharing(void)
{
    hd_config config = small_config();
    hd_cache *c;
    hd_seq *a, *b, *d;
    CHECK_OK(hd_cache_open(&c, &config, HD_CACHE_F32, 64 * 10, &err));
    CHECK(hd_cache_free_tok(c) == 640);
    CHECK_OK(hd_seq_open(&a, c, &err));
    append(a, 100, 1);
    CHECK(hd_seq_len(a) == 100 && hd_cache_free_tok(c) == 64 * 8);
    CHECK(holds_rows(a, 0, 100, 1));

    /* a fork shares both pages; whoever writes first copies the half-full one, the full one stays shared */
    CHECK_OK(hd_seq_fork(&b, a, &err));
    CHECK(hd_seq_len(b) == 100 && hd_cache_free_tok(c) == 64 * 8);
    append(b, 10, 2);
    CHECK(hd_cache_free_tok(c) == 64 * 7);
    append(a, 60, 3);
    CHECK(hd_cache_free_tok(c) == 64 * 6);
    CHECK(holds_rows(a, 0, 100, 1) && holds_rows(a, 100, 160, 3));
    CHECK(holds_rows(b, 0, 100, 1) && holds_rows(b, 100, 110, 2));
    CHECK(hd_seq_pages(a, 0)[0] == hd_seq_pages(b, 0)[0] && hd_seq_pages(a, 0)[1] != hd_seq_pages(b, 0)[1]);

    /* trimming into a shared page leaves the other one's numbers alone */
    hd_seq_trim(b, 5);
    CHECK(hd_seq_len(b) == 5);
    append(b, 3, 4);
    CHECK(holds_rows(b, 0, 5, 1) && holds_rows(b, 5, 8, 4) && holds_rows(a, 0, 100, 1));

    /* trimming to a page border and to nothing */
    hd_seq_trim(a, 64);
    append(a, 1, 5);
    CHECK(holds_rows(a, 0, 64, 1) && holds_row(a, 64, 5));
    hd_seq_trim(a, 0);
    CHECK(hd_cache_free_tok(c) == 64 * 9);
    hd_seq_close(a);
    hd_seq_close(b);
    CHECK(hd_cache_free_tok(c) == 640);

    /* reserved but unwritten pages are not shared */
    CHECK_OK(hd_seq_open(&a, c, &err));
    append(a, 64, 1);
    CHECK_OK(hd_seq_reserve(a, 200, &err));
    CHECK_OK(hd_seq_fork(&d, a, &err));
    CHECK(hd_cache_free_tok(c) == 64 * 5);
    append(d, 1, 6);
    append(a, 1, 7);
    CHECK(holds_row(d, 64, 6) && holds_row(a, 64, 7));
    hd_seq_close(d);
    hd_seq_close(a);
    hd_cache_close(c);
}

static void test_limits(void)
{
    hd_config config = small_config();
    hd_cache *c = NULL;
    hd_seq *a, *b;
    CHECK_OK(hd_cache_open(&c, &config, HD_CACHE_BF16, 129, &err)); // 3 pages
    CHECK(hd_cache_free_tok(c) == 192);
    CHECK_OK(hd_seq_open(&a, c, &err));
    append(a, 190, 0);
    CHECK(hd_seq_reserve(a, 3, &err) == HD_LIMIT);
    CHECK(hd_seq_reserve(a, INT64_MAX, &err) == HD_LIMIT);
    CHECK(hd_seq_reserve(a, -1, &err) == HD_LIMIT);
    CHECK_OK(hd_seq_reserve(a, 2, &err));
    CHECK_OK(hd_seq_fork(&b, a, &err));
    CHECK(hd_seq_reserve(b, 1, &err) == HD_LIMIT); // needs a copy, no page left
    CHECK(hd_seq_len(b) == 190 && holds_rows(a, 0, 190, 0));
    hd_seq_trim(a, 0);
    CHECK_OK(hd_seq_reserve(b, 2, &err)); // now the only owner: nothing to copy
    hd_seq_close(a);
    hd_seq_close(b);
    hd_cache_close(c);

    c = NULL;
    CHECK(hd_cache_open(&c, &config, HD_CACHE_F16, 0, &err) == HD_USAGE);
    CHECK(hd_cache_open(&c, &config, HD_CACHE_F16, -5, &err) == HD_USAGE);
    CHECK(hd_cache_open(&c, &config, HD_CACHE_F16, INT64_MAX, &err) == HD_USAGE);
    CHECK(hd_cache_open(&c, &config, (hd_cache_type)77, 64, &err) == HD_USAGE);
    config.head_dim = 0;
    CHECK(hd_cache_open(&c, &config, HD_CACHE_F16, 64, &err) == HD_USAGE);
    config.head_dim = INT32_MAX;
    CHECK(hd_cache_open(&c, &config, HD_CACHE_F16, 64, &err) == HD_USAGE);
    config.head_dim = 1 << 20;
    config.n_kv_heads = 1 << 20;
    CHECK(hd_cache_open(&c, &config, HD_CACHE_F32, INT32_MAX, &err) != HD_OK);
    config = small_config();
    config.n_layers = INT32_MAX;
    config.n_mtp = INT32_MAX;
    CHECK(hd_cache_open(&c, &config, HD_CACHE_F32, 64, &err) == HD_USAGE);
    CHECK(c == NULL);
    hd_cache_close(NULL);
    hd_seq_close(NULL);
}

/* Address space for a context of millions, memory for what is used: this would not fit if it were touched. */
static void test_lazy(void)
{
    hd_config config = {.n_layers = 61, .n_heads = 128, .n_kv_heads = 128, .kv_lora_rank = 512, .qk_rope_head_dim = 64};
    hd_cache *c;
    hd_seq *s;
    hd_kv_shape shape = hd_cache_shape(&config, HD_CACHE_BF16);
    CHECK(shape.n_kv == 1 && shape.dk == 576 && shape.dv == 512 && shape.v_in_k);
    CHECK(hd_cache_tok_bytes(&config, HD_CACHE_BF16) == 61 * 576 * 2);
    CHECK_OK(hd_cache_open(&c, &config, HD_CACHE_BF16, 4 << 20, &err));
    CHECK_OK(hd_seq_open(&s, c, &err));
    CHECK_OK(hd_seq_reserve(s, 2000, &err));
    float k[576] = {1, 2, 3}, back[576];
    hd_seq_store(s, hd_kernels_at(0), 60, 1999, 1, k, NULL);
    hd_kv_load(hd_seq_shape(s), hd_seq_pages(s, 60)[1999 / HD_PAGE_TOK], 1999 % HD_PAGE_TOK, back, NULL);
    CHECK(memcmp(k, back, sizeof k) == 0);
    hd_seq_close(s);
    hd_cache_close(c);
}

int main(void)
{
    test_sharing();
    test_limits();
    test_lazy();
    return hd_test_end();
}
