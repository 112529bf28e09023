/* Files of the user's: opened so that nothing which is not a regular file can block or surprise, and replaced
 * so that a reader sees the old bytes or the new ones, never a mixture. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* A descriptor of a regular file, or an error.  O_NONBLOCK: opening a FIFO without a writer
 * would wait for ever. */
static hd_status open_regular(int *fd, struct stat *sb, const char *path, hd_err *err)
{
    const char *kind;
    *fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (*fd < 0) return hd_fail_errno(err, "open: %s", path);
    if (fstat(*fd, sb) != 0) {
        hd_fail_errno(err, "open: %s", path);
        goto fail;
    }
    if (S_ISREG(sb->st_mode)) return HD_OK;
    kind = S_ISDIR(sb->st_mode)                              ? "a folder"
           : S_ISFIFO(sb->st_mode)                           ? "a pipe"
           : S_ISCHR(sb->st_mode) || S_ISBLK(sb->st_mode)    ? "a device"
                                                             : "no file";
    hd_fail(err, HD_IO, "open: %s: is %s; a regular file is needed", path, kind);
fail:
    close(*fd);
    *fd = -1;
    return HD_IO;
}

/* Linux maps what is around a read: 64 KB, but 2 MB where its copy of the file lies in such pieces and an
 * address can be a huge page's (even when advised not to).  Reading one row here and there then holds
 * megabytes each; so addresses and offsets differ by 64 KB, modulo 2 MB. */
static void *map_at_odds(size_t n, int fd)
{
    const size_t huge = (size_t)2 << 20, odd = (size_t)64 << 10, page = (size_t)sysconf(_SC_PAGESIZE);
    size_t all = n + huge + odd;
    uint8_t *room = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) return room;
    uint8_t *at = room + (-(uintptr_t)room & (huge - 1)) + odd, *end = at + (n + page - 1) / page * page;
    void *p = mmap(at, n, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, 0);
    if (p == MAP_FAILED) {
        int why = errno;
        munmap(room, all);
        errno = why;
        return p;
    }
    munmap(room, (size_t)(at - room));
    if (end < room + all) munmap(end, (size_t)(room + all - end));
    return p;
}

hd_status hd_map_open(hd_map *m, const char *path, hd_err *err)
{
    int fd;
    struct stat sb;
    *m = (hd_map){0};
    hd_status st = open_regular(&fd, &sb, path, err);
    if (st != HD_OK) return st;
    if ((uint64_t)sb.st_size > SIZE_MAX / 2) {
        st = hd_fail(err, HD_LIMIT, "map: %s: larger than this machine's address space", path);
    } else if (sb.st_size > 0) {
        void *p = map_at_odds((size_t)sb.st_size, fd);
        if (p == MAP_FAILED) st = hd_fail_errno(err, "map: %s", path);
        else *m = (hd_map){p, (size_t)sb.st_size};
    }
    close(fd); // the mapping keeps the file
    return st;
}

void hd_map_close(hd_map *m)
{
    if (m->data) munmap((void *)m->data, m->size);
    *m = (hd_map){0};
}

void hd_map_release(const hd_map *m, const void *p, size_t n_bytes)
{
    /* Whole pages inside the range only: a neighbour may still be reading the rest of the
     * first and last ones. */
    size_t page = (size_t)sysconf(_SC_PAGESIZE), end;
    const uint8_t *q = p;
    if (!m->data || q < m->data || q > m->data + m->size) return;
    size_t from = (size_t)(q - m->data);
    if (!hd_add(&end, from, n_bytes) || end > m->size) end = m->size;
    from = (from + page - 1) / page * page;
    if (end < m->size) end = end / page * page; // the file's last page is whole by itself
    if (from < end) madvise((void *)(m->data + from), end - from, MADV_DONTNEED);
}

hd_status hd_file_read(hd_buf *b, const char *path, hd_err *err)
{
    int fd;
    struct stat sb;
    char block[16384];
    hd_status st = open_regular(&fd, &sb, path, err);
    if (st != HD_OK) return st;
    if ((uint64_t)sb.st_size > b->max - b->len) {
        st = hd_fail(err, HD_LIMIT, "read: %s: %lld bytes: over the limit of %zu", path, (long long)sb.st_size,
                     b->max - b->len);
        goto fail;
    }
    for (;;) { // to the end, whatever fstat said: files in /proc and /sys have size 0, and a log may be growing
        ssize_t n = read(fd, block, sizeof block);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) st = hd_fail_errno(err, "read: %s", path);
        if (n <= 0) break;
        HD_TRY(hd_buf_add(b, block, (size_t)n, err));
    }
    if (st == HD_OK && !b->data) st = hd_buf_add(b, "", 0, err); // an empty file is a string too
fail:
    close(fd);
    return st;
}

bool hd_is_dir(const char *path)
{
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISDIR(sb.st_mode);
}

bool hd_is_file(const char *path)
{
    struct stat sb;
    return stat(path, &sb) == 0 && S_ISREG(sb.st_mode);
}

/* Opens a new name beside f->path; O_EXCL makes it ours. */
static hd_status open_beside(hd_newfile *f, mode_t mode, hd_err *err)
{
    size_t n = strlen(f->path) + 40;
    hd_status st = hd_alloc(&f->tmp, n, err);
    if (st != HD_OK) return st;
    for (int i = 0; i < 1000; i++) {
        snprintf(f->tmp, n, "%s.part-%ld-%d", f->path, (long)getpid(), i);
        f->fd = open(f->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
        if (f->fd >= 0 || errno != EEXIST) break;
    }
    if (f->fd < 0) st = hd_fail_errno(err, "create: %s", f->path);
    return st;
}

hd_status hd_newfile_begin(hd_newfile *f, const char *path, hd_err *err)
{
    hd_status st = HD_OK;
    struct stat sb;
    *f = (hd_newfile){.fd = -1};
    bool exists = stat(path, &sb) == 0;
    if (exists && !S_ISREG(sb.st_mode))
        return hd_fail(err, HD_IO, "create: %s: exists and is no regular file", path);
    /* Through a symbolic link, the file it points to is replaced and the link stays. */
    char *real = exists ? realpath(path, NULL) : NULL;
    if (exists && !real) return hd_fail_errno(err, "create: %s", path);
    if (real) f->path = real;
    else HD_TRY(hd_strdup(&f->path, path, err));
    HD_TRY(open_beside(f, 0666, err));
    if (exists) (void)!fchmod(f->fd, sb.st_mode & 07777); // a private file stays private; refusal leaves the default
    return HD_OK;
fail:
    if (f->fd < 0) { // nothing was created, so there is nothing to unlink
        free(f->tmp);
        f->tmp = NULL;
    }
    hd_newfile_abort(f);
    return st;
}

hd_status hd_newfile_take_up(hd_newfile *f, const char *path, hd_err *err)
{
    hd_status st;
    struct stat sb;
    size_t n = strlen(path) + sizeof ".part";
    *f = (hd_newfile){.fd = -1, .stays = true};
    if (stat(path, &sb) == 0 && !S_ISREG(sb.st_mode))
        return hd_fail(err, HD_IO, "create: %s: exists and is no regular file", path);
    HD_TRY(hd_strdup(&f->path, path, err));
    HD_TRY(hd_alloc(&f->tmp, n, err));
    snprintf(f->tmp, n, "%s.part", path);
    f->fd = open(f->tmp, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
    if (f->fd < 0 || fstat(f->fd, &sb) != 0) HD_TRY(hd_fail_errno(err, "create: %s", f->tmp));
    if (!S_ISREG(sb.st_mode)) HD_TRY(hd_fail(err, HD_IO, "create: %s: exists and is no regular file", f->tmp));
    if (flock(f->fd, LOCK_EX | LOCK_NB) != 0)
        HD_TRY(hd_fail(err, HD_IO, "create: %s: another process is writing it", f->tmp));
    HD_TRY(hd_newfile_cut(f, (uint64_t)sb.st_size, err));
    return HD_OK;
fail:
    hd_newfile_abort(f);
    return st;
}

hd_status hd_newfile_cut(hd_newfile *f, uint64_t n, hd_err *err)
{
    if (ftruncate(f->fd, (off_t)n) != 0 || lseek(f->fd, (off_t)n, SEEK_SET) < 0) return hd_fail_errno(err, "cut: %s", f->tmp);
    f->offset = n;
    return HD_OK;
}

hd_status hd_newfile_write(hd_newfile *f, const void *p, size_t n, hd_err *err)
{
    const char *s = p;
    while (n > 0) {
        ssize_t k = write(f->fd, s, n < (1 << 30) ? n : 1 << 30);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return hd_fail_errno(err, "write: %s", f->path);
        s += k, n -= (size_t)k;
        f->offset += (uint64_t)k;
    }
    return HD_OK;
}

/* A rename lasts only once its folder is on disk.  Some file systems cannot sync a folder; then nothing
 * more can be done. */
static void sync_folder(const char *path)
{
    char *dir = strdup(path), *slash = dir ? strrchr(dir, '/') : NULL;
    if (dir) {
        if (slash == dir) slash[1] = 0;
        else if (slash) *slash = 0;
        int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0) {
            (void)!fsync(fd);
            close(fd);
        }
    }
    free(dir);
}

hd_status hd_newfile_commit(hd_newfile *f, hd_err *err)
{
    hd_status st = HD_OK;
    if (fsync(f->fd) != 0 && errno != EINVAL) { // EINVAL: a file system without sync
        st = hd_fail_errno(err, "write: %s", f->path);
        goto fail;
    }
    if (close(f->fd) != 0) st = hd_fail_errno(err, "write: %s", f->path); // network file systems report late
    f->fd = -1;
    if (st == HD_OK && rename(f->tmp, f->path) != 0) st = hd_fail_errno(err, "rename: %s", f->path);
    if (st != HD_OK) goto fail;
    sync_folder(f->path);
    free(f->tmp); // the name is gone: abort must not unlink it
    f->tmp = NULL;
fail:
    hd_newfile_abort(f);
    return st;
}

void hd_newfile_abort(hd_newfile *f)
{
    if (f->tmp) {
        if (f->fd >= 0) close(f->fd);
        if (!f->stays) unlink(f->tmp);
    }
    free(f->tmp);
    free(f->path);
    *f = (hd_newfile){.fd = -1};
}

hd_status hd_file_write(const char *path, const void *p, size_t n, hd_err *err)
{
    hd_status st;
    hd_newfile f = {.fd = -1};
    HD_TRY(hd_newfile_begin(&f, path, err));
    HD_TRY(hd_newfile_write(&f, p, n, err));
    HD_TRY(hd_newfile_commit(&f, err));
fail:
    hd_newfile_abort(&f);
    return st;
}
