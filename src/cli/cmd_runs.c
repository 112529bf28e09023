/* hadal runs: the training runs below a folder. */
#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/cmd.h"
#include "cli/opts.h"
#include "model/json.h"
#include "train/rundir.h"

typedef struct {
    char dir[1024];
    hd_run_info i;
} found;

typedef struct {
    found *v;
    size_t n;
} runs;

static hd_status add(runs *r, const char *dir, hd_err *err)
{
    hd_status st;
    hd_run_info i;
    HD_TRY(hd_run_info_read(&i, dir, err));
    HD_TRY(hd_realloc(&r->v, (r->n + 1) * sizeof *r->v, err));
    found *f = &r->v[r->n++];
    f->i = i;
    snprintf(f->dir, sizeof f->dir, "%s", dir);
fail:
    return st;
}

static int by_dir(const void *a, const void *b) { return strcmp(((const found *)a)->dir, ((const found *)b)->dir); }

/* DIR itself when it is a run, else the runs directly in it. */
static hd_status find_runs(runs *r, const char *dir, hd_err *err)
{
    hd_status st = HD_OK;
    char path[1024];
    if (hd_run_is(dir)) return add(r, dir, err);
    DIR *d = opendir(dir);
    if (!d) return hd_fail_errno(err, "runs: %.200s", dir);
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.' || snprintf(path, sizeof path, "%s/%s", dir, e->d_name) >= (int)sizeof path || !hd_run_is(path)) continue;
        HD_TRY(add(r, path, err));
    }
    if (r->n) qsort(r->v, r->n, sizeof *r->v, by_dir);
fail:
    closedir(d);
    return st;
}

static void print_text(const runs *r, const char *dir)
{
    int width = 4;
    for (size_t k = 0; k < r->n; k++) width = (int)strlen(r->v[k].dir) > width ? (int)strlen(r->v[k].dir) : width;
    if (r->n == 0) printf("no runs in %s\n", dir);
    else printf("%-*s  %15s  %8s  %8s  %8s  state\n", width, "run", "step", "loss", "val bpb", "hours");
    for (size_t k = 0; k < r->n; k++) {
        const found *f = &r->v[k];
        char step[48], bpb[32] = "-";
        snprintf(step, sizeof step, "%lld/%lld", (long long)f->i.step, (long long)f->i.steps);
        if (f->i.bpb >= 0) snprintf(bpb, sizeof bpb, "%.4f", f->i.bpb);
        printf("%-*s  %15s  %8.4f  %8s  %8.3f  %s\n", width, f->dir, step, f->i.loss, bpb, f->i.seconds / 3600, hd_run_phase_name(f->i.state));
    }
}

static hd_status print_json(const runs *r, hd_err *err)
{
    json_t *list = json_array();
    bool ok = list != NULL;
    for (size_t k = 0; k < r->n && ok; k++) {
        const found *f = &r->v[k];
        json_t *j = json_pack("{s:s, s:s, s:I, s:I, s:I, s:o, s:o, s:f, s:s}", "dir", f->dir, "name", f->i.name, "step",
                              (json_int_t)f->i.step, "steps", (json_int_t)f->i.steps, "tokens", (json_int_t)f->i.tokens, "loss",
                              isfinite(f->i.loss) ? json_real(f->i.loss) : json_null(), "val_bpb",
                              f->i.bpb >= 0 && isfinite(f->i.bpb) ? json_real(f->i.bpb) : json_null(), "seconds", f->i.seconds, "state",
                              hd_run_phase_name(f->i.state));
        ok = j && json_array_append_new(list, j) == 0;
    }
    if (!ok) {
        json_decref(list);
        return hd_fail(err, HD_NOMEM, "runs: list: no memory, or a path that is no UTF-8");
    }
    return hd_json_print_take(list, JSON_PRESERVE_ORDER | JSON_INDENT(1) | JSON_REAL_PRECISION(9), "runs: list", err);
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    bool json = false;
    int n = 0;
    runs r = {0};
    const hd_opt opts[] = {{"json", 0, HD_OPT_FLAG, &json, 0, 0}};
    HD_TRY(hd_opts_parse(opts, 1, argc, argv, &n, err));
    if (n > 1) HD_TRY(hd_fail(err, HD_USAGE, "runs: '%.100s': one folder at most: hadal runs [DIR]", argv[2]));
    const char *dir = n == 1 ? argv[1] : "runs";
    if (n == 1 || hd_is_dir(dir)) HD_TRY(find_runs(&r, dir, err));
    if (json) HD_TRY(print_json(&r, err));
    else print_text(&r, dir);
fail:
    free(r.v);
    return st;
}

const hd_command hd_cmd_runs = {
    .verb = "runs",
    .summary = "list training runs: step, loss, hours, state",
    .help = "usage: hadal runs [DIR] [options]\n\n"
            "The runs in DIR (default: runs), or DIR itself: how far each is, its last loss, its last validation in bits per\n"
            "byte, the hours spent, and whether it is running, done or stopped.\n\n"
            "      --json             a list of objects\n\n"
            "examples:\n"
            "  hadal runs\n"
            "  hadal runs runs/shakespeare --json\n",
    .run = run,
};
