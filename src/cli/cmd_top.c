/* hadal top: what a running server is doing, read from its metrics once a second. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "cli/cmd.h"
#include "cli/hub_curl.h"
#include "cli/load.h"
#include "cli/opts.h"
#include "cli/terminal.h"
#include "model/json.h"

enum { PORT = 9464, MAX_REPLY = 1 << 20, BUCKETS = 32, BAR = 24 };

typedef struct {
    int64_t port, seconds;
    bool once, json;
} options;

/* ---- Fetching ---- */

static size_t on_body(char *p, size_t one, size_t n, void *arg)
{
    return hd_buf_add(arg, p, one * n, NULL) == HD_OK ? one * n : 0;
}

static hd_status fetch(const hd_curl *lib, CURL *c, int64_t port, hd_buf *out, hd_err *err)
{
    char url[64], why[CURL_ERROR_SIZE] = "";
    long status = 0;
    snprintf(url, sizeof url, "http://127.0.0.1:%lld/metrics", (long long)port);
    hd_buf_clear(out);
    lib->curl_easy_reset(c);
    lib->curl_easy_setopt(c, CURLOPT_URL, url);
    lib->curl_easy_setopt(c, CURLOPT_NOPROXY, "*"); // this machine's own
    lib->curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    lib->curl_easy_setopt(c, CURLOPT_TIMEOUT, 5L);
    lib->curl_easy_setopt(c, CURLOPT_ERRORBUFFER, why);
    lib->curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
    lib->curl_easy_setopt(c, CURLOPT_WRITEDATA, out);
    CURLcode code = lib->curl_easy_perform(c);
    if (code == CURLE_OK) lib->curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
    if (code != CURLE_OK || status != 200 || !out->data)
        return hd_fail(err, HD_IO, "top: port %lld: %s: is there a `hadal serve MODEL --metrics-port %lld`?", (long long)port,
                       why[0] ? why : "no metrics", (long long)port);
    return HD_OK;
}

/* The number behind "\nhadal_NAME "; 0 when there is none. */
static double value(const hd_buf *b, const char *name)
{
    char key[96];
    int n = snprintf(key, sizeof key, "\nhadal_%s ", name);
    const char *at = memmem(b->data, b->len, key, (size_t)n);
    return at ? strtod(at + n, NULL) : 0;
}

/* The upper bound of the histogram's bucket where a share q of all is reached; -1: nothing yet. */
static double quantile(const hd_buf *b, const char *name, double q)
{
    char key[96];
    double le[BUCKETS], count[BUCKETS];
    int n = 0, len = snprintf(key, sizeof key, "\nhadal_%s_bucket{le=\"", name);
    const char *end = b->data + b->len;
    for (const char *at = b->data; n < BUCKETS && (at = memmem(at, (size_t)(end - at), key, (size_t)len)); n++) {
        char *next;
        at += len;
        le[n] = strncmp(at, "+Inf", 4) == 0 ? INFINITY : strtod(at, NULL);
        at = strchr(at, ' ');
        if (!at) break;
        count[n] = strtod(at, &next);
        at = next;
    }
    if (n == 0 || count[n - 1] <= 0) return -1;
    for (int i = 0; i < n; i++)
        if (count[i] >= q * count[n - 1]) return le[i];
    return INFINITY;
}

/* ---- Showing ---- */

/* Gauges and counters as they are called in JSON. */
static const char *const shown[] = {
    "jobs_live", "jobs_queued", "jobs_parked", "users", "generated_ids_per_second", "prompt_ids_per_second", "cache_pages",
    "cache_pages_free", "cache_ids", "disk_cache_ids", "disk_cache_bytes", "jobs_total", "jobs_cancelled_total",
    "prompt_ids_total", "cached_ids_total", "generated_ids_total", "requests_running", "connections", "wait_seconds",
    "uptime_seconds"};

static hd_status print_json(const hd_buf *b, hd_err *err)
{
    json_t *j = json_object();
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) json_object_set_new(j, shown[i], json_real(value(b, shown[i])));
    hd_status st = hd_json_print_take(j, JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(9) | JSON_COMPACT, "top", err);
    fflush(stdout);
    return st;
}

static void print_bar(const char *what, double part, const char *more)
{
    char bar[BAR + 1];
    part = part > 0 ? part < 1 ? part : 1 : 0; // also what is no number
    for (int i = 0; i < BAR; i++) bar[i] = (i + 0.5) / BAR < part ? '#' : '.';
    bar[BAR] = 0;
    printf("  %-10s [%s] %3.0f %%  %s\n", what, bar, 100 * part, more);
}

static void print_seconds(const char *what, double s)
{
    if (s < 0) printf("%s -", what);
    else if (s < 1) printf("%s under %.0f ms", what, 1000 * s);
    else if (s < 1e9) printf("%s under %.1f s", what, s);
    else printf("%s over 5 min", what);
}

static void print_screen(const hd_buf *b, int64_t port)
{
    char more[128];
    double up = value(b, "uptime_seconds"), pages = value(b, "cache_pages"), prompt = value(b, "prompt_ids_total");
    double cached = value(b, "cached_ids_total");
    printf("hadal on port %lld, up %.0f h %02.0f min\n\n", (long long)port, floor(up / 3600), floor(fmod(up, 3600) / 60));
    printf("  answers    %4.0f running  %4.0f waiting  %4.0f parked  for %.0f users; a new one waits about %.0f s\n",
           value(b, "jobs_live"), value(b, "jobs_queued"), value(b, "jobs_parked"), value(b, "users"), value(b, "wait_seconds"));
    printf("  speed      %7.1f tok/s generated  %9.1f tok/s read\n", value(b, "generated_ids_per_second"),
           value(b, "prompt_ids_per_second"));
    snprintf(more, sizeof more, "%.0f ids of prompts kept", value(b, "cache_ids"));
    print_bar("cache", 1 - value(b, "cache_pages_free") / (pages > 0 ? pages : 1), more);
    snprintf(more, sizeof more, "of %.0f prompt ids came from it; on disk %.0f ids, %.2f GB", prompt, value(b, "disk_cache_ids"),
             1e-9 * value(b, "disk_cache_bytes"));
    print_bar("hits", prompt > 0 ? cached / prompt : 0, more);
    printf("  in all     %.0f answers, %.0f given up, %.0f ids generated\n", value(b, "jobs_total"), value(b, "jobs_cancelled_total"),
           value(b, "generated_ids_total"));
    print_seconds("  first byte", quantile(b, "first_byte_seconds", 0.5));
    print_seconds(" for half,", quantile(b, "first_byte_seconds", 0.99));
    printf(" for 99 %%; %.0f connections\n", value(b, "connections"));
    fflush(stdout);
}

static void wait_a_while(int64_t seconds)
{
    for (int i = 0; i < 10 * seconds && !hd_interrupted; i++) nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    int n = 0;
    options o = {.port = PORT, .seconds = 1};
    const hd_opt opts[] = {
        {"port", 'p', HD_OPT_INT, &o.port, 1, 65535},
        {"interval", 'i', HD_OPT_INT, &o.seconds, 1, 3600},
        {"once", 0, HD_OPT_FLAG, &o.once, 0, 0},
        {"json", 0, HD_OPT_FLAG, &o.json, 0, 0},
    };
    hd_buf b;
    CURL *c = NULL;
    const hd_curl *lib = NULL;
    hd_buf_init(&b, MAX_REPLY);
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n > 0) HD_TRY(hd_fail(err, HD_USAGE, "top: '%.60s': takes options only: hadal top --port N", argv[1]));
    if (!(lib = hd_curl_open(err))) HD_TRY(HD_IO);
    if (!(c = lib->curl_easy_init())) HD_TRY(hd_fail(err, HD_NOMEM, "top: libcurl does not start"));
    hd_watch_signals();
    bool style = !o.json && !o.once && hd_terminal_can_style(stdout);
    while (!hd_interrupted) {
        HD_TRY(fetch(lib, c, o.port, &b, err));
        if (style) fputs("\x1b[H\x1b[J", stdout);
        if (o.json) HD_TRY(print_json(&b, err));
        else print_screen(&b, o.port);
        if (o.once) break;
        wait_a_while(o.seconds);
    }
fail:
    if (c) lib->curl_easy_cleanup(c);
    hd_buf_free(&b);
    return st;
}

const hd_command hd_cmd_top = {
    .verb = "top",
    .summary = "what a running server is doing",
    .help = "usage: hadal top [options]\n\n"
            "Shows the streams, the queue, the speed and the cache of a `hadal serve ... --metrics-port N` on this machine,\n"
            "again every second, until Ctrl-C.\n\n"
            "  -p, --port N       its metrics port; default 9464\n"
            "  -i, --interval N   seconds between two looks; default 1\n"
            "      --once         one look\n"
            "      --json         a JSON object a look\n\n"
            "examples:\n"
            "  hadal serve r1:1.5b --metrics-port 9464\n"
            "  hadal top\n"
            "  hadal top --once --json\n",
    .run = run,
};
