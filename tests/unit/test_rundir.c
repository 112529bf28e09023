/* A run's folder: what is written, what a resumed run cuts off, the lock, and what is said of it. */
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/folder.h"
#include "test.h"
#include "train/live.h"
#include "train/rundir.h"

static hd_err err;
static char dir[200];
static hd_recipe r;

static hd_buf text;
static const char *read_log(const char *name)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    hd_buf_clear(&text);
    CHECK_OK(hd_file_read(&text, path, &err));
    return text.data;
}

static void write_log(const char *name, const char *bytes)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "a");
    CHECK(f != NULL);
    if (f) fputs(bytes, f), fclose(f);
}

static hd_step_log step_log(int64_t step)
{
    hd_step_log s = {.step = step, .steps = 100, .tokens = step * 10, .loss = 3.0 - (double)step * 0.01, .lr = 0.001, .grad_norm = 1.5};
    s.tok_s = 12345;
    s.seconds = (double)step;
    s.val_bpb = step % 5 == 0 ? 2.0 - (double)step * 0.001 : -1;
    s.load_max = 1.25;
    return s;
}

static int lines(const char *s)
{
    int n = 0;
    for (; *s; s++) n += *s == '\n';
    return n;
}

static void run_steps(int64_t from, int64_t to)
{
    const int64_t load[3 * 4] = {0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8};
    hd_rundir *d = NULL;
    CHECK_OK(hd_rundir_open(&d, &r, from, false, &err));
    for (int64_t i = from + 1; d && i <= to; i++) {
        hd_step_log s = step_log(i);
        CHECK_OK(hd_rundir_step(d, &s, &err));
        if (i % 10 == 0) CHECK_OK(hd_rundir_load(d, i, load, 3, 4, &err));
        if (i % 10 == 0) CHECK_OK(hd_rundir_sample(d, i, "Once --- step 3 --- upon\na time", &err));
    }
    hd_rundir_close(d);
}

static void test_logs(void)
{
    hd_run_info i;
    char whole[3][8192];
    run_steps(0, 40);
    CHECK(lines(read_log("log.csv")) == 41 && strncmp(text.data, "step,tokens,loss,", 17) == 0);
    CHECK(strstr(text.data, "\n7,70,2.93,0,0,0.001,1.5,12345,7.000,0,1.25,0,0\n") != NULL, "%s", text.data);
    CHECK(lines(read_log("val.csv")) == 9 && strstr(text.data, "\n15,150,1.985,15.000\n"));
    CHECK(strstr(read_log("load.csv"), "step,layer,e0,e1,e2,e3\n10,1,1,2,3,4\n10,2,5,6,7,8\n20,1,") == text.data && lines(text.data) == 9);
    CHECK(lines(read_log("samples.txt")) == 12);
    CHECK(strstr(read_log("recipe.ini"), "[train]\nsteps = 100\n") != NULL);
    CHECK_OK(hd_run_info_read(&i, dir, &err));
    CHECK(i.step == 40 && i.steps == 100 && i.tokens == 400 && i.loss == 2.6 && i.bpb == 1.96 && i.seconds == 40);
    CHECK(i.state == HD_RUN_STOPPED && strcmp(i.name, "test run") == 0);

    /* A crash in the middle of a line; the newest checkpoint is that of step 25. */
    static const char *const logs[] = {"log.csv", "val.csv", "load.csv", "samples.txt"};
    write_log("log.csv", "41,410,2.59,0,0");
    run_steps(25, 100);
    for (int k = 0; k < 3; k++) snprintf(whole[k], sizeof whole[k], "%s", read_log(logs[k]));
    CHECK(lines(whole[0]) == 101 && lines(whole[1]) == 21 && lines(whole[2]) == 21);
    CHECK(lines(read_log("samples.txt")) == 30);
    CHECK_OK(hd_run_info_read(&i, dir, &err));
    CHECK(i.state == HD_RUN_DONE && i.step == 100);

    /* As the unbroken run's, and begun anew from nothing. */
    run_steps(0, 100);
    for (int k = 0; k < 3; k++) CHECK(strcmp(read_log(logs[k]), whole[k]) == 0, "%s", logs[k]);
}

static void test_lock(void)
{
    hd_rundir *d = NULL, *e = NULL;
    hd_run_info i;
    int to[2], back[2], status;
    char c;
    CHECK(pipe(to) == 0 && pipe(back) == 0);
    fflush(stdout), fflush(stderr);
    pid_t pid = fork();
    if (pid == 0) {
        hd_status st = hd_rundir_open(&d, &r, 0, false, &err);
        if (write(back[1], st == HD_OK ? "y" : "n", 1) != 1) _exit(1);
        if (read(to[0], &c, 1) < 0) _exit(1);
        _exit(0); // as after kill -9: nothing is closed by hand
    }
    CHECK(read(back[0], &c, 1) == 1 && c == 'y');
    CHECK(hd_rundir_open(&e, &r, 0, false, &err) == HD_USAGE && !e);
    char want[40];
    snprintf(want, sizeof want, "process %ld", (long)pid);
    CHECK(strstr(err.msg, want) != NULL, "%s", err.msg);
    CHECK_OK(hd_run_info_read(&i, dir, &err));
    CHECK(i.state == HD_RUN_RUNNING && i.step == 0);
    CHECK(write(to[1], "x", 1) == 1 && waitpid(pid, &status, 0) == pid);
    CHECK_OK(hd_rundir_open(&e, &r, 0, false, &err));
    hd_rundir_close(e);
}

static void test_live(void)
{
    hd_live l;
    hd_step_log s = step_log(50);
    char line[512];
    hd_live_begin(&l, &r);
    l.bpb = 2.345, l.step_s = 2;
    s.share_of_peak = 0.38;
    s.seconds = 3600;
    hd_live_text(line, sizeof line, &l, &s);
    CHECK(strcmp(line, "test run [##########..........] 50/100  loss 2.5000  val 2.3450 bpb  12.3k tok/s  38 % of peak  2 min left"
                       "  so far 1 h, 0.065 kWh, $0.113") == 0,
          "%s", line);
    s.skipped = true, s.loss = NAN;
    hd_live_text(line, 40, &l, &s); // cut, not overrun
    CHECK(strlen(line) == 39);
}

static void test_refusals(void)
{
    hd_rundir *d = NULL;
    hd_run_info i;
    hd_recipe bad = r;
    snprintf(bad.out, sizeof bad.out, "%s/recipe.ini/x", dir); // below a file
    CHECK(hd_rundir_open(&d, &bad, 0, false, &err) == HD_IO && !d);
    CHECK(hd_run_info_read(&i, "/nowhere", &err) == HD_USAGE && strstr(err.msg, "/nowhere"));
    /* A full disk, as a limit on the file's size: told of, and what was whole stays. */
    struct rlimit old, small;
    signal(SIGXFSZ, SIG_IGN);
    CHECK_OK(hd_rundir_open(&d, &r, 0, false, &err));
    CHECK(getrlimit(RLIMIT_FSIZE, &old) == 0);
    small = old, small.rlim_cur = 2000;
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    hd_status st = HD_OK;
    int64_t n = 0;
    while (st == HD_OK && n < 100) {
        hd_step_log s = step_log(++n);
        st = hd_rundir_step(d, &s, &err);
    }
    CHECK(setrlimit(RLIMIT_FSIZE, &old) == 0);
    CHECK(st == HD_IO && strstr(err.msg, "log.csv") && n > 10, "status %d at %d: %s", st, (int)n, err.msg);
    hd_rundir_close(d);
    CHECK_OK(hd_rundir_open(&d, &r, n - 1, false, &err));
    hd_rundir_close(d);
    CHECK(lines(read_log("log.csv")) == n);
}

int main(void)
{
    snprintf(dir, sizeof dir, "/tmp/hadal-test-rundir-%d/a/b", (int)getpid());
    snprintf(r.name, sizeof r.name, "test run");
    snprintf(r.out, sizeof r.out, "%s", dir);
    r.steps = 100, r.n_sources = 1, r.watts = 65, r.usd_per_kwh = 0.2, r.usd_per_hour = 0.1;
    snprintf(r.source[0].path, sizeof r.source[0].path, "x");
    hd_buf_init(&text, 1 << 20);
    test_logs();
    test_lock();
    test_live();
    test_refusals();
    dir[strlen(dir) - 4] = 0;
    CHECK_OK(hd_folder_remove(dir, &err));
    hd_buf_free(&text);
    return hd_test_end();
}
