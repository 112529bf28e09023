/* The kept corpus without libFuzzer: HD_CORPUS is the folder of this target's inputs.  Each is given whole,
 * then cut short: at every byte when it is small, at 256 places otherwise, since truncation is what real
 * files suffer most.
 *
 * A crash ends the program, which tests/run counts; an input that takes over a second of processor time
 * fails here.  Bytes are copied to a block of exactly their size, so that the address sanitizer sees a
 * read past the end. */
#include <dirent.h>
#include <time.h>

#include "base/file.h"
#include "test.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static double slowest(const uint8_t *data, size_t size, double so_far)
{
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) return 1e9;
    if (size) memcpy(copy, data, size);
    double t = cpu_s();
    LLVMFuzzerTestOneInput(copy, size);
    t = cpu_s() - t;
    free(copy);
    return t > so_far ? t : so_far;
}

static void replay(const char *path)
{
    hd_err err = {0};
    hd_buf b;
    hd_buf_init(&b, 16 << 20);
    CHECK_OK(hd_file_read(&b, path, &err));
    const uint8_t *data = (const uint8_t *)b.data;
    double t = slowest(data, b.len, 0);
    size_t step = b.len <= 2048 ? 1 : b.len / 256;
    for (size_t n = 0; n < b.len; n += step) t = slowest(data, n, t);
    CHECK(t < 1, "%s: %.1f s for one input", path, t);
    hd_buf_free(&b);
}

int main(void)
{
    char path[4096];
    DIR *d = opendir(HD_CORPUS);
    CHECK(d != NULL, "%s: no corpus", HD_CORPUS);
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", HD_CORPUS, e->d_name);
        replay(path);
    }
    if (d) closedir(d);
    return hd_test_end();
}
