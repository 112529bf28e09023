/* What the files of the network side share: net.c (loop), conn.c (bytes in), reply.c (bytes out), guard.c
 * (who may), route.c (what), log.c and metrics.c (what was done), tls.c.  Everything here belongs to the
 * network thread but for what is said to be for any thread. */
#ifndef HD_SERVE_NET_IMPL_H
#define HD_SERVE_NET_IMPL_H

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <pthread.h>
#include <stdatomic.h>

#include "serve/http.h"
#include "serve/net.h"

enum {
    HD_HEAD_MS =
        10000, // a whole head, from its first byte or the connection's beginning (with its TLS handshake)
    HD_IDLE_MS = 75000, // between requests
    HD_BODY_MS = 10000, // of a body, and a second more for every HD_BODY_RATE bytes that came
    HD_BODY_RATE = 4 << 10,
    HD_WRITE_MS =
        30000, // a reply that is not read, and a second more for every HD_WRITE_RATE bytes that went
    HD_WRITE_RATE = 1 << 10,
    HD_LINGER_MS = 2000,    // a refused client may read why
    HD_BACKLOG = 256 << 10, // of a reply in pieces
    HD_PIPELINE = 64 << 10, // bytes of further requests, while one is answered
    HD_BODIES = 256 << 20,  // of all connections together
};

typedef struct hd_conn hd_conn;
typedef struct hd_log hd_log;
typedef struct hd_metrics hd_metrics;

/* A request, from its first byte.  `handed`: with its handler, who finishes it.  When the client goes first,
 * conn is NULL and the request waits for its handler's last call, unless that wished to be told. */
struct hd_req {
    hd_net *net;
    hd_conn *conn;
    hd_h1 in;
    const hd_route *route;
    char param[256], id[28], peer[48]; // peer: the client's address, behind trusted proxies
    uint64_t user;
    hd_buf extra; // fields of the reply's head
    int status;
    bool whole; // all of it has been read: the connection can go on
    bool handed, begun, chunked;
    double t_begin, t_first;
    uint64_t out_bytes;
    size_t counted; // of net->bodies
    int64_t prompt_tok, cached_tok, gen_tok;
    void (*gone)(void *arg);
    void *gone_arg;
};

typedef enum { HD_AT_IDLE, HD_AT_HEAD, HD_AT_BODY, HD_AT_REPLY, HD_AT_LINGER } hd_phase;

struct hd_conn {
    hd_net *net;
    hd_conn *prev, *next;
    struct bufferevent *bev;
    struct event *sniff; // TLS is spoken here, and it is not yet known whether the client does
    uint8_t addr[16];    // IPv4 as ::ffff:a.b.c.d
    char peer[48];
    bool secure;    // TLS
    bool operators; // came through the operator's listener
    bool trusted;   // a proxy whose X-Forwarded-For counts
    hd_phase phase;
    double deadline, t_body;
    hd_req *req;
    double out_since;    // when the write queue was last empty
    uint64_t out_queued; // bytes put into it since
    bool closing;        // nothing more is read; close when the queue is empty
    bool doomed, kick;   // close, or look at what was read, from the loop
    bool pumping;
};

typedef struct hd_post {
    void (*fn)(void *arg);
    void *arg;
} hd_post;

struct hd_net {
    hd_net_opts o;
    struct event_base *base;
    struct evconnlistener *listener, *operator_listener;
    int port, operator_port;
    void *tls; // SSL_CTX
    hd_conn *conns;
    int n_conns;
    size_t bodies; // bytes of bodies held
    struct event *sweep, *wake, *reap;
    int wake_fd;
    atomic_bool stop_asked;
    bool stopping, paused; // paused: accept failed, until the next sweep
    double stop_by;
    double t_step, cpu_step; // when the step under way began, 0: none is; the thread's processor time then
    double cpu_turn;         // that of the turn
    int grace_ms;
    pthread_mutex_t lock; // of posts
    bool lock_made;
    hd_post *post;
    int n_post, cap_post;
    uint8_t secret[16];       // for hashes of addresses
    uint64_t run, n_requests; // run: random, so that ids of requests differ from run to run
    uint8_t login_secret[32];
    char once[33];
    uint8_t (*key)[32]; // SHA-256 of each key
    int n_keys;
    hd_log *log;
    hd_metrics *metrics;
};

/* ---- net.c ---- */
void hd_net_step(hd_net *n); // every callback of the loop's says so first

/* ---- conn.c ---- */
void hd_conn_accept(hd_net *n, int fd, const struct sockaddr *sa, bool operators);
void hd_conn_close(hd_conn *c);
void hd_conn_pump(hd_conn *c);              // look at what was read
void hd_conn_check(hd_conn *c, double now); // deadlines
void hd_conn_soon(hd_conn *c, bool doomed); // from the loop: close it, or pump

/* ---- reply.c ---- */
hd_req *hd_req_new(hd_conn *c);
void hd_req_gone(hd_req *r); // its client is; frees it, or leaves it to its handler

/* ---- guard.c ---- */
hd_status hd_guard_keys(hd_net *n, hd_err *err); // read o.api_key_hashes
/* Before the body: may this client ask this at all?  False: answered with an error. */
bool hd_guard_host(hd_req *r);
bool hd_guard_origin(hd_req *r);
bool hd_guard_right(hd_req *r);
void hd_guard_cors(hd_req *r); // fields for an allowed origin
void hd_guard_preflight(hd_req *r, const char *methods);
void hd_guard_peer(hd_req *r);                                       // fill peer and user
bool hd_guard_key(const hd_net *n, const char *key, uint64_t *user); // is it one of ours?  whose share it has
bool hd_guard_trusted(const hd_net *n, const char *peer);
void hd_addr_text(char out[48], const uint8_t addr[16]);

/* ---- login.c ---- */
bool hd_login_needed(const hd_net *n);
bool hd_login_holds(hd_req *r); // its cookie is good; sets user
void hd_login_link(hd_net *n);  // the next one-time link

/* ---- route.c ---- */
/* Fill r->route and r->param.  False: answered with 404, 405 or a preflight. */
bool hd_route_find(hd_req *r);
/* Does `path` fit the row?  param gets what stood for its {part}. */
bool hd_route_fits(const hd_route *row, const char *path, char *param, size_t size);

/* ---- log.c ---- */
hd_status hd_log_open(hd_log **out, int fd, hd_err *err);
void hd_log_line(hd_log *l, const char *line, size_t n); // never waits; NULL: nothing
uint64_t hd_log_dropped(const hd_log *l);
void hd_log_close(hd_log *l); // writes what is left
void hd_log_request(const hd_req *r, double now);

/* ---- metrics.c ---- */
typedef enum { HD_REFUSED_FULL, HD_REFUSED_ADDRESS, HD_REFUSED_SLOW, HD_REFUSED_KINDS } hd_refused;
hd_status hd_metrics_open(hd_metrics **out, hd_err *err);
void hd_metrics_close(hd_metrics *m);
void hd_metrics_request(hd_metrics *m, const hd_req *r, double now);
/* What the network thread did for one event, while nobody else was heard; a turn is all the events that
 * were found at once. */
void hd_metrics_step(hd_metrics *m, double seconds, double cpu_seconds);
void hd_metrics_turn(hd_metrics *m, double cpu_seconds);
void hd_metrics_refused(hd_metrics *m, hd_refused why);
void hd_metrics_handle(hd_req *r); // GET /metrics

/* ---- tls.c ---- */
hd_status hd_tls_open(void **ctx, const char *cert_file, const char *key_file, hd_err *err);
void hd_tls_close(void *ctx);
struct bufferevent *hd_tls_accept(void *ctx, struct event_base *base, int fd); // NULL: no memory
void hd_tls_end(struct bufferevent *bev);                                      // say goodbye before closing

#endif
