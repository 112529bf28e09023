/* The scheduler's speed: jobs of random prompts, all at once, of one user; beside `hadal bench -b`.
 *
 *   bench_sched MODEL [JOBS [PROMPT_TOK [GEN_TOK [SHARED_TOK [SESSIONS [DIR]]]]]]       16 128 64 0
 *
 * SESSIONS: so many jobs have room in the cache; with fewer than JOBS some are parked, in DIR.  A silence is
 * the time from one job's word to the next job's: how long nobody hears anything. */
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/rng.h"
#include "serve/sched.h"

typedef struct {
    double t_first, t_last, gap_most;
    int64_t gen, cached;
    bool done;
    double *t_any, *silence; // of all jobs: the last word, and the longest time without one
} talk;

static sem_t woken;
static void wake(void *arg) { sem_post(&woken); }

static void hear(void *arg, const hd_job_event *e)
{
    talk *t = arg;
    double now = hd_now_s();
    if (e->n_token > 0) {
        if (t->t_first == 0) t->t_first = now;
        else if (now - t->t_last > t->gap_most) t->gap_most = now - t->t_last;
        t->t_last = now;
        if (*t->t_any > 0 && now - *t->t_any > *t->silence) *t->silence = now - *t->t_any;
        *t->t_any = now;
    }
    if (e->kind == HD_JOB_ERROR) fprintf(stderr, "%s\n", e->err->msg);
    t->done = t->done || e->kind == HD_JOB_DONE || e->kind == HD_JOB_ERROR;
    t->gen = e->gen_tok;
    t->cached = e->cached_tok;
}

static hd_status round_of(hd_sched *s, hd_engine *e, int jobs, int64_t prompt, int64_t gen, int64_t shared, uint64_t seed,
                          hd_err *err)
{
    hd_status st = HD_OK;
    talk *t = calloc((size_t)jobs, sizeof *t);
    hd_job **job = calloc((size_t)jobs, sizeof *job);
    double t0 = hd_now_s(), first = 0, all_first = 0, gap = 0, last_first = 0, t_any = 0, silence = 0;
    hd_sched_stats before, after;
    int64_t made = 0, cached = 0;
    hd_bias no_end[64];
    int n_bias = 0;
    for (int32_t id = 0; id < hd_engine_n_vocab(e) && n_bias < 64; id++)
        if (hd_engine_is_stop(e, id)) no_end[n_bias++] = (hd_bias){id, -1e9f};
    hd_sched_get_stats(s, &before);
    for (int i = 0; i < jobs; i++) {
        hd_rng r;
        t[i].t_any = &t_any;
        t[i].silence = &silence;
        hd_job_opts o = {.user = 1, .max_tok = gen, .event = hear, .arg = &t[i]};
        hd_engine_sampling(e, &o.sample);
        o.sample.seed = seed + (uint64_t)i;
        o.sample.bias = no_end;
        o.sample.n_bias = n_bias;
        for (int64_t k = 0; k < prompt; k++) {
            if (k == 0 || k == shared) hd_rng_seed(&r, k < shared ? seed : seed * 1000 + (uint64_t)i, 5);
            hd_ids_add(&o.prompt, (int32_t)(hd_rng_unit(&r) * (double)hd_engine_n_vocab(e)), NULL);
        }
        st = hd_sched_submit(s, &job[i], &o, NULL, err);
        if (st != HD_OK) goto end;
    }
    for (int left = jobs; left > 0;) {
        sem_wait(&woken);
        hd_sched_poll(s);
        left = 0;
        for (int i = 0; i < jobs; i++) left += !t[i].done;
    }
    double end = hd_now_s();
    hd_sched_get_stats(s, &after);
    for (int i = 0; i < jobs; i++) {
        made += t[i].gen;
        cached += t[i].cached;
        all_first += (t[i].t_first - t0) / jobs;
        if (first == 0 || t[i].t_first - t0 < first) first = t[i].t_first - t0;
        if (t[i].t_first - t0 > last_first) last_first = t[i].t_first - t0;
        if (t[i].gap_most > gap) gap = t[i].gap_most;
    }
    printf("%3d jobs: %7.1f tok/s in all, %7.1f once all speak; first id %.3f s (mean %.3f, last %.3f); longest gap %.3f s, silence %.3f s; "
           "%lld parkings; %lld of %lld prompt ids cached\n",
           jobs, (double)made / (end - t0), (double)(made - jobs) / (end - t0 - last_first), first, all_first, last_first, gap, silence,
           (long long)(after.parkings - before.parkings), (long long)cached, (long long)(prompt * jobs));
end:
    for (int i = 0; i < jobs; i++) hd_job_free(job[i]);
    free(job);
    free(t);
    return st;
}

int main(int argc, char **argv)
{
    hd_err err = {0};
    hd_engine *e = NULL;
    hd_sched *s = NULL;
    int jobs = argc > 2 ? atoi(argv[2]) : 16;
    int64_t prompt = argc > 3 ? atoi(argv[3]) : 128, gen = argc > 4 ? atoi(argv[4]) : 64, shared = argc > 5 ? atoi(argv[5]) : 0;
    int room = argc > 6 ? atoi(argv[6]) : jobs * 2;
    if (argc < 2 || jobs < 1 || prompt < 1 || gen < 1 || room < 1)
        return fprintf(stderr, "bench_sched MODEL [JOBS [PROMPT [GEN [SHARED [SESSIONS [DIR]]]]]]\n"), 2;
    hd_engine_opts eo = {.ctx_tok = prompt + gen + 1, .n_sessions = room};
    sem_init(&woken, 0, 0);
    hd_status st = hd_engine_open(&e, argv[1], &eo, &err);
    hd_sched_opts so = {.wake = wake, .park_dir = argc > 7 ? argv[7] : NULL};
    if (st == HD_OK) st = hd_sched_open(&s, e, &so, &err);
    for (uint64_t i = 0; i < 3 && st == HD_OK; i++) st = round_of(s, e, jobs, prompt, gen, shared, 1 + i, &err);
    if (st != HD_OK) fprintf(stderr, "bench_sched: %s\n", err.msg);
    hd_sched_close(s);
    hd_engine_close(e);
    return st != HD_OK;
}
