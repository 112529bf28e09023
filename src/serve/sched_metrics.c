/* The scheduler's lines of /metrics. */
#include "serve/server.h"

static void put(hd_buf *b, const char *name, const char *type, const char *help, double v)
{
    hd_buf_addf(b, NULL, "# HELP hadal_%s %s\n# TYPE hadal_%s %s\nhadal_%s %.17g\n", name, help, name, type,
                name, v);
}

void hd_server_metrics(void *app, hd_buf *out)
{
    const hd_server *v = app;
    hd_sched_stats s;
    if (!v->sched) return;
    hd_sched_get_stats(v->sched, &s);
    put(out, "jobs_live", "gauge", "Sequences in the passes.", s.live);
    put(out, "jobs_queued", "gauge", "Jobs that wait for a place.", s.queued);
    put(out, "jobs_parked", "gauge", "Sequences put aside for want of cache pages.", s.parked);
    put(out, "users", "gauge", "Users with a job.", s.users);
    put(out, "cache_pages", "gauge", "Pages of the cache.", (double)s.pages_all);
    put(out, "cache_pages_free", "gauge", "Pages of the cache that are free.", (double)s.pages_free);
    put(out, "cache_ids", "gauge", "Ids kept for prompts to come, in memory.", (double)s.cache_tok);
    put(out, "disk_cache_ids", "gauge", "Ids kept on disk.", (double)s.disk_tok);
    put(out, "disk_cache_bytes", "gauge", "Bytes of the cache on disk.", (double)s.disk_bytes);
    put(out, "jobs_total", "counter", "Jobs that came to their end.", (double)s.jobs_done);
    put(out, "jobs_cancelled_total", "counter", "Jobs whose client left.", (double)s.jobs_cancelled);
    put(out, "prompt_ids_total", "counter", "Ids of prompts.", (double)s.prompt_tok);
    put(out, "cached_ids_total", "counter", "Of those, the ids found in the cache.", (double)s.cached_tok);
    put(out, "generated_ids_total", "counter", "Ids generated.", (double)s.gen_tok);
    put(out, "drafted_ids_total", "counter", "Ids guessed ahead, of sequences that left the passes.", (double)s.drafted_tok);
    put(out, "accepted_ids_total", "counter", "Of those, the ids that were right.", (double)s.accepted_tok);
    put(out, "passes_total", "counter", "Passes of the model.", (double)s.passes);
    put(out, "parkings_total", "counter", "Times a sequence was put aside.", (double)s.parkings);
    put(out, "generated_ids_per_second", "gauge", "Over the last seconds.", s.gen_tok_s);
    put(out, "prompt_ids_per_second", "gauge", "Over the last seconds.", s.prompt_tok_s);
    put(out, "wait_seconds", "gauge", "Guess for a job that came now.", s.wait_s);
}
