/* Folders.  A new one is written beside its place and renamed into it; where another one stands, the two
 * change places in one step (renameat2), so that there is no moment without a whole folder of that name. */
#include "base/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_PATH_BYTES = 4096, MAX_DEPTH = 64 };

hd_status hd_folder_make(const char *path, hd_err *err)
{
    char part[MAX_PATH_BYTES];
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof part) return hd_fail(err, HD_USAGE, "create: '%.80s': no name of a folder", path);
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdir(part, 0777) != 0 && !hd_is_dir(part)) return hd_fail_errno(err, "create: %s", part);
    }
    return HD_OK;
}

/* at: a folder that holds `name`. */
static hd_status remove_in(int at, const char *name, int depth, const char *path, hd_err *err)
{
    hd_status st = HD_OK;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        st = hd_fail_errno(err, "remove: %s", path);
        if (fd >= 0) close(fd);
        return st;
    }
    for (struct dirent *e; st == HD_OK && (e = readdir(d));) {
        struct stat sb;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        if (fstatat(fd, e->d_name, &sb, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(sb.st_mode)) {
            if (depth == MAX_DEPTH) st = hd_fail(err, HD_LIMIT, "remove: %s: folders in folders in folders", path);
            else st = remove_in(fd, e->d_name, depth + 1, path, err);
        } else if (unlinkat(fd, e->d_name, 0) != 0 && errno != ENOENT) {
            st = hd_fail_errno(err, "remove: %s/%s", path, e->d_name);
        }
    }
    closedir(d);
    if (st == HD_OK && unlinkat(at, name, AT_REMOVEDIR) != 0) st = hd_fail_errno(err, "remove: %s", path);
    return st;
}

hd_status hd_folder_remove(const char *path, hd_err *err)
{
    struct stat sb;
    if (lstat(path, &sb) != 0) return errno == ENOENT ? HD_OK : hd_fail_errno(err, "remove: %s", path);
    return remove_in(AT_FDCWD, path, 0, path, err);
}

hd_status hd_file_copy(const char *to, const char *from, hd_err *err)
{
    hd_status st;
    hd_map m = {0};
    HD_TRY(hd_map_open(&m, from, err));
    HD_TRY(hd_file_write(to, m.data, m.size, err));
fail:
    hd_map_close(&m);
    return st;
}

static void sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    (void)!fsync(fd); // some file systems cannot; then nothing more can be done
    close(fd);
}

static void sync_parent(const char *path)
{
    char dir[MAX_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof dir) return;
    memcpy(dir, path, n);
    dir[n] = 0;
    sync_folder(n ? dir : slash ? "/" : ".");
}

static bool is_empty(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));) n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    if (d) closedir(d);
    return d && n == 0;
}

hd_status hd_newfolder_begin(hd_newfolder *f, const char *path, bool replace, hd_err *err)
{
    hd_status st;
    struct stat sb;
    size_t n = strlen(path);
    *f = (hd_newfolder){.replace = replace};
    while (n > 1 && path[n - 1] == '/') n--;
    if (n == 0 || n >= MAX_PATH_BYTES - 32) return hd_fail(err, HD_USAGE, "create: '%.80s': no name of a folder", path);
    HD_TRY(hd_alloc(&f->path, n + 1, err));
    memcpy(f->path, path, n);
    if (stat(f->path, &sb) == 0 && (!S_ISDIR(sb.st_mode) || (!replace && !is_empty(f->path))))
        HD_TRY(hd_fail(err, HD_IO, "create: %s: is there already and not an empty folder; nothing was written", f->path));
    HD_TRY(hd_alloc(&f->tmp, n + 32, err));
    snprintf(f->tmp, n + 32, "%s.part-%ld", f->path, (long)getpid());
    HD_TRY(hd_folder_remove(f->tmp, err)); // of an earlier process with this number
    HD_TRY(hd_folder_make(f->tmp, err));
    return HD_OK;
fail:
    hd_newfolder_abort(f);
    return st;
}

hd_status hd_newfolder_commit(hd_newfolder *f, hd_err *err)
{
    hd_status st = HD_OK;
    sync_folder(f->tmp);
    if (rename(f->tmp, f->path) == 0) { // nothing there, or an empty folder
        free(f->tmp);
        f->tmp = NULL;
    } else if (f->replace && (errno == ENOTEMPTY || errno == EEXIST) &&
               renameat2(AT_FDCWD, f->tmp, AT_FDCWD, f->path, RENAME_EXCHANGE) == 0) {
        sync_parent(f->path); // tmp is the old one now; abort removes it
    } else {
        st = hd_fail_errno(err, "rename: %s", f->path);
    }
    if (st == HD_OK) sync_parent(f->path);
    hd_newfolder_abort(f);
    return st;
}

void hd_newfolder_abort(hd_newfolder *f)
{
    if (f->tmp) hd_folder_remove(f->tmp, NULL);
    free(f->tmp);
    free(f->path);
    *f = (hd_newfolder){0};
}
