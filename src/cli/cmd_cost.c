/* hadal cost: what a training run will cost (plan), what this machine does (measure), what a run did cost
 * (run).  The arithmetic is eval/cost.c's. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/cmd.h"
#include "cli/opts.h"
#include "eval/cost.h"
#include "eval/cost_run.h"
#include "model/json.h"

typedef struct {
    const char *model, *tokens, *machine, *batch, *optimizer, *output;
    int64_t seq, threads;
    double watts, usd_per_hour, usd_per_kwh;
    bool json;
} options;

/* ---- plan ---- */

static hd_status read_config(hd_config *c, const char *path, hd_err *err)
{
    hd_status st;
    hd_buf text;
    json_t *j = NULL;
    char in_folder[4096];
    hd_buf_init(&text, 16 << 20);
    if (hd_is_dir(path)) {
        snprintf(in_folder, sizeof in_folder, "%s/config.json", path);
        path = in_folder;
    }
    HD_TRY(hd_file_read(&text, path, err));
    HD_TRY(hd_json_parse(&j, text.data, text.len, 1 << 20, "cost", path, err));
    HD_TRY(hd_config_from_json(c, j, NULL, path, err));
fail:
    json_decref(j);
    hd_buf_free(&text);
    return st;
}

/* 671.0 B, 135 M, 2,664 K: three digits that matter and a unit. */
static const char *show(char out[32], double v)
{
    static const char *const units[] = {"", " K", " M", " B", " T"};
    int u = 0;
    while (u < 4 && fabs(v) >= 1000) v /= 1000, u++;
    snprintf(out, 32, v >= 100 || (u == 0 && v == floor(v)) ? "%.0f%s" : v >= 10 ? "%.1f%s" : "%.2f%s", v, units[u]);
    return out;
}

static const char *bytes(char out[32], double v)
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    int u = 0;
    while (u < 4 && v >= 1000) v /= 1000, u++;
    snprintf(out, 32, "%.3g %s", v, units[u]);
    return out;
}

/* Hours of devices as the report gives them: 2,664 K. */
static const char *kilo(char out[32], double hours)
{
    long long k = llround(hours / 1000);
    if (hours < 1000) snprintf(out, 32, "%.4g", hours);
    else if (k >= 1000) snprintf(out, 32, "%lld,%03lld K", k / 1000, k % 1000);
    else snprintf(out, 32, "%lld K", k);
    return out;
}

static void print_quoted(const hd_cost *p, const hd_machine *m, const hd_cost_quoted *q)
{
    char a[32], b[32], c[32], d[32];
    const hd_quote *s = &m->quote;
    double error = 100 * (q->context_estimate / s->context_hours - 1), full = 100 * (q->context_estimate_full / s->context_hours - 1);
    printf("\nquoted of this model (%s)\n", s->source);
    printf("  pre-training       %s hours of one %s: %s a trillion tokens x %s tokens, $%.3f M\n", kilo(a, q->pretrain_hours), m->name,
           kilo(b, s->hours_per_trillion), show(c, s->tokens), q->pretrain_hours * s->usd_per_hour / 1e6);
    printf("  which implies      %.1f %% of the %s peak", 100 * q->implied_utilization, m->precision);
    if (m->bf16_flops > 0) printf(" (%.1f %% of bf16's)", 100 * q->implied_utilization * m->peak_flops / m->bf16_flops);
    printf(", by this count of FLOPs\n");
    printf("  context extension  %s hours as quoted, $%.3f M; estimated here %s (%+.0f %%), with attention counted in full %s (%+.0f %%)\n",
           kilo(a, s->context_hours), s->context_hours * s->usd_per_hour / 1e6, kilo(b, q->context_estimate), error,
           kilo(c, q->context_estimate_full), full);
    printf("  post-training      %s hours as quoted, $%.3f M\n", kilo(a, s->post_hours), s->post_hours * s->usd_per_hour / 1e6);
    printf("  in all             %s hours, $%.3f M at $%g an hour: the official run only, excluding prior research and ablations\n",
           kilo(d, q->hours), q->usd / 1e6, s->usd_per_hour);
}

/* What a pass spends its time on, where rates were measured. */
static void print_pass(const hd_machine *m, const hd_cost *p)
{
    static const char *const name[HD_WORK_KINDS] = {
        [HD_WORK_MATRICES] = "products with weights", [HD_WORK_ATTENTION] = "attention", [HD_WORK_PAIRS] = "its scores one by one",
        [HD_WORK_NUMBERS] = "what lies between products", [HD_WORK_WEIGHTS] = "fetching weights, storing gradients"};
    double t[HD_WORK_KINDS], sum = hd_cost_seconds(t, p->work, m->rate);
    if (m->rate[HD_WORK_MATRICES] <= 0) return;
    printf("             a pass:");
    for (int k = 0; k < HD_WORK_KINDS; k++) printf("%s %s %.0f %%", k ? "," : "", name[k], 100 * t[k] / sum);
    printf("\n");
}

static void print_plan(const hd_config *c, const hd_cost_ask *a, const hd_machine *m, const hd_cost *p)
{
    char x[32], y[32], z[32], w[32];
    hd_cost_quoted q;
    bool quoted = hd_cost_quote(&q, p, a, c, m);
    double memory = p->weights_bytes + p->optimizer_bytes + p->activations_bytes;
    printf("model        %s, %s weights, %s of them used by a token (%s multiplied)\n", c->arch, show(x, (double)p->n_weights),
           show(y, (double)p->n_active), show(z, (double)p->n_multiplied));
    if (p->n_mtp)
        printf("             multi-token prediction: %s more, %s with the embedding and the head that it shares; %s used by a token\n",
               show(x, (double)p->n_mtp), show(y, (double)(p->n_mtp + p->n_shared)), show(z, (double)(p->n_mtp_active + p->n_shared)));
    printf("FLOPs        %.3g a token: matrices %.3g, attention %.3g in sequences of %lld, multi-token prediction %.3g\n",
           p->flops_per_token, p->flops_matrices, p->flops_attention, (long long)a->seq, p->flops_mtp);
    printf("             %.3g for %s tokens\n", p->flops, show(x, a->tokens));
    printf("memory       %s: weights, gradients and panels %s, moments %s, one sequence of activations %s\n", bytes(x, memory),
           bytes(y, p->weights_bytes), bytes(z, p->optimizer_bytes), bytes(w, p->activations_bytes));
    if (m->mem_bytes > 0) printf("             %d x %s has %s\n", m->devices, m->name, bytes(x, m->mem_bytes * m->devices));
    printf("time         %s hours of one %s, on %d of them %.4g hours (%.3g days), at %.1f %% of %.4g TFLOP/s", kilo(x, p->device_hours),
           m->name, m->devices, p->hours, p->hours / 24, 100 * p->utilization, m->peak_flops / 1e12);
    if (p->update_hours > 0) printf("; %.0f %% of it updates", 100 * p->update_hours / p->device_hours);
    printf("\n");
    if (!quoted) print_pass(m, p);
    printf("cost         %.4g kWh, $%.6g\n", p->kwh, p->usd);
    if (quoted) print_quoted(p, m, &q);
}

static json_t *plan_json(const hd_config *c, const hd_cost_ask *a, const hd_machine *m, const hd_cost *p)
{
    hd_cost_quoted q;
    json_t *j = json_pack("{s:s, s:s, s:i, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}",
                          "architecture", c->arch, "machine", m->name, "devices", m->devices, "tokens", a->tokens, "seq",
                          (json_int_t)a->seq, "weights", (json_int_t)p->n_weights, "active", (json_int_t)p->n_active, "multiplied",
                          (json_int_t)p->n_multiplied, "mtp_weights", (json_int_t)p->n_mtp, "mtp_active", (json_int_t)p->n_mtp_active,
                          "mtp_shared", (json_int_t)p->n_shared, "flops_per_token", p->flops_per_token, "flops_matrices",
                          p->flops_matrices, "flops_attention", p->flops_attention, "flops_mtp", p->flops_mtp, "flops", p->flops,
                          "utilization", p->utilization, "device_hours", p->device_hours, "hours", p->hours, "update_hours",
                          p->update_hours, "kwh", p->kwh, "usd", p->usd, "weights_bytes", p->weights_bytes, "optimizer_bytes",
                          p->optimizer_bytes, "activations_bytes", p->activations_bytes);
    if (j && hd_cost_quote(&q, p, a, c, m))
        json_object_set_new(j, "quoted",
                            json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:s}", "source", m->quote.source, "pretrain_hours",
                                      q.pretrain_hours, "implied_utilization", q.implied_utilization, "context_hours",
                                      m->quote.context_hours, "context_estimate", q.context_estimate, "context_estimate_full", q.context_estimate_full, "post_training_hours",
                                      m->quote.post_hours, "hours", q.hours, "usd", q.usd, "scope",
                                      "official run only, excluding prior research and ablations"));
    return j;
}

static hd_status read_ask(hd_cost_ask *a, const options *o, hd_err *err)
{
    if (!hd_cost_number(&a->tokens, o->tokens)) return hd_fail(err, HD_USAGE, "--tokens %.40s: is no number such as 14.8T or 3e9", o->tokens);
    if (o->batch && !hd_cost_number(&a->batch_tokens, o->batch)) return hd_fail(err, HD_USAGE, "--batch %.40s: is no number of tokens", o->batch);
    if (strcmp(o->optimizer, "adamw") != 0 && strcmp(o->optimizer, "muon") != 0)
        return hd_fail(err, HD_USAGE, "--optimizer %.40s: adamw and muon are known", o->optimizer);
    a->muon = !strcmp(o->optimizer, "muon");
    return HD_OK;
}

static hd_status plan(const options *o, hd_err *err)
{
    hd_status st;
    hd_config c;
    hd_machine m;
    hd_cost p;
    hd_cost_ask a = {.seq = o->seq};
    if (!o->model || !o->tokens || !o->machine)
        return hd_fail(err, HD_USAGE, "cost plan: --model, --tokens and --machine are needed");
    HD_TRY(read_ask(&a, o, err));
    HD_TRY(read_config(&c, o->model, err));
    HD_TRY(hd_machine_read(&m, o->machine, err));
    if (a.seq == 0) a.seq = c.max_pos < 4096 ? c.max_pos : 4096;
    HD_TRY(hd_cost_plan(&p, &c, &a, &m, err));
    if (!o->json) {
        print_plan(&c, &a, &m, &p);
        return HD_OK;
    }
    json_t *j = plan_json(&c, &a, &m, &p);
    if (!j) return hd_fail(err, HD_NOMEM, "cost plan: report: no memory");
    return hd_json_print_take(j, JSON_PRESERVE_ORDER, "cost plan: report", err);
fail:
    return st;
}

/* ---- measure ---- */

static hd_status measure(const options *o, hd_err *err)
{
    hd_status st;
    hd_machine m = {.watts = o->watts, .usd_per_hour = o->usd_per_hour, .usd_per_kwh = o->usd_per_kwh};
    hd_buf text;
    hd_buf_init(&text, 1 << 16);
    HD_TRY(hd_machine_measure(&m, (int)o->threads, err));
    HD_TRY(hd_machine_print(&text, &m, err));
    if (o->output) HD_TRY(hd_file_write(o->output, text.data, text.len, err));
    else fputs(text.data, stdout);
fail:
    hd_buf_free(&text);
    return st;
}

/* ---- run ---- */

static hd_status compare_run(const options *o, const char *dir, hd_err *err)
{
    hd_status st;
    hd_machine m;
    hd_cost_run r;
    if (!o->machine) return hd_fail(err, HD_USAGE, "cost run: --machine is needed");
    HD_TRY(hd_machine_read(&m, o->machine, err));
    HD_TRY(hd_cost_run_read(&r, dir, &m, err));
    double error = r.plan.hours / r.hours - 1;
    if (o->json) {
        json_t *j = json_pack("{s:s, s:f, s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "run", dir, "tokens", r.ask.tokens, "seq",
                              (json_int_t)r.ask.seq, "hours", r.hours, "planned_hours", r.plan.hours, "error", error, "kwh",
                              r.hours * m.devices * m.watts / 1000, "planned_kwh", r.plan.kwh, "flops", r.plan.flops);
        if (!j) return hd_fail(err, HD_NOMEM, "cost run: report: no memory, or a name that JSON cannot hold");
        return hd_json_print_take(j, JSON_PRESERVE_ORDER, "cost run: report", err);
    }
    printf("%s: %.4g tokens in sequences of %lld, %.3g FLOPs\n", dir, r.ask.tokens, (long long)r.ask.seq, r.plan.flops);
    printf("took %.4g hours (%.1f s), planned %.4g hours: %+.1f %%\n", r.hours, r.hours * 3600, r.plan.hours, 100 * error);
    printf("%.4g kWh, planned %.4g; $%.4g, planned $%.4g\n", r.hours * m.devices * m.watts / 1000, r.plan.kwh,
           r.hours * m.devices * (m.usd_per_hour + m.watts / 1000 * m.usd_per_kwh), r.plan.usd);
fail:
    return st;
}

/* ---- The command ---- */

static hd_status run(int argc, char **argv, hd_err *err)
{
    options o = {.optimizer = "adamw"};
    int n = 0;
    const hd_opt opts[] = {
        {"model", 'm', HD_OPT_STR, &o.model, 0, 0},
        {"tokens", 0, HD_OPT_STR, &o.tokens, 0, 0},
        {"machine", 0, HD_OPT_STR, &o.machine, 0, 0},
        {"seq", 0, HD_OPT_INT, &o.seq, 1, 1 << 24},
        {"batch", 0, HD_OPT_STR, &o.batch, 0, 0},
        {"optimizer", 0, HD_OPT_STR, &o.optimizer, 0, 0},
        {"output", 'o', HD_OPT_STR, &o.output, 0, 0},
        {"watts", 0, HD_OPT_FLOAT, &o.watts, 0, 1e6},
        {"usd-per-hour", 0, HD_OPT_FLOAT, &o.usd_per_hour, 0, 1e6},
        {"usd-per-kwh", 0, HD_OPT_FLOAT, &o.usd_per_kwh, 0, 1e3},
        {"threads", 't', HD_OPT_INT, &o.threads, 1, 1024},
        {"json", 0, HD_OPT_FLAG, &o.json, 0, 0},
    };
    hd_status st = hd_opts_parse(opts, sizeof opts / sizeof opts[0], argc, argv, &n, err);
    if (st != HD_OK) return st;
    const char *what = n > 0 ? argv[1] : "";
    if (!strcmp(what, "plan") && n == 1) return plan(&o, err);
    if (!strcmp(what, "measure") && n == 1) return measure(&o, err);
    if (!strcmp(what, "run") && n == 2) return compare_run(&o, argv[2], err);
    return hd_fail(err, HD_USAGE, "cost: hadal cost plan, hadal cost measure or hadal cost run RUN; hadal cost --help shows how");
}

const hd_command hd_cmd_cost = {
    .verb = "cost",
    .summary = "what a training run costs: FLOPs, memory, hours, kWh, dollars",
    .help = "usage: hadal cost plan --model config.json --tokens N --machine FILE [--seq N] [--json]\n"
            "       hadal cost measure [-o FILE] [--watts W] [--usd-per-kwh X]\n"
            "       hadal cost run RUN --machine FILE [--json]\n\n"
            "plan tells a run before it is made; measure times this machine (products, and training passes of small\n"
            "models) and writes a machine's file; run compares the plan with a run's log.csv.\n\n"
            "  -m, --model FILE       config.json, or a directory that holds one\n"
            "      --tokens N         14.8T, 3e9, 250M\n"
            "      --machine FILE     INI, see recipes/machines\n"
            "      --seq N            tokens of a sequence; default: 4096, or the model's most\n"
            "      --batch N          tokens of an update: what updates cost depends on it\n"
            "      --optimizer NAME   adamw (default) or muon\n"
            "  -o, --output FILE      of measure; default: standard output\n"
            "      --watts W  --usd-per-hour X  --usd-per-kwh X    of measure: put into the file\n"
            "  -t, --threads N        of measure; default: physical cores available\n"
            "      --json             one JSON object instead of text\n\n"
            "examples:\n"
            "  hadal cost plan --model DeepSeek-V3/config.json --tokens 14.8T --machine recipes/machines/h800.ini\n"
            "  hadal cost measure --watts 30 -o here.ini && hadal cost run runs/tales --machine here.ini\n",
    .run = run,
};
