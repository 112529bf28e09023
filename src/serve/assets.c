/* The page's files over HTTP.  A file under /a/ has the hash of the whole set in its name and may be kept for
 * a year; the others are asked for again each time and mostly answered with 304.
 *
 * The policy below is what makes the page safe to fill with a model's words: no script, style, picture or
 * connection but this server's own, and no string ever becomes markup or a script's address (Trusted Types),
 * with one named policy for the addresses of workers. */
#include "serve/assets.h"

#include <string.h>
#include <strings.h>

#include "serve/routes.h"

static const char policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; worker-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; "
    "require-trusted-types-for 'script'; trusted-types hadal";

const hd_asset *hd_asset_find(const char *path)
{
    for (int low = 0, high = hd_n_assets - 1; low <= high;) {
        int mid = (low + high) / 2, order = strcmp(path, hd_assets[mid].path);
        if (order == 0) return &hd_assets[mid];
        if (order < 0) high = mid - 1;
        else low = mid + 1;
    }
    return NULL;
}

/* "gzip" in the list, and not with q=0. */
static bool takes_gzip(const hd_req *r)
{
    const char *s = hd_req_header(r, "Accept-Encoding");
    for (; s && (s = strcasestr(s, "gzip")); s += 4) {
        const char *q = s + 4 + strspn(s + 4, " ");
        if (*q == 0 || *q == ',') return true;
        if (strncasecmp(q, ";q=0", 4) != 0 || (q[4] == '.' && q[5 + strspn(q + 5, "0")] >= '1')) return *q == ';';
    }
    return false;
}

static bool has_it(const hd_req *r, const hd_asset *a)
{
    const char *tags = hd_req_header(r, "If-None-Match");
    return tags && (strstr(tags, a->etag) || strcmp(tags, "*") == 0);
}

/* ollama's clients ask `/` whether it runs, and want its own words; what asks for HTML is a browser.  On its
 * port what does not say (curl) is taken for one of them. */
static bool wants_ollama(const hd_req *r)
{
    enum { OLLAMA_PORT = 11434 };
    const char *accept = hd_req_header(r, "Accept"), *agent = hd_req_header(r, "User-Agent");
    if (strcmp(hd_req_path(r), "/") != 0 || (accept && strcasestr(accept, "text/html"))) return false;
    if (agent && strncasecmp(agent, "ollama", 6) == 0) return true;
    return hd_net_port(hd_req_net(r)) == OLLAMA_PORT || (accept && strcasestr(accept, "application/json"));
}

static void file(hd_req *r)
{
    static const char running[] = "Ollama is running";
    const hd_asset *a = hd_asset_find(hd_req_path(r));
    if (wants_ollama(r)) {
        hd_reply_header(r, "Vary", "Accept, User-Agent");
        hd_reply(r, 200, "text/plain; charset=utf-8", running, sizeof running - 1);
        return;
    }
    if (!a) {
        hd_req_fail(r, 404, "not_found", "there is no such file here");
        return;
    }
    bool packed = a->packed && takes_gzip(r);
    hd_reply_header(r, "ETag", a->etag);
    hd_reply_header(r, "Cache-Control", strncmp(a->path, "/a/", 3) == 0 ? "public, max-age=31536000, immutable" : "no-cache");
    hd_reply_header(r, "Content-Security-Policy", policy);
    hd_reply_header(r, "Cross-Origin-Opener-Policy", "same-origin");
    if (a->packed) hd_reply_header(r, "Vary", strcmp(a->path, "/") == 0 ? "Accept-Encoding, Accept, User-Agent" : "Accept-Encoding");
    if (has_it(r, a)) {
        hd_reply(r, 304, a->type, NULL, 0);
        return;
    }
    if (packed) hd_reply_header(r, "Content-Encoding", "gzip");
    hd_reply(r, 200, a->type, packed ? a->packed : a->plain, packed ? a->n_packed : a->n_plain);
}

const hd_route hd_routes_page[] = {
    {.method = "GET", .path = "/", .right = HD_RIGHT_ANYONE, .handle = file},
    {.method = "GET", .path = "/a/{file}", .right = HD_RIGHT_ANYONE, .handle = file},
    {.method = "GET", .path = "/sw.js", .right = HD_RIGHT_ANYONE, .handle = file},
    {.method = "GET", .path = "/manifest.webmanifest", .right = HD_RIGHT_ANYONE, .handle = file},
    {.method = "GET", .path = "/icon.svg", .right = HD_RIGHT_ANYONE, .handle = file},
    {.method = "GET", .path = "/icon-192.png", .right = HD_RIGHT_ANYONE, .handle = file},
    {.method = "GET", .path = "/icon-512.png", .right = HD_RIGHT_ANYONE, .handle = file},
    {0},
};
