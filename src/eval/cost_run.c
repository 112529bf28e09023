/* A run's folder read for what decides its plan, and for what it took. */
#include "eval/cost_run.h"

#include <ini.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "model/source.h"
#include "train/checkpoint.h"

/* ---- log.csv: a line of names, a line a step ---- */

enum { MAX_COLUMNS = 64 };

/* Cut at commas in place; how many. */
static int cells(char *line, char *cell[MAX_COLUMNS])
{
    int n = 0;
    for (char *p = line; p && n < MAX_COLUMNS; n++) {
        cell[n] = p;
        p = strchr(p, ',');
        if (p) *p++ = 0;
    }
    return n;
}

static int column(char *const *cell, int n, const char *name)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(cell[i], name)) return i;
    return -1;
}

/* What the last whole line says: tokens and seconds of the run so far. */
static hd_status read_log(double *tokens, double *seconds, const char *path, hd_err *err)
{
    hd_status st;
    hd_buf text;
    char *cell[MAX_COLUMNS], *line;
    hd_buf_init(&text, (size_t)1 << 30);
    HD_TRY(hd_file_read(&text, path, err));
    char *end = strchr(text.data, '\n'), *last = end ? text.data + text.len : NULL;
    if (!end) HD_TRY(hd_fail(err, HD_FORMAT, "cost: %s: holds no line of names", path));
    *end = 0;
    int n = cells(text.data, cell), t = column(cell, n, "tokens"), s = column(cell, n, "seconds");
    if (t < 0 || s < 0) HD_TRY(hd_fail(err, HD_FORMAT, "cost: %s: has no columns tokens and seconds", path));
    while (last > end + 1 && last[-1] != '\n') last--; // a line that was being written
    if (last > end + 1) last[-1] = 0;
    line = last > end + 1 ? strrchr(end + 1, '\n') : NULL;
    line = line ? line + 1 : end + 1;
    if (last <= end + 1 || cells(line, cell) <= (t > s ? t : s) || !hd_cost_number(tokens, cell[t]) ||
        !hd_cost_number(seconds, cell[s]))
        st = hd_fail(err, HD_FORMAT, "cost: %s: the last line tells no tokens and seconds", path);
fail:
    hd_buf_free(&text);
    return st;
}

/* ---- recipe.ini: what decides the plan ---- */

typedef struct {
    double seq, batch, micro;
    bool muon;
} sizes;

static int take(void *arg, const char *section, const char *name, const char *value)
{
    sizes *s = arg;
    if (!strcmp(section, "data") && !strcmp(name, "seq")) hd_cost_number(&s->seq, value);
    if (!strcmp(section, "train") && !strcmp(name, "batch")) hd_cost_number(&s->batch, value);
    if (!strcmp(section, "train") && !strcmp(name, "micro")) hd_cost_number(&s->micro, value);
    if (!strcmp(section, "optim") && !strcmp(name, "optimizer")) s->muon = !strcmp(value, "muon");
    return 1;
}

static hd_status read_recipe(hd_cost_ask *a, const char *path, hd_err *err)
{
    hd_status st;
    hd_buf text;
    sizes s = {0};
    hd_buf_init(&text, 1 << 20);
    HD_TRY(hd_file_read(&text, path, err));
    if (ini_parse_string(text.data, take, &s) != 0 || s.seq < 1 || s.seq > 1 << 24)
        HD_TRY(hd_fail(err, HD_FORMAT, "cost: %s: tells no seq", path));
    a->seq = (int64_t)s.seq;
    a->batch_tokens = s.batch * s.seq;
    if (s.micro < 1 << 24) a->micro_tokens = (int64_t)(s.micro * s.seq);
    a->muon = s.muon;
fail:
    hd_buf_free(&text);
    return st;
}

hd_status hd_cost_run_read(hd_cost_run *r, const char *dir, const hd_machine *m, hd_err *err)
{
    hd_status st;
    char path[4096], step[1024];
    double seconds;
    hd_source *src = NULL;
    *r = (hd_cost_run){0};
    snprintf(path, sizeof path, "%.4000s/log.csv", dir);
    HD_TRY(read_log(&r->ask.tokens, &seconds, path, err));
    snprintf(path, sizeof path, "%.4000s/recipe.ini", dir);
    HD_TRY(read_recipe(&r->ask, path, err));
    HD_TRY(hd_checkpoint_find(step, dir, err));
    if (!step[0]) HD_TRY(hd_fail(err, HD_FORMAT, "cost: %s: holds no whole checkpoint", dir));
    HD_TRY(hd_source_open(&src, step, true, err));
    HD_TRY(hd_cost_plan(&r->plan, hd_source_config(src), &r->ask, m, err));
    r->hours = seconds / 3600;
fail:
    hd_source_close(src);
    return st;
}
