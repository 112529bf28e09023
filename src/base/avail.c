/* Memory within reach: the system's own estimate, and the limits of every control group
 * above this process. */
#include "base/avail.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A small file of the system's as a string; false when it is absent.  Read into the caller's memory: where
 * none is left, stdio would find no buffer, and the answer would be "without limit". */
bool hd_read_system_text(const char *root, const char *path, char *text, size_t size)
{
    char full[4096];
    int n = snprintf(full, sizeof full, "%s%s", root, path);
    int fd = n > 0 && (size_t)n < sizeof full ? open(full, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return false;
    size_t len = 0;
    ssize_t k;
    while (len + 1 < size && (k = read(fd, text + len, size - 1 - len)) > 0) len += (size_t)k;
    text[len] = 0;
    close(fd);
    return len > 0;
}

/* The number that a file holds; false when it is absent or says "max". */
static bool read_number(const char *root, const char *path, uint64_t *v)
{
    char text[64];
    bool ok = hd_read_system_text(root, path, text, sizeof text) && text[0] >= '0' && text[0] <= '9';
    if (ok) *v = strtoull(text, NULL, 10);
    return ok;
}

/* A named field of a file of "name value" lines. */
static bool read_field(const char *root, const char *path, const char *name, uint64_t *v)
{
    char text[16384];
    size_t n = strlen(name);
    if (!hd_read_system_text(root, path, text, sizeof text)) return false;
    for (char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, n) != 0 || !line[n] || !strchr(" :\t", line[n])) continue;
        *v = strtoull(line + n + strspn(line + n, ": \t"), NULL, 10);
        return true;
    }
    return false;
}

/* What one group leaves: its limit less its use; cached file pages can be given back, so they do not count as
 * use. */
static uint64_t group_left(const char *root, const char *dir, const char *limit, const char *use)
{
    char path[2304];
    uint64_t max, used = 0, cached = 0;
    snprintf(path, sizeof path, "%s/%s", dir, limit);
    if (!read_number(root, path, &max) || max > UINT64_MAX / 4)
        return UINT64_MAX; // v1 says "none" with a huge number
    snprintf(path, sizeof path, "%s/%s", dir, use);
    read_number(root, path, &used);
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    read_field(root, path, "inactive_file", &cached);
    used = used > cached ? used - cached : 0;
    return max > used ? max - used : 0;
}

/* The group and all groups above it: any of them may set the limit. */
static uint64_t groups_left(const char *root, const char *mount, char *group, const char *limit,
                            const char *use)
{
    uint64_t least = UINT64_MAX;
    char dir[2200];
    for (;;) {
        snprintf(dir, sizeof dir, "%s%s", mount, strcmp(group, "/") == 0 ? "" : group);
        uint64_t left = group_left(root, dir, limit, use);
        if (left < least) least = left;
        char *slash = strrchr(group, '/');
        if (!slash || group[1] == 0) return least;
        slash[slash == group ? 1 : 0] = 0;
    }
}

uint64_t hd_mem_available_at(const char *root)
{
    uint64_t least = UINT64_MAX, kb;
    char text[16384];
    if (read_field(root, "/proc/meminfo", "MemAvailable", &kb) && kb < UINT64_MAX / 1024) least = kb * 1024;
    if (!hd_read_system_text(root, "/proc/self/cgroup", text, sizeof text)) return least;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) { // "0::/path" (v2), "5:memory:/path" (v1)
        char *name = strchr(line, ':'), *path = name ? strchr(name + 1, ':') : NULL;
        if (!path || path[1] != '/') continue;
        *path++ = 0;
        uint64_t left = UINT64_MAX;
        if (name[1] == 0) left = groups_left(root, "/sys/fs/cgroup", path, "memory.max", "memory.current");
        else if (strcmp(name + 1, "memory") == 0)
            left = groups_left(root, "/sys/fs/cgroup/memory", path, "memory.limit_in_bytes",
                               "memory.usage_in_bytes");
        if (left < least) least = left;
    }
    return least;
}

uint64_t hd_mem_available(void) { return hd_mem_available_at(""); }
