/* The pool: every chunk exactly once for any number of threads, jobs that live on the caller's
 * stack, sleeping and waking, and the cost of a region.  Meant to be run under the thread sanitizer
 * too (make tsan). */
#include "base/pool.h"

#include <stdatomic.h>
#include <unistd.h>

#include "base/log.h"
#include "test.h"

static hd_err err;
enum { MAX_CHUNKS = 66000 }; // more than the pool makes one region of

typedef struct {
    int64_t add; // what this region adds to each cell
    int64_t *cell;
    _Atomic int *per_tid;
    int n_threads;
    _Atomic int bad_tid;
} job;

static void add_chunk(void *arg, int64_t c, int tid)
{
    job *j = arg;
    j->cell[c] += j->add; // no atomics: a chunk that two threads run is a data race
    if (tid < 0 || tid >= j->n_threads) atomic_fetch_add(&j->bad_tid, 1);
    else atomic_fetch_add_explicit(&j->per_tid[tid], 1, memory_order_relaxed);
}

/* The job lives in a frame that is overwritten as soon as the region is over. */
__attribute__((noinline)) static int region(hd_pool *p, int64_t n, int64_t add, int64_t *cell, _Atomic int *per_tid)
{
    job j = {.add = add, .cell = cell, .per_tid = per_tid, .n_threads = hd_pool_threads(p)};
    hd_pool_run(p, n, add_chunk, &j);
    int bad = j.bad_tid;
    memset(&j, 0xee, sizeof j);
    __asm__ volatile("" : : "r"(&j) : "memory"); // the memset stays
    return bad;
}

static void every_chunk_once(int threads)
{
    static int64_t cell[MAX_CHUNKS], want[MAX_CHUNKS];
    static const int64_t counts[] = {0, 1, 2, 3, 4, 7, 16, 17, 100, MAX_CHUNKS};
    _Atomic int per_tid[64] = {0};
    hd_pool *p = NULL;
    CHECK_OK(hd_pool_open(&p, threads, &err));
    CHECK(hd_pool_threads(p) == threads);
    int64_t total = 0;
    int bad_tid = 0;
    memset(cell, 0, sizeof cell);
    memset(want, 0, sizeof want);
    for (int round = 0; round < 300; round++) {
        int64_t n = counts[round % 10];
        if (n == MAX_CHUNKS && round > 10) n = round > 100 ? 33 : 5000;
        bad_tid += region(p, n, round + 1, cell, per_tid);
        for (int64_t c = 0; c < n; c++) want[c] += round + 1;
        total += n;
        if (round % 100 == 99) usleep(2000); // long enough for the workers to fall asleep
    }
    hd_pool_close(p);
    CHECK(memcmp(cell, want, sizeof cell) == 0, "%d threads", threads);
    CHECK(bad_tid == 0);
    for (int t = 0; t < threads; t++) total -= per_tid[t];
    CHECK(total == 0, "%d threads", threads);
}

/* Regions back to back, two chunks each: the tightest race between the end of one job and the
 * start of the next. */
static void back_to_back(int threads, int rounds)
{
    int64_t cell[2] = {0};
    _Atomic int per_tid[64] = {0};
    hd_pool *p = NULL;
    CHECK_OK(hd_pool_open(&p, threads, &err));
    int64_t want = 0;
    int bad = 0;
    for (int i = 0; i < rounds; i++) {
        region(p, 2, i, cell, per_tid);
        want += i;
        bad += cell[0] != want || cell[1] != want; // visible to the caller as soon as run returns
    }
    CHECK(bad == 0, "%d threads, %d of %d regions", threads, bad, rounds);
    hd_pool_close(p);
}

static void slow_chunk(void *arg, int64_t c, int tid)
{
    int64_t *cell = arg;
    if (c == 1) usleep(3000); // whoever has it finishes long after the others
    cell[c]++;
}

static void caller_waits(void)
{
    int64_t cell[8] = {0};
    hd_pool *p = NULL;
    CHECK_OK(hd_pool_open(&p, 3, &err));
    for (int i = 0; i < 20; i++) hd_pool_run(p, 8, slow_chunk, cell);
    int bad = 0;
    for (int c = 0; c < 8; c++) bad += cell[c] != 20;
    CHECK(bad == 0);
    hd_pool_close(p);
}

static void nothing(void *arg, int64_t c, int tid) {}

static void print_cost(void)
{
    hd_pool *p = NULL;
    CHECK_OK(hd_pool_open(&p, 2, &err));
    enum { rounds = 20000 };
    double best = 1;
    for (int k = 0; k < 5; k++) {
        double t = hd_now_s();
        for (int i = 0; i < rounds; i++) hd_pool_run(p, 4, nothing, NULL);
        t = (hd_now_s() - t) / rounds;
        if (t < best) best = t;
    }
    printf("a region of 4 empty chunks on 2 threads: %.0f ns\n", best * 1e9);
    hd_pool_close(p);
}

int main(void)
{
    static const int threads[] = {1, 2, 3, 4, 5, 8, 16, 33};
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++) every_chunk_once(threads[i]);
    back_to_back(2, 50000);
    back_to_back(4, 5000);
    caller_waits();
    for (int i = 0; i < 50; i++) { // opened and closed without a region
        hd_pool *p = NULL;
        CHECK_OK(hd_pool_open(&p, 4, &err));
        hd_pool_close(p);
    }
    hd_pool *p = NULL;
    CHECK_OK(hd_pool_open(&p, 0, &err));
    CHECK(p && hd_pool_threads(p) == hd_cpu_threads());
    hd_pool_close(p);
    hd_pool_close(NULL);
    print_cost();
    return hd_test_end();
}
