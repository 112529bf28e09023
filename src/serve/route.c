/* The route table: what can be asked here, with which right, and nothing else.  A path that is in no row is
 * 404; a method that is in none of its rows is 405. */
#include <stdio.h>
#include <string.h>

#include "serve/net_impl.h"
#include "serve/routes.h"

/* One line a file with handlers. */
const hd_route *const hd_routes[] = {
    hd_routes_base,
    hd_routes_page,
    hd_routes_chats,
    hd_routes_openai,
    hd_routes_anthropic,
    hd_routes_ollama,
    hd_routes_responses,
    hd_routes_openapi,
    hd_routes_login,
    NULL, // ends the table
};

static void health(hd_req *r)
{
    static const char ok[] = "{\"status\":\"ok\"}";
    hd_reply(r, 200, "application/json", ok, sizeof ok - 1);
}

const hd_route hd_routes_base[] = {
    {.method = "GET", .path = "/health", .right = HD_RIGHT_ANYONE, .handle = health},
    {.method = "GET", .path = "/metrics", .right = HD_RIGHT_OPERATOR, .handle = hd_metrics_handle},
    {0},
};

/* ---- Finding ---- */

/* "/models/{id}" fits "/models/x" and gives "x". */
static bool fits(const char *pattern, const char *path, char *param, size_t size)
{
    const char *open = strchr(pattern, '{');
    param[0] = 0;
    if (!open) return strcmp(pattern, path) == 0;
    const char *rest = strchr(open, '}') + 1;
    size_t head = (size_t)(open - pattern), n;
    if (strncmp(pattern, path, head) != 0) return false;
    n = strcspn(path + head, "/");
    if (n == 0 || n >= size || strcmp(path + head + n, rest) != 0) return false;
    memcpy(param, path + head, n);
    param[n] = 0;
    return true;
}

bool hd_route_fits(const hd_route *row, const char *path, char *param, size_t size)
{
    if (fits(row->path, path, param, size)) return true;
    if (!row->versions) return false;
    size_t n = strncmp(path, "/v1/", 4) == 0 ? 3 : strncmp(path, "/beta/", 6) == 0 ? 5 : 0;
    return n && fits(row->path, path + n, param, size);
}

static bool on_this_side(const hd_req *r, const hd_route *row)
{
    return (row->right == HD_RIGHT_OPERATOR) == r->conn->operators;
}

/* What is answered when the path is there and the method is not. */
static void other_method(hd_req *r, const char *methods)
{
    if (strcmp(r->in.method, "OPTIONS") == 0 && hd_h1_field(&r->in, "access-control-request-method")) {
        hd_guard_preflight(r, methods);
        return;
    }
    hd_reply_header(r, "Allow", methods);
    hd_req_fail(r, 405, "method_not_allowed",
                "this route does not have this method; the Allow header lists those it has");
}

bool hd_route_find(hd_req *r)
{
    const char *method = strcmp(r->in.method, "HEAD") == 0 ? "GET" : r->in.method;
    char methods[64] = "", param[sizeof r->param];
    const hd_route *seen = NULL;
    for (int i = 0; r->net->o.routes[i]; i++) {
        for (const hd_route *row = r->net->o.routes[i]; row->method; row++) {
            if (!on_this_side(r, row) || !hd_route_fits(row, r->in.path, param, sizeof param)) continue;
            if (strcmp(row->method, method) == 0) {
                memcpy(r->param, param, sizeof param);
                r->route = row;
                return true;
            }
            size_t at = strlen(methods);
            if (!strstr(methods, row->method))
                snprintf(methods + at, sizeof methods - at, "%s%s%s", at ? ", " : "", row->method,
                         strcmp(row->method, "GET") ? "" : ", HEAD");
            if (!seen) seen = row;
        }
    }
    r->route = seen; // its way of telling errors
    if (seen) other_method(r, methods);
    else hd_req_fail(r, 404, "not_found", "there is no such route here");
    return false;
}
