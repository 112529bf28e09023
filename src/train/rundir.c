/* See rundir.h.  Logs are lines of CSV, written as they come: a line that is whole on disk counts, the rest
 * of one that a crash broke off is cut when the run goes on. */
#include "train/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/folder.h"
#include "train/live.h"
#include "train/recipe_parts.h"

enum { PATH_BYTES = 1200 };

struct hd_rundir {
    const hd_recipe *r;
    int lock;
    FILE *log, *val, *load, *samples;
    int load_experts; // columns of load.csv; 0: not begun
    bool json;
    hd_live live;
};

#define LOG_HEAD "step,tokens,loss,mtp_loss,balance_loss,lr,grad_norm,tok_s,seconds,share_of_peak,load_max,load_min,skipped\n"
#define VAL_HEAD "step,tokens,bpb,seconds\n"

static void path_in(char out[PATH_BYTES], const char *dir, const char *name) { snprintf(out, PATH_BYTES, "%s/%s", dir, name); }

/* ---- The lock ---- */

static hd_status take_lock(int *fd, const char *dir, hd_err *err)
{
    char path[PATH_BYTES], pid[32] = "";
    path_in(path, dir, "lock");
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (*fd < 0) return hd_fail_errno(err, "run: %s", path);
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) return hd_fail_errno(err, "run: %s", path);
        ssize_t n = pread(*fd, pid, sizeof pid - 1, 0);
        pid[n > 0 ? n : 0] = 0;
        pid[strcspn(pid, "\n")] = 0;
        return hd_fail(err, HD_USAGE, "run: %s: process %s is writing it: wait for its end, or choose another -s out=DIR", dir,
                       pid[0] ? pid : "(unknown)");
    }
    snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(*fd, 0) != 0 || pwrite(*fd, pid, strlen(pid), 0) < 0) return hd_fail_errno(err, "run: %s", path);
    return HD_OK;
}

/* Does another process hold it? */
static bool is_locked(const char *dir)
{
    char path[PATH_BYTES];
    path_in(path, dir, "lock");
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return false;
    bool held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return held;
}

/* ---- Logs ---- */

/* Bytes of an earlier log that stay: its head if it is ours, and whole lines of steps up to from_step. */
static size_t keep_lines(const char *text, const char *head, int64_t from_step)
{
    size_t n = strcspn(text, "\n") + 1;
    if (!strchr(text, '\n') || (head && strncmp(text, head, n) != 0)) return 0;
    for (const char *end; (end = strchr(text + n, '\n')); n = (size_t)(end - text) + 1)
        if (strtoll(text + n, NULL, 10) > from_step) break;
    return n;
}

/* Samples have a line of their own before each: "--- step N ---". */
static size_t keep_samples(const char *text, int64_t from_step)
{
    const char *at = text;
    while ((at = strstr(at, "--- step "))) {
        if ((at == text || at[-1] == '\n') && strtoll(at + 9, NULL, 10) > from_step) return (size_t)(at - text);
        at++;
    }
    return strlen(text);
}

/* Opens NAME to append to, after cutting what lies behind from_step; head NULL: samples, or a head that the
 * first line writes. */
static hd_status open_log(FILE **out, const char *dir, const char *name, const char *head, bool samples, int64_t from_step, hd_err *err)
{
    hd_status st = HD_OK;
    char path[PATH_BYTES];
    hd_buf text;
    hd_newfile f = {0};
    path_in(path, dir, name);
    hd_buf_init(&text, (size_t)1 << 32);
    if (hd_is_file(path)) HD_TRY(hd_file_read(&text, path, err));
    else HD_TRY(hd_buf_adds(&text, "", err));
    size_t keep = samples ? keep_samples(text.data, from_step) : keep_lines(text.data, head, from_step);
    if (from_step == 0 && !head) keep = 0;
    if (keep == 0 || keep < text.len) {
        HD_TRY(hd_newfile_begin(&f, path, err));
        HD_TRY(hd_newfile_write(&f, text.data, keep, err));
        if (keep == 0 && head) HD_TRY(hd_newfile_write(&f, head, strlen(head), err));
        HD_TRY(hd_newfile_commit(&f, err));
    }
    if (!(*out = fopen(path, "ae"))) HD_TRY(hd_fail_errno(err, "run: %s", path));
fail:
    hd_newfile_abort(&f);
    hd_buf_free(&text);
    return st;
}

static hd_status flushed(const hd_rundir *d, FILE *f, const char *name, hd_err *err)
{
    if (fflush(f) == 0 && !ferror(f)) return HD_OK;
    return hd_fail_errno(err, "run: %s/%s", d->r->out, name);
}

/* Columns of a load.csv that is there already. */
static int load_columns(const char *dir)
{
    char path[PATH_BYTES];
    int commas = 0, c;
    path_in(path, dir, "load.csv");
    FILE *f = fopen(path, "re");
    while (f && (c = fgetc(f)) != EOF && c != '\n') commas += c == ',';
    if (f) fclose(f);
    return commas > 1 ? commas - 1 : 0;
}

static hd_status write_recipe(const hd_recipe *r, hd_err *err)
{
    static const char *const verb[] = {"pretrain", "sft", "distil"};
    hd_status st;
    char path[PATH_BYTES];
    hd_buf text;
    path_in(path, r->out, "recipe.ini");
    hd_buf_init(&text, 1 << 20);
    HD_TRY(hd_buf_addf(&text, err, "# hadal %s recipe.ini goes on with this run\n", verb[r->kind]));
    HD_TRY(hd_recipe_write(r, &text, err));
    HD_TRY(hd_file_write(path, text.data, text.len, err));
fail:
    hd_buf_free(&text);
    return st;
}

hd_status hd_rundir_open(hd_rundir **out, const hd_recipe *r, int64_t from_step, bool json, hd_err *err)
{
    hd_status st;
    hd_rundir *d = NULL;
    *out = NULL;
    HD_TRY(hd_alloc(&d, sizeof *d, err));
    d->r = r;
    d->json = json;
    d->lock = -1;
    HD_TRY(hd_folder_make(r->out, err));
    HD_TRY(take_lock(&d->lock, r->out, err));
    HD_TRY(write_recipe(r, err));
    HD_TRY(open_log(&d->log, r->out, "log.csv", LOG_HEAD, false, from_step, err));
    HD_TRY(open_log(&d->val, r->out, "val.csv", VAL_HEAD, false, from_step, err));
    HD_TRY(open_log(&d->load, r->out, "load.csv", NULL, false, from_step, err));
    HD_TRY(open_log(&d->samples, r->out, "samples.txt", NULL, true, from_step, err));
    d->load_experts = load_columns(r->out);
    hd_live_begin(&d->live, r);
    *out = d;
    return HD_OK;
fail:
    hd_rundir_close(d);
    return st;
}

void hd_rundir_close(hd_rundir *d)
{
    if (!d) return;
    if (d->live.r) hd_live_end(&d->live);
    FILE *all[] = {d->log, d->val, d->load, d->samples};
    for (int i = 0; i < 4; i++)
        if (all[i]) fclose(all[i]); // each line was flushed, and what that said was told
    if (d->lock >= 0) close(d->lock);
    free(d);
}

/* ---- A step ---- */

static hd_status print_json(const hd_step_log *s, hd_err *err)
{
    const struct {
        const char *key;
        double v;
    } real[] = {{"loss", s->loss},           {"mtp_loss", s->mtp_loss}, {"balance_loss", s->balance_loss}, {"lr", s->lr},
                {"grad_norm", s->grad_norm}, {"tok_s", s->tok_s},       {"seconds", s->seconds},           {"share_of_peak", s->share_of_peak},
                {"load_max", s->load_max},   {"load_min", s->load_min}};
    printf("{\"step\": %lld, \"steps\": %lld, \"tokens\": %lld", (long long)s->step, (long long)s->steps, (long long)s->tokens);
    for (size_t i = 0; i < sizeof real / sizeof *real; i++) {
        if (isfinite(real[i].v)) printf(", \"%s\": %.9g", real[i].key, real[i].v);
        else printf(", \"%s\": null", real[i].key);
    }
    if (s->val_bpb >= 0) printf(", \"val_bpb\": %.9g", s->val_bpb);
    printf(", \"skipped\": %s}\n", s->skipped ? "true" : "false");
    return fflush(stdout) == 0 ? HD_OK : hd_fail_errno(err, "run: standard output");
}

hd_status hd_rundir_step(hd_rundir *d, const hd_step_log *s, hd_err *err)
{
    hd_status st;
    fprintf(d->log, "%lld,%lld,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g,%.3f,%.4g,%.4g,%.4g,%d\n", (long long)s->step, (long long)s->tokens, s->loss,
            s->mtp_loss, s->balance_loss, s->lr, s->grad_norm, s->tok_s, s->seconds, s->share_of_peak, s->load_max, s->load_min,
            s->skipped);
    HD_TRY(flushed(d, d->log, "log.csv", err));
    if (s->val_bpb >= 0) {
        fprintf(d->val, "%lld,%lld,%.6g,%.3f\n", (long long)s->step, (long long)s->tokens, s->val_bpb, s->seconds);
        HD_TRY(flushed(d, d->val, "val.csv", err));
    }
    if (d->json) HD_TRY(print_json(s, err));
    hd_live_step(&d->live, s);
fail:
    return st;
}

hd_status hd_rundir_load(hd_rundir *d, int64_t step, const int64_t *load, int n_layers, int n_experts, hd_err *err)
{
    if (n_experts < 1) return HD_OK;
    if (d->load_experts == 0) {
        fputs("step,layer", d->load);
        for (int e = 0; e < n_experts; e++) fprintf(d->load, ",e%d", e);
        fputc('\n', d->load);
        d->load_experts = n_experts;
    }
    for (int l = 0; l < n_layers; l++) {
        const int64_t *row = load + (int64_t)l * n_experts;
        int64_t sum = 0;
        for (int e = 0; e < n_experts; e++) sum += row[e];
        if (sum == 0) continue; // a dense layer
        fprintf(d->load, "%lld,%d", (long long)step, l);
        for (int e = 0; e < n_experts; e++) fprintf(d->load, ",%lld", (long long)row[e]);
        fputc('\n', d->load);
    }
    return flushed(d, d->load, "load.csv", err);
}

hd_status hd_rundir_sample(hd_rundir *d, int64_t step, const char *text, hd_err *err)
{
    fprintf(d->samples, "--- step %lld ---\n%s\n", (long long)step, text);
    return flushed(d, d->samples, "samples.txt", err);
}

void hd_rundir_say(hd_rundir *d, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *s = text; *s; s++)
        if (((unsigned char)*s < 0x20 && *s != '\n') || *s == 0x7f) *s = '?'; // names and samples may hold controls
    hd_live_say(&d->live, text);
}

/* ---- Looking at runs ---- */

bool hd_run_is(const char *dir)
{
    char path[PATH_BYTES];
    path_in(path, dir, "recipe.ini");
    if (strlen(dir) > PATH_BYTES - 32 || !hd_is_file(path)) return false;
    path_in(path, dir, "log.csv");
    return hd_is_file(path);
}

static hd_status note_key(void *arg, const char *section, const char *key, const char *value, const char *where, hd_err *err)
{
    hd_run_info *i = arg;
    (void)where, (void)err;
    if (strcmp(section, "train") == 0 && strcmp(key, "steps") == 0) i->steps = strtoll(value, NULL, 10);
    if (strcmp(section, "run") == 0 && strcmp(key, "name") == 0) snprintf(i->name, sizeof i->name, "%.63s", value);
    return HD_OK;
}

/* The last whole line of a log, n numbers of it; false: none. */
static bool last_line(double *v, int n, const char *dir, const char *name)
{
    char path[PATH_BYTES], text[4097];
    bool ok = false;
    path_in(path, dir, name);
    FILE *f = fopen(path, "re");
    if (!f) return false;
    if (fseek(f, -4096, SEEK_END) != 0) rewind(f);
    size_t len = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[len] = 0;
    char *end = strrchr(text, '\n');
    if (!end) return false;
    *end = 0;
    char *p = strrchr(text, '\n');
    if (!p) return false; // the head alone
    for (int i = 0; i < n; i++) {
        char *stop;
        v[i] = strtod(p + 1, &stop);
        ok = stop > p + 1 && (*stop == ',' || (i == n - 1 && !*stop));
        if (!ok) break;
        p = stop;
    }
    return ok;
}

hd_status hd_run_info_read(hd_run_info *i, const char *dir, hd_err *err)
{
    hd_status st;
    char path[PATH_BYTES];
    double log[9], val[3];
    *i = (hd_run_info){.bpb = -1, .state = HD_RUN_STOPPED};
    if (!hd_run_is(dir)) return hd_fail(err, HD_USAGE, "run: %.200s: no run's folder: it lacks recipe.ini or log.csv", dir);
    path_in(path, dir, "recipe.ini");
    HD_TRY(hd_ini_read(path, note_key, i, err));
    if (last_line(log, 9, dir, "log.csv")) {
        i->step = (int64_t)log[0];
        i->tokens = (int64_t)log[1];
        i->loss = log[2];
        i->seconds = log[8];
    }
    if (last_line(val, 3, dir, "val.csv")) i->bpb = val[2];
    if (is_locked(dir)) i->state = HD_RUN_RUNNING;
    else if (i->steps > 0 && i->step >= i->steps) i->state = HD_RUN_DONE;
fail:
    return st;
}

const char *hd_run_phase_name(hd_run_phase s)
{
    return s == HD_RUN_RUNNING ? "running" : s == HD_RUN_DONE ? "done" : "stopped";
}
