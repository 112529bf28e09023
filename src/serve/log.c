/* The access log: one JSON line a request, without a word of what was said and without addresses.
 *
 * A disk that stalls must not stall the model, so lines go into a ring and a thread of its own writes them;
 * when the ring is full, lines are dropped and counted. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "serve/net_impl.h"

enum { RING = 1024, LINE = 512 };

struct hd_log {
    int fd;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    bool started, quit;
    int first, n;
    uint64_t dropped, told; // told: of the dropped ones, those that a line has reported
    struct {
        char text[LINE];
        size_t n;
    } line[RING];
};

static void put(int fd, const char *s, size_t n)
{
    while (n > 0) {
        ssize_t k = write(fd, s, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return; // nobody can be told
        s += k;
        n -= (size_t)k;
    }
}

static void *writer(void *arg)
{
    hd_log *l = arg;
    char text[LINE], lost[64];
    pthread_mutex_lock(&l->lock);
    while (!l->quit || l->n > 0) {
        if (l->n == 0) {
            pthread_cond_wait(&l->more, &l->lock);
            continue;
        }
        size_t n = l->line[l->first].n;
        uint64_t missing = l->dropped - l->told;
        l->told = l->dropped;
        memcpy(text, l->line[l->first].text, n);
        l->first = (l->first + 1) % RING;
        l->n--;
        pthread_mutex_unlock(&l->lock);
        if (missing)
            put(l->fd, lost,
                (size_t)snprintf(lost, sizeof lost, "{\"lines_dropped\":%llu}\n",
                                 (unsigned long long)missing));
        put(l->fd, text, n);
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

hd_status hd_log_open(hd_log **out, int fd, hd_err *err)
{
    hd_log *l;
    hd_status st = hd_alloc(out, sizeof **out, err);
    if (st != HD_OK) return st;
    l = *out;
    l->fd = fd;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->more, NULL);
    int e = pthread_create(&l->thread, NULL, writer, l);
    l->started = e == 0;
    errno = e;
    return e ? hd_fail_errno(err, "log: thread") : HD_OK;
}

void hd_log_line(hd_log *l, const char *line, size_t n)
{
    if (!l || n > LINE) return;
    pthread_mutex_lock(&l->lock);
    if (l->n == RING) {
        l->dropped++;
    } else {
        int at = (l->first + l->n++) % RING;
        memcpy(l->line[at].text, line, n);
        l->line[at].n = n;
        pthread_cond_signal(&l->more);
    }
    pthread_mutex_unlock(&l->lock);
}

uint64_t hd_log_dropped(const hd_log *l) { return l ? l->dropped : 0; }

void hd_log_close(hd_log *l)
{
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->quit = true;
    pthread_cond_signal(&l->more);
    pthread_mutex_unlock(&l->lock);
    if (l->started) pthread_join(l->thread, NULL);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->more);
    free(l);
}

/* Everything in it is ours: no text of the client's gets here, so nothing has to be escaped. */
void hd_log_request(const hd_req *r, double now)
{
    char line[LINE], when[40];
    struct timespec t;
    struct tm tm;
    if (!r->net->log) return;
    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    int n = snprintf(
        line, sizeof line,
        "{\"time\":\"%s.%03ldZ\",\"id\":\"%s\",\"user\":\"%016llx\",\"method\":\"%s\",\"route\":\"%s\","
        "\"status\":%d,\"ms\":%.1f,\"first_ms\":%.1f,\"in\":%zu,\"out\":%llu,\"prompt\":%lld,"
        "\"cached\":%lld,\"generated\":%lld}\n",
        when, t.tv_nsec / 1000000, r->id, (unsigned long long)r->user, r->in.method ? r->in.method : "-",
        r->route ? r->route->path : "-", r->status, (now - r->t_begin) * 1e3,
        ((r->t_first > 0 ? r->t_first : now) - r->t_begin) * 1e3, r->in.body.len,
        (unsigned long long)r->out_bytes, (long long)r->prompt_tok, (long long)r->cached_tok,
        (long long)r->gen_tok);
    if (n > 0 && (size_t)n < sizeof line) hd_log_line(r->net->log, line, (size_t)n);
}
