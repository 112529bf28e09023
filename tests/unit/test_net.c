/* The network side as a client meets it, over real sockets: keep-alive, refusals, rights, deadlines,
 * hang-ups, back-pressure, stopping.  The server runs in a thread with routes made for this; deadlines are
 * short here so that the test is. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "serve/cert.h"
#include "serve/routes.h"

#include "test.h"

static hd_err err;

/* ---- The server ---- */

static atomic_int n_gone, n_posted;
static hd_net *net;

static void reply_text(hd_req *r, const char *s) { hd_reply(r, 200, "text/plain", s, strlen(s)); }
static void ok(hd_req *r) { reply_text(r, "fine"); }
static void param(hd_req *r) { reply_text(r, hd_req_param(r)); }
static void echo(hd_req *r)
{
    size_t n;
    const char *body = hd_req_body(r, &n);
    hd_reply(r, 200, "text/plain", body, n);
}
static void user(hd_req *r)
{
    char s[32];
    snprintf(s, sizeof s, "%016llx", (unsigned long long)hd_req_user(r));
    reply_text(r, s);
}

/* Waits for ever, and counts those who leave. */
static void count_gone(void *arg) { (void)arg, n_gone++; }
static void wait_long(hd_req *r) { hd_req_on_gone(r, count_gone, NULL); }

/* Does not ask to be told; its answer comes late, whether anybody is there or not. */
static void late_reply(void *arg) { reply_text(arg, "late"), n_posted++; }
static void late(hd_req *r) { hd_net_after(hd_req_net(r), 300, late_reply, r); }

/* Ten pieces, 20 ms apart. */
typedef struct {
    hd_req *r;
    int n;
    hd_timer *timer;
} stream;
static void stream_gone(void *arg)
{
    stream *s = arg;
    hd_net_cancel(s->timer);
    free(s);
    n_gone++;
}
static void stream_step(void *arg)
{
    stream *s = arg;
    hd_reply_write(s->r, "piece;", 6);
    if (++s->n < 10) {
        s->timer = hd_net_after(net, 20, stream_step, s);
        return;
    }
    hd_reply_end(s->r);
    free(s);
}
static void start_stream(hd_req *r)
{
    stream *s = calloc(1, sizeof *s);
    if (!s) return;
    s->r = r;
    hd_req_on_gone(r, stream_gone, s);
    hd_reply_begin(r, 200, "text/event-stream");
    stream_step(s);
}

/* More than anybody reads. */
static void flood_step(void *arg)
{
    static char block[32 << 10];
    stream *s = arg;
    hd_reply_write(s->r, block, sizeof block);
    s->timer = hd_net_after(net, 1, flood_step, s);
}
static void flood(hd_req *r)
{
    stream *s = calloc(1, sizeof *s);
    if (!s) return;
    s->r = r;
    hd_req_on_gone(r, stream_gone, s);
    hd_reply_begin(r, 200, "text/plain");
    flood_step(s);
}

static void own_fail(hd_req *r, int status, const char *code, const char *message)
{
    (void)message;
    hd_reply(r, status, "text/plain", code, strlen(code));
}

static const hd_route rows[] = {
    {"GET", "/ok", HD_RIGHT_ANYONE, 0, ok, NULL, true},
    {"POST", "/ok", HD_RIGHT_ANYONE, 100, echo, NULL, false},
    {"POST", "/echo", HD_RIGHT_API, 1000, echo, own_fail, false},
    {"POST", "/page", HD_RIGHT_PAGE, 1000, echo, NULL, false},
    {"GET", "/x/{id}/y", HD_RIGHT_ANYONE, 0, param, NULL, false},
    {"GET", "/user", HD_RIGHT_API, 0, user, NULL, false},
    {"GET", "/wait", HD_RIGHT_API, 0, wait_long, NULL, false},
    {"GET", "/late", HD_RIGHT_API, 0, late, NULL, false},
    {"GET", "/stream", HD_RIGHT_API, 0, start_stream, NULL, false},
    {"GET", "/flood", HD_RIGHT_API, 0, flood, NULL, false},
    {"GET", "/secret", HD_RIGHT_OPERATOR, 0, ok, NULL, false},
    {0},
};
static const hd_route *const routes[] = {rows, hd_routes_login, NULL};

static pthread_t thread;
static void *run_net(void *arg)
{
    hd_err e = {0};
    (void)arg;
    if (hd_net_run(net, 2000, &e) != HD_OK) fprintf(stderr, "run: %s\n", e.msg);
    return NULL;
}

static void start(hd_net_opts o)
{
    o.address = o.address ? o.address : "127.0.0.1";
    o.routes = routes;
    o.log_fd = -1;
    o.operator_port = -1;
    CHECK_OK(hd_net_open(&net, &o, &err));
    if (!net) exit(1);
    pthread_create(&thread, NULL, run_net, NULL);
}

static void stop(void)
{
    hd_net_stop(net);
    pthread_join(thread, NULL);
    hd_net_close(net);
    net = NULL;
}

/* ---- A client ---- */

static int dial_port(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}
static int dial(void) { return dial_port(hd_net_port(net)); }

static void say(int fd, const char *s)
{
    if (send(fd, s, strlen(s), MSG_NOSIGNAL) < 0) return; // what comes back tells
}

static char got[1 << 20];

/* Read until the text holds `until`, the end, or five seconds; true when it came. */
static bool hear(int fd, const char *until)
{
    size_t n = 0;
    double by = hd_now_s() + 5;
    got[0] = 0;
    while (hd_now_s() < by && n < sizeof got - 1) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 100) <= 0) continue;
        ssize_t k = recv(fd, got + n, sizeof got - 1 - n, 0);
        if (k <= 0) return until == NULL;
        n += (size_t)k;
        got[n] = 0;
        if (until && strstr(got, until)) return true;
    }
    return false;
}

/* The whole of what a connection answers: these bytes, all up to its end. */
static const char *ask(const char *bytes)
{
    int fd = dial();
    say(fd, bytes);
    if (!hear(fd, NULL)) strcpy(got, "not closed");
    close(fd);
    return got;
}

static int count(const char *s, const char *what)
{
    int n = 0;
    for (; (s = strstr(s, what)); s++) n++;
    return n;
}

static bool becomes(const atomic_int *v, int want)
{
    for (int i = 0; i < 500 && *v != want; i++) usleep(10000);
    return *v == want;
}

#define H     "Host: localhost\r\n"
#define CLOSE "Connection: close\r\n"

/* ---- Tests ---- */

static void plain(void)
{
    CHECK(strstr(ask("GET /ok HTTP/1.1\r\n" H CLOSE "\r\n"), "HTTP/1.1 200 OK\r\n") == got, "%s", got);
    CHECK(strstr(got, "\r\n\r\nfine") && strstr(got, "Content-Length: 4\r\n") &&
              strstr(got, "X-Request-Id: req-"),
          "%s", got);
    CHECK(strstr(got, "nosniff") && strstr(got, "Content-Security-Policy:") &&
              strstr(got, "Cache-Control: no-store"),
          "%s", got);
    CHECK(strstr(ask("HEAD /ok HTTP/1.1\r\n" H CLOSE "\r\n"), "Content-Length: 4\r\n") &&
              !strstr(got, "fine"),
          "%s", got);
    CHECK(strstr(ask("GET /v1/ok HTTP/1.1\r\n" H CLOSE "\r\n"), " 200 "), "%s", got);
    CHECK(strstr(ask("GET /beta/ok HTTP/1.1\r\n" H CLOSE "\r\n"), " 200 "), "%s", got);
    CHECK(strstr(ask("GET /v2/ok HTTP/1.1\r\n" H CLOSE "\r\n"), " 404 "), "%s", got);
    CHECK(strstr(ask("GET /ok/ HTTP/1.1\r\n" H CLOSE "\r\n"), " 404 "), "%s", got);
    CHECK(strstr(ask("GET /x/a%20b/y HTTP/1.1\r\n" H CLOSE "\r\n"), "\r\n\r\na b"), "%s", got);
    CHECK(strstr(ask("GET /x//y HTTP/1.1\r\n" H CLOSE "\r\n"), " 404 "), "%s", got);
    CHECK(strstr(ask("GET /x/a/b/y HTTP/1.1\r\n" H CLOSE "\r\n"), " 404 "), "%s", got);
    CHECK(strstr(ask("DELETE /ok HTTP/1.1\r\n" H CLOSE "\r\n"), " 405 ") &&
              strstr(got, "Allow: GET, HEAD, POST\r\n"),
          "%s", got);
    CHECK(strstr(ask("GET /secret HTTP/1.1\r\n" H CLOSE "\r\n"), " 404 "), "%s", got);
    CHECK(strstr(ask("GET /ok HTTP/1.0\r\n\r\n"), "\r\n\r\nfine"), "%s", got);
}

static void bodies(void)
{
    CHECK(strstr(ask("POST /echo HTTP/1.1\r\n" H CLOSE "Content-Length: 5\r\n\r\nhello"), "\r\n\r\nhello"),
          "%s", got);
    CHECK(strstr(ask("POST /echo HTTP/1.1\r\n" H CLOSE
                     "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
                 "\r\n\r\nhello"),
          "%s", got);
    CHECK(strstr(ask("POST /echo HTTP/1.1\r\n" H "Content-Length: 1001\r\n\r\n"), " 413 ") &&
              strstr(got, "\r\n\r\nrequest_too_large"),
          "%s", got);
    CHECK(strstr(ask("POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3e9\r\n"), " 413 "), "%s",
          got);
    CHECK(strstr(ask("POST /echo HTTP/1.1\r\n" H "\r\n"), " 411 "), "%s", got);
    CHECK(strstr(ask("GET /ok HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc"), " 413 "), "%s", got);
    int fd = dial();
    say(fd, "POST /echo HTTP/1.1\r\n" H "Content-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    CHECK(hear(fd, "HTTP/1.1 100 Continue\r\n\r\n"), "%s", got);
    say(fd, "hi");
    CHECK(hear(fd, "\r\n\r\nhi"), "%s", got);
    close(fd);
    /* What is refused is not asked to come. */
    ask("POST /echo HTTP/1.1\r\n" H "Content-Length: 2000\r\nExpect: 100-continue\r\n\r\n");
    CHECK(strstr(got, "HTTP/1.1 413 ") == got, "%s", got);
}

static void several_on_one(void)
{
    int fd = dial();
    for (int i = 0; i < 3; i++) {
        say(fd, "GET /ok HTTP/1.1\r\n" H "\r\n");
        CHECK(hear(fd, "\r\n\r\nfine"), "%s", got);
    }
    say(fd, "GET /nothing HTTP/1.1\r\n" H "\r\n"); // a 404 does not end a connection
    CHECK(hear(fd, "not_found") && strstr(got, "keep-alive"), "%s", got);
    say(fd, "GET /ok HTTP/1.1\r\n" H "\r\n");
    CHECK(hear(fd, "\r\n\r\nfine"), "%s", got);
    close(fd);
    /* Sent at once, answered in order, also behind a stream. */
    ask("GET /x/1/y HTTP/1.1\r\n" H "\r\nGET /stream HTTP/1.1\r\n" H "\r\nPOST /echo HTTP/1.1\r\n" H
        "Content-Length: 3\r\n\r\ntwo"
        "GET /x/3/y HTTP/1.1\r\n" H CLOSE "\r\n");
    const char *a = strstr(got, "\r\n\r\n1HTTP"), *b = strstr(got, "piece;"),
               *c = strstr(got, "\r\n\r\ntwoHTTP"), *d = strstr(got, "\r\n\r\n3");
    CHECK(a && b && c && d && a < b && b < c && c < d && count(got, "piece;") == 10, "%s", got);
}

/* After a refusal nothing of what follows is answered. */
static void smuggling(void)
{
    static const char *const head[] = {
        "POST /echo HTTP/1.1\r\n" H "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /echo HTTP/1.1\r\n" H "Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
        "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0;x\r\n\r\n",
        "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
        "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding: x\r\nContent-Length: 0\r\n\r\n",
        "POST /echo HTTP/1.1\r\n" H "Transfer-Encoding:\x0b"
        "chunked\r\n\r\n0\r\n\r\n",
        "GET /ok HTTP/1.1\r\n" H "X: a\n\n",
        "GET /ok HTTP/1.1\n" H "\r\n",
        "GET /ok HTTP/1.1\r\n" H "Content-Length : 0\r\n\r\n",
        "GET /ok HTTP/1.1\r\n" H H "\r\n",
        "GET /ok HTTP/1.1\r\n" H "Upgrade: h2c\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01",
    };
    char all[2000];
    for (size_t i = 0; i < sizeof head / sizeof head[0]; i++) {
        snprintf(all, sizeof all, "%sGET /ok HTTP/1.1\r\n" H CLOSE "\r\n", head[i]);
        ask(all);
        CHECK(strstr(got, "HTTP/1.1 400 ") == got && count(got, "HTTP/1.1 ") == 1 &&
                  strstr(got, "Connection: close"),
              "%zu: %s", i, got);
    }
}

static void names_and_origins(void)
{
    CHECK(strstr(ask("GET /ok HTTP/1.1\r\nHost: evil.example\r\n" CLOSE "\r\n"), " 403 ") &&
              strstr(got, "host_not_allowed"),
          "%s", got);
    CHECK(strstr(ask("GET /ok HTTP/1.1\r\nHost: localhost.evil.example\r\n" CLOSE "\r\n"), " 403 "), "%s",
          got);
    CHECK(strstr(ask("GET /ok HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n" CLOSE "\r\n"), " 403 "), "%s",
          got);
    CHECK(strstr(ask("GET /ok HTTP/1.1\r\nHost: Chat.Example:80\r\n" CLOSE "\r\n"), " 200 "), "%s", got);
    CHECK(strstr(ask("GET /ok HTTP/1.1\r\nHost: [::1]:80\r\n" CLOSE "\r\n"), " 200 "), "%s", got);
#define POST_FROM(path, origin)                                                                              \
    "POST " path " HTTP/1.1\r\nHost: localhost:80\r\n" CLOSE "Content-Length: 2\r\n" origin "\r\nhi"
    CHECK(strstr(ask(POST_FROM("/echo", "Origin: https://evil.example\r\n")), " 403 "), "%s", got);
    CHECK(strstr(ask(POST_FROM("/echo", "Origin: null\r\n")), " 403 "), "%s", got);
    CHECK(strstr(ask(POST_FROM("/echo", "Origin: http://localhost:81\r\n")), " 403 "), "%s", got);
    CHECK(strstr(ask(POST_FROM("/echo", "Sec-Fetch-Site: cross-site\r\n")), " 403 "), "%s", got);
    CHECK(strstr(ask(POST_FROM("/ok", "Origin: https://evil.example\r\n")), " 403 "), "%s", got);
    CHECK(strstr(ask(POST_FROM("/page", "Origin: http://localhost:80\r\n")), "\r\n\r\nhi"), "%s", got);
    CHECK(strstr(ask(POST_FROM("/page", "Origin: https://app.example\r\n")), " 403 "), "%s", got);
    CHECK(strstr(ask(POST_FROM("/echo", "Origin: https://app.example\r\n")),
                 "Access-Control-Allow-Origin: https://app.example\r\n"),
          "%s", got);
    CHECK(strstr(ask("GET /ok HTTP/1.1\r\n" H CLOSE "Origin: https://evil.example\r\n\r\n"), " 200 ") &&
              !strstr(got, "Access-Control"),
          "%s", got);
#define PREFLIGHT(origin)                                                                                    \
    "OPTIONS /echo HTTP/1.1\r\n" H CLOSE "Origin: " origin "\r\nAccess-Control-Request-Method: POST\r\n"     \
    "Access-Control-Request-Headers: authorization, content-type\r\n\r\n"
    ask(PREFLIGHT("https://app.example"));
    CHECK(strstr(got, " 204 ") && strstr(got, "Allow-Methods: POST\r\n") &&
              strstr(got, "Allow-Headers: authorization, content-type\r\n"),
          "%s", got);
    CHECK(strstr(ask(PREFLIGHT("https://evil.example")), " 403 "), "%s", got);
}

/* The sum of some other key. */
static const char key_hash[] = "9c1c1ac30e1d2c2d5d7e2d4ad40e2bf3fdd2a1f8d2b0c2f9e1f9c7d6a3b5c4d2";

static void rights(void)
{
    CHECK(strstr(ask("GET /ok HTTP/1.1\r\n" H CLOSE "\r\n"), " 200 "), "%s", got);
    CHECK(strstr(ask("GET /user HTTP/1.1\r\n" H CLOSE "\r\n"), " 401 ") &&
              strstr(got, "WWW-Authenticate: Bearer"),
          "%s", got);
    CHECK(strstr(ask("GET /user HTTP/1.1\r\n" H CLOSE "Authorization: Bearer wrong\r\n\r\n"), " 401 "), "%s",
          got);
    CHECK(strstr(ask("GET /user HTTP/1.1\r\n" H CLOSE "Authorization: Basic abc\r\n\r\n"), " 401 "), "%s",
          got);
    CHECK(strstr(ask("GET /user HTTP/1.1\r\n" H CLOSE "Authorization: Bearer abc\r\n\r\n"), " 200 "), "%s",
          got);
    CHECK(strstr(ask("GET /user HTTP/1.1\r\n" H CLOSE "X-Api-Key: abc\r\n\r\n"), " 200 "), "%s", got);
    CHECK(strstr(ask("POST /page HTTP/1.1\r\n" H CLOSE "Content-Length: 0\r\n\r\n"), " 401 "), "%s", got);
    /* The body of who may not ask is not waited for. */
    CHECK(strstr(ask("POST /echo HTTP/1.1\r\n" H "Content-Length: 900\r\n\r\n"), " 401 ") &&
              strstr(got, "\r\n\r\ninvalid_api_key"),
          "%s", got);
}

/* The value of the cookie that `got` sets, behind "Cookie: ". */
static bool take_cookie(char *out, size_t size, const char *name)
{
    const char *s = strstr(got, "Set-Cookie: "), *end = s ? strchr(s, ';') : NULL;
    if (!end || strncmp(s + 12, name, strlen(name)) != 0) return false;
    return snprintf(out, size, "Cookie: x=y; %.*s; z", (int)(end - s - 12), s + 12) < (int)size;
}

#define LOGIN(body, n) "POST /login HTTP/1.1\r\n" H CLOSE "Content-Length: " n "\r\n\r\n" body
static void logins(void)
{
    char cookie[400], bytes[1000];
    CHECK(strstr(ask("GET /login HTTP/1.1\r\n" H CLOSE "\r\n"), "{\"needed\":true,\"done\":false}"), "%s",
          got);
    CHECK(strstr(ask(LOGIN("{\"key\":\"abd\"}", "13")), " 401 ") && !strstr(got, "Set-Cookie"), "%s", got);
    CHECK(strstr(ask(LOGIN("{\"key\":1}", "9")), " 400 "), "%s", got);
    CHECK(strstr(ask(LOGIN("{\"key\":\"abc\"}", "13")), " 204 ") && strstr(got, "HttpOnly; SameSite=Strict"),
          "%s", got);
    CHECK(take_cookie(cookie, sizeof cookie, "hadal="), "%s", got);
    snprintf(bytes, sizeof bytes, "GET /user HTTP/1.1\r\n" H CLOSE "%s\r\n\r\n", cookie);
    CHECK(strstr(ask(bytes), " 200 "), "%s", got);
    snprintf(bytes, sizeof bytes, "GET /login HTTP/1.1\r\n" H CLOSE "%s\r\n\r\n", cookie);
    CHECK(strstr(ask(bytes), "\"done\":true"), "%s", got);
    snprintf(bytes, sizeof bytes,
             "POST /page HTTP/1.1\r\n" H CLOSE
             "Origin: http://evil.example\r\nContent-Length: 0\r\n%s\r\n\r\n",
             cookie);
    CHECK(strstr(ask(bytes), " 403 "), "%s", got);
    int n_let_in = 0; // no digit of it can be another
    char *value = strstr(cookie, "hadal=") + 6;
    for (size_t i = 0; i < 128; i += 7) {
        char was = value[i];
        value[i] = was == '0' ? '1' : '0';
        snprintf(bytes, sizeof bytes, "GET /user HTTP/1.1\r\n" H CLOSE "%s\r\n\r\n", cookie);
        n_let_in += strstr(ask(bytes), " 200 ") != NULL;
        value[i] = was;
    }
    CHECK(n_let_in == 0, "%d", n_let_in);
    CHECK(strstr(ask("GET /once/0123456789abcdef0123456789abcdef HTTP/1.1\r\n" H CLOSE "\r\n"), " 403 "),
          "%s", got);
    snprintf(bytes, sizeof bytes, "GET /once/%s HTTP/1.1\r\n" H CLOSE "\r\n", hd_net_link(net));
    CHECK(strstr(ask(bytes), " 303 ") && take_cookie(cookie, sizeof cookie, "hadal="), "%s", got);
    CHECK(strstr(ask(bytes), " 403 "), "%s", got); // once
    snprintf(bytes, sizeof bytes, "GET /user HTTP/1.1\r\n" H CLOSE "%s\r\n\r\n", cookie);
    CHECK(strstr(ask(bytes), " 200 "), "%s", got);
}

/* A request over TLS into `got`. */
static bool ask_tls(const char *bytes)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(ctx);
    int fd = dial(), n = 0, k = 0;
    SSL_set_fd(ssl, fd);
    bool ok = SSL_connect(ssl) == 1 && SSL_write(ssl, bytes, (int)strlen(bytes)) > 0;
    while (ok && n < (int)sizeof got - 1 && (k = SSL_read(ssl, got + n, (int)sizeof got - 1 - n)) > 0) n += k;
    got[n] = 0;
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(fd);
    return ok;
}

static void tls(const char *dir)
{
    char cert[200], key[200], cert2[200], key2[200];
    const char *const names[] = {"127.0.0.1", "localhost", NULL}, *const others[] = {"192.168.7.7", NULL};
    struct stat a, b;
    snprintf(cert, sizeof cert, "%s/cert.pem", dir);
    snprintf(key, sizeof key, "%s/key.pem", dir);
    snprintf(cert2, sizeof cert2, "%s/cert2.pem", dir);
    snprintf(key2, sizeof key2, "%s/key2.pem", dir);
    CHECK_OK(hd_cert_ready(cert, key, others, &err));
    CHECK_OK(hd_cert_ready(cert, key, names, &err)); // does not fit: made anew
    CHECK(stat(cert, &a) == 0 && stat(key, &b) == 0 && (b.st_mode & 0777) == 0600, "%o", b.st_mode);
    CHECK_OK(hd_cert_ready(cert, key, names, &err)); // kept
    CHECK(stat(cert, &b) == 0 && a.st_ino == b.st_ino, "%s", cert);
    CHECK_OK(hd_cert_ready(cert2, key2, names, &err));
    CHECK(rename(key2, key) == 0 && unlink(cert2) == 0); // as if it had been killed between the two files
    CHECK_OK(hd_cert_ready(cert, key, names, &err));     // made anew: the handshakes below need a pair
    CHECK(stat(cert, &b) == 0 && a.st_ino != b.st_ino, "%s", cert);
    start((hd_net_opts){.cert_file = cert, .key_file = key, .head_ms = 500});
    CHECK(ask_tls("GET /ok HTTP/1.1\r\n" H CLOSE "\r\n"), "%s", got);
    CHECK(strstr(got, "\r\n\r\nfine") && strstr(got, "Strict-Transport-Security"), "%s", got);
    CHECK(ask_tls("GET /stream HTTP/1.1\r\n" H CLOSE "\r\n") && count(got, "piece;") == 10, "%s", got);
    CHECK(ask_tls("GET /ok HTTP/1.1\n\n") && strstr(got, " 400 "), "%s", got);
    ask("GET /ok?a=b HTTP/1.1\r\nHost: localhost:77\r\n" CLOSE "\r\n"); // in the clear: led on
    CHECK(strstr(got, " 307 ") && strstr(got, "Location: https://localhost:77/ok?a=b\r\n"), "%s", got);
    CHECK(strstr(ask("POST /ok HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabc"), "https_needed"), "%s", got);
    CHECK(strstr(ask("\x16\x03\x01\x02\x00\x01"), "HTTP") == NULL, "%s",
          got); // half a handshake: closed in time
    stop();
    unlink(cert);
    unlink(key);
}

static void users_behind_a_proxy(void)
{
    char first[64], again[64], other[64], forged[64];
#define FROM(list) "GET /user HTTP/1.1\r\n" H CLOSE "X-Forwarded-For: " list "\r\n\r\n"
    snprintf(first, sizeof first, "%.60s", strstr(ask(FROM("203.0.113.7")), "\r\n\r\n"));
    snprintf(again, sizeof again, "%.60s", strstr(ask(FROM("203.0.113.7, 127.0.0.1")), "\r\n\r\n"));
    snprintf(forged, sizeof forged, "%.60s", strstr(ask(FROM("198.51.100.1, 203.0.113.7")), "\r\n\r\n"));
    snprintf(other, sizeof other, "%.60s", strstr(ask(FROM("203.0.113.8")), "\r\n\r\n"));
    CHECK(strcmp(first, again) == 0 && strcmp(first, forged) == 0, "%s %s %s", first, again, forged);
    CHECK(strcmp(first, other) != 0, "%s", first);
    static const char *const odd[] = {
        FROM(""), FROM(","), FROM("garbage"), FROM("1.2.3.4.5, x"), FROM("::::"), FROM("203.0.113.7, ,, ,")};
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) CHECK(strstr(ask(odd[i]), " 200 "), "%s", got);
}

static void streams(void)
{
    ask("GET /stream HTTP/1.1\r\n" H CLOSE "\r\n");
    CHECK(strstr(got, "Transfer-Encoding: chunked") && count(got, "6\r\npiece;\r\n") == 10 &&
              strstr(got, "\r\n0\r\n\r\n"),
          "%s", got);
    ask("GET /stream HTTP/1.0\r\n\r\n");
    CHECK(!strstr(got, "chunked") && strstr(got, "piece;piece;") && count(got, "piece;") == 10, "%s", got);
}

static void hang_ups(void)
{
    n_gone = 0;
    int fd = dial();
    say(fd, "GET /wait HTTP/1.1\r\n" H "\r\n");
    usleep(50000);
    close(fd);
    CHECK(becomes(&n_gone, 1), "%d", n_gone);
    fd = dial(); // also when more has been sent meanwhile
    say(fd, "GET /wait HTTP/1.1\r\n" H "\r\nGET /ok HTTP/1.1\r\n" H "\r\n");
    usleep(50000);
    close(fd);
    CHECK(becomes(&n_gone, 2), "%d", n_gone);
    fd = dial();
    say(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    CHECK(hear(fd, "piece;"), "%s", got);
    close(fd);
    CHECK(becomes(&n_gone, 3), "%d", n_gone);
    n_posted = 0; // a handler that did not ask to be told answers nobody
    fd = dial();
    say(fd, "GET /late HTTP/1.1\r\n" H "\r\n");
    usleep(50000);
    close(fd);
    CHECK(becomes(&n_posted, 1), "%d", n_posted);
    fd = dial(); // endless further requests are no way to keep a connection
    say(fd, "GET /wait HTTP/1.1\r\n" H "\r\n");
    static char junk[100001];
    memset(junk, 'x', sizeof junk - 1);
    say(fd, junk);
    CHECK(becomes(&n_gone, 4), "%d", n_gone);
    close(fd);
}

static void slow_ones(void)
{
    int fd = dial(), silent = dial();
    static const char head[] = "GET /ok HTTP/1.1\r\n" H "X: 0123456789012345678901234567890123456789";
    for (size_t i = 0; head[i]; i++) { // a byte now and then: the deadline stays where it was
        char c[2] = {head[i], 0};
        say(fd, c);
        usleep(30000);
    }
    CHECK(hear(fd, " 408 "), "%s", got);
    CHECK(hear(silent, NULL) && got[0] == 0, "%s", got);
    close(fd);
    close(silent);
    fd = dial();
    say(fd, "POST /echo HTTP/1.1\r\n" H "Content-Length: 900\r\n\r\n");
    for (int i = 0; i < 60; i++) say(fd, "x"), usleep(30000);
    CHECK(hear(fd, " 408 "), "%s", got);
    close(fd);
    n_gone = 0; // who asks and does not read
    fd = dial();
    say(fd, "GET /flood HTTP/1.1\r\n" H "\r\n");
    CHECK(becomes(&n_gone, 1), "%d", n_gone);
    close(fd);
}

static void many(void)
{
    int fd[12], n_open = 0;
    for (int i = 0; i < 12; i++) fd[i] = dial();
    for (int i = 0; i < 12; i++) {
        say(fd[i], "GET /ok HTTP/1.1\r\n" H "\r\n");
        n_open += hear(fd[i], "\r\n\r\nfine");
    }
    CHECK(n_open == 8, "%d", n_open); // max_conns_per_ip
    for (int i = 0; i < 12; i++) close(fd[i]);
}

/* All places taken by those who never finish their requests: who does is served. */
static void crowded(void)
{
    int fd[40], n_served = 0;
    for (int i = 0; i < 40; i++)
        say(fd[i] = dial(),
            i % 2 ? "GET /ok HTTP/1.1\r\nX" : "POST /echo HTTP/1.1\r\n" H "Content-Length: 9\r\n\r\nx");
    for (int i = 0; i < 5; i++)
        n_served += strstr(ask("GET /ok HTTP/1.1\r\n" H CLOSE "\r\n"), "\r\n\r\nfine") != NULL;
    CHECK(n_served == 5, "%d", n_served);
    for (int i = 0; i < 40; i++) close(fd[i]);
    for (int i = 0; i < 16; i++)
        say(fd[i] = dial(), "GET /wait HTTP/1.1\r\n" H "\r\n"); // these are being served
    usleep(100000);
    CHECK(strcmp(ask("GET /ok HTTP/1.1\r\n" H CLOSE "\r\n"), "") == 0, "%s", got);
    for (int i = 0; i < 16; i++) close(fd[i]);
}

static void operators(void)
{
    int fd = dial_port(hd_net_operator_port(net));
    say(fd, "GET /secret HTTP/1.1\r\n" H "\r\n");
    CHECK(hear(fd, "\r\n\r\nfine"), "%s", got);
    say(fd, "GET /ok HTTP/1.1\r\n" H "\r\n");
    CHECK(hear(fd, " 404 "), "%s", got);
    close(fd);
}

static void bump(void *arg) { (void)arg, n_posted++; }

static void posts(void)
{
    n_posted = 0;
    int n_ok = 0;
    for (int i = 0; i < 1000; i++) n_ok += hd_net_post(net, bump, NULL, &err) == HD_OK;
    CHECK(n_ok == 1000, "%d", n_ok);
    CHECK(becomes(&n_posted, 1000), "%d", n_posted);
}

/* A stream that runs when the stop comes is finished; the door is closed meanwhile. */
static void stopping(void)
{
    int port = hd_net_port(net), fd = dial(), idle = dial();
    say(idle, "GET /ok HTTP/1.1\r\n" H "\r\n");
    CHECK(hear(idle, "\r\n\r\nfine"), "%s", got);
    say(fd, "GET /stream HTTP/1.1\r\n" H "\r\n");
    CHECK(hear(fd, "piece;"), "%s", got);
    hd_net_stop(net);
    CHECK(hear(idle, NULL), "%s", got);
    CHECK(hear(fd, "0\r\n\r\n"), "%s", got);
    pthread_join(thread, NULL);
    int late_one = dial_port(port);
    CHECK(late_one < 0, "%d", late_one);
    hd_net_close(net);
    close(fd);
    close(idle);
}

/* The id of the request in `got`. */
static void take_id(char out[32])
{
    snprintf(out, 32, "%.20s", strstr(got, "X-Request-Id: ") ? strstr(got, "X-Request-Id: ") + 14 : "");
}

/* A log that goes on over a restart has no id twice. */
static void ids_differ(void)
{
    static const uint8_t secret[32] = {1};
    char id[3][32];
    for (int i = 0; i < 2; i++) {
        start((hd_net_opts){.login_secret = secret});
        ask("GET /ok HTTP/1.1\r\n" H CLOSE "\r\n");
        take_id(id[i]);
        ask("GET /ok HTTP/1.1\r\n" H CLOSE "\r\n");
        take_id(id[2]);
        CHECK(strlen(id[i]) == 20 && strcmp(id[i], id[2]) != 0, "%s %s", id[i], id[2]);
        stop();
    }
    CHECK(strcmp(id[0], id[1]) != 0, "%s", id[0]);
}

int main(void)
{
    const char *const hosts[] = {"chat.example", NULL}, *const origins[] = {"https://app.example", NULL};
    const char *const proxies[] = {"127.0.0.1", NULL};
    const char *const keys[] = {key_hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                                NULL}; // of "abc"
    start((hd_net_opts){.allowed_hosts = hosts, .allowed_origins = origins});
    plain();
    bodies();
    several_on_one();
    smuggling();
    names_and_origins();
    streams();
    hang_ups();
    operators();
    posts();
    stop();
    start((hd_net_opts){.api_key_hashes = keys, .trusted_proxies = proxies});
    rights();
    logins();
    stop();
    ids_differ();
    start((hd_net_opts){.max_conns = 16});
    crowded();
    stop();
    start((hd_net_opts){.trusted_proxies = proxies});
    users_behind_a_proxy();
    stop();
    char dir[] = "/tmp/hadal-test-net-XXXXXX";
    CHECK(mkdtemp(dir), "%s", dir);
    tls(dir);
    rmdir(dir);
    start((hd_net_opts){.head_ms = 500, .body_ms = 500, .write_ms = 1000, .max_conns_per_ip = 8});
    slow_ones();
    many();
    stopping();
    hd_net_opts bad = {
        .address = "127.0.0.1", .log_fd = -1, .cert_file = "/nonexistent", .key_file = "/nonexistent"};
    CHECK(hd_net_open(&net, &bad, &err) == HD_IO && strstr(err.msg, "/nonexistent"), "%s", err.msg);
    bad = (hd_net_opts){.address = "example.com", .log_fd = -1};
    CHECK(hd_net_open(&net, &bad, &err) == HD_USAGE, "%s", err.msg);
    return hd_test_end();
}
