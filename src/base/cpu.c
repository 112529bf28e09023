/* Counting cores.
 *
 * Two hardware threads of one core share its vector units, so a second compute thread there gains nothing and costs
 * synchronisation: count cores, by the first CPU of each `core_cpus_list` (`thread_siblings_list` before Linux 5.x).
 * A container's CPU quota is not seen in the affinity mask: threads beyond it would be stopped for the rest of each
 * period, all of them waiting for the stopped one.  So the quota, rounded down, is a limit too. */
#include "base/cpu.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/pool.h"

#define PATH_MAX_BYTES 4096

/* The first bytes of root/path as a string; false when it cannot be read. */
static bool read_text(char *out, size_t size, const char *root, const char *path)
{
    char full[2 * PATH_MAX_BYTES];
    int n = snprintf(full, sizeof full, "%s%s", root, path);
    if (n < 0 || (size_t)n >= sizeof full) return false;
    FILE *f = fopen(full, "re");
    if (!f) return false;
    size_t got = fread(out, 1, size - 1, f);
    out[got] = 0;
    fclose(f);
    return got > 0;
}

/* The lowest CPU of the core that `cpu` belongs to; `cpu` itself when the system does not say. */
static int first_of_core(const char *root, int cpu)
{
    static const char *const names[] = {"core_cpus_list", "thread_siblings_list"};
    char path[128], text[256];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/%s", cpu, names[i]);
        if (!read_text(text, sizeof text, root, path)) continue;
        char *end;
        long first = strtol(text, &end, 10);
        if (end != text && first >= 0 && first <= cpu) return (int)first;
    }
    return cpu;
}

/* Distinct cores among the CPUs of the mask. */
static int count_cores(const char *root, const cpu_set_t *set, size_t set_bytes)
{
    int n_cpus = (int)(set_bytes * 8), n = 0;
    bool *seen = calloc((size_t)n_cpus, sizeof *seen);
    if (!seen) return 1;
    for (int cpu = 0; cpu < n_cpus; cpu++) {
        if (!CPU_ISSET_S(cpu, set_bytes, set)) continue;
        int core = first_of_core(root, cpu);
        if (!seen[core]) n++;
        seen[core] = true;
    }
    free(seen);
    return n > 0 ? n : 1;
}

/* Whole CPUs that the cgroup at `dir` allows; `most` where it sets no limit. */
static int quota_of(const char *root, const char *dir, bool v2, int most)
{
    char path[PATH_MAX_BYTES + 64], text[128];
    long long quota = -1, period = 0;
    if (v2) { // "max 100000" or "150000 100000": microseconds a period
        snprintf(path, sizeof path, "%s/cpu.max", dir);
        if (!read_text(text, sizeof text, root, path) || sscanf(text, "%lld %lld", &quota, &period) != 2) return most;
    } else { // quota -1: none
        snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
        if (!read_text(text, sizeof text, root, path) || sscanf(text, "%lld", &quota) != 1) return most;
        snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
        if (!read_text(text, sizeof text, root, path) || sscanf(text, "%lld", &period) != 1) return most;
    }
    if (quota <= 0 || period <= 0) return most;
    long long cpus = quota / period;
    return cpus < 1 ? 1 : cpus < most ? (int)cpus : most;
}

/* The tightest limit from the group upwards: a parent's quota binds its children.  Inside a container the path may be the
 * host's, which does not exist here; walking up ends at the mount's top, which is the container's own group. */
static int quota_above(const char *root, const char *mount, const char *group, bool v2, int most)
{
    char dir[PATH_MAX_BYTES];
    size_t top = strlen(mount);
    int n = snprintf(dir, sizeof dir, "%s%s", mount, strcmp(group, "/") == 0 ? "" : group);
    if (n < 0 || (size_t)n >= sizeof dir) return most;
    for (;;) {
        most = quota_of(root, dir, v2, most);
        char *slash = strrchr(dir, '/');
        if (strlen(dir) <= top || !slash) return most;
        *slash = 0;
    }
}

/* Does the comma-separated list name the controller "cpu"? */
static bool names_cpu(const char *list)
{
    for (const char *s = list; *s;) {
        size_t n = strcspn(s, ",");
        if (n == 3 && memcmp(s, "cpu", 3) == 0) return true;
        s += n;
        if (*s) s++;
    }
    return false;
}

/* /proc/self/cgroup, one line a hierarchy: "4:cpu,cpuacct:/group" (v1), "0::/group" (v2); both kinds may stand together. */
static int cgroup_limit(const char *root, int most)
{
    char text[16384];
    if (!read_text(text, sizeof text, root, "/proc/self/cgroup")) return most;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        char *group = line, *id = strsep(&group, ":"), *list = group ? strsep(&group, ":") : NULL;
        if (!group) continue;
        if (group[0] != '/' || strstr(group, "/..")) group = "/"; // outside what this process can see
        if (names_cpu(list)) {
            most = quota_above(root, "/sys/fs/cgroup/cpu", group, false, most);
            most = quota_above(root, "/sys/fs/cgroup/cpu,cpuacct", group, false, most);
        } else if (strcmp(id, "0") == 0 && !*list) {
            most = quota_above(root, "/sys/fs/cgroup", group, true, most);
            most = quota_above(root, "/sys/fs/cgroup/unified", group, true, most);
        }
    }
    return most;
}

int hd_cpu_threads_at(const char *root, const cpu_set_t *set, size_t set_bytes)
{
    return cgroup_limit(root, count_cores(root, set, set_bytes));
}

int hd_cpu_threads(void)
{
    /* The kernel refuses a mask smaller than its own; 65536 CPUs is past any machine of today. */
    for (int n_cpus = 1024; n_cpus <= 65536; n_cpus *= 2) {
        size_t bytes = CPU_ALLOC_SIZE(n_cpus);
        cpu_set_t *set = CPU_ALLOC(n_cpus);
        if (!set) return 1;
        CPU_ZERO_S(bytes, set);
        bool ok = sched_getaffinity(0, bytes, set) == 0;
        int n = ok ? hd_cpu_threads_at("", set, bytes) : 0;
        CPU_FREE(set);
        if (ok) return n;
    }
    return 1;
}
