/* Threads that share one parallel region at a time.
 *
 * The state of a region is one 64-bit word, `open`: the region's number in the upper half, in the lower the
 * chunks not yet taken, from one to the one before another.  Threads of even number take the first of these,
 * those of odd number the last: with two threads, each one meets about the same half in every region over the
 * same rows, and finds what it wrote of them in its own cache.  A chunk is taken by a compare-and-swap of the
 * whole word, so that
 *   1. a worker that comes late (it slept, or lost its core) finds no chunk left, or a different number, and
 *      takes nothing: the region never waits for workers that did not join it;
 *   2. a successful swap proves that the job's fields, read just before, belong to the region of that
 *      number: the caller may rewrite them only when `done` says that every chunk of the region is
 *      finished, ours included.
 * Point 2 is why nothing of the job is read after the last chunk: the caller may be setting up the
 * next region by then.
 *
 *      caller                                     worker
 *      write fn, arg, n; done = 0                 spin, then sleep, until open has chunks
 *      open = (number, 0, n)       -- wakes -->   read fn, arg; swap open (number, i, j) -> (number, i, j - 1)
 *      take chunks like a worker                  fn(arg, j - 1, tid), again while there are chunks
 *      spin, then sleep, until done == n   <--    done += chunks run
 *
 * Both sleeps use the same pattern: the sleeper says so, then looks again; the other side acts, then looks
 * for sleepers.  With sequentially consistent operations at least one of them sees the other.
 *
 * Spinning is short (SPIN_S): longer than the gap between two operations of a token step, shorter
 * than a scheduler's time slice, so that an idle chat costs nothing and a busy machine is not
 * slowed by our waiting. */
#include "base/pool.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"

#define SPIN_S 50e-6
#define LINE   64 // words that different threads write do not share a cache line

typedef struct {
    hd_pool *pool;
    int tid;
    pthread_t thread;
} worker;

struct hd_pool {
    _Alignas(LINE) _Atomic uint64_t open;
    _Atomic(hd_pool_fn *) fn; // on the line of `open`: one miss brings a worker the whole job
    _Atomic(void *) arg;
    _Atomic int64_t from, n; // its chunks: from .. from+n-1

    _Alignas(LINE) _Atomic int64_t done;

    _Alignas(LINE) _Atomic int sleepers; // workers asleep or about to be
    _Atomic bool caller_sleeps, stop;

    _Alignas(LINE) pthread_mutex_t lock;
    pthread_cond_t work, finished;
    worker *workers; // threads 1 .. n_threads-1
    int n_threads, n_started;
    bool running;
};

enum { MOST = UINT16_MAX }; // chunks of a region; of more it makes several

static inline uint64_t word_of(uint64_t number, int64_t first, int64_t end) { return number << 32 | (uint64_t)first << 16 | (uint64_t)end; }
static inline int64_t first_of(uint64_t open) { return (uint16_t)(open >> 16); }
static inline int64_t end_of(uint64_t open) { return (uint16_t)open; }
static inline bool chunks_left(uint64_t open) { return first_of(open) < end_of(open); }

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); // waits some tens of cycles; `yield` is a no-op on most cores
#endif
}

/* Takes and runs chunks until none is left; says how many it ran. */
static int64_t run_chunks(hd_pool *p, int tid)
{
    int64_t ran = 0;
    uint64_t open = atomic_load_explicit(&p->open, memory_order_acquire);
    const bool back = tid % 2;
    while (chunks_left(open)) {
        hd_pool_fn *fn = atomic_load_explicit(&p->fn, memory_order_relaxed);
        void *arg = atomic_load_explicit(&p->arg, memory_order_relaxed);
        int64_t from = atomic_load_explicit(&p->from, memory_order_relaxed);
        const uint64_t then = word_of(open >> 32, first_of(open) + !back, end_of(open) - back);
        if (!atomic_compare_exchange_weak_explicit(&p->open, &open, then, memory_order_acq_rel, memory_order_acquire)) continue;
        fn(arg, from + (back ? end_of(then) : first_of(open)), tid);
        ran++;
        open = atomic_load_explicit(&p->open, memory_order_acquire);
    }
    return ran;
}

static bool work_or_stop(hd_pool *p)
{
    return chunks_left(atomic_load(&p->open)) || atomic_load(&p->stop);
}

static bool all_done(hd_pool *p)
{
    return atomic_load(&p->done) == atomic_load_explicit(&p->n, memory_order_relaxed);
}

/* Polls for SPIN_S; true when the condition came true. */
static bool spin(hd_pool *p, bool (*ready)(hd_pool *))
{
    double until = 0;
    for (;;) {
        for (int i = 0; i < 64; i++) { // the clock costs as much as several polls
            if (ready(p)) return true;
            cpu_relax();
        }
        double now = hd_now_s();
        if (until == 0) until = now + SPIN_S;
        else if (now > until) return false;
    }
}

static void *worker_main(void *arg)
{
    worker *w = arg;
    hd_pool *p = w->pool;
    for (;;) {
        if (!spin(p, work_or_stop)) {
            pthread_mutex_lock(&p->lock);
            atomic_fetch_add(&p->sleepers, 1);
            while (!work_or_stop(p)) pthread_cond_wait(&p->work, &p->lock);
            atomic_fetch_sub(&p->sleepers, 1);
            pthread_mutex_unlock(&p->lock);
        }
        if (atomic_load(&p->stop)) return NULL;
        int64_t ran = run_chunks(p, w->tid);
        if (ran > 0) {
            atomic_fetch_add(&p->done, ran);
            /* From here on the region may be over: only the pool's own words are touched. */
            if (atomic_load(&p->caller_sleeps)) {
                pthread_mutex_lock(&p->lock);
                pthread_cond_signal(&p->finished);
                pthread_mutex_unlock(&p->lock);
            }
        }
    }
}

static void wake_workers(hd_pool *p)
{
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
}

static void run_region(hd_pool *p, int64_t from, int64_t n, hd_pool_fn *fn, void *arg)
{
    atomic_store_explicit(&p->fn, fn, memory_order_relaxed);
    atomic_store_explicit(&p->arg, arg, memory_order_relaxed);
    atomic_store_explicit(&p->from, from, memory_order_relaxed);
    atomic_store_explicit(&p->n, n, memory_order_relaxed);
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    uint64_t number = (atomic_load_explicit(&p->open, memory_order_relaxed) >> 32) + 1;
    atomic_store(&p->open, word_of(number, 0, n));
    if (atomic_load(&p->sleepers) > 0) wake_workers(p);

    int64_t ran = run_chunks(p, 0);
    atomic_fetch_add(&p->done, ran);
    if (!spin(p, all_done)) {
        pthread_mutex_lock(&p->lock);
        atomic_store(&p->caller_sleeps, true);
        while (!all_done(p)) pthread_cond_wait(&p->finished, &p->lock);
        atomic_store(&p->caller_sleeps, false);
        pthread_mutex_unlock(&p->lock);
    }
}

void hd_pool_run(hd_pool *p, int64_t n_chunks, hd_pool_fn *fn, void *arg)
{
    if (n_chunks <= 1 || p->n_threads == 1) {
        for (int64_t i = 0; i < n_chunks; i++) fn(arg, i, 0);
        return;
    }
    assert(!p->running);
    p->running = true;
    for (int64_t i = 0; i < n_chunks; i += MOST) run_region(p, i, n_chunks - i < MOST ? n_chunks - i : MOST, fn, arg);
    p->running = false;
}

static hd_status start_workers(hd_pool *p, hd_err *err)
{
    /* Signals belong to the caller's threads: a Ctrl-C handler must not interrupt a kernel half way. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int e = 0;
    while (p->n_started < p->n_threads - 1) {
        worker *w = &p->workers[p->n_started];
        *w = (worker){.pool = p, .tid = p->n_started + 1};
        e = pthread_create(&w->thread, NULL, worker_main, w);
        if (e != 0) break;
        p->n_started++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (e != 0)
        return hd_fail(err, HD_NOMEM, "threads: the system refused thread %d of %d: try fewer with --threads",
                       p->n_started + 2, p->n_threads);
    return HD_OK;
}

hd_status hd_pool_open(hd_pool **out, int n_threads, hd_err *err)
{
    hd_status st;
    hd_pool *p = NULL;
    *out = NULL;
    if (n_threads <= 0) n_threads = hd_cpu_threads();
    HD_TRY(hd_alloc_aligned(&p, sizeof *p, err));
    p->n_threads = n_threads;
    pthread_mutex_init(&p->lock, NULL); // with default attributes none of the three can fail on Linux
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->finished, NULL);
    HD_TRY(hd_alloc_n(&p->workers, (size_t)n_threads, sizeof *p->workers, err));
    HD_TRY(start_workers(p, err));
    *out = p;
    return HD_OK;
fail:
    hd_pool_close(p);
    return st;
}

void hd_pool_close(hd_pool *p)
{
    if (!p) return;
    atomic_store(&p->stop, true);
    wake_workers(p);
    for (int i = 0; i < p->n_started; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->finished);
    free(p->workers);
    hd_free_aligned(p, sizeof *p);
}

int hd_pool_threads(const hd_pool *p) { return p->n_threads; }
