/* The request reader: what it takes, what it refuses and with which status, and that no cut between the
 * bytes changes either.
 *
 * The refusals are the smuggling corpus: each is a way in which some server and some proxy once disagreed on
 * where a request ends (RFC 9112, 11.2; and the bulletins on chunk extensions, bare line ends, trailers and
 * doubled lengths). */
#include "serve/http.h"

#include "test.h"

enum { CAP = 64 }; // of bodies here

/* What came of some bytes. */
typedef struct {
    hd_h1_state state;
    int status;
    size_t taken;
    char words[40000]; // method, path, fields, parameters and body, one after the other
} outcome;

static void note(outcome *o, const char *a, const char *b)
{
    size_t at = strlen(o->words);
    snprintf(o->words + at, sizeof o->words - at, "%s=%s\n", a, b);
}

static void collect(outcome *o, const hd_h1 *h, hd_h1_state st)
{
    o->state = st;
    o->status = st == HD_H1_BAD ? h->status : 0;
    o->words[0] = 0;
    if (st == HD_H1_BAD) note(o, "bad", h->reason);
    if (st != HD_H1_DONE) return;
    note(o, h->method, h->path);
    for (int i = 0; i < h->n_fields; i++) note(o, h->field[i].name, h->field[i].value);
    for (int i = 0; i < h->n_params; i++) note(o, h->param[i].name, h->param[i].value);
    note(o, h->keep_alive ? "keep" : "close", h->expects_continue ? "expects" : "");
    note(o, "body", h->body.data ? h->body.data : "");
}

/* Feed one piece; false when the reader is through. */
static bool feed(hd_h1 *h, outcome *o, const char *p, size_t n, hd_h1_state *st)
{
    while (n > 0 || *st == HD_H1_HEADED) {
        size_t used = 0;
        *st = *st == HD_H1_HEADED ? hd_h1_accept(h, CAP) : hd_h1_feed(h, p, n, &used);
        o->taken += used;
        p += used;
        n -= used;
        if (*st == HD_H1_DONE || *st == HD_H1_BAD) return false;
    }
    return true;
}

/* The bytes in pieces that end at a, at b and at the end. */
static void read_cut(outcome *o, const char *s, size_t n, size_t a, size_t b)
{
    hd_h1 h;
    hd_h1_state st = HD_H1_MORE;
    hd_h1_init(&h);
    o->taken = 0;
    if (feed(&h, o, s, a, &st) && feed(&h, o, s + a, b - a, &st)) feed(&h, o, s + b, n - b, &st);
    collect(o, &h, st);
    hd_h1_free(&h);
}

static void read_bytes(outcome *o, const char *s, size_t n)
{
    hd_h1 h;
    hd_h1_state st = HD_H1_MORE;
    hd_h1_init(&h);
    o->taken = 0;
    for (size_t i = 0; i < n && feed(&h, o, s + i, 1, &st); i++) continue;
    collect(o, &h, st);
    hd_h1_free(&h);
}

static bool same(const outcome *a, const outcome *b)
{
    return a->state == b->state && a->status == b->status && a->taken == b->taken &&
           strcmp(a->words, b->words) == 0;
}

/* Every cut into two, and byte by byte. */
static bool cuts_agree(const outcome *whole, const char *s, size_t n)
{
    static outcome o;
    read_bytes(&o, s, n);
    bool ok = same(whole, &o);
    for (size_t a = 0; a <= n; a++) {
        read_cut(&o, s, n, a, a);
        ok &= same(whole, &o);
        read_cut(&o, s, n, a, a < n ? a + 1 : n);
        ok &= same(whole, &o);
    }
    return ok;
}

#define H       "Host: a\r\n"
#define E       "\r\n"
#define POST    "POST /p HTTP/1.1\r\n" H
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"

typedef struct {
    const char *bytes;
    int status;         // 0: taken
    const char *expect; // part of what was read; of the reason
} sample;

static const sample samples[] = {
    /* Taken. */
    {"GET / HTTP/1.1\r\n" H E, 0, "GET=/\n"},
    {"GET / HTTP/1.0\r\n\r\n", 0, "close="},
    {"GET / HTTP/1.1\r\nhOsT:  a:80 \t\r\n\r\n", 0, "host=a:80\n"},
    {"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", 0, "host=[::1]:8080\n"},
    {"GET / HTTP/1.1\r\n" H "Connection: foo, Close\r\n\r\n", 0, "close="},
    {"GET / HTTP/1.1\r\n" H "X:\r\n\r\n", 0, "x=\n"},
    {"GET /a%20b/%C3%A9?q=%26+x&r=&s HTTP/1.1\r\n" H E, 0, "GET=/a b/\xc3\xa9\n"},
    {"GET /a?q=%26+x&r=&&s HTTP/1.1\r\n" H E, 0, "q=& x\nr=\ns=\n"},
    {"GET /a..b/...c HTTP/1.1\r\n" H E, 0, "GET=/a..b/...c\n"},
    {"DELETE /x HTTP/1.1\r\n" H E, 0, "DELETE=/x\n"},
    {POST "Content-Length: 5\r\n\r\nhello", 0, "body=hello\n"},
    {POST "Content-Length: 0\r\n\r\n", 0, "body=\n"},
    {POST "Content-Length: 5\r\nExpect: 100-Continue\r\n\r\nhello", 0, "keep=expects"},
    {POST "Content-Length: 2\r\nContent-Encoding: identity\r\n\r\nhi", 0, "body=hi\n"},
    {CHUNKED "5\r\nhello\r\n0\r\n\r\n", 0, "body=hello\n"},
    {CHUNKED "1\r\nh\r\n0003\r\nell\r\n1\r\no\r\n0\r\n\r\n", 0, "body=hello\n"},
    {CHUNKED "0\r\n\r\n", 0, "body=\n"},
    {POST "Transfer-Encoding: CHUNKED\r\n\r\nA\r\n0123456789\r\n00000000\r\n\r\n", 0, "body=0123456789\n"},

    /* Line ends. */
    {"GET / HTTP/1.1\nHost: a\n\n", 400, "without CR"},
    {"GET / HTTP/1.1\r\nHost: a\n\r\n", 400, "without CR"},
    {"GET / HTTP/1.1\r\n" H "\n", 400, "without CR"},
    {"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400, "CR without LF"},
    {"GET / HTTP/1.1\r\n" H "\r\r\n", 400, "CR without LF"},
    {"\r\nGET / HTTP/1.1\r\n" H E, 400, "empty"},
    {"GET / HTTP/1.1\r\n" H "X: a\r\n b\r\n\r\n", 400, "folded"},
    {"GET / HTTP/1.1\r\n\tX: a\r\n" H E, 400, "folded"},

    /* The request line. */
    {"GET  / HTTP/1.1\r\n" H E, 400, "request line"},
    {" GET / HTTP/1.1\r\n" H E, 400, "request line"},
    {"GET / HTTP/1.1 \r\n" H E, 400, "request line"},
    {"GET\t/ HTTP/1.1\r\n" H E, 400, "request line"},
    {"GET /\r\n\r\n", 400, "request line"},
    {"GET / http/1.1\r\n" H E, 400, "version"},
    {"GET / HTTP/1.10\r\n" H E, 400, "version"},
    {"GET / HTTP/1\r\n" H E, 400, "version"},
    {"GET / HTTP/1.2\r\n" H E, 505, ""},
    {"GET / HTTP/0.9\r\n" H E, 505, ""},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, ""},
    {"G(T / HTTP/1.1\r\n" H E, 400, "not a method"},
    {"get / HTTP/1.1\r\n" H E, 501, ""},
    {"CONNECT a:80 HTTP/1.1\r\n" H E, 501, ""},
    {"TRACEX / HTTP/1.1\r\n" H E, 501, ""},
    {"GETT / HTTP/1.1\r\n" H E, 501, ""},
    {"\x16\x03\x01\x02", 400, "control"},

    /* Targets. */
    {"GET http://a/ HTTP/1.1\r\n" H E, 400, "not a path"},
    {"OPTIONS * HTTP/1.1\r\n" H E, 400, "not a path"},
    {"GET a HTTP/1.1\r\n" H E, 400, "not a path"},
    {"GET /\xc3\xa9 HTTP/1.1\r\n" H E, 400, "escaped"},
    {"GET /a#b HTTP/1.1\r\n" H E, 400, "escaped"},
    {"GET /a\\b HTTP/1.1\r\n" H E, 400, "escaped"},
    {"GET /<script> HTTP/1.1\r\n" H E, 400, "escaped"},
    {"GET /% HTTP/1.1\r\n" H E, 400, "hexadecimal"},
    {"GET /%4 HTTP/1.1\r\n" H E, 400, "hexadecimal"},
    {"GET /%4g HTTP/1.1\r\n" H E, 400, "hexadecimal"},
    {"GET /a?%zz HTTP/1.1\r\n" H E, 400, "hexadecimal"},
    {"GET /a%00b HTTP/1.1\r\n" H E, 400, "NUL"},
    {"GET /a?b=%00 HTTP/1.1\r\n" H E, 400, "NUL"},
    {"GET /a%2fb HTTP/1.1\r\n" H E, 400, "slash"},
    {"GET /a%5Cb HTTP/1.1\r\n" H E, 400, "slash"},
    {"GET /a%0d%0aX:b HTTP/1.1\r\n" H E, 400, "control"},
    {"GET /.. HTTP/1.1\r\n" H E, 400, "dots"},
    {"GET /a/../b HTTP/1.1\r\n" H E, 400, "dots"},
    {"GET /a/%2e%2E/b HTTP/1.1\r\n" H E, 400, "dots"},
    {"GET /./b HTTP/1.1\r\n" H E, 400, "dots"},
    {"GET /%ff HTTP/1.1\r\n" H E, 400, "UTF-8"},
    {"GET /%c0%af HTTP/1.1\r\n" H E, 400, "UTF-8"},
    {"GET /%ed%a0%80 HTTP/1.1\r\n" H E, 400, "UTF-8"},
    {"GET /a?b=%ff HTTP/1.1\r\n" H E, 400, "UTF-8"},

    /* Fields. */
    {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400, "NAME"},
    {"GET / HTTP/1.1\r\n" H "X\r\n\r\n", 400, "NAME"},
    {"GET / HTTP/1.1\r\n" H ": b\r\n\r\n", 400, "NAME"},
    {"GET / HTTP/1.1\r\n" H "X\xc3: b\r\n\r\n", 400, "NAME"},
    {"GET / HTTP/1.1\r\n" H "X: a\x01\r\n\r\n", 400, "control"},
    {"GET / HTTP/1.1\r\n" H "X: a\x7f\r\n\r\n", 400, "control"},
    {"GET / HTTP/1.1\r\n\r\n", 400, "Host"},
    {"GET / HTTP/1.1\r\n" H "Host: a\r\n\r\n", 400, "Host"},
    {"GET / HTTP/1.0\r\n" H "HOST: b\r\n\r\n", 400, "Host"},
    {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "Host"},
    {"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, "Host"},
    {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "Host"},
    {"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, "Host"},
    {"GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 400, "Host"},
    {"GET / HTTP/1.1\r\nHost: a:123456\r\n\r\n", 400, "Host"},
    {"GET / HTTP/1.1\r\nHost: a:8x\r\n\r\n", 400, "Host"},
    {"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, "Host"},
    {"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "Host"},
    {"GET / HTTP/1.1\r\n" H "Upgrade: h2c\r\n\r\n", 400, "Upgrade"},
    {"GET / HTTP/1.1\r\n" H "Connection: keep-alive, Upgrade\r\n\r\n", 400, "Upgrade"},
    {"GET / HTTP/1.1\r\n" H "Expect: the-best\r\n\r\n", 417, ""},

    /* Where a body ends. */
    {POST E, 411, ""},
    {POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400, "more than once"},
    {POST "Content-Length: 5\r\ncontent-length: 6\r\n\r\nhello!", 400, "more than once"},
    {POST "Content-Length: 5, 5\r\n\r\nhello", 400, "not a number"},
    {POST "Content-Length: +5\r\n\r\nhello", 400, "not a number"},
    {POST "Content-Length: -1\r\n\r\n", 400, "not a number"},
    {POST "Content-Length: 0x5\r\n\r\nhello", 400, "not a number"},
    {POST "Content-Length: 5 \x0b\r\n\r\nhello", 400, "control"},
    {POST "Content-Length: 5a\r\n\r\nhello", 400, "not a number"},
    {POST "Content-Length:\r\n\r\n", 400, "not a number"},
    {POST "Content-Length : 5\r\n\r\nhello", 400, "NAME"},
    {POST "Content-Length: 65\r\n\r\n", 413, ""},
    {POST "Content-Length: 99999999999999999999\r\n\r\n", 413, ""},
    {POST "Content-Length: 18446744073709551621\r\n\r\nhello", 413, ""},
    {POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "beside"},
    {POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, "beside"},
    {POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "more than once"},
    {POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, "only chunked"},
    {POST "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400, "only chunked"},
    {POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400, "only chunked"},
    {POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, "only chunked"},
    {POST "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 400, "only chunked"},
    {POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400, "only chunked"},
    {POST "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", 400, "beside"},
    {POST "Transfer-Encoding: identity\r\n\r\n", 400, "only chunked"},
    {POST "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400, "folded"},
    {POST "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, "NAME"},
    {"POST /p HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "1.0"},
    {POST "Content-Length: 5\r\nContent-Encoding: gzip\r\n\r\nhello", 415, ""},
    {POST "Trailer: X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "Trailer"},

    /* Chunks. */
    {CHUNKED "5;a=b\r\nhello\r\n0\r\n\r\n", 400, "extension"},
    {CHUNKED "5 \r\nhello\r\n0\r\n\r\n", 400, "not a size"},
    {CHUNKED " 5\r\nhello\r\n0\r\n\r\n", 400, "not a size"},
    {CHUNKED "0x5\r\nhello\r\n0\r\n\r\n", 400, "not a size"},
    {CHUNKED "+5\r\nhello\r\n0\r\n\r\n", 400, "not a size"},
    {CHUNKED "-5\r\nhello\r\n0\r\n\r\n", 400, "not a size"},
    {CHUNKED "\r\nhello\r\n0\r\n\r\n", 400, "not a size"},
    {CHUNKED "5\nhello\r\n0\r\n\r\n", 400, "not a size"},
    {CHUNKED "5\rhello\r\n0\r\n\r\n", 400, "CR without LF"},
    {CHUNKED "5\r\nhello0\r\n\r\n", 400, "no CRLF"},
    {CHUNKED "5\r\nhello\n0\r\n\r\n", 400, "no CRLF"},
    {CHUNKED "5\r\nhello\r0\r\n\r\n", 400, "no CRLF"},
    {CHUNKED "4\r\nhello\r\n0\r\n\r\n", 400, "no CRLF"},
    {CHUNKED "000000005\r\nhello\r\n0\r\n\r\n", 400, "too long"},
    {CHUNKED "fffffffffffffffb\r\nhello", 400, "too long"},
    {CHUNKED "FFFFFFFF\r\nhello", 413, ""},
    {CHUNKED "40\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n1\r\n", 413, ""},
    {CHUNKED "0\r\nX: trailer\r\n\r\n", 400, "trailer"},
    {CHUNKED "0\r\nHost: b\r\n\r\n", 400, "trailer"},
    {CHUNKED "0\r\n\n", 400, "trailer"},
    {CHUNKED "0\r\n\rX", 400, "no CRLF"},
    {CHUNKED "0;a\r\n\r\n", 400, "extension"},
};

static void one(const sample *s)
{
    static outcome o;
    size_t n = strlen(s->bytes);
    read_cut(&o, s->bytes, n, n, n);
    if (s->status == 0)
        CHECK(o.state == HD_H1_DONE && o.taken == n, "state %d, %s, for: %s", o.state, o.words, s->bytes);
    else
        CHECK(o.state == HD_H1_BAD && o.status == s->status, "state %d, status %d, for: %s", o.state,
              o.status, s->bytes);
    CHECK(strstr(o.words, s->expect), "%s lacks %s, for: %s", o.words, s->expect, s->bytes);
    CHECK(cuts_agree(&o, s->bytes, n), "cuts differ for: %s", s->bytes);
}

/* Cut short, a request is unfinished, not refused and not done. */
static void unfinished(void)
{
    static outcome o;
    static const char s[] = CHUNKED "5\r\nhello\r\n0\r\n\r\n";
    int n_more = 0;
    for (size_t n = 0; n < sizeof s - 1; n++) {
        read_cut(&o, s, n, n, n);
        n_more += o.state == HD_H1_MORE && o.taken == n;
    }
    CHECK(n_more == sizeof s - 1, "%d", n_more);
}

/* A request takes its own bytes and none of the next one's. */
static void pipelined(void)
{
    static const char s[] =
        POST "Content-Length: 2\r\n\r\nhiGET /next HTTP/1.1\r\n" H E CHUNKED "2\r\nab\r\n0\r\n\r\nGET";
    const char *p = s;
    const char *const path[] = {"/p", "/next", "/p"}, *const body[] = {"hi", NULL, "ab"};
    hd_h1 h;
    hd_h1_init(&h);
    for (int i = 0; i < 3; i++) {
        size_t used = 0, used2 = 0;
        CHECK(hd_h1_feed(&h, p, strlen(p), &used) == HD_H1_HEADED, "%s", p);
        if (hd_h1_accept(&h, CAP) == HD_H1_MORE)
            CHECK(hd_h1_feed(&h, p + used, strlen(p + used), &used2) == HD_H1_DONE, "%s", p);
        CHECK(strcmp(h.path, path[i]) == 0, "%s", h.path);
        CHECK(body[i] ? strcmp(h.body.data, body[i]) == 0 : !h.body.data, "%s", path[i]);
        p += used + used2;
        hd_h1_reset(&h);
    }
    CHECK(strcmp(p, "GET") == 0 && !hd_h1_begun(&h), "%s", p);
    hd_h1_free(&h);
}

/* Heads at each cap and one over it. */
static void build(char *s, const char *head, char fill, size_t n, const char *tail)
{
    size_t k = strlen(head);
    memcpy(s, head, k);
    memset(s + k, fill, n);
    strcpy(s + k + n, tail);
}

static int status_of(const char *s)
{
    static outcome o;
    read_cut(&o, s, strlen(s), strlen(s), strlen(s));
    return o.state == HD_H1_DONE ? 200 : o.state == HD_H1_BAD ? o.status : 0;
}

static void caps(void)
{
    static char s[100000];
    build(s, "GET /", 'a', HD_H1_TARGET - 1, " HTTP/1.1\r\n" H E);
    CHECK(status_of(s) == 200, "%d", status_of(s));
    build(s, "GET /", 'a', HD_H1_TARGET, " HTTP/1.1\r\n" H E);
    CHECK(status_of(s) == 414, "%d", status_of(s));
    build(s, "GET /", 'a', 60000, "");
    CHECK(status_of(s) == 414, "%d", status_of(s));
    build(s, "GET / HTTP/1.1\r\n" H "X:", 'a', HD_H1_LINE - 2, "\r\n\r\n");
    CHECK(status_of(s) == 200, "%d", status_of(s));
    build(s, "GET / HTTP/1.1\r\n" H "X:", 'a', HD_H1_LINE - 1, "\r\n\r\n");
    CHECK(status_of(s) == 431, "%d", status_of(s));
    for (int n = 0; n < 2; n++) { // 64 fields with the host, then 65
        strcpy(s, "GET / HTTP/1.1\r\n" H);
        for (int i = 0; i < HD_H1_FIELDS - 1 + n; i++) strcat(s, "X: a\r\n");
        strcat(s, E);
        CHECK(status_of(s) == (n ? 431 : 200), "%d", status_of(s));
    }
    strcpy(s, "GET / HTTP/1.1\r\n" H);
    for (int i = 0; i < 5; i++) build(s + strlen(s), "X: ", 'a', 7000, "\r\n");
    strcat(s, E);
    CHECK(status_of(s) == 431, "%d", status_of(s)); // 35 KB in all
    strcpy(s, "GET /?");
    for (int i = 0; i < HD_H1_PARAMS + 1; i++) strcat(s, "a=b&");
    strcat(s, " HTTP/1.1\r\n" H E);
    CHECK(status_of(s) == 414, "%d", status_of(s));
}

/* NUL bytes, which the samples' strings cannot hold. */
static void nuls(void)
{
    static outcome o;
    static const char s[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    int n_bad = 0;
    for (size_t i = 0; i < sizeof s - 1; i++) {
        char t[sizeof s];
        memcpy(t, s, sizeof s);
        t[i] = 0;
        read_cut(&o, t, sizeof s - 1, sizeof s - 1, sizeof s - 1);
        n_bad += o.state == HD_H1_BAD && o.status == 400;
    }
    CHECK(n_bad == sizeof s - 1, "%d", n_bad);
}

/* No single byte turned into another makes a request longer than its bytes, or crashes; each is
 * taken or refused. */
static void altered(void)
{
    static outcome o, p;
    static const char s[] = POST "Content-Length: 2\r\n\r\nhi";
    int odd = 0;
    for (size_t i = 0; i < sizeof s - 1; i++) {
        for (int c = 0; c < 256; c++) {
            char t[sizeof s];
            memcpy(t, s, sizeof s);
            t[i] = (char)c;
            read_cut(&o, t, sizeof s - 1, sizeof s - 1, sizeof s - 1);
            read_bytes(&p, t, sizeof s - 1);
            odd += !same(&o, &p) || o.taken > sizeof s - 1;
        }
    }
    CHECK(odd == 0, "%d", odd);
}

int main(void)
{
    for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++) one(&samples[i]);
    unfinished();
    pipelined();
    caps();
    nuls();
    altered();
    return hd_test_end();
}
