/* Parking takes a copy in memory, which is quick, and leaves what is slow to a thread:
 *
 *            put                                         want
 *   session ------> WAITS --> WRITING --> ON DISK ---------------> READ ASKED --> READING --> HERE
 *                     |          |   \-- disk full --> LOST            \-- altered --> LOST
 *                     +----------+------- want: the copy is still there, and serves as it is
 *
 * The copy is freed when it is written; so memory holds at most what the disk has not taken yet and what was
 * asked for.  A file is the pages as they stand in the cache and a checksum (BLAKE2b) behind them; it serves
 * this process alone, so it is written without fsync and has no head: what was parked when a program ended is
 * of no use to the next one.
 *
 * States change under the lock.  Bytes are written before the lock is given back and only read afterwards, so
 * that the thread may write a copy while the scheduler takes it up again.  What is dropped in the thread's
 * hands is freed by the thread. */
#include "serve/park.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"

enum { HASH = 32 };

typedef enum { WAITS, WRITING, ON_DISK, READ_ASKED, READING, HERE, LOST, GONE } state;

struct hd_parked {
    hd_parked *next; // while the thread is to do something with it
    state state;
    bool has_file, wanted, dropped; // wanted: its bytes stay until it is dropped
    int64_t number, n_done; // of the file; positions that are computed
    uint8_t *bytes;         // NULL: on disk alone
    size_t n_bytes;
};

struct hd_park {
    char *dir;
    hd_engine *e;
    size_t page_bytes;
    uint64_t most_bytes;
    int64_t n_put;
    pthread_t thread;
    bool started;

    pthread_mutex_t lock; // guards what follows
    pthread_cond_t more, done;
    hd_parked *first, **last;
    hd_parked *reading; // asked for, being read or here; one at a time
    uint64_t held;      // bytes in memory
    bool closing, news, warned;
};

/* ---- Under the lock ---- */

static void ask(hd_park *p, hd_parked *x, state to)
{
    x->state = to;
    x->next = NULL;
    *p->last = x;
    p->last = &x->next;
    pthread_cond_signal(&p->more);
}

static void unask(hd_park *p, const hd_parked *x)
{
    hd_parked **at = &p->first;
    while (*at != x) at = &(*at)->next;
    *at = x->next;
    if (!*at) p->last = at;
}

static void let_go(hd_park *p, hd_parked *x)
{
    if (x->bytes) p->held -= x->n_bytes;
    hd_free_aligned(x->bytes, x->n_bytes);
    x->bytes = NULL;
    p->news = true; // somebody may have waited for the room
    pthread_cond_broadcast(&p->done);
}

static char *path_of(const hd_park *p, const hd_parked *x)
{
    char *path = NULL;
    return asprintf(&path, "%s/%lld.parked", p->dir, (long long)x->number) < 0 ? NULL : path;
}

/* ---- The thread ---- */

static hd_status put_all(int fd, const void *bytes, size_t n, const char *path, hd_err *err)
{
    for (const uint8_t *from = bytes; n > 0;) {
        ssize_t k = write(fd, from, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return hd_fail_errno(err, "parking: %.200s", path);
        from += k;
        n -= (size_t)k;
    }
    return HD_OK;
}

static hd_status write_file(const char *path, const uint8_t *bytes, size_t n, hd_err *err)
{
    hd_status st;
    uint8_t hash[HASH];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return hd_fail_errno(err, "parking: %.200s", path);
    crypto_generichash(hash, HASH, bytes, n, NULL, 0);
    HD_TRY(put_all(fd, bytes, n, path, err));
    HD_TRY(put_all(fd, hash, HASH, path, err));
fail:
    if (close(fd) != 0 && st == HD_OK) st = hd_fail_errno(err, "parking: %.200s", path);
    if (st != HD_OK) (void)!unlink(path);
    return st;
}

static hd_status read_file(const char *path, uint8_t *bytes, size_t n, hd_err *err)
{
    hd_status st;
    hd_map m = {0};
    uint8_t hash[HASH];
    HD_TRY(hd_map_open(&m, path, err));
    if (m.size != n + HASH) HD_TRY(hd_fail(err, HD_FORMAT, "parking: %.200s: cut short", path));
    memcpy(bytes, m.data, n);
    crypto_generichash(hash, HASH, bytes, n, NULL, 0);
    if (memcmp(hash, m.data + n, HASH) != 0) HD_TRY(hd_fail(err, HD_FORMAT, "parking: %.200s: altered", path));
fail:
    hd_map_close(&m);
    return st;
}

static hd_status move_bytes(hd_park *p, hd_parked *x, bool writing, hd_err *err)
{
    char *path = path_of(p, x);
    hd_status st = !path     ? hd_fail(err, HD_NOMEM, "parking: no memory for a file's name")
                   : writing ? write_file(path, x->bytes, x->n_bytes, err)
                             : read_file(path, x->bytes, x->n_bytes, err);
    free(path);
    return st;
}

/* With the lock, which is given back meanwhile. */
static void write_or_read(hd_park *p, hd_parked *x)
{
    hd_err err;
    bool writing = x->state == WAITS;
    x->state = writing ? WRITING : READING;
    pthread_mutex_unlock(&p->lock);
    hd_status st = move_bytes(p, x, writing, &err);
    pthread_mutex_lock(&p->lock);
    if (writing) x->has_file = st == HD_OK;
    if (!writing && (st != HD_OK || x->dropped)) p->reading = NULL;
    if (st != HD_OK && !p->warned) hd_warn("%s: what was put aside is computed again", err.msg);
    p->warned = p->warned || st != HD_OK; // once: a full disk would say so all day
    x->state = st != HD_OK ? LOST : writing ? ON_DISK : HERE;
    if (x->state != HERE && !x->wanted) let_go(p, x);
    p->news = true;
    pthread_cond_broadcast(&p->done);
}

static void forget(hd_park *p, hd_parked *x)
{
    char *path = x->has_file ? path_of(p, x) : NULL;
    let_go(p, x);
    pthread_mutex_unlock(&p->lock);
    if (path) (void)!unlink(path);
    free(path);
    free(x);
    pthread_mutex_lock(&p->lock);
}

static void *run(void *arg)
{
    hd_park *p = arg;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->first && !p->closing) pthread_cond_wait(&p->more, &p->lock);
        hd_parked *x = p->first;
        if (!x) break;
        unask(p, x);
        if (x->state != GONE) write_or_read(p, x);
        if (x->state == GONE || x->dropped) forget(p, x);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* ---- Opening ---- */

static void forget_files(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *x; d && (x = readdir(d));) {
        size_t digits = strspn(x->d_name, "0123456789");
        if (digits > 0 && strcmp(x->d_name + digits, ".parked") == 0) (void)!unlinkat(dirfd(d), x->d_name, 0);
    }
    if (d) closedir(d);
}

hd_status hd_park_open(hd_park **out, const char *dir, uint64_t most_bytes, hd_engine *e, hd_err *err)
{
    hd_status st;
    hd_park *p = NULL;
    *out = NULL;
    HD_TRY(hd_alloc(&p, sizeof *p, err));
    p->e = e;
    p->page_bytes = hd_cache_layer_bytes(e->cache) * (size_t)hd_model_config(e->model)->n_layers;
    p->most_bytes = most_bytes;
    p->last = &p->first;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->more, NULL);
    pthread_cond_init(&p->done, NULL);
    HD_TRY(hd_strdup(&p->dir, dir, err));
    forget_files(dir);
    if (pthread_create(&p->thread, NULL, run, p) != 0)
        HD_TRY(hd_fail(err, HD_IO, "parking: the system refuses a thread"));
    p->started = true;
    *out = p;
    return HD_OK;
fail:
    hd_park_close(p);
    return st;
}

void hd_park_close(hd_park *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    pthread_cond_signal(&p->more);
    pthread_mutex_unlock(&p->lock);
    if (p->started) pthread_join(p->thread, NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->more);
    pthread_mutex_destroy(&p->lock);
    free(p->dir);
    free(p);
}

/* ---- The scheduler's side ---- */

static int64_t pages_of(int64_t n_tok) { return (n_tok + HD_PAGE_TOK - 1) / HD_PAGE_TOK; }

/* Under the lock: bytes for x, when all that is in memory may have so many more.  Alone it may be
 * as large as it is. */
static bool take_room(hd_park *p, hd_parked *x)
{
    if (p->held > 0 && p->held + x->n_bytes > p->most_bytes) return false;
    if (hd_alloc_aligned(&x->bytes, x->n_bytes, NULL) == HD_OK) p->held += x->n_bytes;
    return true;
}

/* Under the lock: what was read and is not wanted at once can be read again. */
static bool unload(hd_park *p)
{
    hd_parked *x = p->reading;
    if (!x || x->state != HERE) return false;
    x->state = ON_DISK;
    p->reading = NULL;
    let_go(p, x);
    return true;
}

hd_parked *hd_park_put(hd_park *p, hd_session *s)
{
    hd_parked *x;
    if (hd_alloc(&x, sizeof *x, NULL) != HD_OK) return NULL;
    hd_session_settle(s);
    x->number = p->n_put++;
    x->n_done = hd_seq_len(s->seq);
    x->n_bytes = (size_t)pages_of(x->n_done) * p->page_bytes;
    pthread_mutex_lock(&p->lock);
    while (!take_room(p, x))
        if (!unload(p)) pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
    if (!x->bytes) {
        free(x);
        return NULL;
    }
    for (int64_t i = 0; i < pages_of(x->n_done); i++)
        memcpy(x->bytes + (size_t)i * p->page_bytes, hd_seq_pages(s->seq, 0)[i], p->page_bytes);
    pthread_mutex_lock(&p->lock);
    ask(p, x, WAITS);
    pthread_mutex_unlock(&p->lock);
    return x;
}

/* Under the lock: have it read, when nothing else is and there is room. */
static void begin_reading(hd_park *p, hd_parked *x)
{
    unload(p);
    if (p->reading || !take_room(p, x)) return;
    if (!x->bytes) {
        x->state = LOST;
        return;
    }
    p->reading = x;
    ask(p, x, READ_ASKED);
}

hd_parked_where hd_park_want(hd_park *p, hd_parked *x, bool wait)
{
    hd_parked_where where = HD_PARKED_LATER;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        bool reads = x->state == READ_ASKED || x->state == READING;
        if (x->bytes && !reads) {
            x->wanted = true;
            where = HD_PARKED_HERE;
        } else if (x->state == ON_DISK) begin_reading(p, x);
        if (x->state == LOST && !x->bytes) where = HD_PARKED_LOST;
        if (where != HD_PARKED_LATER || !wait) break;
        pthread_cond_wait(&p->done, &p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return where;
}

bool hd_park_news(hd_park *p)
{
    pthread_mutex_lock(&p->lock);
    bool news = p->news;
    p->news = false;
    pthread_mutex_unlock(&p->lock);
    return news;
}

hd_status hd_park_restore(hd_park *p, const hd_parked *x, hd_session *s, hd_err *err)
{
    int64_t from = hd_seq_len(s->seq) / HD_PAGE_TOK, len = hd_seq_len(s->seq);
    assert(x->bytes && len % HD_PAGE_TOK == 0);
    if (len >= x->n_done) return HD_OK;
    hd_status st = hd_seq_reserve(s->seq, x->n_done - len, err);
    if (st != HD_OK) return st;
    for (int64_t i = from; i < pages_of(x->n_done); i++)
        memcpy(hd_seq_pages(s->seq, 0)[i], x->bytes + (size_t)i * p->page_bytes, p->page_bytes);
    hd_seq_advance(s->seq, x->n_done - len);
    return HD_OK;
}

void hd_park_drop(hd_park *p, hd_parked *x)
{
    if (!x) return;
    pthread_mutex_lock(&p->lock);
    if (x->state == WRITING || x->state == READING) x->dropped = true;
    else {
        if (x->state == WAITS || x->state == READ_ASKED) unask(p, x);
        if (p->reading == x) p->reading = NULL;
        ask(p, x, GONE);
    }
    pthread_mutex_unlock(&p->lock);
}
