/* What Prometheus reads: counters of requests, connections and ids, and whatever the application adds.
 * Kept by hand and written as text (exposition format 0.0.4); on the operator's listener alone, since it
 * tells how much is used. */
#include <string.h>

#include "base/log.h"
#include "serve/net_impl.h"

enum { ROWS = 512, BUCKETS = 12 };
static const double bound[BUCKETS] = {0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300};

typedef struct {
    uint64_t n[BUCKETS + 1];
    double sum;
} histogram;

struct hd_metrics {
    struct {
        const char *method, *path;
        int status;
        uint64_t n;
    } row[ROWS]; // by route and status: what routes and handlers can make of them fits
    int n_rows;
    uint64_t other, refused[HD_REFUSED_KINDS], in_bytes, out_bytes, prompt_tok, cached_tok, gen_tok;
    histogram whole, first, step;
    double step_most, step_most_cpu, turn_most_cpu;
    double t_start;
};

hd_status hd_metrics_open(hd_metrics **out, hd_err *err)
{
    hd_status st = hd_alloc(out, sizeof **out, err);
    if (st == HD_OK) (*out)->t_start = hd_now_s();
    return st;
}

void hd_metrics_close(hd_metrics *m) { free(m); }

static void observe(histogram *h, double v)
{
    int i = 0;
    while (i < BUCKETS && v > bound[i]) i++;
    h->n[i]++;
    h->sum += v;
}

static void count(hd_metrics *m, const char *method, const char *path, int status)
{
    for (int i = 0; i < m->n_rows; i++) {
        if (m->row[i].path == path && m->row[i].method == method && m->row[i].status == status) {
            m->row[i].n++;
            return;
        }
    }
    if (m->n_rows == ROWS) {
        m->other++;
        return;
    }
    m->row[m->n_rows].method = method;
    m->row[m->n_rows].path = path;
    m->row[m->n_rows].status = status;
    m->row[m->n_rows++].n = 1;
}

void hd_metrics_request(hd_metrics *m, const hd_req *r, double now)
{
    static const char none[] = "";
    count(m, r->route ? r->route->method : none, r->route ? r->route->path : none, r->status);
    observe(&m->whole, now - r->t_begin);
    observe(&m->first, (r->t_first > 0 ? r->t_first : now) - r->t_begin);
    m->in_bytes += r->in.body.len;
    m->out_bytes += r->out_bytes;
    m->prompt_tok += (uint64_t)r->prompt_tok;
    m->cached_tok += (uint64_t)r->cached_tok;
    m->gen_tok += (uint64_t)r->gen_tok;
}

void hd_metrics_step(hd_metrics *m, double seconds, double cpu_seconds)
{
    observe(&m->step, seconds);
    if (seconds > m->step_most) m->step_most = seconds;
    if (cpu_seconds > m->step_most_cpu) m->step_most_cpu = cpu_seconds;
}

void hd_metrics_turn(hd_metrics *m, double cpu_seconds)
{
    if (cpu_seconds > m->turn_most_cpu) m->turn_most_cpu = cpu_seconds;
}

void hd_metrics_refused(hd_metrics *m, hd_refused why) { m->refused[why]++; }

static void put_histogram(hd_buf *b, const char *name, const char *help, const histogram *h)
{
    uint64_t n = 0;
    hd_buf_addf(b, NULL, "# HELP %s %s\n# TYPE %s histogram\n", name, help, name);
    for (int i = 0; i < BUCKETS; i++) {
        n += h->n[i];
        hd_buf_addf(b, NULL, "%s_bucket{le=\"%g\"} %llu\n", name, bound[i], (unsigned long long)n);
    }
    n += h->n[BUCKETS];
    hd_buf_addf(b, NULL, "%s_bucket{le=\"+Inf\"} %llu\n%s_sum %.6f\n%s_count %llu\n", name,
                (unsigned long long)n, name, h->sum, name, (unsigned long long)n);
}

static void put(hd_buf *b, const char *name, const char *type, const char *help, double v)
{
    hd_buf_addf(b, NULL, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", name, help, name, type, name, v);
}

static void put_requests(hd_buf *b, const hd_metrics *m)
{
    hd_buf_adds(b,
                "# HELP hadal_requests_total Requests answered, by route and status.\n# TYPE "
                "hadal_requests_total counter\n",
                NULL);
    for (int i = 0; i < m->n_rows; i++)
        hd_buf_addf(b, NULL, "hadal_requests_total{method=\"%s\",route=\"%s\",status=\"%d\"} %llu\n",
                    m->row[i].method, m->row[i].path, m->row[i].status, (unsigned long long)m->row[i].n);
    if (m->other)
        hd_buf_addf(b, NULL, "hadal_requests_total{method=\"\",route=\"other\",status=\"\"} %llu\n",
                    (unsigned long long)m->other);
}

static void put_refused(hd_buf *b, const hd_metrics *m)
{
    static const char *const why[HD_REFUSED_KINDS] = {"full", "address", "slow"};
    hd_buf_adds(b,
                "# HELP hadal_connections_refused_total Connections refused or cut off.\n# TYPE "
                "hadal_connections_refused_total counter\n",
                NULL);
    for (int i = 0; i < HD_REFUSED_KINDS; i++)
        hd_buf_addf(b, NULL, "hadal_connections_refused_total{why=\"%s\"} %llu\n", why[i],
                    (unsigned long long)m->refused[i]);
}

void hd_metrics_handle(hd_req *r)
{
    hd_net *n = r->net;
    const hd_metrics *m = n->metrics;
    hd_buf b;
    int n_handed = 0;
    for (const hd_conn *c = n->conns; c; c = c->next) n_handed += c->req && c->req->handed;
    hd_buf_init(&b, 1 << 20);
    put_requests(&b, m);
    put_refused(&b, m);
    put_histogram(&b, "hadal_request_seconds", "From a request's first byte to its reply's end.", &m->whole);
    put_histogram(&b, "hadal_first_byte_seconds", "From a request's first byte to its reply's first.",
                  &m->first);
    put_histogram(&b, "hadal_net_step_seconds", "What the network thread does for one event, while all others wait.", &m->step);
    put(&b, "hadal_net_step_longest_seconds", "gauge", "The longest of those.", m->step_most);
    put(&b, "hadal_net_step_longest_cpu_seconds", "gauge", "The longest in the thread's processor time.", m->step_most_cpu);
    put(&b, "hadal_net_turn_longest_cpu_seconds", "gauge", "All events that were found at once, in its processor time.",
        m->turn_most_cpu);
    put(&b, "hadal_connections", "gauge", "Connections open.", n->n_conns);
    put(&b, "hadal_requests_running", "gauge", "Requests being answered.", n_handed);
    put(&b, "hadal_body_bytes", "gauge", "Request bodies in memory.", (double)n->bodies);
    put(&b, "hadal_request_body_bytes_total", "counter", "Bytes of request bodies.", (double)m->in_bytes);
    put(&b, "hadal_reply_bytes_total", "counter", "Bytes of reply bodies.", (double)m->out_bytes);
    put(&b, "hadal_request_prompt_ids_total", "counter", "Ids of prompts, of requests that are over.",
        (double)m->prompt_tok);
    put(&b, "hadal_request_cached_ids_total", "counter", "Of those, the ids found in the cache.",
        (double)m->cached_tok);
    put(&b, "hadal_request_generated_ids_total", "counter", "Ids generated, of requests that are over.",
        (double)m->gen_tok);
    put(&b, "hadal_log_lines_dropped_total", "counter", "Lines that the access log had no room for.",
        (double)hd_log_dropped(n->log));
    put(&b, "hadal_uptime_seconds", "gauge", "Since the start.", hd_now_s() - m->t_start);
    if (n->o.metrics) n->o.metrics(n->o.app, &b);
    hd_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", b.data ? b.data : "", b.len);
    hd_buf_free(&b);
}
