/* The whole route table, walked: every row is well-formed, what needs no right is exactly what is
 * listed here, and every other row refuses whoever has no key, whoever comes by a foreign name, and
 * pages of other sites. */
#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "serve/server.h"

#include "test.h"

static hd_err err;
static hd_net *net;

/* What anyone may ask.  A new row that needs no right is a decision: it is written down here, or
 * this test fails. */
static const char *const for_anyone[] = {
    "GET /health",       "GET /login",        "POST /login",
    "POST /logout",      "GET /once/{token}", "GET /",
    "GET /a/{file}",     "GET /sw.js",        "GET /manifest.webmanifest",
    "GET /icon.svg",     "GET /icon-192.png", "GET /icon-512.png",
    "GET /openapi.json", "GET /api/version",  NULL,
};

static bool is_for_anyone(const hd_route *row)
{
    char name[300];
    snprintf(name, sizeof name, "%s %s", row->method, row->path);
    for (int i = 0; for_anyone[i]; i++) {
        if (strcmp(for_anyone[i], name) == 0) return true;
    }
    return false;
}

static void shape(const hd_route *row)
{
    const char *open = strchr(row->path, '{'), *close = strchr(row->path, '}');
    bool writes = strcmp(row->method, "POST") == 0 || strcmp(row->method, "PUT") == 0 ||
                  strcmp(row->method, "PATCH") == 0;
    CHECK(row->handle && row->path[0] == '/' && strlen(row->path) < 200, "%s", row->path);
    CHECK(writes || strcmp(row->method, "GET") == 0 || strcmp(row->method, "DELETE") == 0, "%s %s",
          row->method, row->path);
    CHECK(!open == !close && (!open || (open[-1] == '/' && close > open && (!close[1] || close[1] == '/') &&
                                        !strchr(open + 1, '{'))),
          "%s", row->path);
    CHECK(row->max_body <= (size_t)256 << 20 &&
              (writes || row->max_body == 0 || strcmp(row->method, "DELETE") == 0),
          "%s: %zu", row->path, row->max_body);
    CHECK((row->right == HD_RIGHT_ANYONE) == is_for_anyone(row),
          "%s %s: its right is not the one listed in this test", row->method, row->path);
}

static bool same_row(const hd_route *a, const hd_route *b)
{
    return strcmp(a->method, b->method) == 0 && strcmp(a->path, b->path) == 0;
}

/* No row hides another. */
static void unique(const hd_route *row)
{
    int n = 0;
    for (int i = 0; hd_routes[i]; i++) {
        for (const hd_route *r = hd_routes[i]; r->method; r++) n += same_row(r, row);
    }
    CHECK(n == 1, "%s %s: %d times", row->method, row->path, n);
}

/* ---- Asking ---- */

static char got[100000];

static int status_of(const hd_route *row, const char *head)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)hd_net_port(net))};
    char bytes[1000], path[300];
    const char *open = strchr(row->path, '{');
    size_t n = 0, k;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (open)
        snprintf(path, sizeof path, "%.*sx%s", (int)(open - row->path), row->path, strchr(open, '}') + 1);
    else snprintf(path, sizeof path, "%s", row->path);
    k = (size_t)snprintf(bytes, sizeof bytes, "%s %s HTTP/1.1\r\nConnection: close\r\n%s%s\r\n", row->method,
                         path, head,
                         row->max_body                ? "Content-Length: 2\r\n"
                         : strcmp(row->method, "GET") ? "Content-Length: 0\r\n"
                                                      : "");
    if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0 && send(fd, bytes, k, MSG_NOSIGNAL) == (ssize_t)k) {
        ssize_t r;
        while (n < sizeof got - 1 && (r = recv(fd, got + n, sizeof got - 1 - n, 0)) > 0) n += (size_t)r;
    }
    got[n] = 0;
    close(fd);
    return strncmp(got, "HTTP/1.1 ", 9) == 0 ? atoi(got + 9) : -1;
}

static void refuses(const hd_route *row)
{
    bool operators = row->right == HD_RIGHT_OPERATOR;
    int want = operators ? 404 : 401;
    CHECK(status_of(row, "Host: localhost\r\n") == want, "%s %s: %s", row->method, row->path, got);
    CHECK(status_of(row, "Host: localhost\r\nAuthorization: Bearer wrong-key-0123456789\r\n") == want,
          "%s %s: %s", row->method, row->path, got);
    CHECK(status_of(row, "Host: localhost\r\nCookie: hadal=00\r\n") == want, "%s %s: %s", row->method,
          row->path, got);
    CHECK(status_of(row, "Host: evil.example\r\nAuthorization: Bearer abc\r\n") == 403, "%s %s: %s",
          row->method, row->path, got);
    CHECK(status_of(row, "Host: localhost\r\nOrigin: http://evil.example\r\nAuthorization: Bearer abc\r\n") ==
              (operators ? 404 : 403),
          "%s %s: %s", row->method, row->path, got);
}

/* Also those that anyone may ask: not by a foreign name, and nothing is changed for another site. */
static void refuses_strangers(const hd_route *row)
{
    CHECK(status_of(row, "Host: evil.example\r\n") == 403, "%s %s: %s", row->method, row->path, got);
    if (strcmp(row->method, "GET") != 0)
        CHECK(status_of(row, "Host: localhost\r\nOrigin: http://evil.example\r\n") == 403, "%s %s: %s",
              row->method, row->path, got);
}

static void *run_net(void *arg)
{
    (void)arg;
    if (hd_net_run(net, 1000, NULL) != HD_OK) fprintf(stderr, "the loop failed\n");
    return NULL;
}

int main(void)
{
    static hd_server nothing; // no handler is reached
    static const char *const keys[] = {"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
                                       NULL}; // of "abc"
    hd_net_opts o = {.address = "127.0.0.1", .api_key_hashes = keys, .log_fd = -1, .app = &nothing};
    pthread_t thread;
    int n = 0;
    CHECK_OK(hd_net_open(&net, &o, &err));
    if (!net || pthread_create(&thread, NULL, run_net, NULL) != 0) return 1;
    for (int i = 0; hd_routes[i]; i++) {
        for (const hd_route *row = hd_routes[i]; row->method; row++, n++) {
            shape(row);
            unique(row);
            if (row->right == HD_RIGHT_ANYONE) refuses_strangers(row);
            else refuses(row);
        }
    }
    CHECK(n >= 10, "%d rows", n);
    hd_net_stop(net);
    pthread_join(thread, NULL);
    hd_net_close(net);
    return hd_test_end();
}
