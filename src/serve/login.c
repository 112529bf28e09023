/* Logging a browser in: by an API key typed once, or by a one-time link (hadal serve --lan), and a
 * cookie from then on.
 *
 *   GET  /login          {"needed": bool, "done": bool}: what the page has to ask for
 *   POST /login          {"key": "..."} sets the cookie
 *   POST /logout         takes it back
 *   GET  /once/{token}   the one-time link: sets the cookie, leads to the page, and is void from then on
 *
 * The cookie is  expiry, user, a random number, HMAC-SHA256 over them  in hexadecimal: nothing is to be kept for it.  The
 * HMAC's key is made of the server's secret and all API keys' sums, so that a change of keys ends every
 * login.  The parts have fixed lengths, so no other cut of the same bytes says something else. */
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "model/json.h"
#include "serve/net_impl.h"
#include "serve/routes.h"

enum { DAYS = 30, SAID = 32, SEALED = SAID + crypto_auth_hmacsha256_BYTES };

bool hd_login_needed(const hd_net *n) { return n->n_keys > 0 || n->o.login; }

static void seal_key(uint8_t key[32], const hd_net *n)
{
    crypto_hash_sha256_state s;
    crypto_hash_sha256_init(&s);
    crypto_hash_sha256_update(&s, n->login_secret, sizeof n->login_secret);
    for (int i = 0; i < n->n_keys; i++) crypto_hash_sha256_update(&s, n->key[i], sizeof n->key[i]);
    crypto_hash_sha256_final(&s, key);
}

static const char *cookie_name(const hd_req *r) { return r->conn->secure ? "__Host-hadal" : "hadal"; }

static void set_cookie(hd_req *r, const char *value, int seconds)
{
    char text[400];
    snprintf(text, sizeof text, "%s=%s; Path=/; HttpOnly; SameSite=Strict; Max-Age=%d%s", cookie_name(r),
             value, seconds, r->conn->secure ? "; Secure" : "");
    hd_reply_header(r, "Set-Cookie", text);
}

static void let_in(hd_req *r, uint64_t user)
{
    uint8_t b[SEALED], key[32];
    char hex[2 * SEALED + 1];
    int64_t until = (int64_t)time(NULL) + DAYS * 86400;
    memcpy(b, &until, 8);
    memcpy(b + 8, &user, 8);
    randombytes_buf(b + 16, SAID - 16);
    seal_key(key, r->net);
    crypto_auth_hmacsha256(b + SAID, b, SAID, key);
    sodium_bin2hex(hex, sizeof hex, b, sizeof b);
    set_cookie(r, hex, DAYS * 86400);
}

/* The cookie's value in "a=b; c=d", or NULL. */
static const char *cookie(const hd_req *r, size_t *n)
{
    const char *name = cookie_name(r), *s = hd_h1_field(&r->in, "cookie");
    size_t k = strlen(name);
    while (s && *s) {
        s += strspn(s, "; ");
        *n = strcspn(s, "; ");
        if (*n > k && s[k] == '=' && strncmp(s, name, k) == 0) return *n -= k + 1, s + k + 1;
        s += *n;
    }
    return NULL;
}

bool hd_login_holds(hd_req *r)
{
    uint8_t b[SEALED], key[32];
    size_t n = 0, len;
    int64_t until;
    const char *hex = cookie(r, &n);
    if (!hex || n != 2 * SEALED || sodium_hex2bin(b, sizeof b, hex, n, NULL, &len, NULL) != 0 ||
        len != SEALED)
        return false;
    seal_key(key, r->net);
    memcpy(&until, b, 8);
    if (crypto_auth_hmacsha256_verify(b + SAID, b, SAID, key) != 0 || until < (int64_t)time(NULL))
        return false;
    memcpy(&r->user, b + 8, 8);
    return true;
}

/* ---- Routes ---- */

static void tell(hd_req *r)
{
    char text[64];
    bool needed = hd_login_needed(r->net), done = !needed || hd_login_holds(r);
    int n = snprintf(text, sizeof text, "{\"needed\":%s,\"done\":%s}", needed ? "true" : "false",
                     done ? "true" : "false");
    hd_reply(r, 200, "application/json", text, (size_t)n);
}

static void login(hd_req *r)
{
    size_t n;
    const char *body = hd_req_body(r, &n);
    json_t *j = hd_json_load(body, n, 0, NULL);
    const char *key = json_string_value(json_object_get(j, "key"));
    uint64_t user;
    if (!key) {
        hd_req_fail(r, 400, "bad_request", "needs {\"key\": \"...\"}");
    } else if (!hd_guard_key(r->net, key, &user)) {
        hd_req_fail(r, 401, "invalid_api_key", "this API key is not valid");
    } else {
        let_in(r, user);
        hd_reply(r, 204, NULL, NULL, 0);
    }
    json_decref(j);
}

static void logout(hd_req *r)
{
    set_cookie(r, "", 0);
    hd_reply(r, 204, NULL, NULL, 0);
}

void hd_login_link(hd_net *n)
{
    uint8_t token[16];
    randombytes_buf(token, sizeof token);
    sodium_bin2hex(n->once, sizeof n->once, token, sizeof token);
}

static void once(hd_req *r)
{
    hd_net *n = r->net;
    const char *token = hd_req_param(r);
    uint64_t user;
    if (!n->once[0] || strlen(token) != sizeof n->once - 1 ||
        sodium_memcmp(token, n->once, sizeof n->once - 1) != 0) {
        hd_req_fail(r, 403, "link_used",
                    "this link has been used, or is of an earlier start; the server prints a new one");
        return;
    }
    hd_login_link(n);
    randombytes_buf(&user, sizeof user);
    let_in(r, user ? user : 1);
    hd_reply_header(r, "Location", "/");
    hd_reply(r, 303, NULL, NULL, 0);
    if (n->o.on_link) n->o.on_link(n->o.app, n->once);
}

const hd_route hd_routes_login[] = {
    {.method = "GET", .path = "/login", .right = HD_RIGHT_ANYONE, .handle = tell},
    {.method = "POST", .path = "/login", .right = HD_RIGHT_ANYONE, .max_body = 4096, .handle = login},
    {.method = "POST", .path = "/logout", .right = HD_RIGHT_ANYONE, .max_body = 4096, .handle = logout},
    {.method = "GET", .path = "/once/{token}", .right = HD_RIGHT_ANYONE, .handle = once},
    {0},
};
