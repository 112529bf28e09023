/* Who may ask: the checks between a head and its handler, which know nothing of what a route does.
 *
 *   Host     names we know, or a bare address: a page whose own name an attacker points at us (DNS rebinding)
 *            says its name here
 *   Origin   set by browsers on what a page sends: our own, or one that the operator named; anything else is
 *            another site using its visitor's access to us
 *   right    the route's (net.h): an API key, or a page that we served
 *   address  of the client, behind proxies that are trusted: the right-most hop of X-Forwarded-For that is no
 *            such proxy
 *
 * Keys are compared as SHA-256 sums, in constant time, against all of them: time tells nothing about any. */
#include <arpa/inet.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "serve/net_impl.h"

static bool listed(const char *const *list, const char *s, size_t n)
{
    for (int i = 0; list && list[i]; i++) {
        if (strlen(list[i]) == n && strncasecmp(list[i], s, n) == 0) return true;
    }
    return false;
}

/* ---- Host ---- */

static bool is_address(const char *host, size_t n)
{
    char text[64];
    uint8_t addr[16];
    if (host[0] == '[') host++, n -= 2;
    if (n >= sizeof text) return false;
    memcpy(text, host, n);
    text[n] = 0;
    return inet_pton(AF_INET, text, addr) == 1 || inet_pton(AF_INET6, text, addr) == 1;
}

bool hd_guard_host(hd_req *r)
{
    const char *host = hd_h1_field(&r->in, "host");
    if (!host) return true;                    // HTTP/1.0: no browser
    size_t n = (size_t)hd_http_host_len(host); // the reader has checked it
    if (is_address(host, n) || (n == 9 && strncasecmp(host, "localhost", n) == 0)) return true;
    if (listed(r->net->o.allowed_hosts, host, n)) return true;
    hd_req_fail(r, 403, "host_not_allowed",
                "this name in the Host header is not one of this server's: start it with --allow-host NAME");
    return false;
}

/* ---- Origin ---- */

/* Of our own pages: the same name and port as in the Host header.  Behind a proxy that speaks TLS for us the
 * scheme is https. */
static bool own_origin(const hd_req *r, const char *origin)
{
    const char *host = hd_h1_field(&r->in, "host"), *sep = strstr(origin, "://");
    if (!host || !sep) return false;
    size_t n = (size_t)(sep - origin);
    bool https = n == 5 && strncasecmp(origin, "https", 5) == 0,
         http = n == 4 && strncasecmp(origin, "http", 4) == 0;
    return (https || (http && !r->conn->secure)) && strcasecmp(sep + 3, host) == 0;
}

static bool named_origin(const hd_req *r, const char *origin)
{
    return listed(r->net->o.allowed_origins, origin, strlen(origin)) ||
           listed(r->net->o.allowed_origins, "*", 1);
}

/* What a page of another site makes a browser send is refused whatever it asks, but for looking at
 * what anyone may see. */
bool hd_guard_origin(hd_req *r)
{
    const char *origin = hd_h1_field(&r->in, "origin"), *site = hd_h1_field(&r->in, "sec-fetch-site");
    bool reads = strcmp(r->in.method, "GET") == 0 || strcmp(r->in.method, "HEAD") == 0;
    bool own = origin ? own_origin(r, origin)
                      : !site || strcasecmp(site, "same-origin") == 0 || strcasecmp(site, "none") == 0;
    bool named = origin && r->route->right != HD_RIGHT_PAGE && named_origin(r, origin);
    if (own || named || (r->route->right == HD_RIGHT_ANYONE && reads)) return true;
    hd_req_fail(r, 403, "origin_not_allowed",
                "requests from this web site are not allowed: start the server with --cors ORIGIN");
    return false;
}

void hd_guard_cors(hd_req *r)
{
    const char *origin = hd_h1_field(&r->in, "origin");
    if (!r->net->o.allowed_origins || !r->net->o.allowed_origins[0]) return;
    hd_reply_header(r, "Vary", "Origin");
    if (!origin || !named_origin(r, origin) || (r->route && r->route->right == HD_RIGHT_PAGE)) return;
    hd_reply_header(r, "Access-Control-Allow-Origin", origin);
    hd_reply_header(r, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
    hd_reply_header(r, "Cross-Origin-Resource-Policy", "cross-origin");
}

void hd_guard_preflight(hd_req *r, const char *methods)
{
    const char *origin = hd_h1_field(&r->in, "origin"),
               *want = hd_h1_field(&r->in, "access-control-request-headers");
    if (!origin || !named_origin(r, origin)) {
        hd_req_fail(r, 403, "origin_not_allowed",
                    "requests from this web site are not allowed: start the server with --cors ORIGIN");
        return;
    }
    hd_reply_header(r, "Access-Control-Allow-Methods", methods);
    if (want) hd_reply_header(r, "Access-Control-Allow-Headers", want);
    hd_reply_header(r, "Access-Control-Max-Age", "600");
    hd_reply(r, 204, NULL, NULL, 0);
}

/* ---- Keys ---- */

hd_status hd_guard_keys(hd_net *n, hd_err *err)
{
    hd_status st = HD_OK;
    int count = 0;
    while (n->o.api_key_hashes && n->o.api_key_hashes[count]) count++;
    HD_TRY(hd_alloc_n(&n->key, (size_t)count, sizeof *n->key, err));
    for (; n->n_keys < count; n->n_keys++) {
        const char *hex = n->o.api_key_hashes[n->n_keys];
        size_t len;
        if (strlen(hex) != 64 || sodium_hex2bin(n->key[n->n_keys], 32, hex, 64, NULL, &len, NULL) != 0 ||
            len != 32)
            HD_TRY(hd_fail(err, HD_USAGE, "API key %d: not a SHA-256 sum in hexadecimal", n->n_keys + 1));
    }
fail:
    return st;
}

/* The key that the request shows, or NULL: Authorization: Bearer KEY, or Anthropic's x-api-key. */
static const char *shown_key(const hd_req *r)
{
    const char *a = hd_h1_field(&r->in, "authorization"), *x = hd_h1_field(&r->in, "x-api-key");
    if (a && strncasecmp(a, "Bearer ", 7) == 0) return a + 7 + strspn(a + 7, " ");
    return x;
}

bool hd_guard_key(const hd_net *n, const char *key, uint64_t *user)
{
    uint8_t sum[32];
    int found = 0;
    crypto_hash_sha256(sum, (const uint8_t *)key, strlen(key));
    for (int i = 0; i < n->n_keys; i++) found |= sodium_memcmp(sum, n->key[i], sizeof sum) == 0;
    if (!found) return false;
    memcpy(user, sum, sizeof *user); // whoever has the key is one user
    if (*user == 0) *user = 1;
    return true;
}

bool hd_guard_right(hd_req *r)
{
    hd_right right = r->route->right;
    if (right == HD_RIGHT_ANYONE || right == HD_RIGHT_OPERATOR)
        return true; // the latter: route.c has seen the listener
    if (!hd_login_needed(r->net)) return true;
    const char *key = shown_key(r);
    if ((key && hd_guard_key(r->net, key, &r->user)) || hd_login_holds(r)) return true;
    hd_reply_header(r, "WWW-Authenticate", "Bearer");
    hd_req_fail(r, 401, "invalid_api_key",
                key                   ? "this API key is not valid"
                : r->net->n_keys == 0 ? "log in first: open the one-time link that the server prints"
                                      : "an API key is needed: Authorization: Bearer KEY");
    return false;
}

/* ---- Addresses ---- */

void hd_addr_text(char out[48], const uint8_t addr[16])
{
    static const uint8_t v4[12] = {[10] = 0xff, 0xff};
    bool four = memcmp(addr, v4, 12) == 0;
    if (!inet_ntop(four ? AF_INET : AF_INET6, four ? addr + 12 : addr, out, 48)) strcpy(out, "?");
}

bool hd_guard_trusted(const hd_net *n, const char *peer)
{
    return listed(n->o.trusted_proxies, peer, strlen(peer));
}

/* The last address of "a, b, c" that is no trusted proxy; what is no address ends the search, with
 * the hop behind it. */
static void forwarded(hd_req *r, const char *list)
{
    size_t end = strlen(list);
    while (hd_guard_trusted(r->net, r->peer)) {
        uint8_t a[16];
        char text[48];
        while (end > 0 && (list[end - 1] == ' ' || list[end - 1] == ',' || list[end - 1] == '\t')) end--;
        size_t at = end;
        while (at > 0 && list[at - 1] != ',' && list[at - 1] != ' ' && list[at - 1] != '\t') at--;
        if (end == at || end - at >= sizeof text) return;
        memcpy(text, list + at, end - at);
        text[end - at] = 0;
        if (inet_pton(AF_INET, text, a) != 1 && inet_pton(AF_INET6, text, a) != 1) return;
        memcpy(r->peer, text, sizeof text);
        end = at;
    }
}

void hd_guard_peer(hd_req *r)
{
    uint8_t a[16];
    uint8_t sum[crypto_shorthash_BYTES];
    memcpy(r->peer, r->conn->peer, sizeof r->peer);
    for (int i = r->in.n_fields - 1; i >= 0 && r->conn->trusted; i--) { // several fields are one list
        if (strcmp(r->in.field[i].name, "x-forwarded-for") == 0) forwarded(r, r->in.field[i].value);
    }
    size_t n = strlen(r->peer);
    const char *text = r->peer;
    if (inet_pton(AF_INET6, r->peer, a) == 1) text = (const char *)a, n = 8; // its network
    crypto_shorthash(sum, (const uint8_t *)text, n, r->net->secret);
    memcpy(&r->user, sum, sizeof r->user);
    if (r->user == 0) r->user = 1;
}
