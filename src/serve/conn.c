/* One connection: bytes to requests, one at a time, under deadlines that no trickle of bytes can move.
 *
 *   IDLE --first byte--> HEAD --head whole, allowed--> BODY --whole--> REPLY --finished--> IDLE ...
 *     \                    \--refused: reply, closing --> write queue empty --> LINGER --> closed
 *      \--HD_IDLE_MS        \--HD_HEAD_MS: 408
 *
 * While a request is answered the socket is still read, for that is how a hang-up is noticed; what comes is
 * kept for later (pipelining is served one after the other), and more than HD_PIPELINE of it ends the
 * connection.  A client that reads slowly has its queue grow to HD_BACKLOG at most, and must drain it at
 * HD_WRITE_RATE at least. */
#include <arpa/inet.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "serve/net_impl.h"

static size_t n_in(hd_conn *c) { return evbuffer_get_length(bufferevent_get_input(c->bev)); }
static size_t n_out(hd_conn *c) { return evbuffer_get_length(bufferevent_get_output(c->bev)); }

void hd_conn_close(hd_conn *c)
{
    hd_net *n = c->net;
    hd_req *r = c->req;
    if (c->prev) c->prev->next = c->next;
    else n->conns = c->next;
    if (c->next) c->next->prev = c->prev;
    n->n_conns--;
    if (c->secure) hd_tls_end(c->bev);
    if (c->sniff) event_free(c->sniff);
    bufferevent_free(c->bev);
    free(c);
    if (r) hd_req_gone(r); // last: its handler may do anything but touch this connection
}

void hd_conn_soon(hd_conn *c, bool doomed)
{
    c->doomed |= doomed;
    c->kick = true;
    event_active(c->net->reap, EV_READ, 0);
}

/* ---- Reading ---- */

/* Refuse before a handler has seen the request; the connection ends with the reply. */
static void refuse(hd_conn *c, int status, const char *code, const char *why)
{
    if (!c->req->peer[0]) hd_guard_peer(c->req);
    hd_req_fail(c->req, status, code, why);
}

static const char *code_of(int status)
{
    switch (status) {
    case 408: return "timeout";
    case 411: return "length_required";
    case 413: return "request_too_large";
    case 414: return "uri_too_long";
    case 415: return "unsupported_encoding";
    case 431: return "headers_too_large";
    case 501: return "unknown_method";
    case 503: return "overloaded";
    case 505: return "unknown_version";
    default: return "bad_request";
    }
}

/* http:// where https:// is spoken: a browser is led there, anything else is told. */
static void lead_to_tls(hd_req *r)
{
    const char *host = hd_h1_field(&r->in, "host");
    hd_buf b;
    hd_buf_init(&b, 16 << 10);
    bool reads = strcmp(r->in.method, "GET") == 0 || strcmp(r->in.method, "HEAD") == 0;
    if (host && reads && hd_buf_addf(&b, NULL, "https://%s%s", host, r->in.target) == HD_OK) {
        hd_reply_header(r, "Location", b.data);
        hd_reply(r, 307, NULL, NULL, 0);
    } else {
        hd_req_fail(r, 400, "https_needed", "this server speaks https: use https:// in place of http://");
    }
    hd_buf_free(&b);
}

/* The head is whole.  False: answered. */
static bool headed(hd_conn *c)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    hd_req *r = c->req;
    r->whole = !r->in.has_body;
    hd_guard_peer(r);
    if (!hd_guard_host(r)) return false;
    if (c->net->tls && !c->operators && !c->secure) return lead_to_tls(r), false;
    if (!hd_route_find(r) || !hd_guard_origin(r) || !hd_guard_right(r)) return false;
    c->phase = HD_AT_BODY;
    c->t_body = hd_now_s();
    if (hd_h1_accept(&r->in, r->route->max_body) == HD_H1_BAD) {
        refuse(c, r->in.status, code_of(r->in.status), r->in.reason);
        return false;
    }
    if (r->in.expects_continue && r->in.has_body) bufferevent_write(c->bev, go_on, sizeof go_on - 1);
    return true;
}

static void dispatch(hd_conn *c)
{
    c->phase = HD_AT_REPLY;
    c->req->handed = c->req->whole = true;
    c->req->route->handle(c->req); // may have ended the request
}

/* All bodies together stay below a cap, whatever each may be. */
static bool count_body(hd_req *r)
{
    hd_net *n = r->net;
    n->bodies += r->in.body.cap - r->counted;
    r->counted = r->in.body.cap;
    return n->bodies <= HD_BODIES;
}

/* Take what one piece of the input holds; false: there is nothing to take. */
static bool take(hd_conn *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);
    struct evbuffer_iovec piece;
    size_t used = 0;
    hd_h1_state st;
    if (evbuffer_peek(in, -1, NULL, &piece, 1) < 1 || piece.iov_len == 0) return false;
    if (!c->req) {
        if (c->net->stopping || !(c->req = hd_req_new(c))) return c->doomed = true, false;
        if (c->phase == HD_AT_IDLE) c->deadline = hd_now_s() + c->net->o.head_ms * 1e-3;
        c->phase = HD_AT_HEAD;
    }
    hd_req *r = c->req;
    st = hd_h1_feed(&r->in, piece.iov_base, piece.iov_len, &used);
    evbuffer_drain(in, used);
    if (st == HD_H1_HEADED) {
        if (!headed(c)) return true;
        st = r->in.has_body ? HD_H1_MORE : HD_H1_DONE;
    }
    if (!count_body(r)) refuse(c, 503, "overloaded", "too many bytes of requests are in memory");
    else if (st == HD_H1_BAD) refuse(c, r->in.status, code_of(r->in.status), r->in.reason);
    else if (st == HD_H1_DONE) dispatch(c);
    return true;
}

/* The queue is empty and nothing more is to be said. */
static void finish(hd_conn *c)
{
    if (c->phase == HD_AT_LINGER) return;
    c->phase = HD_AT_LINGER;
    c->deadline = hd_now_s() + HD_LINGER_MS * 1e-3;
    if (c->secure) c->doomed = true;
    else shutdown(bufferevent_getfd(c->bev), SHUT_WR); // closing with bytes unread would take the reply back
}

void hd_conn_pump(hd_conn *c)
{
    if (c->pumping) return;
    c->pumping = true;
    c->kick = false;
    while (!c->closing && !c->doomed && !(c->req && c->req->handed) && take(c)) continue;
    c->pumping = false;
    if (c->closing) {
        evbuffer_drain(bufferevent_get_input(c->bev), n_in(c));
        if (n_out(c) == 0) finish(c);
    } else if (n_in(c) > HD_PIPELINE) {
        c->doomed = true;
    }
    if (c->doomed) hd_conn_close(c);
}

static void on_read(struct bufferevent *bev, void *arg)
{
    hd_conn *c = arg;
    (void)bev;
    hd_net_step(c->net);
    hd_conn_pump(c);
}

static void on_write(struct bufferevent *bev, void *arg)
{
    hd_conn *c = arg;
    (void)bev;
    hd_net_step(c->net);
    if (c->closing) hd_conn_pump(c);
}

/* Hung up, or broken; what was sent before the hang-up and is not answered is of no interest to anybody.  But
 * a client that only ended its own sending may still read a reply that is under way. */
static void on_event(struct bufferevent *bev, short what, void *arg)
{
    hd_conn *c = arg;
    (void)bev;
    hd_net_step(c->net);
    if (!(what & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT))) return;
    if ((what & BEV_EVENT_EOF) && !c->req && n_out(c) > 0 && c->phase != HD_AT_LINGER) c->closing = true;
    else hd_conn_close(c);
}

/* ---- Deadlines ---- */

static bool body_is_late(const hd_conn *c, double now)
{
    double may = c->net->o.body_ms * 1e-3 + (double)c->req->in.body.len / HD_BODY_RATE;
    return now > c->t_body + (may < 600 ? may : 600);
}

static bool reader_is_slow(hd_conn *c, double now)
{
    size_t left = n_out(c);
    if (left == 0) return false;
    return now > c->out_since + c->net->o.write_ms * 1e-3 + (double)(c->out_queued - left) / HD_WRITE_RATE;
}

void hd_conn_check(hd_conn *c, double now)
{
    bool late = c->phase != HD_AT_BODY && c->phase != HD_AT_REPLY && now > c->deadline;
    if (reader_is_slow(c, now)) {
        hd_metrics_refused(c->net->metrics, HD_REFUSED_SLOW);
        hd_conn_close(c);
    } else if (c->closing && c->phase != HD_AT_LINGER) {
        return; // its queue empties
    } else if ((c->phase == HD_AT_HEAD && late && c->req) ||
               (c->phase == HD_AT_BODY && body_is_late(c, now))) {
        hd_metrics_refused(c->net->metrics, HD_REFUSED_SLOW);
        c->pumping = true; // the end of the request needs no kick: pump follows
        refuse(c, 408, "timeout", "the request took too long to arrive");
        c->pumping = false;
        hd_conn_pump(c);
    } else if (late) {
        hd_conn_close(c);
    }
}

/* ---- Accepting ---- */

static void read_addr(uint8_t addr[16], const struct sockaddr *sa)
{
    memset(addr, 0, 16);
    if (sa->sa_family == AF_INET6) {
        memcpy(addr, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
    } else if (sa->sa_family == AF_INET) {
        addr[10] = addr[11] = 0xff;
        memcpy(addr + 12, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
    }
}

/* One address: all of an IPv4 address, the network half of an IPv6 one, since who has one
 * has 2^64 of them. */
static bool same_address(const uint8_t a[16], const uint8_t b[16])
{
    static const uint8_t v4[12] = {[10] = 0xff, 0xff};
    return memcmp(a, b, memcmp(a, v4, 12) == 0 ? 16 : 8) == 0;
}

/* How much a connection would be missed: one between requests least, then an unfinished head, the older the
 * less, then a body, the slower the less.  One that is being answered is never cut: infinitely. */
static double worth(hd_conn *c, double now)
{
    if (n_out(c) > 0 || c->closing) return INFINITY;
    if (c->phase == HD_AT_IDLE) return c->deadline - now - 2e6;
    if (c->phase == HD_AT_HEAD) return c->deadline - now - 1e6;
    if (c->phase == HD_AT_BODY) return ((double)c->req->in.body.len + 1) / (now - c->t_body + 0.05);
    return INFINITY;
}

/* Room for one more?  When all places are taken somebody makes place who asks nothing, or is slow to: an
 * honest request is whole within milliseconds, so that a crowd of slow ones keeps nobody out. */
static bool admit(hd_net *n, const uint8_t addr[16], bool trusted)
{
    int same = 0;
    double least = INFINITY, now = hd_now_s();
    hd_conn *out = NULL;
    for (hd_conn *c = n->conns; c; c = c->next) {
        same += same_address(c->addr, addr);
        double w = n->n_conns < n->o.max_conns ? INFINITY : worth(c, now);
        if (w < least) least = w, out = c;
    }
    if (!trusted && same >= n->o.max_conns_per_ip)
        return hd_metrics_refused(n->metrics, HD_REFUSED_ADDRESS), false;
    if (n->n_conns < n->o.max_conns) return true;
    hd_metrics_refused(n->metrics, HD_REFUSED_FULL);
    if (!out) return false;
    hd_conn_close(out);
    return true;
}

static void set_socket(int fd)
{
    int on = 1, idle = 60, interval = 15, tries = 4, out = 256 << 10;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on); // a phone that left without a word
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &tries, sizeof tries);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &out,
               sizeof out); // what a client that does not read can hold in the kernel
}

static void converse(hd_conn *c)
{
    bufferevent_setcb(c->bev, on_read, on_write, on_event, c);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

/* The first byte of a client of a TLS listener: 22 begins a handshake.  Anything else is answered in the
 * clear, with where to go. */
static void on_first(evutil_socket_t fd, short what, void *arg)
{
    hd_conn *c = arg;
    uint8_t first;
    (void)what;
    hd_net_step(c->net);
    event_free(c->sniff);
    c->sniff = NULL;
    if (recv(fd, &first, 1, MSG_PEEK) == 1 && first == 22) {
        struct bufferevent *tls = hd_tls_accept(c->net->tls, c->net->base, fd);
        if (!tls) return hd_conn_close(c);
        bufferevent_setfd(c->bev, -1);
        bufferevent_free(c->bev);
        c->bev = tls;
        c->secure = true;
    }
    converse(c);
}

void hd_conn_accept(hd_net *n, int fd, const struct sockaddr *sa, bool operators)
{
    uint8_t addr[16];
    char peer[48];
    read_addr(addr, sa);
    hd_addr_text(peer, addr);
    bool trusted = hd_guard_trusted(n, peer);
    hd_conn *c = admit(n, addr, trusted) ? calloc(1, sizeof *c) : NULL;
    if (!c) {
        close(fd);
        return;
    }
    set_socket(fd);
    c->bev = bufferevent_socket_new(n->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (!c->bev) {
        close(fd);
        free(c);
        return;
    }
    c->net = n;
    memcpy(c->addr, addr, sizeof addr);
    memcpy(c->peer, peer, sizeof peer);
    c->trusted = trusted;
    c->operators = operators;
    c->phase = HD_AT_HEAD; // the first head's time runs from here
    c->deadline = hd_now_s() + n->o.head_ms * 1e-3;
    c->next = n->conns;
    if (c->next) c->next->prev = c;
    n->conns = c;
    n->n_conns++;
    if (n->tls && !operators) c->sniff = event_new(n->base, fd, EV_READ, on_first, c);
    if (!n->tls || operators) converse(c);
    else if (!c->sniff || event_add(c->sniff, NULL) != 0) hd_conn_close(c);
}
