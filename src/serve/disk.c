/* One file a block, in a folder of their own:
 *
 *   key                        32 random bytes: without them the names say nothing about the texts
 *   NAME.kv                    NAME: the block's name in hex, a keyed hash of all ids from the beginning
 *
 *   "HDBLOCK" 1                8 bytes, the last is the version
 *   fingerprint                32 bytes: of the model, as in session files
 *   owner, bytes               u64 each: whose block; bytes of the page
 *   name                       20 bytes, 4 of zeros
 *   ids                        64 x i32
 *   page                       layer after layer
 *   checksum                   32 bytes: BLAKE2b of all that stands before
 *
 * A file is written beside its name and renamed, by one thread that nobody waits for.  The page that it
 * writes is held by
 * reference: nobody writes a page that is held, so it needs no copy and no lock.  What is found in the
 * folder at the start is believed by name and size alone; what is read is checked to the last byte.  When
 * the files grow over the cap those go first that were not used for longest, by the time of their last
 * change, which reading sets. */
#include "serve/disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

enum { MAX_WRITES = 32, N_BUCKETS = 4096, HEX = 2 * HD_BLOCK_NAME, HASH = 32 };

typedef struct {
    char magic[8];
    uint8_t model[HASH];
    uint64_t owner, bytes;
    uint8_t name[HD_BLOCK_NAME + 4];
    int32_t id[HD_PAGE_TOK];
} head;
_Static_assert(sizeof(head) == 80 + 256, "no holes");

static const char MAGIC[8] = {'H', 'D', 'B', 'L', 'O', 'C', 'K', 1};

typedef struct entry {
    struct entry *next_in_bucket, *newer, *older;
    uint8_t name[HD_BLOCK_NAME];
    uint64_t bytes;
} entry;

typedef struct {
    head h;
    int32_t page;
} job;

struct hd_disk {
    char *dir;
    hd_cache *c;
    size_t page_bytes;
    uint8_t model[HASH];
    uint64_t max_bytes;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock; // guards what follows
    pthread_cond_t more, less;
    job wait[MAX_WRITES];
    int first, n_wait; // a ring; the first is being written when `writing`
    bool writing, closing;
    int32_t done[MAX_WRITES]; // pages to let go of
    int n_done;
    entry *bucket[N_BUCKETS], *newest, *oldest;
    uint64_t bytes;
    int64_t n;
};

/* ---- The index ---- */

static entry **bucket_of(hd_disk *d, const uint8_t *name)
{
    return &d->bucket[(name[0] | name[1] << 8) & (N_BUCKETS - 1)];
}

static entry *find(hd_disk *d, const uint8_t *name)
{
    entry *x = *bucket_of(d, name);
    while (x && memcmp(x->name, name, HD_BLOCK_NAME) != 0) x = x->next_in_bucket;
    return x;
}

static void unlink_entry(hd_disk *d, entry *x)
{
    *(x->newer ? &x->newer->older : &d->newest) = x->older;
    *(x->older ? &x->older->newer : &d->oldest) = x->newer;
}

static void link_newest(hd_disk *d, entry *x)
{
    x->newer = NULL;
    x->older = d->newest;
    *(d->newest ? &d->newest->newer : &d->oldest) = x;
    d->newest = x;
}

static void index_add(hd_disk *d, const uint8_t *name, uint64_t bytes)
{
    entry *x = find(d, name);
    if (x || hd_alloc(&x, sizeof *x, NULL) != HD_OK) return; // not known: the file is found at the next start
    memcpy(x->name, name, HD_BLOCK_NAME);
    x->bytes = bytes;
    entry **at = bucket_of(d, name);
    x->next_in_bucket = *at;
    *at = x;
    link_newest(d, x);
    d->bytes += bytes;
    d->n++;
}

static void index_remove(hd_disk *d, entry *x)
{
    entry **at = bucket_of(d, x->name);
    while (*at != x) at = &(*at)->next_in_bucket;
    *at = x->next_in_bucket;
    unlink_entry(d, x);
    d->bytes -= x->bytes;
    d->n--;
    free(x);
}

/* ---- Files ---- */

static char *path_of(const hd_disk *d, const uint8_t *name)
{
    char hex[HEX + 1], *path = NULL;
    sodium_bin2hex(hex, sizeof hex, name, HD_BLOCK_NAME);
    return asprintf(&path, "%s/%s.kv", d->dir, hex) < 0 ? NULL : path;
}

static uint64_t file_bytes(const hd_disk *d) { return sizeof(head) + d->page_bytes + HASH; }
uint64_t hd_disk_block_bytes(const hd_disk *d) { return file_bytes(d); }

/* Under the lock: make room for one more file. */
static void make_room(hd_disk *d)
{
    while (d->oldest && d->bytes + file_bytes(d) > d->max_bytes) {
        char *path = path_of(d, d->oldest->name);
        if (path) (void)!unlink(path);
        free(path);
        index_remove(d, d->oldest);
    }
}

static hd_status write_file(hd_disk *d, const job *w, hd_err *err)
{
    hd_status st;
    hd_newfile f = {.fd = -1};
    crypto_generichash_state sum;
    uint8_t hash[HASH];
    const uint8_t *page = hd_cache_page_bytes(d->c, w->page);
    char *path = path_of(d, w->h.name);
    if (!path) return hd_fail(err, HD_NOMEM, "cache: no memory for a file's name");
    crypto_generichash_init(&sum, NULL, 0, HASH);
    crypto_generichash_update(&sum, (const uint8_t *)&w->h, sizeof w->h);
    crypto_generichash_update(&sum, page, d->page_bytes);
    crypto_generichash_final(&sum, hash, HASH);
    HD_TRY(hd_newfile_begin(&f, path, err));
    HD_TRY(hd_newfile_write(&f, &w->h, sizeof w->h, err));
    HD_TRY(hd_newfile_write(&f, page, d->page_bytes, err));
    HD_TRY(hd_newfile_write(&f, hash, HASH, err));
    HD_TRY(hd_newfile_commit(&f, err));
fail:
    hd_newfile_abort(&f);
    free(path);
    return st;
}

static void *write_all(void *arg)
{
    hd_disk *d = arg;
    pthread_mutex_lock(&d->lock);
    for (;;) {
        while (!d->closing && d->n_wait == 0) pthread_cond_wait(&d->more, &d->lock);
        if (d->closing) break;
        job w = d->wait[d->first];
        bool fits = file_bytes(d) <= d->max_bytes, good = false;
        if (fits) make_room(d);
        d->writing = true;
        pthread_mutex_unlock(&d->lock);
        if (fits) good = write_file(d, &w, NULL) == HD_OK; // a full disk: the block is computed again some day
        pthread_mutex_lock(&d->lock);
        if (good) index_add(d, w.h.name, file_bytes(d));
        d->writing = false;
        d->first = (d->first + 1) % MAX_WRITES;
        d->n_wait--;
        d->done[d->n_done++] = w.page;
        pthread_cond_broadcast(&d->less);
    }
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/* ---- Opening ---- */

typedef struct {
    uint8_t name[HD_BLOCK_NAME];
    uint64_t bytes;
    struct timespec used;
} found;

static int by_use(const void *pa, const void *pb)
{
    const found *a = pa, *b = pb;
    if (a->used.tv_sec != b->used.tv_sec) return a->used.tv_sec < b->used.tv_sec ? -1 : 1;
    if (a->used.tv_nsec != b->used.tv_nsec) return a->used.tv_nsec < b->used.tv_nsec ? -1 : 1;
    return memcmp(a->name, b->name, sizeof a->name);
}

/* Is it one of ours?  `part`: what a crash has left half written. */
static bool is_block(const char *file, uint8_t name[HD_BLOCK_NAME], bool *part)
{
    const char *end = NULL;
    size_t n = 0;
    if (sodium_hex2bin(name, HD_BLOCK_NAME, file, strnlen(file, HEX), NULL, &n, &end) != 0 || n != HD_BLOCK_NAME) return false;
    *part = strncmp(file + HEX, ".kv.part-", 9) == 0;
    return *part || strcmp(file + HEX, ".kv") == 0;
}

static hd_status scan(hd_disk *d, hd_err *err)
{
    hd_status st = HD_OK;
    found *all = NULL;
    size_t n = 0, cap = 0;
    DIR *dir = opendir(d->dir);
    if (!dir) return hd_fail_errno(err, "cache: %.200s", d->dir);
    for (struct dirent *x; (x = readdir(dir));) {
        found f;
        struct stat sb;
        bool part;
        if (!is_block(x->d_name, f.name, &part)) continue;
        if (part) {
            (void)!unlinkat(dirfd(dir), x->d_name, 0);
            continue;
        }
        if (fstatat(dirfd(dir), x->d_name, &sb, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(sb.st_mode)) continue;
        if (n == cap) {
            cap = cap ? 2 * cap : 256;
            HD_TRY(hd_realloc(&all, cap * sizeof *all, err));
        }
        f.bytes = (uint64_t)sb.st_size;
        f.used = sb.st_mtim;
        all[n++] = f;
    }
    if (n) qsort(all, n, sizeof *all, by_use);
    for (size_t i = 0; i < n; i++) index_add(d, all[i].name, all[i].bytes);
    make_room(d);
fail:
    closedir(dir);
    free(all);
    return st;
}

/* The folder's secret: made once. */
static hd_status read_key(hd_disk *d, uint8_t key[HD_PREFIX_KEY], hd_err *err)
{
    hd_status st = HD_OK;
    hd_buf b;
    char *path = NULL;
    hd_newfile f = {.fd = -1};
    hd_buf_init(&b, HD_PREFIX_KEY);
    if (asprintf(&path, "%s/key", d->dir) < 0) return hd_fail(err, HD_NOMEM, "cache: no memory for a file's name");
    if (hd_is_file(path) && hd_file_read(&b, path, NULL) == HD_OK && b.len == HD_PREFIX_KEY) {
        memcpy(key, b.data, HD_PREFIX_KEY);
        goto fail;
    }
    randombytes_buf(key, HD_PREFIX_KEY);
    HD_TRY(hd_newfile_begin(&f, path, err));
    HD_TRY(hd_newfile_write(&f, key, HD_PREFIX_KEY, err));
    HD_TRY(hd_newfile_commit(&f, err));
fail:
    hd_newfile_abort(&f);
    hd_buf_free(&b);
    free(path);
    return st;
}

hd_status hd_disk_open(hd_disk **out, const char *dir, uint64_t max_bytes, hd_cache *c, int n_layers, const uint8_t model[32],
                       uint8_t key[HD_PREFIX_KEY], hd_err *err)
{
    hd_status st;
    hd_disk *d = NULL;
    uint8_t secret[HD_PREFIX_KEY];
    *out = NULL;
    HD_TRY(hd_alloc(&d, sizeof *d, err));
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->more, NULL);
    pthread_cond_init(&d->less, NULL);
    d->c = c;
    d->page_bytes = hd_cache_layer_bytes(c) * (size_t)n_layers;
    d->max_bytes = max_bytes;
    memcpy(d->model, model, HASH);
    HD_TRY(hd_strdup(&d->dir, dir, err));
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
        st = hd_fail_errno(err, "cache: %.200s", dir);
        goto fail;
    }
    HD_TRY(read_key(d, secret, err));
    crypto_generichash(key, HD_PREFIX_KEY, d->model, HASH, secret, sizeof secret); // two models' blocks have different names
    HD_TRY(scan(d, err));
    if (pthread_create(&d->thread, NULL, write_all, d) != 0) {
        st = hd_fail(err, HD_IO, "cache: the system refuses a thread");
        goto fail;
    }
    d->started = true;
    *out = d;
    return HD_OK;
fail:
    hd_disk_close(d);
    return st;
}

void hd_disk_close(hd_disk *d)
{
    if (!d) return;
    pthread_mutex_lock(&d->lock);
    d->closing = true;
    pthread_cond_signal(&d->more);
    pthread_mutex_unlock(&d->lock);
    if (d->started) pthread_join(d->thread, NULL);
    hd_disk_reap(d);
    for (int i = 0; i < d->n_wait; i++) hd_cache_page_drop(d->c, d->wait[(d->first + i) % MAX_WRITES].page);
    while (d->newest) index_remove(d, d->newest);
    pthread_cond_destroy(&d->less);
    pthread_cond_destroy(&d->more);
    pthread_mutex_destroy(&d->lock);
    free(d->dir);
    free(d);
}

/* ---- Reading ---- */

bool hd_disk_has(hd_disk *d, const uint8_t name[HD_BLOCK_NAME])
{
    pthread_mutex_lock(&d->lock);
    bool has = find(d, name) != NULL;
    pthread_mutex_unlock(&d->lock);
    return has;
}

static head head_of(const hd_disk *d, const uint8_t *name, uint64_t owner, const int32_t *id)
{
    head h = {.owner = owner, .bytes = d->page_bytes};
    memcpy(h.magic, MAGIC, sizeof MAGIC);
    memcpy(h.model, d->model, HASH);
    memcpy(h.name, name, HD_BLOCK_NAME);
    memcpy(h.id, id, sizeof h.id);
    return h;
}

static hd_status check(const hd_disk *d, const hd_map *m, const head *want, hd_err *err)
{
    uint8_t hash[HASH];
    if (m->size != file_bytes(d)) return hd_fail(err, HD_FORMAT, "cache: a block of %zu bytes: cut short or of another model", m->size);
    if (memcmp(m->data, want, sizeof *want) != 0) return hd_fail(err, HD_FORMAT, "cache: a block of another version, model or text");
    crypto_generichash(hash, HASH, m->data, m->size - HASH, NULL, 0);
    if (memcmp(hash, m->data + m->size - HASH, HASH) != 0) return hd_fail(err, HD_FORMAT, "cache: a block whose checksum differs");
    return HD_OK;
}

hd_status hd_disk_read(hd_disk *d, const uint8_t name[HD_BLOCK_NAME], uint64_t owner, const int32_t *id, int32_t page,
                       hd_err *err)
{
    hd_status st;
    hd_map m = {0};
    head want = head_of(d, name, owner, id);
    char *path = path_of(d, name);
    if (!path) return hd_fail(err, HD_NOMEM, "cache: no memory for a file's name");
    HD_TRY(hd_map_open(&m, path, err));
    HD_TRY(check(d, &m, &want, err));
    memcpy(hd_cache_page_bytes(d->c, page), m.data + sizeof want, d->page_bytes);
    (void)!utimensat(AT_FDCWD, path, NULL, 0);
fail:
    hd_map_close(&m);
    pthread_mutex_lock(&d->lock);
    entry *x = find(d, name);
    if (x && st == HD_OK) {
        unlink_entry(d, x);
        link_newest(d, x);
    } else if (x) {
        (void)!unlink(path);
        index_remove(d, x);
    }
    pthread_mutex_unlock(&d->lock);
    free(path);
    return st;
}

/* ---- Writing ---- */

bool hd_disk_write(hd_disk *d, const hd_block *b)
{
    pthread_mutex_lock(&d->lock);
    bool room = d->n_wait + d->n_done < MAX_WRITES, known = find(d, b->name) != NULL;
    if (room && !known) {
        job *w = &d->wait[(d->first + d->n_wait++) % MAX_WRITES];
        w->h = head_of(d, b->name, b->owner, b->id);
        w->page = b->page;
        hd_cache_page_keep(d->c, b->page);
        pthread_cond_signal(&d->more);
    }
    pthread_mutex_unlock(&d->lock);
    return room || known;
}

void hd_disk_reap(hd_disk *d)
{
    pthread_mutex_lock(&d->lock);
    while (d->n_done > 0) hd_cache_page_drop(d->c, d->done[--d->n_done]);
    pthread_mutex_unlock(&d->lock);
}

bool hd_disk_busy(hd_disk *d)
{
    pthread_mutex_lock(&d->lock);
    bool busy = d->n_wait > 0;
    pthread_mutex_unlock(&d->lock);
    return busy;
}

void hd_disk_wait(hd_disk *d)
{
    pthread_mutex_lock(&d->lock);
    while (d->n_wait > 0 && d->n_done == 0) pthread_cond_wait(&d->less, &d->lock);
    pthread_mutex_unlock(&d->lock);
    hd_disk_reap(d);
}

void hd_disk_settle(hd_disk *d)
{
    pthread_mutex_lock(&d->lock);
    while (d->n_wait > 0) pthread_cond_wait(&d->less, &d->lock);
    pthread_mutex_unlock(&d->lock);
    hd_disk_reap(d);
}

void hd_disk_totals(hd_disk *d, uint64_t *bytes, int64_t *blocks)
{
    pthread_mutex_lock(&d->lock);
    *bytes = d->bytes;
    *blocks = d->n;
    pthread_mutex_unlock(&d->lock);
}
