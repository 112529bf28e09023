/* Small model files made byte by byte, so that tests can break every one of them.
 *
 * A builder remembers where each integer stands and how wide it is; a test then replaces one
 * after the other. */
#ifndef HD_FILES_BUILD_H
#define HD_FILES_BUILD_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "model/gguf.h"

enum { BUILD_CAP = 1 << 18, BUILD_FIELDS = 1024 };

typedef struct {
    uint8_t b[BUILD_CAP];
    size_t n;
    size_t at[BUILD_FIELDS]; // integers: place and bytes
    int width[BUILD_FIELDS];
    bool loose[BUILD_FIELDS]; // the value of a key: the format itself does not mind which
    int n_fields;
} builder;

static inline void put(builder *b, const void *p, size_t n)
{
    if (b->n + n > BUILD_CAP) abort();
    memcpy(b->b + b->n, p, n);
    b->n += n;
}

static inline void put_int(builder *b, uint64_t v, int width)
{
    if (b->n_fields == BUILD_FIELDS) abort();
    b->at[b->n_fields] = b->n;
    b->loose[b->n_fields] = false;
    b->width[b->n_fields++] = width;
    put(b, &v, (size_t)width); // little-endian machines only, as the formats
}

static inline void put_value(builder *b, uint64_t v, int width)
{
    put_int(b, v, width);
    b->loose[b->n_fields - 1] = true;
}

static inline void put_str(builder *b, const char *s)
{
    put_int(b, strlen(s), 8);
    put(b, s, strlen(s));
}

static inline void put_key(builder *b, const char *key, uint32_t type)
{
    put_str(b, key);
    put_int(b, type, 4);
}

static inline void kv_u32(builder *b, const char *key, uint32_t v)
{
    put_key(b, key, HD_GGUF_U32);
    put_value(b, v, 4);
}

static inline void kv_f32(builder *b, const char *key, float v)
{
    put_key(b, key, HD_GGUF_F32);
    put(b, &v, 4);
}

static inline void kv_bool(builder *b, const char *key, bool v)
{
    put_key(b, key, HD_GGUF_BOOL);
    put(b, &(uint8_t){v}, 1);
}

static inline void kv_str(builder *b, const char *key, const char *v)
{
    put_key(b, key, HD_GGUF_STR);
    put_str(b, v);
}

static inline void kv_strs(builder *b, const char *key, const char *const *v, uint64_t n)
{
    put_key(b, key, HD_GGUF_ARR);
    put_int(b, HD_GGUF_STR, 4);
    put_int(b, n, 8);
    for (uint64_t i = 0; i < n; i++) put_str(b, v[i]);
}

/* dims as the file has them, innermost first */
static inline void tensor_info(builder *b, const char *name, int n_dims, const uint64_t *dim, uint32_t type,
                               uint64_t offset)
{
    put_str(b, name);
    put_int(b, (uint32_t)n_dims, 4);
    for (int i = 0; i < n_dims; i++) put_int(b, dim[i], 8);
    put_int(b, type, 4);
    put_int(b, offset, 8);
}

static inline void header(builder *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    b->n = 0;
    b->n_fields = 0;
    put(b, "GGUF", 4);
    put_int(b, version, 4);
    put_int(b, n_tensors, 8);
    put_int(b, n_kv, 8);
}

static inline void pad(builder *b, size_t align)
{
    while (b->n % align) put(b, "", 1);
}

/* ---- Files in a folder of their own, removed at the end ---- */

static char build_dir[256];

static inline void build_begin(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(build_dir, sizeof build_dir, "%s/hadal-test-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(build_dir)) abort();
}

static inline void build_end(void)
{
    char cmd[300];
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", build_dir);
    if (system(cmd) != 0) fprintf(stderr, "%s is left\n", build_dir);
}

/* A path in the folder; the last four stay valid. */
static inline const char *build_path(const char *name)
{
    static char path[4][512];
    static int k;
    if (!build_dir[0]) abort(); // build_begin comes first
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", build_dir, name);
    return path[k];
}

static inline const char *build_file(const char *name, const void *p, size_t n)
{
    const char *path = build_path(name);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    if (fd < 0 || write(fd, p, n) != (ssize_t)n || close(fd) != 0) abort();
    return path;
}

/* The replacements that every integer of a file is tried with. */
static const uint64_t build_evil[] = {
    0,          1,          2,          0x7fffffff, 0x80000000, 0xffffffff, 0x1d1d1d1d1d1d1d1dull,
    1ull << 32, 1ull << 60, 1ull << 61, 1ull << 62, ~0ull >> 1, 1ull << 63, ~0ull - 7,
    ~0ull,
};
enum { BUILD_EVIL = sizeof build_evil / sizeof build_evil[0] };

#endif
