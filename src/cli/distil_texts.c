/* See distil_texts.h.  The work is train/teacher_texts.c's. */
#include "cli/distil_texts.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cli/hub.h"
#include "cli/load.h"
#include "cli/opts.h"
#include "model/json.h"
#include "train/teacher.h"

bool hd_asks_for_texts(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--make-texts") == 0) return true;
    return false;
}

static hd_status report(const hd_teacher_texts_report *r, const char *out, bool json, hd_err *err)
{
    double rate = r->seconds > 0 ? (double)r->n_tok / r->seconds : 0;
    if (json)
        return hd_json_print_take(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "out", out, "prompts",
                                            (json_int_t)r->n_prompts, "before", (json_int_t)r->n_before,
                                            "answered", (json_int_t)r->n_stopped, "left_out",
                                            (json_int_t)r->n_unfinished, "tokens", (json_int_t)r->n_tok,
                                            "seconds", r->seconds, "tokens_per_second", rate),
                                  JSON_REAL_PRECISION(6), "distil: report", err);
    printf("%s: %lld prompts, %lld of them before; %lld answered, %lld left out (no end); %lld tokens in "
           "%.1f s, %.1f a second\n",
           out, (long long)r->n_prompts, (long long)r->n_before, (long long)r->n_stopped,
           (long long)r->n_unfinished, (long long)r->n_tok, r->seconds, rate);
    return HD_OK;
}

hd_status hd_distil_texts(int argc, char **argv, hd_err *err)
{
    hd_status st;
    const char *out = NULL, *think = NULL, *chat = NULL;
    int64_t max_tok = 0, at_once = 8, seed = 0, ctx = 0, threads = 0;
    double temp = -1, top_p = -1;
    bool json = false, texts;
    int n = 0;
    const hd_opt opts[] = {
        {"make-texts", 0, HD_OPT_FLAG, &texts, 0, 0},      {"output", 'o', HD_OPT_STR, &out, 0, 0},
        {"max-tokens", 'n', HD_OPT_INT, &max_tok, 1, 1e9}, {"at-once", 'j', HD_OPT_INT, &at_once, 1, 256},
        {"temp", 0, HD_OPT_FLOAT, &temp, 0, 100},          {"top-p", 0, HD_OPT_FLOAT, &top_p, 0, 1},
        {"seed", 0, HD_OPT_INT, &seed, 0, 9e15},           {"thinking", 0, HD_OPT_STR, &think, 0, 0},
        {"chat-format", 0, HD_OPT_STR, &chat, 0, 0},       {"ctx", 0, HD_OPT_INT, &ctx, 16, 1e9},
        {"threads", 't', HD_OPT_INT, &threads, 1, 1024},   {"json", 0, HD_OPT_FLAG, &json, 0, 0},
    };
    hd_engine *e = NULL;
    hd_sample_opts sampling;
    hd_teacher_texts_report r;
    HD_TRY(hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err));
    if (n != 2 || !out)
        HD_TRY(hd_fail(err, HD_USAGE,
                       "distil: --make-texts wants a model, prompts and -o: hadal distil --make-texts MODEL "
                       "PROMPTS.jsonl -o OUT.jsonl"));
    if (think && strcmp(think, "on") != 0 && strcmp(think, "off") != 0)
        HD_TRY(hd_fail(err, HD_USAGE, "--thinking %.40s: on or off", think));
    hd_watch_signals();
    const hd_engine_opts eo = {.n_threads = (int)threads,
                               .ctx_tok = ctx,
                               .n_sessions = (int)at_once,
                               .chat_format = chat,
                               .progress = true};
    HD_TRY(hd_hub_open_engine(&e, argv[1], &eo, err));
    hd_engine_sampling(e, &sampling);
    if (temp >= 0) sampling.temperature = (float)temp;
    if (top_p >= 0) sampling.top_p = (float)top_p;
    const hd_teacher_texts_opts o = {.prompts = argv[2],
                                     .out = out,
                                     .n_at_once = (int)at_once,
                                     .max_tok = max_tok,
                                     .thinking = !think ? -1 : strcmp(think, "on") == 0,
                                     .sampling = &sampling,
                                     .seed = (uint64_t)seed,
                                     .progress = true,
                                     .stop = &hd_interrupted};
    HD_TRY(hd_teacher_texts(e, &o, &r, err));
    HD_TRY(report(&r, out, json, err));
fail:
    hd_engine_close(e);
    return st;
}
