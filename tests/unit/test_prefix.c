/* The prefix cache and its files: what is found, for whom, what goes first, and what becomes
 * of damaged files. */
#include <dirent.h>
#include <utime.h>

#include "serve/disk.h"
#include "sessions.h"

static int32_t id[64 * 16];
static const int32_t *block(int i) { return id + 64 * i; }
static const uint8_t key[HD_PREFIX_KEY] = {1, 2, 3};

typedef struct {
    hd_cache *c;
    hd_prefix *p;
} kept;

static kept open_kept(int pages, const uint8_t *k)
{
    kept x = {0};
    tiny_opts o = {.kind = TINY_LLAMA};
    hd_config c = tiny_config(&o);
    CHECK_OK(hd_cache_open(&x.c, &c, HD_CACHE_BF16, 64 * pages, &err));
    CHECK_OK(hd_prefix_open(&x.p, x.c, k, &err));
    return x;
}

static void close_kept(kept *x)
{
    hd_prefix_close(x->p);
    CHECK(hd_cache_free_tok(x->c) == 64 * (int64_t)hd_cache_n_pages(x->c), "every page is given back");
    hd_cache_close(x->c);
}

/* A block of its own page, which nobody else holds. */
static hd_block *add(kept *x, hd_block *parent, uint64_t owner, int i)
{
    hd_block *b = NULL;
    int32_t page;
    CHECK_OK(hd_cache_page_new(x->c, &page, &err));
    CHECK_OK(hd_prefix_add(x->p, &b, parent, owner, block(i), page, &err));
    hd_cache_page_drop(x->c, page);
    return b;
}

static void test_find(void)
{
    kept x = open_kept(8, key);
    CHECK(!hd_prefix_find(x.p, NULL, 0, block(0)));
    hd_block *a = add(&x, NULL, 0, 0), *b = add(&x, a, 7, 1), *c = add(&x, b, 7, 2);
    CHECK(hd_prefix_find(x.p, NULL, 0, block(0)) == a && hd_prefix_find(x.p, a, 7, block(1)) == b && hd_prefix_find(x.p, b, 7, block(2)) == c);
    CHECK(!hd_prefix_find(x.p, NULL, 7, block(0)) && !hd_prefix_find(x.p, a, 8, block(1)) && !hd_prefix_find(x.p, a, 0, block(1)),
          "of another owner");
    CHECK(!hd_prefix_find(x.p, NULL, 7, block(1)) && !hd_prefix_find(x.p, a, 7, block(2)), "the same ids behind another beginning");
    int32_t other[64];
    memcpy(other, block(0), sizeof other);
    other[63]++;
    CHECK(!hd_prefix_find(x.p, NULL, 0, other));
    uint8_t name[HD_BLOCK_NAME];
    hd_prefix_name(x.p, a, 7, block(1), name);
    CHECK(memcmp(name, b->name, sizeof name) == 0);
    hd_prefix_name(x.p, NULL, 7, block(1), name);
    CHECK(memcmp(name, b->name, sizeof name) != 0, "the name says where a block stands");
    CHECK(hd_prefix_n(x.p) == 3 && hd_prefix_idle(x.p) == 3 && hd_cache_free_tok(x.c) == 5 * 64);
    close_kept(&x);
}

static void test_evict(void)
{
    kept x = open_kept(8, key);
    hd_block *a = add(&x, NULL, 0, 0), *b = add(&x, a, 7, 1), *c = add(&x, a, 7, 2), *d = add(&x, NULL, 7, 3);
    hd_prefix_find(x.p, a, 7, block(1)); // used: then c is the oldest that has no children
    CHECK(hd_prefix_evict(x.p, 1) == 1 && !hd_prefix_find(x.p, a, 7, block(2)) && hd_prefix_find(x.p, a, 7, block(1)) == b);
    hd_cache_page_keep(x.c, b->page); // somebody works with b
    hd_cache_page_keep(x.c, a->page);
    CHECK(hd_prefix_idle(x.p) == 1);
    CHECK(hd_prefix_evict(x.p, 8) == 1 && hd_prefix_n(x.p) == 2 && !hd_prefix_find(x.p, NULL, 7, block(3)), "only d could go");
    hd_cache_page_drop(x.c, b->page);
    hd_cache_page_drop(x.c, a->page);
    CHECK(hd_prefix_evict(x.p, 0) == 0 && hd_prefix_evict(x.p, -3) == 0);
    CHECK(hd_prefix_evict(x.p, 8) == 2 && hd_prefix_n(x.p) == 0 && hd_cache_free_tok(x.c) == 8 * 64, "children first, then parents");
    (void)c, (void)d;
    close_kept(&x);
}

/* Full pages move between sequences and keepers without being copied. */
static void test_pages(void)
{
    kept x = open_kept(4, key);
    hd_seq *s = NULL, *t = NULL;
    CHECK_OK(hd_seq_open(&s, x.c, &err));
    CHECK_OK(hd_seq_open(&t, x.c, &err));
    CHECK_OK(hd_seq_reserve(s, 100, &err));
    hd_seq_advance(s, 100);
    int32_t first = hd_seq_page(s, 0);
    hd_block *a = NULL;
    CHECK_OK(hd_prefix_add(x.p, &a, NULL, 7, block(0), first, &err));
    CHECK(hd_cache_page_refs(x.c, first) == 2 && hd_prefix_idle(x.p) == 0 && hd_prefix_evict(x.p, 1) == 0, "in use: it stays");
    CHECK_OK(hd_seq_reserve(t, 1, &err)); // a reserved page goes back when a known one is taken over
    CHECK_OK(hd_seq_adopt(t, a->page, &err));
    CHECK(hd_seq_len(t) == 64 && hd_seq_page(t, 0) == first && hd_cache_free_tok(x.c) == 2 * 64 && hd_cache_page_refs(x.c, first) == 3);
    hd_seq_close(s);
    CHECK(hd_cache_free_tok(x.c) == 3 * 64);

    CHECK_OK(hd_seq_open(&s, x.c, &err)); // who has computed the same by himself takes the other's page
    CHECK_OK(hd_seq_reserve(s, 64, &err));
    hd_seq_advance(s, 64);
    hd_seq_share(s, 0, first);
    CHECK(hd_seq_page(s, 0) == first && hd_cache_free_tok(x.c) == 3 * 64 && hd_seq_pages(s, 1)[0] == hd_seq_pages(t, 1)[0]);
    CHECK_OK(hd_seq_reserve(s, 10, &err));
    CHECK(hd_cache_free_tok(x.c) == 2 * 64);
    hd_seq_close(s);
    hd_seq_close(t);
    close_kept(&x);
}

/* ---- Files ---- */

enum { LAYERS = 2 };
static const uint8_t model[32] = {9};

static void fill(kept *x, int32_t page, int with)
{
    uint8_t *p = hd_cache_page_bytes(x->c, page);
    for (size_t i = 0; i < LAYERS * hd_cache_layer_bytes(x->c); i++) p[i] = (uint8_t)((int)i * 7 + with);
}

static bool filled(kept *x, int32_t page, int with)
{
    const uint8_t *p = hd_cache_page_bytes(x->c, page);
    size_t n = LAYERS * hd_cache_layer_bytes(x->c), i = 0;
    while (i < n && p[i] == (uint8_t)((int)i * 7 + with)) i++;
    return i == n;
}

static char *file_of(const char *dir, const hd_block *b)
{
    static char path[700];
    int n = snprintf(path, sizeof path, "%s/", dir);
    for (int i = 0; i < HD_BLOCK_NAME; i++) n += snprintf(path + n, sizeof path - (size_t)n, "%02x", b->name[i]);
    snprintf(path + n, sizeof path - (size_t)n, ".kv");
    return path;
}

static hd_status read_back(hd_disk *d, kept *x, const hd_block *b, int32_t page)
{
    memset(hd_cache_page_bytes(x->c, page), 0, hd_cache_layer_bytes(x->c));
    return hd_disk_read(d, b->name, b->owner, b->id, page, &err);
}

static void test_files(const char *dir)
{
    uint8_t k[HD_PREFIX_KEY], again[HD_PREFIX_KEY], of_other[HD_PREFIX_KEY];
    kept x = open_kept(16, key);
    hd_disk *d = NULL;
    int32_t page = 0;
    uint64_t bytes;
    int64_t n;
    CHECK_OK(hd_disk_open(&d, dir, 1 << 30, x.c, LAYERS, model, k, &err));
    hd_prefix_close(x.p);
    CHECK_OK(hd_prefix_open(&x.p, x.c, k, &err));
    hd_block *b[6];
    for (int i = 0; i < 6; i++) {
        b[i] = add(&x, i ? b[i - 1] : NULL, 7, i);
        fill(&x, b[i]->page, i);
        CHECK(hd_disk_write(d, b[i]));
        CHECK(hd_cache_page_refs(x.c, b[i]->page) == 2, "held while it waits");
    }
    hd_disk_settle(d);
    CHECK(!hd_disk_busy(d) && hd_cache_page_refs(x.c, b[0]->page) == 1);
    hd_disk_totals(d, &bytes, &n);
    CHECK(n == 6 && bytes == 6 * hd_disk_block_bytes(d));
    CHECK(hd_disk_write(d, b[0]) && hd_cache_page_refs(x.c, b[0]->page) == 1, "what is there is not written again");
    hd_disk_close(d);

    /* Another time: the same key, and the same bytes. */
    char part[800];
    snprintf(part, sizeof part, "%s.part-1-0", file_of(dir, b[0]));
    FILE *f = fopen(part, "w");
    CHECK(f && fclose(f) == 0);
    CHECK_OK(hd_disk_open(&d, dir, 1 << 30, x.c, LAYERS, model, again, &err));
    CHECK(memcmp(k, again, sizeof k) == 0 && access(part, F_OK) != 0, "a half-written file is cleared away");
    CHECK_OK(hd_cache_page_new(x.c, &page, &err));
    for (int i = 0; i < 6; i++) {
        CHECK(hd_disk_has(d, b[i]->name));
        CHECK_OK(read_back(d, &x, b[i], page));
        CHECK(filled(&x, page, i));
    }
    hd_disk_close(d);
    CHECK_OK(hd_disk_open(&d, dir, 1 << 30, x.c, LAYERS, (const uint8_t[32]){8}, of_other, &err));
    CHECK(memcmp(k, of_other, sizeof k) != 0, "another model gives other names");
    hd_disk_close(d);

    /* Damage: every kind is noticed, and the file is gone. */
    CHECK_OK(hd_disk_open(&d, dir, 1 << 30, x.c, LAYERS, model, again, &err));
    struct stat sb;
    CHECK(stat(file_of(dir, b[0]), &sb) == 0 && (sb.st_mode & 07777 & ~0644) == 0);
    const long at[] = {7, 10, 40, 50, 100, 400, (long)sb.st_size - 1};
    for (int i = 0; i < 5; i++) {
        f = fopen(file_of(dir, b[i]), "r+");
        if (!f) abort();
        int c;
        for (size_t v = 0; v < sizeof at / sizeof at[0]; v++) // one byte after the other, so each is seen alone
            if ((int)v % 5 == i) {
                fseek(f, at[v], SEEK_SET);
                c = fgetc(f);
                fseek(f, at[v], SEEK_SET);
                fputc(c ^ 1, f);
            }
        fclose(f);
        CHECK(read_back(d, &x, b[i], page) == HD_FORMAT, "%d", i);
        CHECK(!hd_disk_has(d, b[i]->name) && access(file_of(dir, b[i]), F_OK) != 0);
    }
    CHECK(truncate(file_of(dir, b[5]), sb.st_size - 1) == 0 && read_back(d, &x, b[5], page) == HD_FORMAT && !hd_disk_has(d, b[5]->name));
    fill(&x, b[0]->page, 0);
    CHECK(hd_disk_write(d, b[0]));
    hd_disk_settle(d);
    CHECK(hd_disk_read(d, b[0]->name, 8, b[0]->id, page, &err) == HD_FORMAT, "of another owner");
    hd_disk_totals(d, &bytes, &n);
    CHECK(n == 0 && bytes == 0);
    CHECK(read_back(d, &x, b[0], page) == HD_IO, "nothing there");
    hd_disk_close(d);
    hd_cache_page_drop(x.c, page);
    close_kept(&x);
}

/* Over the cap those go that were not used for longest; the order outlives a restart. */
static void test_cap(const char *dir)
{
    uint8_t k[HD_PREFIX_KEY];
    kept x = open_kept(16, key);
    hd_disk *d = NULL;
    int32_t page = 0;
    uint64_t bytes;
    int64_t n;
    hd_block *b[6];
    CHECK_OK(hd_cache_page_new(x.c, &page, &err));
    CHECK_OK(hd_disk_open(&d, dir, 1 << 30, x.c, LAYERS, model, k, &err));
    uint64_t one = hd_disk_block_bytes(d);
    for (int i = 0; i < 6; i++) {
        b[i] = add(&x, NULL, 7, i);
        CHECK(hd_disk_write(d, b[i]));
        hd_disk_settle(d);
        struct utimbuf t = {.modtime = 1000 + i};
        CHECK(utime(file_of(dir, b[i]), &t) == 0);
    }
    hd_disk_close(d);
    CHECK_OK(hd_disk_open(&d, dir, 4 * one, x.c, LAYERS, model, k, &err));
    CHECK(!hd_disk_has(d, b[0]->name) && !hd_disk_has(d, b[2]->name) && hd_disk_has(d, b[3]->name) && hd_disk_has(d, b[5]->name),
          "the cap holds from the start, with room for one");
    CHECK_OK(read_back(d, &x, b[3], page)); // used
    CHECK(hd_disk_write(d, b[0]) && hd_disk_write(d, b[1]));
    hd_disk_settle(d);
    hd_disk_totals(d, &bytes, &n);
    CHECK(n == 4 && bytes == 4 * one && hd_disk_has(d, b[3]->name) && !hd_disk_has(d, b[4]->name) && hd_disk_has(d, b[5]->name));
    hd_disk_close(d);
    CHECK_OK(hd_disk_open(&d, dir, one - 1, x.c, LAYERS, model, k, &err)); // too small for a single one
    CHECK(hd_disk_write(d, b[4]));
    hd_disk_settle(d);
    hd_disk_totals(d, &bytes, &n);
    CHECK(n == 0 && bytes == 0);
    hd_disk_close(d);
    hd_cache_page_drop(x.c, page);
    close_kept(&x);
}

int main(void)
{
    char dir[2][512];
    build_begin();
    random_ids(id, 64 * 16, 3);
    for (int i = 0; i < 2; i++) snprintf(dir[i], sizeof dir[i], "%s", build_path(i ? "b" : "a"));
    test_find();
    test_evict();
    test_pages();
    test_files(dir[0]);
    test_cap(dir[1]);
    build_end();
    return hd_test_end();
}
