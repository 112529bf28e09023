/* Sequences put aside: they come back with the same bits, from memory and from disk; a disk that is full or
 * damaged loses them and says so; memory is bounded; no file outlives its sequence. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/log.h"
#include "serve/park.h"
#include "sessions.h"

enum { TOK = 300, MANY = 6 };
static int32_t id[TOK];
static char dir[512];
static hd_engine *e;

/* How many files there are; the last one's path. */
static int files(char *path, size_t n)
{
    int count = 0;
    DIR *d = opendir(dir);
    for (struct dirent *x; d && (x = readdir(d));) {
        if (x->d_name[0] == '.') continue;
        if (path) snprintf(path, n, "%s/%s", dir, x->d_name);
        count++;
    }
    if (d) closedir(d);
    return count;
}

static bool comes_to(int n)
{
    for (int i = 0; i < 2000 && files(NULL, 0) != n; i++) usleep(5000);
    return files(NULL, 0) == n;
}

static hd_park *open_park(uint64_t most)
{
    hd_park *p = NULL;
    CHECK_OK(hd_park_open(&p, dir, most, e, &err));
    if (!p) exit(hd_test_end());
    return p;
}

static hd_session *computed(int shift)
{
    hd_session *s = open_session(e);
    CHECK_OK(hd_session_sync(s, id + shift, TOK - shift, NULL, &err));
    return s;
}

/* A session of the same ids that has computed none. */
static hd_session *queued(int shift)
{
    hd_session *s = open_session(e);
    CHECK_OK(hd_session_queue(s, id + shift, TOK - shift, &err));
    return s;
}

static bool is_back(hd_park *p, hd_parked *x, int shift)
{
    hd_session *s = queued(shift);
    CHECK_OK(hd_park_restore(p, x, s, &err));
    bool whole = hd_seq_len(s->seq) == TOK - shift && as_fresh(s);
    hd_session_close(s);
    return whole;
}

static hd_parked *put_one(hd_park *p, int shift)
{
    hd_session *s = computed(shift);
    hd_park_news(p);
    hd_parked *x = hd_park_put(p, s);
    CHECK(x != NULL);
    hd_session_close(s);
    return x;
}

static void test_ways(void)
{
    hd_park *p = open_park(1 << 20);
    hd_parked *x = put_one(p, 0);
    CHECK(hd_park_want(p, x, true) == HD_PARKED_HERE && is_back(p, x, 0), "at once: from memory, or from disk when the writer was faster");
    hd_park_drop(p, x);
    CHECK(comes_to(0));
    x = put_one(p, 1);
    CHECK(comes_to(1));
    while (!hd_park_news(p)) usleep(1000); // the copy is gone
    hd_parked_where w = hd_park_want(p, x, false);
    CHECK(w == HD_PARKED_LATER, "%d", (int)w);
    for (int i = 0; i < 2000 && w == HD_PARKED_LATER; i++) {
        while (!hd_park_news(p)) usleep(1000);
        w = hd_park_want(p, x, false);
    }
    CHECK(w == HD_PARKED_HERE && is_back(p, x, 1), "from disk");

    /* Behind what is known already; and where there are no pages nothing has changed. */
    hd_session *s = queued(1), *r = computed(1), *full[3];
    hd_seq_adopt(s->seq, hd_seq_page(r->seq, 0), &err);
    CHECK_OK(hd_park_restore(p, x, s, &err));
    CHECK(hd_seq_page(s->seq, 0) == hd_seq_page(r->seq, 0) && as_fresh(s));
    hd_session_close(s);
    hd_session_close(r);
    for (int i = 0; i < 3; i++) full[i] = computed(i);
    s = queued(1);
    CHECK(hd_park_restore(p, x, s, &err) == HD_LIMIT && hd_seq_len(s->seq) == 0, "%s", err.msg);
    hd_session_close(s);
    for (int i = 0; i < 3; i++) hd_session_close(full[i]);
    hd_park_drop(p, x);
    CHECK(comes_to(0));
    hd_park_close(p);
}

/* More than memory may hold: the one who puts waits; those who are asked for and not taken up make
 * room for others. */
static void test_bound(void)
{
    hd_parked *x[MANY];
    hd_park *p = open_park(1);
    for (int i = 0; i < MANY; i++) x[i] = put_one(p, i);
    for (int i = 0; i < MANY; i++) { // the last one is written when the first is read: no room is left otherwise
        hd_parked *other = i + 2 < MANY ? x[i + 1] : NULL;
        if (other) CHECK(hd_park_want(p, other, false) == HD_PARKED_LATER);
        if (other && i % 2) usleep(20000); // it is here
        CHECK(hd_park_want(p, x[i], true) == HD_PARKED_HERE && is_back(p, x[i], i), "%d", i);
        hd_park_drop(p, x[i]);
    }
    for (int i = 0; i < MANY; i++) hd_park_drop(p, put_one(p, i)); // whatever is being done with it
    hd_park_drop(p, NULL);
    CHECK(comes_to(0));
    hd_park_close(p);
}

static void test_faults(void)
{
    char path[1024] = "";
    struct rlimit full = {4096, 4096}, old;
    hd_park *p = open_park(1 << 20);
    hd_parked *x;
    for (int how = 0; how < 2; how++) { // a byte that differs, a byte too few
        x = put_one(p, 0);
        CHECK(comes_to(1) && files(path, sizeof path) == 1);
        struct stat sb = {0};
        while (!hd_park_news(p)) usleep(1000);
        CHECK(stat(path, &sb) == 0 && (sb.st_mode & 0777) == 0600);
        int fd = open(path, O_RDWR);
        uint8_t b = 0;
        CHECK(fd >= 0 && pread(fd, &b, 1, 1000) == 1);
        b ^= 1;
        CHECK(how == 0 ? pwrite(fd, &b, 1, 1000) == 1 : ftruncate(fd, sb.st_size - 1) == 0);
        close(fd);
        CHECK(hd_park_want(p, x, true) == HD_PARKED_LOST);
        hd_park_drop(p, x);
        CHECK(comes_to(0));
    }
    getrlimit(RLIMIT_FSIZE, &old);
    full.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &full);
    CHECK(comes_to(0));
    x = put_one(p, 0);
    while (!hd_park_news(p)) usleep(1000);
    CHECK(hd_park_want(p, x, true) == HD_PARKED_LOST && files(NULL, 0) == 0, "a full disk");
    setrlimit(RLIMIT_FSIZE, &old);
    hd_park_drop(p, x);
    x = put_one(p, 2); // the next one finds room again
    CHECK(comes_to(1) && hd_park_want(p, x, true) == HD_PARKED_HERE && is_back(p, x, 2));
    hd_park_drop(p, x);
    hd_park_close(p);
    CHECK(files(NULL, 0) == 0, "closing does what was asked for first");
}

/* What a killed program has left is of no use. */
static void test_leftovers(void)
{
    char path[1024];
    int fd;
    snprintf(path, sizeof path, "%s/17.parked", dir);
    CHECK((fd = open(path, O_CREAT | O_WRONLY, 0600)) >= 0 && write(fd, path, 100) == 100);
    close(fd);
    hd_park *p = open_park(1 << 20);
    CHECK(files(NULL, 0) == 0);
    hd_park_close(p);
    CHECK(rmdir(dir) == 0);
    CHECK_OK(hd_park_open(&p, dir, 1 << 20, e, &err)); // without its folder it loses what it is given
    hd_parked *x = put_one(p, 0);
    while (!hd_park_news(p)) usleep(1000);
    CHECK(hd_park_want(p, x, true) == HD_PARKED_LOST);
    hd_park_drop(p, x);
    hd_park_close(p);
}

int main(void)
{
    build_begin();
    random_ids(id, TOK, 8);
    snprintf(dir, sizeof dir, "%s", build_path("parked"));
    CHECK(mkdir(dir, 0700) == 0);
    e = tiny_engine(TINY_V3, 1, 320, 3);
    test_ways();
    test_bound();
    test_faults();
    test_leftovers();
    CHECK(hd_cache_free_tok(e->cache) == (int64_t)hd_cache_n_pages(e->cache) * HD_PAGE_TOK);
    hd_engine_close(e);
    build_end();
    return hd_test_end();
}
