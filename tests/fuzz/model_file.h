/* For targets whose parser wants a path: a folder of files in memory that the process alone sees.
 *
 * memfd_create gives an anonymous file; /proc/self/fd/N is its path.  A directory cannot be had that way, so
 * directory targets use a folder under TMPDIR (or /dev/shm, where it exists), made once a process and removed
 * at its end. */
#ifndef HD_FUZZ_MODEL_FILE_H
#define HD_FUZZ_MODEL_FILE_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static char fuzz_dir[64];

static void fuzz_dir_end(void)
{
    static const char *const names[] = {"config.json", "generation_config.json", "model.safetensors",
                                        "model.safetensors.index.json"};
    char path[128];
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", fuzz_dir, names[i]);
        unlink(path);
    }
    rmdir(fuzz_dir);
}

static inline const char *fuzz_folder(void)
{
    if (fuzz_dir[0]) return fuzz_dir;
    snprintf(fuzz_dir, sizeof fuzz_dir, "%s/hadal-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(fuzz_dir)) abort();
    atexit(fuzz_dir_end);
    return fuzz_dir;
}

static inline void fuzz_put(const char *name, const void *p, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, p, n) != (ssize_t)n) abort();
    close(fd);
}

/* What a command would look at next: every tensor's first and last byte, and the plan. */
static inline void fuzz_visit(const hd_source *s)
{
    volatile uint8_t sink = 0;
    (void)sink; // written so that the reads stay; never looked at
    hd_plan plan;
    hd_err err;
    for (int64_t i = 0; i < hd_source_n_tensors(s); i++) {
        const hd_tensor_info *t = hd_source_tensor(s, i);
        if (t->bytes) sink ^= t->data[0] ^ t->data[t->bytes - 1];
        if (hd_source_find(s, t->name) != t) abort();
    }
    if (hd_source_config(s)) hd_model_plan(&plan, s, HD_CACHE_F16, &err);
}

#endif
