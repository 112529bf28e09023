/* Files: mapped or read whole, regular files only (never a FIFO, device or directory), and
 * replaced atomically. */
#ifndef HD_BASE_FILE_H
#define HD_BASE_FILE_H

#include "base/buf.h"

typedef struct {
    const uint8_t *data;
    size_t size;
} hd_map;

/* Map a regular file read-only; reading a little brings a little into memory.  An empty file gives size
 * 0 and data NULL. */
hd_status hd_map_open(hd_map *m, const char *path, hd_err *err);
void hd_map_close(hd_map *m);
/* Tell the system that [p, p+n) of the mapping will not be read again soon: resident pages are dropped. */
void hd_map_release(const hd_map *m, const void *p, size_t n_bytes);

/* Append a regular file's bytes; more than b->max is HD_LIMIT. */
hd_status hd_file_read(hd_buf *b, const char *path, hd_err *err);
bool hd_is_dir(const char *path);
bool hd_is_file(const char *path);

/* Write beside the target and rename over it: at any moment `path` is the old file or the new one, whole.
 * begin -> write (any number) -> commit (fsync, rename, fsync of the folder); abort (or a crash) leaves the
 * old file.  abort after commit, or on a zeroed object, does nothing. */
typedef struct {
    int fd;
    uint64_t offset;
    char *path, *tmp;
    bool stays; // abort leaves what is written
} hd_newfile;
hd_status hd_newfile_begin(hd_newfile *f, const char *path, hd_err *err);
/* For what takes long to make: as begin, but PATH.part is written, and goes on where an earlier one was
 * broken off: bytes [0, offset) of it stand.  abort leaves it.  One process at a time: HD_IO while
 * another writes it. */
hd_status hd_newfile_take_up(hd_newfile *f, const char *path, hd_err *err);
hd_status hd_newfile_cut(hd_newfile *f, uint64_t n, hd_err *err); // to the first n bytes; writing goes on behind them
hd_status hd_newfile_write(hd_newfile *f, const void *p, size_t n, hd_err *err);
hd_status hd_newfile_commit(hd_newfile *f, hd_err *err);
void hd_newfile_abort(hd_newfile *f);
/* All of these in one: p[n] as a file. */
hd_status hd_file_write(const char *path, const void *p, size_t n, hd_err *err);

#endif
