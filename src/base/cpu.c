/* Counting cores.
 *
 * Two hardware threads of one core share its vector units, so a second compute thread there gains
 * nothing and costs
 * synchronisation: count cores, by the first CPU of each `core_cpus_list` (`thread_siblings_list` before
 * Linux 5.x).  A container's CPU quota is not seen in the affinity mask: threads beyond it would be
 * stopped for the rest of each period, all of them waiting for the stopped one.  So the quota, rounded
 * down, is a limit too. */
#include "base/cpu.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/avail.h"
#include "base/pool.h"

#define PATH_MAX_BYTES 4096

enum { MOST_CPUS = 65536 }; // past any machine of today

/* The lowest CPU of the core that `cpu` belongs to; `cpu` itself when the system does not say. */
static int first_of_core(const char *root, int cpu)
{
    static const char *const names[] = {"core_cpus_list", "thread_siblings_list"};
    char path[128], text[256];
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/%s", cpu, names[i]);
        if (!hd_read_system_text(root, path, text, sizeof text)) continue;
        char *end;
        long first = strtol(text, &end, 10);
        if (end != text && first >= 0 && first <= cpu) return (int)first;
    }
    return cpu;
}

/* Distinct cores among the CPUs of the mask. */
static int count_cores(const char *root, const cpu_set_t *set, size_t set_bytes)
{
    int n_cpus = set_bytes * 8 < MOST_CPUS ? (int)(set_bytes * 8) : MOST_CPUS, n = 0;
    bool seen[MOST_CPUS] = {false}; // not on the heap: a machine is not smaller because memory is short
    for (int cpu = 0; cpu < n_cpus; cpu++) {
        if (!CPU_ISSET_S(cpu, set_bytes, set)) continue;
        int core = first_of_core(root, cpu);
        if (!seen[core]) n++;
        seen[core] = true;
    }
    return n > 0 ? n : 1;
}

/* Whole CPUs that the cgroup at `dir` allows; `most` where it sets no limit. */
static int quota_of(const char *root, const char *dir, bool v2, int most)
{
    char path[PATH_MAX_BYTES + 64], text[128];
    long long quota = -1, period = 0;
    if (v2) { // "max 100000" or "150000 100000": microseconds a period
        snprintf(path, sizeof path, "%s/cpu.max", dir);
        if (!hd_read_system_text(root, path, text, sizeof text) || sscanf(text, "%lld %lld", &quota, &period) != 2) return most;
    } else { // quota -1: none
        snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
        if (!hd_read_system_text(root, path, text, sizeof text) || sscanf(text, "%lld", &quota) != 1) return most;
        snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
        if (!hd_read_system_text(root, path, text, sizeof text) || sscanf(text, "%lld", &period) != 1) return most;
    }
    if (quota <= 0 || period <= 0) return most;
    long long cpus = quota / period;
    return cpus < 1 ? 1 : cpus < most ? (int)cpus : most;
}

/* The tightest limit from the group upwards: a parent's quota binds its children.  Inside a container the
 * path may be the host's, which does not exist here; walking up ends at the mount's top, which is the
 * container's own group. */
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

/* /proc/self/cgroup, one line a hierarchy: "4:cpu,cpuacct:/group" (v1), "0::/group" (v2); both kinds
 * may stand together. */
static int cgroup_limit(const char *root, int most)
{
    char text[16384];
    if (!hd_read_system_text(root, "/proc/self/cgroup", text, sizeof text)) return most;
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
    cpu_set_t set[MOST_CPUS / CPU_SETSIZE]; // the kernel refuses a mask smaller than its own
    CPU_ZERO_S(sizeof set, set);
    return sched_getaffinity(0, sizeof set, set) == 0 ? hd_cpu_threads_at("", set, sizeof set) : 1;
}
