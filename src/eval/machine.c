/* A machine's file: INI, read with every key known and every number in its range, and written back. */
#include <ini.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "eval/cost.h"

bool hd_cost_number(double *v, const char *text)
{
    static const char units[] = "KMBT";
    char *end;
    double x = strtod(text, &end);
    const char *unit = *end ? strchr(units, *end) : NULL;
    if (unit) x *= pow(1000, (double)(unit - units + 1)), end++;
    if (end == text || *end || !isfinite(x) || x <= 0) return false;
    *v = x;
    return true;
}

/* ---- Reading ---- */

typedef struct {
    hd_machine *m;
    hd_err *err;
    const char *path;
    bool failed;
} reader;

typedef enum { NUMBER, COUNT, TEXT } kind;

static const struct {
    const char *section, *name;
    kind kind;
    size_t at, size;
    double scale; // what the file's unit is in ours
} keys[] = {
#define M(section, name, kind, field, scale) {section, name, kind, offsetof(hd_machine, field), sizeof(((hd_machine *)0)->field), scale}
    M("machine", "name", TEXT, name, 0),
    M("machine", "precision", TEXT, precision, 0),
    M("machine", "devices", COUNT, devices, 1),
    M("machine", "peak_tflops", NUMBER, peak_flops, 1e12),
    M("machine", "bf16_tflops", NUMBER, bf16_flops, 1e12),
    M("machine", "utilization", NUMBER, utilization, 1),
    M("machine", "adamw_weights_s", NUMBER, adamw_s, 1),
    M("machine", "muon_weights_s", NUMBER, muon_s, 1),
    M("machine", "muon_tflops", NUMBER, muon_flops, 1e12),
    M("machine", "watts", NUMBER, watts, 1),
    M("machine", "usd_per_hour", NUMBER, usd_per_hour, 1),
    M("machine", "usd_per_kwh", NUMBER, usd_per_kwh, 1),
    M("machine", "memory_gb", NUMBER, mem_bytes, 1e9),
    M("pass", "matrices_tflops", NUMBER, rate[HD_WORK_MATRICES], 1e12),
    M("pass", "attention_tflops", NUMBER, rate[HD_WORK_ATTENTION], 1e12),
    M("pass", "pairs_s", NUMBER, rate[HD_WORK_PAIRS], 1),
    M("pass", "numbers_s", NUMBER, rate[HD_WORK_NUMBERS], 1),
    M("pass", "weights_s", NUMBER, rate[HD_WORK_WEIGHTS], 1),
    M("quoted", "source", TEXT, quote.source, 0),
    M("quoted", "architecture", TEXT, quote.arch, 0),
    M("quoted", "layers", COUNT, quote.n_layers, 1),
    M("quoted", "experts", COUNT, quote.n_experts, 1),
    M("quoted", "width", COUNT, quote.d_model, 1),
    M("quoted", "tokens", NUMBER, quote.tokens, 1),
    M("quoted", "hours_per_trillion", NUMBER, quote.hours_per_trillion, 1),
    M("quoted", "context_hours", NUMBER, quote.context_hours, 1),
    M("quoted", "post_training_hours", NUMBER, quote.post_hours, 1),
    M("quoted", "usd_per_hour", NUMBER, quote.usd_per_hour, 1),
#undef M
};
enum { N_KEYS = sizeof keys / sizeof keys[0] };

static bool number(double *v, const char *text)
{
    if (!strcmp(text, "0")) {
        *v = 0;
        return true;
    }
    return hd_cost_number(v, text);
}

/* "32768: 62.9B, 131072: 62.9B": the length of a sequence and the tokens trained on. */
static bool phases(hd_quote *q, const char *text)
{
    char copy[256], *save = NULL;
    if (strlen(text) >= sizeof copy) return false;
    strcpy(copy, text);
    for (char *p = strtok_r(copy, ", ", &save); p; p = strtok_r(NULL, ", ", &save)) {
        char *colon = strchr(p, ':');
        if (!colon || q->n_phases == HD_COST_PHASES) return false;
        *colon = 0;
        if (!hd_cost_number(&q->phase_seq[q->n_phases], p) || !hd_cost_number(&q->phase_tokens[q->n_phases], colon + 1)) return false;
        if (q->phase_seq[q->n_phases] > 1 << 24) return false;
        q->n_phases++;
    }
    return true;
}

static bool set(hd_machine *m, int i, const char *value)
{
    char *at = (char *)m + keys[i].at;
    double v;
    if (keys[i].kind == TEXT) {
        if (strlen(value) >= keys[i].size) return false;
        strcpy(at, value);
        return true;
    }
    if (!number(&v, value)) return false;
    v *= keys[i].scale;
    if (keys[i].kind == NUMBER) {
        memcpy(at, &v, sizeof v);
        return true;
    }
    if (v != floor(v) || v > 1e6) return false;
    int small = (int)v;
    int64_t large = (int64_t)v;
    memcpy(at, keys[i].size == sizeof small ? (void *)&small : (void *)&large, keys[i].size);
    return true;
}

/* Shares of the peak by a model's width: what files of earlier versions tell. */
static bool is_old(const char *section)
{
    return !strcmp(section, "dense") || !strcmp(section, "moe");
}

static int take(void *arg, const char *section, const char *name, const char *value)
{
    reader *r = arg;
    bool ok = false, known = true;
    int i = 0;
    while (i < N_KEYS && (strcmp(keys[i].section, section) != 0 || strcmp(keys[i].name, name) != 0)) i++;
    if (i < N_KEYS) ok = set(r->m, i, value);
    else if (!strcmp(section, "quoted") && !strcmp(name, "context_phases")) ok = phases(&r->m->quote, value);
    else known = false;
    if (!ok && !r->failed) {
        r->failed = true;
        if (is_old(section))
            hd_fail(r->err, HD_FORMAT, "machine: %s: [%.40s] %.40s: an earlier version measured it: hadal cost measure makes a new file",
                    r->path, section, name);
        else if (known) hd_fail(r->err, HD_FORMAT, "machine: %s: [%.40s] %.40s: '%.40s' is no value for it", r->path, section, name, value);
        else hd_fail(r->err, HD_FORMAT, "machine: %s: [%.40s] %.40s: is not known", r->path, section, name);
    }
    return ok;
}

hd_status hd_machine_read(hd_machine *m, const char *path, hd_err *err)
{
    hd_status st;
    hd_buf text;
    hd_err why = {0};
    reader r = {m, &why, path, false};
    *m = (hd_machine){.devices = 1, .precision = "bf16"};
    hd_buf_init(&text, 1 << 20);
    HD_TRY(hd_file_read(&text, path, err));
    int line = ini_parse_string(text.data, take, &r);
    if (line != 0) {
        st = r.failed ? hd_fail(err, HD_FORMAT, "%s (line %d)", why.msg, line)
                      : hd_fail(err, HD_FORMAT, "machine: %s: line %d: neither [section] nor key = value", path, line);
        goto fail;
    }
    const char *missing = m->peak_flops <= 0                                        ? "peak_tflops"
                          : m->devices < 1                                          ? "devices"
                          : m->utilization <= 0 && m->rate[HD_WORK_MATRICES] <= 0 ? "utilization"
                                                                                    : NULL;
    if (missing) HD_TRY(hd_fail(err, HD_FORMAT, "machine: %s: [machine] %s: is missing", path, missing));
    if (m->utilization > 1) HD_TRY(hd_fail(err, HD_FORMAT, "machine: %s: utilization: is a share, at most 1", path));
    const hd_quote *q = &m->quote;
    if (q->tokens > 0 && (q->hours_per_trillion <= 0 || !q->arch[0]))
        HD_TRY(hd_fail(err, HD_FORMAT, "machine: %s: [quoted] needs architecture and hours_per_trillion", path));
fail:
    hd_buf_free(&text);
    return st;
}

/* ---- Writing ---- */

hd_status hd_machine_print(hd_buf *out, const hd_machine *m, hd_err *err)
{
    hd_status st = HD_OK;
    const char *section = "";
    for (int i = 0; i < N_KEYS; i++) {
        const char *at = (const char *)m + keys[i].at;
        double v = 0;
        if (!strcmp(keys[i].section, "quoted") && m->quote.tokens <= 0) continue;
        if (keys[i].kind == NUMBER) memcpy(&v, at, sizeof v);
        else if (keys[i].kind == COUNT) {
            int small;
            int64_t large;
            memcpy(&small, at, sizeof small);
            if (keys[i].size == sizeof large) memcpy(&large, at, sizeof large);
            v = keys[i].size == sizeof large ? (double)large : small;
        }
        if (keys[i].kind == TEXT ? !*at : v == 0) continue;
        if (strcmp(section, keys[i].section) != 0) HD_TRY(hd_buf_addf(out, err, "%s[%s]\n", *section ? "\n" : "", keys[i].section));
        section = keys[i].section;
        if (keys[i].kind == TEXT) HD_TRY(hd_buf_addf(out, err, "%s = %s\n", keys[i].name, at));
        else HD_TRY(hd_buf_addf(out, err, "%s = %.4g\n", keys[i].name, v / keys[i].scale));
    }
    for (int i = 0; i < m->quote.n_phases; i++)
        HD_TRY(hd_buf_addf(out, err, "%s%.0f:%.10gB%s", i ? ", " : "context_phases = ", m->quote.phase_seq[i],
                           m->quote.phase_tokens[i] / 1e9, i == m->quote.n_phases - 1 ? "\n" : ""));
fail:
    return st;
}
