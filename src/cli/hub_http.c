/* Requests to the hub, through libcurl.
 *
 * Redirections are followed here and not by libcurl, so that two rules are plain to see: the token is added
 * for the endpoint's own scheme, host and port only, and nothing goes from https to http.  Certificates,
 * proxies and HTTP versions are libcurl's business. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "cli/hub.h"
#include "cli/hub_curl.h"
#include "cli/load.h"

enum { MAX_HOPS = 8, CONNECT_S = 20, STALL_S = 60 };

static const hd_curl *lib; // set by hd_http_open, before anything else

struct hd_http {
    CURL *curl;
    char *endpoint; // without a slash at its end
    const char *token;
    const hd_request *q; // of the running request
    hd_hub_reply *r;
    bool headed, stopped, redirect;
};

/* ---- What arrives ---- */

static const char *field(const char *line, size_t n, const char *name, size_t *len)
{
    size_t k = strlen(name);
    if (n <= k || strncasecmp(line, name, k) != 0 || line[k] != ':') return NULL;
    const char *v = line + k + 1, *end = line + n;
    while (v < end && (*v == ' ' || *v == '\t')) v++;
    while (end > v && (end[-1] == '\r' || end[-1] == '\n' || end[-1] == ' ')) end--;
    *len = (size_t)(end - v);
    return v;
}

static bool digits(const char **p, const char *end, int64_t *v)
{
    const char *from = *p;
    for (*v = 0; *p < end && **p >= '0' && **p <= '9' && *v < INT64_MAX / 100; (*p)++)
        *v = *v * 10 + (**p - '0');
    return *p > from;
}

/* bytes 100-199/200; what makes no sense stays -1, and is then no answer to a range */
static void content_range(hd_hub_reply *r, const char *v, size_t n)
{
    const char *end = v + n;
    int64_t from, to, total;
    if (n < 6 || strncasecmp(v, "bytes ", 6) != 0) return;
    v += 6;
    if (!digits(&v, end, &from) || v == end || *v++ != '-' || !digits(&v, end, &to) || v == end ||
        *v++ != '/' || !digits(&v, end, &total) || v != end || from > to || to >= total)
        return;
    r->from = from;
    r->total = total;
}

/* Link: <https://...>; rel="next" */
static void link_next(hd_hub_reply *r, const char *v, size_t n)
{
    const char *close = memchr(v, '>', n);
    if (!close || v[0] != '<' || (size_t)(close - v) > sizeof r->next ||
        !memmem(close, n - (size_t)(close - v), "next", 4))
        return;
    size_t len = (size_t)(close - v) - 1;
    memcpy(r->next, v + 1, len);
    r->next[len] = 0;
}

static size_t on_header(char *p, size_t one, size_t n, void *arg)
{
    hd_http *h = arg;
    size_t len;
    const char *v;
    (void)one;
    if (n > 5 && memcmp(p, "HTTP/", 5) == 0) // a new head (after 100 Continue): forget the old one
        *h->r = (hd_hub_reply){.length = -1, .from = -1, .total = -1};
    if ((v = field(p, n, "etag", &len)) && len < sizeof h->r->etag) {
        memcpy(h->r->etag, v, len);
        h->r->etag[len] = 0;
    }
    if ((v = field(p, n, "content-range", &len))) content_range(h->r, v, len);
    if ((v = field(p, n, "link", &len))) link_next(h->r, v, len);
    return n;
}

static bool is_redirect(long status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

/* The head is complete when the body begins or the transfer ends. */
static bool head_done(hd_http *h)
{
    if (h->headed) return !h->stopped;
    curl_off_t length = -1;
    h->headed = true;
    lib->curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &h->r->status);
    lib->curl_easy_getinfo(h->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    h->r->length = length;
    h->redirect = is_redirect(h->r->status);
    if (!h->redirect && h->q->head && !h->q->head(h->q->arg, h->r)) h->stopped = true;
    return !h->stopped;
}

static size_t on_body(char *p, size_t one, size_t n, void *arg)
{
    hd_http *h = arg;
    (void)one;
    if (!head_done(h)) return n + 1; // anything but n ends the transfer
    if (h->redirect) return n;
    if (!h->q->body(h->q->arg, p, n)) {
        h->stopped = true;
        return n + 1;
    }
    return n;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)arg, (void)a, (void)b, (void)c, (void)d;
    return hd_interrupted != 0;
}

/* ---- Where it goes ---- */

/* scheme://host:port of a URL; false for what is neither http nor https. */
static bool origin(char out[300], const char *url)
{
    CURLU *u = lib->curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL;
    bool ok = u && lib->curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
              lib->curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
              lib->curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
              lib->curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
              (strcmp(scheme, "https") == 0 || strcmp(scheme, "http") == 0) &&
              snprintf(out, 300, "%s://%s:%s", scheme, host, port) < 300;
    lib->curl_free(scheme);
    lib->curl_free(host);
    lib->curl_free(port);
    lib->curl_url_cleanup(u);
    return ok;
}

static hd_status one_hop(hd_http *h, const char *url, hd_err *err)
{
    hd_status st = HD_OK;
    CURL *c = h->curl;
    struct curl_slist *head = NULL, *more;
    char here[300], home[300], line[640];
    lib->curl_easy_reset(c);
    if (!origin(here, url) || !origin(home, h->endpoint))
        return hd_fail(err, HD_IO, "hub: %.200s: no http or https address", url);
    if (strncmp(home, "https", 5) == 0 && strncmp(here, "https", 5) != 0)
        return hd_fail(err, HD_IO, "hub: %.200s: the hub points from https to http, which is not followed",
                       url);
    if (h->token && strcmp(here, home) == 0) {
        snprintf(line, sizeof line, "Authorization: Bearer %.500s", h->token);
        if (!(more = lib->curl_slist_append(head, line))) goto no_memory;
        head = more;
    }
    if (h->q->from) {
        snprintf(line, sizeof line, "Range: bytes=%" PRIu64 "-", h->q->from);
        if (!(more = lib->curl_slist_append(head, line))) goto no_memory;
        head = more;
        if (h->q->if_range && h->q->if_range[0] == '"') { // strong ones only (RFC 9110, 13.1.5)
            snprintf(line, sizeof line, "If-Range: %.300s", h->q->if_range);
            if (!(more = lib->curl_slist_append(head, line))) goto no_memory;
            head = more;
        }
    }
    char why[CURL_ERROR_SIZE] = "";
    h->headed = h->stopped = h->redirect = false;
    *h->r = (hd_hub_reply){.length = -1, .from = -1, .total = -1};
    if (lib->curl_easy_setopt(c, CURLOPT_URL, url) != CURLE_OK) goto no_memory;
    lib->curl_easy_setopt(c, CURLOPT_HTTPHEADER, head);
    lib->curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    lib->curl_easy_setopt(c, CURLOPT_USERAGENT, "hadal/" HADAL_VERSION);
    lib->curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    lib->curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_S);
    lib->curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L); // a stalled connection is broken
    lib->curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    lib->curl_easy_setopt(c, CURLOPT_ERRORBUFFER, why);
    lib->curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    lib->curl_easy_setopt(c, CURLOPT_HEADERDATA, h);
    lib->curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    lib->curl_easy_setopt(c, CURLOPT_WRITEDATA, h);
    lib->curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    lib->curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    CURLcode code = lib->curl_easy_perform(c);
    curl_off_t wait = 0;
    lib->curl_easy_getinfo(c, CURLINFO_RETRY_AFTER, &wait);
    h->r->retry_after = wait < 120 ? (double)wait : 120;
    if (code == CURLE_OK) head_done(h); // without a body
    if (h->stopped || code == CURLE_ABORTED_BY_CALLBACK) st = hd_fail(err, HD_CANCELLED, "hub: stopped");
    else if (code == CURLE_OUT_OF_MEMORY) goto no_memory;
    else if (code != CURLE_OK)
        st = hd_fail(err, HD_IO, "hub: %.200s: %s", url, why[0] ? why : lib->curl_easy_strerror(code));
    lib->curl_slist_free_all(head);
    return st;
no_memory:
    lib->curl_slist_free_all(head);
    return hd_fail(err, HD_NOMEM, "hub: request: out of memory");
}

hd_status hd_http_get(hd_http *h, const char *url, const hd_request *q, hd_hub_reply *r, hd_err *err)
{
    hd_status st;
    char *at = NULL, *next = NULL;
    h->q = q;
    h->r = r;
    HD_TRY(hd_strdup(&at, url, err));
    for (int hop = 0;; hop++) {
        HD_TRY(one_hop(h, at, err));
        if (!h->redirect) break;
        next = NULL;
        lib->curl_easy_getinfo(h->curl, CURLINFO_REDIRECT_URL, &next); // made absolute by libcurl
        if (!next) HD_TRY(hd_fail(err, HD_IO, "hub: %.200s: redirected to nowhere", at));
        if (hop == MAX_HOPS)
            HD_TRY(hd_fail(err, HD_IO, "hub: %.200s: redirected more than %d times", url, MAX_HOPS));
        char *copy;
        HD_TRY(hd_strdup(&copy, next, err));
        free(at);
        at = copy;
    }
fail:
    free(at);
    return st;
}

/* ---- The connection ---- */

hd_status hd_http_open(hd_http **out, hd_err *err)
{
    hd_status st;
    hd_http *h = NULL;
    const char *endpoint = getenv("HF_ENDPOINT"), *token = getenv("HF_TOKEN");
    char where[300];
    if (!(lib = hd_curl_open(err))) return HD_IO;
    HD_TRY(hd_alloc(&h, sizeof *h, err));
    HD_TRY(hd_strdup(&h->endpoint, endpoint && *endpoint ? endpoint : "https://huggingface.co", err));
    size_t n = strlen(h->endpoint);
    while (n && h->endpoint[n - 1] == '/') h->endpoint[--n] = 0;
    for (const char *p = token; p && *p; p++)
        if (*p < 0x21 || *p > 0x7e || p - token > 500)
            HD_TRY(hd_fail(err, HD_USAGE, "HF_TOKEN: it holds spaces or other characters that no token has"));
    h->token = token && *token ? token : NULL;
    if (lib->curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || !(h->curl = lib->curl_easy_init()))
        HD_TRY(hd_fail(err, HD_NOMEM, "hub: libcurl does not start"));
    if (!origin(where, h->endpoint))
        HD_TRY(hd_fail(err, HD_USAGE, "HF_ENDPOINT: '%.200s': no http or https address", h->endpoint));
    *out = h;
    return HD_OK;
fail:
    hd_http_close(h);
    return st;
}

void hd_http_close(hd_http *h)
{
    if (!h) return;
    if (h->curl) lib->curl_easy_cleanup(h->curl);
    lib->curl_global_cleanup();
    free(h->endpoint);
    free(h);
}

const char *hd_http_endpoint(const hd_http *h) { return h->endpoint; }
