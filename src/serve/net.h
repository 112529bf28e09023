/* The network side of the server: one thread, libevent's loop, strict HTTP/1.1 (http.h) over
 * its bufferevents.
 *
 *   socket --> conn.c: deadlines, caps --> http.c: bytes to a request --> route.c: table, rights --> a handler
 *   handler --> hd_reply (whole), or hd_reply_begin / write / end (a stream) --> conn.c: write queue --> socket
 *
 * Handlers run on the network thread and never block: what takes long is a job of the scheduler (sched.h),
 * whose events also arrive on this thread.  A request lives from the call of its handler until its reply is
 * finished or its client is gone; every call on a request whose client is gone does nothing. */
#ifndef HD_SERVE_NET_H
#define HD_SERVE_NET_H

#include "base/buf.h"

typedef struct hd_net hd_net;
typedef struct hd_req hd_req;

/* What a request carries; borrowed, valid as long as the request. */
const char *hd_req_method(const hd_req *r); // "GET"
const char *hd_req_path(const hd_req *r);   // decoded, without the query; the route's "{id}" part: hd_req_param
const char *hd_req_param(const hd_req *r);  // what stood for "{...}" in the route's path, or NULL
const char *hd_req_query(const hd_req *r, const char *name); // first value of a query parameter, decoded, or NULL
const char *hd_req_header(const hd_req *r, const char *name); // value of a header field, or NULL
const char *hd_req_body(const hd_req *r, size_t *n);           // NUL-terminated
void hd_req_take_body(hd_req *r, hd_buf *out);                 // it is the caller's then, whatever happens to the request
const char *hd_req_id(const hd_req *r);                        // "req-..." of the log and of the X-Request-Id header
uint64_t hd_req_user(const hd_req *r); // whose share of the engine it takes: by key, session or address; never 0
void *hd_req_app(const hd_req *r);     // what hd_net_opts.app was: the server (server.h)

/* Add a field to the reply's head, before it begins. */
void hd_reply_header(hd_req *r, const char *name, const char *value);
/* A whole reply.  The request is over. */
void hd_reply(hd_req *r, int status, const char *type, const void *body, size_t n);
void hd_reply_take(hd_req *r, int status, const char *type, hd_buf *body); // the same; takes the bytes, so that many megabytes are not copied
/* A reply in pieces (chunked).  hd_reply_write copies.  A client that reads too slowly has hd_reply_backlog
 * grow: past the cap its request counts as gone. */
void hd_reply_begin(hd_req *r, int status, const char *type);
void hd_reply_write(hd_req *r, const void *p, size_t n);
void hd_reply_end(hd_req *r);
size_t hd_reply_backlog(const hd_req *r);
/* An error in the shape of the request's route (its `fail`, or OpenAI's).  The request is over; not
 * after hd_reply_begin. */
void hd_req_fail(hd_req *r, int status, const char *code, const char *message);
/* For the line in the access log and for the metrics: ids of prompt, of those from the
 * cache, and generated. */
void hd_req_note(hd_req *r, int64_t prompt_tok, int64_t cached_tok, int64_t gen_tok);
/* fn(arg) is called once when the client hangs up before the reply is finished (also while it waits in a
 * queue); the request is not to be used after that.  NULL takes the wish back. */
void hd_req_on_gone(hd_req *r, void (*fn)(void *arg), void *arg);

/* fn(arg) on the network thread, soon.  From any thread. */
hd_status hd_net_post(hd_net *n, void (*fn)(void *arg), void *arg, hd_err *err);
/* fn(arg) on the network thread after so many milliseconds; returns a handle for hd_net_cancel, NULL without
 * memory.  Network thread only. */
typedef struct hd_timer hd_timer;
hd_timer *hd_net_after(hd_net *n, int ms, void (*fn)(void *arg), void *arg);
void hd_net_cancel(hd_timer *t); // not after it fired
hd_net *hd_req_net(const hd_req *r);

/* ---- Routes ---- */

typedef enum {
    HD_RIGHT_ANYONE,   // health, the login page, static files
    HD_RIGHT_API,      // a valid API key (when keys are configured), or the page's own session
    HD_RIGHT_PAGE,     // the page's own session, same origin
    HD_RIGHT_OPERATOR, // metrics and administration: the loopback listener only
} hd_right;

/* One row.  path: "/models/{id}"; one {part} at most, a whole segment, which is never empty.  HEAD is
 * answered by the row of GET, without the body. */
typedef struct {
    const char *method, *path;
    hd_right right;
    size_t max_body; // bytes; 0: no body allowed
    void (*handle)(hd_req *r);
    /* Writes an error in this API's own shape and finishes the reply; also used by the layers below
     * (401, 413, 503 ...).
     * NULL: OpenAI's. */
    void (*fail)(hd_req *r, int status, const char *code, const char *message);
    bool versions; // also as /v1/... and as /beta/...
} hd_route;
/* The table in route.c: each entry is one file's rows (declared in routes.h), which end with a row
 * without a method. */
extern const hd_route *const hd_routes[]; // NULL at its end

/* ---- The listener ---- */

typedef struct {
    const char *address; // "127.0.0.1", "::1", "0.0.0.0"
    int port;            // 0: any free one
    const char *cert_file, *key_file; // TLS when both are given
    const char *const *allowed_hosts; // beside the address itself and localhost (DNS rebinding); NULL-terminated
    const char *const *allowed_origins; // CORS; NULL-terminated
    const char *const *api_key_hashes;  // hex SHA-256 of each valid key; none: no key is asked for
    bool login;                         // ask browsers for a login also without keys: one-time links give it
    const uint8_t *login_secret;        // 32 bytes that logins outlive a restart by; NULL: they do not
    void (*on_link)(void *app, const char *token); // the one-time link was used, this one is next; or NULL
    const char *const *trusted_proxies; // addresses whose X-Forwarded-For is believed
    int max_conns, max_conns_per_ip;    // 0: 512 and 64
    int operator_port;                  // loopback listener of HD_RIGHT_OPERATOR; 0: none, -1: any free one
    int log_fd;                         // one JSON line a request; -1: none
    const volatile sig_atomic_t *stop_flag; // nonzero: stop, within a quarter of a second; or NULL
    volatile sig_atomic_t *reload_flag; // nonzero: read the certificate's files anew, and set it to zero; or NULL
    /* In milliseconds, 0: the defaults of net_impl.h.  A head, a body's beginning, between requests,
     * reading a reply. */
    int head_ms, body_ms, idle_ms, write_ms;
    const hd_route *const *routes; // NULL: hd_routes
    void (*on_stop)(void *app);         // network thread, when the stop is seen: drain what is under way; or NULL
    bool (*busy)(void *app);                 // after the stop: is there work that no client waits for?  or NULL
    void (*metrics)(void *app, hd_buf *out); // the application's own lines of /metrics; or NULL
    void *app;
} hd_net_opts;

hd_status hd_net_open(hd_net **out, const hd_net_opts *o, hd_err *err);
const char *hd_net_link(const hd_net *n); // the token of /once/{token}
int hd_net_port(const hd_net *n);
int hd_net_operator_port(const hd_net *n); // 0: none
/* Until hd_net_stop; returns when streams have finished or `grace_ms` after the stop.  No request is left
 * then: those whose clients waited in vain have been told that they are gone. */
hd_status hd_net_run(hd_net *n, int grace_ms, hd_err *err);
void hd_net_stop(hd_net *n); // from any thread or a signal handler
void hd_net_close(hd_net *n);

#endif
