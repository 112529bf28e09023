/* Replies: heads, whole bodies and bodies in pieces, into the connection's write queue; and the
 * life of a request.
 *
 *   hd_req_new --> handed to its handler --> hd_reply | hd_reply_end --> over (logged, counted, freed)
 *                       \--> client gone --> `gone` told, freed | kept until the handler's last call
 *
 * Nothing is written to a socket here: libevent does that when the handler has returned. */
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/log.h"
#include "serve/net_impl.h"

/* ---- What a request carries ---- */

const char *hd_req_method(const hd_req *r) { return r->in.method; }
const char *hd_req_path(const hd_req *r) { return r->in.path; }
const char *hd_req_param(const hd_req *r) { return r->param[0] ? r->param : NULL; }
const char *hd_req_query(const hd_req *r, const char *name) { return hd_h1_param(&r->in, name); }
const char *hd_req_body(const hd_req *r, size_t *n)
{
    *n = r->in.body.len;
    return r->in.body.data ? r->in.body.data : "";
}
void hd_req_take_body(hd_req *r, hd_buf *out)
{
    *out = r->in.body;
    hd_buf_init(&r->in.body, 0);
}
const char *hd_req_id(const hd_req *r) { return r->id; }
uint64_t hd_req_user(const hd_req *r) { return r->user; }
void *hd_req_app(const hd_req *r) { return r->net->o.app; }
hd_net *hd_req_net(const hd_req *r) { return r->net; }

const char *hd_req_header(const hd_req *r, const char *name)
{
    char small[64];
    size_t n = strlen(name);
    if (n >= sizeof small) return NULL;
    for (size_t i = 0; i <= n; i++) small[i] = (char)tolower((unsigned char)name[i]);
    return hd_h1_field(&r->in, small);
}

/* ---- Its life ---- */

hd_req *hd_req_new(hd_conn *c)
{
    static const char digit[] = "0123456789abcdef";
    hd_req *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->net = c->net;
    r->conn = c;
    r->t_begin = hd_now_s();
    hd_h1_init(&r->in);
    hd_buf_init(&r->extra, 8 << 10);
    /* The number mixed with one of this run's own: never twice in a run, and no help in guessing
     * how many there are. */
    uint64_t v = ++c->net->n_requests * 0x9e3779b97f4a7c15u ^ c->net->run;
    memcpy(r->id, "req-", 4);
    for (int i = 0; i < 16; i++) r->id[4 + i] = digit[v >> (60 - 4 * i) & 15];
    r->user = 1;
    return r;
}

static void req_free(hd_req *r)
{
    r->net->bodies -= r->counted;
    hd_h1_free(&r->in);
    hd_buf_free(&r->extra);
    free(r);
}

/* The line in the log, and the counters. */
static void account(const hd_req *r)
{
    double now = hd_now_s();
    hd_log_request(r, now);
    hd_metrics_request(r->net->metrics, r, now);
}

static void over(hd_req *r)
{
    hd_conn *c = r->conn;
    account(r);
    if (c) {
        if (!r->whole || !r->in.keep_alive || r->net->stopping) c->closing = true;
        c->req = NULL;
        c->phase = HD_AT_IDLE;
        c->deadline = hd_now_s() + c->net->o.idle_ms * 1e-3;
        if (!c->pumping) hd_conn_soon(c, false);
    }
    req_free(r);
}

void hd_req_gone(hd_req *r)
{
    void (*fn)(void *) = r->gone;
    r->conn = NULL;
    if (!r->handed) {
        req_free(r);
    } else if (fn) {
        r->status = 499;
        account(r);
        fn(r->gone_arg);
        req_free(r);
    }
}

void hd_req_on_gone(hd_req *r, void (*fn)(void *arg), void *arg)
{
    r->gone = fn;
    r->gone_arg = arg;
}

void hd_req_note(hd_req *r, int64_t prompt_tok, int64_t cached_tok, int64_t gen_tok)
{
    r->prompt_tok = prompt_tok;
    r->cached_tok = cached_tok;
    r->gen_tok = gen_tok;
}

/* ---- Heads ---- */

void hd_reply_header(hd_req *r, const char *name, const char *value)
{
    size_t at = r->extra.len;
    if (!r->conn || r->begun || hd_buf_addf(&r->extra, NULL, "%s: %s\r\n", name, value) != HD_OK) return;
    /* Whatever a value was made from, it cannot end its line. */
    for (char *s = r->extra.data + at; s < r->extra.data + r->extra.len - 2; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = '?';
    }
}

static bool has_extra(const hd_req *r, const char *name)
{
    size_t n = strlen(name);
    for (const char *s = r->extra.data; s && *s; s = strchr(s, '\n') + 1) {
        if (strncasecmp(s, name, n) == 0 && s[n] == ':') return true;
    }
    return false;
}

static void default_header(hd_req *r, const char *name, const char *value)
{
    if (!has_extra(r, name)) hd_reply_header(r, name, value);
}

/* What every reply says: nothing here is to be framed, sniffed, embedded elsewhere or kept, unless its
 * handler knows better. */
static void security_headers(hd_req *r)
{
    default_header(r, "Cache-Control", "no-store");
    default_header(r, "X-Content-Type-Options", "nosniff");
    default_header(r, "Referrer-Policy", "no-referrer");
    default_header(r, "X-Frame-Options", "DENY");
    default_header(r, "Cross-Origin-Resource-Policy", "same-origin");
    default_header(r, "Content-Security-Policy",
                   "default-src 'none'; frame-ancestors 'none'; base-uri 'none'");
    if (r->conn->secure && !r->net->o.login)
        default_header(r, "Strict-Transport-Security", "max-age=31536000");
}

static void queue(hd_conn *c, const void *p, size_t n)
{
    struct evbuffer *out = bufferevent_get_output(c->bev);
    if (evbuffer_get_length(out) == 0) c->out_since = hd_now_s(), c->out_queued = 0;
    c->out_queued += n;
    if (bufferevent_write(c->bev, p, n) != 0) hd_conn_soon(c, true);
}

/* length: of the body, -1 when it comes in pieces. */
static void put_head(hd_req *r, int status, const char *type, int64_t length)
{
    hd_conn *c = r->conn;
    char date[64];
    time_t now = time(NULL);
    struct tm tm;
    hd_buf b;
    bool bare = status == 204 || status == 304;
    if (!r->whole || r->net->stopping) r->in.keep_alive = false;
    r->chunked = length < 0 && r->in.minor == 1 && !bare;
    if (length < 0 && !r->chunked)
        r->in.keep_alive = false; // the end of the connection is the end of the body
    hd_guard_cors(r);
    security_headers(r);
    gmtime_r(&now, &tm);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    hd_buf_init(&b, 16 << 10);
    hd_buf_addf(&b, NULL, "HTTP/1.1 %d %s\r\nDate: %s\r\nX-Request-Id: %s\r\nConnection: %s\r\n", status,
                hd_http_reason(status), date, r->id, r->in.keep_alive ? "keep-alive" : "close");
    if (type && !bare) hd_buf_addf(&b, NULL, "Content-Type: %s\r\n", type);
    if (r->chunked) hd_buf_adds(&b, "Transfer-Encoding: chunked\r\n", NULL);
    else if (length >= 0 && !bare) hd_buf_addf(&b, NULL, "Content-Length: %lld\r\n", (long long)length);
    if (r->extra.len) hd_buf_add(&b, r->extra.data, r->extra.len, NULL);
    if (hd_buf_adds(&b, "\r\n", NULL) == HD_OK) queue(c, b.data, b.len);
    else hd_conn_soon(c, true);
    hd_buf_free(&b);
    r->begun = true;
    r->status = status;
    r->t_first = hd_now_s();
}

static bool wants_body(const hd_req *r) { return !r->in.method || strcmp(r->in.method, "HEAD") != 0; }

/* ---- Replies ---- */

void hd_reply(hd_req *r, int status, const char *type, const void *body, size_t n)
{
    if (r->conn) {
        put_head(r, status, type, (int64_t)n);
        if (n && wants_body(r) && status != 204 && status != 304) {
            queue(r->conn, body, n);
            r->out_bytes += n;
        }
    } else {
        r->status = 499;
    }
    over(r);
}

static void free_bytes(const void *p, size_t n, void *arg)
{
    (void)n, (void)arg;
    free((void *)(uintptr_t)p);
}

void hd_reply_take(hd_req *r, int status, const char *type, hd_buf *body)
{
    if (!r->conn || !wants_body(r) || body->len == 0) {
        hd_reply(r, status, type, body->data, body->len);
        hd_buf_free(body);
        return;
    }
    hd_conn *c = r->conn;
    put_head(r, status, type, (int64_t)body->len);
    c->out_queued += body->len;
    r->out_bytes += body->len;
    if (evbuffer_add_reference(bufferevent_get_output(c->bev), body->data, body->len, free_bytes, NULL) == 0) body->data = NULL;
    else hd_conn_soon(c, true);
    hd_buf_free(body);
    over(r);
}

void hd_reply_begin(hd_req *r, int status, const char *type)
{
    if (r->conn) put_head(r, status, type, -1);
}

size_t hd_reply_backlog(const hd_req *r)
{
    return r->conn ? evbuffer_get_length(bufferevent_get_output(r->conn->bev)) : 0;
}

void hd_reply_write(hd_req *r, const void *p, size_t n)
{
    char size[24];
    if (!r->conn || r->conn->doomed || n == 0 || !wants_body(r)) return;
    if (hd_reply_backlog(r) + n > HD_BACKLOG) { // does not read
        hd_metrics_refused(r->net->metrics, HD_REFUSED_SLOW);
        hd_conn_soon(r->conn, true);
        return;
    }
    if (r->chunked) queue(r->conn, size, (size_t)snprintf(size, sizeof size, "%zx\r\n", n));
    queue(r->conn, p, n);
    if (r->chunked) queue(r->conn, "\r\n", 2);
    r->out_bytes += n;
}

void hd_reply_end(hd_req *r)
{
    if (!r->conn) r->status = 499;
    else if (r->chunked && wants_body(r)) queue(r->conn, "0\r\n\r\n", 5);
    over(r);
}

/* {"error": {"message", "type", "param", "code"}}, OpenAI's shape. */
static void fail_plainly(hd_req *r, int status, const char *code, const char *message)
{
    const char *type = status == 401   ? "authentication_error"
                       : status == 403 ? "permission_error"
                       : status == 429 ? "rate_limit_error"
                       : status >= 500 ? "server_error"
                                       : "invalid_request_error";
    json_t *j = json_pack("{s:{s:s, s:s, s:n, s:s?}}", "error", "message", message, "type", type, "param",
                          "code", code);
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    hd_reply(r, status, "application/json", text ? text : "{}", text ? strlen(text) : 2);
    free(text);
    json_decref(j);
}

void hd_req_fail(hd_req *r, int status, const char *code, const char *message)
{
    if (r->route && r->route->fail) r->route->fail(r, status, code, message);
    else fail_plainly(r, status, code, message);
}
