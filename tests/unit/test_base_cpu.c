/* hd_cpu_threads: on made-up machines (a folder with sysfs, cgroup and proc files) and under a
 * real affinity mask. */
#include "base/cpu.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/pool.h"
#include "test.h"

static char root[] = "/tmp/hadal-cpu-XXXXXX";

/* Writes root/path, making its folders. */
static void put(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *s = full + strlen(root) + 1; *s; s++) {
        if (*s != '/') continue;
        *s = 0;
        mkdir(full, 0777);
        *s = '/';
    }
    FILE *f = fopen(full, "w");
    CHECK(f != NULL, "%s: %s", full, strerror(errno));
    if (f) fputs(text, f), fclose(f);
}

static void wipe(void)
{
    char cmd[512];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'/*", root);
    CHECK(system(cmd) == 0);
}

static void siblings(const char *file, int cpu, const char *list)
{
    char path[128];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/%s", cpu, file);
    put(path, list);
}

/* Threads for CPUs first .. last. */
static int count(int first, int last)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = first; i <= last; i++) CPU_SET(i, &set);
    return hd_cpu_threads_at(root, &set, sizeof set);
}

static void cores(void)
{
    wipe();
    CHECK(count(0, 5) == 6); // a system that says nothing: each CPU counts
    /* Four cores of two threads, numbered as servers do: 0-3 and 4-7. */
    for (int i = 0; i < 8; i++) {
        char list[32];
        snprintf(list, sizeof list, "%d,%d\n", i % 4, i % 4 + 4);
        siblings("core_cpus_list", i, list);
    }
    CHECK(count(0, 7) == 4);
    CHECK(count(0, 3) == 4);
    CHECK(count(3, 4) == 2);
    CHECK(count(4, 7) == 4); // only the second threads: still four cores
    CHECK(count(2, 2) == 1);
    wipe();
    for (int i = 0; i < 8; i++) { // numbered as laptops do: 0-1, 2-3, ..., in the older file
        char list[32];
        snprintf(list, sizeof list, "%d-%d\n", i / 2 * 2, i / 2 * 2 + 1);
        siblings("thread_siblings_list", i, list);
    }
    CHECK(count(0, 7) == 4);
    CHECK(count(1, 2) == 2);
    wipe();
    siblings("core_cpus_list", 0, "nonsense");
    siblings("core_cpus_list", 1, "99999999\n");
    CHECK(count(0, 1) == 2);
}

static void quotas(void)
{
    wipe();
    put("/proc/self/cgroup", "0::/user.slice/app.scope\n");
    CHECK(count(0, 7) == 8); // no such group here
    put("/sys/fs/cgroup/user.slice/app.scope/cpu.max", "max 100000\n");
    CHECK(count(0, 7) == 8);
    put("/sys/fs/cgroup/user.slice/app.scope/cpu.max", "450000 100000\n");
    CHECK(count(0, 7) == 4);
    put("/sys/fs/cgroup/user.slice/cpu.max", "300000 100000\n"); // a parent's limit binds too
    CHECK(count(0, 7) == 3);
    put("/sys/fs/cgroup/cpu.max", "20000 100000\n"); // inside a container the mount's top is the container's group
    CHECK(count(0, 7) == 1);
    put("/sys/fs/cgroup/cpu.max", "9000000 100000\n");
    CHECK(count(0, 7) == 3);
    CHECK(count(0, 1) == 2);

    wipe();
    put("/proc/self/cgroup", "5:cpuset:/x\n4:cpu,cpuacct:/docker/abc\n0::/\n");
    put("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us", "100000\n");
    CHECK(count(0, 7) == 8);
    put("/sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us", "250000\n");
    CHECK(count(0, 7) == 2);
    wipe();
    put("/proc/self/cgroup", "4:cpuacct,cpu:/docker/abc\n"); // the host's path; here only the mount's top exists
    put("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "500000\n");
    put("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    CHECK(count(0, 7) == 5);
    wipe();
    put("/proc/self/cgroup", "0::/../other\n");
    put("/sys/fs/cgroup/cpu.max", "600000 100000\n");
    CHECK(count(0, 7) == 6);
    wipe();
    put("/proc/self/cgroup", "\n::\nno colons\n1:cpu\n4:cpu:relative\n0::/a\n");
    put("/sys/fs/cgroup/a/cpu.max", "0 0\n");
    CHECK(count(0, 7) == 8);
    put("/sys/fs/cgroup/a/cpu.max", "-5 100000\n");
    CHECK(count(0, 7) == 8);
    put("/sys/fs/cgroup/a/cpu.max", "99999999999999999999999 1\n");
    CHECK(count(0, 7) == 8);
}

/* As under taskset: the mask of a child is narrowed to its first allowed CPU. */
static void real_affinity(void)
{
    int all = hd_cpu_threads(), status = 0;
    CHECK(all >= 1);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        cpu_set_t set;
        sched_getaffinity(0, sizeof set, &set);
        int first = 0;
        while (!CPU_ISSET(first, &set)) first++;
        CPU_ZERO(&set);
        CPU_SET(first, &set);
        sched_setaffinity(0, sizeof set, &set);
        _exit(hd_cpu_threads());
    }
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %x", status);
}

int main(void)
{
    if (!mkdtemp(root)) return 1;
    cores();
    quotas();
    real_affinity();
    wipe();
    rmdir(root);
    return hd_test_end();
}
