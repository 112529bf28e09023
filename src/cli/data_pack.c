/* hadal data pack: options and the report.  The work is train/pack.c's. */
#include <stdio.h>
#include <string.h>

#include "cli/data.h"
#include "cli/hub.h"
#include "cli/load.h"
#include "model/json.h"
#include "train/pack.h"

static hd_status print_json(const hd_pack_report *r, const char *dir, json_t *report, hd_err *err)
{
    return hd_json_print_take(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:O}", "dir", dir, "docs",
                                        (json_int_t)r->n_docs, "ids", (json_int_t)r->n_ids, "targets",
                                        (json_int_t)r->n_targets, "bytes", (json_int_t)r->text_bytes,
                                        "val_docs", (json_int_t)r->n_val_docs, "val_ids",
                                        (json_int_t)r->n_val_ids, "seconds", r->seconds, "report", report),
                              JSON_REAL_PRECISION(6), "data: report", err);
}

static void print_text(const hd_pack_report *r, const char *dir, const json_t *report)
{
    size_t i;
    json_t *v;
    printf("%s: %lld documents, %lld ids", dir, (long long)r->n_docs, (long long)r->n_ids);
    if (r->n_targets) printf(", %.3f bytes a target", (double)r->text_bytes / (double)r->n_targets);
    if (r->n_val_docs)
        printf("; val: %lld documents, %lld ids", (long long)r->n_val_docs, (long long)r->n_val_ids);
    printf("\nread %lld documents, %.1f MB in %.2f s (%.1f MB/s)\n", (long long)r->n_read,
           (double)r->read_bytes * 1e-6, r->seconds,
           (double)r->read_bytes * 1e-6 / (r->seconds > 0 ? r->seconds : 1));
    if (r->n_same || r->n_near)
        printf("left out: %lld the same, %lld nearly the same\n", (long long)r->n_same, (long long)r->n_near);
    json_array_foreach(json_object_get(report, "against"), i, v) printf(
        "against %s: %lld texts, %lld too short to look for\n", json_string_value(json_object_get(v, "file")),
        (long long)json_integer_value(json_object_get(v, "texts")),
        (long long)json_integer_value(json_object_get(v, "too_short")));
    if (json_array_size(json_object_get(report, "against")))
        printf("left out: %lld that share words with them\n", (long long)r->n_overlap);
    json_array_foreach(json_object_get(report, "examples"), i, v)
    {
        if (i == 3) break; // the rest stands in pack.json
        char begins[64];
        snprintf(begins, sizeof begins, "%.50s", json_string_value(json_object_get(v, "begins")));
        for (char *p = begins; *p; p++)
            if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = ' ';
        printf("  %s, document %lld: text %lld of %s: %s\n", json_string_value(json_object_get(v, "file")),
               (long long)json_integer_value(json_object_get(v, "document")),
               (long long)json_integer_value(json_object_get(v, "text")),
               json_string_value(json_object_get(v, "against")), begins);
    }
}

hd_status hd_data_cmd_pack(int argc, char **argv, hd_err *err)
{
    hd_status st;
    hd_pack_opts o = {.stop = &hd_interrupted, .progress = true};
    hd_pack_report r;
    const char *dir = NULL;
    hd_opt_list against = {0};
    bool dedup = false, json = false;
    int64_t threads = 0;
    double near = 0;
    int n = 0;
    hd_source *s = NULL;
    json_t *report = NULL;
    const hd_opt opts[] = {
        {"output", 'o', HD_OPT_STR, &dir, 0, 0},
        {"field", 0, HD_OPT_STR, &o.field, 0, 0},
        {"divider", 0, HD_OPT_STR, &o.divider, 0, 0},
        {"chat", 0, HD_OPT_FLAG, &o.chat, 0, 0},
        {"chat-format", 0, HD_OPT_STR, &o.chat_format, 0, 0},
        {"dedup", 0, HD_OPT_FLAG, &dedup, 0, 0},
        {"near", 0, HD_OPT_FLOAT, &near, 0.3, 1},
        {"against", 0, HD_OPT_LIST, &against, 0, 0},
        {"val-share", 0, HD_OPT_FLOAT, &o.val_share, 0, 0.5},
        {"shard-ids", 0, HD_OPT_INT, &o.max_tok, 1000, 4e9},
        {"replace", 0, HD_OPT_FLAG, &o.replace, 0, 0},
        {"threads", 't', HD_OPT_INT, &threads, 1, 1024},
        {"json", 0, HD_OPT_FLAG, &json, 0, 0},
    };
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n < 2)
        return hd_fail(err, HD_USAGE,
                       "data: a tokenizer and files are needed: hadal data pack MODEL FILE... -o DIR");
    if (!dir) return hd_fail(err, HD_USAGE, "data: -o DIR is needed");
    if (o.chat_format && !o.chat) return hd_fail(err, HD_USAGE, "data: --chat-format belongs to --chat");
    if (o.chat && (o.field || o.divider))
        return hd_fail(err, HD_USAGE, "data: --chat reads whole JSON lines: no --field, no --divider");
    o.near = near > 0 ? near : dedup ? 0.8 : 0;
    o.against = against.v;
    o.n_against = against.n;
    o.n_threads = (int)threads;
    hd_watch_signals();
    HD_TRY(hd_hub_open_source(&s, argv[1], false, err));
    HD_TRY(hd_pack(dir, s, (const char *const *)argv + 2, n - 1, &o, &r, &report, err));
    if (json) HD_TRY(print_json(&r, dir, report, err));
    else print_text(&r, dir, report);
fail:
    json_decref(report);
    hd_source_close(s);
    return st;
}
