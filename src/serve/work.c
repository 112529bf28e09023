/* A list under a lock, and threads that take from it. */
#include "serve/work.h"

#include <pthread.h>
#include <unistd.h>

#include "base/log.h"
#include "model/json.h"

enum { MAX_THREADS = 8, RETRY_US = 10000, AT_ONCE = 8 };

struct hd_work {
    hd_net *net;
    pthread_t thread[MAX_THREADS];
    int n_threads, n_big; // n_big: under way
    pthread_mutex_t lock;
    pthread_cond_t more;
    hd_chore *first, **last; // waiting
    hd_chore *done, **done_last;
    bool stop, telling; // telling: a post is under way that will finish what is done
};

static void append(hd_chore ***last, hd_chore *c)
{
    c->next = NULL;
    **last = c;
    *last = &c->next;
}

/* The first that may begin, off the list; NULL: none. */
static hd_chore *take(hd_work *w)
{
    hd_chore **at = &w->first, *c;
    while ((c = *at) && c->big && w->n_big >= w->n_threads - 1 && w->n_threads > 1) at = &c->next;
    if (!c) return NULL;
    *at = c->next;
    if (w->last == &c->next) w->last = at;
    return c;
}

/* Finish so many of those that are done; true: there are more. */
static bool finish_some(hd_work *w, int most)
{
    pthread_mutex_lock(&w->lock);
    hd_chore *list = w->done, **end = &w->done;
    for (int i = 0; i < most && *end; i++) end = &(*end)->next;
    hd_chore *rest = *end;
    *end = NULL;
    w->done = rest;
    if (!rest) w->done_last = &w->done;
    w->telling = rest != NULL;
    pthread_mutex_unlock(&w->lock);
    for (hd_chore *c = list, *next; c; c = next) {
        next = c->next;
        c->finish(c);
    }
    return rest != NULL;
}

/* A crowd's requests become ready together; between a few of them the loop hears others. */
static void tell(void *arg)
{
    hd_work *w = arg;
    bool more = finish_some(w, AT_ONCE);
    if (more && hd_net_post(w->net, tell, w, NULL) == HD_OK) return;
    while (more) more = finish_some(w, AT_ONCE); // no memory for a note
}

static void *run(void *arg)
{
    hd_work *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        hd_chore *c = take(w);
        if (!c) {
            pthread_cond_wait(&w->more, &w->lock);
            continue;
        }
        w->n_big += c->big;
        pthread_mutex_unlock(&w->lock);
        c->work(c);
        pthread_mutex_lock(&w->lock);
        w->n_big -= c->big;
        if (c->big) pthread_cond_signal(&w->more); // another big one may begin
        append(&w->done_last, c);
        while (!w->telling && !w->stop) {
            w->telling = true;
            pthread_mutex_unlock(&w->lock);
            bool told = hd_net_post(w->net, tell, w, NULL) == HD_OK;
            if (!told) usleep(RETRY_US); // no memory for a note: somebody waits for this answer
            pthread_mutex_lock(&w->lock);
            if (told) break;
            w->telling = false;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

hd_status hd_work_open(hd_work **out, hd_net *n, int n_threads, hd_err *err)
{
    hd_status st;
    hd_work *w = NULL;
    *out = NULL;
    HD_TRY(hd_alloc(&w, sizeof *w, err));
    w->net = n;
    w->last = &w->first;
    w->done_last = &w->done;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    hd_json_note(); // its allocator is chosen once, before there are threads
    for (int i = 0; i < n_threads && i < MAX_THREADS; i++) {
        pthread_mutex_lock(&w->lock);
        bool made = pthread_create(&w->thread[i], NULL, run, w) == 0;
        w->n_threads += made;
        pthread_mutex_unlock(&w->lock);
        if (!made) HD_TRY(hd_fail(err, HD_IO, "server: the system refuses a thread"));
    }
    *out = w;
    return HD_OK;
fail:
    hd_work_close(w);
    return st;
}

void hd_work_close(hd_work *w)
{
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->more);
    pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < w->n_threads; i++) pthread_join(w->thread[i], NULL);
    *w->done_last = w->first; // what never began is finished like the rest
    while (finish_some(w, AT_ONCE)) {}
    pthread_cond_destroy(&w->more);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void hd_work_start(hd_work *w, hd_chore *c)
{
    if (!w) {
        c->work(c);
        c->finish(c);
        return;
    }
    pthread_mutex_lock(&w->lock);
    append(&w->last, c);
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->lock);
}

bool hd_work_forget(hd_work *w, hd_chore *c)
{
    bool found = false;
    if (!w) return false;
    pthread_mutex_lock(&w->lock);
    for (hd_chore **at = &w->first; *at && !found; at = &(*at)->next)
        if (*at == c) {
            *at = c->next;
            if (w->last == &c->next) w->last = at;
            found = true;
            break;
        }
    pthread_mutex_unlock(&w->lock);
    return found;
}
