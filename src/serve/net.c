/* The loop: listeners, the clock that checks deadlines, messages from other threads, timers, and stopping.
 *
 * Other threads reach the loop through a list under a lock and an eventfd; a signal handler through a flag
 * and the same eventfd.  Stopping closes the listeners and the connections nobody waits on, then lets what is
 * under way finish until the grace is over. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "serve/net_impl.h"

struct hd_timer {
    hd_net *net;
    struct event *ev;
    void (*fn)(void *arg);
    void *arg;
};

/* ---- How long the thread is busy: a step for each callback, a turn from the loop's waking until it waits again - */

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The step under way ends. */
static void end_step(hd_net *n, double now, double cpu)
{
    if (n->t_step > 0) hd_metrics_step(n->metrics, now - n->t_step, cpu - n->cpu_step);
    else n->cpu_turn = cpu;
}

void hd_net_step(hd_net *n)
{
    double now = hd_now_s(), cpu = cpu_s();
    end_step(n, now, cpu);
    n->t_step = now;
    n->cpu_step = cpu;
}

static void end_turn(hd_net *n)
{
    double cpu = cpu_s();
    if (n->t_step == 0) return;
    end_step(n, hd_now_s(), cpu);
    hd_metrics_turn(n->metrics, cpu - n->cpu_turn);
    n->t_step = 0;
}

/* ---- Messages ---- */

hd_status hd_net_post(hd_net *n, void (*fn)(void *arg), void *arg, hd_err *err)
{
    hd_status st = HD_OK;
    uint64_t one = 1;
    pthread_mutex_lock(&n->lock);
    if (n->n_post == n->cap_post) {
        int cap = n->cap_post ? 2 * n->cap_post : 16;
        HD_TRY(hd_realloc(&n->post, (size_t)cap * sizeof *n->post, err));
        n->cap_post = cap;
    }
    n->post[n->n_post++] = (hd_post){fn, arg};
fail:
    pthread_mutex_unlock(&n->lock);
    if (st == HD_OK && write(n->wake_fd, &one, sizeof one) < 0) return HD_OK; // full: it is awake
    return st;
}

static void begin_stop(hd_net *n);

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
    hd_net *n = arg;
    uint64_t count;
    (void)what;
    hd_net_step(n);
    if (read(fd, &count, sizeof count) < 0) return;
    if (n->stop_asked && !n->stopping) begin_stop(n);
    pthread_mutex_lock(&n->lock);
    hd_post *post = n->post;
    int n_post = n->n_post;
    n->post = NULL;
    n->n_post = n->cap_post = 0;
    pthread_mutex_unlock(&n->lock);
    for (int i = 0; i < n_post; i++) {
        post[i].fn(post[i].arg);
        hd_net_step(n);
    }
    free(post);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    hd_timer t = *(hd_timer *)arg;
    (void)fd, (void)what;
    hd_net_step(t.net);
    event_free(t.ev);
    free(arg);
    t.fn(t.arg);
}

hd_timer *hd_net_after(hd_net *n, int ms, void (*fn)(void *arg), void *arg)
{
    hd_timer *t = calloc(1, sizeof *t);
    struct timeval tv = {ms / 1000, ms % 1000 * 1000};
    if (!t) return NULL;
    *t = (hd_timer){n, event_new(n->base, -1, 0, on_timer, t), fn, arg};
    if (t->ev && event_add(t->ev, &tv) == 0) return t;
    if (t->ev) event_free(t->ev);
    free(t);
    return NULL;
}

void hd_net_cancel(hd_timer *t)
{
    if (!t) return;
    event_free(t->ev);
    free(t);
}

/* ---- Connections ---- */

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *sa, int len, void *arg)
{
    hd_net *n = arg;
    (void)len;
    hd_net_step(n);
    hd_conn_accept(n, fd, sa, l == n->operator_listener);
}

/* Out of descriptors, most likely: without a pause the loop would spin. */
static void on_accept_error(struct evconnlistener *l, void *arg)
{
    hd_net *n = arg;
    (void)l;
    n->paused = true;
    if (n->listener) evconnlistener_disable(n->listener);
}

static void on_reap(evutil_socket_t fd, short what, void *arg)
{
    hd_net *n = arg;
    (void)fd, (void)what;
    hd_net_step(n);
    for (hd_conn *c = n->conns, *next; c; c = next) {
        next = c->next;
        if (c->doomed) hd_conn_close(c);
        else if (c->kick) hd_conn_pump(c);
    }
}

/* Connections that nobody waits on. */
static bool is_waiting(const hd_conn *c)
{
    return (c->req && c->req->handed) || c->closing ||
           evbuffer_get_length(bufferevent_get_output(c->bev)) > 0;
}

static void begin_stop(hd_net *n)
{
    n->stopping = true;
    n->stop_by = hd_now_s() + n->grace_ms * 1e-3;
    if (n->listener) evconnlistener_free(n->listener);
    n->listener = NULL;
    for (hd_conn *c = n->conns, *next; c; c = next) {
        next = c->next;
        if (!is_waiting(c)) hd_conn_close(c);
    }
    if (n->o.on_stop) n->o.on_stop(n->o.app);
}

/* A renewed certificate, for connections from now on; a bad one changes nothing. */
static void reload(hd_net *n)
{
    hd_err err;
    void *tls = NULL;
    if (!n->tls) return;
    if (hd_tls_open(&tls, n->o.cert_file, n->o.key_file, &err) != HD_OK) {
        hd_warn("%s; the certificate stays as it was", err.msg);
        hd_tls_close(tls);
        return;
    }
    hd_tls_close(n->tls); // connections hold what they use
    n->tls = tls;
}

static void on_sweep(evutil_socket_t fd, short what, void *arg)
{
    hd_net *n = arg;
    double now = hd_now_s();
    (void)fd, (void)what;
    hd_net_step(n);
    if ((n->stop_asked || (n->o.stop_flag && *n->o.stop_flag)) && !n->stopping) begin_stop(n);
    if (n->o.reload_flag && *n->o.reload_flag) {
        *n->o.reload_flag = 0;
        reload(n);
    }
    for (hd_conn *c = n->conns, *next; c; c = next) {
        next = c->next;
        hd_conn_check(c, now);
    }
    if (n->paused && n->listener) evconnlistener_enable(n->listener);
    n->paused = false;
    bool waiting = false;
    for (const hd_conn *c = n->conns; c; c = c->next) waiting |= !c->operators && c->phase != HD_AT_LINGER;
    if (n->stopping && n->o.busy) waiting |= n->o.busy(n->o.app);
    if (n->stopping && (!waiting || now > n->stop_by)) event_base_loopbreak(n->base);
}

/* ---- Opening and closing ---- */

static hd_status listen_at(struct evconnlistener **out, int *port, hd_net *n, const char *address, int want,
                           hd_err *err)
{
    char where[96];
    union {
        struct sockaddr any;
        struct sockaddr_in four;
        struct sockaddr_in6 six;
    } sa = {0};
    bool six = strchr(address, ':') != NULL;
    socklen_t len = six ? sizeof sa.six : sizeof sa.four;
    snprintf(where, sizeof where, six ? "[%s]:%d" : "%s:%d", address, want);
    sa.any.sa_family = six ? AF_INET6 : AF_INET;
    if (inet_pton(six ? AF_INET6 : AF_INET, address,
                  six ? (void *)&sa.six.sin6_addr : (void *)&sa.four.sin_addr) != 1)
        return hd_fail(err, HD_USAGE, "listen: %s: not an address", address);
    if (six) sa.six.sin6_port = htons((uint16_t)want);
    else sa.four.sin_port = htons((uint16_t)want);
    *out = evconnlistener_new_bind(n->base, on_accept, n,
                                   LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE, 256,
                                   &sa.any, (int)len);
    if (!*out) return hd_fail_errno(err, "listen: %s", where);
    evconnlistener_set_error_cb(*out, on_accept_error);
    if (getsockname(evconnlistener_get_fd(*out), &sa.any, &len) != 0)
        return hd_fail_errno(err, "listen: %s", where);
    *port = ntohs(six ? sa.six.sin6_port : sa.four.sin_port);
    return HD_OK;
}

/* As many descriptors as connections, and some for files. */
static void raise_files(int want)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) != 0 || l.rlim_cur >= (rlim_t)want) return;
    l.rlim_cur = l.rlim_max == RLIM_INFINITY || l.rlim_max > (rlim_t)want ? (rlim_t)want : l.rlim_max;
    setrlimit(RLIMIT_NOFILE, &l); // a wish: accept copes with less
}

static hd_status events(hd_net *n, hd_err *err)
{
    struct timeval quarter = {0, 250000};
    n->base = event_base_new();
    n->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (n->wake_fd < 0) return hd_fail_errno(err, "server: eventfd");
    if (n->base) {
        n->wake = event_new(n->base, n->wake_fd, EV_READ | EV_PERSIST, on_wake, n);
        n->sweep = event_new(n->base, -1, EV_PERSIST, on_sweep, n);
        n->reap = event_new(n->base, -1, 0, on_reap, n);
    }
    if (!n->wake || !n->sweep || !n->reap || event_add(n->wake, NULL) != 0 ||
        event_add(n->sweep, &quarter) != 0)
        return hd_fail(err, HD_NOMEM, "server: no event loop");
    return HD_OK;
}

/* Addresses are hashed with a secret that lives as long as logins do: what the cache on disk keeps for an
 * address is found again after a restart. */
static void address_secret(hd_net *n)
{
    uint8_t sum[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_state s;
    crypto_hash_sha256_init(&s);
    crypto_hash_sha256_update(&s, (const uint8_t *)"addresses", 9);
    crypto_hash_sha256_update(&s, n->login_secret, sizeof n->login_secret);
    crypto_hash_sha256_final(&s, sum);
    memcpy(n->secret, sum, sizeof n->secret);
}

hd_status hd_net_open(hd_net **out, const hd_net_opts *o, hd_err *err)
{
    hd_status st;
    hd_net *n = NULL;
    HD_TRY(hd_alloc(&n, sizeof *n, err));
    n->o = *o;
    n->wake_fd = -1;
    if (n->o.max_conns <= 0) n->o.max_conns = 512;
    if (n->o.max_conns_per_ip <= 0) n->o.max_conns_per_ip = 64;
    if (!n->o.head_ms) n->o.head_ms = HD_HEAD_MS;
    if (!n->o.body_ms) n->o.body_ms = HD_BODY_MS;
    if (!n->o.idle_ms) n->o.idle_ms = HD_IDLE_MS;
    if (!n->o.write_ms) n->o.write_ms = HD_WRITE_MS;
    if (!n->o.routes) n->o.routes = hd_routes;
    pthread_mutex_init(&n->lock, NULL);
    n->lock_made = true;
    if (sodium_init() < 0) HD_TRY(hd_fail(err, HD_IO, "server: libsodium does not start"));
    if (o->login_secret) memcpy(n->login_secret, o->login_secret, sizeof n->login_secret);
    else randombytes_buf(n->login_secret, sizeof n->login_secret);
    address_secret(n);
    randombytes_buf(&n->run, sizeof n->run);
    hd_login_link(n);
    raise_files(n->o.max_conns + 128);
    HD_TRY(hd_guard_keys(n, err));
    HD_TRY(hd_metrics_open(&n->metrics, err));
    if (o->cert_file && o->key_file) HD_TRY(hd_tls_open(&n->tls, o->cert_file, o->key_file, err));
    HD_TRY(events(n, err));
    if (o->log_fd >= 0) HD_TRY(hd_log_open(&n->log, o->log_fd, err));
    HD_TRY(listen_at(&n->listener, &n->port, n, o->address ? o->address : "127.0.0.1", o->port, err));
    if (o->operator_port)
        HD_TRY(listen_at(&n->operator_listener, &n->operator_port, n, "127.0.0.1",
                         o->operator_port < 0 ? 0 : o->operator_port, err));
    *out = n;
    return HD_OK;
fail:
    hd_net_close(n);
    return st;
}

const char *hd_net_link(const hd_net *n) { return n->once; }
int hd_net_port(const hd_net *n) { return n->port; }
int hd_net_operator_port(const hd_net *n) { return n->operator_port; }

hd_status hd_net_run(hd_net *n, int grace_ms, hd_err *err)
{
    n->grace_ms = grace_ms;
    int bad = 0;
    while (bad >= 0 && !event_base_got_break(n->base)) {
        bad = event_base_loop(n->base, EVLOOP_ONCE | EVLOOP_NO_EXIT_ON_EMPTY);
        end_turn(n);
    }
    n->stopping = true;
    while (n->conns) hd_conn_close(n->conns);
    return bad < 0 ? hd_fail(err, HD_IO, "server: the event loop failed") : HD_OK;
}

void hd_net_stop(hd_net *n)
{
    uint64_t one = 1;
    int e = errno; // a signal may have come between a call and the look at its errno
    n->stop_asked = true;
    if (write(n->wake_fd, &one, sizeof one) < 0) { // the sweep sees the flag
    }
    errno = e;
}

void hd_net_close(hd_net *n)
{
    if (!n) return;
    n->stopping = true;
    while (n->conns) hd_conn_close(n->conns);
    if (n->listener) evconnlistener_free(n->listener);
    if (n->operator_listener) evconnlistener_free(n->operator_listener);
    if (n->wake) event_free(n->wake);
    if (n->sweep) event_free(n->sweep);
    if (n->reap) event_free(n->reap);
    if (n->base) event_base_free(n->base);
    if (n->wake_fd >= 0) close(n->wake_fd);
    hd_log_close(n->log);
    hd_tls_close(n->tls);
    hd_metrics_close(n->metrics);
    if (n->lock_made) pthread_mutex_destroy(&n->lock);
    free(n->post);
    free(n->key);
    free(n);
}
