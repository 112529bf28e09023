/* hadal plot: the logs of runs as curves, drawn by gnuplot, which reads a script from a pipe.  No shell is
 * involved; file names are written so that gnuplot takes none of them for a command. */
#include <errno.h>
#include <jansson.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "cli/cmd.h"
#include "cli/opts.h"
#include "model/json.h"
#include "train/rundir.h"

extern char **environ;

enum { MAX_RUNS = 16 };

typedef struct {
    const char *dir[MAX_RUNS];
    char name[MAX_RUNS][64];
    int n;
    const char *x, *out;
    bool loads, shares; // is there anything to draw?
} plot;

/* One panel: columns of a log, by name; under a condition. */
typedef struct {
    const char *title, *log, *y, *also; // also: a second column, dashed
    const char *axis;             // gnuplot's
} panel;

static const panel panels[] = {
    {"loss, nats a token", "log.csv", "loss", NULL, "set yrange [*:*]"},
    {"validation, bits per byte", "val.csv", "bpb", NULL, "set yrange [*:*]"},
    {"learning rate", "log.csv", "lr", NULL, "set yrange [0:*]"},
    {"gradient norm", "log.csv", "grad_norm", NULL, "set yrange [*:*]; set logscale y"},
    {"tokens a second", "log.csv", "tok_s", NULL, "set yrange [0:*]; unset logscale y; set key bottom right"},
    {"most and least loaded expert, even share 1", "log.csv", "load_max", "load_min", "set yrange [0:*]; unset logscale y"},
};
enum { N_PANELS = sizeof panels / sizeof *panels, LOAD_PANEL = 5 };

/* ---- What there is ---- */

/* Lines behind the head; any: does the 11th column (load_max) ever hold more than 0? */
static hd_status look(int64_t *lines, bool *any, const char *dir, const char *name, hd_err *err)
{
    hd_status st;
    char path[1200];
    hd_buf text;
    *lines = 0;
    hd_buf_init(&text, (size_t)1 << 32);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    HD_TRY(hd_file_read(&text, path, err));
    for (const char *p = text.data; (p = strchr(p, '\n')) && p[1]; ++*lines) {
        const char *field = ++p, *end = strchr(p, '\n');
        for (int i = 0; i < 10 && field && any; i++) field = strchr(field, ',') ? strchr(field, ',') + 1 : NULL;
        if (any && field && end && field < end && strtod(field, NULL) > 0) *any = true;
    }
fail:
    hd_buf_free(&text);
    return st;
}

/* ---- The script ---- */

/* In single quotes gnuplot changes nothing but '' to '.  A name may not begin with < or |, which would
 * start a program. */
static hd_status put_quoted(hd_buf *s, const char *dir, const char *name, hd_err *err)
{
    hd_status st;
    HD_TRY(hd_buf_adds(s, dir[0] == '/' ? "'" : "'./", err));
    for (const char *p = dir; *p; p++) HD_TRY(hd_buf_add(s, *p == '\'' ? "''" : p, *p == '\'' ? 2 : 1, err));
    HD_TRY(hd_buf_addf(s, err, "%s%s'", name ? "/" : "", name ? name : ""));
fail:
    return st;
}

static hd_status put_curves(hd_buf *s, const plot *p, const panel *q, hd_err *err)
{
    hd_status st = HD_OK;
    bool points = strcmp(q->log, "val.csv") == 0;
    const char *x = strcmp(p->x, "hours") == 0 ? "(column('seconds')/3600)" : strcmp(p->x, "tokens") == 0 ? "(column('tokens')/1e6)" : "'step'";
    HD_TRY(hd_buf_adds(s, "plot ", err));
    for (int i = 0; i < p->n; i++) {
        for (int second = 0; second <= (q->also != NULL); second++) {
            if (i || second) HD_TRY(hd_buf_adds(s, ", ", err));
            HD_TRY(put_quoted(s, p->dir[i], q->log, err));
            HD_TRY(hd_buf_addf(s, err, " using %s:", x));
            HD_TRY(hd_buf_addf(s, err, q->also ? "(column('%s') > 0 ? column('%s') : NaN)" : "'%s'", second ? q->also : q->y,
                               second ? q->also : q->y));
            HD_TRY(hd_buf_addf(s, err, " with %s linecolor %d%s ", points ? "linespoints" : "lines", i + 1, second ? " dashtype 2" : ""));
            if (second) HD_TRY(hd_buf_adds(s, "notitle", err));
            else {
                HD_TRY(hd_buf_adds(s, "title '", err));
                for (const char *c = p->name[i]; *c; c++) HD_TRY(hd_buf_add(s, *c == '\'' ? "''" : c, *c == '\'' ? 2 : 1, err));
                HD_TRY(hd_buf_adds(s, "' noenhanced", err));
            }
        }
    }
    HD_TRY(hd_buf_adds(s, "\n", err));
fail:
    return st;
}

static hd_status script(hd_buf *s, const plot *p, const int64_t *val, bool loads, hd_err *err)
{
    hd_status st;
    const char *dot = strrchr(p->out, '.');
    const char *label = strcmp(p->x, "hours") == 0 ? "hours" : strcmp(p->x, "tokens") == 0 ? "million tokens" : "step";
    bool png = dot && strcmp(dot, ".png") == 0;
    HD_TRY(hd_buf_addf(s, err, "set terminal %s size 1200,1000 font 'sans,11' background rgb 'white'\nset output ",
                       png ? "pngcairo" : "svg"));
    HD_TRY(put_quoted(s, p->out, NULL, err));
    HD_TRY(hd_buf_addf(s, err, "\nset datafile separator ','\nset datafile missing 'nan'\nset grid linecolor rgb '#dddddd'\n"
                               "set offsets 0, 0, graph 0.05, graph 0\nset key top right\nset xlabel '%s'\nset multiplot layout 3,2\n", label));
    for (int i = 0; i < N_PANELS; i++) {
        const panel *q = &panels[i];
        bool empty = (strcmp(q->log, "val.csv") == 0 && *val == 0) || (i == LOAD_PANEL && !loads);
        if (empty) continue;
        HD_TRY(hd_buf_addf(s, err, "set title '%s'\n%s\n", q->title, q->axis));
        HD_TRY(put_curves(s, p, q, err));
    }
    HD_TRY(hd_buf_adds(s, "unset multiplot\nset output\n", err));
fail:
    return st;
}

/* ---- gnuplot ---- */

static hd_status feed(const hd_buf *s, int fd, hd_err *err)
{
    for (size_t at = 0; at < s->len;) {
        ssize_t n = write(fd, s->data + at, s->len - at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return hd_fail_errno(err, "plot: gnuplot ended early");
        at += (size_t)n;
    }
    return HD_OK;
}

static hd_status run_gnuplot(const hd_buf *s, hd_err *err)
{
    char *const argv[] = {"gnuplot", "-d", "-", NULL}; // -d: nobody's ~/.gnuplot
    int fd[2], status = 0, e;
    pid_t pid;
    posix_spawn_file_actions_t acts;
    if (pipe(fd) != 0) return hd_fail_errno(err, "plot: pipe");
    posix_spawn_file_actions_init(&acts);
    posix_spawn_file_actions_adddup2(&acts, fd[0], STDIN_FILENO);
    posix_spawn_file_actions_addclose(&acts, fd[0]);
    posix_spawn_file_actions_addclose(&acts, fd[1]);
    e = posix_spawnp(&pid, "gnuplot", &acts, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&acts);
    close(fd[0]);
    if (e != 0) {
        close(fd[1]);
        if (e == ENOENT) return hd_fail(err, HD_IO, "plot: gnuplot: not installed: apt-get install gnuplot-nox, or read the CSV files");
        errno = e;
        return hd_fail_errno(err, "plot: gnuplot");
    }
    hd_status st = feed(s, fd[1], err);
    close(fd[1]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    if (st == HD_OK && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
        st = hd_fail(err, HD_IO, "plot: gnuplot: failed with status %d; what it says stands above",
                     WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return st;
}

/* ---- The command ---- */

static bool clean(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) return false;
    return true;
}

static hd_status check(plot *p, hd_err *err)
{
    const char *dot = strrchr(p->out, '.');
    if (!dot || (strcmp(dot, ".svg") != 0 && strcmp(dot, ".png") != 0))
        return hd_fail(err, HD_USAGE, "plot: -o %.100s: a name that ends in .svg or .png", p->out);
    if (strcmp(p->x, "step") != 0 && strcmp(p->x, "tokens") != 0 && strcmp(p->x, "hours") != 0)
        return hd_fail(err, HD_USAGE, "plot: --x %.40s: none of step, tokens, hours", p->x);
    for (int i = 0; i <= p->n; i++)
        if (!clean(i < p->n ? p->dir[i] : p->out)) return hd_fail(err, HD_USAGE, "plot: a control character in a name");
    return HD_OK;
}

static hd_status run(int argc, char **argv, hd_err *err)
{
    hd_status st;
    plot p = {.x = "step"};
    bool json = false, loads = false;
    int64_t steps = 0, val = 0, lines;
    char out[1200];
    hd_buf s;
    const hd_opt opts[] = {
        {"output", 'o', HD_OPT_STR, &p.out, 0, 0},
        {"x", 'x', HD_OPT_STR, &p.x, 0, 0},
        {"json", 0, HD_OPT_FLAG, &json, 0, 0},
    };
    hd_buf_init(&s, 1 << 20);
    HD_TRY(hd_opts_parse(opts, 3, argc, argv, &p.n, err));
    if (p.n < 1 || p.n > MAX_RUNS)
        HD_TRY(hd_fail(err, HD_USAGE, "plot: one to %d runs' folders are needed: hadal plot runs/NAME", MAX_RUNS));
    for (int i = 0; i < p.n; i++) p.dir[i] = argv[1 + i];
    if (!p.out) {
        if (snprintf(out, sizeof out, "%s/plot.svg", p.dir[0]) >= (int)sizeof out) HD_TRY(hd_fail(err, HD_USAGE, "plot: too long a name"));
        p.out = out;
    }
    HD_TRY(check(&p, err));
    for (int i = 0; i < p.n; i++) {
        hd_run_info info;
        HD_TRY(hd_run_info_read(&info, p.dir[i], err));
        snprintf(p.name[i], sizeof p.name[i], "%s", info.name);
        HD_TRY(look(&lines, &loads, p.dir[i], "log.csv", err));
        if (lines == 0) HD_TRY(hd_fail(err, HD_USAGE, "plot: %.200s: no step is logged so far", p.dir[i]));
        steps += lines;
        HD_TRY(look(&lines, NULL, p.dir[i], "val.csv", err));
        val += lines;
    }
    HD_TRY(script(&s, &p, &val, loads, err));
    HD_TRY(run_gnuplot(&s, err));
    if (json)
        HD_TRY(hd_json_print_take(json_pack("{s:s, s:i, s:I}", "file", p.out, "runs", p.n, "steps", (json_int_t)steps), JSON_PRESERVE_ORDER,
                                  "plot: report", err));
    else printf("%s\n", p.out);
fail:
    hd_buf_free(&s);
    return st;
}

const hd_command hd_cmd_plot = {
    .verb = "plot",
    .summary = "draw training runs: loss, speed, expert load",
    .help = "usage: hadal plot RUN... [options]\n\n"
            "Draws the logs of one run's folder, or of several on top of each other: loss, validation in bits per byte, learning\n"
            "rate, gradient norm, tokens a second, and the load of the experts where there are any.  gnuplot draws; the numbers\n"
            "are in log.csv, val.csv and load.csv of the folder.\n\n"
            "  -o, --output FILE      .svg or .png; default: plot.svg in the first run's folder\n"
            "  -x, --x WHAT           along the axis: step, tokens or hours (default step)\n"
            "      --json             the file's name in an object\n\n"
            "examples:\n"
            "  hadal plot runs/shakespeare\n"
            "  hadal plot runs/fairytales-dense runs/fairytales-moe -x hours -o curves.png\n",
    .run = run,
};
